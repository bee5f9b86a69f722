//! What must come true once the faults have stopped.

use ringmaster_core::observed::ReplicaState;
use ringmaster_core::status::{ConditionKind, Phase, ServiceStatus};
use ringmaster_core::{Ordinal, ServiceName};

use crate::controller::Controller;
use crate::engine::{Ailment, Container, Owner};
use crate::event::Event;
use crate::fault::Fault;
use crate::promise::Promise;
use crate::simulation::Simulation;
use crate::store::Edit;

/// Within so many milliseconds all must be as desired: twice the longest backoff, a drain, and a slow start.
const BOUND: u64 = 900_000;
/// For how long it must stay so.
const REST: u64 = 35_000;

/// Where every replica is at the end, ids and attempts left out.
pub(crate) type Picture = Vec<(ServiceName, Ordinal, String, String)>;

impl Simulation<'_> {
    /// The faults stop, and what people can mend is mended.
    pub(crate) fn heal(&mut self) {
        self.note(|| "the faults stop".to_owned());
        self.faults.heal();
        self.healed_at = Some(self.now);
        self.engine.away_until = 0;
        self.plane.stalled_until = 0;
        (self.crash_loop_until, self.slow_start_until) = (0, 0);
        self.silence_events(0);
        let numbers: Vec<u64> = self.engine.containers.keys().copied().collect();
        for number in numbers {
            if let Some(container) = self.engine.containers.get_mut(&number) {
                container.ailment = Ailment::None;
            }
            self.touched(number);
        }
        self.after(200, Event::Swap);
        // Whatever was deleted for a moment is back by then.
        self.run_for(crate::strike::DELETED_FOR_MAX + 100);
        if self.struck.keys().any(|(fault, _)| *fault == Fault::Slow) {
            self.run_for(31_000); // And what took so long has arrived.
        }
        // What was ready once comes back by itself; where nothing was, somebody has to say something else.
        let (must_go_back, bad) = self.bad_services();
        self.must_go_back = must_go_back;
        for name in bad {
            let mut spec = self.spec_of(&name);
            spec.replicas = None;
            self.edit(&Edit::force(name, spec));
        }
    }

    /// Lets time pass.
    pub(crate) fn run_for(&mut self, time: u64) {
        let until = self.now + time;
        while self.checks.broken.is_none() && self.step(until) {}
    }

    /// Runs until all is as desired, and checks what was promised about that.
    pub(crate) fn converge(&mut self, rests: bool) {
        let until = self.now + BOUND;
        if self.cursed.is_some() {
            self.run_for(20_000);
        }
        let mut looked_at = 0;
        let mut is_so = false;
        while self.checks.broken.is_none() && !is_so && self.step(until) {
            let passes = self.controller.as_ref().map_or(0, |c| c.passes);
            if passes != looked_at {
                looked_at = passes;
                is_so = self.is_as_desired();
            }
        }
        if self.checks.broken.is_some() {
            return;
        }
        let crashed = self.had.contains("crash");
        let why = if is_so { String::new() } else { self.why_not() };
        let draining = self.controller.as_ref().is_some_and(|c| !c.plan.draining.is_empty());
        if !is_so && draining {
            self.checks.expect(Promise::L5, false, || why.clone());
        }
        if self.cursed.is_some() {
            return self.checks.expect(Promise::L6, is_so, || why);
        }
        if crashed {
            self.checks.expect(Promise::L3, is_so, || why.clone());
        }
        if !self.must_go_back.is_empty() {
            let (still, _) = self.bad_services(); // One that nobody needs now goes back once somebody does.
            self.checks.expect(Promise::L6, is_so && still.is_empty(), || {
                format!("{:?} are still on what never becomes ready: {why}", self.must_go_back)
            });
        }
        self.checks.expect(Promise::L1, is_so, || why);
        if self.had.contains("stop") {
            self.checks.expect(Promise::L5, !draining || !is_so, || "a drain does not end".to_owned());
        }
        self.check_strays();
        if rests {
            self.check_rest();
            if self.checks.broken.is_none() {
                self.wake_the_idle();
            }
        }
    }

    fn settle(&mut self) {
        let until = self.now + BOUND;
        while self.checks.broken.is_none() && !self.is_as_desired() && self.step(until) {}
    }

    /// It stays so, and nothing is done meanwhile.
    fn check_rest(&mut self) {
        // A service has no rest before its requests have ended: a count that follows the load goes down only then.
        let until = self.now + crate::strike::LONG_REQUEST_MAX;
        while !self.plane.in_flight.is_empty() && self.checks.broken.is_none() && self.step(until) {}
        // What is kept for its output goes a minute after its successor was ready; a tag that was moved may show only now.
        let routed = |sim: &Self| sim.controller.as_ref().map(|c| c.snapshot.generation);
        let windows = self.windows();
        self.run_for(windows);
        for _ in 0..5 {
            let before = routed(self);
            self.run_for(70_000);
            if routed(self) == before {
                break;
            }
        }
        let (mutations, retries, lists) = (self.mutations, self.retries, self.lists);
        self.run_for(REST);
        let (done, tried, listed) = (self.mutations - mutations, self.retries - retries, self.lists - lists);
        // One whose name is another's is tried to be named again, after waits that are longer than this by now.
        let unrepaired = |c: &Controller| {
            c.world.replicas().filter(|replica| c.world.is_unrepaired(&replica.name)).count()
        };
        let blocked = self.controller.as_ref().map_or(0, unrepaired);
        let rests = done == 0 && tried <= blocked as u64 && listed <= REST / 10_000 + 2 + tried;
        self.checks.expect(Promise::S13, rests, || {
            format!(
                "{done} actions, {tried} more tries for {blocked} that cannot be repaired, and {listed} lists in {REST} \
                 ms in which nothing happened"
            )
        });
        let is_so = self.is_as_desired();
        let why = if is_so { String::new() } else { self.why_not() };
        self.checks.expect(Promise::L2, is_so, || why);
    }

    /// Every replica is used, kept as the newest that ended, or reported.
    fn check_strays(&mut self) {
        let Some(c) = &self.controller else { return };
        let stray = self.engine.ours().find(|(number, container)| {
            let Some(name) = &container.name else { return false };
            if c.world.copies().any(|copy| copy.id == crate::engine::id_of(*number)) {
                return false; // It is reported.
            }
            let used = c.snapshot.endpoints().any(|endpoint| endpoint.replica == *name);
            let kept = !container.is_alive() && c.desired.services.contains_key(&name.service);
            !used && !kept && !c.plan.orphans.contains(name)
        });
        let stray = stray.and_then(|(_, container)| container.name.clone());
        self.checks
            .expect(Promise::L4, stray.is_none(), || format!("{stray:?} is neither used nor reported"));
    }

    /// There and back again.
    pub(crate) fn there_and_back(&mut self) {
        // Where content has failed, what was stable stands in for it until something else is asked for.
        let mut plain = self.store.desired.services.iter().filter(|(_, service)| {
            service.rollout.failed.is_none() && service.spec.autoscale.is_none() && !service.deleting
        });
        let Some((name, _)) = plain.next() else { return };
        let name = name.clone();
        // A tag that was moved while the engine was away is looked at again within half a minute.
        self.run_for(35_000);
        self.settle();
        let before = self.picture(&name);
        let live = self.store.desired.services[&name].spec.clone();
        let mut other = live.clone();
        other.template.env.insert("SIM_VERSION".to_owned(), "there".to_owned());
        let count = self.store.desired.services[&name].members.len();
        for (spec, count) in [(other, count + 1), (live, count)] {
            let mut spec = spec;
            spec.replicas = Some(count as u32);
            let accepted = self.edit(&Edit::put(name.clone(), spec));
            self.checks.expect(Promise::L8, accepted, || format!("a change of {name} at rest is refused"));
            self.run_for(5);
            self.settle();
        }
        let after = self.picture(&name);
        self.checks.expect(Promise::L8, before == after, || format!("before {before:?}, after {after:?}"));
    }

    /// Who of a service lives, where, and as what.
    pub(crate) fn picture(&self, service: &ServiceName) -> Picture {
        let mut picture: Picture = self
            .engine
            .ours()
            .filter(|(_, container)| container.is_alive() && container.owner == Owner::Ours)
            .filter_map(|(_, container)| {
                let name = container.name.as_ref().filter(|name| name.service == *service)?;
                let revision = container.revision.to_string();
                Some((name.service.clone(), name.ordinal, revision, format!("{:?}", container.state)))
            })
            .collect();
        picture.sort();
        picture
    }

    fn is_as_desired(&self) -> bool {
        self.difference().is_none()
    }

    fn why_not(&self) -> String {
        let what = self.difference().unwrap_or_default();
        let actions = self.controller.as_ref().map(|c| format!("{:?}", c.plan.actions)).unwrap_or_default();
        format!("{what}; to be done is {actions}")
    }

    /// What is not as desired, in truth: on the engine, in the data plane, in the status.
    fn difference(&self) -> Option<String> {
        let Some(c) = &self.controller else { return Some("there is no controller".to_owned()) };
        if c.desired != self.store.desired && *c.desired != *self.store.desired {
            return Some("the newest change was not taken up".to_owned());
        }
        for (name, service) in &c.desired.services {
            if service.deleting {
                return Some(format!("{name} is still being deleted"));
            }
            if let Some((_, cursed)) = self.cursed.as_ref().filter(|(service, _)| service == name) {
                match self.difference_of_the_others(name, Ordinal(*cursed)) {
                    None => continue,
                    some => return some,
                }
            }
            let Some(status) = c.statuses.get(name) else { return Some(format!("{name} has no status")) };
            if !status.is_converged() {
                let ServiceStatus { replicas, ready, updated, .. } = status;
                let held = status.conditions.iter().map(|held| format!("{:?} {}", held.kind, held.status));
                return Some(format!(
                    "the status of {name} is not converged: {ready} of {replicas} ready, {updated} updated, {:?}; {}",
                    status.rollout.stage,
                    held.collect::<Vec<_>>().join(", ")
                ));
            }
            for member in &service.members {
                let of_place =
                    |n: &ringmaster_core::ReplicaName| n.service == *name && n.ordinal == member.ordinal;
                let mut alive = self.engine.ours().filter(|(number, container)| {
                    c.world.copies().all(|copy| copy.id != crate::engine::id_of(*number))
                        && container.is_alive()
                        && container.name.as_ref().is_some_and(of_place)
                });
                let (Some((_, one)), None) = (alive.next(), alive.next()) else {
                    return Some(format!(
                        "{name}-{} has none, or several replicas that live",
                        member.ordinal
                    ));
                };
                let revision = c.statuses.get(name).and_then(|status| status.revision.clone());
                let whole = one.state == ReplicaState::Running
                    && one.answers(self.now)
                    && (one.owner == Owner::Impostor || self.is_named(c, one))
                    && Some(one.revision.to_string()) == revision
                    && one.template.as_deref().is_none_or(|template| *template == service.spec.template)
                    && one.host == member.host;
                if !whole {
                    return Some(format!("{name}-{} is not whole: {one:?}", member.ordinal));
                }
                let routed = self
                    .plane
                    .snapshot
                    .endpoints()
                    .any(|e| Some(&e.replica) == one.name.as_ref() && Some(e.address) == one.address);
                if self.plane.is_up(self.now) && !routed {
                    return Some(format!("{name}-{} gets no traffic", member.ordinal));
                }
            }
        }
        let lives_unwanted = |container: &Container| {
            let name = container.name.as_ref()?;
            let service = c.desired.services.get(&name.service)?;
            let known = c.world.replicas().any(|replica| Some(replica.address) == Some(container.address));
            (container.is_alive() && known && !service.has_member(name.ordinal))
                .then(|| format!("{name} lives and is not desired"))
        };
        self.engine.ours().find_map(|(_, container)| lives_unwanted(container))
    }

    /// Whether a replica has its name on the engine. Where somebody renamed it, and another object has taken its name
    /// since, only a person can tell which of them is to have it: enough is done if that it cannot be repaired is told.
    fn is_named(&self, c: &Controller, one: &Container) -> bool {
        let Some(name) = &one.name else { return false };
        let engine_name = name.to_string();
        one.engine_name == engine_name || self.engine.is_taken(&engine_name) && c.world.is_unrepaired(name)
    }

    /// One place is bad for good: all others serve, and it is reported.
    fn difference_of_the_others(&self, name: &ServiceName, cursed: Ordinal) -> Option<String> {
        let status = self.controller.as_ref()?.statuses.get(name)?;
        let degraded = status.condition(ConditionKind::Degraded).is_some_and(|condition| condition.status);
        let service = self.store.desired.services.get(name)?;
        let unserved = service.members.iter().filter(|member| member.ordinal != cursed).find(|member| {
            !status.members.iter().any(|m| m.ordinal == member.ordinal && m.phase == Phase::Ready)
        });
        match unserved {
            Some(member) => Some(format!("{name}-{} does not serve beside a bad one", member.ordinal)),
            None if !degraded => Some(format!("{name} has a bad replica and is not degraded")),
            None => None,
        }
    }

    /// From now on one replica of a service fails for good. False if there is none with others beside it.
    pub(crate) fn curse(&mut self) -> bool {
        let found = self.store.desired.services.iter().find(|(_, service)| {
            service.members.len() > 1 && service.spec.autoscale.is_none() && !service.deleting
        });
        let Some((name, service)) = found else { return false };
        let Some(ordinal) = service.members.last().map(|member| member.ordinal.0) else { return false };
        let name = name.clone();
        let numbers: Vec<u64> = self
            .engine
            .ours()
            .filter(|(_, c)| c.name.as_ref().is_some_and(|n| n.service == name && n.ordinal.0 == ordinal))
            .map(|(number, _)| number)
            .collect();
        // And another one once: it is replaced however long the bad one waits.
        let other = |n: &ringmaster_core::ReplicaName| n.service == name && n.ordinal.0 != ordinal;
        let other = self.engine.ours().find(|(_, c)| c.is_alive() && c.name.as_ref().is_some_and(other));
        if let Some(number) = other.map(|(number, _)| number) {
            let delay = self.jitter(5_000, 20_000);
            self.after(delay, Event::Exits(number));
        }
        self.cursed = Some((name, ordinal));
        for number in numbers {
            self.engine.exit(number, 1, false);
            self.touched(number);
        }
        true
    }
}
