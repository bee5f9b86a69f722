//! A second try beside one that takes longer than usual.

use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::quantity::Span;
use ringmaster_core::snapshot::{EjectReason, ServiceRouting};
use ringmaster_core::spec::{HashOn, HedgeAfter};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::client::Client;
use crate::origin::Origin;
use crate::world::{World, first_then_second, hashing, key_for, replica, within};

/// Takes requests and never answers.
async fn silent() -> Origin {
    Origin::script(|mut conn| async move { while conn.request().await.is_some() {} }).await
}

/// Never answers to `/silent`, and anything else with its name.
async fn moody(name: &'static str) -> Origin {
    Origin::script(move |mut conn| async move {
        while let Some(request) = conn.request().await {
            if !request.line().contains("/silent") {
                conn.ok(name).await;
            }
        }
    })
    .await
}

/// Two endpoints and a field that chooses the first, which is hedged after so long.
fn hedged(first: &Origin, second: &Origin, after_ms: u64) -> (ServiceRouting, String) {
    let (mut routing, fields) = first_then_second(first.address, second.address);
    routing.resilience.hedge_after = HedgeAfter::After(Span::from_millis(after_ms));
    (routing, fields)
}

fn hedges(world: &World) -> (Option<u64>, Option<u64>) {
    let count = |series| world.metric(series);
    (count(r#"hedges_total{service="web"}"#), count(r#"hedges_won_total{service="web"}"#))
}

/// Sends GETs until one more of them has gone to the origin: it is passed over while it is suspect.
async fn until_asked(client: &mut Client, path: &str, fields: &str, origin: &Origin) {
    let before = origin.counts().requests;
    within(async {
        while origin.counts().requests == before {
            assert_eq!(client.get(path, fields).await.status, 200);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_endpoint_costs_the_delay_and_no_more_and_its_connection_is_closed() {
    let (closed, mut ends) = mpsc::unbounded_channel();
    let first = Origin::script(move |mut conn| {
        let closed = closed.clone();
        async move {
            while conn.request().await.is_some() {}
            closed.send(()).unwrap();
        }
    })
    .await;
    let second = Origin::named("second").await;
    let (routing, fields) = hedged(&first, &second, 100);
    let mut world = World::start([routing]).await;
    let mut client = world.client().await;
    let started = Instant::now();
    assert_eq!(client.get("/", &fields).await.text(), "second");
    let took = started.elapsed();
    println!("hedged after 100 ms, answered after {took:?}");
    assert!((Duration::from_millis(100)..Duration::from_millis(600)).contains(&took), "{took:?}");
    assert_eq!(hedges(&world), (Some(1), Some(1)));
    within(ends.recv()).await.unwrap();
    for ordinal in [0, 1] {
        world
            .endpoint(&replica("web", ordinal, 0), |report| report.requests == 1 && report.in_flight == 0)
            .await;
    }
    // What the loser would have sent is no answer to the next request.
    assert_eq!(client.get("/next", "").await.status, 200);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_reads_is_hedged() {
    for (method, hedged_too) in [
        ("GET", true),
        ("HEAD", true),
        ("OPTIONS", true),
        ("POST", false),
        ("PUT", false),
        ("DELETE", false),
        ("PATCH", false),
    ] {
        let (first, second) = (silent().await, Origin::named("").await);
        let (mut routing, fields) = hedged(&first, &second, 50);
        routing.resilience.response_timeout.0 = Duration::from_millis(if hedged_too { 10_000 } else { 300 });
        let world = World::start([routing]).await;
        let answer = world.client().await.request(method, "/", &fields, b"").await;
        assert_eq!(answer.status, if hedged_too { 200 } else { 504 }, "{method}");
        assert_eq!(second.counts().requests, usize::from(hedged_too), "{method}");
        assert_eq!(hedges(&world).0, Some(u64::from(hedged_too)), "{method}");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_makes_no_hedge() {
    let (first, second) = (silent().await, Origin::named("").await);
    let (mut routing, fields) = hedged(&first, &second, 50);
    routing.resilience.response_timeout.0 = Duration::from_millis(300);
    let world = World::start([routing]).await;
    let fields = format!("{fields}Idempotency-Key: 1\r\n");
    assert_eq!(world.client().await.request("POST", "/", &fields, b"").await.status, 504);
    assert_eq!(second.counts().requests, 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_try_may_still_win_and_its_rival_has_not_lost() {
    let answers = Arc::new(Notify::new());
    let released = Arc::clone(&answers);
    let first = Origin::script(move |mut conn| {
        let released = Arc::clone(&released);
        async move {
            while conn.request().await.is_some() {
                released.notified().await;
                conn.ok("first").await;
            }
        }
    })
    .await;
    let mut second = silent().await;
    let (mut routing, fields) = hedged(&first, &second, 50);
    routing.resilience.ejection.hedge_losses = 1;
    let mut world = World::start([routing]).await;
    let mut client = world.client().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
    second.requests(1).await;
    answers.notify_one();
    assert_eq!(client.answer().await.text(), "first");
    assert_eq!(hedges(&world), (Some(1), Some(0)));
    for ordinal in [0, 1] {
        let report = world.endpoint(&replica("web", ordinal, 0), |report| report.in_flight == 0).await;
        assert!(!report.ejected && report.failures == 0, "{ordinal}: {report:?}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_hedges_a_slow_answer_is_waited_for() {
    let answers = Arc::new(Notify::new());
    let released = Arc::clone(&answers);
    let mut first = Origin::script(move |mut conn| {
        let released = Arc::clone(&released);
        async move {
            while conn.request().await.is_some() {
                released.notified().await;
                conn.ok("first").await;
            }
        }
    })
    .await;
    let second = Origin::named("second").await;
    let (mut routing, fields) = first_then_second(first.address, second.address);
    routing.resilience.hedge_after = HedgeAfter::Off;
    let world = World::start([routing]).await;
    let mut client = world.client().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
    first.requests(1).await;
    // Longer than any hedge by default.
    assert!(tokio::time::timeout(Duration::from_millis(600), client.head()).await.is_err());
    answers.notify_one();
    assert_eq!(client.answer().await.text(), "first");
    assert_eq!((second.counts().requests, hedges(&world).0), (0, Some(0)));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_itself_it_learns_what_is_usual() {
    let (first, second) = (moody("first").await, Origin::named("second").await);
    let (routing, fields) = first_then_second(first.address, second.address);
    let mut world = World::start_with(|config| config.workers = 1, [routing]).await;
    let mut client = world.client().await;
    let started = Instant::now();
    assert_eq!(client.get("/silent", &fields).await.text(), "second");
    let unknown = started.elapsed();
    // The first one is suspect until it is connected to.
    within(async { while client.get("/", &fields).await.text() != "first" {} }).await;
    for _ in 0..100 {
        assert_eq!(client.get("/", &fields).await.text(), "first");
    }
    let known = world.endpoint(&replica("web", 0, 0), |report| report.requests > 100).await.latency.unwrap();
    let started = Instant::now();
    assert_eq!(client.get("/silent", &fields).await.text(), "second");
    let took = started.elapsed();
    println!("nothing known: {unknown:?}; with {known:?}: {took:?}");
    assert!(unknown >= Duration::from_millis(250), "{unknown:?}");
    let usual = Duration::from_micros(2 * (known.mean_us + 4 * known.deviation_us));
    assert!(took >= usual.max(Duration::from_millis(100)), "{took:?}");
    assert!(took < usual.max(Duration::from_millis(100)) + Duration::from_millis(150), "{took:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_losses_in_a_row_eject_and_an_answer_in_between_starts_anew() {
    let (first, second) = (moody("first").await, Origin::named("second").await);
    let (routing, fields) = hedged(&first, &second, 30);
    let mut world = World::start([routing]).await;
    let mut client = world.client().await;
    let out = r#"ejections_total{service="web",server="0",reason="slow"}"#;
    for _ in 0..2 {
        until_asked(&mut client, "/silent", &fields, &first).await;
        until_asked(&mut client, "/silent", &fields, &first).await;
        assert_eq!(world.metric(out), Some(0));
        within(async { while client.get("/", &fields).await.text() != "first" {} }).await;
    }
    for _ in 0..3 {
        until_asked(&mut client, "/silent", &fields, &first).await;
    }
    let report = world.endpoint(&replica("web", 0, 0), |report| report.ejected).await;
    assert_eq!((report.circuit.unwrap().reason, world.metric(out)), (EjectReason::Slow, Some(1)));
    let before = first.counts().requests;
    assert_eq!(client.get("/", &fields).await.text(), "second");
    assert_eq!(first.counts().requests, before);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_are_slow_the_requests_own_deadline_holds() {
    let (first, second) = (silent().await, silent().await);
    let (mut routing, fields) = hedged(&first, &second, 50);
    routing.resilience.response_timeout.0 = Duration::from_millis(400);
    let mut world = World::start([routing]).await;
    let started = Instant::now();
    assert_eq!(world.client().await.get("/", &fields).await.status, 504);
    let took = started.elapsed();
    assert!((Duration::from_millis(400)..Duration::from_millis(900)).contains(&took), "{took:?}");
    for (ordinal, origin) in [(0, &first), (1, &second)] {
        let report = world.endpoint(&replica("web", ordinal, 0), |report| report.in_flight == 0).await;
        assert_eq!((report.failures, origin.counts().requests), (1, 1), "{ordinal}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_who_is_alone_or_ejected() {
    let alone = silent().await;
    let mut routing = hashing(HashOn::Path, &[alone.address]);
    routing.resilience.hedge_after = HedgeAfter::After(Span::from_millis(20));
    routing.resilience.response_timeout.0 = Duration::from_millis(200);
    let world = World::start([routing]).await;
    assert_eq!(world.client().await.get("/", "").await.status, 504);
    assert_eq!((hedges(&world).0, alone.counts().requests), (Some(0), 1));
    world.stop().await;

    let broken = Origin::script(|mut conn| async move { drop(conn.request().await) }).await;
    let (routing, fields) = hedged(&alone, &broken, 20);
    let to_broken = format!("x-key: {}\r\n", key_for(&routing, &[1, 0]));
    let mut routing = routing;
    routing.resilience.response_timeout.0 = Duration::from_millis(300);
    routing.resilience.ejection.time = Span::from_millis(60_000);
    routing.resilience.ejection.max_time = Span::from_millis(60_000);
    let mut world = World::start([routing]).await;
    assert_eq!(world.client().await.request("POST", "/", &to_broken, b"").await.status, 502);
    world.endpoint(&replica("web", 1, 0), |report| report.ejected).await;
    assert_eq!(world.client().await.get("/", &fields).await.status, 504);
    assert_eq!((hedges(&world).0, broken.counts().requests), (Some(0), 1));
    world.stop().await;
}
