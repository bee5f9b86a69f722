//! The planner in a small world of its own: actions take effect, faults happen, and its promises hold
//! after every pass. When the faults stop, the world becomes what is desired and stays so.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers as well")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use ringmaster_core::debut::Debuts;
use ringmaster_core::desired::{Desired, DesiredService};
use ringmaster_core::handshake::Handshake;
use ringmaster_core::history::History;
use ringmaster_core::members::resize;
use ringmaster_core::observed::{ExitInfo, Health, Observed, Replica, ReplicaState};
use ringmaster_core::plan::{Action, Plan, RemoveReason, plan};
use ringmaster_core::snapshot::{EndpointReport, Report, Snapshot, snapshot};
use ringmaster_core::spec::Strategy as Replacing;
use ringmaster_core::status::status;
use ringmaster_core::{Generation, ReplicaName, Revision, Timestamp};
use support::{desired, end, made, sequences, web};

const DRAIN_MS: u64 = 30_000;

/// What happens to the world between two passes.
#[derive(Debug, Clone)]
enum Step {
    Scale(u32),
    NewRevision(u8),
    RevisionUnknown,
    Delete,
    Exit(usize),
    Vanish(usize),
    Pause(usize),
    Rename(usize),
    Unready(usize),
    NotAlive(usize),
    Busy(usize, u32),
    ListFails(bool),
    Restart,
    Acknowledge,
    Wait(u64),
    Pass,
}

fn step() -> impl Strategy<Value = Step> {
    let index = 0_usize..8;
    prop_oneof![
        1 => (0_u32..6).prop_map(Step::Scale),
        1 => (0_u8..4).prop_map(Step::NewRevision),
        1 => Just(Step::RevisionUnknown),
        1 => Just(Step::Delete),
        2 => index.clone().prop_map(Step::Exit),
        1 => index.clone().prop_map(Step::Vanish),
        1 => index.clone().prop_map(Step::Pause),
        1 => index.clone().prop_map(Step::Rename),
        2 => index.clone().prop_map(Step::Unready),
        1 => index.clone().prop_map(Step::NotAlive),
        2 => (index, 0_u32..3).prop_map(|(i, n)| Step::Busy(i, n)),
        1 => any::<bool>().prop_map(Step::ListFails),
        1 => Just(Step::Restart),
        4 => Just(Step::Acknowledge),
        3 => (1_u64..100_000).prop_map(Step::Wait),
        8 => Just(Step::Pass),
    ]
}

struct World {
    now: Timestamp,
    desired: Desired,
    revision: Option<Revision>,
    replicas: Vec<Replica>,
    history: History,
    handshake: Handshake,
    published: Snapshot,
    in_flight: BTreeMap<ReplicaName, u32>,
    acknowledged: Generation,
    list_fails: bool,
    /// Names that the daemon has seen since it started: it gives none of them again.
    names_used: BTreeSet<ReplicaName>,
    next_id: u64,
}

impl World {
    fn new() -> World {
        World {
            now: Timestamp(1_000_000),
            desired: desired(3, Replacing::default()),
            revision: Some(Revision("r0".to_owned())),
            replicas: Vec::new(),
            history: History::default(),
            handshake: Handshake::default(),
            published: Snapshot::default(),
            in_flight: BTreeMap::new(),
            acknowledged: Generation(0),
            list_fails: false,
            names_used: BTreeSet::new(),
            next_id: 0,
        }
    }

    fn replica(&mut self, index: usize) -> Option<&mut Replica> {
        let count = self.replicas.len();
        (count > 0).then(|| &mut self.replicas[index % count])
    }

