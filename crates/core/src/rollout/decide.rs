//! What is decided about a release: whether a template may be taken up, and that one is given up.

use std::collections::BTreeMap;

use super::{FailedRelease, Release, Stage, failure};
use crate::Timestamp;
use crate::desired::{Desired, DesiredService};
use crate::ids::{Generation, ServiceName};
use crate::observed::Observed;
use crate::spec::Template;
use crate::status::ServiceStatus;

/// Why a service may not take up a template, unless that is insisted upon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TemplateRefused<'a> {
    /// Another template is on its way.
    UnderWay,
    /// The template has failed before.
    FailedBefore(&'a FailedRelease),
}

/// What a pass finds out about rollouts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judged {
    /// The releases that have failed, and what each service goes back to.
    pub failed: Vec<(ServiceName, FailedRelease, Release)>,
    /// When to look again although nothing happens.
    pub look_at: Option<Timestamp>,
}

/// Which rollouts have failed by now, and when the next may have.
pub fn judge(
    desired: &Desired,
    observed: &Observed,
    statuses: &BTreeMap<ServiceName, ServiceStatus>,
) -> Judged {
    let mut judged = Judged::default();
    let mut look_at = Vec::new();
    for (name, service) in &desired.services {
        let Some(status) = statuses.get(name) else { continue };
        let stage = status.rollout.stage;
        if stage == Stage::Progressing {
            look_at.push(status.progressed_at.after(service.spec.strategy.progress_deadline.0));
        }
        let stalled_for = observed.now.since(status.progressed_at);
        let Some(why) = failure(name, service, observed, stage, stalled_for) else { continue };
        let Some(stable) = observed.stable.get(name) else { continue };
        let failed = FailedRelease {
            revision: observed.revisions.get(name).and_then(|revision| revision.as_ref().ok()).cloned(),
            template: service.spec.template.clone(),
            generation: service.rollout.since,
            at: observed.now,
            why,
            // Whoever gives it up knows which it will be.
            given_up_in: Generation::default(),
            back_to: stable.generation,
        };
        judged.failed.push((name.clone(), failed, stable.clone()));
    }
    judged.look_at = look_at.into_iter().filter(|at| *at > observed.now).min();
    judged
}

impl DesiredService {
    /// Whether it is on its way from its stable release to another.
    pub fn is_under_way(&self, stable: Option<&Release>) -> bool {
        let differs = |stable: &Release| {
            stable.template != self.spec.template || stable.restarted_at != self.rollout.restarted_at
        };
        !self.members.is_empty() && stable.is_some_and(differs)
    }

    /// Whether it may take up `template`, unless that is insisted upon.
    ///
    /// # Errors
    /// Why not.
    pub fn check_template(
        &self,
        template: &Template,
        stable: Option<&Release>,
    ) -> Result<(), TemplateRefused<'_>> {
        if self.spec.template == *template {
            return Ok(());
        }
        if let Some(failed) = self.rollout.failed.as_ref().filter(|failed| failed.template == *template) {
            return Err(TemplateRefused::FailedBefore(failed));
        }
        // Back to what is stable is always possible.
        let goes_back = stable.is_some_and(|stable| stable.template == *template);
        match self.is_under_way(stable) && !goes_back {
            true => Err(TemplateRefused::UnderWay),
            false => Ok(()),
        }
    }

    /// Gives up the release that it is on its way to, as generation `next`: back to `stable`. False, and nothing is
    /// changed, if it wants another one by now.
    pub fn give_up(&mut self, failed: FailedRelease, stable: &Release, next: Generation) -> bool {
        if self.deleting || self.rollout.since != failed.generation || self.spec.template != failed.template {
            return false;
        }
        self.spec.template = stable.template.clone();
        self.rollout.begin(next);
        self.rollout.restarted_at = stable.restarted_at;
        self.rollout.failed = Some(FailedRelease { given_up_in: next, ..failed });
        self.generation = next;
        true
    }
}
