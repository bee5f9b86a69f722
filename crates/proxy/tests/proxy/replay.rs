use std::net::SocketAddr;
use std::time::Duration;

use ringmaster_core::spec::HashOn;
use tokio::net::TcpListener;

use crate::origin::Origin;
use crate::world::{World, first_then_second, hashing, replica, service, within};

/// An address where nobody listens.
async fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_never_sent_is_replayed_whatever_it_is() {
    for (method, body) in [("GET", 0), ("POST", 10), ("POST", 200_000), ("PATCH", 10)] {
        let origin = Origin::script(|mut conn| async move {
            while let Some(request) = conn.request().await {
                conn.ok(&request.body.len().to_string()).await;
            }
        })
        .await;
        let (routing, fields) = first_then_second(refusing().await, origin.address);
        let world = World::start([routing]).await;
        let answer = world.client().await.request(method, "/", &fields, &vec![b'x'; body]).await;
        assert_eq!((answer.status, answer.text()), (200, &*body.to_string()), "{method} {body}");
        assert_eq!(world.metric(r#"replays_total{service="web"}"#), Some(1));
        world.stop().await;
    }
}

/// Sends one request to an origin that takes it and then breaks the connection; a second one would answer.
async fn sent_then_broken(method: &str, body: usize, reset: bool) -> (u16, usize) {
    let broken = Origin::script(move |mut conn| async move {
        conn.request().await;
        if reset {
            conn.reset();
        }
    })
    .await;
    let good = Origin::script(|mut conn| async move {
        while let Some(request) = conn.request().await {
            conn.ok(&request.body.len().to_string()).await;
        }
    })
    .await;
    let (routing, fields) = first_then_second(broken.address, good.address);
    let mut world = World::start([routing]).await;
    let answer = world.client().await.request(method, "/", &fields, &vec![b'x'; body]).await;
    if answer.status == 200 {
        assert_eq!(answer.text(), body.to_string());
    }
    assert_eq!(broken.counts().requests, 1);
    let report = world.endpoint(&replica("web", 0, 0), |report| report.failures == 1).await;
    assert!(report.ejected);
    let hits = good.counts().requests;
    world.stop().await;
    (answer.status, hits)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_request_that_was_sent_is_replayed() {
    for reset in [false, true] {
        assert_eq!(sent_then_broken("GET", 0, reset).await, (200, 1));
        assert_eq!(sent_then_broken("PUT", 1_000, reset).await, (200, 1));
        assert_eq!(sent_then_broken("DELETE", 0, reset).await, (200, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_or_a_stream_that_was_sent_is_not() {
    for reset in [false, true] {
        assert_eq!(sent_then_broken("POST", 10, reset).await, (502, 0));
        assert_eq!(sent_then_broken("PUT", 100_000, reset).await, (502, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_closes_as_it_is_reused_costs_nothing() {
    // Answers one request per connection; the second one on it gets nothing.
    let origin = Origin::script(|mut conn| async move {
        conn.request().await;
        conn.ok("once").await;
        conn.request().await;
    })
    .await;
    let mut routing = service("web", 1, &[(0, 0, origin.address)]);
    routing.resilience.retries = 0;
    let mut world = World::start_with(|config| config.workers = 1, [routing]).await;
    let mut client = world.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/", "").await.status, 200);
    }
    let report =
        world.endpoint(&replica("web", 0, 0), |report| report.requests >= 20 && report.in_flight == 0).await;
    assert_eq!((report.failures, report.ejected), (0, false));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooled_connection_that_has_closed_fails_no_request() {
    let origin = Origin::script(|mut conn| async move {
        conn.request().await;
        conn.ok("once").await;
    })
    .await;
    let mut routing = service("web", 1, &[(0, 0, origin.address)]);
    routing.resilience.retries = 0;
    let world = World::start_with(|config| config.workers = 1, [routing]).await;
    let mut client = world.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("/", "").await.status, 200);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tries_end_with_the_replays_or_the_candidates() {
    let mut addresses = Vec::new();
    for _ in 0..4 {
        addresses.push(refusing().await);
    }
    for (retries, endpoints, replays) in [(0, 4, 0), (2, 4, 2), (9, 4, 3), (2, 1, 0)] {
        let mut routing = hashing(HashOn::Path, &addresses[..endpoints]);
        routing.resilience.retries = retries;
        let world = World::start([routing]).await;
        let answer = world.client().await.get("/", "").await;
        assert_eq!(answer.status, 502);
        assert_eq!(answer.text(), r#"{"message":"no replica answered","status":"failure"}"#);
        let counted = world.metric(r#"replays_total{service="web"}"#).unwrap();
        assert_eq!(counted, replays, "{retries} retries over {endpoints}");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_is_504_and_not_tried_twice() {
    let silent = Origin::script(|mut conn| async move {
        conn.request().await;
        conn.request().await;
    })
    .await;
    let good = Origin::named("good").await;
    let (mut routing, fields) = first_then_second(silent.address, good.address);
    routing.resilience.response_timeout.0 = Duration::from_millis(100);
    let mut world = World::start([routing]).await;
    assert_eq!(world.client().await.get("/", &fields).await.status, 504);
    assert_eq!(good.counts().requests, 0);
    let report = world.endpoint(&replica("web", 0, 0), |report| report.failures == 1).await;
    assert!(!report.ejected);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_http_is_502_and_not_tried_twice() {
    for garbage in ["garbage\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"] {
        let odd = Origin::script(move |mut conn| async move {
            conn.request().await;
            conn.write(garbage).await;
            conn.request().await;
        })
        .await;
        let good = Origin::named("good").await;
        let (routing, fields) = first_then_second(odd.address, good.address);
        let world = World::start([routing]).await;
        let answer = world.client().await.get("/", &fields).await;
        assert_eq!((answer.status, good.counts().requests), (502, 0), "{garbage}");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_resolves_against_the_newest_snapshot() {
    let (held, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    let old = Origin::script(move |mut conn| {
        let held = held.clone();
        async move {
            conn.request().await;
            held.send(conn).unwrap();
        }
    })
    .await;
    let new = Origin::named("new").await;
    let mut world = World::start([service("web", 1, &[(0, 0, old.address)])]).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let conn = within(arrived.recv()).await.unwrap();
    world.publish([service("web", 1, &[(0, 1, new.address)])]).await;
    drop(conn);
    assert_eq!(client.answer().await.text(), "new");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_finds_no_endpoint_any_more_asks_to_come_back() {
    let (held, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    let old = Origin::script(move |mut conn| {
        let held = held.clone();
        async move {
            conn.request().await;
            held.send(conn).unwrap();
        }
    })
    .await;
    let mut world = World::start([service("web", 1, &[(0, 0, old.address)])]).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let conn = within(arrived.recv()).await.unwrap();
    world.publish([service("web", 1, &[])]).await;
    drop(conn);
    assert_eq!(client.answer().await.status, 503);
    world.stop().await;
}