    fn service(&mut self) -> Option<&mut DesiredService> {
        self.desired.services.get_mut(&web())
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Scale(count) => {
                if let Some(service) = self.service().filter(|service| !service.deleting) {
                    service.members = resize(&service.members, *count as usize).unwrap();
                }
            }
            Step::NewRevision(number) => self.revision = Some(Revision(format!("r{number}"))),
            Step::RevisionUnknown => self.revision = None,
            Step::Delete => {
                if let Some(service) = self.service() {
                    service.members.clear();
                    service.deleting = true;
                }
            }
            Step::Exit(index) => {
                if let Some(replica) = self.replica(*index).filter(|r| r.state == ReplicaState::Running) {
                    end(replica, 137);
                }
            }
            Step::Vanish(index) => {
                if !self.replicas.is_empty() {
                    let index = index % self.replicas.len();
                    self.replicas.remove(index);
                }
            }
            Step::Pause(index) => {
                if let Some(replica) = self.replica(*index).filter(|r| r.state == ReplicaState::Running) {
                    replica.state = ReplicaState::Paused;
                }
            }
            Step::Rename(index) => {
                if let Some(replica) = self.replica(*index) {
                    replica.engine_name = "renamed".to_owned();
                }
            }
            Step::Unready(index) => {
                if let Some(replica) = self.replica(*index) {
                    replica.health.ready_since = None;
                }
            }
            Step::NotAlive(index) => {
                let now = self.now;
                if let Some(replica) = self.replica(*index).filter(|r| r.health.was_ready) {
                    replica.health = Health { dead_since: Some(now), was_ready: true, ..Health::default() };
                }
            }
            Step::Busy(index, count) => {
                // Only what is published can get requests.
                if let Some(name) = self.replica(*index).map(|r| r.name.clone())
                    && self.handshake.is_published(&name)
                {
                    self.in_flight.insert(name, *count);
                }
            }
            Step::ListFails(fails) => self.list_fails = *fails,
            Step::Restart => {
                // The daemon starts anew: it knows the containers, and nothing of what it knew of them.
                self.names_used.clear();
                self.handshake = Handshake::default();
                self.history = History::default();
                self.published = Snapshot::default();
                self.in_flight.clear();
                self.acknowledged = Generation(0);
                for replica in &mut self.replicas {
                    replica.health = Health::default();
                }
            }
            Step::Acknowledge => self.acknowledge(),
            Step::Wait(ms) => self.now = Timestamp(self.now.0 + ms),
            Step::Pass => drop(self.pass()),
        }
    }

    fn acknowledge(&mut self) {
        self.acknowledged = self.published.generation;
        let endpoints = self.in_flight.iter().map(|(name, in_flight)| {
            (name.clone(), EndpointReport { in_flight: *in_flight, ..EndpointReport::default() })
        });
        let endpoints = endpoints.collect();
        let report = Report { acknowledged: self.acknowledged, endpoints, ..Report::default() };
        self.handshake.report(report, self.now);
    }

    fn observe(&mut self) -> Observed {
        self.history.observe(&self.replicas, self.now);
        self.names_used.extend(self.replicas.iter().map(|replica| replica.name.clone()));
        let revision = self.revision.clone().ok_or_else(|| "image missing".to_owned());
        Observed {
            now: self.now,
            list_error: self.list_fails.then(|| "engine away".to_owned()),
            replicas: self.replicas.clone(),
            revisions: BTreeMap::from([(web(), revision)]),
            stable: BTreeMap::new(),
            history: self.history.clone(),
            handshake: self.handshake.clone(),
            debuts: Debuts::default(),
        }
    }

    /// One pass: plan, check what it promises, publish, and let every action take effect.
    fn pass(&mut self) -> Plan {
        let observed = self.observe();
        let made = plan(&self.desired, &observed);
        self.check(&observed, &made);
        let next = snapshot(&self.desired, &observed, &made, self.published.generation.next());
        if !next.routes_like(&self.published) {
            self.handshake.publish(&next, self.now);
            self.published = next;
        }
        status(&self.desired, &observed, &made, &BTreeMap::new());
        for action in made.actions.clone() {
            self.act(action);
        }
        for name in &made.finished {
            self.desired.services.remove(name);
        }
        made
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Create { name, revision, .. } => {
                self.history.record_attempt(&name);
                self.next_id += 1;
                let health = Health { ready_since: Some(self.now), was_ready: true, ..Health::default() };
                self.replicas.push(Replica { health, ..made(name, revision, self.next_id, self.now) });
            }
            Action::Remove { id, .. } => self.replicas.retain(|replica| replica.id != Some(id.clone())),
            Action::Repair { id, .. } => {
                for replica in self.replicas.iter_mut().filter(|replica| replica.id == Some(id.clone())) {
                    replica.engine_name = replica.name.to_string();
                    if replica.state == ReplicaState::Paused {
                        replica.state = ReplicaState::Running;
                    }
                }
            }
        }
    }

    fn check(&mut self, observed: &Observed, made: &Plan) {
        let serving: Vec<&ReplicaName> = made.serving.values().flat_map(BTreeMap::values).collect();
        for name in &serving {
            let replica = observed.replicas.iter().find(|r| r.name == **name).expect("what serves exists");
            assert!(replica.is_ready(), "{name} serves and is not ready");
            assert!(!made.draining.contains_key(name), "{name} serves and drains");
        }
        // Whoever is ready and has nothing against it keeps its member served: no availability is given away.
        for member in self.desired.services.values().flat_map(|service| &service.members) {
            let usable = observed
                .replicas
                .iter()
                .any(|r| r.name.ordinal == member.ordinal && r.is_ready() && r.health.dead_since.is_none());
            let served = serving.iter().any(|name| name.ordinal == member.ordinal);
            assert_eq!(usable, served, "member {}", member.ordinal);
        }
        assert!(observed.list_error.is_none() || made.actions.is_empty(), "acted without seeing");
        let mut surging = 0;
        for action in &made.actions {
            match action {
                Action::Create { name, .. } => {
                    assert!(self.names_used.insert(name.clone()), "{name} is used twice");
                    let replaced =
                        observed.replicas.iter().any(|r| r.name.ordinal == name.ordinal && r.is_ready());
                    surging += u32::from(replaced);
                }
                Action::Remove { id, name, reason, .. } => {
                    let replica = observed.replicas.iter().find(|r| r.id.as_ref() == Some(id)).unwrap();
                    if replica.state == ReplicaState::Running {
                        self.check_drained(name);
                        self.check_place_keeps_a_chance(observed, made, name, *reason);
                    }
                }
                Action::Repair { .. } => {}
            }
        }
        let allowed = |service: &DesiredService| service.spec.strategy.limits(service.members.len() as u32).0;
        let most = self.desired.services.values().map(allowed).sum();
        assert!(surging <= most, "{surging} replacements beside ready replicas, more than {most}");
    }

    /// A replica that lives makes way for another only where another lives: never for a plan alone.
    fn check_place_keeps_a_chance(
        &self,
        observed: &Observed,
        made: &Plan,
        name: &ReplicaName,
        reason: RemoveReason,
    ) {
        if !matches!(reason, RemoveReason::Superseded | RemoveReason::Duplicate) {
            return;
        }
        let kept = |r: &&Replica| {
            r.name.ordinal == name.ordinal
                && matches!(r.state, ReplicaState::Running | ReplicaState::Paused)
                && r.health.dead_since.is_none()
                && !made
                    .actions
                    .iter()
                    .any(|a| matches!(a, Action::Remove { id, .. } if r.id.as_ref() == Some(id)))
        };
        assert!(observed.replicas.iter().any(|r| kept(&r)), "{name} is stopped and its place left empty");
    }

    /// A running replica is stopped only if the acknowledged snapshot leaves it out and it is idle, or its drain
    /// time is over.
    fn check_drained(&self, name: &ReplicaName) {
        assert!(!self.published.endpoints().any(|e| e.replica == *name), "{name} is stopped while published");
        let drained = self.handshake.endpoint(name).in_flight == 0;
        let expired = match self.handshake.drain_state(name, self.now) {
            ringmaster_core::handshake::DrainState::Draining { since, .. } => {
                self.now.since(since).as_millis() as u64 >= DRAIN_MS
            }
            ringmaster_core::handshake::DrainState::Drained => true,
            other => panic!("{name} is stopped while {other:?}"),
        };
        assert!(drained || expired, "{name} is stopped with requests in flight");
    }

    /// The faults stop: the probes see what runs as ready, requests end, time goes on.
    fn settle(&mut self) -> Plan {
        self.list_fails = false;
        self.revision.get_or_insert_with(|| Revision("r9".to_owned()));
        self.in_flight.clear();
        let mut last = Plan::default();
        for _ in 0..200 {
            for replica in &mut self.replicas {
                if replica.state == ReplicaState::Running && replica.health.dead_since.is_none() {
                    replica.health.ready_since.get_or_insert(self.now);
                }
            }
            last = self.pass();
            self.acknowledge();
            self.now = Timestamp(self.now.0 + 10_000);
        }
        last
    }
}

