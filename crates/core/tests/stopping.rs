//! A replica that somebody is stopping: it serves no more, its place is filled at once, and whoever stops it has the
//! first word.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use ringmaster_core::desired::{Desired, DesiredService, Member, ring_members};
use ringmaster_core::manifest::{Source, parse};
use ringmaster_core::observed::{Health, Observed, Replica, ReplicaState, RuntimeId};
use ringmaster_core::plan::{Action, RemoveReason, plan};
use ringmaster_core::ring::fresh;
use ringmaster_core::status::{Phase, status};
use ringmaster_core::{Generation, Ordinal, ReplicaName, Revision, ServiceName, Timestamp};

fn desired() -> Desired {
    let text = "apiVersion: ringmaster/v1\nkind: Service\nmetadata: { name: web }\nspec:\n  template: { image: x }\n  \
                strategy: { drain: 20s, terminationGrace: 5s }\n";
    let spec = parse(&[Source { file: "x", text }]).unwrap().services.into_values().next().unwrap().spec;
    let (name, members) =
        (ServiceName::new("web").unwrap(), vec![Member { ordinal: Ordinal(0), host: None }]);
    let ring = fresh(&spec.balancing, 1, &ring_members(&name, &spec.balancing, &members)).unwrap();
    let rollout = ringmaster_core::rollout::Rollout::default();
    let service = DesiredService { spec, generation: Generation(1), members, ring, deleting: false, rollout };
    Desired { generation: Generation(1), services: BTreeMap::from([(name, service)]), ..Desired::default() }
}

fn replica(name: &str, health: Health) -> Replica {
    Replica {
        id: Some(RuntimeId(name.to_owned())),
        name: name.parse().unwrap(),
        engine_name: name.to_owned(),
        revision: Revision("r".to_owned()),
        state: ReplicaState::Running,
        address: Some(([127, 0, 0, 1], 1).into()),
        created_at: Timestamp(0),
        host: None,
        health,
        pending: None,
        drift: Default::default(),
    }
}

fn observed(now: u64, replicas: Vec<Replica>) -> Observed {
    let revisions = BTreeMap::from([(ServiceName::new("web").unwrap(), Ok(Revision("r".to_owned())))]);
    Observed { now: Timestamp(now), replicas, revisions, ..Observed::default() }
}

fn ready(stopping_since: Option<Timestamp>) -> Health {
    Health { ready_since: Some(Timestamp(0)), was_ready: true, stopping_since, ..Health::default() }
}

#[test]
fn it_is_withdrawn_and_replaced_at_once_and_ended_only_when_overdue() {
    let desired = desired();
    let name = |text: &str| text.parse::<ReplicaName>().unwrap();
    let at = |now| plan(&desired, &observed(now, vec![replica("web-0-0", ready(Some(Timestamp(1_000))))]));
    let first = at(1_000);
    assert!(first.serving.values().all(BTreeMap::is_empty), "{first:?}");
    assert_eq!(first.draining, BTreeMap::from([(name("web-0-0"), RemoveReason::Stopping)]));
    let [Action::Create { name: made, .. }] = &first.actions[..] else { panic!("{first:?}") };
    assert_eq!(*made, name("web-0-1"));
    let due = Timestamp(1_000).after(Duration::from_secs(25));
    assert_eq!(first.wake_at, Some(due), "its drain and its grace are over then");
    assert_eq!(at(due.0 - 1).actions.len(), 1, "whoever stops it has the first word");
    let last = at(due.0);
    assert!(
        matches!(&last.actions[..], [Action::Create { .. }, Action::Remove { grace: Some(_), .. }]),
        "{last:?}"
    );
}

#[test]
fn without_the_hint_it_serves_on() {
    let desired = desired();
    let observed = observed(1_000, vec![replica("web-0-0", ready(None))]);
    let plan = plan(&desired, &observed);
    assert!(plan.actions.is_empty() && plan.serving.values().any(|serving| serving.len() == 1), "{plan:?}");
}

#[test]
fn its_status_says_that_somebody_is_stopping_it() {
    let desired = desired();
    let observed = observed(1_000, vec![replica("web-0-0", ready(Some(Timestamp(1_000))))]);
    let all = status(&desired, &observed, &plan(&desired, &observed), &BTreeMap::new());
    let members = &all.values().next().unwrap().members;
    let row = members.iter().find(|member| member.engine_name.as_deref() == Some("web-0-0")).unwrap();
    assert_eq!((row.phase, row.message.as_str()), (Phase::Draining, "somebody is stopping it: 0 in flight"));
}
