//! How a change meets what is there: drafts of the desired state.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use ringmaster_core::manifest::route_conflicts;
use ringmaster_core::spec::ServiceSpec;

use super::{
    Allocation, Arc, Change, DesiredService, Draft, Generation, Member, ServiceChange, ServiceName,
    StoreError, members, weights,
};

impl Draft {
    pub(super) fn service(&self, name: &ServiceName) -> Result<&DesiredService, StoreError> {
        match self.desired.services.get(name) {
            Some(service) if service.deleting => Err(StoreError::Deleting(name.clone())),
            Some(service) => Ok(service),
            None => Err(StoreError::UnknownService(name.clone())),
        }
    }

    /// Makes a service what a manifest says. The manifest wins for the fields that it names: a count that it
    /// leaves out stays as it lives.
    pub(super) fn put_service(
        &mut self,
        name: ServiceName,
        spec: ServiceSpec,
        generation: Generation,
    ) -> Result<ServiceChange, StoreError> {
        let before = match self.desired.services.get(&name) {
            Some(service) if service.deleting => return Err(StoreError::Deleting(name)),
            found => found.cloned(),
        };
        let live = before.as_ref().map_or(&[][..], |service| &service.members);
        let default = if before.is_some() { live.len() } else { 1 };
        let count = spec.replicas.map_or(default, |count| count as usize);
        let members = members::resize(live, count)?;
        let service = before.clone().unwrap_or_else(|| {
            let ring = Allocation::new(random_seed());
            let table = Arc::new(ring.table());
            self.rings.insert(name.clone(), ring);
            DesiredService { spec: spec.clone(), generation, members: Vec::new(), table, deleting: false }
        });
        let rollout = before.as_ref().is_some_and(|before| before.spec.template != spec.template);
        let same_spec = before.as_ref().is_some_and(|b| {
            ServiceSpec { replicas: None, ..b.spec.clone() } == ServiceSpec { replicas: None, ..spec.clone() }
        });
        let table = Arc::clone(&service.table);
        self.desired.services.insert(name.clone(), DesiredService { spec, ..service });
        let resized = self.set_members(&name, members, generation);
        let after = self.desired.services.get_mut(&name).expect("it was inserted above");
        if !same_spec {
            after.generation = generation;
        }
        let change = match &before {
            None => Change::Created,
            Some(_) if same_spec && !resized => Change::Unchanged,
            Some(_) => Change::Configured,
        };
        Ok(ServiceChange {
            slots_moved: (table.moved_to(&after.table) as u64, after.table.slot_count() as u64),
            before: before.map(|before| before.live_spec()),
            after: Some(after.live_spec()),
            name,
            change,
            rollout,
        })
    }

    /// Sets a service's members and moves as few ring slots as that takes. Returns whether anything changed.
    pub(super) fn set_members(
        &mut self,
        name: &ServiceName,
        members: Vec<Member>,
        generation: Generation,
    ) -> bool {
        let service = self.desired.services.get_mut(name).expect("the caller looked it up");
        if service.members == members {
            return false;
        }
        let ring = self.rings.entry(name.clone()).or_insert_with(|| Allocation::new(random_seed()));
        ring.rebalance(&weights(&members));
        service.table = Arc::new(ring.table());
        service.members = members;
        service.generation = generation;
        true
    }

    /// Marks a service as deleted, and with it what the gateway says of it; `None` if it is already.
    pub(super) fn delete(&mut self, name: &ServiceName, generation: Generation) -> Option<ServiceChange> {
        let service = self.service(name).ok().cloned()?;
        self.set_members(name, Vec::new(), generation);
        if self.desired.gateway.assignment_api.as_ref().is_some_and(|api| api.service == *name) {
            self.desired.gateway.assignment_api = None;
        }
        if let Some(marked) = self.desired.services.get_mut(name) {
            marked.deleting = true;
            marked.generation = generation;
        }
        Some(ServiceChange {
            name: name.clone(),
            change: Change::Deleted,
            before: Some(service.live_spec()),
            after: None,
            slots_moved: (service.table.slot_count() as u64, service.table.slot_count() as u64),
            rollout: false,
        })
    }

    /// The rules between services, live and new alike.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let live = self.desired.services.iter().filter(|(_, service)| !service.deleting);
        if let Some(conflict) = route_conflicts(live.map(|(name, service)| (name, &service.spec.route))).pop()
        {
            return Err(StoreError::RouteTaken(conflict));
        }
        match &self.desired.gateway.assignment_api {
            Some(api) if self.service(&api.service).is_err() => {
                Err(StoreError::AssignmentService(api.service.clone()))
            }
            _ => Ok(()),
        }
    }
}

/// A seed that nobody can guess: the ring's placement must not be computable by a client.
pub(super) fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
