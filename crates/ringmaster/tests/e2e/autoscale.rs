//! Counts that follow a real load, on real processes: up and down, to zero and back, and no request is lost.

use std::time::Duration;

use ringmaster_core::Reason;

use crate::common::{Daemon, On, SOON, Setup, eventually, shared};
use crate::load::Load;

/// Without `replicas`: the autoscaler sets the count.
fn manifest(daemon: &Daemon, autoscale: &str) -> String {
    let more = format!("  autoscale: {{ {autoscale} }}\n  strategy: {{ drain: 5s }}\n");
    daemon.manifest("web", 1, &more).replace("  replicas: 1\n", "")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_count_follows_the_load_and_no_request_fails() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let scale = "minReplicas: 1, maxReplicas: 3, targetRps: 40, scaleDownWindow: 2s";
    daemon.apply_and_converge("web", &manifest(&daemon, scale)).await;
    let load = Load::start(daemon.setup.listen, 100);
    daemon.until("web", "scaled up to 3", |status| status.ready == 3).await;
    let (code, shown, err) = daemon.cli(&["describe", "web"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(shown.contains("Autoscale:    1 to 3 replicas") && shown.contains("rps: "), "{shown}");
    let outcome = load.stop().await;
    daemon.until("web", "scaled down to 1", |status| status.replicas == 1 && status.is_converged()).await;
    assert_eq!(outcome.failed, [], "of {}", outcome.total);
    daemon.event("SuccessfulRescale", "requests/s per replica on average, target 40").await;
    let (code, _, err) = daemon.cli(&["scale", "web", "--replicas", "2"]).await;
    assert!(code == Some(1) && err.contains("is autoscaled"), "{code:?} {err}");
    println!("{} requests, none failed, 1 -> 3 -> 1", outcome.total);
}

async fn to_zero_and_back(daemon: &Daemon) {
    let scale = "maxReplicas: 2, targetInFlight: 100, scaleToZero: true, idleAfter: 2s";
    daemon.apply_and_converge("web", &manifest(daemon, scale)).await;
    assert_eq!(daemon.get("/home").await.0, 200);
    let mut slowest = Duration::ZERO;
    for _ in 0..3 {
        let asleep = daemon
            .until("web", "scaled to zero", |status| status.replicas == 0 && status.members.is_empty())
            .await;
        assert_eq!(asleep.conditions[0].reason, Reason::ScaledToZero);
        let mut load = Load::start(daemon.setup.listen, 50);
        load.more(60).await;
        let outcome = load.stop().await;
        assert_eq!(outcome.failed, [], "of {}", outcome.total);
        slowest = slowest.max(outcome.slowest);
    }
    assert!(slowest < SOON, "{slowest:?}");
    daemon.event("ScaledToZero", "no requests for 2s").await;
    daemon.event("Woken", "wait").await;
    println!("three times to zero and back, none failed; the first request waited {slowest:?} at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_service_goes_to_zero_and_the_next_request_waits_for_its_replica() {
    let _shared = shared().await;
    to_zero_and_back(&Daemon::start(On::Process).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_plane_apart_wakes_a_service_too() {
    let _shared = shared().await;
    let (setup, _folder) = Setup::new(On::Process);
    let daemon = Daemon::with(setup.with(&["--data-plane", "child"])).await;
    eventually("the data plane answers", || async {
        reqwest::get(format!("http://{}/", daemon.setup.listen)).await.ok().map(drop)
    })
    .await;
    to_zero_and_back(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processor_time_counts_where_it_is_the_target() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let scale = "maxReplicas: 2, targetCpu: 10m, scaleDownWindow: 1h";
    daemon.apply_and_converge("web", &manifest(&daemon, scale)).await;
    let load = Load::start(daemon.setup.listen, 200);
    let status = daemon.until("web", "scaled up by processor time", |status| status.ready == 2).await;
    assert!(!status.autoscale.unwrap().metrics.is_empty());
    assert_eq!(load.stop().await.failed, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bounds_are_refused_and_nothing_is_applied() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    daemon.apply_and_converge("web", &manifest(&daemon, "maxReplicas: 2, targetRps: 10")).await;
    let before = daemon.client.overview().await.unwrap();
    for (wrong, expected) in [
        (
            "minReplicas: 5, maxReplicas: 3, targetRps: 10",
            "`minReplicas` of 5 is more than `maxReplicas` of 3",
        ),
        ("minReplicas: 0, maxReplicas: 3, targetRps: 10", "scaleToZero"),
        ("maxReplicas: 3", "nothing says when"),
        ("targetRps: 10", "maxReplicas"),
    ] {
        let error = daemon.try_apply(&manifest(&daemon, wrong)).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{wrong}: {error}");
    }
    let after = daemon.client.overview().await.unwrap();
    assert_eq!((after.generation, &after.services[0].spec), (before.generation, &before.services[0].spec));
}
