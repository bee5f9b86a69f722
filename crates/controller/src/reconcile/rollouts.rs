//! Rollouts as the loop sees them: what is ready as a whole is noted, what has failed is given up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringmaster_core::desired::Desired;
use ringmaster_core::observed::Observed;
use ringmaster_core::plan::Plan;
use ringmaster_core::rollout::{FailedRelease, Release, Stage, judge};
use ringmaster_core::status::ServiceStatus;
use ringmaster_core::world::Noted;
use ringmaster_core::{Generation, Reason, ServiceName, Timestamp};

use super::Reconciler;
use super::tasks::Done;
use crate::figures;
use crate::state::StateError;
use crate::store::StoreError;

impl Reconciler {
    /// Takes note of releases that are ready as a whole, before anybody is told so: whoever hears of it may change the
    /// template at once.
    pub(super) fn note_ready(&mut self, desired: &Desired, observed: &mut Observed, plan: &Plan) {
        for Noted { service: name, release, is_another } in self.world.note_ready(desired, observed, plan) {
            if is_another {
                let message = format!("every replica is of revision {}, and ready", release.revision);
                self.timeline.normal(Some(&name), "service", Reason::RolloutComplete, message);
                figures::rollout_ended(&name, "complete");
            }
            let Some(service) = desired.services.get(&name) else { continue };
            self.store.note_ready(&name, &service.rollout, release);
            self.ready_unwritten = true;
        }
    }

    /// Writes what was ready, beside the loop: it waits for the disk.
    pub(super) fn write_ready(&mut self) {
        if !self.ready_unwritten || !self.ready_writes.begin() {
            return;
        }
        self.ready_unwritten = false;
        let store = Arc::clone(&self.store);
        self.tasks.spawn_blocking(move || Done::ReadyWritten(store.save_ready()));
    }

    pub(super) fn on_ready_written(&mut self, result: Result<(), StateError>) {
        self.ready_writes.ended(result.is_ok());
        if let Err(error) = result {
            self.ready_unwritten = true;
            self.timeline.warning(None, "state", Reason::StateNotWritten, error.to_string());
        }
    }

    /// Tells how rollouts go on, and gives up those that have failed. Returns when to look again.
    pub(super) fn judge_rollouts(
        &mut self,
        desired: &Desired,
        observed: &Observed,
        before: &BTreeMap<ServiceName, ServiceStatus>,
        now: &BTreeMap<ServiceName, ServiceStatus>,
    ) -> Option<Timestamp> {
        for name in desired.services.keys() {
            let Some(status) = now.get(name) else { continue };
            self.tell_stage(name, before.get(name), status);
        }
        let mut judged = judge(desired, observed, now);
        // Whoever got ready while no daemon ran is judged before the rollout is.
        judged.failed.retain(|(name, ..)| self.memory.recollection.get(name).is_none());
        let failing: BTreeSet<ServiceName> = judged.failed.iter().map(|(name, ..)| name.clone()).collect();
        for (name, failed, stable) in judged.failed {
            self.give_up(name, failed, stable);
        }
        // What need not be given up any more is not tried again.
        self.giving_up.retain(|name, writing| writing.is_running() || failing.contains(name));
        judged.look_at
    }

    fn tell_stage(&self, name: &ServiceName, before: Option<&ServiceStatus>, status: &ServiceStatus) {
        let now = &status.rollout;
        let Some(stable) = &now.stable else { return };
        let Some(revision) = status.revision.as_ref().filter(|revision| **revision != stable.revision) else {
            return;
        };
        // What a daemon finds under way at its start is not news.
        let Some(before) = before else { return };
        let is_new = before.revision.as_ref() != Some(revision);
        if is_new {
            let message = format!("from revision {} to {revision}", stable.revision);
            self.timeline.normal(Some(name), "service", Reason::RolloutStarted, message);
        }
        if now.stage == Stage::AwaitingPromotion && (is_new || before.rollout.stage != now.stage) {
            let message = format!(
                "{} of {} replicas are of revision {revision} and ready: `ringmaster rollout promote {name}` lets the \
                 others follow, `ringmaster rollout undo {name}` goes back",
                now.available, status.replicas
            );
            self.timeline.normal(Some(name), "service", Reason::RolloutAwaitsPromotion, message);
        }
    }

    fn give_up(&mut self, service: ServiceName, failed: FailedRelease, stable: Release) {
        if !self.giving_up.entry(service.clone()).or_default().begin() {
            return;
        }
        let store = Arc::clone(&self.store);
        self.tasks.spawn_blocking(move || {
            let (back_to, why) = (stable.generation, failed.why.clone());
            let result = store.give_up(&service, failed, &stable);
            Done::GivenUp { service, why, back_to, result }
        });
    }

    pub(super) fn on_given_up(
        &mut self,
        service: &ServiceName,
        why: &str,
        back_to: Generation,
        result: Result<Option<Generation>, StoreError>,
    ) {
        match &result {
            Ok(_) => drop(self.giving_up.remove(service)),
            Err(_) => self.giving_up.entry(service.clone()).or_default().ended(false),
        }
        match result {
            Ok(Some(generation)) => {
                figures::rollout_ended(service, "rolledBack");
                let message = format!("back to revision {back_to} because {why}, generation {generation}");
                self.timeline.warning(Some(service), "service", Reason::RolledBack, message);
            }
            // Something else is wanted by now.
            Ok(None) => {}
            Err(error) => {
                let message = format!("{service} cannot go back to revision {back_to}: {error}");
                self.timeline.warning(Some(service), "service", Reason::StateNotWritten, message);
            }
        }
    }
}
