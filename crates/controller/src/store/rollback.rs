//! Back to an earlier template of a service, as a new change like any other.
//!
//! Only the template goes back: how many replicas there are, how requests reach them and how they are replaced stay
//! as they are. Deliberately absent: how the replicas follow. The planner does that, as after an `apply`.

use ringmaster_core::api::{RollbackResponse, TemplateRevision};
use ringmaster_core::desired::DesiredService;
use ringmaster_core::{Generation, ServiceName};
use thiserror::Error;

use super::{Draft, Store, StoreError};
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
        Ok(inner.state.history(name, inner.desired.generation)?)
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
        draft.service(name)?;
        let (revision, template) = match revision {
            Some(revision) => {
                let unusable = |why| RollbackError::Unusable { service: name.clone(), revision, why };
                let known = revision <= inner.desired.generation;
                let template =
                    if known { inner.state.template(name, revision) } else { Err("is not there".to_owned()) };
                (revision, template.map_err(unusable)?)
            }
            None => {
                let found = before(name, inner.state.history(name, inner.desired.generation)?)?;
                (found.revision, found.template)
            }
        };
        let next = draft.desired.generation.next();
        let service = draft.live_mut(name)?;
        if service.spec.template == template {
            return Err(RollbackError::Current { service: name.clone(), revision }.into());
        }
        let runs = template.runs();
        service.spec.template = template;
        service.generation = next;
        draft.check()?;
        draft.desired.generation = next;
        inner.commit(draft, &self.published)?;
        Ok(RollbackResponse { generation: next, revision, runs })
    }
}

impl Draft {
    fn live_mut(&mut self, name: &ServiceName) -> Result<&mut DesiredService, StoreError> {
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
