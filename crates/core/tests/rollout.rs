//! Rollouts in a small world of their own: what a strategy promises holds in every pass, whatever is asked for and
//! whatever fails, and afterwards the service is what it should be.
//!
//! The invariants are S1, S2, S4 and S15 (safety), L1, L6 and L8 (liveness); the names stand at the checks.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers as well")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use ringmaster_core::debut::Debuts;
use ringmaster_core::desired::{Desired, DesiredService};
use ringmaster_core::handshake::{DrainState, Handshake};
use ringmaster_core::history::History;
use ringmaster_core::members::resize;
use ringmaster_core::observed::{Health, Observed, Replica, ReplicaState};
use ringmaster_core::plan::{Action, Plan, plan};
use ringmaster_core::quantity::{Amount, Percent, Span};
use ringmaster_core::rollout::{FailedRelease, Release, Stage, failure};
use ringmaster_core::snapshot::{Report, Snapshot, snapshot};
use ringmaster_core::spec::{Strategy as Replacing, StrategyKind};
use ringmaster_core::status::{ServiceStatus, status};
use ringmaster_core::{Generation, Ordinal, ReplicaName, Revision, ServiceName, Timestamp};
use support::{desired, end, made, sequences, web};

/// What happens between two passes.
#[derive(Debug, Clone)]
enum Step {
    /// Another release is wanted. Those with odd numbers end as soon as they start, those that 10 divides are never ready.
    Release(u8),
    Pause,
    Resume,
    Promote,
    Scale(u32),
    Kill(usize),
    Unready(usize),
    /// Everything that can become ready does.
    Ready,
    Acknowledge,
    Wait(u64),
    /// The daemon is killed and starts again.
    Restart,
    Pass,
}

fn step() -> impl Strategy<Value = Step> {
    let index = 0_usize..12;
    prop_oneof![
        2 => (0_u8..11).prop_map(Step::Release),
        1 => Just(Step::Pause),
        1 => Just(Step::Resume),
        1 => Just(Step::Promote),
        1 => (0_u32..7).prop_map(Step::Scale),
        1 => index.clone().prop_map(Step::Kill),
        1 => index.prop_map(Step::Unready),
        5 => Just(Step::Ready),
        5 => Just(Step::Acknowledge),
        2 => (1_u64..20_000).prop_map(Step::Wait),
        1 => Just(Step::Restart),
        10 => Just(Step::Pass),
    ]
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![
        (0_u32..4).prop_map(Amount::Count),
        prop::sample::select(vec![0_u8, 10, 25, 50, 100]).prop_map(|share| Amount::Share(Percent(share))),
    ]
}

fn replacing() -> impl Strategy<Value = Replacing> {
    let canary = prop::option::weighted(0.2, prop::sample::select(vec![Percent(10), Percent(50)]));
    let min_ready = prop::sample::select(vec![0_u64, 0, 3_000]);
    (amount(), amount(), min_ready, canary, 0_u8..6).prop_map(
        |(max_surge, max_unavailable, ms, canary, kind)| {
            let default = Replacing::default();
            let min_ready = Span::from_millis(ms);
            match kind {
                0 => Replacing { kind: StrategyKind::Recreate, min_ready, ..default },
                _ => Replacing { max_surge, max_unavailable, min_ready, canary, ..default },
            }
        },
    )
}

fn revision(number: u8) -> Revision {
    Revision(format!("r{number}"))
}

fn number(revision: &Revision) -> u8 {
    revision.0[1..].parse().unwrap()
}

struct World {
    now: Timestamp,
    desired: Desired,
    wanted: Revision,
    stable: Option<Release>,
    /// Releases of which every replica was ready at once, as the world saw it and not the planner.
    once_ready: BTreeSet<Revision>,
    replicas: Vec<Replica>,
    history: History,
    handshake: Handshake,
    published: Snapshot,
    status: BTreeMap<ServiceName, ServiceStatus>,
    /// No replica of this place is ever ready, whatever it runs.
    cursed: Option<Ordinal>,
    /// The engine does not answer.
    is_blind: bool,
    next_id: u64,
    /// How often each place was given another replica.
    moves: BTreeMap<Ordinal, u32>,
}

impl World {
    fn new(replicas: usize, strategy: Replacing) -> World {
        World {
            now: Timestamp(1_000_000),
            desired: desired(replicas, strategy),
            wanted: revision(0),
            stable: None,
            once_ready: BTreeSet::new(),
            replicas: Vec::new(),
            history: History::default(),
            handshake: Handshake::default(),
            published: Snapshot::default(),
            status: BTreeMap::new(),
            cursed: None,
            is_blind: false,
            next_id: 0,
            moves: BTreeMap::new(),
        }
    }