proptest! {
    #![proptest_config(sequences(3_000))]

    #[test]
    fn promises_hold_through_faults_and_the_world_converges_after_them(steps in prop::collection::vec(step(), 0..60)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        let last = world.settle();
        prop_assert!(last.actions.is_empty(), "still acting: {:?}", last.actions);
        let desired: BTreeSet<_> =
            world.desired.services.values().flat_map(|s| s.members.iter().map(|m| m.ordinal)).collect();
        let running: Vec<_> = world.replicas.iter().map(|r| r.name.ordinal).collect();
        prop_assert_eq!(running.len(), desired.len(), "{:?}", world.replicas);
        prop_assert_eq!(running.iter().copied().collect::<BTreeSet<_>>(), desired);
        let revision = world.revision.clone();
        prop_assert!(world.replicas.iter().all(|r| Some(&r.revision) == revision.as_ref()));
    }

    #[test]
    fn a_plan_does_not_depend_on_the_order_of_what_was_observed(steps in prop::collection::vec(step(), 0..40), turn in 0_usize..8) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        let mut observed = world.observe();
        let first = plan(&world.desired, &observed);
        if !observed.replicas.is_empty() {
            let turn = turn % observed.replicas.len();
            observed.replicas.rotate_left(turn);
        }
        prop_assert_eq!(first, plan(&world.desired, &observed));
    }
}

