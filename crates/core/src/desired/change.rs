//! How one service changes: by a manifest, by its members. Its ring follows with as few keys moved as its policy allows.

use thiserror::Error;

use super::{DesiredService, Member, ring_members};
use crate::ids::{Generation, ServiceName};
use crate::members::{MembersError, resize};
use crate::ring::{Moved, RingError, RingState};
use crate::rollout::Rollout;
use crate::spec::ServiceSpec;

/// A change of a service that was refused; what it was about is to be thrown away.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// The members cannot change so.
    #[error(transparent)]
    Members(#[from] MembersError),
    /// The members and the balancing settings make no ring.
    #[error(transparent)]
    Ring(#[from] RingError),
}

impl DesiredService {
    /// A service as a manifest declares it, at `generation`, and what share of its keys moves. The manifest wins for the
    /// fields that it names: a count that it leaves out stays as it lives in `before`. `ring` is that of `before`, or a
    /// fresh one.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn declare(
        name: &ServiceName,
        before: Option<&DesiredService>,
        spec: ServiceSpec,
        ring: &mut RingState,
        generation: Generation,
    ) -> Result<(DesiredService, Moved), ChangeError> {
        let live = before.map_or(&[][..], |service| &service.members);
        let members = resize(live, count(&spec, before.map(|_| live.len())))?;
        let moved = ring.update(&spec.balancing, &ring_members(name, &spec.balancing, &members))?;
        let fresh = || Rollout { since: generation, noted_from: generation, ..Rollout::default() };
        let mut rollout = before.map_or_else(fresh, |before| before.rollout.clone());
        if before.is_some_and(|before| before.spec.template != spec.template) {
            rollout.begin(generation);
        }
        let unchanged = before.filter(|before| before.is_as_declared(&spec) && before.members == members);
        let generation = unchanged.map_or(generation, |before| before.generation);
        let ring = ring.ring();
        Ok((DesiredService { spec, generation, members, ring, rollout, deleting: false }, moved))
    }

    /// Whether it is as a manifest says, the count aside.
    pub fn is_as_declared(&self, spec: &ServiceSpec) -> bool {
        let without_count = |spec: &ServiceSpec| ServiceSpec { replicas: None, ..spec.clone() };
        without_count(&self.spec) == without_count(spec)
    }

    /// Sets the members at `generation`; none if they are so already.
    ///
    /// # Errors
    /// If they make no ring.
    pub fn set_members(
        &mut self,
        name: &ServiceName,
        members: Vec<Member>,
        ring: &mut RingState,
        generation: Generation,
    ) -> Result<Option<Moved>, RingError> {
        if self.members == members {
            return Ok(None);
        }
        let balancing = &self.spec.balancing;
        let moved = ring.update(balancing, &ring_members(name, balancing, &members))?;
        (self.ring, self.members, self.generation) = (ring.ring(), members, generation);
        Ok(Some(moved))
    }
}

/// How many replicas a manifest asks for, of a service that has `live` ones, or is new.
fn count(spec: &ServiceSpec, live: Option<usize>) -> usize {
    match &spec.autoscale {
        // The count is the autoscaler's; a new service begins where it is asked to.
        Some(scale) => {
            let begin = spec.replicas.unwrap_or(scale.min_replicas);
            scale.nearest(live.map_or(begin, |live| live as u32)) as usize
        }
        None => spec.replicas.map_or(live.unwrap_or(1), |count| count as usize),
    }
}
