//! More requests than the endpoints may have: others are used, then they wait, then they are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ringmaster_core::quantity::Span;
use ringmaster_core::snapshot::ServiceRouting;
use ringmaster_core::spec::HedgeAfter;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::client::Client;
use crate::origin::Origin;
use crate::world::{World, first_then_second, replica, service, within};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Answers as many requests as it is permitted to; how many it had at once is counted.
struct Held {
    origin: Origin,
    permits: Arc<Semaphore>,
    most: Arc<AtomicUsize>,
}

impl Held {
    async fn new(name: &'static str) -> Held {
        let permits = Arc::new(Semaphore::new(0));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (gate, highest) = (Arc::clone(&permits), Arc::clone(&most));
        let origin = Origin::script(move |mut conn| {
            let (gate, now, highest) = (Arc::clone(&gate), Arc::clone(&now), Arc::clone(&highest));
            async move {
                while conn.request().await.is_some() {
                    highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                    now.fetch_sub(1, Ordering::SeqCst);
                    conn.ok(name).await;
                }
            }
        })
        .await;
        Held { origin, permits, most }
    }
}

fn narrow(mut routing: ServiceRouting, in_flight: u32, queued: u32, wait_ms: u64) -> ServiceRouting {
    routing.resilience.hedge_after = HedgeAfter::Off;
    routing.resilience.max_in_flight = in_flight;
    routing.resilience.max_queued = queued;
    routing.resilience.queue_timeout = Span::from_millis(wait_ms);
    routing
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_full_is_passed_over() {
    let (mut first, second) = (Held::new("first").await, Origin::named("second").await);
    let (routing, fields) = first_then_second(first.origin.address, second.address);
    let world = World::start([narrow(routing, 1, 10, 10_000)]).await;
    let mut held = world.client().await;
    held.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
    first.origin.requests(1).await;
    for _ in 0..10 {
        let mut client = world.client().await;
        assert_eq!(client.get("/", &fields).await.text(), "second");
        assert_eq!(client.request("POST", "/", &fields, b"x").await.text(), "second");
    }
    first.permits.add_permits(2);
    assert_eq!(held.answer().await.text(), "first");
    assert_eq!(held.get("/", &fields).await.text(), "first", "there is room again");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_are_served_and_no_endpoint_has_more_than_it_may() {
    let (one, two) = (Held::new("").await, Held::new("").await);
    let endpoints = [(0, 0, one.origin.address), (1, 0, two.origin.address)];
    let mut world = World::start([narrow(service("web", 2, &endpoints), 2, 100, 15_000)]).await;
    let mut clients = JoinSet::new();
    for n in 0..60 {
        let address = world.address;
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            if n % 3 == 0 {
                client.request("POST", "/", "", b"body").await.status
            } else {
                client.get("/", "").await.status
            }
        });
    }
    world.report(|report| report.endpoints.values().all(|endpoint| endpoint.in_flight == 2)).await;
    one.permits.add_permits(60);
    two.permits.add_permits(60);
    while let Some(status) = within(clients.join_next()).await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!([one.most.load(Ordering::SeqCst), two.most.load(Ordering::SeqCst)], [2, 2]);
    for ordinal in [0, 1] {
        world.endpoint(&replica("web", ordinal, 0), |report| report.in_flight == 0).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_in_vain_or_finds_no_room_to_wait_is_told_to_come_back() {
    let mut held = Held::new("ok").await;
    let routing = narrow(service("web", 1, &[(0, 0, held.origin.address)]), 1, 1, 700);
    let world = World::start_with(|config| config.workers = 1, [routing]).await;
    let (mut first, mut second, mut third) =
        (world.client().await, world.client().await, world.client().await);
    first.send(GET).await;
    held.origin.requests(1).await;
    let began = Instant::now();
    // Whichever of the two comes second finds the queue full.
    second.send(GET).await;
    third.send(GET).await;
    let (a, b) = within(async { tokio::join!(timed(&mut second, began), timed(&mut third, began)) }).await;
    let (at_once, later) = if a.1 < b.1 { (a, b) } else { (b, a) };
    for (answer, _) in [&at_once, &later] {
        assert_eq!((answer.status, &*answer.headers["retry-after"]), (503, "1"), "{answer:?}");
    }
    assert!(at_once.1 < Duration::from_millis(600), "{:?}", at_once.1);
    assert!((Duration::from_millis(700)..Duration::from_millis(1_500)).contains(&later.1), "{:?}", later.1);
    assert_eq!(world.metric(r#"refusals_total{service="web",reason="overloaded"}"#), Some(2));
    held.permits.add_permits(2);
    assert_eq!(first.answer().await.text(), "ok");
    assert_eq!(second.get("/", "").await.text(), "ok", "its connection is as good as before");
    world.stop().await;
}

async fn timed(client: &mut Client, began: Instant) -> (crate::client::Answer, Duration) {
    let answer = client.answer().await;
    (answer, began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_service_that_is_full_holds_up_no_other() {
    let (mut held, good) = (Held::new("held").await, Origin::named("good").await);
    let full = narrow(service("web", 1, &[(0, 0, held.origin.address)]), 1, 100, 15_000);
    let mut other = narrow(service("api", 1, &[(0, 0, good.address)]), 1, 0, 0);
    other.route.path_prefix = "/api".to_owned();
    let world = World::start_with(|config| config.workers = 1, [full, other]).await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut client = world.client().await;
        client.send(GET).await;
        waiting.push(client);
    }
    held.origin.requests(1).await;
    let mut client = world.client().await;
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(client.get("/api", "").await.text(), "good");
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    held.permits.add_permits(20);
    for client in &mut waiting {
        assert_eq!(client.answer().await.text(), "held");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_makes_room_in_the_queue_and_is_not_served() {
    let mut held = Held::new("ok").await;
    let routing = narrow(service("web", 1, &[(0, 0, held.origin.address)]), 1, 1, 19_000);
    let world = World::start_with(|config| config.workers = 1, [routing]).await;
    let mut first = world.client().await;
    first.send(GET).await;
    held.origin.requests(1).await;
    let mut leaves = world.client().await;
    leaves.send(GET).await;
    // It waits: the next one finds no room.
    within(async { while world.client().await.get("/", "").await.status != 503 {} }).await;
    socket2::SockRef::from(&leaves.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(leaves);
    let mut stays = within(async {
        loop {
            let mut client = world.client().await;
            client.send(GET).await;
            if timeout(Duration::from_millis(300), client.head()).await.is_err() {
                return client;
            }
        }
    })
    .await;
    held.permits.add_permits(3);
    assert_eq!(first.answer().await.text(), "ok");
    assert_eq!(stays.answer().await.text(), "ok");
    assert_eq!(held.origin.counts().requests, 2);
    world.stop().await;
}
