//! How a change meets what is there: drafts of the desired state.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use ringmaster_core::manifest::route_conflicts;
use ringmaster_core::ring::stats::Spread;
use ringmaster_core::spec::ServiceSpec;

use super::{
    Change, DesiredService, Draft, Generation, Member, RingState, ServiceChange, ServiceName, StoreError,
    Traffic,
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
        traffic: &Traffic,
    ) -> Result<ServiceChange, StoreError> {
        let before = match self.desired.services.get(&name) {
            Some(service) if service.deleting => return Err(StoreError::Deleting(name)),
            found => found.cloned(),
        };
        let mut ring = match self.rings.get(&name) {
            Some(ring) => ring.clone(),
            None => RingState::new(&spec.balancing, random_seed())?,
        };
        let (after, moved) = DesiredService::declare(&name, before.as_ref(), spec, &mut ring, generation)?;
        let unchanged =
            before.as_ref().is_some_and(|b| b.is_as_declared(&after.spec) && b.members == after.members);
        let rollout = before.as_ref().is_some_and(|before| before.spec.template != after.spec.template);
        let spread = |service: &DesiredService| Spread::of(&service.ring.shares()).max_over_mean;
        let change = ServiceChange {
            name: name.clone(),
            change: match &before {
                None => Change::Created,
                Some(_) if unchanged => Change::Unchanged,
                Some(_) => Change::Configured,
            },
            keys_moved: moved.share,
            keys_moved_exact: moved.is_exact,
            traffic: before.as_ref().and_then(|before| traffic(&name, &before.ring, &after.ring)),
            max_over_mean: (before.as_ref().map_or(0.0, spread), spread(&after)),
            before: before.map(|before| before.live_spec()),
            after: Some(after.live_spec()),
            rollout,
        };
        if self.rings.get(&name).is_none_or(|known| known.id() != ring.id()) {
            self.moved.insert(name.clone(), moved.share);
        }
        self.rings.insert(name.clone(), ring);
        self.desired.services.insert(name, after);
        Ok(change)
    }

    /// Sets a service's members; its ring follows with as few keys moved as its policy allows. Returns whether
    /// anything changed.
    pub(super) fn set_members(
        &mut self,
        name: &ServiceName,
        members: Vec<Member>,
        generation: Generation,
    ) -> Result<bool, StoreError> {
        let service = self.desired.services.get_mut(name).expect("the caller looked it up");
        let ring = self.rings.get_mut(name).expect("every service has a ring");
        let Some(moved) = service.set_members(name, members, ring, generation)? else { return Ok(false) };
        self.moved.insert(name.clone(), moved.share);
        Ok(true)
    }

    /// Marks a service as deleted, and with it what the gateway says of it; `None` if it is already.
    pub(super) fn delete(
        &mut self,
        name: &ServiceName,
        generation: Generation,
    ) -> Result<Option<ServiceChange>, StoreError> {
        let Some(service) = self.service(name).ok().cloned() else { return Ok(None) };
        self.set_members(name, Vec::new(), generation)?;
        if self.desired.gateway.assignment_api.as_ref().is_some_and(|api| api.service == *name) {
            self.desired.gateway.assignment_api = None;
        }
        if let Some(marked) = self.desired.services.get_mut(name) {
            marked.deleting = true;
            marked.generation = generation;
        }
        Ok(Some(ServiceChange {
            name: name.clone(),
            change: Change::Deleted,
            max_over_mean: (Spread::of(&service.ring.shares()).max_over_mean, 0.0),
            before: Some(service.live_spec()),
            after: None,
            keys_moved: 1.0,
            keys_moved_exact: true,
            traffic: None,
            rollout: false,
        }))
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
