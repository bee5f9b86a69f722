//! The daemon ends, in one way or another, and starts again: nothing is lost, no replica is touched.

use std::collections::BTreeSet;
use std::time::Duration;

use ringmaster_core::status::{ConditionKind, Phase, ServiceStatus};
use ringmaster_core::{Reason, Timestamp};
use rustix::process::Signal;

use crate::common::{Daemon, On, Setup, docker_or_skip, eventually, shared};
use crate::rollout::release;

async fn identities(daemon: &Daemon) -> BTreeSet<(String, String)> {
    let status = daemon.status(&daemon.web).await.unwrap();
    status
        .members
        .into_iter()
        .map(|m| (m.engine_name.unwrap_or_default(), m.id.unwrap_or_default()))
        .collect()
}

async fn adoption(on: On) {
    let mut daemon = Daemon::start(on).await;
    daemon
        .apply_and_converge(
            &daemon.web,
            &daemon.manifest(&daemon.web, 3, "  balancing: { hashOn: { header: X-Key } }\n"),
        )
        .await;
    let owners = owners(&daemon).await;
    let before = identities(&daemon).await;
    for signal in [Signal::TERM, Signal::KILL] {
        let code = daemon.end(signal).await;
        assert!(
            signal != Signal::TERM || code == Some(0),
            "SIGTERM ends it in order: {code:?}\n{}",
            daemon.log()
        );
        daemon.restart().await;
        let status = daemon.until(&daemon.web, "adopted", |status| status.is_converged()).await;
        assert_eq!(status.ready, 3);
        assert_eq!(identities(&daemon).await, before, "a replica was touched");
        assert_eq!(self::owners(&daemon).await, owners, "a key has moved");
    }
}