    fn service(&mut self) -> &mut DesiredService {
        self.desired.services.get_mut(&web()).unwrap()
    }

    fn changed(&mut self) -> Generation {
        let next = self.desired.generation.next();
        self.desired.generation = next;
        self.service().generation = next;
        next
    }

    fn want(&mut self, release: Revision) {
        let next = self.changed();
        self.wanted = release;
        self.service().rollout.begin(next);
    }

    fn step(&mut self, step: &Step) {
        let count = self.replicas.len();
        match step {
            Step::Release(number) => self.want(revision(*number)),
            Step::Pause => self.service().rollout.paused = true,
            Step::Resume => self.resume(),
            Step::Promote => self.promote(),
            Step::Scale(replicas) => {
                self.changed();
                let service = self.service();
                service.members = resize(&service.members, *replicas as usize).unwrap();
            }
            Step::Kill(index) if count > 0 => self.end(index % count),
            Step::Unready(index) if count > 0 => {
                let health = &mut self.replicas[index % count].health;
                health.ready_since = None;
                health.last_failure = Some("refused".to_owned());
            }
            Step::Kill(_) | Step::Unready(_) => {}
            Step::Ready => self.ready(),
            Step::Acknowledge => self.acknowledge(),
            Step::Wait(ms) => self.now = Timestamp(self.now.0 + ms),
            Step::Restart => {
                self.handshake = Handshake::default();
                let alive = self.replicas.iter().filter(|r| r.state == ReplicaState::Running);
                self.handshake.adopt(alive.map(|replica| replica.name.clone()));
                self.history = History::default();
                self.published = Snapshot::default();
                self.status.clear();
                for replica in &mut self.replicas {
                    replica.health = Health::default();
                }
            }
            Step::Pass => drop(self.pass()),
        }
    }

    fn resume(&mut self) {
        self.changed();
        self.service().rollout.paused = false;
    }

    fn promote(&mut self) {
        let wanted = self.wanted.clone();
        self.service().rollout.promoted = Some(wanted);
    }

    fn end(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        end(replica, 1);
        replica.health.ready_since = None;
    }

    fn ready(&mut self) {
        for index in 0..self.replicas.len() {
            let replica = &self.replicas[index];
            let number = number(&replica.revision);
            if replica.state != ReplicaState::Running {
                continue;
            }
            if number % 2 == 1 {
                self.end(index);
            } else if number > 0 && number.is_multiple_of(10) || self.cursed == Some(replica.name.ordinal) {
                let health = &mut self.replicas[index].health;
                health.ready_since = None;
                health.last_failure = Some("refused".to_owned());
            } else {
                let now = self.now;
                let health = &mut self.replicas[index].health;
                health.ready_since.get_or_insert(now);
                health.was_ready = true;
            }
        }
    }

    fn acknowledge(&mut self) {
        let report = Report { acknowledged: self.published.generation, ..Report::default() };
        self.handshake.report(report, self.now);
    }

    fn observe(&mut self) -> Observed {
        self.history.observe(&self.replicas, self.now);
        Observed {
            now: self.now,
            list_error: self.is_blind.then(|| "the engine is away".to_owned()),
            replicas: self.replicas.clone(),
            revisions: BTreeMap::from([(web(), Ok(self.wanted.clone()))]),
            stable: self.stable.clone().into_iter().map(|release| (web(), release)).collect(),
            history: self.history.clone(),
            handshake: self.handshake.clone(),
            debuts: Debuts::default(),
        }
    }

    /// One pass as the controller makes it: plan, publish, note what is ready, give up what has failed, act.
    fn pass(&mut self) -> Plan {
        let mut observed = self.observe();
        let made = plan(&self.desired, &observed);
        self.check(&observed, &made);
        let next = snapshot(&self.desired, &observed, &made, self.published.generation.next());
        if !next.routes_like(&self.published) {
            self.handshake.publish(&next, self.now);
            self.published = next;
        }
        observed.handshake = self.handshake.clone();
        self.note_ready(&made);
        observed.stable = self.stable.clone().into_iter().map(|release| (web(), release)).collect();
        self.status = status(&self.desired, &observed, &made, &self.status);
        self.judge(&observed);
        for action in made.actions.clone() {
            self.act(action);
        }
        made
    }

