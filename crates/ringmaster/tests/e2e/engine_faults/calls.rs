//! Calls that change something fail, in every way and each at another replica: what was asked for happens all the same.

use std::time::Duration;

use super::bed::Bed;
use crate::common::shared;
use crate::engine_proxy::{CREATE, FIND, Fault, INSPECT, InForce, LIST, REMOVE, START, STOP};

type Faults = Vec<(&'static str, Fault)>;

/// One rule for each fault: each is met once.
fn once(bed: &Bed, faults: Faults) -> Vec<InForce> {
    faults.into_iter().map(|(call, fault)| bed.proxy.rule(call, 1, fault)).collect()
}

/// What keeps replicas from being made, or from being known to be made.
fn of_creation() -> Faults {
    vec![
        (CREATE, Fault::Answer(500, "no space left on device")),
        (CREATE, Fault::Answer(404, "No such image: nobody/knows:it")),
        (CREATE, Fault::AnswerAfter(500, "update out of sequence")),
        (CREATE, Fault::CutBefore),
        (CREATE, Fault::CutAfter),
        (CREATE, Fault::CutMidway),
        (START, Fault::Answer(500, "Bind for 0.0.0.0:80 failed: port is already allocated")),
        (START, Fault::Answer(404, "No such container: it was removed")),
        (START, Fault::AnswerAfter(503, "started without knowing it")),
        (START, Fault::CutBefore),
        (START, Fault::CutAfter),
        (FIND, Fault::Answer(500, "made without being found")),
    ]
}

/// What keeps replicas from being removed, or from being known to be.
fn of_removal() -> Faults {
    vec![
        (STOP, Fault::Answer(500, "cannot stop container: it is stuck")),
        (STOP, Fault::AnswerAfter(503, "stopped without knowing it")),
        (STOP, Fault::CutBefore),
        (STOP, Fault::CutAfter),
        (REMOVE, Fault::Answer(409, "removal of container x is already in progress")),
        (REMOVE, Fault::Answer(500, "driver failed to remove root filesystem: device or resource busy")),
        (REMOVE, Fault::Answer(404, "No such container: a lie")),
        (REMOVE, Fault::AnswerAfter(500, "removed without knowing it")),
        (REMOVE, Fault::CutBefore),
        (REMOVE, Fault::CutAfter),
        (INSPECT, Fault::Answer(500, "cannot look before touching it")),
        (INSPECT, Fault::CutMidway),
    ]
}

async fn all_met(rules: &mut [InForce]) {
    for rule in rules {
        rule.met(1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_fail_a_change_is_made_up_for() {
    let _shared = shared().await;
    let Some(mut bed) = Bed::start("every_way_to_fail_a_change_is_made_up_for", 2).await else { return };
    let before = bed.running().await;
    let mut rules = once(&bed, of_creation());
    bed.scale(8).await;
    all_met(&mut rules).await;
    let eight = bed.settled_within("creations that fail", Duration::from_secs(60)).await;
    assert!(eight.is_superset(&before), "who serves is left alone");
    for text in [
        "no space left on device",
        "No such image",
        "update out of sequence",
        "port is already allocated",
        "it was removed",
        "started without knowing it",
        "connection",
    ] {
        bed.daemon.event("CreateFailed", text).await;
    }
    // Who looks first: what was made, or what has to be removed because it was not started.
    assert!(bed.daemon.events_text().await.contains("made without being found"));
    bed.serve().await;
    let mut rules = once(&bed, of_removal());
    bed.scale(2).await;
    all_met(&mut rules).await;
    let two = bed.settled_within("removals that fail", Duration::from_secs(60)).await;
    assert_eq!(two, before);
    for text in [
        "it is stuck",
        "stopped without knowing it",
        "resource busy",
        "removed without knowing it",
        "connection",
    ] {
        bed.daemon.event("ActionFailed", text).await;
    }
    // Who looks first: what is to be done before the stop, the removal, or a list that misses somebody.
    assert!(bed.daemon.events_text().await.contains("cannot look before touching it"));
    bed.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_before_a_stop_that_fails_is_no_failed_hook() {
    let _shared = shared().await;
    let test = "a_look_before_a_stop_that_fails_is_no_failed_hook";
    let Some(mut bed) = Bed::start(test, 3).await else { return };
    let mut rules = once(
        &bed,
        vec![
            (FIND, Fault::Answer(500, "cannot find it")),
            (INSPECT, Fault::Answer(500, "cannot look before touching it")),
        ],
    );
    bed.scale(1).await;
    all_met(&mut rules).await;
    bed.settled("looks that fail").await;
    for text in ["cannot find it", "cannot look before touching it"] {
        bed.daemon.event("ActionFailed", text).await;
    }
    let events = bed.daemon.events_text().await;
    assert!(!events.contains("PreStopFailed"), "no hook was asked for:\n{events}");
    bed.over().await;
}

/// Longer than any call may take.
const VERY_LONG: Duration = Duration::from_secs(100);

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_late_or_never_come_to_creations_are_made_up_for() {
    let _shared = shared().await;
    let test = "answers_that_are_late_or_never_come_to_creations_are_made_up_for";
    let Some(mut bed) = Bed::start(test, 2).await else { return };
    let before = bed.running().await;
    let mut rules = once(
        &bed,
        vec![
            (CREATE, Fault::Late(Duration::from_secs(30))),
            (CREATE, Fault::Swallow),
            (START, Fault::Swallow),
        ],
    );
    bed.scale(6).await;
    all_met(&mut rules).await;
    bed.serve().await;
    let six = bed.settled_within("creations without an answer", VERY_LONG).await;
    assert!(six.is_superset(&before));
    bed.daemon.event_within("CreateFailed", "did not answer", VERY_LONG).await;
    bed.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_late_or_never_come_to_removals_and_lists_are_made_up_for() {
    let _shared = shared().await;
    let test = "answers_that_are_late_or_never_come_to_removals_and_lists_are_made_up_for";
    let Some(mut bed) = Bed::start(test, 4).await else { return };
    let mut rules = once(
        &bed,
        vec![
            (REMOVE, Fault::Swallow),
            (STOP, Fault::Late(Duration::from_secs(30))),
            (LIST, Fault::Late(Duration::from_secs(30))),
        ],
    );
    bed.scale(2).await;
    bed.nudge().await;
    all_met(&mut rules).await;
    bed.serve().await;
    bed.settled_within("removals without an answer", VERY_LONG).await;
    bed.daemon.event("EngineUnreachable", "did not answer").await;
    // A list has shown the end of it long before the call is given up.
    bed.daemon.event_within("ActionFailed", "did not answer", VERY_LONG).await;
    bed.over().await;
}