/// Which replica answers for each of some keys.
async fn owners(daemon: &Daemon) -> Vec<String> {
    let client = reqwest::Client::new();
    let mut owners = Vec::new();
    for key in 0..40 {
        let request = client.get(format!("http://{}/home", daemon.setup.listen)).header("x-key", key);
        owners.push(request.send().await.unwrap().text().await.unwrap());
    }
    assert_eq!(
        owners.iter().collect::<BTreeSet<_>>().len(),
        3,
        "forty keys on three replicas reach all of them"
    );
    owners
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_adopts_processes_and_keeps_every_key() {
    let _shared = shared().await;
    adoption(On::Process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_adopts_containers_and_keeps_every_key() {
    let _shared = shared().await;
    let Some(on) = docker_or_skip("a_restart_adopts_containers_and_keeps_every_key").await else { return };
    adoption(on).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_ends_while_the_daemon_is_away_is_replaced() {
    let _shared = shared().await;
    let mut daemon = Daemon::start(On::Process).await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 2, "")).await;
    let before = identities(&daemon).await;
    daemon.end(Signal::KILL).await;
    let record = std::fs::read_to_string(daemon.setup.state.join("process/web-1-0.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let pid = rustix::process::Pid::from_raw(record["process"]["pid"].as_i64().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    daemon.restart().await;
    daemon
        .until("web", "replaced", |s| {
            s.ready == 2 && s.members.iter().any(|m| m.engine_name.as_deref() == Some("web-1-1"))
        })
        .await;
    let kept = before.iter().filter(|(name, _)| name == "web-0-0").count();
    assert_eq!(
        kept,
        identities(&daemon).await.intersection(&before).filter(|(name, _)| name == "web-0-0").count()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_state_file_is_mended_and_reported() {
    let _shared = shared().await;
    let mut daemon = Daemon::start(On::Process).await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 2, "")).await;
    let before = identities(&daemon).await;
    daemon.end(Signal::KILL).await;
    let state = daemon.setup.state.join("state");
    let whole = std::fs::read(&state).unwrap();
    std::fs::write(&state, &whole[..whole.len() / 2]).unwrap();
    daemon.restart().await;
    daemon.event("StateRecovered", "truncated").await;
    daemon.until("web", "adopted", |status| status.is_converged() && status.ready == 2).await;
    assert_eq!(identities(&daemon).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_folder_means_adopt_and_never_delete() {
    let _shared = shared().await;
    let Some(on) = docker_or_skip("a_lost_state_folder_means_adopt_and_never_delete").await else { return };
    let mut daemon = Daemon::start(on).await;
    let manifest = daemon.manifest(&daemon.web, 2, "");
    daemon.apply_and_converge(&daemon.web, &manifest).await;
    let before = identities(&daemon).await;
    daemon.end(Signal::KILL).await;
    std::fs::remove_dir_all(&daemon.setup.state).unwrap();
    daemon.restart().await;
    daemon.event("Orphaned", &format!("{}-0-0", daemon.web)).await;
    daemon.apply_and_converge(&daemon.web, &manifest).await;
    assert_eq!(identities(&daemon).await, before, "the same manifest takes up the same replicas");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_state_folder_is_refused() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let (mut second, _folder) = Setup::new(On::Process);
    second.state.clone_from(&daemon.setup.state);
    let (code, err) = second.refused();
    assert!(code == Some(1) && err.contains("in use by another ringmaster daemon"), "{code:?} {err}");
    assert!(daemon.client.overview().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_manifest_is_not_applied_again_at_a_restart() {
    let _shared = shared().await;
    let (setup, folder) = Setup::new(On::Process);
    let file = folder.path().join("web.yaml");
    let setup = setup.with(&["--manifest", file.to_str().unwrap()]);
    let yaml = crate::common::service_yaml("web", 2, "process: { command: [ringmaster, replica] }", "");
    std::fs::write(&file, &yaml).unwrap();
    let mut daemon = Daemon::with(setup).await;
    daemon.until("web", "ready", |status| status.ready == 2).await;
    let (code, _, err) = daemon.cli(&["scale", "web", "--replicas", "3"]).await;
    assert_eq!(code, Some(0), "{err}");
    daemon.end(Signal::TERM).await;
    daemon.restart().await;
    daemon.until("web", "as scaled", |status| status.ready == 3).await;
    daemon.end(Signal::TERM).await;
    std::fs::write(&file, yaml.replace("replicas: 2", "replicas: 1")).unwrap();
    daemon.restart().await;
    daemon.until("web", "as edited", |status| status.is_converged() && status.ready == 1).await;
    daemon.end(Signal::TERM).await;
    std::fs::write(&file, "kind: Nonsense\n").unwrap();
    daemon.restart().await;
    daemon.event("ManifestRefused", "web.yaml").await;
    daemon.until("web", "as before", |status| status.is_converged() && status.ready == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_outlive_the_daemon() {
    let _shared = shared().await;
    let mut daemon = Daemon::start(On::Process).await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 1, "")).await;
    let events = daemon.client.events(0).await.unwrap().events;
    let started = events.into_iter().find(|event| event.reason == Reason::Started).unwrap();
    assert_eq!(daemon.end(Signal::TERM).await, Some(0));
    daemon.restart().await;
    let after = daemon.client.events(0).await.unwrap().events;
    assert!(after.contains(&started), "{started:?}\n{}", daemon.events_text().await);
    assert!(after.iter().any(|event| event.message.contains("web applied as generation 1")));
}

/// The conditions with their times.
fn times(status: &ServiceStatus) -> Vec<(ConditionKind, bool, Timestamp)> {
    status.conditions.iter().map(|condition| (condition.kind, condition.status, condition.since)).collect()
}

/// Awaits that a time of the status is on the disk.
async fn written(daemon: &Daemon, time: Timestamp) {
    let kept = || std::fs::read_to_string(daemon.setup.state.join("statuses")).unwrap_or_default();
    eventually("it is written", || async { kept().contains(&format!(":{}", time.0)).then_some(()) }).await;
}

async fn times_outlive_the_daemon(on: On) {
    let mut daemon = Daemon::start(on).await;
    let web = daemon.web.clone();
    let before = daemon.apply_and_converge(&web, &daemon.manifest(&web, 3, "")).await;
    written(&daemon, before.condition(ConditionKind::Progressing).unwrap().since).await;
    for signal in [Signal::TERM, Signal::KILL, Signal::KILL] {
        daemon.end(signal).await;
        daemon.restart().await;
        let status = daemon.until(&web, "adopted", ServiceStatus::is_converged).await;
        assert_eq!(times(&status), times(&before), "{}", daemon.events_text().await);
        assert_eq!(status.progressed_at, before.progressed_at);
    }
    // What changes after that has changed then.
    let now = daemon.client.overview().await.unwrap().now;
    let (code, _, err) = daemon.cli(&["scale", &web, "--replicas", "2"]).await;
    assert_eq!(code, Some(0), "{err}");
    let status = daemon.status(&web).await.unwrap();
    assert!(status.condition(ConditionKind::Progressing).unwrap().since >= now, "{status:#?}");
    assert_eq!(times(&status)[0], times(&before)[0], "it was available all the while");
}

#[tokio::test(flavor = "multi_thread")]
async fn times_of_conditions_outlive_the_daemon() {
    let _shared = shared().await;
    times_outlive_the_daemon(On::Process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_of_conditions_of_containers_outlive_the_daemon() {
    let _shared = shared().await;
    let test = "times_of_conditions_of_containers_outlive_the_daemon";
    let Some(on) = docker_or_skip(test).await else { return };
    times_outlive_the_daemon(on).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_of_a_rollout_goes_on_counting_over_a_restart() {
    let _shared = shared().await;
    let deadline = Duration::from_secs(8);
    let mut daemon = Daemon::start(On::Process).await;
    let strategy = "progressDeadline: 8s";
    daemon.apply_and_converge("web", &release(&daemon, 2, "VERSION: one", strategy)).await;
    let silent =
        release(&daemon, 2, "VERSION: two", strategy).replace("[ringmaster, replica]", "[sleep, '1000']");
    let generation = daemon.apply(&silent).await.generation;
    let stuck = |s: &ServiceStatus| s.observed_generation >= generation && s.members.len() == 3;
    let before = daemon.until("web", "stuck", stuck).await.progressed_at;
    written(&daemon, before).await;
    eventually("half of the time is over", || async {
        let now = daemon.client.overview().await.unwrap().now;
        (now.since(before) >= deadline / 2).then_some(())
    })
    .await;
    daemon.end(Signal::KILL).await;
    daemon.restart().await;
    let began = daemon.client.overview().await.unwrap().now;
    daemon.event("RolledBack", "no progress for 8s").await;
    let events = daemon.client.events(0).await.unwrap().events;
    let at = events.iter().find(|event| event.reason == Reason::RolledBack).unwrap().at;
    println!(
        "given up {:?} after the last progress, {:?} after the restart",
        at.since(before),
        at.since(began)
    );
    assert!(at.since(before) >= deadline && at.since(began) < deadline, "{}", daemon.events_text().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_got_ready_while_the_daemon_was_away_is_not_given_up_for_being_late() {
    let _shared = shared().await;
    let deadline = Duration::from_secs(5);
    let mut daemon = Daemon::start(On::Process).await;
    let strategy = "progressDeadline: 5s";
    daemon.apply_and_converge("web", &release(&daemon, 1, "VERSION: one", strategy)).await;
    let late = format!("[/bin/sh, -c, 'sleep 2; exec {} replica']", env!("CARGO_BIN_EXE_ringmaster"));
    let two = release(&daemon, 1, "VERSION: two", strategy).replace("[ringmaster, replica]", &late);
    daemon.apply(&two).await;
    let starts =
        |s: &ServiceStatus| s.members.iter().any(|m| m.phase == Phase::Starting && m.address.is_some());
    let status = daemon.until("web", "starting", starts).await;
    let address =
        status.members.iter().find(|m| m.phase == Phase::Starting).unwrap().address.clone().unwrap();
    written(&daemon, status.progressed_at).await;
    daemon.end(Signal::KILL).await;
    let ended = std::time::Instant::now();
    eventually("it listens, and the deadline is over", || async {
        let listens = tokio::net::TcpStream::connect(&address).await.is_ok();
        (listens && ended.elapsed() > deadline).then_some(())
    })
    .await;
    daemon.restart().await;
    let status = daemon.until("web", "rolled out", |s| s.is_converged() && s.updated == 1).await;
    assert!(status.rollout.failed.is_none(), "{}", daemon.events_text().await);
    daemon.event("RolloutComplete", "every replica is of revision").await;
}