    fn note_ready(&mut self, made: &Plan) {
        let members = self.service().members.clone();
        let whole = members.iter().all(|member| {
            self.replicas
                .iter()
                .any(|r| r.name.ordinal == member.ordinal && r.is_ready() && r.revision == self.wanted)
        });
        if whole && !members.is_empty() {
            self.once_ready.insert(self.wanted.clone());
        }
        let (progress, stage) = made.rollouts[&web()];
        if stage == Stage::Complete && progress.available > 0 {
            assert!(whole, "S15: {} counts as ready as a whole", self.wanted);
            let generation = self.service().rollout.since;
            self.stable = Some(Release {
                revision: self.wanted.clone(),
                content_id: String::new(),
                template: self.service().spec.template.clone(),
                restarted_at: None,
                generation,
            });
        }
    }

    fn judge(&mut self, observed: &Observed) {
        let (service, status) = (&self.desired.services[&web()], &self.status[&web()]);
        let stalled_for = self.now.since(status.progressed_at);
        let Some(why) = failure(&web(), service, observed, status.rollout.stage, stalled_for) else { return };
        let stable = self.stable.clone().expect("there is something to go back to");
        assert!(self.once_ready.contains(&stable.revision), "S15: {} was never ready", stable.revision);
        assert_ne!(stable.revision, self.wanted, "what is stable is not given up");
        let failed = FailedRelease {
            revision: Some(self.wanted.clone()),
            template: stable.template.clone(),
            generation: self.service().rollout.since,
            at: self.now,
            why,
            given_up_in: self.desired.generation.next(),
            back_to: stable.generation,
        };
        self.want(stable.revision);
        self.service().rollout.failed = Some(failed);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Create { name, revision, .. } => {
                self.history.record_attempt(&name);
                *self.moves.entry(name.ordinal).or_default() += 1;
                self.next_id += 1;
                self.replicas.push(made(name, revision, self.next_id, self.now));
            }
            Action::Remove { id, .. } => self.replicas.retain(|replica| replica.id != Some(id.clone())),
            Action::Repair { .. } => unreachable!("nobody meddles here"),
        }
    }

    fn live(&self, ordinal: Ordinal) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(move |r| r.name.ordinal == ordinal && r.is_live())
    }

    fn check(&self, observed: &Observed, made: &Plan) {
        let service = &self.desired.services[&web()];
        let n = service.members.len() as u32;
        let (surge, missing) = service.spec.strategy.limits(n);
        let ordinals: Vec<Ordinal> = service.members.iter().map(|member| member.ordinal).collect();
        let ready = |ordinal: &Ordinal| self.live(*ordinal).any(Replica::is_ready);
        let extra: u32 = ordinals.iter().map(|o| (self.live(*o).count() as u32).saturating_sub(1)).sum();
        let mut beside = 0;
        let mut names: BTreeSet<&ReplicaName> = self.replicas.iter().map(|replica| &replica.name).collect();
        for action in &made.actions {
            match action {
                Action::Create { name, revision, .. } => {
                    assert!(names.insert(name), "S4: the name {name} is used twice");
                    let twice = self.live(name.ordinal).any(|replica| replica.revision == *revision);
                    assert!(!twice, "S4: {name} is the second replica of {revision} in its place");
                    beside += u32::from(ready(&name.ordinal));
                    if service.spec.strategy.kind == StrategyKind::Recreate {
                        let others = |r: &Replica| r.is_live() && r.revision != *revision;
                        let mixed = ordinals.iter().any(|o| self.live(*o).any(others));
                        let heals = self.stable.as_ref().is_some_and(|stable| stable.revision == *revision);
                        assert!(!mixed || heals, "{name} starts beside another release");
                    }
                }
                Action::Remove { name, grace: Some(_), .. } => {
                    let state = self.handshake.drain_state(name, observed.now);
                    assert!(matches!(state, DrainState::Drained), "S6: {name} is stopped while {state:?}");
                }
                Action::Remove { .. } | Action::Repair { .. } => {}
            }
        }
        if service.spec.strategy.kind == StrategyKind::Recreate {
            return;
        }
        assert!(
            beside == 0 || extra + beside <= surge,
            "S1: {extra} and {beside} more than {surge}: {made:#?}"
        );
        let (before, after) =
            (ordinals.iter().filter(|o| ready(o)).count() as u32, made.serving[&web()].len() as u32);
        let least = before.min(n.saturating_sub(missing));
        assert!(after >= least, "S2: {after} of {n} serve, {before} could: {made:#?}");
    }

    /// The faults stop: whatever can becomes ready, and time goes on until nothing has happened for longer than any wait.
    fn settle(&mut self) -> Plan {
        let (mut last, mut quiet) = (Plan::default(), 0);
        for _ in 0..300 {
            self.ready();
            last = self.pass();
            self.acknowledge();
            quiet = if last.actions.is_empty() { quiet + 1 } else { 0 };
            if quiet > 12 {
                break;
            }
            self.now = Timestamp(self.now.0 + if quiet > 3 { 60_000 } else { 2_000 });
        }
        last
    }

    fn running(&self) -> Vec<(Ordinal, u8)> {
        let live = self.replicas.iter().filter(|r| r.is_live());
        let mut live: Vec<_> = live.map(|r| (r.name.ordinal, number(&r.revision))).collect();
        live.sort_unstable();
        live
    }
}

