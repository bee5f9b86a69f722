//! Releases as a pass sees them: what a revision stands for, and which were ready as a whole.

use super::World;
use crate::desired::{Desired, DesiredService};
use crate::ids::{Revision, ServiceName};
use crate::observed::Observed;
use crate::plan::Plan;
use crate::rollout::{Release, Stage};
use crate::spec::Template;

/// A release of which every replica is ready.
#[derive(Debug, Clone, PartialEq)]
pub struct Noted {
    /// Of which service.
    pub service: ServiceName,
    /// The release.
    pub release: Release,
    /// It was not the one that was stable before.
    pub is_another: bool,
}

impl World {
    /// The template and the content that a revision of a service stands for, as long as it is wanted or stable.
    pub fn content<'a>(
        &'a self,
        name: &ServiceName,
        service: &'a DesiredService,
        revision: &Revision,
    ) -> Option<(&'a Template, &'a str)> {
        match self.resolutions.content_id(name, revision) {
            Some(content_id) => Some((&service.spec.template, content_id)),
            None => {
                let (_, stable) = self.stable.get(name)?;
                (stable.revision == *revision).then_some((&stable.template, stable.content_id.as_str()))
            }
        }
    }

    /// Takes note of releases that are ready as a whole, in `observed` too. Returns those that were not known.
    pub fn note_ready(&mut self, desired: &Desired, observed: &mut Observed, plan: &Plan) -> Vec<Noted> {
        let mut noted = Vec::new();
        if observed.list_error.is_some() {
            return noted;
        }
        for (name, service) in &desired.services {
            let (progress, stage) = plan.rollouts.get(name).copied().unwrap_or_default();
            let Some(Ok(revision)) = observed.revisions.get(name) else { continue };
            if stage != Stage::Complete || progress.available == 0 {
                continue;
            }
            let Some((template, content_id)) = self.content(name, service, revision) else { continue };
            let (rollout, before) = (&service.rollout, observed.stable.get(name));
            let is_known = before.is_some_and(|before| {
                (&before.revision, before.content_id.as_str(), &before.template)
                    == (revision, content_id, template)
                    && (before.restarted_at, before.generation) == (rollout.restarted_at, rollout.since)
            });
            if is_known {
                continue;
            }
            let release = Release {
                revision: revision.clone(),
                content_id: content_id.to_owned(),
                template: template.clone(),
                restarted_at: rollout.restarted_at,
                generation: rollout.since,
            };
            let is_another = before.is_none_or(|before| before.revision != release.revision);
            observed.stable.insert(name.clone(), release.clone());
            self.stable.insert(name.clone(), (rollout.noted_from, release.clone()));
            noted.push(Noted { service: name.clone(), release, is_another });
        }
        noted
    }
}
