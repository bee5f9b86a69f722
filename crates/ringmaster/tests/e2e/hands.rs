//! Somebody interferes by hand: what was done is undone, with an event, and nothing foreign is touched.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::{ContainerConfig, ContainerCreateBody, ContainerUpdateBody, NetworkDisconnectRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptions,
    RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder, StartContainerOptions,
    StopContainerOptionsBuilder,
};
use ringmaster_core::Reason;
use ringmaster_core::status::{ConditionKind, Phase, ServiceStatus};
use ringmaster_docker::testing::engine_or_skip;
use rustix::process::Signal;

use crate::common::{Daemon, On, docker_or_skip, eventually, shared};
use crate::images::{self, MovingTag};
use crate::load::Load;

async fn started(test: &str, replicas: u32) -> Option<(Docker, Daemon, String)> {
    let docker = engine_or_skip(test).await?;
    let daemon = Daemon::start(docker_or_skip(test).await?).await;
    let service = daemon.web.clone();
    daemon.apply_and_converge(&service, &daemon.manifest(&service, replicas, "")).await;
    Some((docker, daemon, service))
}

fn ready_as(status: &ServiceStatus, engine_name: &str) -> bool {
    status.members.iter().any(|m| m.engine_name.as_deref() == Some(engine_name) && m.phase == Phase::Ready)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_replica_is_replaced() {
    let _shared = shared().await;
    let Some((docker, daemon, service)) = started("a_removed_replica_is_replaced", 2).await else { return };
    let force = RemoveContainerOptionsBuilder::default().force(true).build();
    docker.remove_container(&format!("{service}-1-0"), Some(force)).await.unwrap();
    daemon
        .until(&service, "replaced", |status| {
            status.ready == 2 && ready_as(status, &format!("{service}-1-1"))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_replica_is_replaced_without_a_failed_request() {
    let _shared = shared().await;
    let test = "a_stopped_replica_is_replaced_without_a_failed_request";
    let Some((docker, daemon, service)) = started(test, 3).await else { return };
    let mut load = Load::start(daemon.setup.listen, 200);
    load.more(50).await;
    let gentle = StopContainerOptionsBuilder::default().t(10).build();
    docker.stop_container(&format!("{service}-1-0"), Some(gentle)).await.unwrap();
    daemon
        .until(&service, "replaced", |status| {
            status.ready == 3 && ready_as(status, &format!("{service}-1-1"))
        })
        .await;
    load.more(50).await;
    let outcome = load.stop().await;
    assert_eq!(outcome.failed, [], "of {} requests", outcome.total);
    daemon.event("Failed", "exit code 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_three_to_one_fails_no_request() {
    let _shared = shared().await;
    let Some((_, daemon, service)) = started("scaling_three_to_one_fails_no_request", 3).await else {
        return;
    };
    let mut load = Load::start(daemon.setup.listen, 200);
    load.more(50).await;
    let (code, _, err) = daemon.cli(&["scale", &service, "--replicas", "1"]).await;
    assert_eq!(code, Some(0), "{err}");
    load.more(50).await;
    let outcome = load.stop().await;
    assert_eq!(outcome.failed, [], "of {} requests", outcome.total);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_replica_is_resumed_and_a_renamed_one_gets_its_name_back() {
    let _shared = shared().await;
    let test = "a_paused_replica_is_resumed_and_a_renamed_one_gets_its_name_back";
    let Some((docker, daemon, service)) = started(test, 2).await else { return };
    docker.pause_container(&format!("{service}-0-0")).await.unwrap();
    daemon.event("Repairing", "paused").await;
    daemon
        .until(&service, "resumed", |status| {
            status.is_converged() && ready_as(status, &format!("{service}-0-0"))
        })
        .await;
    let rename = RenameContainerOptionsBuilder::default().name(&format!("{service}-other")).build();
    docker.rename_container(&format!("{service}-1-0"), rename).await.unwrap();
    daemon.event("Repairing", "renamed").await;
    daemon
        .until(&service, "renamed", |status| {
            status.is_converged() && ready_as(status, &format!("{service}-1-0"))
        })
        .await;
    let repairs = daemon
        .client
        .events(0)
        .await
        .unwrap()
        .events
        .iter()
        .filter(|e| e.reason == Reason::Repairing)
        .map(|e| e.count)
        .sum::<u32>();
    assert_eq!(repairs, 2, "each is repaired once: {}", daemon.events_text().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_replica_is_attached_again() {
    let _shared = shared().await;
    let Some((docker, daemon, service)) = started("a_detached_replica_is_attached_again", 2).await else {
        return;
    };
    let container = format!("{service}-1-0");
    let request = NetworkDisconnectRequest { container: container.clone(), force: None };
    docker.disconnect_network(&daemon.setup.instance, request).await.unwrap();
    daemon.event("Repairing", "detached").await;
    daemon.until(&service, "attached", |status| status.is_converged() && ready_as(status, &container)).await;
}

/// The memory and the processors, in billionths, that a container may use now.
async fn limits(docker: &Docker, container: &str) -> (Option<i64>, Option<i64>) {
    let found = docker.inspect_container(container, None::<InspectContainerOptions>).await.unwrap();
    let now = found.host_config.unwrap();
    (now.memory, now.nano_cpus)
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_changed_by_hand_are_set_back_in_place() {
    let _shared = shared().await;
    let test = "limits_changed_by_hand_are_set_back_in_place";
    let Some((docker, mut daemon, service)) = started(test, 2).await else { return };
    let limited = daemon.manifest(&service, 2, "").replace("memory: 64Mi", "memory: 64Mi, cpu: 500m");
    let before = daemon.apply_and_converge(&service, &limited).await;
    let mut load = Load::start(daemon.setup.listen, 100);
    load.more(20).await;
    let container = daemon.replica(&service, 1).await.engine_name.unwrap();
    let (memory, cpu) = (64 << 20, 500_000_000);
    assert_eq!(limits(&docker, &container).await, (Some(memory), Some(cpu)));
    let set_back = async |what: &str| {
        eventually(what, || async {
            (limits(&docker, &container).await == (Some(memory), Some(cpu))).then_some(())
        })
        .await;
    };
    let roomier = || ContainerUpdateBody {
        memory: Some(2 * memory),
        memory_swap: Some(2 * memory),
        nano_cpus: Some(2 * cpu),
        ..ContainerUpdateBody::default()
    };
    docker.update_container(&container, roomier()).await.unwrap();
    let how = "somebody changed its limits (memory 128Mi instead of 64Mi, cpu 1 instead of 500m)";
    daemon.event("Repairing", how).await;
    set_back("they are set back").await;
    load.more(20).await;
    let outcome = load.stop().await;
    assert_eq!(outcome.failed, [], "of {} requests", outcome.total);

    // What was changed while nobody looked is found when somebody does.
    daemon.end(Signal::KILL).await;
    docker.update_container(&container, roomier()).await.unwrap();
    daemon.restart().await;
    set_back("they are set back after the restart").await;
    let after = daemon.until(&service, "converged", ServiceStatus::is_converged).await;
    let ids = |status: &ServiceStatus| status.members.iter().map(|m| m.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&after), ids(&before), "no replica was replaced for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_container_with_our_name_is_named_and_left_alone() {
    let _shared = shared().await;
    let test = "a_foreign_container_with_our_name_is_named_and_left_alone";
    let Some(docker) = engine_or_skip(test).await else { return };
    let Some(on) = docker_or_skip(test).await else { return };
    let On::Docker(image) = on.clone() else { unreachable!("asked for docker") };
    let daemon = Daemon::start(on).await;
    let service = daemon.web.clone();
    let taken = format!("{service}-0-0");
    let options = CreateContainerOptionsBuilder::default().name(&taken).build();
    let body = ContainerCreateBody { image: Some(image), ..ContainerCreateBody::default() };
    let foreign = docker.create_container(Some(options), body).await.unwrap().id;
    docker.start_container(&foreign, None::<StartContainerOptions>).await.unwrap();
    daemon.apply_and_converge(&service, &daemon.manifest(&service, 1, "")).await;
    daemon.event("CreateFailed", &taken).await;
    daemon.client.delete(&crate::common::name(&service)).await.unwrap();
    daemon.until_gone(&service).await;
    let state = docker.inspect_container(&foreign, None).await.unwrap().state.unwrap();
    assert_eq!(state.running, Some(true), "it was touched");
    docker.kill_container(&foreign, None::<KillContainerOptions>).await.unwrap();
    let force = RemoveContainerOptionsBuilder::default().force(true).build();
    docker.remove_container(&foreign, Some(force)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_is_named_and_the_old_revision_serves_on() {
    let _shared = shared().await;
    let test = "a_missing_image_is_named_and_the_old_revision_serves_on";
    let Some((_, daemon, service)) = started(test, 2).await else { return };
    let On::Docker(image) = &daemon.setup.on else { unreachable!("started on docker") };
    let missing = daemon
        .manifest(&service, 2, "")
        .replace(image, "ringmaster/no-such-image:dev\n    pullPolicy: never");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yaml");
    std::fs::write(&file, missing).unwrap();
    let (code, _, err) = daemon.cli(&["apply", "-f", file.to_str().unwrap()]).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("ringmaster/no-such-image:dev"), "{err}");
    let status = daemon.status(&service).await.unwrap();
    assert_eq!(status.ready, 2);
    assert!(
        status.condition(ConditionKind::Degraded).unwrap().message.contains("no-such-image"),
        "{status:#?}"
    );
    assert_eq!(daemon.get("/home").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_tag_is_a_new_revision() {
    let _shared = shared().await;
    let test = "a_rebuilt_tag_is_a_new_revision";
    let Some(docker) = engine_or_skip(test).await else { return };
    let Some(on) = docker_or_skip(test).await else { return };
    let daemon = Daemon::start(on).await;
    let tag = MovingTag::of(&docker, &daemon).await;
    let before = daemon.apply_and_converge(&daemon.web, &tag.manifest(&daemon, 2)).await.revision;
    // The same content with another label is another image under the same tag.
    let labels = HashMap::from([("rebuilt".to_owned(), "yes".to_owned())]);
    let config = ContainerConfig { labels: Some(labels), ..ContainerConfig::default() };
    let rebuilt = tag.commit(&format!("{}-0-0", daemon.web), config).await;
    tag.to(&rebuilt).await;
    daemon.event("Rebuilt", "").await;
    let status = daemon.until(&daemon.web, "rolled out", |s| s.is_converged() && s.revision != before).await;
    assert!(
        status
            .members
            .iter()
            .all(|m| m.phase != Phase::Ready || m.engine_name.as_deref().is_some_and(|n| n.ends_with("-1")))
    );
    drop(daemon);
    images::remove(&docker, &rebuilt).await;
}
