use ringmaster_core::spec::RouteSpec;

use crate::origin::Origin;
use crate::world::{World, service};

async fn routed(host: &str, path: &str) -> String {
    let (any, named, api) =
        (Origin::named("any").await, Origin::named("named").await, Origin::named("api").await);
    let route = |hosts: &str, prefix: &str| RouteSpec {
        replica_header: false,
        hosts: vec![hosts.to_owned()],
        path_prefix: prefix.to_owned(),
    };
    let mut services = [
        service("any", 1, &[(0, 0, any.address)]),
        service("named", 1, &[(0, 0, named.address)]),
        service("api", 1, &[(0, 0, api.address)]),
    ];
    services[0].route = route("*", "/deep/er");
    services[1].route = route("A.example", "/");
    services[2].route = route("a.example", "/api");
    let world = World::start(services).await;
    let mut client = world.client().await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    let answer = client.answer().await;
    world.stop().await;
    match answer.status {
        200 => answer.text().to_owned(),
        status => format!("{status} {}", answer.text()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_host_wins_over_any_in_any_case_and_with_a_port() {
    assert_eq!(routed("a.EXAMPLE:8080", "/deep/er").await, "named");
    assert_eq!(routed("b.example", "/deep/er/x").await, "any");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_prefix_of_whole_segments_wins() {
    assert_eq!(routed("a.example", "/api/x?y").await, "api");
    assert_eq!(routed("a.example", "/apis").await, "named");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_service_gets_404_as_json() {
    let body = r#"404 {"message":"no service has a route for this host and path","status":"failure"}"#;
    assert_eq!(routed("b.example", "/").await, body);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_target_names_the_host() {
    assert_eq!(routed("b.example", "http://a.example/api").await, "api");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_endpoints_asks_to_come_back() {
    let world = World::start([service("web", 2, &[])]).await;
    let answer = world.client().await.get("/", "").await;
    assert_eq!((answer.status, &*answer.headers["retry-after"]), (503, "1"));
    assert_eq!(answer.text(), r#"{"message":"no replica is ready","status":"failure"}"#);
    assert_eq!(world.metric(r#"responses_total{service="web",code="5xx"}"#), Some(1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_needs_exactly_one_valid_host() {
    let origin = Origin::named("any").await;
    let world = World::start([service("web", 1, &[(0, 0, origin.address)])]).await;
    for fields in ["", "Host: a\r\nHost: b\r\n", "Host: a/b\r\n", "Host: a b\r\n"] {
        let mut client = world.client().await;
        client.send(format!("GET / HTTP/1.1\r\n{fields}\r\n")).await;
        assert_eq!(client.answer().await.status, 400, "{fields:?}");
    }
    let mut client = world.client().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    let mut client = world.client().await;
    client.send("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 501);
    assert_eq!(origin.counts().requests, 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_endpoint_is_used_at_once_and_a_kept_one_keeps_its_connections() {
    let (old, new, kept) =
        (Origin::named("old").await, Origin::named("new").await, Origin::named("kept").await);
    let web = |attempt, origin: &Origin| service("web", 1, &[(0, attempt, origin.address)]);
    let mut other = service("other", 1, &[(0, 0, kept.address)]);
    other.route.path_prefix = "/kept".to_owned();
    let mut world = World::start([web(0, &old), other.clone()]).await;
    let mut client = world.client().await;
    assert_eq!(client.get("/", "").await.text(), "old");
    assert_eq!(client.get("/kept", "").await.text(), "kept");
    world.publish([web(1, &new), other]).await;
    assert_eq!(client.get("/", "").await.text(), "new");
    assert_eq!(client.get("/kept", "").await.text(), "kept");
    assert_eq!(kept.counts().connections, 1);
    world.stop().await;
}