proptest! {
    #![proptest_config(sequences(1_000))]

    /// S1, S2, S4, S6, S15 throughout; L1 in the end.
    #[test]
    fn promises_hold_whatever_is_asked_for_and_a_good_release_arrives(
        strategy in replacing(),
        steps in prop::collection::vec(step(), 0..80),
        last in prop::sample::select(vec![2_u8, 4, 6, 8]),
    ) {
        let mut world = World::new(4, strategy);
        for step in &steps {
            world.step(step);
        }
        world.want(revision(last));
        world.promote();
        world.resume();
        let plan = world.settle();
        prop_assert!(plan.actions.is_empty(), "L1: still acting: {:?}", plan.actions);
        let members = world.service().members.clone();
        let wanted: Vec<_> = members.iter().map(|member| (member.ordinal, last)).collect();
        prop_assert_eq!(world.running(), wanted, "L1: {:?}", world.service().rollout.failed);
    }

    /// L6: where one place never becomes ready, the others reach the release, or it is given up and all that served before
    /// serves again.
    #[test]
    fn one_bad_place_does_not_hold_a_rollout_for_ever(strategy in replacing(), cursed in 0_u16..4) {
        let mut world = World::new(4, strategy);
        world.settle();
        prop_assert_eq!(world.status[&web()].ready, 4);
        world.cursed = Some(Ordinal(cursed));
        world.want(revision(2));
        world.promote();
        world.settle();
        let status = &world.status[&web()];
        let back = world.wanted == revision(0);
        let others = world.running().iter().filter(|(o, number)| o.0 != cursed && *number == 2).count();
        prop_assert!(back || others == 3, "{:?} {status:#?}", world.running());
        prop_assert!(status.ready >= 3, "{status:#?}");
    }

    /// L8: there and back again is where it began, and asking for what is so changes nothing.
    #[test]
    fn there_and_back_again_is_where_it_began(strategy in replacing(), passes in 0_usize..12) {
        let mut world = World::new(4, strategy);
        world.settle();
        let before = world.running();
        world.want(revision(2));
        for _ in 0..passes {
            world.ready();
            world.pass();
            world.acknowledge();
            world.now = Timestamp(world.now.0 + 1_000);
        }
        world.want(revision(0));
        let plan = world.settle();
        prop_assert!(plan.actions.is_empty(), "{:?}", plan.actions);
        prop_assert_eq!(world.running(), before);
        world.moves.clear();
        world.want(revision(0));
        world.settle();
        prop_assert!(world.moves.is_empty(), "{:?}", world.moves);
    }
}

/// A world of `replicas` that serve release 0.
fn serving(replicas: usize, strategy: Replacing) -> World {
    let mut world = World::new(replicas, strategy);
    world.settle();
    world.moves.clear();
    world
}

#[test]
fn a_rollout_gives_each_place_one_replica_only() {
    for surge in [1, 2, 6] {
        let strategy = Replacing { max_surge: Amount::Count(surge), ..Replacing::default() };
        let mut world = serving(6, strategy);
        world.want(revision(2));
        world.settle();
        assert_eq!(world.running(), (0..6).map(|o| (Ordinal(o), 2)).collect::<Vec<_>>());
        assert!(world.moves.values().all(|moves| *moves == 1), "{:?}", world.moves);
    }
}

