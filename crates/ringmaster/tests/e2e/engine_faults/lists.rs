//! Lists that fail, and lists that lie: nothing is destroyed, nothing is made beside it, and traffic goes on.

use std::sync::Mutex;

use bollard::query_parameters::RemoveContainerOptionsBuilder;
use ringmaster_core::Reason;
use rustix::process::Signal;
use serde_json::Value;

use super::bed::Bed;
use crate::common::{Setup, shared};
use crate::engine_proxy::{Fault, INSPECT, LIST};

fn edit(edit: impl Fn(Vec<Value>) -> Vec<Value> + Send + Sync + 'static) -> Fault {
    Fault::Edit(Box::new(edit))
}

/// Whatever the list was when it was first asked for.
fn stale() -> Fault {
    let first = Mutex::new(None);
    edit(move |list| first.lock().unwrap().get_or_insert(list).clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_fails_or_is_incomplete_destroys_nothing() {
    let _shared = shared().await;
    let Some(mut bed) = Bed::start("a_list_that_fails_or_is_incomplete_destroys_nothing", 3).await else {
        return;
    };
    let before = bed.running().await;
    let faults = [
        (Fault::Answer(503, "the engine is overloaded"), "the engine is overloaded"),
        (Fault::Answer(500, "a lock is held"), "a lock is held"),
        (Fault::CutBefore, "connection"),
        (Fault::CutMidway, "connection"),
        (edit(|_| Vec::new()), "the engine's list leaves out container"),
        (edit(|list| list.into_iter().take(1).collect()), "the list is not believed"),
    ];
    for (fault, text) in faults {
        let mut rule = bed.proxy.rule(LIST, usize::MAX, fault);
        bed.nudge().await;
        rule.met(2).await;
        bed.daemon.event("EngineUnreachable", text).await;
        let status = bed.daemon.status(&bed.daemon.web).await.unwrap();
        assert_eq!(status.ready, 3, "{text}: unknown is not gone");
        bed.serve().await;
        drop(rule);
        assert_eq!(bed.settled(text).await, before, "{text}");
    }
    bed.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_empty_list_leaves_out_is_not_made_again_even_if_nobody_can_look() {
    let _shared = shared().await;
    let test = "what_an_empty_list_leaves_out_is_not_made_again_even_if_nobody_can_look";
    let Some(mut bed) = Bed::start(test, 2).await else { return };
    let before = bed.running().await;
    let empty = bed.proxy.rule(LIST, usize::MAX, edit(|_| Vec::new()));
    let mut unknown = bed.proxy.rule(INSPECT, usize::MAX, Fault::Answer(500, "nobody can look"));
    // Sent past the daemon, which looks before it sends one.
    super::cont(&bed.docker, &format!("{}-0-0", bed.daemon.web)).await;
    unknown.met(2).await;
    bed.daemon.event("EngineUnreachable", "nobody can look").await;
    bed.serve().await;
    drop((empty, unknown));
    assert_eq!(bed.settled("an empty list").await, before);
    bed.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_list_makes_no_duplicate_and_brings_nothing_back() {
    let _shared = shared().await;
    let Some(mut bed) = Bed::start("a_stale_list_makes_no_duplicate_and_brings_nothing_back", 3).await else {
        return;
    };
    let three = bed.running().await;
    let mut rule = bed.proxy.rule(LIST, usize::MAX, stale());
    bed.nudge().await;
    rule.met(1).await;
    bed.scale(4).await;
    // The list of before does not show the fourth, which serves.
    bed.daemon.event("Ready", &format!("{}-3-0", bed.daemon.web)).await;
    bed.nudge().await;
    bed.daemon.event("EngineUnreachable", &format!("{}-3-0", bed.daemon.web)).await;
    bed.serve().await;
    assert_eq!(bed.running().await.len(), 4, "{}", bed.daemon.events_text().await);
    drop(rule);
    let four = bed.settled("a list without the newest").await;
    assert!(four.is_superset(&three));
    let mut rule = bed.proxy.rule(LIST, usize::MAX, stale());
    bed.nudge().await;
    rule.met(1).await;
    bed.scale(3).await;
    bed.daemon.event("Removed", &format!("{}-3-0", bed.daemon.web)).await;
    bed.nudge().await;
    rule.met(2).await;
    bed.serve().await;
    drop(rule);
    assert_eq!(bed.settled("a list with one that is gone").await, three);
    bed.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_gone_or_forbidden_costs_nothing() {
    let _shared = shared().await;
    let test = "a_socket_that_is_gone_or_forbidden_costs_nothing";
    // Root may connect to any socket, unless it gives that up.
    let give_up = |setup: Setup, _: &_| match rustix::process::getuid().is_root() {
        true => Setup { through: &["setpriv", "--bounding-set", "-dac_override", "--"], ..setup },
        false => setup,
    };
    let Some(mut bed) = Bed::with(test, 2, give_up).await else { return };
    let before = bed.running().await;
    bed.proxy.hide(true);
    bed.daemon.event("EngineUnreachable", "there is no socket at").await;
    bed.serve().await;
    bed.proxy.hide(false);
    assert_eq!(bed.settled("no socket").await, before);
    bed.proxy.forbid(true);
    bed.daemon.event("EngineUnreachable", "no permission to use").await;
    bed.serve().await;
    bed.proxy.forbid(false);
    assert_eq!(bed.settled("no permission").await, before);
    bed.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_missing_in_the_first_list_after_a_start_is_waited_for() {
    let _shared = shared().await;
    let test = "who_is_missing_in_the_first_list_after_a_start_is_waited_for";
    // With a data plane that serves on meanwhile.
    let apart = |setup: Setup, _: &std::path::Path| setup.with(&["--data-plane", "child"]);
    let Some(mut bed) = Bed::with(test, 3, apart).await else { return };
    let before = bed.running().await;
    // An engine that restores its containers one after the other.
    let since = bed.daemon.client.overview().await.unwrap().now;
    bed.daemon.end(Signal::KILL).await;
    let lists = Mutex::new(0);
    let growing = edit(move |list| {
        let mut shown = lists.lock().unwrap();
        *shown += 1;
        list.into_iter().take(*shown).collect()
    });
    let mut rule = bed.proxy.rule(LIST, usize::MAX, growing);
    bed.daemon.restart().await;
    rule.met(3).await;
    bed.serve().await;
    assert_eq!(bed.settled("all are listed").await, before, "nobody was made beside those that came");
    drop(rule);
    bed.daemon.event("EngineUnreachable", "the engine lists 1 of 3 replicas").await;
    let events = bed.daemon.client.events(0).await.unwrap().events;
    let made =
        events.iter().filter(|e| e.at > since && matches!(e.reason, Reason::Creating | Reason::Withdrawn));
    assert_eq!(made.count(), 0, "{}", bed.daemon.events_text().await);

    // One that is gone for good is made again all the same.
    bed.daemon.end(Signal::KILL).await;
    let (_, lost) = before.iter().find(|(name, _)| name.ends_with("-1-0")).unwrap();
    let force = RemoveContainerOptionsBuilder::new().force(true).build();
    bed.docker.remove_container(lost, Some(force)).await.unwrap();
    bed.daemon.restart().await;
    let after = bed.settled("it is made again").await;
    assert_eq!(after.intersection(&before).count(), 2);
    bed.over().await;
}
