//! One pass, decided: what is observed, the plan, and the snapshot to publish before anything is done.

use std::time::Duration;

use super::World;
use super::doubt::PATIENCE;
use crate::Timestamp;
use crate::desired::Desired;
use crate::handshake::ACKNOWLEDGE_TIMEOUT;
use crate::ids::{Generation, ReplicaName};
use crate::observed::{Observed, Replica, ReplicaState};
use crate::plan::{Plan, plan};
use crate::snapshot::{Snapshot, snapshot};

/// What a pass needs to know of the run that it belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Outlook {
    /// The generation of the first snapshot of this run: higher than any of the runs before.
    pub first_generation: Generation,
    /// How long the first snapshot may wait until every replica that runs already has been judged.
    pub settle: Duration,
}

/// What a pass has decided.
#[derive(Debug)]
pub struct Pass {
    /// What it was decided on.
    pub observed: Observed,
    /// Replicas whose end is news, with the reason.
    pub news: Vec<(ReplicaName, String)>,
    /// The plan.
    pub plan: Plan,
    /// Replicas that run already are still being judged: nothing is published and nothing done until then.
    pub settling_until: Option<Timestamp>,
    /// The snapshot to publish, if it routes differently from the one in force. It counts as published.
    pub snapshot: Option<Snapshot>,
    /// When to make the next pass even if nothing happens.
    pub wake_at: Option<Timestamp>,
}

impl World {
    /// Decides. Until the first list has succeeded there is nothing to decide on. The caller publishes the snapshot
    /// before it carries out the plan's actions.
    pub fn pass(
        &mut self,
        desired: &Desired,
        current: &Snapshot,
        outlook: Outlook,
        now: Timestamp,
    ) -> Option<Pass> {
        if !self.is_known() {
            return None;
        }
        let is_first = current.generation.0 == 0;
        if is_first {
            // Before the first plan: none of them may be stopped until the data plane has heard of it.
            self.adopt();
        }
        let (mut observed, news) = self.observe(desired, now);
        let plan = plan(desired, &observed);
        if is_first && let Some(until) = self.settles_until(desired, &observed, outlook.settle) {
            let (settling_until, wake_at) = (Some(until), Some(until));
            return Some(Pass { observed, news, plan, settling_until, snapshot: None, wake_at });
        }
        let generation = if is_first { outlook.first_generation } else { current.generation.next() };
        let next = snapshot(desired, &observed, &plan, generation);
        let snapshot = (is_first || !next.routes_like(current)).then_some(next);
        if let Some(next) = &snapshot {
            self.handshake.publish(next, now);
            self.debuts.publish(next, now);
            observed.handshake = self.handshake.clone();
        }
        // Whether it is acknowledged in time is looked at then.
        let in_time = snapshot.is_some().then(|| now.after(ACKNOWLEDGE_TIMEOUT));
        let wake_at = plan.wake_at.into_iter().chain(in_time).min();
        Some(Pass { observed, news, plan, settling_until: None, snapshot, wake_at })
    }

    /// When something of its own is due: a failed action to be tried again, a list, a resolution.
    pub fn due_at(&self) -> Option<Timestamp> {
        [self.retry_at(), self.listing.due_at(), self.resolutions.due_at()].into_iter().flatten().min()
    }

    /// Until when the first snapshot waits for the verdict on replicas that have run through the controller's absence.
    /// Nothing is done meanwhile either: a data plane may be sending requests to any of them.
    fn settles_until(
        &mut self,
        desired: &Desired,
        observed: &Observed,
        settle: Duration,
    ) -> Option<Timestamp> {
        let since = *self.settling_since.get_or_insert(observed.now);
        if self.doubt.is_open() && !settle.is_zero() {
            // A data plane that serves is not told to leave out who may only not be listed yet.
            return Some(observed.now.after(PATIENCE));
        }
        let until = since.after(settle);
        let is_unjudged = |replica: &Replica| {
            let probed = replica.state == ReplicaState::Running && replica.address.is_some();
            let is_ours = desired.services.contains_key(&replica.name.service);
            probed && is_ours && replica.health.ready_since.is_none() && replica.health.last_failure.is_none()
        };
        (observed.now < until && observed.replicas.iter().any(is_unjudged)).then_some(until)
    }
}
