use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use ringmaster_core::snapshot::EjectReason;
use ringmaster_core::spec::HashOn;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::origin::Origin;
use crate::world::{World, hashing, key_for, replica, service, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_refusing_endpoint_is_skipped_until_it_listens_again() {
    let (first, second) = (Origin::named("first").await, Origin::named("second").await);
    let address = first.address;
    let routing = hashing(HashOn::Header("x-key".into()), &[address, second.address]);
    let key = format!("x-key: {}\r\n", key_for(&routing, &[0, 1]));
    first.kill().await;
    let mut world = World::start([routing]).await;
    let mut client = world.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/", &key).await.text(), "second");
    }
    let report = world.endpoint(&replica("web", 0, 0), |report| report.ejected).await;
    assert_eq!(report.requests, 1, "only the request that found out went there");
    assert_eq!(world.metric(r#"ejections_total{service="web",server="0",reason="refused"}"#), Some(1));
    assert_eq!(world.metric(r#"server_ejected{service="web",server="0"}"#), Some(1));

    let back = Instant::now();
    let _first = Origin::named_at(address, "first").await;
    world.endpoint(&replica("web", 0, 0), |report| !report.ejected).await;
    assert!(back.elapsed() < Duration::from_millis(900), "two connects 100 ms apart, no waiting for a term");
    assert_eq!(client.get("/", &key).await.text(), "first");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_is_seen_on_idle_connections_before_a_request_suffers() {
    let (first, second) = (Origin::named("first").await, Origin::named("second").await);
    let routing = hashing(HashOn::Header("x-key".into()), &[first.address, second.address]);
    let key = format!("x-key: {}\r\n", key_for(&routing, &[0, 1]));
    let mut world = World::start([routing]).await;
    let mut client = world.client().await;
    assert_eq!(client.get("/", &key).await.text(), "first");
    let killed = Instant::now();
    first.kill().await;
    let report = world.endpoint(&replica("web", 0, 0), |report| report.ejected).await;
    let seen = killed.elapsed();
    assert_eq!((report.requests, report.failures), (1, 0));
    println!("seen after {seen:?}");
    assert!(seen < Duration::from_millis(250), "{seen:?}");
    assert_eq!(client.get("/", &key).await.text(), "second");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_only_closes_idle_connections_stays() {
    let origin = Origin::script(|mut conn| async move {
        conn.request().await;
        conn.ok("once").await;
    })
    .await;
    let mut world = World::start([service("web", 1, &[(0, 0, origin.address)])]).await;
    for _ in 0..10 {
        assert_eq!(world.client().await.get("/", "").await.status, 200);
    }
    let report = world.endpoint(&replica("web", 0, 0), |report| report.requests >= 10).await;
    assert_eq!((report.failures, report.ejected), (0, false));
    assert_eq!(world.metric(r#"ejections_total{service="web",server="0",reason="refused"}"#), Some(0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_one_standing_is_never_refused() {
    let origin = Origin::named("old").await;
    let address = origin.address;
    origin.kill().await;
    let mut world = World::start([service("web", 1, &[(0, 0, address)])]).await;
    let mut client = world.client().await;
    assert_eq!(client.get("/", "").await.status, 502);
    world.endpoint(&replica("web", 0, 0), |report| report.ejected).await;
    // It is tried although it is ejected: no recovery can have happened within this time.
    let _origin = Origin::named_at(address, "new").await;
    assert_eq!(client.get("/", "").await.text(), "new");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_breaks_connections_stays_out_for_a_term() {
    let broken = Origin::script(|mut conn| async move { drop(conn.request().await) }).await;
    let good = Origin::named("good").await;
    let routing = hashing(HashOn::Header("x-key".into()), &[broken.address, good.address]);
    let key = format!("x-key: {}\r\n", key_for(&routing, &[0, 1]));
    let mut world = World::start([routing]).await;
    let mut client = world.client().await;
    let mut terms = Vec::new();
    for requests in 1..=2 {
        let started = Instant::now();
        assert_eq!(client.get("/", &key).await.text(), "good");
        world.endpoint(&replica("web", 0, 0), |report| report.ejected).await;
        world.endpoint(&replica("web", 0, 0), |report| !report.ejected).await;
        terms.push(started.elapsed().as_millis());
        assert_eq!(broken.counts().requests, requests);
    }
    // Connects succeed all the time, so only the term keeps it out: 1 s, then 2 s.
    assert!(terms[0] >= 1_000 && terms[1] >= 2_000 && terms[0] < terms[1], "{terms:?}");
    world.stop().await;
}

/// A listening socket whose queue is full: the system drops further connects, as if the address had vanished.
struct Swallower {
    address: SocketAddr,
    _listener: tokio::net::TcpListener,
    _queue: Vec<TcpStream>,
}

impl Swallower {
    async fn new() -> Swallower {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) = timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
            queue.push(stream.unwrap());
        }
        Swallower { address, _listener: listener, _queue: queue }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_swallows_packets_delays_only_those_who_find_out() {
    let (vanished, good) = (Swallower::new().await, Origin::named("good").await);
    let routing = hashing(HashOn::Header("x-key".into()), &[vanished.address, good.address]);
    let key = format!("x-key: {}\r\n", key_for(&routing, &[0, 1]));
    let mut world = World::start([routing]).await;
    let mut first = world.client().await;
    let started = Instant::now();
    first.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{key}\r\n")).await;
    // It becomes suspect after 20 ms; from then on nobody else goes there, though it is not ejected yet.
    within(async {
        while started.elapsed() < Duration::from_millis(60) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut delays = Vec::new();
    while started.elapsed() < Duration::from_millis(200) {
        let mut client = world.client().await;
        let asked = Instant::now();
        assert_eq!(client.get("/", &key).await.text(), "good");
        delays.push(asked.elapsed());
    }
    assert!(
        !delays.is_empty() && delays.iter().all(|&delay| delay < Duration::from_millis(100)),
        "{delays:?}"
    );
    assert_eq!(first.answer().await.text(), "good");
    // It was hedged; the connect that it gave up was gone on with.
    let report =
        world.endpoint(&replica("web", 0, 0), |report| report.ejected && report.in_flight == 0).await;
    assert_eq!(report.requests, 1);
    assert_eq!(report.circuit.unwrap().reason, EjectReason::ConnectTimeout);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_killed_under_load_fails_no_request_and_gets_none_once_it_is_seen() {
    let mut origins = Vec::new();
    for name in ["0", "1", "2"] {
        origins.push(Origin::named(name).await);
    }
    let routing = hashing(HashOn::RequestId, &origins.iter().map(|o| o.address).collect::<Vec<_>>());
    let mut world = World::start([routing]).await;
    let address = world.address;
    let (done, mut results) = tokio::sync::mpsc::unbounded_channel();
    let load = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        let mut clients: Vec<crate::client::Client> = Vec::new();
        loop {
            ticks.tick().await;
            let mut client = match clients.pop() {
                Some(client) => client,
                None => crate::client::Client::connect(address).await,
            };
            let status = client.get("/", "").await.status;
            clients.push(client);
            if done.send(status).is_err() {
                return;
            }
        }
    });
    for _ in 0..60 {
        assert_eq!(within(results.recv()).await, Some(200));
    }
    let killed = Instant::now();
    origins.pop().unwrap().kill().await;
    world.endpoint(&replica("web", 2, 0), |report| report.ejected).await;
    let seen = killed.elapsed();
    println!("seen after {seen:?}");
    assert!(seen < Duration::from_millis(250), "{seen:?}");
    let chosen = r#"requests_total{service="web",server="2"}"#;
    let before = world.metric(chosen);
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        seen.insert(within(results.recv()).await);
    }
    assert_eq!(seen, BTreeSet::from([Some(200)]));
    assert_eq!(world.metric(chosen), before);
    load.abort();
    world.stop().await;
}
