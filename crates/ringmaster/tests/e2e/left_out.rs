//! A replica that the data plane leaves out: why and since when, wherever somebody looks, and that it is back.

use ringmaster_core::snapshot::EjectReason;
use rustix::process::Signal;

use crate::chromium::Browser;
use crate::common::{Daemon, On, eventually, name, shared};
use crate::load::Load;

/// Three replicas whose probes fail so late that live traffic alone notices.
async fn with_patient_probes() -> Daemon {
    let daemon = Daemon::start(On::Process).await;
    let manifest = daemon.manifest("web", 3, "").replace("failureThreshold: 2", "failureThreshold: 1000");
    daemon.apply_and_converge("web", &manifest).await;
    daemon
}

/// Awaits an output of a verb that has all of these in one line.
async fn shows(daemon: &Daemon, verb: &[&str], line_with: &[&str]) -> String {
    eventually(&format!("{verb:?} shows {line_with:?}"), || async {
        let (code, out, err) = daemon.cli(verb).await;
        assert_eq!(code, Some(0), "{out}{err}");
        let found = out.lines().find(|line| line_with.iter().all(|part| line.contains(part)));
        found.map(str::to_owned)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_replica_is_left_out_is_told_everywhere_and_that_it_is_back() {
    let _shared = shared().await;
    let daemon = with_patient_probes().await;
    let mut load = Load::start(daemon.setup.listen, 100);
    load.more(200).await;
    let mut key = None;
    for candidate in 0..100_u32 {
        let explained = daemon.client.explain(&name("web"), &candidate.to_string(), None).await.unwrap();
        if explained.owner.is_some_and(|owner| owner.0 == 1) {
            assert!(explained.circuits.is_empty() && explained.at.is_some(), "{explained:?}");
            key = Some(candidate.to_string());
            break;
        }
    }
    let key = key.expect("a third of the keys is web-1's");
    let before = daemon.replica("web", 1).await;
    assert!(before.latency.is_some_and(|latency| latency.mean_us > 0), "{before:?}");
    let wide = shows(&daemon, &["get", "replicas", "-o", "wide"], &["web-1", "ms"]).await;
    assert!(!wide.contains("ejected"), "{wide}");

    // It hangs: connections are accepted, and nobody answers.
    daemon.client.fault("web-1", "STOP").await.unwrap();
    daemon.event("Ejected", "the data plane has stopped choosing it: slower than the others").await;
    let slow = |circuit: ringmaster_core::snapshot::Circuit| circuit.reason == EjectReason::Slow;
    let is_out = |status: &ringmaster_core::status::ServiceStatus| {
        status.members.iter().any(|m| m.ordinal.0 == 1 && m.ejected && m.circuit.is_some_and(slow))
    };
    daemon.until("web", "without web-1", is_out).await;
    let reason = "slower than the others";
    shows(&daemon, &["get", "replicas", "-o", "wide"], &["web-1", "(ejected)", "ejected for ", reason]).await;
    shows(&daemon, &["describe", "web"], &["web-1", "(ejected)", "ejected for ", reason]).await;
    shows(&daemon, &["top", "--once"], &["web-1", "Ready, ejected"]).await;
    let explain = ["explain", "web", "--key", key.as_str()];
    let line = shows(&daemon, &explain, &["passed over web-1: ejected for ", reason]).await;
    println!("{line}");
    // Let back on trial, it still does not answer, and is ejected again.
    shows(&daemon, &["describe", "web"], &["web-1", "(on probation)", "on probation after: ", reason]).await;
    let rendered = reqwest::get(format!("http://{}/metrics", daemon.setup.admin)).await.unwrap();
    let rendered = rendered.text().await.unwrap();
    for part in [
        "ringmaster_proxy_server_latency_seconds{service=\"web\",server=\"0\"} 0.",
        "ringmaster_proxy_server_on_probation{service=\"web\",server=\"0\"} 0",
        "ringmaster_proxy_requests_queued{service=\"web\"} 0",
    ] {
        assert!(rendered.contains(part), "{part} in\n{rendered}");
    }

    daemon.client.fault("web-1", "CONT").await.unwrap();
    daemon.event("Returned", "the data plane chooses it again; it was out for: slower than the others").await;
    daemon.until("web", "whole", |status| status.members.iter().all(|m| m.circuit.is_none())).await;
    let after = daemon.replica("web", 1).await;
    assert_eq!((after.id, after.message.as_str()), (before.id, ""), "nobody replaced it");
    let outcome = load.stop().await;
    assert_eq!(outcome.failed, [], "of {} requests", outcome.total);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_does_not_count_as_returned() {
    let _shared = shared().await;
    let mut daemon = with_patient_probes().await;
    let mut load = Load::start(daemon.setup.listen, 100);
    load.more(50).await;
    for _ in 0..3 {
        let before = daemon.replica("web", 1).await;
        daemon.client.fault("web-1", "KILL").await.unwrap();
        let is_new = |status: &ringmaster_core::status::ServiceStatus| {
            status.is_converged() && status.members.iter().any(|m| m.restarts > before.restarts)
        };
        daemon.until("web", "replaced", is_new).await;
    }
    let events = daemon.events_text().await;
    assert!(!events.contains("Returned"), "{events}");
    assert_eq!(load.stop().await.failed, []);
    assert_eq!(daemon.end(Signal::TERM).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_tells_why_a_replica_is_left_out_and_how_long_answers_take() {
    let _shared = shared().await;
    let test = "the_page_tells_why_a_replica_is_left_out_and_how_long_answers_take";
    let Some(browser) = Browser::start(test, 360, 740).await else { return };
    let daemon = with_patient_probes().await;
    let mut load = Load::start(daemon.setup.listen, 100);
    load.more(100).await;
    browser.client.goto(&format!("http://{}/", daemon.setup.admin)).await.unwrap();
    let cell = "[...document.querySelectorAll('td[data-label=Latency]')]";
    browser
        .until(&format!(
            "{cell}.length === 3 && {cell}.every((c) => /^\\d+(\\.\\d)? ms$/.test(c.textContent))"
        ))
        .await;
    daemon.client.fault("web-1", "STOP").await.unwrap();
    let row = "[...document.querySelectorAll('tbody tr')][1]?.textContent";
    browser
        .until(&format!("/Ready, ejected.*ejected: slower than the others, for \\d+ s/.test({row})"))
        .await;
    let widths = browser.run("return [document.documentElement.scrollWidth, window.innerWidth]").await;
    assert_eq!(widths, serde_json::json!([360, 360]));
    daemon.client.fault("web-1", "CONT").await.unwrap();
    browser.until("[...document.querySelectorAll('#events li')].some((line) => line.textContent.includes('web-1 Returned'))").await;
    browser.until("document.querySelectorAll('tbody tr .phase.good').length === 3").await;
    assert_eq!(browser.complaints().await, [""; 0]);
    assert_eq!(load.stop().await.failed, []);
}
