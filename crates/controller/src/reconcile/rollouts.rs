//! Rollouts as the loop sees them: what is ready as a whole is noted, what has failed is given up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringmaster_core::desired::{Desired, DesiredService};
use ringmaster_core::observed::Observed;
use ringmaster_core::plan::Plan;
use ringmaster_core::rollout::{FailedRelease, Release, Stage, failure};
use ringmaster_core::spec::Template;
use ringmaster_core::status::ServiceStatus;
use ringmaster_core::{Generation, Reason, Revision, ServiceName, Timestamp};

use super::Reconciler;
use super::tasks::Done;
use crate::figures;
use crate::state::StateError;
use crate::store::StoreError;

impl Reconciler {
    /// Takes note of releases that are ready as a whole, before anybody is told so: whoever hears of it may change the
    /// template at once.
    pub(super) fn note_ready(&mut self, desired: &Desired, observed: &mut Observed, plan: &Plan) {
        if observed.list_error.is_some() {
            return;
        }
        for (name, service) in &desired.services {
            let (progress, stage) = plan.rollouts.get(name).copied().unwrap_or_default();
            let Some(Ok(revision)) = observed.revisions.get(name) else { continue };
            if stage != Stage::Complete || progress.available == 0 {
                continue;
            }
            let Some((template, content_id)) = self.content(name, service, revision) else { continue };
            let release = Release {
                revision: revision.clone(),
                content_id,
                template,
                restarted_at: service.rollout.restarted_at,
                generation: service.rollout.since,
            };
            let before = observed.stable.insert(name.clone(), release.clone());
            if before.as_ref() == Some(&release) {
                continue;
            }
            if before.is_none_or(|before| before.revision != release.revision) {
                let message = format!("every replica is of revision {revision}, and ready");
                self.timeline.normal(Some(name), "service", Reason::RolloutComplete, message);
                figures::rollout_ended(name, "complete");
            }
            self.world.stable.insert(name.clone(), (service.rollout.noted_from, release.clone()));
            self.store.note_ready(name, &service.rollout, release);
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
        let (mut look_at, mut failing) = (Vec::new(), BTreeSet::new());
        for (name, service) in &desired.services {
            let Some(status) = now.get(name) else { continue };
            self.tell_stage(name, before.get(name), status);
            let stage = status.rollout.stage;
            if stage == Stage::Progressing {
                look_at.push(status.progressed_at.after(service.spec.strategy.progress_deadline.0));
            }
            if self.memory.recollection.get(name).is_some() {
                continue; // Whoever got ready while no daemon ran is judged before the rollout is.
            }
            let stalled_for = observed.now.since(status.progressed_at);
            if let Some(why) = failure(name, service, observed, stage, stalled_for) {
                self.give_up(name, service, observed, why);
                failing.insert(name.clone());
            }
        }
        // What need not be given up any more is not tried again.
        self.giving_up.retain(|name, writing| writing.is_running() || failing.contains(name));
        look_at.into_iter().filter(|at| *at > observed.now).min()
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

    fn give_up(&mut self, name: &ServiceName, service: &DesiredService, observed: &Observed, why: String) {
        let Some(stable) = observed.stable.get(name).cloned() else { return };
        if !self.giving_up.entry(name.clone()).or_default().begin() {
            return;
        }
        let failed = FailedRelease {
            revision: observed.revisions.get(name).and_then(|revision| revision.as_ref().ok()).cloned(),
            template: service.spec.template.clone(),
            generation: service.rollout.since,
            at: observed.now,
            why: why.clone(),
            // The store knows which it will be.
            given_up_in: Generation::default(),
            back_to: stable.generation,
        };
        let (store, service) = (Arc::clone(&self.store), name.clone());
        self.tasks.spawn_blocking(move || {
            let (back_to, result) = (stable.generation, store.give_up(&service, failed, &stable));
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

    /// The template and the content that a revision of a service stands for, as long as it is wanted or stable.
    pub(super) fn content(
        &self,
        name: &ServiceName,
        service: &DesiredService,
        revision: &Revision,
    ) -> Option<(Template, String)> {
        match self.world.resolutions.content_id(name, revision) {
            Some(content_id) => Some((service.spec.template.clone(), content_id.to_owned())),
            None => {
                let (_, stable) = self.world.stable.get(name)?;
                (stable.revision == *revision).then(|| (stable.template.clone(), stable.content_id.clone()))
            }
        }
    }
}
