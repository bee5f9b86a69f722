//! What the data plane tells of its servers besides doing it: why one is out, and how long answers take.

use ringmaster_core::snapshot::EjectReason;
use ringmaster_core::spec::HashOn;

use crate::origin::Origin;
use crate::world::{World, hashing, key_for, replica};

/// The value of a gauge that is no whole number.
fn gauge(world: &World, series: &str) -> Option<f64> {
    let text = world.proxy.render_metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("ringmaster_proxy_{series} ")))?;
    Some(line.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_server_is_out_is_told_and_that_it_is_on_probation() {
    let bad = Origin::script(|mut conn| async move {
        while conn.request().await.is_some() {
            conn.write("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
        }
    })
    .await;
    let good = Origin::named("good").await;
    let routing = hashing(HashOn::Header("x-key".into()), &[bad.address, good.address]);
    let (own, other) = (key_for(&routing, &[0, 1]), key_for(&routing, &[1, 0]));
    let (own, other) = (format!("x-key: {own}\r\n"), format!("x-key: {other}\r\n"));
    let mut world = World::start([routing]).await;
    let mut client = world.client().await;
    assert_eq!(
        gauge(&world, r#"server_latency_seconds{service="web",server="1"}"#),
        None,
        "nothing is known"
    );
    assert_eq!(client.get("/", &other).await.status, 200);
    for _ in 0..5 {
        assert_eq!(client.get("/", &own).await.status, 200, "an error is tried elsewhere");
    }
    let report = world.endpoint(&replica("web", 0, 0), |report| report.ejected).await;
    let circuit = report.circuit.unwrap();
    assert_eq!((circuit.reason, circuit.on_probation), (EjectReason::Errors, false));
    assert_eq!(circuit.to_string(), "ejected: 5xx in a row");
    assert_eq!(world.metric(r#"ejections_total{service="web",server="0",reason="errors"}"#), Some(1));
    assert_eq!(world.metric(r#"server_on_probation{service="web",server="0"}"#), Some(0));
    assert_eq!(report.latency, None, "errors teach nothing of how long answers take");
    world.endpoint(&replica("web", 1, 0), |report| report.latency.is_some()).await;
    let latency = gauge(&world, r#"server_latency_seconds{service="web",server="1"}"#).unwrap();
    assert!(latency > 0.0 && latency < 1.0, "{latency}");

    let on_probation = |c: ringmaster_core::snapshot::Circuit| c.on_probation && c.since == circuit.since;
    let report =
        world.endpoint(&replica("web", 0, 0), |report| report.circuit.is_some_and(on_probation)).await;
    assert!(!report.ejected);
    assert_eq!(report.circuit.unwrap().to_string(), "on probation after: 5xx in a row");
    assert_eq!(world.metric(r#"server_on_probation{service="web",server="0"}"#), Some(1));
    assert_eq!(world.metric(r#"server_ejected{service="web",server="0"}"#), Some(0));
    world.stop().await;
}
