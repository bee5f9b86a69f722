//! What is noted as ready and what is given up, as `controller::reconcile::rollouts` does it, and what must hold of that.

use std::collections::BTreeMap;

use ringmaster_core::desired::{Desired, DesiredService};
use ringmaster_core::observed::{Observed, Replica};
use ringmaster_core::plan::Plan;
use ringmaster_core::rollout::{FailedRelease, Release, Stage, judge};
use ringmaster_core::spec::{Rollback, Strategy, Template};
use ringmaster_core::status::ServiceStatus;
use ringmaster_core::world::Noted;
use ringmaster_core::{Revision, ServiceName, Timestamp};

use crate::controller::Controller;
use crate::event::Event;
use crate::planted::has;
use crate::promise::Promise;
use crate::simulation::Simulation;
use crate::store::Edit;

/// How long it takes until what could not be written is tried again.
pub(crate) const WRITE_AGAIN: u64 = 1_000;

/// Some replicas end within so many milliseconds.
pub(crate) const ENDS_WITHIN: u64 = 1_500;

/// What is wrong with a template, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// What runs it ends after a moment, and never answers.
    Crashes,
    /// What runs it answers, and ends within [`ENDS_WITHIN`].
    EndsSoon,
    /// What runs it never answers.
    Hangs,
    /// There is no such image.
    Missing,
}

impl Flaw {
    pub(crate) const ALL: [Flaw; 4] = [Flaw::Crashes, Flaw::EndsSoon, Flaw::Hangs, Flaw::Missing];
    const VARIABLE: &str = "SIM_BAD";

    /// What is wrong with a template, if something is.
    pub(crate) fn of(template: &Template) -> Option<Flaw> {
        match template.env.get(Flaw::VARIABLE)?.as_str() {
            "crashes" => Some(Flaw::Crashes),
            "ends soon" => Some(Flaw::EndsSoon),
            "hangs" => Some(Flaw::Hangs),
            _ => Some(Flaw::Missing),
        }
    }

    /// Whether its replicas can be told from good ones by a service that asks for `minReady`.
    pub(crate) fn shows(self, strategy: &Strategy) -> bool {
        self != Flaw::EndsSoon || strategy.min_ready.0.as_millis() > u128::from(ENDS_WITHIN)
    }

    /// Whether what runs it ever answers.
    pub(crate) fn answers(self) -> bool {
        self == Flaw::EndsSoon
    }

    /// Makes a template bad.
    pub(crate) fn put_into(self, template: &mut Template) {
        let value = match self {
            Flaw::Crashes => "crashes",
            Flaw::EndsSoon => "ends soon",
            Flaw::Hangs => "hangs",
            Flaw::Missing => "missing",
        };
        template.env.insert(Flaw::VARIABLE.to_owned(), value.to_owned());
    }
}

