//! A run of the daemon begins, and finds out what the one before knew.

use super::*;
use crate::ids::Revision;
use crate::members::resize;
use crate::observed::{Health, RuntimeId};
use crate::plan::plan;
use crate::ring::fresh;
use crate::snapshot::{Report, snapshot};
use crate::spec::{Balancing, ServiceSpec};
use crate::status::status_after;

/// One service of three replicas, and what a run knows of it.
struct Run {
    desired: Desired,
    observed: Observed,
    recollection: Recollection,
    statuses: BTreeMap<ServiceName, ServiceStatus>,
}

fn web() -> ServiceName {
    ServiceName::new("web").unwrap()
}

fn replica(ordinal: usize, revision: &str) -> Replica {
    let name = format!("web-{ordinal}-0");
    Replica {
        id: Some(RuntimeId(name.clone())),
        engine_name: name.clone(),
        name: name.parse().unwrap(),
        revision: Revision(revision.to_owned()),
        state: ReplicaState::Running,
        address: Some(([127, 0, 0, 1], 1).into()),
        created_at: Timestamp(0),
        host: None,
        health: Health::default(),
        pending: None,
        drift: Default::default(),
    }
}

impl Run {
    /// A daemon that was told this of the run before, and has just listed: nothing is resolved and nobody is judged.
    fn begun(known: &Remembered, revisions: [&str; 3]) -> Run {
        let spec = serde_json::json!({ "replicas": 3, "template": { "image": "x" } });
        let spec: ServiceSpec = serde_json::from_value(spec).unwrap();
        let service = DesiredService {
            spec,
            generation: Generation(2),
            members: resize(&[], 3).unwrap(),
            ring: fresh(&Balancing::default(), 1, &[]).unwrap(),
            deleting: false,
            rollout: Default::default(),
        };
        let services = BTreeMap::from([(web(), service)]);
        let desired = Desired { generation: Generation(2), services, gateway: Default::default() };
        let replicas = revisions.iter().enumerate().map(|(ordinal, of)| replica(ordinal, of)).collect();
        let kept = BTreeMap::from([(web(), known.clone())]);
        Run {
            recollection: Recollection::of(kept, &desired),
            desired,
            observed: Observed { now: Timestamp(100_000), replicas, ..Observed::default() },
            statuses: BTreeMap::new(),
        }
    }

    /// One pass, with its snapshot acknowledged or not; returns the status of the service.
    fn pass(&mut self, acknowledged: bool) -> ServiceStatus {
        self.observed.now = self.observed.now.after(Duration::from_millis(10));
        let (desired, observed) = (&self.desired, &mut self.observed);
        let plan = plan(desired, observed);
        let next = snapshot(desired, observed, &plan, Generation(observed.now.0));
        observed.handshake.publish(&next, observed.now);
        if acknowledged {
            let report = Report { acknowledged: next.generation, ..Report::default() };
            observed.handshake.report(report, observed.now);
        }
        self.statuses = status_after(desired, observed, &plan, &self.statuses, &self.recollection);
        self.recollection.settle(desired, observed, &plan);
        self.statuses[&web()].clone()
    }

    fn resolve(&mut self) {
        self.observed.revisions = BTreeMap::from([(web(), Ok(Revision("r".to_owned())))]);
    }

    fn judge(&mut self, ordinal: usize, ready: bool) {
        let now = self.observed.now;
        let health = &mut self.observed.replicas[ordinal].health;
        match ready {
            true => health.ready_since = Some(now),
            false => health.last_failure = Some("refused".to_owned()),
        }
    }
}

/// All was well.
fn well() -> Remembered {
    let held = |(kind, status, since)| Held { kind, status, since: Timestamp(since) };
    let conditions = [
        (ConditionKind::Available, true, 1),
        (ConditionKind::Progressing, false, 2),
        (ConditionKind::Degraded, false, 3),
    ];
    Remembered {
        generation: Generation(2),
        replicas: 3,
        ready: 3,
        updated: 3,
        progressed_at: Timestamp(4),
        conditions: conditions.map(held).into(),
    }
}

