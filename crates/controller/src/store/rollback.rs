//! Back to an earlier template of a service, as a new change like any other.
//!
//! Only the template goes back: how many replicas there are, how requests reach them and how they are replaced stay
//! as they are. Deliberately absent: how the replicas follow. The planner does that, as after an `apply`.

use ringmaster_core::api::{RollbackResponse, TemplateRevision};
use ringmaster_core::desired::DesiredService;
use ringmaster_core::rollout::Release;
use ringmaster_core::spec::Template;
use ringmaster_core::{Generation, ServiceName};
use thiserror::Error;

use super::{Draft, Inner, Store, StoreError};
use crate::state::History;

/// Why a service cannot go back. Nothing was changed.
#[derive(Debug, Error)]
pub enum RollbackError {
    /// It has run one template only, as far as is kept.
    #[error("service `{0}` has run nothing else that is kept: there is nothing to go back to")]
    NoHistory(ServiceName),
    /// The revision that was asked for cannot be gone back to.
    #[error(
        "revision {revision} {why}: `ringmaster rollout history {service}` lists those that `{service}` can go back to"
    )]
    Unusable {
        /// Of which service.
        service: ServiceName,
        /// Which one.
        revision: Generation,
        /// What is wrong with it, as a clause.
        why: String,
    },
    /// A revision that may hold the template before the one in force cannot be read.
    #[error(
        "revision {revision} {why}, and may hold what `{service}` ran before: name the revision to go back to with \
         --to-revision"
    )]
    Lost {
        /// Of which service.
        service: ServiceName,
        /// Which one.
        revision: Generation,
        /// What is wrong with it, as a clause.
        why: String,
    },
    /// Not every replica of it was ever ready.
    #[error(
        "revision {revision} of `{service}` was never ready as a whole: `ringmaster rollout history {service}` lists those \
         that were; apply its manifest to try it again"
    )]
    NeverReady {
        /// Of which service.
        service: ServiceName,
        /// Which one.
        revision: Generation,
    },
    /// It is what the service runs.
    #[error("service `{service}` runs the template of revision {revision} already")]
    Current {
        /// Which service.
        service: ServiceName,
        /// The revision that was asked for.
        revision: Generation,
    },
}

impl Store {
    /// The templates that a service has had.
    ///
    /// # Errors
    /// An unknown service, or a state folder that cannot be read.
    pub fn history(&self, name: &ServiceName) -> Result<History, StoreError> {
        let inner = self.lock();
        match inner.desired.services.get(name) {
            Some(service) if service.deleting => return Err(StoreError::Deleting(name.clone())),
            Some(_) => {}
            None => return Err(StoreError::UnknownService(name.clone())),
        }
        self.noted_history(&inner, name)
    }

    /// The history of a service that is there, with what is known of who was ready.
    fn noted_history(&self, inner: &Inner, name: &ServiceName) -> Result<History, StoreError> {
        let mut history = inner.state.history(name, inner.desired.generation)?;
        let Some(service) = inner.desired.services.get(name) else { return Ok(history) };
        let ready = self.ready.of(name, &service.rollout);
        for revision in &mut history.revisions {
            revision.ready = was_ready(service, &ready, &revision.template, revision.revision);
        }
        Ok(history)
    }

    /// Makes an earlier template the one in force: that of a revision, or the one before.
    ///
    /// # Errors
    /// An unknown service, [`RollbackError`], or state that cannot be saved.
    pub fn rollback(
        &self,
        name: &ServiceName,
        revision: Option<Generation>,
    ) -> Result<RollbackResponse, StoreError> {
        let mut inner = self.lock();
        let mut draft = inner.draft();
        let service = draft.service(name)?;
        let ready = self.ready.of(name, &service.rollout);
        let stable = ready.last().filter(|_| service.is_under_way(ready.last()));
        let mut restarted_at = service.rollout.restarted_at;
        let (revision, template) = match (revision, stable) {
            (Some(revision), _) => {
                let unusable = |why| RollbackError::Unusable { service: name.clone(), revision, why };
                let known = revision <= inner.desired.generation;
                let template =
                    if known { inner.state.template(name, revision) } else { Err("is not there".to_owned()) };
                let template = template.map_err(unusable)?;
                if template != service.spec.template
                    && was_ready(service, &ready, &template, revision) == Some(false)
                {
                    return Err(RollbackError::NeverReady { service: name.clone(), revision }.into());
                }
                (revision, template)
            }
            // In the middle of a rollout: back to where it began.
            (None, Some(stable)) => {
                restarted_at = stable.restarted_at;
                (stable.generation, stable.template.clone())
            }
            (None, None) => {
                let found = before(name, self.noted_history(&inner, name)?)?;
                (found.revision, found.template)
            }
        };
        let next = draft.desired.generation.next();
        let service = draft.live_mut(name)?;
        if service.spec.template == template && service.rollout.restarted_at == restarted_at {
            return Err(RollbackError::Current { service: name.clone(), revision }.into());
        }
        let runs = template.runs();
        service.spec.template = template;
        service.rollout.begin(next);
        service.rollout.restarted_at = restarted_at;
        // Whoever goes back wants it to happen.
        service.rollout.paused = false;
        service.generation = next;
        draft.check()?;
        draft.desired.generation = next;
        inner.commit(draft, &self.published)?;
        Ok(RollbackResponse { generation: next, revision, runs })
    }
}

/// Whether a template was ready as a whole; none if that is not known.
fn was_ready(
    service: &DesiredService,
    ready: &[Release],
    template: &Template,
    revision: Generation,
) -> Option<bool> {
    let noted = ready.iter().any(|release| release.template == *template);
    (noted || revision >= service.rollout.noted_from).then_some(noted)
}

impl Draft {
    pub(super) fn live_mut(&mut self, name: &ServiceName) -> Result<&mut DesiredService, StoreError> {
        self.service(name)?;
        self.desired.services.get_mut(name).ok_or_else(|| StoreError::UnknownService(name.clone()))
    }
}

/// The template before the one in force.
fn before(name: &ServiceName, mut history: History) -> Result<TemplateRevision, RollbackError> {
    let found = history.previous().map(|found| found.revision);
    // What is lost may hold a later template than the one that was found.
    if let Some((revision, why)) =
        history.lost.pop().filter(|(lost, _)| found.is_none_or(|found| *lost > found))
    {
        return Err(RollbackError::Lost { service: name.clone(), revision, why });
    }
    history.previous().cloned().ok_or_else(|| RollbackError::NoHistory(name.clone()))
}
