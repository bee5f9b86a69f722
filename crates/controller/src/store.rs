//! The store: the one place where the desired state changes, each change whole, persisted, then published.
//!
//! Manifests, the admin API and the assignment's API all end here. A refused change leaves everything as it
//! was. Deliberately absent: replicas. The store only says what should be.

mod error;
mod merge;
mod rollback;
mod rollout;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub use error::StoreError;
use ringmaster_core::api::{ApplyRequest, ApplyResponse, Change, GatewayChange, ManifestFile, ServiceChange};
use ringmaster_core::desired::{Desired, DesiredService, Member};
use ringmaster_core::manifest::{self, Source};
use ringmaster_core::members;
use ringmaster_core::ring::{Ring, RingState};
use ringmaster_core::rollout::Rollout;
use ringmaster_core::traffic::TrafficMoved;
use ringmaster_core::{Generation, ServiceName};
pub use rollback::RollbackError;
use rollout::ReadyFile;
pub use rollout::RolloutError;
use tokio::sync::watch;

use crate::figures;
use crate::state::{
    Loaded, StateDir, StateError, Statuses, StoredRevision, StoredService, digest, save_statuses,
};

/// Tells what a change of a service's ring, from the first to the second, means for its recent requests.
pub type Traffic = dyn Fn(&ServiceName, &Ring, &Ring) -> Option<TrafficMoved> + Send + Sync;

/// The desired state and its keeper.
#[derive(Debug)]
pub struct Store {
    inner: Mutex<Inner>,
    ready: ReadyFile,
    statuses: StatusesFile,
    published: Published,
}

/// What was told of the services before this start, and where it is written.
#[derive(Debug)]
struct StatusesFile {
    path: PathBuf,
    before: Statuses,
}

/// Where a change is told.
#[derive(Debug)]
struct Published {
    desired: watch::Sender<Arc<Desired>>,
    /// The span in which the newest change was made, until the loop has taken it up.
    cause: Mutex<Option<tracing::Span>>,
}

#[derive(Debug)]
struct Inner {
    state: StateDir,
    desired: Desired,
    rings: BTreeMap<ServiceName, RingState>,
    manifest_digest: Option<String>,
}

/// A change in the making: thrown away unless it is committed.
struct Draft {
    desired: Desired,
    rings: BTreeMap<ServiceName, RingState>,
    /// The rings that change, and the share of keys that each moves.
    moved: BTreeMap<ServiceName, f64>,
    manifest_digest: Option<String>,
}

impl Store {
    /// Takes up what the state folder held. A ring that was mended is persisted before it is used.
    ///
    /// # Errors
    /// If that cannot be saved.
    pub fn new(state: StateDir, loaded: Loaded) -> Result<Store, StoreError> {
        let mut desired = Desired {
            generation: loaded.revision.generation,
            services: BTreeMap::new(),
            gateway: loaded.revision.gateway,
        };
        let rings = loaded.rings;
        for (name, stored) in loaded.revision.services {
            let service = DesiredService {
                ring: rings[&name].ring(),
                spec: stored.spec,
                generation: stored.generation,
                members: stored.members,
                // What was ready before it was noted is not known.
                rollout: stored.rollout.unwrap_or_else(|| Rollout {
                    since: stored.generation,
                    noted_from: loaded.revision.generation.next(),
                    ..Rollout::default()
                }),
                deleting: stored.deleting,
            };
            desired.services.insert(name, service);
        }
        let published =
            Published { desired: watch::Sender::new(Arc::new(desired.clone())), cause: Mutex::default() };
        let manifest_digest = loaded.revision.manifest_digest;
        let ready = ReadyFile::new(state.ready_path(), loaded.ready);
        let statuses = StatusesFile { path: state.statuses_path(), before: loaded.statuses };
        let mut inner = Inner { state, desired, rings, manifest_digest };
        if loaded.rings_mended {
            let draft = inner.draft();
            inner.commit(draft, &published)?;
        }
        figures::config_loaded();
        Ok(Store { inner: Mutex::new(inner), ready, statuses, published })
    }

