//! What people and the loop decide about rollouts: hold, go on, promote, restart, give up. And what a change of the
//! template meets: a rollout that is under way, or a template that has failed.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ringmaster_core::api::{RolloutAction, RolloutResponse};
use ringmaster_core::rollout::{FailedRelease, Ready, Release, Rollout, TemplateRefused};
use ringmaster_core::spec::ServiceSpec;
use ringmaster_core::{Generation, Revision, ServiceName, Timestamp};
use thiserror::Error;

use super::{Draft, Store, StoreError};
use crate::state::{StateError, save_ready};

/// Why a rollout cannot begin, or not be changed so. Nothing was changed.
#[derive(Debug, Error)]
pub enum RolloutError {
    /// Another template is on its way.
    #[error(
        "a rollout of `{0}` is under way: wait for it (`ringmaster rollout status {0}`), go back (`ringmaster rollout \
         undo {0}`), or replace it (`ringmaster apply --force`)"
    )]
    UnderWay(ServiceName),
    /// The template has failed before.
    #[error(
        "this template of `{service}` was given up when it was revision {generation} ({why}), and the service went back \
         to revision {back_to}: change the template, or try it again (`ringmaster apply --force`)"
    )]
    FailedBefore {
        /// Of which service.
        service: ServiceName,
        /// When it was wanted.
        generation: Generation,
        /// Why it was given up.
        why: String,
        /// What the service went back to.
        back_to: Generation,
    },
    /// It is held already.
    #[error("rollouts of `{0}` are paused already: `ringmaster rollout resume {0}` lets them go on")]
    Paused(ServiceName),
    /// It is held, and what was asked for would begin another.
    #[error("rollouts of `{0}` are paused: `ringmaster rollout resume {0}` first")]
    Held(ServiceName),
    /// It is not held.
    #[error("rollouts of `{0}` are not paused: there is nothing to resume")]
    NotPaused(ServiceName),
    /// There is no canary.
    #[error(
        "no canary of `{0}` waits for promotion: `ringmaster rollout status {0}` tells how far its rollout is"
    )]
    NoCanary(ServiceName),
}

/// The releases that were ready, and their file.
#[derive(Debug)]
pub(super) struct ReadyFile {
    path: PathBuf,
    known: Mutex<Ready>,
    /// Held while the file is written, never together with anything that the loop waits for.
    writing: Mutex<()>,
}

