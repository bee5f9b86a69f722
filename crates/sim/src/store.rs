//! The modelled store: what is desired, what of it is saved, and how saving goes wrong.
//!
//! A change is whole or not at all: it is saved, then in force. The members and the ring are the real ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmaster_core::desired::{Desired, DesiredService};
use ringmaster_core::members::resize;
use ringmaster_core::ring::RingState;
use ringmaster_core::rollout::{FailedRelease, Ready, Release, Rollout};
use ringmaster_core::spec::ServiceSpec;
use ringmaster_core::{Revision, ServiceName};

/// A change that somebody asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Edit {
    /// A service as a manifest declares it; the flag insists on its template.
    Put(ServiceName, Box<ServiceSpec>, bool),
    Scale(ServiceName, usize),
    /// A count that follows from the load.
    Autoscale(ServiceName, usize),
    Delete(ServiceName),
    /// What is deleted and gone is forgotten.
    Finish(Vec<ServiceName>),
    /// A release that has failed is given up for another.
    GiveUp(ServiceName, Box<(FailedRelease, Release)>),
    /// The other replicas follow the canary of this revision.
    Promote(ServiceName, Revision),
}

impl Edit {
    /// A service as a manifest declares it.
    pub(crate) fn put(name: ServiceName, spec: ServiceSpec) -> Edit {
        Edit::Put(name, Box::new(spec), false)
    }

    /// The same, insisted upon.
    pub(crate) fn force(name: ServiceName, spec: ServiceSpec) -> Edit {
        Edit::Put(name, Box::new(spec), true)
    }
}

/// How saving ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Saving {
    Good,
    /// Nothing was written: the change is refused.
    Full,
    /// The controller is killed before the change counts.
    Torn,
    /// Written, and not surely on disk: it counts until the controller is killed.
    Unsynced,
    /// In force, and not written: a bug on purpose.
    #[cfg(feature = "planted")]
    Forgotten,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    pub(crate) desired: Arc<Desired>,
    rings: BTreeMap<ServiceName, RingState>,
    /// What a restart finds.
    saved: Saved,
    /// What it may find instead: the change before an unsynced one.
    before: Option<Saved>,
    /// What was ready, as it is known and as it is saved. A file of its own.
    ready: Ready,
    ready_saved: Ready,
    /// Runs of snapshot generations set aside so far.
    reserved: u64,
    /// A ring of each service over no members: making one anew may cost more than a whole run.
    empty: Arc<BTreeMap<ServiceName, RingState>>,
    /// How many replicas of each service were last asked for, by what was accepted.
    meant: BTreeMap<ServiceName, usize>,
}

#[derive(Debug, Clone, Default)]
struct Saved {
    desired: Arc<Desired>,
    rings: BTreeMap<ServiceName, RingState>,
}

impl Store {
    pub(crate) fn new(empty: Arc<BTreeMap<ServiceName, RingState>>) -> Store {
        Store { empty, ..Store::default() }
    }

    /// Makes a change; false if it was refused, and all is as it was.
    pub(crate) fn apply(&mut self, edit: &Edit, saving: Saving) -> bool {
        let mut desired = Desired::clone(&self.desired);
        let mut rings = self.rings.clone();
        desired.generation = desired.generation.next();
        let changed = match edit {
            Edit::Put(name, spec, force) => self.put(&mut desired, &mut rings, name, spec, *force),
            // Where the count follows the load, nobody else sets it.
            Edit::Scale(name, count) => {
                !is_autoscaled(&desired, name) && scale(&mut desired, &mut rings, name, *count)
            }
            Edit::Autoscale(name, count) => scale(&mut desired, &mut rings, name, *count),
            Edit::Delete(name) => scale(&mut desired, &mut rings, name, 0) | mark_deleted(&mut desired, name),
            Edit::Finish(names) => {
                let before = desired.services.len();
                desired.services.retain(|name, service| !(service.deleting && names.contains(name)));
                rings.retain(|name, _| desired.services.contains_key(name));
                desired.services.len() != before
            }
            Edit::GiveUp(name, failed) => {
                let (next, (failed, stable)) = (desired.generation, &**failed);
                let service = desired.services.get_mut(name);
                service.is_some_and(|service| service.give_up(failed.clone(), stable, next))
            }
            Edit::Promote(name, revision) => {
                let service = desired.services.get_mut(name).filter(|service| !service.deleting);
                service.is_some_and(|service| {
                    service.rollout.promoted.replace(revision.clone()).as_ref() != Some(revision)
                })
            }
        };
        if !changed || matches!(saving, Saving::Full | Saving::Torn) {
            return false;
        }
        let next = Saved { desired: Arc::new(desired), rings: rings.clone() };
        self.desired = Arc::clone(&next.desired);
        self.rings = rings;
        #[cfg(feature = "planted")]
        if saving == Saving::Forgotten {
            return true;
        }
        let before = std::mem::replace(&mut self.saved, next);
        self.before = (saving == Saving::Unsynced).then_some(before);
        true
    }

