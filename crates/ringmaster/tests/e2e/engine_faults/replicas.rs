//! Events get lost, doubled, late; replicas are killed, stopped, paused, renamed, detached and removed behind the daemon's
//! back, under load.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, NetworkDisconnectRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
    RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder, StartContainerOptions,
    StopContainerOptions,
};
use futures_util::future::join_all;
use ringmaster_core::Reason;
use ringmaster_core::status::ReplicaStatus;

use super::bed::Bed;
use crate::common::{On, shared};
use crate::engine_proxy::{EventFault, Fault, REMOVE, RENAME, UNPAUSE};

/// The engine's name of the one that runs in a place.
async fn name_of(bed: &Bed, ordinal: u32) -> String {
    let place = format!("{}-{ordinal}-", bed.daemon.web);
    let running = bed.running().await;
    running.into_iter().find(|(name, _)| name.starts_with(&place)).unwrap().0
}

async fn kill(bed: &Bed, name: &str) {
    let options = KillContainerOptionsBuilder::new().signal("KILL").build();
    bed.docker.kill_container(name, Some(options)).await.unwrap();
}

/// Awaits that another one runs in a place.
async fn replaced(bed: &mut Bed, ordinal: u32, old: &str, what: &str) {
    crate::common::eventually(what, || async {
        let place = format!("{}-{ordinal}-", bed.daemon.web);
        let found = bed.running().await.into_iter().any(|(name, _)| name.starts_with(&place) && name != old);
        found.then_some(())
    })
    .await;
    bed.settled(what).await;
    bed.serve().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_lost_doubled_swapped_late_or_end_change_nothing_but_the_time() {
    let _shared = shared().await;
    let test = "events_that_are_lost_doubled_swapped_late_or_end_change_nothing_but_the_time";
    let Some(mut bed) = Bed::start(test, 3).await else { return };
    let faults = [
        EventFault::Lost,
        EventFault::Twice,
        EventFault::Swapped,
        EventFault::Late(Duration::from_secs(3)),
        EventFault::Ended,
    ];
    for (ordinal, fault) in (0..).map(|n| n % 3).zip(faults) {
        let victim = name_of(&bed, ordinal).await;
        bed.proxy.events(fault);
        kill(&bed, &victim).await;
        replaced(&mut bed, ordinal, &victim, &format!("{fault:?}")).await;
        bed.proxy.events(EventFault::None);
    }
    bed.daemon.event("EngineUnreachable", "event stream").await;
    bed.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_behind_the_daemons_back_costs_no_request() {
    let _shared = shared().await;
    let Some(mut bed) = Bed::start("what_is_done_behind_the_daemons_back_costs_no_request", 3).await else {
        return;
    };
    let web = bed.daemon.web.clone();
    let victim = name_of(&bed, 0).await;
    kill(&bed, &victim).await;
    replaced(&mut bed, 0, &victim, "killed").await;
    bed.daemon.event("Failed", &victim).await;
    let victim = name_of(&bed, 1).await;
    bed.docker.stop_container(&victim, None::<StopContainerOptions>).await.unwrap();
    replaced(&mut bed, 1, &victim, "stopped").await;
    bed.daemon.event("Failed", &victim).await;
    let victim = name_of(&bed, 2).await;
    let force = || Some(RemoveContainerOptionsBuilder::new().force(true).build());
    // All but one are told that it is being removed already, or that it is gone.
    join_all((0..4).map(|_| bed.docker.remove_container(&victim, force()))).await;
    replaced(&mut bed, 2, &victim, "removed by four at once").await;
    bed.daemon.event("Vanished", &victim).await;

    let before = bed.running().await;
    bed.docker.pause_container(&name_of(&bed, 0).await).await.unwrap();
    bed.daemon.event("Repairing", "paused").await;
    assert_eq!(bed.settled("paused").await, before);
    let renamed = name_of(&bed, 1).await;
    let options = RenameContainerOptionsBuilder::new().name(&format!("{web}-other")).build();
    bed.docker.rename_container(&renamed, options).await.unwrap();
    bed.daemon.event("Repairing", "renamed").await;
    assert_eq!(bed.settled("renamed").await, before);
    let request = NetworkDisconnectRequest { container: name_of(&bed, 2).await, force: None };
    bed.docker.disconnect_network(&bed.daemon.setup.instance, request).await.unwrap();
    bed.daemon.event("Repairing", "detached").await;
    assert_eq!(bed.settled("detached").await, before);
    bed.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_is_faster_wears_our_labels_or_gives_a_command_that_is_not_there() {
    let _shared = shared().await;
    let test = "somebody_is_faster_wears_our_labels_or_gives_a_command_that_is_not_there";
    let Some(mut bed) = Bed::start(test, 3).await else { return };
    // Somebody removes the one that the daemon is about to remove.
    let mut late = bed.proxy.rule(REMOVE, 1, Fault::Late(Duration::from_millis(500)));
    let last = name_of(&bed, 2).await;
    bed.scale(2).await;
    late.met(1).await;
    let force = RemoveContainerOptionsBuilder::new().force(true).build();
    bed.docker.remove_container(&last, Some(force)).await.unwrap();
    let two = bed.settled("somebody was faster").await;

    let original = name_of(&bed, 0).await;
    let inspected = bed.docker.inspect_container(&original, None::<InspectContainerOptions>).await.unwrap();
    let mut labels: HashMap<String, String> = inspected.config.unwrap().labels.unwrap();
    let On::Docker(image) = bed.daemon.setup.on.clone() else { unreachable!("started on docker") };
    let copy = |labels| ContainerCreateBody {
        image: Some(image.clone()),
        labels: Some(labels),
        ..Default::default()
    };
    let mut foreign = Vec::new();
    for name in ["copy", "some"] {
        let options =
            CreateContainerOptionsBuilder::new().name(&format!("{}-{name}", bed.daemon.web)).build();
        let id = bed.docker.create_container(Some(options), copy(labels.clone())).await.unwrap().id;
        bed.docker.start_container(&id, None::<StartContainerOptions>).await.unwrap();
        foreign.push(id);
        labels.remove(ringmaster_runtime::labels::OWNER_KEY);
    }
    let missing = bed
        .daemon
        .manifest(&bed.daemon.web, 2, "")
        .replace("    resources:", "    command: [/nope]\n    resources:");
    bed.daemon.apply(&missing).await;
    bed.daemon.event("CreateFailed", "/nope").await;
    bed.serve().await;
    bed.scale(2).await;
    bed.daemon.until(&bed.daemon.web, "as before", |status| status.is_converged() && status.ready == 2).await;
    for id in foreign {
        let state =
            bed.docker.inspect_container(&id, None::<InspectContainerOptions>).await.unwrap().state.unwrap();
        assert_eq!(state.running, Some(true), "a container of somebody else was touched");
        let force = RemoveContainerOptionsBuilder::new().force(true).build();
        bed.docker.remove_container(&id, Some(force)).await.unwrap();
    }
    assert_eq!(bed.settled("as before").await, two, "who serves is left alone");
    bed.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_cannot_be_given_back_is_told_once_and_holds_up_nothing() {
    let _shared = shared().await;
    let test = "a_name_that_cannot_be_given_back_is_told_once_and_holds_up_nothing";
    let Some(mut bed) = Bed::start(test, 2).await else { return };
    let On::Docker(image) = bed.daemon.setup.on.clone() else { unreachable!("started on docker") };
    let taken = name_of(&bed, 1).await;
    // Whoever takes the name is faster than the daemon.
    let mut late = bed.proxy.rule(RENAME, 1, Fault::Late(Duration::from_secs(1)));
    let options = RenameContainerOptionsBuilder::new().name(&format!("{}-other", bed.daemon.web)).build();
    bed.docker.rename_container(&taken, options).await.unwrap();
    late.met(1).await;
    let options = CreateContainerOptionsBuilder::new().name(&taken).build();
    let body = ContainerCreateBody { image: Some(image), ..ContainerCreateBody::default() };
    let foreign = bed.docker.create_container(Some(options), body).await.unwrap().id;
    let why = format!("the name {taken} is taken by container {}", &foreign[..12]);
    bed.daemon.event("ActionFailed", &why).await;
    let is_told = |m: &ReplicaStatus| m.message.contains("could not be undone") && m.message.contains(&why);
    bed.daemon.until(&bed.daemon.web, "told", |s| s.ready == 2 && s.members.iter().any(is_told)).await;
    let (_, out, _) = bed.daemon.cli(&["describe", &bed.daemon.web]).await;
    assert!(out.contains("which is not ours: rename or remove it"), "{out}");

    // It is tried again, later each time, and nothing is told twice.
    let mut again = bed.proxy.rule(RENAME, usize::MAX, Fault::Late(Duration::ZERO));
    again.met(2).await;
    let events = bed.daemon.client.events(0).await.unwrap().events;
    let told = |reason: Reason, text: &str| {
        let same = events.iter().filter(|e| e.reason == reason && e.message.contains(text));
        same.map(|event| event.count).sum::<u32>()
    };
    let counts = (told(Reason::Repairing, "renamed"), told(Reason::ActionFailed, &why));
    assert_eq!(counts, (1, 1), "{}", bed.daemon.events_text().await);
    bed.serve().await;

    // It can be removed all the same, before the next try.
    again.met(3).await;
    bed.scale(1).await;
    bed.settled_within("removed under its other name", Duration::from_secs(7)).await;
    let force = RemoveContainerOptionsBuilder::new().force(true).build();
    bed.docker.remove_container(&foreign, Some(force)).await.unwrap();
    bed.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_says_500_to_resuming_what_runs_is_not_asked_again() {
    let _shared = shared().await;
    let test = "an_engine_that_says_500_to_resuming_what_runs_is_not_asked_again";
    let Some(bed) = Bed::start(test, 2).await else { return };
    let before = bed.running().await;
    let paused = name_of(&bed, 0).await;
    // As engines answer of one that somebody has resumed meanwhile.
    let mut resumed = bed.proxy.rule(UNPAUSE, 1, Fault::AnswerAfter(500, "Container is not paused"));
    bed.docker.pause_container(&paused).await.unwrap();
    resumed.met(1).await;
    assert_eq!(bed.settled("resumed").await, before);
    let events = bed.daemon.events_text().await;
    assert!(!events.contains("ActionFailed"), "{events}");
    // One that is still paused is another matter.
    let mut refused = bed.proxy.rule(UNPAUSE, 1, Fault::Answer(500, "cannot thaw it"));
    bed.docker.pause_container(&paused).await.unwrap();
    refused.met(1).await;
    bed.daemon.event("ActionFailed", "cannot thaw it").await;
    assert_eq!(bed.settled("resumed at the second try").await, before);
    bed.over().await;
}
