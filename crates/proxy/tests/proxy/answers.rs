//! What the answers of an endpoint say about it: tried elsewhere, ejected, on probation, and back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringmaster_core::quantity::{Percent, Span};
use ringmaster_core::snapshot::{EjectReason, ServiceRouting};
use ringmaster_core::spec::{HashOn, HedgeAfter, Policy};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::client::Client;
use crate::origin::{Conn, Origin};
use crate::world::{World, first_then_second, hashing, key_for, replica, service, within};

/// Answers with the status that the path names, `/503`, and with its own name.
async fn obedient(name: &'static str) -> Origin {
    Origin::script(move |mut conn| async move {
        while let Some(request) = conn.request().await {
            let path = request.line().split(' ').nth(1).unwrap().to_owned();
            answer(&mut conn, path[1..].parse().unwrap_or(200), name).await;
        }
    })
    .await
}

/// Answers everything with this status.
async fn always(status: u16, name: &'static str) -> Origin {
    Origin::script(move |mut conn| async move {
        while conn.request().await.is_some() {
            answer(&mut conn, status, name).await;
        }
    })
    .await
}

async fn answer(conn: &mut Conn, status: u16, body: &str) {
    conn.write(format!("HTTP/1.1 {status} As asked\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
}

/// Without hedges, which are another matter.
fn plain(mut routing: ServiceRouting) -> ServiceRouting {
    routing.resilience.hedge_after = HedgeAfter::Off;
    routing
}

async fn post(client: &mut Client, path: &str, fields: &str) -> (u16, String) {
    let answer = client.request("POST", path, fields, b"").await;
    (answer.status, answer.text().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_serve_costs_a_repeatable_request_nothing() {
    for status in [500, 501, 502, 503, 504, 404, 429] {
        for (method, field, repeatable) in [
            ("GET", "", true),
            ("PUT", "", true),
            ("POST", "", false),
            ("PATCH", "", false),
            ("POST", "Idempotency-Key: 7\r\n", true),
        ] {
            let (odd, good) = (always(status, "odd").await, Origin::named("good").await);
            let (routing, fields) = first_then_second(odd.address, good.address);
            let world = World::start([plain(routing)]).await;
            let answer = world.client().await.request(method, "/", &(fields + field), b"body").await;
            let replayed = repeatable && (502..=504).contains(&status);
            let expected = if replayed { (200, "good") } else { (status, "odd") };
            assert_eq!((answer.status, answer.text()), expected, "{method} {field} {status}");
            assert_eq!(good.counts().requests, usize::from(replayed), "{method} {status}");
            let replays = world.metric(r#"replays_total{service="web"}"#);
            assert_eq!(replays, Some(u64::from(replayed)), "{method} {status}");
            world.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_tried_elsewhere_once_and_the_last_answer_is_passed_on() {
    let origins = [always(503, "0").await, always(503, "1").await, always(503, "2").await];
    for (count, asked) in [(1, 1), (2, 2), (3, 2)] {
        let before: usize = origins.iter().map(|origin| origin.counts().requests).sum();
        let addresses: Vec<SocketAddr> = origins[..count].iter().map(|origin| origin.address).collect();
        let routing = plain(hashing(HashOn::Header("x-key".into()), &addresses));
        let order: Vec<u16> = (0..count as u16).collect();
        let key = format!("x-key: {}\r\n", key_for(&routing, &order));
        let world = World::start([routing]).await;
        let answer = world.client().await.get("/", &key).await;
        assert_eq!((answer.status, answer.text()), (503, &*(asked - 1).to_string()), "of {count}");
        let after: usize = origins.iter().map(|origin| origin.counts().requests).sum();
        assert_eq!(after - before, asked, "of {count}");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_replays_an_answer_is_passed_on() {
    let (odd, good) = (always(503, "odd").await, Origin::named("good").await);
    let (mut routing, fields) = first_then_second(odd.address, good.address);
    routing.resilience.retries = 0;
    let world = World::start([plain(routing)]).await;
    assert_eq!(world.client().await.get("/", &fields).await.text(), "odd");
    assert_eq!(good.counts().requests, 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_errors_in_a_row_eject_and_a_good_answer_in_between_starts_anew() {
    let (first, second) = (obedient("first").await, obedient("second").await);
    let (routing, fields) = first_then_second(first.address, second.address);
    let mut world = World::start([plain(routing)]).await;
    let mut client = world.client().await;
    let out = r#"ejections_total{service="web",server="0",reason="errors"}"#;
    for path in ["/500", "/500", "/503", "/599", "/200", "/500", "/500", "/500", "/500", "/404"] {
        assert_eq!(post(&mut client, path, &fields).await.1, "first", "{path}");
    }
    assert_eq!(world.metric(out), Some(0));
    for _ in 0..5 {
        assert_eq!(post(&mut client, "/500", &fields).await, (500, "first".into()));
    }
    let report = world.endpoint(&replica("web", 0, 0), |report| report.ejected).await;
    assert_eq!((report.circuit.unwrap().reason, world.metric(out)), (EjectReason::Errors, Some(1)));
    assert_eq!(post(&mut client, "/200", &fields).await, (200, "second".into()));
    assert_eq!(report.failures, 0, "an answer is no failed try");
    world.stop().await;
}

/// One that is on probation: it is ejected for an answer, and its term is over.
struct Probation {
    world: World,
    first: Origin,
    _second: Origin,
    fields: String,
    /// How long it was out.
    term: Duration,
}

const TERM: Duration = Duration::from_millis(400);

impl Probation {
    async fn begin(first: Origin) -> Probation {
        let second = Origin::named("second").await;
        let (mut routing, fields) = first_then_second(first.address, second.address);
        routing.resilience.ejection.consecutive_errors = 1;
        routing.resilience.ejection.time = Span::from_millis(TERM.as_millis() as u64);
        let mut world = World::start([plain(routing)]).await;
        assert_eq!(post(&mut world.client().await, "/500", &fields).await.0, 500);
        let began = Instant::now();
        on_probation(&mut world).await;
        Probation { world, first, _second: second, fields, term: began.elapsed() }
    }
}

async fn on_probation(world: &mut World) {
    let probation = |circuit: ringmaster_core::snapshot::Circuit| circuit.on_probation;
    world.endpoint(&replica("web", 0, 0), |report| report.circuit.is_some_and(probation)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_probation_two_good_answers_bring_it_back() {
    let Probation { mut world, first: _first, _second, fields, term } =
        Probation::begin(obedient("first").await).await;
    assert!(term >= TERM, "{term:?}");
    let mut client = world.client().await;
    // What cannot be sent elsewhere goes there no more.
    assert_eq!(post(&mut client, "/", &fields).await.1, "second");
    assert_eq!(client.get("/", &fields).await.text(), "first");
    assert_eq!(post(&mut client, "/", &fields).await.1, "second");
    assert_eq!(client.get("/", &fields).await.text(), "first");
    world.endpoint(&replica("web", 0, 0), |report| report.circuit.is_none()).await;
    assert_eq!(post(&mut client, "/", &fields).await.1, "first");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_probation_a_bad_answer_doubles_the_term_and_costs_nothing() {
    let Probation { mut world, first: _first, _second, fields, .. } =
        Probation::begin(obedient("first").await).await;
    let mut client = world.client().await;
    assert_eq!(client.get("/503", &fields).await.text(), "second", "it was tried elsewhere");
    let began = Instant::now();
    let report = world.endpoint(&replica("web", 0, 0), |report| report.ejected).await;
    assert_eq!(report.circuit.unwrap().reason, EjectReason::Errors);
    on_probation(&mut world).await;
    assert!(began.elapsed() >= 2 * TERM, "{:?}", began.elapsed());
    world.stop().await;
}

/// Holds requests to `/held` back before they are answered, those to `/long` in the middle of their answers.
async fn holding(gate: Arc<Notify>) -> Origin {
    Origin::script(move |mut conn| {
        let gate = Arc::clone(&gate);
        async move {
            while let Some(request) = conn.request().await {
                let path = request.line().split(' ').nth(1).unwrap().to_owned();
                match &*path {
                    "/held" => {
                        gate.notified().await;
                        conn.ok("first").await;
                    }
                    "/long" => {
                        conn.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na").await;
                        gate.notified().await;
                        conn.write("b").await;
                    }
                    path => answer(&mut conn, path[1..].parse().unwrap_or(200), "first").await,
                }
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn on_probation_one_request_at_a_time_goes_there() {
    let gate = Arc::new(Notify::new());
    let Probation { mut world, mut first, _second, fields, .. } =
        Probation::begin(holding(Arc::clone(&gate)).await).await;
    let mut held = world.client().await;
    held.send(format!("GET /held HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
    first.requests(2).await;
    for _ in 0..10 {
        // Each on a connection of its own, so that all workers are asked.
        assert_eq!(world.client().await.get("/", &fields).await.text(), "second");
    }
    assert_eq!(first.counts().requests, 2);
    gate.notify_one();
    assert_eq!(held.answer().await.text(), "first");
    assert_eq!(world.client().await.get("/", &fields).await.text(), "first");
    world.endpoint(&replica("web", 0, 0), |report| report.circuit.is_none()).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_probation_an_answer_that_lasts_has_shown_enough_when_it_begins() {
    let gate = Arc::new(Notify::new());
    let Probation { mut world, first: _first, _second, fields, .. } =
        Probation::begin(holding(Arc::clone(&gate)).await).await;
    let mut long = world.client().await;
    long.send(format!("GET /long HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
    assert_eq!(long.head().await.unwrap().0, 200);
    assert_eq!(world.client().await.get("/", &fields).await.text(), "first");
    world.endpoint(&replica("web", 0, 0), |report| report.circuit.is_none()).await;
    gate.notify_one();
    assert_eq!(long.take(2).await.unwrap(), b"ab");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_are_ejected_for_their_answers_and_never_the_last() {
    for (count, most, expected) in
        [(4, 50, 2), (4, 25, 1), (2, 50, 1), (1, 50, 0), (1, 100, 0), (3, 100, 2), (3, 0, 0)]
    {
        let mut origins = Vec::new();
        for _ in 0..count {
            origins.push(always(500, "bad").await);
        }
        let endpoints: Vec<(u16, u32, SocketAddr)> =
            (0..).zip(&origins).map(|(ordinal, origin)| (ordinal, 0, origin.address)).collect();
        let mut routing = plain(service("web", count, &endpoints));
        routing.balancing.policy = Policy::RoundRobin;
        routing.resilience.ejection.consecutive_errors = 2;
        routing.resilience.ejection.max_ejected = Percent(most);
        routing.resilience.ejection.time = Span::from_millis(60_000);
        routing.resilience.ejection.max_time = Span::from_millis(60_000);
        let mut world = World::start([routing]).await;
        let mut clients = [world.client().await, world.client().await];
        for n in 0..60 {
            assert_eq!(post(&mut clients[n % 2], "/", "").await.0, 500);
        }
        let ejected = |report: &ringmaster_core::snapshot::Report| {
            report.endpoints.values().filter(|endpoint| endpoint.ejected).count()
        };
        let report = world
            .report(|report| {
                let requests: u64 = report.endpoints.values().map(|endpoint| endpoint.requests).sum();
                requests >= 60
            })
            .await;
        assert_eq!(ejected(&report), expected, "{most} % of {count}");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_with_more_errors_than_the_others_is_out_until_it_is_better_and_not_out_again_for_the_same() {
    let bad = Arc::new(AtomicBool::new(true));
    let is_bad = Arc::clone(&bad);
    let odd = Origin::script(move |mut conn| {
        let is_bad = Arc::clone(&is_bad);
        async move {
            let mut turn = false;
            while conn.request().await.is_some() {
                turn = !turn;
                let fails = turn && is_bad.load(Ordering::SeqCst);
                answer(&mut conn, if fails { 500 } else { 200 }, "odd").await;
            }
        }
    })
    .await;
    let others = [Origin::named("1").await, Origin::named("2").await];
    let endpoints = [(0, 0, odd.address), (1, 0, others[0].address), (2, 0, others[1].address)];
    let mut routing = plain(service("web", 3, &endpoints));
    routing.balancing.policy = Policy::RoundRobin;
    routing.resilience.ejection.consecutive_errors = 0;
    routing.resilience.ejection.error_rate = Percent(5);
    routing.resilience.ejection.time = Span::from_millis(100);
    let mut world = World::start_with(|config| config.workers = 1, [routing]).await;
    let mut client = world.client().await;
    let out = r#"ejections_total{service="web",server="0",reason="error_rate"}"#;
    within(async {
        while world.metric(out) == Some(0) {
            client.get("/", "").await;
        }
    })
    .await;
    bad.store(false, Ordering::SeqCst);
    // It proves itself with what it is asked.
    let back = Instant::now();
    within(async { while client.get("/", "").await.text() != "odd" {} }).await;
    // Three looks at the last seconds, which its errors are part of.
    while back.elapsed() < Duration::from_millis(3_500) {
        assert_eq!(client.get("/", "").await.status, 200);
    }
    assert_eq!(world.metric(out), Some(1));
    world.endpoint(&replica("web", 0, 0), |report| report.circuit.is_none()).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_changes_its_address_starts_its_counts_afresh() {
    let (old, new) = (Origin::named("old").await, Origin::named("new").await);
    let mut world = World::start([service("web", 1, &[(0, 0, old.address)])]).await;
    let mut client = world.client().await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1_500) {
        assert_eq!(client.get("/", "").await.text(), "old");
    }
    world.publish([service("web", 1, &[(0, 0, new.address)])]).await;
    let changed = Instant::now();
    while changed.elapsed() < Duration::from_millis(1_500) {
        assert_eq!(client.get("/", "").await.text(), "new");
    }
    // Whoever looks at the counts once a second is still there, else this is not acknowledged.
    world.publish([service("web", 1, &[(0, 0, old.address)])]).await;
    world.endpoint(&replica("web", 0, 0), |report| report.in_flight == 0).await;
    world.stop().await;
}
