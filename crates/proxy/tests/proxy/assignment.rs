use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use ringmaster_proxy::{LocalApi, LocalResponse};

use crate::origin::Origin;
use crate::world::{World, name, service};

/// Answers with what it was asked.
struct Echo;

impl LocalApi for Echo {
    fn call(&self, method: http::Method, path: String, body: Bytes) -> BoxFuture<'static, LocalResponse> {
        let text = format!("{method} {path} {}", String::from_utf8_lossy(&body));
        std::future::ready(LocalResponse { status: 202, body: text.into() }).boxed()
    }
}

/// Answers 404 to everything but `/home`.
async fn replica() -> Origin {
    Origin::script(|mut conn| async move {
        while let Some(request) = conn.request().await {
            if request.line().contains("/home") {
                conn.ok("home").await;
            } else {
                conn.write("HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nX-Odd: 1\r\n\r\nno!").await;
            }
        }
    })
    .await
}

async fn world(origin: &Origin, on: bool) -> World {
    let routing = service("web", 1, &[(0, 0, origin.address)]);
    let mut world = World::start_with(|config| config.local = Some(Arc::new(Echo)), [routing]).await;
    world.change(|snapshot| snapshot.assignment_api = on.then(|| name("web"))).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exact_paths_go_to_the_controller() {
    let origin = replica().await;
    let world = world(&origin, true).await;
    let mut client = world.client().await;
    for (method, path) in
        [("GET", "/rep"), ("POST", "/add"), ("DELETE", "/rm"), ("POST", "/rm"), ("GET", "/rep?x=1")]
    {
        let answer = client.request(method, path, "", b"{}").await;
        let path = path.trim_end_matches("?x=1");
        assert_eq!((answer.status, answer.text()), (202, &*format!("{method} {path} {{}}")));
        assert_eq!(answer.headers["content-type"], "application/json");
    }
    assert_eq!(origin.counts().requests, 0);
    assert_eq!(client.get("/home", "").await.text(), "home");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replicas_404_becomes_the_assignments_400() {
    let origin = replica().await;
    let world = world(&origin, true).await;
    let mut client = world.client().await;
    for path in ["/other", "/other?q=1"] {
        let answer = client.get(path, "").await;
        assert_eq!(answer.status, 400);
        assert_eq!(
            answer.text(),
            r#"{"message":"<Error> '/other' endpoint does not exist in server replicas","status":"failure"}"#
        );
        assert_eq!(answer.headers["content-type"], "application/json");
        assert!(!answer.headers.contains_key("x-odd"));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused_in_the_assignments_form() {
    let origin = replica().await;
    let world = world(&origin, true).await;
    let answer = world.client().await.request("POST", "/add", "", &vec![b'x'; 70_000]).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.text(), r#"{"message":"<Error> request body is too large","status":"failure"}"#);
    world.stop().await;
}

/// Wherever the reads end, one of the paddings has what is left begin with what looks like the end of a chunked body.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_body_that_is_too_large_is_no_request() {
    let origin = replica().await;
    let world = world(&origin, true).await;
    let end = "0\r\n\r\n";
    for padding in 0..end.len() {
        let data = "x".repeat(padding) + &end.repeat(40_000);
        let mut client = world.client().await;
        let head = "POST /add HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}{:x}\r\n{data}\r\n0\r\n\r\n", data.len())).await;
        let answer = client.answer().await;
        assert_eq!(answer.text(), r#"{"message":"<Error> request body is too large","status":"failure"}"#);
        assert_eq!(answer.headers["connection"], "close", "{padding}");
        assert!(client.is_closed().await, "{padding}");
    }
    assert_eq!(origin.counts().requests, 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expectation_is_answered_once() {
    let origin = replica().await;
    let world = world(&origin, true).await;
    let mut client = world.client().await;
    client
        .send("POST /add HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(client.head().await.unwrap().0, 100);
    // It has begun to send, which is no reason to ask again.
    client.send("2\r\n").await;
    tokio::task::yield_now().await;
    client.send("{}\r\n0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 202);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_the_paths_are_the_replicas_and_404_is_404() {
    let origin = replica().await;
    let world = world(&origin, false).await;
    let answer = world.client().await.get("/rep", "").await;
    assert_eq!((answer.status, answer.text(), &*answer.headers["x-odd"]), (404, "no!", "1"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_ready_replica_stays_503() {
    let origin = replica().await;
    let mut world = world(&origin, true).await;
    world.publish([service("web", 1, &[])]).await;
    let answer = world.client().await.get("/home", "").await;
    assert_eq!((answer.status, &*answer.headers["retry-after"]), (503, "1"));
    world.stop().await;
}