    /// Follows the desired state.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Desired>> {
        self.published.desired.subscribe()
    }

    /// The desired state now.
    pub fn desired(&self) -> Arc<Desired> {
        Arc::clone(&self.published.desired.borrow())
    }

    /// What was told of the services before this start.
    pub fn statuses_before(&self) -> &Statuses {
        &self.statuses.before
    }

    /// Writes what is told of the services now.
    ///
    /// # Errors
    /// The operation that failed.
    pub fn save_statuses(&self, statuses: &Statuses) -> Result<(), StateError> {
        save_statuses(&self.statuses.path, statuses)
    }

    /// The span of the newest change, once: what follows from a change belongs to it.
    pub(crate) fn take_cause(&self) -> Option<tracing::Span> {
        self.published.cause.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Makes the desired state what the files say, or only tells what would change. `traffic` tells what a change of
    /// a service's ring means for its recent requests.
    ///
    /// # Errors
    /// Whatever is wrong with the files or forbids the change; then nothing is applied.
    pub fn apply(&self, request: &ApplyRequest, traffic: &Traffic) -> Result<ApplyResponse, StoreError> {
        self.apply_with_digest(request, traffic, None)
    }

    /// Applies the file of `serve --manifest` unless it is the one that was applied last.
    ///
    /// # Errors
    /// As [`Store::apply`].
    pub fn apply_file_once(&self, file: &ManifestFile) -> Result<Option<ApplyResponse>, StoreError> {
        let digest = digest(&file.text);
        if self.lock().manifest_digest.as_ref() == Some(&digest) {
            return Ok(None);
        }
        let files = vec![file.clone()];
        let request = ApplyRequest { files, ..ApplyRequest::default() };
        self.apply_with_digest(&request, &|_, _, _| None, Some(digest)).map(Some)
    }

    fn apply_with_digest(
        &self,
        request: &ApplyRequest,
        traffic: &Traffic,
        digest: Option<String>,
    ) -> Result<ApplyResponse, StoreError> {
        let result = self.try_apply(request, traffic, digest);
        if !request.dry_run {
            figures::config_applied(result.is_ok());
        }
        result
    }

    fn try_apply(
        &self,
        request: &ApplyRequest,
        traffic: &Traffic,
        digest: Option<String>,
    ) -> Result<ApplyResponse, StoreError> {
        let sources: Vec<Source<'_>> =
            request.files.iter().map(|file| Source { file: &file.file, text: &file.text }).collect();
        let manifest = manifest::parse(&sources)?;
        let mut inner = self.lock();
        let mut draft = inner.draft();
        let next = draft.desired.generation.next();
        let mut changes = Vec::new();
        for (name, declared) in manifest.services {
            self.check_rollout(&draft, &name, &declared.spec, request.force)?;
            changes.push(draft.put_service(name, declared.spec, next, traffic)?);
        }
        if request.prune {
            let named: Vec<ServiceName> = changes.iter().map(|change| change.name.clone()).collect();
            let rest: Vec<ServiceName> = draft.desired.services.keys().cloned().collect();
            for name in rest.into_iter().filter(|name| !named.contains(name)) {
                changes.extend(draft.delete(&name, next)?);
            }
        }
        let before = draft.desired.gateway.clone();
        if let Some(gateway) = manifest.gateway {
            draft.desired.gateway = gateway.spec;
        }
        let after = draft.desired.gateway.clone();
        draft.check()?;
        check_moves(&changes, request.max_move)?;
        let gateway = (before != after).then_some(GatewayChange { before, after });
        let mut response = ApplyResponse { generation: draft.desired.generation, services: changes, gateway };
        if request.dry_run {
            return Ok(response);
        }
        let new_file = digest.is_some() && digest != draft.manifest_digest;
        if let Some(digest) = digest {
            draft.manifest_digest = Some(digest);
        }
        if response.changes() || new_file {
            draft.desired.generation = next;
            response.generation = next;
            inner.commit(draft, &self.published)?;
        }
        Ok(response)
    }

    /// The ring that a service has.
    ///
    /// # Errors
    /// An unknown service.
    pub fn ring(&self, name: &ServiceName) -> Result<Ring, StoreError> {
        let desired = self.desired();
        let service = desired.services.get(name).ok_or_else(|| StoreError::UnknownService(name.clone()))?;
        Ok(service.ring.clone())
    }

    /// The ring that a service would have with so many replicas.
    ///
    /// # Errors
    /// An unknown service, or a count that it cannot have.
    pub fn ring_with(&self, name: &ServiceName, replicas: u32) -> Result<Ring, StoreError> {
        let mut draft = self.lock().draft();
        let service = draft.service(name)?;
        let (generation, members) =
            (service.generation, members::resize(&service.members, replicas as usize)?);
        draft.set_members(name, members, generation)?;
        Ok(draft.service(name)?.ring.clone())
    }

    /// Sets the live replica count of a service. Returns the generation that contains it.
    ///
    /// # Errors
    /// An unknown service, too many replicas, or state that cannot be saved.
    pub fn scale(&self, name: &ServiceName, replicas: u32) -> Result<Generation, StoreError> {
        self.change_members(name, |members| Ok(members::resize(members, replicas as usize)?))
    }

    /// Changes the members of a service. Returns the generation that contains it.
    ///
    /// # Errors
    /// An unknown service, what `change` refuses, or state that cannot be saved.
    pub fn change_members(
        &self,
        name: &ServiceName,
        change: impl FnOnce(&[Member]) -> Result<Vec<Member>, StoreError>,
    ) -> Result<Generation, StoreError> {
        let mut inner = self.lock();
        let mut draft = inner.draft();
        let next = draft.desired.generation.next();
        let service = draft.service(name)?;
        if service.spec.autoscale.is_some() {
            return Err(StoreError::Autoscaled(name.clone()));
        }
        let members = change(&service.members)?;
        if draft.set_members(name, members, next)? {
            draft.desired.generation = next;
            inner.commit(draft, &self.published)?;
        }
        Ok(inner.desired.generation)
    }

    /// Sets the count that the autoscaler has decided on, if the service is still as it was decided about: it has
    /// `from` replicas, and its spec allows `to`. Returns the generation that contains it; none if it is not so.
    ///
    /// # Errors
    /// State that cannot be saved.
    pub(crate) fn autoscale(
        &self,
        name: &ServiceName,
        from: u32,
        to: u32,
    ) -> Result<Option<Generation>, StoreError> {
        let mut inner = self.lock();
        let mut draft = inner.draft();
        let next = draft.desired.generation.next();
        let Ok(service) = draft.service(name) else { return Ok(None) };
        let allowed = service.spec.autoscale.as_ref().is_some_and(|spec| spec.allows(to));
        if !allowed || service.members.len() != from as usize {
            return Ok(None);
        }
        let members = members::resize(&service.members, to as usize)?;
        if draft.set_members(name, members, next)? {
            draft.desired.generation = next;
            inner.commit(draft, &self.published)?;
        }
        Ok(Some(inner.desired.generation))
    }

    /// Marks a service as deleted: its replicas go, then it goes itself. By `force` they go without a word from the data
    /// plane, also where the service is deleted already and waits for one.
    ///
    /// # Errors
    /// An unknown service, or state that cannot be saved.
    pub fn delete(&self, name: &ServiceName, force: bool) -> Result<Generation, StoreError> {
        let mut inner = self.lock();
        let mut draft = inner.draft();
        let next = draft.desired.generation.next();
        if !draft.desired.services.contains_key(name) {
            return Err(StoreError::UnknownService(name.clone()));
        }
        let is_news = draft.delete(name, next)?.is_some();
        let marked = draft.desired.services.get_mut(name).filter(|_| force);
        let is_forced = marked.is_some_and(|marked| !std::mem::replace(&mut marked.rollout.forced_out, true));
        if is_news || is_forced {
            draft.desired.generation = next;
            inner.commit(draft, &self.published)?;
        }
        Ok(inner.desired.generation)
    }

    /// Forgets deleted services of which no replica is left.
    ///
    /// # Errors
    /// State that cannot be saved.
    pub fn finish(&self, finished: &[ServiceName]) -> Result<(), StoreError> {
        let mut inner = self.lock();
        let mut draft = inner.draft();
        let count = draft.desired.services.len();
        draft.desired.services.retain(|name, service| !(service.deleting && finished.contains(name)));
        draft.rings.retain(|name, _| draft.desired.services.contains_key(name));
        if draft.desired.services.len() != count {
            draft.desired.generation = draft.desired.generation.next();
            inner.commit(draft, &self.published)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while it was held left no half-made change: drafts are thrown away.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses a change by which more keys move than the limit allows.
fn check_moves(changes: &[ServiceChange], limit: Option<f64>) -> Result<(), StoreError> {
    let Some(limit) = limit else { return Ok(()) };
    match changes.iter().find(|change| change.keys_moved > limit) {
        Some(change) => {
            let (service, share) = (change.name.clone(), change.keys_moved);
            Err(StoreError::MovesTooMuch { service, share, limit })
        }
        None => Ok(()),
    }
}

impl Inner {
    fn draft(&self) -> Draft {
        Draft {
            desired: self.desired.clone(),
            rings: self.rings.clone(),
            moved: BTreeMap::new(),
            manifest_digest: self.manifest_digest.clone(),
        }
    }

    /// Persists, then publishes: what anyone has seen is on disk.
    fn commit(&mut self, draft: Draft, published: &Published) -> Result<(), StoreError> {
        let services = draft.desired.services.iter().map(|(name, service)| {
            let stored = StoredService {
                spec: service.spec.clone(),
                generation: service.generation,
                members: service.members.clone(),
                ring: draft.rings.get(name).map(RingState::id).unwrap_or_default(),
                rollout: Some(service.rollout.clone()),
                deleting: service.deleting,
            };
            (name.clone(), stored)
        });
        let revision = StoredRevision {
            generation: draft.desired.generation,
            services: services.collect(),
            gateway: draft.desired.gateway.clone(),
            manifest_digest: draft.manifest_digest.clone(),
        };
        let started = Instant::now();
        let saved = self.state.save(&revision, &draft.rings);
        figures::state_written(saved.is_ok(), started.elapsed());
        saved?;
        for (name, share) in draft.moved {
            figures::ring_changed(&name, share);
        }
        self.desired = draft.desired;
        self.rings = draft.rings;
        self.manifest_digest = draft.manifest_digest;
        let cause = tracing::Span::current();
        *published.cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
        published.desired.send_replace(Arc::new(self.desired.clone()));
        Ok(())
    }
}