fn times(status: &ServiceStatus) -> Vec<(bool, u64)> {
    status.conditions.iter().map(|condition| (condition.status, condition.since.0)).collect()
}

#[test]
fn a_restart_that_changes_nothing_changes_no_times() {
    let mut run = Run::begun(&well(), ["r"; 3]);
    assert_eq!(
        times(&run.pass(false)),
        [(false, 100_010), (true, 100_010), (false, 3)],
        "nobody is judged yet"
    );
    run.resolve();
    for ordinal in 0..3 {
        run.judge(ordinal, true);
        run.pass(ordinal < 2);
    }
    let status = run.pass(true);
    assert_eq!(times(&status), [(true, 1), (false, 2), (false, 3)]);
    assert_eq!(status.progressed_at, Timestamp(4));
    assert!(run.recollection.get(&web()).is_none(), "this run knows as much");
    // From here on a change is one.
    run.judge(0, false);
    run.observed.replicas[0].health.ready_since = None;
    let status = run.pass(true);
    assert_eq!(
        (status.ready, status.progressed_at, times(&status)[1]),
        (2, run.observed.now, (true, run.observed.now.0))
    );
}

#[test]
fn who_was_lost_meanwhile_is_a_change_but_the_others_have_served_all_the_while() {
    let mut run = Run::begun(&well(), ["r"; 3]);
    run.observed.replicas.pop();
    run.resolve();
    run.judge(0, true);
    let begun = run.pass(true);
    assert_eq!(times(&begun)[0], (true, 1));
    // It is replaced before the other one is judged.
    run.observed.replicas.push(replica(2, "r"));
    run.judge(2, true);
    run.judge(1, true);
    let status = run.pass(true);
    assert_eq!(times(&status), [(true, 1), (false, run.observed.now.0), (false, 3)]);
}

#[test]
fn who_is_out_of_service_after_the_restart_is_not_available_since_long_ago() {
    let mut run = Run::begun(&well(), ["r"; 3]);
    run.resolve();
    (0..3).for_each(|ordinal| run.judge(ordinal, false));
    run.pass(true);
    (0..3).for_each(|ordinal| run.judge(ordinal, true));
    assert_eq!(times(&run.pass(true))[0], (true, run.observed.now.0));
}

#[test]
fn the_deadline_of_a_rollout_goes_on_counting() {
    let stuck = Remembered { updated: 0, ..well() };
    let mut run = Run::begun(&stuck, ["old"; 3]);
    run.pass(true);
    run.resolve();
    // The next try is planned before anybody is judged.
    run.pass(true);
    (0..3).for_each(|ordinal| run.judge(ordinal, true));
    let status = run.pass(true);
    assert_eq!((status.ready, status.updated, status.progressed_at), (3, 0, Timestamp(4)));
    let degraded = status.condition(ConditionKind::Degraded).unwrap();
    assert!(!degraded.status, "{degraded:?}");
    run.observed.now = Timestamp(4).after(run.desired.services[&web()].spec.strategy.progress_deadline.0);
    let degraded = run.pass(true).condition(ConditionKind::Degraded).cloned().unwrap();
    assert_eq!((degraded.status, degraded.reason), (true, crate::Reason::ProgressDeadlineExceeded));
}

#[test]
fn what_is_not_found_out_in_time_or_is_of_another_service_is_forgotten() {
    let mut run = Run::begun(&well(), ["r"; 3]);
    run.pass(true);
    run.observed.now = run.observed.now.after(FINDING_OUT_MAX);
    run.pass(true);
    assert!(run.recollection.get(&web()).is_none());
    let mut run = Run::begun(&well(), ["r"; 3]);
    run.desired.services.get_mut(&web()).unwrap().rollout.noted_from = Generation(3);
    let kept = BTreeMap::from([(web(), well())]);
    assert!(Recollection::of(kept, &run.desired).get(&web()).is_none(), "it was made anew");
}
