//! How a change meets what is there: drafts of the desired state.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use ringmaster_core::manifest::route_conflicts;
use ringmaster_core::ring::stats::Spread;
use ringmaster_core::rollout::Rollout;
use ringmaster_core::spec::ServiceSpec;

use super::{
    Change, DesiredService, Draft, Generation, Member, RingState, ServiceChange, ServiceName, StoreError,
    Traffic, members, ring_members,
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
        let live = before.as_ref().map_or(&[][..], |service| &service.members);
        let default = if before.is_some() { live.len() } else { 1 };
        let count = match &spec.autoscale {
            // The count is the autoscaler's; a new service begins where it is asked to.
            Some(scale) => {
                let begin = spec.replicas.unwrap_or(scale.min_replicas);
                scale.nearest(if before.is_some() { live.len() as u32 } else { begin }) as usize
            }
            None => spec.replicas.map_or(default, |count| count as usize),
        };
        let members = members::resize(live, count)?;
        let rollout = before.as_ref().is_some_and(|before| before.spec.template != spec.template);
        let same_spec = before.as_ref().is_some_and(|b| {
            ServiceSpec { replicas: None, ..b.spec.clone() } == ServiceSpec { replicas: None, ..spec.clone() }
        });
        let same_members = before.as_ref().is_some_and(|before| before.members == members);
        let mut ring = match self.rings.get(&name) {
            Some(ring) => ring.clone(),
            None => RingState::new(&spec.balancing, random_seed())?,
        };
        let moved = ring.update(&spec.balancing, &ring_members(&name, &spec.balancing, &members))?;
        let unchanged = same_spec && same_members;
        let fresh = || Rollout { since: generation, noted_from: generation, ..Rollout::default() };
        let mut decided = before.as_ref().map_or_else(fresh, |before| before.rollout.clone());
        if rollout {
            decided.begin(generation);
        }
        let after = DesiredService {
            spec,
            generation: before.as_ref().filter(|_| unchanged).map_or(generation, |before| before.generation),
            members,
            ring: ring.ring(),
            rollout: decided,
            deleting: false,
        };
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
        if service.members == members {
            return Ok(false);
        }
        let moved =
            ring.update(&service.spec.balancing, &ring_members(name, &service.spec.balancing, &members))?;
        self.moved.insert(name.clone(), moved.share);
        service.ring = ring.ring();
        service.members = members;
        service.generation = generation;
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