#[test]
fn a_revision_that_does_not_become_ready_stops_at_the_first_replica() {
    let mut world = World::new();
    for _ in 0..5 {
        world.pass();
        world.acknowledge();
    }
    world.revision = Some(Revision("bad".to_owned()));
    for _ in 0..50 {
        for replica in world.replicas.iter_mut().filter(|r| r.revision.0 == "bad") {
            replica.state = ReplicaState::Exited(ExitInfo::default());
            replica.health = Health::default();
        }
        let made = world.pass();
        world.acknowledge();
        assert_eq!(made.serving[&web()].len(), 3, "the old revision serves throughout");
        world.now = Timestamp(world.now.0 + 60_000);
    }
    let tried: BTreeSet<_> = world.names_used.iter().filter(|n| n.attempt.0 > 0).map(|n| n.ordinal).collect();
    assert_eq!(tried.len(), 1, "{tried:?}");
}

#[test]
fn a_restart_with_a_new_revision_replaces_one_at_a_time() {
    let mut world = World::new();
    for _ in 0..5 {
        world.pass();
        world.acknowledge();
    }
    world.step(&Step::Restart);
    world.revision = Some(Revision("new".to_owned()));
    let made = world.pass();
    assert_eq!(made.actions, [], "nothing is known of what runs yet");
    for replica in &mut world.replicas {
        replica.health.ready_since = Some(world.now);
    }
    let made = world.pass();
    assert_eq!(made.actions.len(), 1, "{:?}", made.actions);
    assert_eq!(made.serving[&web()].len(), 3);
}
