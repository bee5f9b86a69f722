use std::time::Duration;

use ringmaster_core::quantity::Span;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::origin::Origin;
use crate::world::{World, replica, service, within};

const MIB: usize = 1 << 20;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

async fn world(origin: &Origin) -> World {
    World::start([service("web", 1, &[(0, 0, origin.address)])]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_of_1_mib_arrives_however_it_is_framed() {
    let origin = Origin::script(|mut conn| async move {
        while let Some(request) = conn.request().await {
            let body = pattern(MIB);
            if request.line().contains("/length") {
                conn.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {MIB}\r\n\r\n")).await;
                conn.write(body).await;
            } else if request.line().contains("/chunked") {
                conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
                for part in body.chunks(10_000) {
                    conn.write(format!("{:x}\r\n", part.len())).await;
                    conn.write(part).await;
                    conn.write("\r\n").await;
                }
                conn.write("0\r\n\r\n").await;
            } else {
                conn.write("HTTP/1.0 200 OK\r\n\r\n").await;
                conn.write(body).await;
                return;
            }
        }
    })
    .await;
    let world = world(&origin).await;
    let mut client = world.client().await;
    for path in ["/length", "/chunked", "/close", "/length"] {
        let answer = client.get(path, "").await;
        assert_eq!((answer.status, answer.body.len()), (200, MIB), "{path}");
        assert!(answer.body == pattern(MIB), "{path}");
    }
    assert_eq!(origin.counts().connections, 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_1_mib_arrives_however_it_is_framed() {
    let origin = Origin::script(|mut conn| async move {
        while let Some(request) = conn.request().await {
            let framing =
                request.values("content-length").join("") + &request.values("transfer-encoding").join("");
            conn.ok(&format!("{framing} {}", request.body.len())).await;
        }
    })
    .await;
    let world = world(&origin).await;
    let mut client = world.client().await;
    let answer = client.request("POST", "/", "", &pattern(MIB)).await;
    assert_eq!(answer.text(), format!("{MIB} {MIB}"));
    for method in ["POST", "GET"] {
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
        for part in pattern(MIB).chunks(1 << 16) {
            client.send(format!("{:x}\r\n", part.len())).await;
            client.send(part).await;
            client.send("\r\n").await;
        }
        client.send("0\r\n\r\n").await;
        let answer = client.answer().await;
        let (framing, length) = answer.text().split_once(' ').unwrap();
        assert_eq!(framing, "chunked");
        assert!(length.parse::<usize>().unwrap() > MIB, "{length} with the chunks' own lines");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_pass_before_the_whole_is_there() {
    let (go_on, waiting) = mpsc::unbounded_channel::<()>();
    let waiting = std::sync::Arc::new(tokio::sync::Mutex::new(waiting));
    let origin = Origin::script(move |mut conn| {
        let waiting = std::sync::Arc::clone(&waiting);
        async move {
            conn.head().await.unwrap();
            assert_eq!(conn.until(b"first").await.unwrap(), b"5\r\nfirst");
            conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
            waiting.lock().await.recv().await.unwrap();
            conn.until(b"0\r\n\r\n").await.unwrap();
            conn.write("0\r\n\r\n").await;
        }
    })
    .await;
    let world = world(&origin).await;
    let mut client = world.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    assert_eq!(client.head().await.unwrap().0, 200);
    assert_eq!(client.take(10).await.unwrap(), b"5\r\nhello\r\n");
    go_on.send(()).unwrap();
    client.send("0\r\n\r\n").await;
    assert_eq!(client.take(5).await.unwrap(), b"0\r\n\r\n");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_stops_the_origin_from_writing() {
    const PART: usize = 1 << 20;
    let (written, mut stalled) = mpsc::unbounded_channel();
    let origin = Origin::script(move |mut conn| {
        let written = written.clone();
        async move {
            conn.request().await.unwrap();
            conn.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1_024 * PART)).await;
            let part = vec![0; PART];
            for count in 0..1_024 {
                // Nothing else is going on: a part that takes this long is stuck.
                if tokio::time::timeout(Duration::from_secs(1), conn.stream.write_all(&part)).await.is_err() {
                    written.send(count).unwrap();
                    return;
                }
            }
            written.send(1_024).unwrap();
        }
    })
    .await;
    let world = world(&origin).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mib = within(stalled.recv()).await.unwrap();
    // What fits are four socket buffers, which the system grows to a few MiB each, and ours of 64 KiB.
    assert!(mib < 40, "{mib} MiB were taken without a reader");
    drop(client);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expectation_is_the_endpoints_to_meet() {
    let origin = Origin::script(|mut conn| async move {
        while let Some(head) = conn.head().await {
            assert!(head.contains("\r\nExpect: 100-continue\r\n"), "{head}");
            if head.contains("/no") {
                conn.write("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno").await;
            } else {
                if head.contains("/yes") {
                    conn.write("HTTP/1.1 100 Continue\r\n\r\n").await;
                }
                assert_eq!(conn.until(b"abc").await.unwrap(), b"abc");
                conn.ok("thanks").await;
            }
        }
    })
    .await;
    let world = world(&origin).await;
    let put = |path: &str| {
        format!("PUT {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    };
    let mut client = world.client().await;
    // Who says nothing is asked to send after a while.
    for path in ["/yes", "/silent", "/yes"] {
        client.send(put(path)).await;
        assert_eq!(client.head().await.unwrap().0, 100, "{path}");
        client.send("abc").await;
        assert_eq!(client.answer().await.text(), "thanks", "{path}");
    }
    client.send(put("/no")).await;
    assert_eq!(client.answer().await.status, 403);
    assert!(client.is_closed().await, "the body that was never sent is in the way of another request");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_keep_their_length_and_their_connection() {
    let origin = Origin::script(|mut conn| async move {
        while let Some(request) = conn.request().await {
            let status = request.line().split(['/', ' ']).nth(2).unwrap().to_owned();
            let fields = if status == "204" { "" } else { "Content-Length: 1234\r\n" };
            conn.write(format!("HTTP/1.1 {status} X\r\n{fields}ETag: x\r\n\r\n")).await;
        }
    })
    .await;
    let world = world(&origin).await;
    let mut client = world.client().await;
    for (method, status, length) in
        [("HEAD", 200, Some("1234")), ("GET", 304, None), ("GET", 204, None), ("HEAD", 404, Some("1234"))]
    {
        client.send(format!("{method} /{status} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = client.answer_to(method).await.unwrap();
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers["etag"], "x");
        if length.is_some() {
            assert_eq!(answer.headers.get("content-length").map(String::as_str), length, "{method} {status}");
        }
    }
    assert_eq!(origin.counts().connections, 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_breaks_off_is_cut_off_for_the_client_too() {
    let origin = Origin::script(|mut conn| async move {
        if conn.request().await.is_none() {
            return;
        }
        conn.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    })
    .await;
    let world = world(&origin).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().0, 200);
    assert_eq!(client.take(4).await.unwrap(), b"half", "what has come may be of use");
    let end = within(client.stream.read(&mut [0])).await;
    assert_eq!(end.unwrap(), 0, "it is no reset, which could take back what has come");
    assert_eq!(origin.counts().requests, 1);
    let truncated = r#"upstream_errors_total{service="web",server="0",reason="truncated"}"#;
    assert_eq!(world.metric(truncated), Some(1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_stops_coming_is_given_up_where_its_length_is_known() {
    let origin = Origin::script(|mut conn| async move {
        while let Some(request) = conn.request().await {
            match request.line() {
                line if line.contains("/short") => {
                    conn.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await
                }
                line if line.contains("/long") => {
                    conn.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nhalf").await
                }
                _ => {
                    conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
                    tokio::time::sleep(2 * PAUSE).await;
                    conn.write("5\r\n done\r\n0\r\n\r\n").await;
                }
            }
        }
    })
    .await;
    const PAUSE: Duration = Duration::from_millis(800);
    let mut web = service("web", 1, &[(0, 0, origin.address)]);
    web.resilience.response_timeout = Span::from_millis(800);
    let world = World::start([web]).await;
    for path in ["/short", "/long"] {
        let mut client = world.client().await;
        let began = Instant::now();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(client.head().await.unwrap().0, 200, "{path}");
        assert_eq!(client.take(4).await.unwrap(), b"half", "{path}");
        assert!(client.is_closed().await, "{path}");
        assert!(began.elapsed() >= PAUSE, "{path}");
    }
    let stream = world.client().await.get("/stream", "").await;
    assert_eq!(stream.text(), "half done", "who knows when the next piece comes");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_the_head_alone_does_not_wait_for_a_short_body() {
    for status in [413, 200] {
        let origin = Origin::script(move |mut conn| async move {
            if conn.head().await.is_some() {
                conn.write(format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nno")).await;
                conn.until(b"never").await;
            }
        })
        .await;
        let world = world(&origin).await;
        let mut client = world.client().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (status, "no"));
        assert_eq!(answer.headers["connection"], "close", "nobody knows whether the rest will come");
        assert!(client.is_closed().await);
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_body_that_comes_slowly_is_sent_as_it_comes_and_once() {
    let (sender, mut begun) = mpsc::unbounded_channel();
    let origin = Origin::script(move |mut conn| {
        let sender = sender.clone();
        async move {
            conn.head().await;
            conn.until(b"hello").await;
            sender.send(()).unwrap();
            conn.until(b"world").await;
            conn.ok("helloworld").await;
            conn.request().await;
            conn.ok("next").await;
        }
    })
    .await;
    let world = world(&origin).await;
    let mut client = world.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
    within(begun.recv()).await.unwrap();
    client.send("worldGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "helloworld");
    assert_eq!(client.answer().await.text(), "next", "where the next one begins is known");
    assert_eq!(origin.counts().connections, 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_not_blamed_for_a_client_that_takes_its_time() {
    const PAUSE: Duration = Duration::from_millis(800);
    // Of these, the first one says how long its answer is and sends it when it has the body.
    for answers_early in [true, false] {
        let origin = Origin::script(move |mut conn| async move {
            conn.head().await;
            if answers_early {
                conn.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").await;
            }
            conn.until(b"world").await;
            conn.write(if answers_early {
                "done"
            } else {
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"
            })
            .await;
            conn.request().await;
        })
        .await;
        let mut web = service("web", 1, &[(0, 0, origin.address)]);
        web.resilience.response_timeout = Span::from_millis(800);
        let mut world = World::start([web]).await;
        let mut client = world.client().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
        tokio::time::sleep(2 * PAUSE).await;
        client.send("world").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (200, "done"), "{answers_early}");
        let report = world.endpoint(&replica("web", 0, 0), |report| report.in_flight == 0).await;
        assert!(!report.ejected && report.failures == 0, "{report:?}");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_after_a_slow_body_ends_its_request() {
    let (sender, mut come) = mpsc::unbounded_channel();
    let origin = Origin::script(move |mut conn| {
        let sender = sender.clone();
        async move {
            for piece in ["hello", "world"] {
                conn.until(piece.as_bytes()).await;
                sender.send(()).unwrap();
            }
            conn.until(b"what never comes").await;
        }
    })
    .await;
    let mut world = world(&origin).await;
    let mut client = world.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
    within(come.recv()).await.unwrap();
    client.send("world").await;
    within(come.recv()).await.unwrap();
    world.endpoint(&replica("web", 0, 0), |report| report.in_flight == 1).await;
    drop(client);
    world.endpoint(&replica("web", 0, 0), |report| report.in_flight == 0).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_its_request() {
    let mut origin = Origin::script(|mut conn| async move {
        conn.request().await.unwrap();
        assert!(conn.request().await.is_none());
    })
    .await;
    let mut world = world(&origin).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.requests(1).await;
    let replica = crate::world::replica("web", 0, 0);
    world.endpoint(&replica, |report| report.in_flight == 1).await;
    drop(client);
    let report = world.endpoint(&replica, |report| report.in_flight == 0).await;
    assert_eq!((report.failures, report.ejected), (0, false));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_sending_is_not_the_endpoints_failure() {
    let origin = Origin::script(|mut conn| async move { drop(conn.request().await) }).await;
    let mut routing = service("web", 1, &[(0, 0, origin.address)]);
    routing.resilience.response_timeout.0 = Duration::from_millis(200);
    let mut world = World::start([routing]).await;
    let mut client = world.client().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc").await;
    assert_eq!(client.answer().await.status, 408);
    let replica = crate::world::replica("web", 0, 0);
    let report = world.endpoint(&replica, |report| report.requests == 1 && report.in_flight == 0).await;
    assert_eq!((report.failures, report.ejected), (0, false));
    world.stop().await;
}
