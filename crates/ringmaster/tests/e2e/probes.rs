//! Probes on real processes: who hangs gets no traffic, who does not live is replaced.

use ringmaster_core::status::Phase;

use crate::common::{Daemon, On, shared};

fn phase_of(status: &ringmaster_core::status::ServiceStatus, engine_name: &str) -> Option<Phase> {
    status.members.iter().find(|m| m.engine_name.as_deref() == Some(engine_name)).map(|m| m.phase)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_hangs_gets_no_traffic_until_it_answers_again() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 2, "")).await;
    let (code, _, err) = daemon.cli(&["kill", "web-1", "--signal", "STOP"]).await;
    assert_eq!(code, Some(0), "{err}");
    daemon
        .until("web", "withdrawn", |s| s.ready == 1 && phase_of(s, "web-1-0") == Some(Phase::NotReady))
        .await;
    for _ in 0..20 {
        assert!(daemon.get("/home").await.1.contains("Server: 1"), "the hanging one was asked");
    }
    let (code, _, err) = daemon.cli(&["kill", "web-1", "--signal", "CONT"]).await;
    assert_eq!(code, Some(0), "{err}");
    daemon.until("web", "back", |s| s.ready == 2 && phase_of(s, "web-1-0") == Some(Phase::Ready)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_does_not_live_is_replaced() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let liveness = "    liveness: { httpGet: { path: /heartbeat }, period: 200ms, timeout: 200ms, failureThreshold: 3 }\n";
    // Without requests in flight the drain of the one that hangs is over at once; its end takes the grace.
    let more = format!("{liveness}  strategy: {{ terminationGrace: 1s }}\n");
    daemon.apply_and_converge("web", &daemon.manifest("web", 2, &more)).await;
    daemon.client.fault("web-1", "STOP").await.unwrap();
    let status = daemon
        .until("web", "replaced", |s| s.is_converged() && phase_of(s, "web-1-1") == Some(Phase::Ready))
        .await;
    assert_eq!(phase_of(&status, "web-1-0"), None, "the one that hung is gone");
    daemon.event("Failed", "liveness probe failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_accepted_is_enough_for_a_tcp_probe() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let tcp = "readiness: { tcpSocket: {}, period: 500ms }\n";
    let manifest = daemon.manifest("web", 1, "");
    let at = manifest.find("readiness:").unwrap();
    daemon.apply_and_converge("web", &format!("{}{tcp}", &manifest[..at])).await;
    assert_eq!(daemon.get("/home").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_sees_the_replicas_environment_gates_its_traffic() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("ready");
    let readiness = "readiness: { exec: { command: [/bin/sh, -c, 'test -e \"$FLAG\" || { echo not yet; exit 1; }'] }, \
                     period: 50ms, timeout: 5s, failureThreshold: 1 }\n";
    let manifest = daemon.manifest("web", 1, "");
    let at = manifest.find("readiness:").unwrap();
    let manifest = format!("{}{readiness}", &manifest[..at])
        .replace("    resources:", &format!("    env: {{ FLAG: {} }}\n    resources:", flag.display()));
    daemon.apply(&manifest).await;
    daemon
        .until("web", "refused", |s| {
            s.ready == 0 && s.members.iter().any(|m| m.message.contains("ended with exit code 1: not yet"))
        })
        .await;
    std::fs::write(&flag, "").unwrap();
    daemon.until("web", "ready", |s| s.ready == 1).await;
    std::fs::remove_file(&flag).unwrap();
    daemon
        .until("web", "withdrawn", |s| s.ready == 0 && phase_of(s, "web-0-0") == Some(Phase::NotReady))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_answer_says_gates_traffic() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let get = |more: &str| {
        daemon.manifest("web", 1, "").replace("path: /heartbeat", &format!("path: /home, {more}"))
    };
    daemon.apply(&get("bodyContains: from Server 2")).await;
    daemon
        .until("web", "not ready", |s| {
            s.ready == 0
                && s.members.iter().any(|m| m.message.contains("its body does not contain `from Server 2`"))
        })
        .await;
    daemon.apply_and_converge("web", &get("bodyContains: 'from Server: 1', status: 200")).await;
    // Another probe is no other template: the same replica is judged by it.
    let status = daemon.apply(&get("status: 201-299")).await;
    assert!(!status.services[0].rollout);
    daemon
        .until("web", "withdrawn", |s| s.ready == 0 && phase_of(s, "web-0-0") == Some(Phase::NotReady))
        .await;
}