impl ReadyFile {
    pub(super) fn new(path: PathBuf, known: Ready) -> ReadyFile {
        ReadyFile { path, known: Mutex::new(known), writing: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Ready> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The releases of a service in its present life, by when they were ready last.
    pub(super) fn of(&self, name: &ServiceName, rollout: &Rollout) -> Vec<Release> {
        self.known().of(name, rollout).to_vec()
    }

    /// The stable release of a service.
    pub(super) fn stable(&self, name: &ServiceName, rollout: &Rollout) -> Option<Release> {
        self.known().stable(name, rollout).cloned()
    }
}

impl RolloutError {
    fn of(name: &ServiceName, refused: TemplateRefused<'_>) -> RolloutError {
        match refused {
            TemplateRefused::UnderWay => RolloutError::UnderWay(name.clone()),
            TemplateRefused::FailedBefore(failed) => RolloutError::FailedBefore {
                service: name.clone(),
                generation: failed.generation,
                why: failed.why.clone(),
                back_to: failed.back_to,
            },
        }
    }
}

impl Store {
    /// Whether what a manifest says of a service may be taken up.
    pub(super) fn check_rollout(
        &self,
        draft: &Draft,
        name: &ServiceName,
        spec: &ServiceSpec,
        force: bool,
    ) -> Result<(), StoreError> {
        let live = draft.desired.services.get(name).filter(|service| !service.deleting && !force);
        let Some(service) = live else { return Ok(()) };
        let stable = self.ready.stable(name, &service.rollout);
        let checked = service.check_template(&spec.template, stable.as_ref());
        Ok(checked.map_err(|refused| RolloutError::of(name, refused))?)
    }

    /// The last release of a service of which every replica was ready.
    pub fn stable(&self, name: &ServiceName, rollout: &Rollout) -> Option<Release> {
        self.ready.stable(name, rollout)
    }

    /// Takes note that every replica of a service is of this release, and ready. [`Store::save_ready`] writes it.
    pub fn note_ready(&self, name: &ServiceName, rollout: &Rollout, release: Release) {
        self.ready.known().note(name, rollout, release);
    }

    /// Writes what was ready. Waits for the disk.
    ///
    /// # Errors
    /// The operation that failed: what was noted counts until the daemon ends, and is seen again then.
    pub fn save_ready(&self) -> Result<(), StateError> {
        let _alone = self.ready.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let desired = self.desired();
        let known = {
            let mut known = self.ready.known();
            known.0.retain(|name, _| desired.services.contains_key(name));
            known.clone()
        };
        save_ready(&self.ready.path, &known)
    }

    /// Holds a rollout, lets it go on, promotes its canary, or begins one without another template. `rolling` is the
    /// revision that the service is on its way to, as far as was seen: content alone may have changed.
    ///
    /// # Errors
    /// An unknown service, [`RolloutError`], or state that cannot be saved.
    pub fn rollout(
        &self,
        name: &ServiceName,
        action: RolloutAction,
        now: Timestamp,
        rolling: Option<Revision>,
    ) -> Result<RolloutResponse, StoreError> {
        let mut inner = self.lock();
        let mut draft = inner.draft();
        let next = draft.desired.generation.next();
        let service = draft.live_mut(name)?;
        let stable = self.ready.stable(name, &service.rollout);
        let under_way = service.is_under_way(stable.as_ref()) || rolling.is_some();
        let has_canary = service.spec.strategy.canary.is_some();
        let canary =
            rolling.filter(|revision| has_canary && service.rollout.promoted.as_ref() != Some(revision));
        let rollout = &mut service.rollout;
        match action {
            RolloutAction::Pause if rollout.paused => return Err(RolloutError::Paused(name.clone()).into()),
            RolloutAction::Pause => rollout.paused = true,
            RolloutAction::Resume if !rollout.paused => {
                return Err(RolloutError::NotPaused(name.clone()).into());
            }
            RolloutAction::Resume => rollout.paused = false,
            RolloutAction::Promote if canary.is_none() => {
                return Err(RolloutError::NoCanary(name.clone()).into());
            }
            RolloutAction::Promote => rollout.promoted = canary,
            RolloutAction::Restart if rollout.paused => return Err(RolloutError::Held(name.clone()).into()),
            RolloutAction::Restart if under_way => return Err(RolloutError::UnderWay(name.clone()).into()),
            RolloutAction::Restart => {
                rollout.begin(next);
                // Two restarts within a millisecond are two.
                let last = rollout.restarted_at.map_or(0, |last| last.0 + 1);
                rollout.restarted_at = Some(Timestamp(now.0.max(last)));
            }
        }
        service.generation = next;
        draft.desired.generation = next;
        inner.commit(draft, &self.published)?;
        Ok(RolloutResponse { generation: next })
    }

    /// Gives up the release that a service is on its way to: back to `stable`. Does nothing, and returns `None`, if the
    /// service wants another one by now.
    ///
    /// # Errors
    /// State that cannot be saved.
    pub fn give_up(
        &self,
        name: &ServiceName,
        failed: FailedRelease,
        stable: &Release,
    ) -> Result<Option<Generation>, StoreError> {
        let mut inner = self.lock();
        let mut draft = inner.draft();
        let next = draft.desired.generation.next();
        let Ok(service) = draft.live_mut(name) else { return Ok(None) };
        if !service.give_up(failed, stable, next) {
            return Ok(None);
        }
        draft.desired.generation = next;
        inner.commit(draft, &self.published)?;
        Ok(Some(next))
    }
}

#[cfg(test)]
mod tests;
