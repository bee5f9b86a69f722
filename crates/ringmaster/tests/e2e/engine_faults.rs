//! The engine is away, goes away, loses events, refuses, lies, answers late or not at all.

pub(crate) mod bed;
mod calls;
mod lists;
mod pulls;
mod replicas;

use bollard::Docker;
use bollard::query_parameters::KillContainerOptionsBuilder;
use ringmaster_core::Reason;
use ringmaster_core::status::ConditionKind;

use crate::common::{Daemon, On, Setup, docker_or_skip, shared};
use crate::engine_proxy::{EngineProxy, EventFault};
use crate::load::Load;

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_cannot_be_reached_at_start_is_named() {
    let _shared = shared().await;
    let (setup, folder) = Setup::new(On::Docker(String::new()));
    let socket = folder.path().join("docker.sock");
    let setup = setup.with(&["--docker-socket", socket.to_str().unwrap()]);
    let (code, missing) = setup.refused();
    assert!(code == Some(1) && missing.contains(socket.to_str().unwrap()), "{code:?} {missing}");
    // A socket that nobody listens on is an error under `auto` too, not a reason to run processes.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let (code, refused) = Setup { runtime: "auto", ..setup }.refused();
    assert!(
        code == Some(1)
            && refused.contains(socket.to_str().unwrap())
            && refused.contains("no engine listens on it"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_engine_auto_runs_processes_and_remembers_it() {
    let _shared = shared().await;
    let (setup, folder) = Setup::new(On::Process);
    let socket = folder.path().join("docker.sock");
    let setup = setup.with(&["--docker-socket", socket.to_str().unwrap()]);
    let mut daemon = Daemon::with(Setup { runtime: "auto", ..setup }).await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 1, "")).await;
    assert_eq!(daemon.client.version().await.unwrap().runtime, "process");
    daemon.end(rustix::process::Signal::TERM).await;
    // An engine that appears later does not make the replicas disappear.
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    daemon.restart().await;
    assert_eq!(daemon.client.version().await.unwrap().runtime, "process");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_socket_leaves_traffic_alone_and_is_recovered_from() {
    let _shared = shared().await;
    let Some(on) = docker_or_skip("a_cut_socket_leaves_traffic_alone_and_is_recovered_from").await else {
        return;
    };
    let (setup, folder) = Setup::new(on);
    let proxy = EngineProxy::start(&folder.path().join("engine.sock"));
    let daemon = Daemon::with(setup.with(&["--docker-socket", proxy.path.to_str().unwrap()])).await;
    daemon.apply_and_converge(&daemon.web, &daemon.manifest(&daemon.web, 2, "")).await;
    let mut load = Load::start(daemon.setup.listen, 100);
    load.more(50).await;
    proxy.cut();
    let degraded = |status: &ringmaster_core::status::ServiceStatus| {
        status
            .condition(ConditionKind::Degraded)
            .is_some_and(|c| c.status && c.reason == Reason::EngineUnreachable)
    };
    let status = daemon.until(&daemon.web, "degraded", degraded).await;
    assert_eq!(status.ready, 2, "unknown is not gone");
    // What is asked for meanwhile happens when the engine is back.
    let response = daemon.apply(&daemon.manifest(&daemon.web, 3, "")).await;
    proxy.mend();
    daemon.converged(&daemon.web, response.generation).await;
    daemon.event("EngineUnreachable", "").await;
    load.more(50).await;
    let outcome = load.stop().await;
    assert_eq!(outcome.failed, [], "of {} requests", outcome.total);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_events_are_made_up_for_by_probes_and_lists() {
    let _shared = shared().await;
    let Some(on) = docker_or_skip("lost_events_are_made_up_for_by_probes_and_lists").await else { return };
    let (setup, folder) = Setup::new(on);
    let proxy = EngineProxy::start(&folder.path().join("engine.sock"));
    proxy.events(EventFault::Lost);
    let daemon = Daemon::with(setup.with(&["--docker-socket", proxy.path.to_str().unwrap()])).await;
    daemon.apply_and_converge(&daemon.web, &daemon.manifest(&daemon.web, 2, "")).await;
    daemon.client.fault(&format!("{}-1", daemon.web), "KILL").await.unwrap();
    let next = format!("{}-1-1", daemon.web);
    let replaced = |m: &ringmaster_core::status::ReplicaStatus| m.engine_name.as_deref() == Some(&next);
    daemon
        .until(&daemon.web, "replaced", |status| status.ready == 2 && status.members.iter().any(replaced))
        .await;
}

/// Sends a signal that changes nothing: the engine tells of it.
async fn cont(docker: &Docker, container: &str) {
    let options = KillContainerOptionsBuilder::new().signal("CONT").build();
    docker.kill_container(container, Some(options)).await.unwrap();
}
