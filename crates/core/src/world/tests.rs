//! Lists that are stale, copies, and verdicts that no longer count.

use std::time::Duration;

use super::*;
use crate::desired::DesiredService;
use crate::manifest::{self, Source};
use crate::observed::ExitInfo;
use crate::plan::Action;
use crate::reason::Reason;
use crate::ring::RingState;
use crate::snapshot::{EndpointReport, Report, Snapshot};

/// One that runs, and that the runtime knows by its own name.
pub(super) fn replica(name: &str) -> RuntimeReplica {
    RuntimeReplica {
        id: RuntimeId(format!("id-{name}")),
        name: name.parse().unwrap(),
        engine_name: name.to_owned(),
        revision: Revision("r".to_owned()),
        state: ReplicaState::Running,
        address: Some(([127, 0, 0, 1], 1).into()),
        created_at: Timestamp(0),
        host: None,
    }
}

fn half_made(name: &str) -> RuntimeReplica {
    RuntimeReplica { state: ReplicaState::Created, address: None, ..replica(name) }
}

fn states(world: &World) -> Vec<(String, ReplicaState)> {
    world.replicas().map(|r| (r.name.to_string(), r.state.clone())).collect()
}

#[test]
fn a_list_that_began_before_a_creation_ended_does_not_undo_it() {
    for seen in [vec![], vec![half_made("web-0-0")]] {
        let mut world = World::default();
        let list = world.begin_list();
        world.created(replica("web-0-0"));
        assert_eq!(world.end_list(list, seen).len(), 0, "nothing has vanished");
        assert_eq!(states(&world), [("web-0-0".to_owned(), ReplicaState::Running)]);
    }
}

#[test]
fn a_list_that_began_before_a_removal_ended_does_not_bring_it_back() {
    let mut world = World::default();
    let first = world.begin_list();
    world.end_list(first, vec![replica("web-0-0")]);
    let list = world.begin_list();
    let gone = replica("web-0-0");
    world.removed(&gone.name, &gone.id);
    world.end_list(list, vec![gone]);
    assert_eq!(states(&world), []);
}

#[test]
fn what_a_later_list_does_not_show_has_vanished() {
    let mut world = World::default();
    world.created(replica("web-0-0"));
    let list = world.begin_list();
    assert_eq!(world.end_list(list, vec![]), [replica("web-0-0")]);
    assert_eq!(states(&world), []);
}

#[test]
fn whoever_was_paused_or_answers_elsewhere_is_judged_anew() {
    let paused = RuntimeReplica { state: ReplicaState::Paused, ..replica("web-0-0") };
    let moved = RuntimeReplica { address: Some(([127, 0, 0, 1], 2).into()), ..replica("web-0-0") };
    for (before, after, known) in [
        (replica("web-0-0"), replica("web-0-0"), true),
        (paused, replica("web-0-0"), false),
        (replica("web-0-0"), moved, false),
    ] {
        let mut world = World::default();
        let list = world.begin_list();
        world.end_list(list, vec![before]);
        let ready = Health { ready_since: Some(Timestamp(1)), ..Health::default() };
        world.set_health(replica("web-0-0").name, ready);
        let list = world.begin_list();
        world.end_list(list, vec![after]);
        assert_eq!(world.health(&replica("web-0-0").name).ready_since.is_some(), known);
    }
}

#[test]
fn what_wears_the_name_of_another_does_not_count_and_is_told_once() {
    let copy = |id: &str| RuntimeReplica {
        id: RuntimeId(id.to_owned()),
        engine_name: "somebodys".to_owned(),
        ..replica("web-0-0")
    };
    let mut world = World::default();
    for (list, told) in [
        (vec![copy("a"), replica("web-0-0")], vec![Reason::Orphaned]),
        (vec![copy("a"), replica("web-0-0")], vec![]),
        // Even where ours has been renamed meanwhile.
        (vec![copy("a"), RuntimeReplica { engine_name: "renamed".to_owned(), ..replica("web-0-0") }], vec![]),
        (vec![copy("a")], vec![Reason::Vanished]),
    ] {
        let number = world.begin_list();
        let news = world.listed(number, list, Duration::ZERO, Timestamp(0));
        assert_eq!(news.iter().map(|news| news.reason).collect::<Vec<_>>(), told);
        assert_eq!(world.replicas().count(), 1);
    }
}

#[test]
fn what_was_taken_for_a_replica_while_that_was_made_goes_without_news_of_it() {
    // Found by the simulation: a copy of labels that was listed before its original.
    let copy = RuntimeReplica {
        id: RuntimeId("a".to_owned()),
        engine_name: "somebodys".to_owned(),
        ..replica("web-0-0")
    };
    let mut world = World::default();
    let list = world.begin_list();
    world.end_list(list, vec![copy]);
    world.created(replica("web-0-0"));
    assert_eq!(world.replicas().count(), 1, "two of one name would take turns at its probes");
    let list = world.begin_list();
    assert_eq!(world.end_list(list, vec![replica("web-0-0")]), [], "web-0-0 lives");
}

