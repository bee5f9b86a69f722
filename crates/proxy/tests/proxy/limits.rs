//! What clients may take, whom they are believed, and that a changed gateway counts at once.

use std::time::Duration;

use ringmaster_core::quantity::{Memory, Span};
use ringmaster_core::spec::{ClientLimits, HashOn, Network};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::origin::Origin;
use crate::world::{World, hashing, replica, service, within};

/// Says what it got of a request: its head, or the length of its body.
async fn echo() -> Origin {
    Origin::script(|mut conn| async move {
        while let Some(request) = conn.request().await {
            let body = if request.body.is_empty() { request.head } else { request.body.len().to_string() };
            conn.ok(&body).await;
        }
    })
    .await
}

async fn world_with(origin: &Origin, limit: impl FnOnce(&mut ClientLimits)) -> World {
    let mut world =
        World::start_with(|config| config.workers = 1, [service("web", 1, &[(0, 0, origin.address)])]).await;
    world.change(|snapshot| limit(&mut snapshot.front.limits)).await;
    world
}

/// How long until the connection ends without a byte.
async fn ends_after(client: &mut Client) -> Duration {
    let began = Instant::now();
    assert!(client.is_closed().await);
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_has_to_come_in_time_however_slowly_it_drips() {
    let origin = echo().await;
    let world = world_with(&origin, |limits| limits.header_timeout = Span::from_millis(400)).await;
    let mut client = world.client().await;
    let began = Instant::now();
    client.send("GET / HTTP/1.1\r\n").await;
    let (mut reader, mut writer) = client.stream.into_split();
    let drips = tokio::spawn(async move {
        while writer.write_all(b"X-A: 1\r\n").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    });
    let mut answer = [0; 12];
    within(tokio::io::AsyncReadExt::read_exact(&mut reader, &mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    let took = began.elapsed();
    assert!((Duration::from_millis(400)..Duration::from_millis(1_000)).contains(&took), "{took:?}");
    drips.abort();
    assert_eq!(origin.counts().connections, 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_idle_so_long_before_and_between_requests() {
    let origin = echo().await;
    let world = world_with(&origin, |limits| limits.idle_timeout = Span::from_millis(400)).await;
    let mut client = world.client().await;
    let took = ends_after(&mut client).await;
    assert!((Duration::from_millis(400)..Duration::from_millis(1_200)).contains(&took), "{took:?}");
    let mut client = world.client().await;
    for _ in 0..3 {
        sleep(Duration::from_millis(200)).await;
        assert_eq!(client.get("/", "").await.status, 200, "each request starts it anew");
    }
    let took = ends_after(&mut client).await;
    assert!((Duration::from_millis(380)..Duration::from_millis(1_200)).contains(&took), "{took:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_coming_is_not_waited_for() {
    let origin = echo().await;
    let mut world = world_with(&origin, |limits| limits.stall_timeout = Span::from_millis(300)).await;
    for head in [
        "Content-Length: 10\r\n\r\nabc",
        "Content-Length: 100000\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
    ] {
        let mut client = world.client().await;
        let began = Instant::now();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}")).await;
        assert_eq!(client.answer().await.status, 408, "{head}");
        let took = began.elapsed();
        assert!(
            (Duration::from_millis(300)..Duration::from_millis(1_500)).contains(&took),
            "{head}: {took:?}"
        );
        assert!(client.is_closed().await, "{head}");
    }
    assert_eq!(origin.counts().requests, 0);
    world.endpoint(&replica("web", 0, 0), |report| report.in_flight == 0 && !report.ejected).await;
    assert_eq!(world.metric(r#"refusals_total{service="web",reason="client_body_stalled"}"#), Some(3));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_of_its_response_is_left() {
    let origin = Origin::script(|mut conn| async move {
        conn.request().await;
        conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let part =
            [format!("{:x}\r\n", 1 << 20).into_bytes(), vec![b'x'; 1 << 20], b"\r\n".to_vec()].concat();
        while conn.stream.write_all(&part).await.is_ok() {}
    })
    .await;
    let mut world = world_with(&origin, |limits| limits.stall_timeout = Span::from_millis(300)).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    world.endpoint(&replica("web", 0, 0), |report| report.in_flight == 1).await;
    // The client is still there and reads nothing.
    let report =
        world.endpoint(&replica("web", 0, 0), |report| report.requests == 1 && report.in_flight == 0).await;
    assert!(!report.ejected && report.failures == 0, "{report:?}");
    drop(client);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_a_pace_to_keep() {
    let origin = echo().await;
    let world = world_with(&origin, |limits| limits.min_body_rate = Memory { bytes: 1_000 }).await;
    let mut slow = world.client().await;
    slow.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n").await;
    let began = Instant::now();
    let (mut reader, mut writer) = slow.stream.into_split();
    // Never stalls, and is too slow all the same.
    let drips = tokio::spawn(async move {
        while writer.write_all(&[b'x'; 40]).await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    });
    let mut answer = [0; 12];
    within(tokio::io::AsyncReadExt::read_exact(&mut reader, &mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    let took = began.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(12)).contains(&took), "{took:?}");
    drips.abort();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_not_blamed_for_an_endpoint_that_takes_its_time() {
    const BYTES: usize = 8 << 20;
    let origin = Origin::script(|mut conn| async move {
        conn.head().await;
        sleep(Duration::from_secs(11)).await;
        conn.until(b"END").await;
        conn.ok("taken").await;
    })
    .await;
    let world = world_with(&origin, |limits| limits.min_body_rate = Memory { bytes: 1 << 20 }).await;
    let (mut reader, mut writer) = world.client().await.stream.into_split();
    writer
        .write_all(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", BYTES + 3).as_bytes())
        .await
        .unwrap();
    // Only when the endpoint reads does this end; then the rest comes a little later.
    within(writer.write_all(&vec![b'x'; BYTES])).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    within(writer.write_all(b"END")).await.unwrap();
    let mut answer = [0; 12];
    within(tokio::io::AsyncReadExt::read_exact(&mut reader, &mut answer)).await.unwrap();
    assert_eq!(std::str::from_utf8(&answer), Ok("HTTP/1.1 200"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_be_so_long_however_it_is_framed() {
    let origin = Origin::script(|mut conn| async move {
        while let Some(request) = conn.request().await {
            conn.ok(&request.body.len().to_string()).await;
        }
    })
    .await;
    let world = world_with(&origin, |limits| limits.max_body = Some(Memory { bytes: 1_000 })).await;
    let mut client = world.client().await;
    assert_eq!(client.request("POST", "/", "", &[b'x'; 1_000]).await.text(), "1000");
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{chunked}3e8\r\n{}\r\n0\r\n\r\n", "x".repeat(1_000))).await;
    assert_eq!(client.answer().await.status, 200, "data counts, and not how it is framed");

    let mut client = world.client().await;
    client.send(format!("{chunked}3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1_001))).await;
    assert_eq!(client.answer().await.status, 413, "chunks at once");
    assert_eq!(client.request("POST", "/", "", b"x").await.text(), "1", "where they end is known");
    let served = origin.counts();
    for (name, bytes) in [
        ("a length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n".to_owned()),
        ("a huge length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n".to_owned()),
        (
            "who waits to be asked",
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n".to_owned(),
        ),
    ] {
        let mut client = world.client().await;
        client.send(bytes).await;
        assert_eq!(client.answer().await.status, 413, "{name}");
        assert!(client.is_closed().await, "{name}");
        assert_eq!(origin.counts().requests, served.requests, "{name}");
    }
    assert_eq!(world.metric(r#"refusals_total{service="web",reason="body_too_large"}"#), Some(4));
    let mut client = world.client().await;
    client.send(format!("{chunked}fffffff\r\nabc")).await;
    assert_eq!(client.answer().await.status, 413, "a chunk that is announced need not come");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_becomes_too_long_under_way_ends_the_request() {
    let (sender, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::script(move |mut conn| {
        let sender = sender.clone();
        async move {
            conn.head().await;
            conn.until(b"hello").await;
            sender.send(()).unwrap();
            // What is cut off here is no request.
            assert!(conn.until(b"0\r\n\r\n").await.is_none());
        }
    })
    .await;
    let mut world = world_with(&origin, |limits| limits.max_body = Some(Memory { bytes: 1_000 })).await;
    let mut client = world.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    within(begun.recv()).await.unwrap();
    client.send(format!("3e8\r\n{}\r\n0\r\n\r\n", "x".repeat(1_000))).await;
    assert_eq!(client.answer().await.status, 413);
    assert!(client.is_closed().await);
    let report = world.endpoint(&replica("web", 0, 0), |report| report.in_flight == 0).await;
    assert!(!report.ejected && report.failures == 0, "{report:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_address_has_so_many_connections() {
    let origin = echo().await;
    let web = service("web", 1, &[(0, 0, origin.address)]);
    let mut world = World::start_with(|config| config.workers = 4, [web]).await;
    world.change(|snapshot| snapshot.front.limits.connections_per_client = Some(2)).await;
    let (mut first, mut second) = (world.client().await, world.client().await);
    assert_eq!(first.get("/", "").await.status, 200);
    assert_eq!(second.get("/", "").await.status, 200);
    for _ in 0..8 {
        // Whichever worker it comes to. A refused one may learn of it as it connects.
        if let Some(mut third) = Client::try_connect(world.address).await {
            assert!(third.is_closed().await);
        }
    }
    assert_eq!(first.get("/", "").await.status, 200, "those who are there stay");
    drop(first);
    within(async {
        loop {
            let Some(mut client) = Client::try_connect(world.address).await else { continue };
            drop(client.stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await);
            if client.answer_to("GET").await.is_some_and(|answer| answer.status == 200) {
                return;
            }
        }
    })
    .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_brings_many_clients_which_are_told_apart() {
    let (first, second) = (echo().await, echo().await);
    let web = hashing(HashOn::ClientIp, &[first.address, second.address]);
    let mut world = World::start_with(|config| config.workers = 1, [web]).await;
    let counts = || (first.counts().requests, second.counts().requests);
    let mut client = world.client().await;
    for last in 1..=20 {
        client.get("/", &format!("X-Forwarded-For: 1.1.1.{last}\r\n")).await;
    }
    assert!(matches!(counts(), (20, 0) | (0, 20)), "a stranger is one client: {:?}", counts());
    world
        .change(|snapshot| {
            snapshot.front.trusted_proxies = serde_json::from_str(r#"["127.0.0.0/8"]"#).unwrap();
            snapshot.front.limits.connections_per_client = Some(1);
        })
        .await;
    let mut clients = [world.client().await, world.client().await, world.client().await];
    for client in &mut clients {
        for last in 1..=20 {
            let seen = client.get("/", &format!("X-Forwarded-For: 6.6.6.6, 1.1.1.{last}\r\n")).await;
            assert!(seen.text().contains(&format!("X-Real-IP: 1.1.1.{last}\r\n")), "{}", seen.text());
        }
    }
    let (first, second) = counts();
    assert!(first + second == 80 && first.min(second) >= 15, "{first}, {second}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_too_long_is_refused_without_a_body_where_there_is_none() {
    let origin = echo().await;
    let world = world_with(&origin, |_| {}).await;
    for (method, has_body) in [("GET", true), ("HEAD", false)] {
        let mut client = world.client().await;
        client.send(format!("{method} /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9_000))).await;
        let answer = client.answer_to(method).await.unwrap();
        assert_eq!((answer.status, answer.body.is_empty()), (414, !has_body), "{method}");
        assert!(client.is_closed().await, "{method}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_refused_body_is_no_request() {
    let (sender, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::script(move |mut conn| {
        let sender = sender.clone();
        async move {
            let head = conn.head().await.unwrap();
            assert!(!head.contains("smuggled"), "{head}");
            conn.until(b"hello").await;
            sender.send(()).unwrap();
            conn.until(b"never").await;
        }
    })
    .await;
    let world = world_with(&origin, |limits| limits.max_body = Some(Memory { bytes: 1_000 })).await;
    let mut client = world.client().await;
    // The second chunk is too long, and its data looks like the end of a body and another request.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhello").await;
    within(begun.recv()).await.unwrap();
    let data = format!("0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n{}", "x".repeat(2_000));
    client.send(format!("xxx\r\n1000\r\n{data}")).await;
    assert_eq!(client.answer().await.status, 413);
    assert!(client.is_closed().await, "nothing follows");
    assert_eq!(origin.counts().connections, 1);
    world.stop().await;
}

const CLAIMS: &str = "X-Forwarded-For: 6.6.6.6, 7.7.7.7\r\nForwarded: for=6.6.6.6;proto=https\r\n\
                      X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\nX-Real-IP: 6.6.6.6\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn trusted_proxies_are_believed_and_their_chain_goes_on() {
    let origin = echo().await;
    let mut world = world_with(&origin, |_| {}).await;
    let mut client = world.client().await;
    let strangers = client.get("/", CLAIMS).await;
    for line in [
        "X-Forwarded-For: 127.0.0.1\r\n",
        "X-Forwarded-Proto: http\r\n",
        "X-Forwarded-Host: a.example\r\n",
        "X-Real-IP: 127.0.0.1\r\n",
    ] {
        assert!(strangers.text().contains(line), "{line} in {}", strangers.text());
    }
    assert!(!strangers.text().contains("6.6.6.6"));

    // On the connection that is there: the next request goes by the new gateway.
    let networks: Vec<Network> = serde_json::from_str(r#"["10.0.0.0/8", "127.0.0.0/8"]"#).unwrap();
    world.change(|snapshot| snapshot.front.trusted_proxies = networks).await;
    for mut client in [client, world.client().await] {
        let believed = client.get("/", CLAIMS).await;
        for line in [
            "X-Forwarded-For: 6.6.6.6, 7.7.7.7, 127.0.0.1\r\n",
            "Forwarded: for=6.6.6.6;proto=https, for=127.0.0.1;host=a.example;proto=http\r\n",
            "X-Forwarded-Proto: https\r\n",
            "X-Forwarded-Host: shop.example\r\n",
            "X-Real-IP: 7.7.7.7\r\n",
        ] {
            assert!(believed.text().contains(line), "{line} in {}", believed.text());
        }
        assert_eq!(believed.text().matches("X-Forwarded-For").count(), 1);
        assert_eq!(believed.text().matches("\r\nForwarded").count(), 1);
    }
    let others: Vec<Network> = serde_json::from_str(r#"["10.0.0.0/8"]"#).unwrap();
    world.change(|snapshot| snapshot.front.trusted_proxies = others).await;
    assert!(!world.client().await.get("/", CLAIMS).await.text().contains("6.6.6.6"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_gateway_counts_for_the_next_request_of_a_connection() {
    let origin = echo().await;
    let mut world = world_with(&origin, |_| {}).await;
    let mut client = world.client().await;
    assert_eq!(client.request("POST", "/", "", b"hello").await.text(), "5");
    world.change(|snapshot| snapshot.front.limits.max_body = Some(Memory { bytes: 10 })).await;
    assert_eq!(client.request("POST", "/", "", b"hello").await.text(), "5");
    world.change(|snapshot| snapshot.front.limits.max_body = Some(Memory { bytes: 4 })).await;
    assert_eq!(client.request("POST", "/", "", b"hello").await.status, 413);
    world.stop().await;
}
