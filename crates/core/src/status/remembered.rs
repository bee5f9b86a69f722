//! What a status says of times, over the daemon's end: since when conditions have held, and since when nothing has got
//! on. A restart that changes nothing changes none of them, and a rollout's deadline goes on counting.
//!
//! A daemon that has just started finds out again what it knew: who is ready, what a template stands for, whether
//! requests go by what it publishes. Until then a condition may be otherwise for a moment, and that is no change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Condition, ConditionKind, ServiceStatus};
use crate::Timestamp;
use crate::desired::{Desired, DesiredService};
use crate::ids::{Generation, ReplicaName, ServiceName};
use crate::observed::{Observed, Replica, ReplicaState};
use crate::plan::Plan;

/// How long after the first pass things may be found out at most, beside `minReady`.
const FINDING_OUT_MAX: Duration = Duration::from_secs(30);

/// What is kept of the status of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remembered {
    /// The desired state that it was about.
    pub generation: Generation,
    /// How many replicas were desired, how many were ready, and how many of these as desired.
    pub replicas: u32,
    /// See `replicas`.
    pub ready: u32,
    /// See `replicas`.
    pub updated: u32,
    /// When these counts had last changed.
    pub progressed_at: Timestamp,
    /// What held, and since when.
    pub conditions: Vec<Held>,
}

/// What was so of one condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Which one.
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// Whether it held.
    pub status: bool,
    /// Since when.
    pub since: Timestamp,
}

impl Remembered {
    /// What is kept of a status.
    pub fn of(status: &ServiceStatus) -> Remembered {
        let held = |condition: &Condition| Held {
            kind: condition.kind,
            status: condition.status,
            since: condition.since,
        };
        Remembered {
            generation: status.observed_generation,
            replicas: status.replicas,
            ready: status.ready,
            updated: status.updated,
            progressed_at: status.progressed_at,
            conditions: status.conditions.iter().map(held).collect(),
        }
    }

    /// Since when a condition has been so; none if it was otherwise.
    pub(super) fn since(&self, kind: ConditionKind, status: bool) -> Option<Timestamp> {
        let held = self.conditions.iter().find(|held| held.kind == kind && held.status == status)?;
        Some(held.since)
    }
}

/// What earlier runs knew of each service, until this one knows as much.
#[derive(Debug, Clone, Default)]
pub struct Recollection {
    services: BTreeMap<ServiceName, Remembered>,
    /// When the first pass was, and who was there then.
    found: Option<(Timestamp, BTreeSet<ReplicaName>)>,
}

impl Recollection {
    /// Goes on from what was kept. What was kept of a service that has been deleted since, and made anew, is not of this
    /// one.
    pub fn of(mut kept: BTreeMap<ServiceName, Remembered>, desired: &Desired) -> Recollection {
        kept.retain(|name, known| {
            let service = desired.services.get(name);
            service.is_some_and(|service| known.generation >= service.rollout.noted_from)
        });
        Recollection { services: kept, found: None }
    }

    /// What was known of a service; none once this run knows as much.
    pub fn get(&self, name: &ServiceName) -> Option<&Remembered> {
        self.services.get(name)
    }

    /// How many replicas of each service were ready, of those that are still desired.
    pub fn ready(&self, desired: &Desired) -> BTreeMap<ServiceName, u32> {
        let ready = |(name, known): (&ServiceName, &Remembered)| {
            let desired = desired.services.get(name)?.members.len() as u32;
            Some((name.clone(), known.ready.min(desired))).filter(|(_, ready)| *ready > 0)
        };
        self.services.iter().filter_map(ready).collect()
    }

    /// After a pass: forgets what has been found out again, or is not so any more.
    pub fn settle(&mut self, desired: &Desired, observed: &Observed, plan: &Plan) {
        if self.services.is_empty() {
            return;
        }
        let here = || observed.replicas.iter().map(|replica| replica.name.clone()).collect();
        let (since, found) = self.found.get_or_insert_with(|| (observed.now, here()));
        self.services.retain(|name, known| {
            let Some(service) = desired.services.get(name) else { return false };
            if plan.actions.iter().any(|action| action.name().service == *name) {
                // What has to be done is a change; that some serve all the while is none.
                known.conditions.retain(|held| held.kind == ConditionKind::Available);
            }
            let until = since.after(FINDING_OUT_MAX + service.spec.strategy.min_ready.0);
            known.generation >= service.generation
                && observed.now < until
                && is_finding_out(name, service, observed, found)
        });
    }
}

/// Whether a service may look otherwise than it is because this run has not yet judged all that it has found.
fn is_finding_out(
    name: &ServiceName,
    service: &DesiredService,
    observed: &Observed,
    found: &BTreeSet<ReplicaName>,
) -> bool {
    let min_ready = service.spec.strategy.min_ready.0;
    let is_open = |replica: &Replica| match (replica.health.ready_since, &replica.health.last_failure) {
        (Some(ready_since), _) => ready_since.after(min_ready) > observed.now,
        (None, Some(_)) => false,
        (None, None) => replica.state == ReplicaState::Running && replica.address.is_some(),
    };
    let own = |replica: &&Replica| replica.name.service == *name && found.contains(&replica.name);
    observed.list_error.is_some()
        || !observed.revisions.contains_key(name)
        || !observed.handshake.is_in_force(observed.now)
        || observed.replicas.iter().filter(own).any(is_open)
}

#[cfg(test)]
mod tests;
