//! A service without replicas whose requests wait for the first one.

use ringmaster_core::quantity::Span;
use ringmaster_core::snapshot::{Demand, Hold, Report, ServiceRouting};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::origin::Origin;
use crate::world::{World, name, service, within};

fn held(mut routing: ServiceRouting, max: u32, timeout_ms: u64) -> ServiceRouting {
    let timeout = Span::from_millis(timeout_ms);
    routing.demand = Some(Demand { hold: Some(Hold { max, timeout }) });
    routing
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_for_the_first_replica_and_all_are_answered() {
    let origin = Origin::named("first").await;
    let mut world = World::start([held(service("web", 1, &[]), 100, 15_000)]).await;
    let mut clients = JoinSet::new();
    for number in 0..20 {
        let mut client = world.client().await;
        clients.spawn(async move {
            match number % 3 {
                0 => client.get("/", "").await.text().to_owned(),
                1 => client.request("POST", "/", "", b"x").await.text().to_owned(),
                _ => client.request("POST", "/", "", &vec![b'x'; 100_000]).await.text().to_owned(),
            }
        });
    }
    let web = name("web");
    let report = world.report(|report| report.services.get(&web).is_some_and(|s| s.waiting == 20)).await;
    assert_eq!(report.services[&web].responses, 0);
    assert_eq!(world.metric("requests_held{service=\"web\"}"), Some(20));
    // A change that brings no endpoint lets nobody go.
    world.publish([held(service("web", 2, &[]), 100, 15_000)]).await;
    assert!(clients.try_join_next().is_none());
    world.publish([held(service("web", 2, &[(0, 0, origin.address)]), 100, 15_000)]).await;
    while let Some(answer) = within(clients.join_next()).await {
        assert_eq!(answer.unwrap(), "first");
    }
    let is_over =
        |report: &Report| report.services.get(&web).is_some_and(|s| s.waiting == 0 && s.responses == 20);
    world.report(is_over).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_may_wait_and_who_waits_too_long_get_503() {
    let mut world = World::start([held(service("web", 1, &[]), 1, 300)]).await;
    let (mut first, mut second) = (world.client().await, world.client().await);
    let began = Instant::now();
    let waits = tokio::spawn(async move { first.get("/", "").await });
    let web = name("web");
    world.report(|report| report.services.get(&web).is_some_and(|s| s.waiting == 1)).await;
    let refused = second.get("/", "").await;
    assert_eq!((refused.status, refused.headers["retry-after"].as_str()), (503, "1"));
    assert!(refused.text().contains("too many requests wait"), "{}", refused.text());
    let late = within(waits).await.unwrap();
    assert!(began.elapsed().as_millis() >= 300);
    assert_eq!((late.status, late.headers["retry-after"].as_str()), (503, "1"));
    assert!(late.text().contains("no replica was ready in time"), "{}", late.text());
    assert_eq!(world.metric("refusals_total{service=\"web\",reason=\"hold_full\"}"), Some(1));
    assert_eq!(world.metric("refusals_total{service=\"web\",reason=\"hold_timeout\"}"), Some(1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_waits_no_longer_and_a_service_that_goes_is_no_more() {
    let mut world = World::start([held(service("web", 1, &[]), 10, 15_000)]).await;
    let (mut leaving, mut staying) = (world.client().await, world.client().await);
    leaving.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let web = name("web");
    world.report(|report| report.services.get(&web).is_some_and(|s| s.waiting == 1)).await;
    drop(leaving);
    world.report(|report| report.services.get(&web).is_some_and(|s| s.waiting == 0)).await;
    let waits = tokio::spawn(async move { staying.get("/", "").await });
    world.report(|report| report.services.get(&web).is_some_and(|s| s.waiting == 1)).await;
    world.publish([]).await;
    assert_eq!(within(waits).await.unwrap().status, 404);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_hold_nobody_waits() {
    let mut routing = service("web", 1, &[]);
    routing.demand = Some(Demand { hold: None });
    let world = World::start([routing]).await;
    assert_eq!(world.client().await.get("/", "").await.status, 503);
    world.stop().await;
}
