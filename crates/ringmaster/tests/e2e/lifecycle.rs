//! How a replica starts and ends: the startup probe, the hook before the stop, crash loops, and who is no concern of others.

use std::time::Duration;

use bollard::query_parameters::{InspectContainerOptions, StopContainerOptionsBuilder};
use futures_util::StreamExt;
use ringmaster_core::Reason;
use ringmaster_core::status::{Phase, ServiceStatus};
use ringmaster_docker::testing::engine_or_skip;
use tokio::time::Instant;

use crate::common::{Daemon, On, docker_or_skip, eventually, service_yaml, shared};

/// A service whose replicas run a shell command.
fn shell(service: &str, replicas: u32, script: &str, more: &str) -> String {
    let script = serde_json::to_string(script).unwrap();
    service_yaml(service, replicas, &format!("process: {{ command: [/bin/sh, -c, {script}] }}"), more)
}

/// A demo replica that begins to listen after a while.
fn late(seconds: f64) -> String {
    format!("sleep {seconds}; exec {} replica", env!("CARGO_BIN_EXE_ringmaster"))
}

fn names(status: &ServiceStatus) -> Vec<String> {
    status.members.iter().filter_map(|member| member.engine_name.clone()).collect()
}

async fn has_event(daemon: &Daemon, reason: Reason) -> bool {
    daemon.client.events(0).await.unwrap().events.iter().any(|event| event.reason == reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn liveness_waits_until_it_has_started() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let probes = "    startup: { tcpSocket: {}, period: 100ms, failureThreshold: 200 }\n    \
                  liveness: { tcpSocket: {}, period: 50ms, failureThreshold: 2 }\n";
    let status = daemon.apply_and_converge("web", &shell("web", 1, &late(1.0), probes)).await;
    assert_eq!((names(&status), status.members[0].restarts), (vec!["web-0-0".to_owned()], 0));
    assert!(status.members[0].failure.is_none(), "{status:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_start_in_time_is_replaced() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let more = "    startup: { tcpSocket: {}, period: 100ms, failureThreshold: 3 }\n  strategy: { terminationGrace: 1s }\n";
    daemon.apply(&shell("web", 1, "exec sleep 600", more)).await;
    daemon.event("Failed", "startup probe failed: connect to").await;
    daemon.until("web", "replaced", |s| names(s).contains(&"web-0-1".to_owned())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hook_runs_before_the_stop_and_its_failure_stops_nothing() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let folder = tempfile::tempdir().unwrap();
    let said = folder.path().join("said");
    let run = |hook: &str| {
        let run = format!(
            "process: {{ command: [ringmaster, replica] }}\n    env: {{ SAID: {} }}\n    lifecycle: {{ preStop: {hook} }}",
            said.display()
        );
        service_yaml("web", 2, &run, "  strategy: { terminationGrace: 4s }\n")
    };
    let read = || std::fs::read_to_string(&said).unwrap_or_default();
    let scale_to_one = async || {
        daemon.client.scale(&crate::common::name("web"), 1).await.unwrap();
        daemon.until("web", "scaled", |s| s.is_converged() && s.members.len() == 1).await;
    };
    let says = r#"{ exec: { command: [/bin/sh, -c, 'echo "server $SERVER_ID" >> "$SAID"'] } }"#;
    daemon.apply_and_converge("web", &run(says)).await;
    scale_to_one().await;
    assert_eq!(read(), "server 2\n");
    assert!(!has_event(&daemon, Reason::PreStopFailed).await, "{}", daemon.events_text().await);

    // One that has been told to end answers nobody new.
    daemon.apply_and_converge("web", &run("{ httpGet: { path: \"/slow?ms=300\" } }")).await;
    scale_to_one().await;
    assert!(!has_event(&daemon, Reason::PreStopFailed).await, "{}", daemon.events_text().await);

    for (hook, why) in [
        ("{ httpGet: { path: /nothing-here } }", "answered 404"),
        ("{ exec: { command: [/bin/sh, -c, 'echo no; exit 4'] } }", "ended with exit code 4: no"),
        ("{ exec: { command: [sleep, '600'] } }", "has not ended within 4s"),
    ] {
        daemon.apply_and_converge("web", &run(hook)).await;
        scale_to_one().await;
        daemon.event("PreStopFailed", why).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_is_described_with_its_next_attempt_and_its_last_lines() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    daemon.apply(&shell("web", 1, "echo starting; echo it is broken >&2; exit 3", "")).await;
    let is_known = |s: &ServiceStatus| {
        s.members.iter().any(|m| {
            let failure = m.failure.as_ref();
            m.phase == Phase::CrashLoopBackOff
                && failure.is_some_and(|f| f.exit_code == Some(3) && f.in_a_row > 1 && !f.output.is_empty())
        })
    };
    let status = daemon.until("web", "described", is_known).await;
    let waiting = status.members.iter().find(|m| m.phase == Phase::CrashLoopBackOff).unwrap();
    assert!(waiting.retry_at.is_some());
    assert_eq!(&*waiting.failure.as_ref().unwrap().output, "starting\nit is broken");
    eventually("it is shown", || async {
        let (_, out, _) = daemon.cli(&["describe", "web"]).await;
        let wanted =
            ["times in a row", "exit code 3; next attempt in", "    | it is broken", "CrashLoopBackOff"];
        wanted.iter().all(|text| out.contains(text)).then_some(())
    })
    .await;
    let (_, out, _) = daemon.cli(&["get", "replicas", "-o", "wide"]).await;
    assert!(out.contains("CrashLoopBackOff"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_says_what_it_waits_for_and_how_long() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 1, "  strategy: { drain: 20s }\n")).await;
    let url = format!("http://{}/stream?chunks=600&ms=50", daemon.setup.listen);
    let mut stream = reqwest::get(url).await.unwrap().bytes_stream();
    stream.next().await.unwrap().unwrap();
    daemon.client.scale(&crate::common::name("web"), 0).await.unwrap();
    let status = daemon
        .until("web", "draining", |s| s.members.iter().any(|m| m.drain_until.is_some() && m.in_flight == 1))
        .await;
    assert_eq!(status.members[0].phase, Phase::Draining);
    let (_, out, _) = daemon.cli(&["describe", "web"]).await;
    assert!(out.contains("scaled down: 1 in flight, ") && out.contains("s left"), "{out}");
    // The last stream ends the drain, long before its time is over.
    drop(stream);
    daemon.until("web", "gone", |s| s.members.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_tells_streams_apart_from_requests() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 1, "  strategy: { drain: 20s }\n")).await;
    let open = async |path: &str| {
        let response = reqwest::get(format!("http://{}{path}?chunks=600&ms=50", daemon.setup.listen)).await;
        let mut body = response.unwrap().bytes_stream();
        body.next().await.unwrap().unwrap();
        body
    };
    let streams = [open("/events").await, open("/events").await, open("/events").await];
    let request = open("/stream").await;
    daemon.client.scale(&crate::common::name("web"), 0).await.unwrap();
    let busy = |all: u32, open: u32| {
        move |s: &ServiceStatus| {
            s.members.iter().any(|m| m.drain_until.is_some() && (m.in_flight, m.streams) == (all, open))
        }
    };
    daemon.until("web", "draining", busy(4, 3)).await;
    let (_, out, _) = daemon.cli(&["describe", "web"]).await;
    assert!(out.contains("scaled down: 1 request, 3 streams, ") && out.contains("s left"), "{out}");
    drop(request);
    daemon.until("web", "draining streams alone", busy(3, 3)).await;
    let (_, out, _) = daemon.cli(&["describe", "web"]).await;
    assert!(out.contains("scaled down: 3 streams, ") && out.contains("s left"), "{out}");
    drop(streams);
    daemon.until("web", "gone", |s| s.members.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_services_hold_up_no_other() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let route = |path: &str| format!("  route: {{ pathPrefix: {path} }}\n");
    daemon.apply(&shell("crashes", 5, "exit 1", &route("/crashes"))).await;
    let hung =
        format!("    liveness: {{ exec: {{ command: [sleep, '600'] }}, timeout: 30s }}\n{}", route("/hangs"));
    let hung = shell("hangs", 20, "exec sleep 600", &hung);
    let at = hung.find("httpGet").unwrap();
    let hung = format!(
        "{}exec: {{ command: [sleep, '600'] }}, timeout: 30s }}\n{}",
        &hung[..at],
        &hung[hung[at..].find('\n').unwrap() + at + 1..]
    );
    daemon.apply(&hung).await;
    daemon
        .apply(&service_yaml("missing", 3, "process: { command: [/no/such/program] }", &route("/missing")))
        .await;
    daemon.event("Failed", "exit code 1").await;
    let began = Instant::now();
    daemon.apply_and_converge("good", &daemon.manifest("good", 5, &route("/"))).await;
    let ready = began.elapsed();
    let began = Instant::now();
    daemon.client.fault("good-1", "STOP").await.unwrap();
    daemon.until("good", "withdrawn", |s| s.ready == 4).await;
    let withdrawn = began.elapsed();
    println!(
        "beside three broken services: five replicas ready after {ready:.2?}, one that hangs withdrawn after {withdrawn:.2?}"
    );
    assert!(ready < Duration::from_secs(10) && withdrawn < Duration::from_secs(5), "{ready:?} {withdrawn:?}");
    daemon.client.fault("good-1", "CONT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_probe_containers_and_run_before_their_stop() {
    let _shared = shared().await;
    let test = "commands_probe_containers_and_run_before_their_stop";
    let Some(on) = docker_or_skip(test).await else { return };
    let daemon = Daemon::start(on).await;
    let web = daemon.web.clone();
    let check = "exec: { command: [/ringmaster-replica, check] }, period: 500ms, timeout: 10s";
    let manifest = daemon
        .manifest(&web, 2, &format!("    liveness: {{ {check} }}\n"))
        .replace("httpGet: { path: /heartbeat }, period: 500ms, timeout: 250ms", check)
        .replace("    resources:", "    lifecycle: { preStop: { exec: { command: [/ringmaster-replica, check, '/slow?ms=1500'] } } }\n    resources:");
    daemon.apply_and_converge(&web, &manifest).await;
    let began = Instant::now();
    daemon.client.scale(&crate::common::name(&web), 1).await.unwrap();
    daemon.until(&web, "scaled", |s| s.is_converged() && s.members.len() == 1).await;
    assert!(
        began.elapsed() >= Duration::from_millis(1_500),
        "the hook was not waited for: {:?}",
        began.elapsed()
    );
    assert!(!has_event(&daemon, Reason::PreStopFailed).await, "{}", daemon.events_text().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_stopped_by_hand_is_withdrawn_and_replaced_before_it_ends() {
    let _shared = shared().await;
    let test = "who_is_stopped_by_hand_is_withdrawn_and_replaced_before_it_ends";
    let Some(docker) = engine_or_skip(test).await else { return };
    let Some(on) = docker_or_skip(test).await else { return };
    let daemon = Daemon::start(on).await;
    let web = daemon.web.clone();
    daemon.apply_and_converge(&web, &daemon.manifest(&web, 2, "")).await;
    // A request in flight keeps it from ending for four seconds.
    let victim = daemon.replica(&web, 1).await;
    let slow = tokio::spawn(reqwest::get(format!("http://{}/slow?ms=4000", victim.address.unwrap())));
    let id = victim.id.unwrap();
    let (engine, stopped) = (docker.clone(), id.clone());
    daemon.get("/home").await;
    let began = Instant::now();
    let stopping = tokio::spawn(async move {
        let gentle = StopContainerOptionsBuilder::default().t(10).build();
        engine.stop_container(&stopped, Some(gentle)).await
    });
    daemon.event("Stopping", &format!("somebody is stopping {web}-1-0")).await;
    let withdrawn = began.elapsed();
    daemon.event("Creating", &format!("{web}-1-1")).await;
    let state = docker.inspect_container(&id, None::<InspectContainerOptions>).await.unwrap().state.unwrap();
    println!("figure: withdrawn {withdrawn:.0?} after `docker stop` was called, its end takes 4 s");
    assert_eq!(state.running, Some(true), "it was told only after its end");
    assert_eq!(slow.await.unwrap().unwrap().status(), 200, "its request is not cut off");
    stopping.await.unwrap().unwrap();
    daemon.until(&web, "replaced", |s| s.ready == 2 && names(s).contains(&format!("{web}-1-1"))).await;
    daemon.event("Failed", "exit code 0").await;
}