#[test]
fn a_release_that_fails_touches_one_place_and_is_given_up() {
    for bad in [1, 10] {
        let strategy = Replacing { max_surge: Amount::Count(4), ..Replacing::default() };
        let mut world = serving(4, strategy);
        world.want(revision(bad));
        world.settle();
        assert_eq!((world.moves.len(), world.wanted.clone()), (1, revision(0)), "{:?}", world.moves);
        let failed = world.service().rollout.failed.clone().unwrap();
        let why = if bad == 1 { "failed 3 times in a row" } else { "no progress for 2m" };
        assert!(failed.why.contains(why), "{}", failed.why);
        assert_eq!(world.status[&web()].ready, 4);
    }
}

#[test]
fn nobody_leaves_to_make_room_on_an_engine_that_is_away() {
    // Found by the simulation: the successors could not have started.
    let one_missing =
        Replacing { max_surge: Amount::Count(0), max_unavailable: Amount::Count(1), ..Replacing::default() };
    let recreate = Replacing { kind: StrategyKind::Recreate, ..Replacing::default() };
    for (strategy, left) in [(one_missing, 3), (recreate, 0)] {
        let mut world = serving(4, strategy);
        world.want(revision(2));
        world.is_blind = true;
        assert_eq!(world.pass().serving[&web()].len(), 4);
        world.is_blind = false;
        assert_eq!(world.pass().serving[&web()].len(), left);
        world.is_blind = true;
        assert_eq!(world.pass().serving[&web()].len(), left, "who has begun to leave does not come back");
    }
}

#[test]
fn the_old_replica_stands_by_until_its_successor_has_proven_itself() {
    let strategy = Replacing { min_ready: Span(Duration::from_secs(10)), ..Replacing::default() };
    let mut world = serving(2, strategy);
    world.want(revision(2));
    world.pass();
    world.ready();
    let made = world.pass();
    let standby: Vec<_> = made.standby.iter().map(ToString::to_string).collect();
    assert_eq!(
        (standby, made.serving[&web()][&Ordinal(0)].to_string()),
        (vec!["web-0-0".to_owned()], "web-0-1".to_owned())
    );
    assert_eq!(made.wake_at, Some(world.now.after(Duration::from_secs(10))));
    // It fails before that: the old one serves again, at once.
    world.step(&Step::Kill(2));
    let made = world.pass();
    assert_eq!(made.serving[&web()][&Ordinal(0)].to_string(), "web-0-0");
}

/// Nothing else wakes the loop when `minReady` is over.
#[test]
fn the_first_replicas_are_looked_at_again_when_they_have_proven_themselves() {
    let strategy = Replacing { min_ready: Span(Duration::from_secs(10)), ..Replacing::default() };
    let mut world = World::new(2, strategy);
    world.pass();
    world.ready();
    let made = world.pass();
    assert_eq!(
        (made.wake_at, made.rollouts[&web()].1),
        (Some(world.now.after(Duration::from_secs(10))), Stage::Progressing)
    );
    world.step(&Step::Wait(10_000));
    assert_eq!(world.pass().rollouts[&web()].1, Stage::Complete);
}

#[test]
fn a_pause_holds_after_the_current_step_and_lost_replicas_come_back_as_they_were() {
    let mut world = serving(4, Replacing::default());
    world.want(revision(2));
    world.pass();
    world.service().rollout.paused = true;
    world.settle();
    let numbers = |world: &World| world.running().iter().map(|(_, number)| *number).collect::<Vec<_>>();
    assert_eq!(numbers(&world), [2, 0, 0, 0], "what has begun is finished");
    assert_eq!(world.status[&web()].rollout.stage, Stage::Paused);
    let old = world.replicas.iter().position(|r| r.name.ordinal == Ordinal(3)).unwrap();
    world.end(old);
    world.settle();
    assert_eq!(numbers(&world), [2, 0, 0, 0]);
    world.resume();
    world.settle();
    assert_eq!(numbers(&world), [2, 2, 2, 2]);
}

/// A replica that has just become ready is in no snapshot yet: that is not the same as having been taken out of one.
#[test]
fn places_that_are_emptied_one_after_the_other_do_not_wait_for_each_other() {
    let half = Amount::Share(Percent(50));
    let strategy = Replacing { max_surge: Amount::Count(0), max_unavailable: half, ..Replacing::default() };
    let mut world = World::new(4, strategy);
    for step in [Step::Pass, Step::Ready, Step::Pass, Step::Scale(5), Step::Pass, Step::Kill(0)] {
        world.step(&step);
    }
    world.want(revision(2));
    world.settle();
    assert_eq!(world.running(), (0..5).map(|o| (Ordinal(o), 2)).collect::<Vec<_>>());
}