    /// Reads back what is saved, as a restart does. `loses_unsynced` tells whether the machine went down too.
    pub(crate) fn reload(&mut self, loses_unsynced: bool) {
        if let Some(before) = self.before.take().filter(|_| loses_unsynced) {
            self.saved = before;
            let live = self.saved.desired.services.iter().filter(|(_, service)| !service.deleting);
            self.meant = live.map(|(name, service)| (name.clone(), service.members.len())).collect();
        }
        self.desired = Arc::clone(&self.saved.desired);
        self.rings.clone_from(&self.saved.rings);
        self.ready.clone_from(&self.ready_saved);
        self.ready.0.retain(|name, _| self.desired.services.contains_key(name));
    }

    /// Takes note that a release is ready as a whole.
    pub(crate) fn note_ready(&mut self, name: &ServiceName, rollout: &Rollout, release: Release) {
        self.ready.note(name, rollout, release);
    }

    /// Writes what was ready; false if that failed.
    pub(crate) fn save_ready(&mut self, saving: Saving) -> bool {
        let is_saved = !matches!(saving, Saving::Full | Saving::Torn);
        if is_saved {
            self.ready.0.retain(|name, _| self.desired.services.contains_key(name));
            self.ready_saved.clone_from(&self.ready);
        }
        is_saved
    }

    /// The stable release of a service.
    pub(crate) fn stable(&self, name: &ServiceName, rollout: &Rollout) -> Option<&Release> {
        self.ready.stable(name, rollout)
    }

    /// The state folder is gone.
    pub(crate) fn lose(&mut self) {
        *self = Store::new(Arc::clone(&self.empty));
    }

    /// The generation of the first snapshot of a run.
    pub(crate) fn reserve(&mut self) -> u64 {
        self.reserved += 1;
        (self.reserved - 1) * 1_000_000 + 1
    }

    /// Takes note of what somebody asked for and got.
    pub(crate) fn mean(&mut self, edit: &Edit) {
        match edit {
            Edit::Put(name, ..) | Edit::Scale(name, _) => {
                let count = self.desired.services.get(name).map_or(0, |service| service.members.len());
                self.meant.insert(name.clone(), count);
            }
            Edit::Delete(name) => drop(self.meant.remove(name)),
            Edit::Finish(_) | Edit::GiveUp(..) | Edit::Autoscale(..) | Edit::Promote(..) => {}
        }
    }

    /// How many replicas of a service somebody wants.
    pub(crate) fn meant(&self, name: &ServiceName) -> Option<usize> {
        self.meant.get(name).copied()
    }

    /// What a restart would find.
    pub(crate) fn saved(&self) -> &Desired {
        &self.saved.desired
    }

    fn put(
        &self,
        desired: &mut Desired,
        rings: &mut BTreeMap<ServiceName, RingState>,
        name: &ServiceName,
        spec: &ServiceSpec,
        force: bool,
    ) -> bool {
        let before = desired.services.get(name);
        let refuses = |service: &DesiredService| {
            let stable = self.stable(name, &service.rollout);
            service.deleting || !force && service.check_template(&spec.template, stable).is_err()
        };
        if before.is_some_and(refuses) {
            return false;
        }
        let Some(mut ring) = rings.remove(name).or_else(|| self.empty.get(name).cloned()) else {
            return false;
        };
        let declared = DesiredService::declare(name, before, spec.clone(), &mut ring, desired.generation);
        let Ok((next, _)) = declared else { return false };
        rings.insert(name.clone(), ring);
        desired.services.insert(name.clone(), next);
        true
    }
}

fn is_autoscaled(desired: &Desired, name: &ServiceName) -> bool {
    desired.services.get(name).is_some_and(|service| service.spec.autoscale.is_some())
}

fn scale(
    desired: &mut Desired,
    rings: &mut BTreeMap<ServiceName, RingState>,
    name: &ServiceName,
    count: usize,
) -> bool {
    let generation = desired.generation;
    let (Some(service), Some(ring)) = (desired.services.get_mut(name), rings.get_mut(name)) else {
        return false;
    };
    let Ok(members) = resize(&service.members, count) else { return false };
    !service.deleting && matches!(service.set_members(name, members, ring, generation), Ok(Some(_)))
}

fn mark_deleted(desired: &mut Desired, name: &ServiceName) -> bool {
    let Some(service) = desired.services.get_mut(name).filter(|service| !service.deleting) else {
        return false;
    };
    service.deleting = true;
    true
}
