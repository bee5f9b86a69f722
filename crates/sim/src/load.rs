//! Services whose count follows their load: the load, requests that wait for a replica, and the counts that are set, as
//! `controller::reconcile::autoscale` sets them.

use std::sync::Arc;

use ringmaster_core::autoscale::{Decided, SetCount};
use ringmaster_core::desired::DesiredService;
use ringmaster_core::observed::{Observed, Replica};
use ringmaster_core::plan::Plan;
use ringmaster_core::snapshot::{Hold, ServiceRouting};
use ringmaster_core::spec::Autoscale;
use ringmaster_core::{Reason, ReplicaName, ServiceName, Timestamp};

use crate::controller::Controller;
use crate::event::Event;
use crate::promise::Promise;
use crate::rollouts::Flaw;
use crate::simulation::Simulation;
use crate::store::Edit;

/// Time between two batches of requests.
pub(crate) const LOAD_PERIOD: u64 = 1_000;

/// A request that waits for a replica.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    number: u64,
    pub(crate) service: ServiceName,
    /// It came while everything worked.
    is_promised: bool,
}

impl Simulation<'_> {
    /// A batch of requests for each service whose count follows its load.
    pub(crate) fn on_load(&mut self) {
        if self.healed_at.is_none() {
            self.after(LOAD_PERIOD, Event::Load);
        }
        if !self.plane.is_up(self.now) || !self.is_loaded {
            return;
        }
        let snapshot = Arc::clone(&self.plane.snapshot);
        for (name, routing) in snapshot.services.iter().filter(|(_, routing)| routing.demand.is_some()) {
            let Some(most) = self.load_max(name) else { continue };
            let level = self.levels.get(name).copied().unwrap_or_default();
            let level = match self.random.below(10) {
                0 => 0,
                1 => self.random.below(u64::from(most) + 1) as u32,
                _ => level,
            };
            self.levels.insert(name.clone(), level);
            self.load_one(name, routing, level);
        }
    }

    /// More requests at a time than the most replicas should have.
    fn load_max(&self, name: &ServiceName) -> Option<u32> {
        let spec = self.setting.services.get(name)?.autoscale.as_ref()?;
        Some((spec.target_in_flight.unwrap_or(1) * (spec.max_replicas + 1)).min(64))
    }

    fn load_one(&mut self, name: &ServiceName, routing: &ServiceRouting, level: u32) {
        let count = routing.endpoints.len() as u32;
        if count == 0 {
            let hold = routing.demand.and_then(|demand| demand.hold).filter(|_| level > 0);
            if let Some(hold) = hold {
                self.hold(name, hold, false);
            }
            return;
        }
        for (nth, endpoint) in routing.endpoints.values().enumerate() {
            let share = level / count + u32::from((nth as u32) < level % count);
            let takes = self.jitter(LOAD_PERIOD - 200, LOAD_PERIOD + 200);
            self.requests_for(endpoint.replica.clone(), share, takes);
        }
    }

    /// A request waits for a replica, unless too many do.
    pub(crate) fn hold(&mut self, service: &ServiceName, hold: Hold, is_promised: bool) {
        let waiting = self.plane.waiting_for(service);
        if waiting >= hold.max {
            return;
        }
        self.plane.held_so_far += 1;
        let number = self.plane.held_so_far;
        self.plane.held.push(Held { number, service: service.clone(), is_promised });
        self.note(|| format!("a request of {service} waits"));
        self.after(hold.timeout.0.as_millis() as u64, Event::HoldEnds { number });
        self.report_soon();
    }

    /// A request has waited for as long as it may: it gets 503.
    pub(crate) fn on_hold_ends(&mut self, number: u64) {
        let Some(index) = self.plane.held.iter().position(|held| held.number == number) else { return };
        let held = self.plane.held.remove(index);
        *self.plane.responses.entry(held.service.clone()).or_default() += 1;
        if held.is_promised {
            let why = format!("a request of {} waits in vain, although all works", held.service);
            self.checks.expect(Promise::L9, false, || why);
        }
        self.report_soon();
    }

    /// Requests that waited go to whoever serves now.
    pub(crate) fn release_held(&mut self) {
        if self.plane.held.is_empty() {
            return;
        }
        for held in std::mem::take(&mut self.plane.held) {
            let routing = self.plane.snapshot.services.get(&held.service);
            match routing.and_then(|routing| routing.endpoints.values().next()).map(|e| e.replica.clone()) {
                None => self.plane.held.push(held),
                Some(name) => {
                    if held.is_promised {
                        self.checks.expect(Promise::L9, true, String::new);
                    }
                    let takes = self.jitter(2, 300);
                    self.requests_for(name, 1, takes);
                }
            }
        }
    }

    fn requests_for(&mut self, name: ReplicaName, count: u32, takes: u64) {
        *self.plane.responses.entry(name.service.clone()).or_default() += u64::from(count);
        for _ in 0..count {
            self.plane.begin(&name);
        }
        if count > 0 {
            let life = self.plane.life;
            self.after(takes, Event::RequestEnds { life, name, count });
            self.report_soon();
        }
    }

    // --- counts ---------------------------------------------------------------------------------------------

    /// Decides about counts, and has them set. Returns when to decide again.
    pub(crate) fn autoscale(
        &mut self,
        c: &mut Controller,
        observed: &Observed,
        plan: &Plan,
        now: Timestamp,
    ) -> Option<Timestamp> {
        #[cfg_attr(not(feature = "planted"), expect(unused_mut, reason = "a bug on purpose changes it"))]
        for mut decided in c.scaling.decide(&c.desired, plan, now) {
            #[cfg(feature = "planted")]
            crate::planted::distort_count(self.setting.bug, &mut decided);
            self.check_count(c, observed, &decided, now);
            if decided.is_to_set {
                let (run, delay) = (self.run, self.jitter(2, 40));
                self.note(|| {
                    format!("{}: {} replicas: {}", decided.service, decided.now.wanted, decided.now.message)
                });
                self.after(delay, Event::SetCount { run, decided: Box::new(decided) });
            }
        }
        c.scaling.wake_at()
    }

    pub(crate) fn on_set_count(&mut self, run: u32, decided: &Decided) {
        if run != self.run || self.controller.is_none() {
            return;
        }
        let (name, to) = (&decided.service, decided.now.wanted);
        let as_decided = |service: &DesiredService| {
            let allowed = service.spec.autoscale.as_ref().is_some_and(|spec| spec.allows(to));
            allowed && !service.deleting && service.members.len() == decided.from as usize
        };
        let outcome = match self.store.desired.services.get(name).is_some_and(as_decided) {
            false => SetCount::Overtaken,
            true => match self.edit(&Edit::Autoscale(name.clone(), to as usize)) {
                true => SetCount::Done,
                false => SetCount::Failed,
            },
        };
        let now = self.now;
        let Some(c) = &mut self.controller else { return };
        let at = c.clock(now);
        c.scaling.scaled(name, decided.from, to, outcome, at);
        self.wake(run);
    }

    /// A count stays within its bounds, goes down only when the last step down is over, and one window after it went up.
    fn check_count(&mut self, c: &mut Controller, observed: &Observed, decided: &Decided, now: Timestamp) {
        let (name, from, to) = (&decided.service, decided.from, decided.now.wanted);
        let Some(service) = c.desired.services.get(name) else { return };
        let Some(spec) = &service.spec.autoscale else { return };
        if !decided.is_to_set {
            return;
        }
        self.checks.expect(Promise::S19, spec.allows(to), || format!("{name} is to have {to} replicas"));
        if to > from {
            c.raised_at.insert(name.clone(), now);
        }
        if to >= from || !spec.allows(from) {
            return;
        }
        let leaves = |replica: &&Replica| {
            replica.name.service == *name
                && matches!(replica.state, ringmaster_core::observed::ReplicaState::Running)
                && !service.has_member(replica.name.ordinal)
        };
        let leaving = observed.replicas.iter().find(leaves);
        self.checks.expect(Promise::S19, leaving.is_none(), || {
            let leaving = leaving.map(|replica| replica.name.to_string()).unwrap_or_default();
            format!("{name} goes from {from} to {to} while {leaving} still has requests")
        });
        if decided.now.reason != Reason::ScaledToZero {
            let up = c.raised_at.get(name).copied();
            let rested = up.is_none_or(|up| now.since(up) >= spec.scale_down_window.0);
            self.checks.expect(Promise::S20, rested, || {
                format!("{name} goes from {from} to {to} within its window after it went up")
            });
        }
    }

    // --- when all works -------------------------------------------------------------------------------------

    /// For how long counts may still go down although nothing happens, in milliseconds.
    pub(crate) fn windows(&self) -> u64 {
        let scaled = self.setting.services.values().filter_map(|spec| spec.autoscale.as_ref());
        let of = |spec: &Autoscale| spec.scale_down_window.0 + spec.idle_after.0;
        scaled.map(of).max().map_or(0, |window| window.as_millis() as u64)
    }

    /// Requests to services at zero: each is answered.
    pub(crate) fn wake_the_idle(&mut self) {
        let idle: Vec<(ServiceName, Hold)> = self
            .plane
            .snapshot
            .services
            .iter()
            .filter_map(|(name, routing)| {
                let hold = routing.demand?.hold?;
                let service = self.store.desired.services.get(name)?;
                let sleeps = service.members.is_empty() && !service.deleting && routing.endpoints.is_empty();
                (sleeps && Flaw::of(&service.spec.template).is_none()).then(|| (name.clone(), hold))
            })
            .collect();
        if !self.plane.is_up(self.now) {
            return;
        }
        for (name, hold) in idle {
            self.hold(&name, hold, true);
            self.run_for(hold.timeout.0.as_millis() as u64 + 1);
        }
    }
}