impl Simulation<'_> {
    /// Takes note of releases that are ready as a whole, and has them written.
    pub(crate) fn note_ready(&mut self, c: &mut Controller, observed: &mut Observed, plan: &Plan) {
        #[cfg(feature = "planted")]
        let distorted = crate::planted::distort_rollouts(self.setting.bug, plan);
        #[cfg(feature = "planted")]
        let plan = distorted.as_ref().unwrap_or(plan);
        for noted in c.world.note_ready(&c.desired, observed, plan) {
            self.check_noted(c, observed, &noted);
            let Some(service) = c.desired.services.get(&noted.service) else { continue };
            self.note(|| format!("{} is ready as a whole at {}", noted.service, noted.release.revision));
            self.store.note_ready(&noted.service, &service.rollout, noted.release);
            if !c.ready_writing {
                c.ready_writing = true;
                let (run, delay) = (self.run, self.jitter(2, 40));
                self.after(delay, Event::WriteReady { run });
            }
        }
    }

    pub(crate) fn on_write_ready(&mut self, run: u32) {
        if run != self.run || self.controller.is_none() {
            return;
        }
        let saving = self.come_to_save();
        if self.store.save_ready(saving) {
            if let Some(c) = &mut self.controller {
                c.ready_writing = false;
            }
        } else {
            self.after(WRITE_AGAIN, Event::WriteReady { run });
        }
    }

    /// Gives up the releases that have failed. Returns when to look again.
    pub(crate) fn judge_rollouts(
        &mut self,
        c: &mut Controller,
        observed: &Observed,
        statuses: &BTreeMap<ServiceName, ServiceStatus>,
    ) -> Option<Timestamp> {
        let judged = judge(&c.desired, observed, statuses);
        if has!(self, NeverGivesUp) {
            return judged.look_at;
        }
        for (name, failed, stable) in judged.failed {
            let stable = if has!(self, GoesBackToTheBad) {
                let revision = failed.revision.clone().unwrap_or_else(|| stable.revision.clone());
                Release { revision, template: failed.template.clone(), ..stable }
            } else {
                stable
            };
            let release = (name.clone(), stable.revision.clone());
            let was_ready = self.ready_releases.contains(&release);
            let is_another = failed.revision.as_ref() != Some(&stable.revision);
            self.checks.expect(Promise::S15, was_ready && is_another, || {
                format!("{name} goes back to {}, which was never ready as a whole", stable.revision)
            });
            if c.giving_up.insert(name.clone()) {
                let (run, delay) = (self.run, self.jitter(2, 40));
                self.note(|| format!("{name} gives up {:?}: {}", failed.revision, failed.why));
                let failed = Box::new((failed, stable));
                self.after(delay, Event::GiveUp { run, name, failed });
            }
        }
        judged.look_at
    }

    /// Whoever watches a canary lets the others follow it, after a while.
    pub(crate) fn promote_canaries(&mut self, statuses: &BTreeMap<ServiceName, ServiceStatus>) {
        for (name, status) in statuses {
            let waits = status.rollout.stage == Stage::AwaitingPromotion;
            let Some(revision) = status.revision.clone().filter(|_| waits) else { continue };
            if self.promoting.insert(name.clone()) {
                let delay = self.jitter(500, 20_000);
                self.after(delay, Event::Edit(Edit::Promote(name.clone(), Revision(revision))));
            }
        }
    }

    pub(crate) fn on_give_up(&mut self, run: u32, name: ServiceName, failed: Box<(FailedRelease, Release)>) {
        if run != self.run || self.controller.is_none() {
            return;
        }
        let edit = Edit::GiveUp(name.clone(), failed);
        let saved = self.edit(&edit);
        let Edit::GiveUp(_, failed) = edit else { return };
        if saved && self.healed_at.is_some() && Flaw::of(&failed.1.template).is_some() {
            // Somebody's container answered for it once: only a person knows better.
            let mut spec = self.spec_of(&name);
            spec.replicas = None; // The live number stays, or the place that is bad on purpose might go with it.
            self.after(1, Event::Edit(Edit::force(name.clone(), spec)));
        }
        let service = self.store.desired.services.get(&name);
        if saved || service.is_none_or(|service| service.rollout.since != failed.0.generation) {
            if let Some(c) = &mut self.controller {
                c.giving_up.remove(&name);
            }
        } else {
            self.after(WRITE_AGAIN, Event::GiveUp { run, name, failed });
        }
    }

    /// A release counts as ready as a whole: every place had a replica of it, and each was ready by the last verdict.
    fn check_noted(&mut self, c: &Controller, observed: &Observed, noted: &Noted) {
        let Some(service) = c.desired.services.get(&noted.service) else { return };
        let revision = &noted.release.revision;
        let is_ready = |replica: &Replica| {
            replica.revision == *revision
                && replica.address.is_some_and(|at| c.verdicts.get(&replica.name) == Some(&(at, true)))
        };
        let missing = service.members.iter().find(|member| {
            let mut of_place = observed.replicas.iter().filter(|replica| {
                replica.name.service == noted.service && replica.name.ordinal == member.ordinal
            });
            !of_place.any(is_ready)
        });
        self.checks.expect(Promise::S15, missing.is_none() && !service.members.is_empty(), || {
            let place = missing.map(|member| member.ordinal);
            format!("{} counts as ready at {revision}, and {place:?} is not", noted.service)
        });
        self.ready_releases.insert((noted.service.clone(), revision.clone()));
    }

    /// Services whose template never becomes ready: those that must go back by themselves, and the others.
    pub(crate) fn bad_services(&self) -> (Vec<ServiceName>, Vec<ServiceName>) {
        let bad = self.store.desired.services.iter();
        let bad = bad.filter(|(_, service)| Flaw::of(&service.spec.template).is_some() && !service.deleting);
        let (own, others): (Vec<_>, Vec<_>) = bad.partition(|(name, service)| self.goes_back(name, service));
        let names =
            |of: Vec<(&ServiceName, &DesiredService)>| of.into_iter().map(|(n, _)| n.clone()).collect();
        (names(own), names(others))
    }

    fn goes_back(&self, name: &ServiceName, service: &DesiredService) -> bool {
        let may = service.spec.strategy.rollback != Rollback::Never && !service.members.is_empty();
        let stable = self.store.stable(name, &service.rollout);
        may && stable.is_some_and(|stable| Flaw::of(&stable.template).is_none())
    }

    /// What was ready when the controller began: what it may go back to.
    pub(crate) fn stable_at_start(&self, c: &mut Controller) {
        if has!(self, ForgetsWhatWasReady) {
            return;
        }
        let Desired { services, .. } = &*c.desired;
        for (name, service) in services {
            if let Some(stable) = self.store.stable(name, &service.rollout) {
                c.world.stable.insert(name.clone(), (service.rollout.noted_from, stable.clone()));
            }
        }
    }
}
