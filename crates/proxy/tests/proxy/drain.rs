use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ringmaster_core::Ordinal;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::origin::Origin;
use crate::world::{World, replica, service, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_request_is_in_flight_until_its_last_byte_after_the_acknowledgement() {
    let (held, mut arrived) = mpsc::unbounded_channel();
    let slow = Origin::script(move |mut conn| {
        let held = held.clone();
        async move {
            conn.request().await;
            conn.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n12").await;
            held.send(conn).unwrap();
        }
    })
    .await;
    let other = Origin::named("other").await;
    let mut world = World::start([service("web", 2, &[(0, 0, slow.address)])]).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut conn = within(arrived.recv()).await.unwrap();
    client.head().await.unwrap();
    assert_eq!(client.take(2).await.unwrap(), b"12");

    // The acknowledgement comes while the request is in flight, and its report says so.
    let generation = world.submit(|snapshot| {
        let only_other = service("web", 2, &[(1, 0, other.address)]);
        snapshot.services.insert(only_other.name.clone(), Arc::new(only_other));
    });
    let draining = replica("web", 0, 0);
    let report = world.report(|report| report.acknowledged >= generation).await;
    assert_eq!(report.endpoints[&draining].in_flight, 1);
    assert_eq!(world.client().await.get("/", "").await.text(), "other");

    conn.write("34").await;
    assert_eq!(client.take(2).await.unwrap(), b"34");
    let report = world.report(|report| !report.endpoints.contains_key(&draining)).await;
    assert!(report.endpoints.contains_key(&replica("web", 1, 0)));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_a_stream_and_a_body_in_pieces_is_a_request() {
    let (held, mut arrived) = mpsc::unbounded_channel();
    let origin = Origin::script(move |mut conn| {
        let held = held.clone();
        async move {
            let request = conn.request().await.unwrap();
            let target = request.line().split(' ').nth(1).unwrap();
            // The first hyphen stands for the slash of a media type.
            let kind = target[1..].replacen('-', "/", 1);
            conn.write(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"
            ))
            .await;
            held.send(conn).unwrap();
        }
    })
    .await;
    let mut world = World::start([service("web", 1, &[(0, 0, origin.address)])]).await;
    let web = replica("web", 0, 0);
    let mut clients = Vec::new();
    // With a body that goes up while the answer comes down, and without.
    for (head, counts) in [
        ("GET /text-plain HTTP/1.1\r\nHost: a\r\n\r\n", (1, 0)),
        ("GET /Text-Event-Stream HTTP/1.1\r\nHost: a\r\n\r\n", (2, 1)),
        (
            "POST /text-event-stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            (3, 2),
        ),
    ] {
        let mut client = world.client().await;
        client.send(head).await;
        client.head().await.unwrap();
        clients.push((client, within(arrived.recv()).await.unwrap()));
        world.endpoint(&web, |report| (report.in_flight, report.streams) == counts).await;
    }
    for counts in [(2, 1), (1, 0), (0, 0)] {
        let (client, mut conn) = clients.pop().unwrap();
        conn.write("0\r\n\r\n").await;
        drop((client, conn));
        world.endpoint(&web, |report| (report.in_flight, report.streams) == counts).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_chose_a_withdrawn_endpoint_does_not_hold_it() {
    let origin = Origin::named("web").await;
    let mut world = World::start([service("web", 1, &[(0, 0, origin.address)])]).await;
    assert_eq!(world.client().await.get("/", "").await.status, 200);
    world.publish([service("web", 1, &[])]).await;
    world.report(|report| report.endpoints.is_empty()).await;
    world.stop().await;
}

/// A replica that notices requests after it was declared drained.
struct Watched {
    origin: Origin,
    drained: Arc<AtomicBool>,
}

async fn watched(violations: &Arc<AtomicUsize>) -> Watched {
    let drained = Arc::new(AtomicBool::new(false));
    let (flag, violations) = (Arc::clone(&drained), Arc::clone(violations));
    let origin = Origin::script(move |mut conn| {
        let (flag, violations) = (Arc::clone(&flag), Arc::clone(&violations));
        async move {
            while conn.request().await.is_some() {
                if flag.load(Ordering::SeqCst) {
                    violations.fetch_add(1, Ordering::SeqCst);
                }
                conn.ok("ok").await;
            }
        }
    })
    .await;
    Watched { origin, drained }
}

/// Sends requests until it is told to stop; returns how many, all of which must have succeeded.
async fn load(mut client: Client, method: &'static str, stop: CancellationToken) -> usize {
    let mut count = 0;
    while !stop.is_cancelled() {
        let answer = match method {
            "GET" => client.get("/", "").await,
            // A body makes the choice come later than the head.
            _ => {
                client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n").await;
                tokio::task::yield_now().await;
                client.send("\r\n\r\n").await;
                client.answer().await
            }
        };
        assert_eq!(answer.status, 200, "request {count} ({method}): {}", answer.text());
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_reaches_a_drained_endpoint_and_none_fails_while_snapshots_flip() {
    const FLIPS: u32 = 60;
    let violations = Arc::new(AtomicUsize::new(0));
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push((0_u32, watched(&violations).await));
    }
    let endpoints = |replicas: &[(u32, Watched)], left_out: Option<usize>| {
        let all = replicas.iter().enumerate().filter(|(index, _)| Some(*index) != left_out);
        let all: Vec<_> =
            all.map(|(index, (attempt, w))| (index as u16, *attempt, w.origin.address)).collect();
        service("web", 3, &all)
    };
    let mut world = World::start([endpoints(&replicas, None)]).await;
    let stop = CancellationToken::new();
    let mut clients = JoinSet::new();
    for index in 0..8 {
        let method = if index % 2 == 0 { "GET" } else { "POST" };
        clients.spawn(load(world.client().await, method, stop.clone()));
    }
    for flip in 0..FLIPS {
        let victim = flip as usize % replicas.len();
        world.publish([endpoints(&replicas, Some(victim))]).await;
        let name = replica("web", victim as u16, replicas[victim].0);
        world.report(|report| report.endpoints.get(&name).is_none_or(|e| e.in_flight == 0)).await;
        replicas[victim].1.drained.store(true, Ordering::SeqCst);
        // As the controller would, end it now: a request that still came would fail as well.
        let (attempt, old) = std::mem::replace(&mut replicas[victim], (0, watched(&violations).await));
        old.origin.kill().await;
        replicas[victim].0 = attempt + 1;
        world.publish([endpoints(&replicas, None)]).await;
    }
    stop.cancel();
    let counts = within(clients.join_all()).await;
    assert_eq!(violations.load(Ordering::SeqCst), 0);
    assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
    assert_eq!(world.metric(r#"replays_total{service="web"}"#), Some(0));
    assert_eq!(
        world.metric(r#"responses_total{service="web",code="2xx"}"#),
        Some(counts.iter().sum::<usize>() as u64)
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_members_counts_outlive_its_replicas_and_end_with_its_place() {
    let origin = Origin::named("web").await;
    let at = |members, endpoints: &[(u16, u32)]| {
        let endpoints: Vec<_> = endpoints.iter().map(|(o, a)| (*o, *a, origin.address)).collect();
        service("web", members, &endpoints)
    };
    let mut world = World::start([at(2, &[(0, 0)])]).await;
    let mut client = world.client().await;
    let series = r#"requests_total{service="web",server="0"}"#;
    for _ in 0..3 {
        assert_eq!(client.get("/", "").await.status, 200);
    }
    assert_eq!(world.metric(series), Some(3));
    world.publish([at(2, &[(0, 1)])]).await;
    assert_eq!(client.get("/", "").await.status, 200);
    assert_eq!(world.metric(series), Some(4));
    assert_eq!(world.metric(r#"requests_in_flight{service="web",server="0"}"#), Some(0));
    let report =
        world.endpoint(&replica("web", 0, 1), |report| report.in_flight == 0 && report.requests > 0).await;
    assert_eq!(report.requests, 1);
    // Place 1 is a member without a replica; it has counts, and loses them with its place.
    let unused = r#"requests_total{service="web",server="1"}"#;
    assert_eq!(world.metric(unused), Some(0));
    let mut shrunk = at(1, &[(0, 1)]);
    assert_eq!(shrunk.ring.members(), [Ordinal(0)]);
    world.publish([shrunk.clone()]).await;
    assert_eq!(world.metric(unused), None);
    shrunk.name = crate::world::name("other");
    world.publish([shrunk]).await;
    assert_eq!(world.metric(series), None);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_lets_requests_end_and_takes_no_new_ones() {
    let (held, mut arrived) = mpsc::unbounded_channel();
    let slow = Origin::script(move |mut conn| {
        let held = held.clone();
        async move {
            conn.request().await;
            held.send(conn).unwrap();
        }
    })
    .await;
    let world = World::start([service("web", 1, &[(0, 0, slow.address)])]).await;
    let mut idle = world.client().await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut conn = within(arrived.recv()).await.unwrap();
    world.token.cancel();
    assert!(idle.is_closed().await);
    conn.ok("done").await;
    assert_eq!(client.answer().await.text(), "done");
    assert!(client.is_closed().await);
    within(world.proxy.join()).await.unwrap();
    assert!(tokio::net::TcpStream::connect(world.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_after_its_grace_whatever_is_in_flight() {
    let mut silent = Origin::script(|mut conn| async move {
        conn.request().await;
        conn.request().await;
    })
    .await;
    let grace = std::time::Duration::from_millis(100);
    let routing = service("web", 1, &[(0, 0, silent.address)]);
    let world = World::start_with(|config| config.shutdown_grace = grace, [routing]).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    silent.requests(1).await;
    world.stop().await;
    assert!(client.is_closed().await);
}