#[test]
fn whoever_takes_over_a_name_is_judged_anew() {
    let mut world = World::default();
    let list = world.begin_list();
    world.end_list(list, vec![replica("web-0-0")]);
    let ready = Health { ready_since: Some(Timestamp(1)), ..Health::default() };
    world.set_health(replica("web-0-0").name, ready);
    let list = world.begin_list();
    world.end_list(list, vec![RuntimeReplica { id: RuntimeId("another".to_owned()), ..replica("web-0-0") }]);
    assert_eq!(world.health(&replica("web-0-0").name), Health::default());
}

#[test]
fn what_a_list_shows_being_removed_by_somebody_has_vanished_when_it_is_gone() {
    let mut world = World::default();
    let removing = || RuntimeReplica { state: ReplicaState::Removing, ..replica("web-0-0") };
    for (seen, vanished) in
        [(vec![replica("web-0-0")], vec![]), (vec![removing()], vec![]), (vec![], vec![removing()])]
    {
        let list = world.begin_list();
        assert_eq!(world.end_list(list, seen), vanished);
    }
}

#[test]
fn what_we_remove_ourselves_has_not_vanished() {
    let mut world = World::default();
    world.created(replica("web-0-0"));
    world.begin_action(&replica("web-0-0").name, Pending::Remove, Timestamp(0));
    let list = world.begin_list();
    assert_eq!(world.end_list(list, vec![]), []);
}

#[test]
fn an_action_of_unknown_effect_counts_until_a_list_that_began_later() {
    let mut world = World::default();
    let name = replica("web-0-0").name;
    let early = world.begin_list();
    world.begin_action(&name, Pending::Create, Timestamp(0));
    world.ended(&name);
    world.end_list(early, vec![]);
    assert_eq!(world.creating(&name.service), 1, "that list may have missed it");
    let later = world.begin_list();
    world.end_list(later, vec![]);
    assert_eq!(world.creating(&name.service), 0);
}

/// One service `web` with a single place.
fn desired() -> Desired {
    let text = "apiVersion: ringmaster/v1\nkind: Service\nmetadata: { name: web }\nspec:\n  template: { image: x }\n";
    let source = Source { file: "x", text };
    let (name, declared) = manifest::parse(&[source]).unwrap().services.into_iter().next().unwrap();
    let mut ring = RingState::new(&declared.spec.balancing, 1).unwrap();
    let service = DesiredService::declare(&name, None, declared.spec, &mut ring, Generation(1)).unwrap().0;
    Desired { generation: Generation(1), services: BTreeMap::from([(name, service)]), ..Desired::default() }
}

#[test]
fn who_is_started_again_just_after_a_restart_of_ours_is_not_stopped_before_the_data_plane_has_heard_of_us() {
    // Found by the simulation: dead in the first list, so not adopted; alive in the second, and a duplicate by then.
    let (desired, mut world) = (desired(), World::default());
    world.revisions.insert("web".parse().unwrap(), Ok(Revision("r".to_owned())));
    let exited = RuntimeReplica {
        state: ReplicaState::Exited(ExitInfo::default()),
        address: None,
        ..replica("web-0-0")
    };
    let list = world.begin_list();
    world.listed(list, vec![exited], Duration::ZERO, Timestamp(0));
    let outlook = Outlook { first_generation: Generation(7), settle: Duration::ZERO };
    let first = world.pass(&desired, &Snapshot::default(), outlook, Timestamp(10)).unwrap();
    let [Action::Create { name, revision, .. }] = &first.plan.actions[..] else { panic!("{:?}", first.plan) };
    world.begin_create(name, revision, None, Timestamp(10));
    world.created(replica(&name.to_string()));
    let list = world.begin_list();
    world.listed(list, vec![replica("web-0-0"), replica("web-0-1")], Duration::ZERO, Timestamp(20));
    let snapshot = first.snapshot.unwrap();
    let mut removed = |acknowledged, in_flight, at| {
        let endpoint = EndpointReport { in_flight, ..EndpointReport::default() };
        let endpoints = BTreeMap::from([("web-0-0".parse().unwrap(), endpoint)]);
        let report = Report { acknowledged: Generation(acknowledged), endpoints, ..Report::default() };
        world.handshake.report(report, Timestamp(at));
        let pass = world.pass(&desired, &snapshot, outlook, Timestamp(at)).unwrap();
        let removes = |action: &Action| matches!(action, Action::Remove { name, .. } if name.attempt.0 == 0);
        pass.plan.actions.iter().any(removes)
    };
    assert!(!removed(6, 0, 30), "requests may go to it by the snapshot of the run before");
    assert!(!removed(7, 1, 40), "one goes on");
    assert!(removed(7, 0, 50), "the last has ended");
}
