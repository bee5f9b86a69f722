//! An outage is not multiplied: how many tries may follow the first ones.

use std::net::SocketAddr;

use ringmaster_core::quantity::Percent;
use ringmaster_core::snapshot::ServiceRouting;
use ringmaster_core::spec::{HashOn, HedgeAfter};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::client::Client;
use crate::origin::Origin;
use crate::world::{World, hashing};

/// What is allowed besides the share: 10 per second of the last ten seconds.
const ANYWAY: usize = 100;

fn routing(addresses: &[SocketAddr]) -> ServiceRouting {
    let mut routing = hashing(HashOn::RequestId, addresses);
    routing.resilience.hedge_after = HedgeAfter::Off;
    routing
}

/// Three that take requests, or as much of them as has come, and break the connection.
async fn breaking() -> [Origin; 3] {
    let breaks = || async { Origin::script(|mut conn| async move { drop(conn.head().await) }).await };
    [breaks().await, breaks().await, breaks().await]
}

fn connections(origins: &[Origin]) -> usize {
    origins.iter().map(|origin| origin.counts().connections).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_not_multiplied() {
    const REQUESTS: usize = 500;
    let origins = breaking().await;
    let world = World::start([routing(&[0, 1, 2].map(|n: usize| origins[n].address))]).await;
    let mut client = world.client().await;
    let began = Instant::now();
    for _ in 0..REQUESTS {
        assert_eq!(client.get("/", "").await.status, 502);
    }
    let seconds = began.elapsed().as_secs() as usize;
    let replays = world.metric(r#"replays_total{service="web"}"#).unwrap() as usize;
    let forbidden = world.metric(r#"retry_budget_exhausted_total{service="web"}"#).unwrap();
    // Those who check whether an endpoint is back connect as well, and send nothing: the tries are counted here.
    let tries: usize = (0..3)
        .map(|n| world.metric(&format!(r#"requests_total{{service="web",server="{n}"}}"#)).unwrap() as usize)
        .sum();
    println!("{REQUESTS} requests in {seconds} s: {tries} tries, {replays} replays, {forbidden} forbidden");
    assert!(replays >= ANYWAY, "{replays}");
    assert!(tries <= REQUESTS * 12 / 10 + ANYWAY + 10 * seconds, "{tries} tries in {seconds} s");
    assert_eq!(tries, REQUESTS + replays);
    assert!(forbidden > 0);
    world.stop().await;
    assert!(connections(&origins) >= tries);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_streamed_is_not_multiplied_either() {
    const REQUESTS: usize = 400;
    let origins = breaking().await;
    let world = World::start([routing(&[0, 1, 2].map(|n: usize| origins[n].address))]).await;
    let began = Instant::now();
    for _ in 0..REQUESTS {
        let mut client = Client::connect(world.address).await;
        // Its end never comes: it is passed on as far as it has come.
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
        assert_eq!(client.answer().await.status, 502);
    }
    let seconds = began.elapsed().as_secs() as usize;
    let replays = world.metric(r#"replays_total{service="web"}"#).unwrap() as usize;
    println!("{REQUESTS} requests in {seconds} s: {replays} replays");
    assert!((ANYWAY..=REQUESTS / 5 + ANYWAY + 10 * seconds).contains(&replays), "{replays} in {seconds} s");
    assert!(world.metric(r#"retry_budget_exhausted_total{service="web"}"#).unwrap() > 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_sent_is_free() {
    const REQUESTS: u64 = 300;
    let mut addresses = Vec::new();
    for _ in 0..3 {
        addresses.push(TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
    }
    let mut routing = routing(&addresses);
    routing.resilience.retry_budget = Percent(0);
    let world = World::start([routing]).await;
    let mut client = world.client().await;
    for _ in 0..REQUESTS {
        assert_eq!(client.get("/", "").await.status, 502);
    }
    assert_eq!(world.metric(r#"replays_total{service="web"}"#), Some(2 * REQUESTS));
    assert_eq!(world.metric(r#"retry_budget_exhausted_total{service="web"}"#), Some(0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_budget_nothing_is_sent_twice() {
    let origins = breaking().await;
    let mut routing = routing(&[0, 1, 2].map(|n: usize| origins[n].address));
    routing.resilience.retry_budget = Percent(0);
    let world = World::start([routing]).await;
    let mut client = world.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/", "").await.status, 502);
    }
    assert_eq!(world.metric(r#"replays_total{service="web"}"#), Some(0));
    // Who wants none has not run out of it.
    assert_eq!(world.metric(r#"retry_budget_exhausted_total{service="web"}"#), Some(0));
    world.stop().await;
}
