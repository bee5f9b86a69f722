//! The status of every service, as people and scripts read it: counts, conditions, and each replica's state
//! with its reason.

mod replica;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::desired::{Desired, DesiredService};
use crate::handshake::{ACKNOWLEDGE_TIMEOUT, DrainState};
use crate::history::MemberHistory;
use crate::ids::{Generation, ServiceName};
use crate::observed::Observed;
use crate::plan::Plan;
use crate::reason::Reason;

use replica::replica_statuses;
pub use replica::{Phase, ReplicaStatus};

/// What is, of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// The newest generation of the desired state that this status has taken into account.
    pub observed_generation: Generation,
    /// How many replicas are desired.
    pub replicas: u32,
    /// How many members have a replica that gets traffic.
    pub ready: u32,
    /// How many members have a ready replica of the desired revision.
    pub updated: u32,
    /// The desired revision, if its image could be resolved.
    pub revision: Option<String>,
    /// `Available`, `Progressing`, `Degraded`.
    pub conditions: Vec<Condition>,
    /// Every replica, and every member that waits for one.
    pub members: Vec<ReplicaStatus>,
    /// When the counts above last changed: the progress deadline counts from here.
    pub progressed_at: Timestamp,
}

/// One aspect of a service's health.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which aspect.
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// Whether it holds.
    pub status: bool,
    /// Why, in one word.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// Since when `status` has been as it is.
    pub since: Timestamp,
}

/// The aspects of a service's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionKind {
    /// At least one replica gets traffic, or none is wanted.
    Available,
    /// Something is still to be done.
    Progressing,
    /// Something keeps it from being done.
    Degraded,
}

impl ServiceStatus {
    /// The condition of a kind.
    pub fn condition(&self, kind: ConditionKind) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Whether all is as desired and nothing is left to do.
    pub fn is_converged(&self) -> bool {
        self.condition(ConditionKind::Progressing).is_some_and(|condition| !condition.status)
    }
}

/// The status of every service. `previous` gives the times since when conditions have held.
pub fn status(
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
    previous: &BTreeMap<ServiceName, ServiceStatus>,
) -> BTreeMap<ServiceName, ServiceStatus> {
    let of = |(name, service)| {
        let one = service_status(name, service, desired, observed, plan, previous.get(name));
        (name.clone(), one)
    };
    desired.services.iter().map(of).collect()
}

fn service_status(
    name: &ServiceName,
    service: &DesiredService,
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
    previous: Option<&ServiceStatus>,
) -> ServiceStatus {
    let revision = observed.revisions.get(name);
    let wanted = revision.and_then(|revision| revision.as_ref().ok());
    let members = replica_statuses(name, service, observed, plan);
    let ready = plan.serving.get(name).map_or(0, BTreeMap::len) as u32;
    let updated =
        members.iter().filter(|m| m.phase == Phase::Ready && m.updated && wanted.is_some()).count() as u32;
    let replicas = service.members.len() as u32;
    let converged = !service.deleting
        && observed.list_error.is_none()
        && observed.handshake.is_in_force(observed.now)
        && (ready, updated) == (replicas, replicas)
        && members.iter().all(|m| matches!(m.phase, Phase::Ready | Phase::Exited))
        && !plan.actions.iter().any(|action| action.name().service == *name);
    let counts = (service.generation, replicas, ready, updated);
    let progressed_at = match previous {
        Some(p)
            if counts == (p.observed_generation.min(service.generation), p.replicas, p.ready, p.updated) =>
        {
            p.progressed_at
        }
        _ => observed.now,
    };
    // Draining takes the time that it was given: only places that are not filled as desired are stuck.
    let open = !service.deleting && (ready, updated) != (replicas, replicas);
    let stuck = open && observed.now.since(progressed_at) >= service.spec.strategy.progress_deadline.0;
    let degraded = degradation(name, observed, plan, &members, stuck, service);
    let available = ready > 0 || replicas == 0;
    let progress = format!("{ready} of {replicas} ready, {updated} updated");
    let made = [
        (
            ConditionKind::Available,
            available,
            if available { Reason::Ready } else { Reason::NoReplicaReady },
            progress.clone(),
        ),
        (
            ConditionKind::Progressing,
            !converged,
            if converged { Reason::Converged } else { Reason::Reconciling },
            progress,
        ),
        match degraded {
            Some((reason, message)) => (ConditionKind::Degraded, true, reason, message),
            None => (ConditionKind::Degraded, false, Reason::Healthy, String::new()),
        },
    ];
    let conditions = made.map(|(kind, status, reason, message)| {
        let before = previous.and_then(|p| p.condition(kind)).filter(|before| before.status == status);
        let since = before.map_or(observed.now, |before| before.since);
        Condition { kind, status, reason, message, since }
    });
    ServiceStatus {
        observed_generation: desired.generation,
        replicas,
        ready,
        updated,
        revision: wanted.map(ToString::to_string),
        conditions: conditions.into(),
        members,
        progressed_at,
    }
}

/// The one reason that matters most to a person, if anything is wrong.
fn degradation(
    name: &ServiceName,
    observed: &Observed,
    plan: &Plan,
    members: &[ReplicaStatus],
    stuck: bool,
    service: &DesiredService,
) -> Option<(Reason, String)> {
    if let Some(error) = &observed.list_error {
        return Some((Reason::EngineUnreachable, format!("{error}; traffic goes on to what was ready")));
    }
    if let Some(Err(error)) = observed.revisions.get(name) {
        return Some((Reason::TemplateUnresolved, error.clone()));
    }
    let silent = plan.draining.keys().filter(|replica| replica.service == *name).find_map(|replica| {
        match observed.handshake.drain_state(replica, observed.now) {
            DrainState::Unacknowledged(waited) if waited >= ACKNOWLEDGE_TIMEOUT => Some(waited),
            _ => None,
        }
    });
    if let Some(waited) = silent {
        return Some((Reason::DataPlaneSilent, removals_wait(waited)));
    }
    if let Some(crashing) = crash_loop(name, observed, members) {
        return Some((Reason::CrashLoopBackOff, crashing));
    }
    if stuck {
        let waiting = members.iter().find(|m| m.phase != Phase::Ready && !m.message.is_empty());
        let why = waiting.map_or(String::new(), |m| format!("; {}: {}", m.name, m.message));
        let deadline = service.spec.strategy.progress_deadline;
        return Some((Reason::ProgressDeadlineExceeded, format!("no progress for {deadline}{why}")));
    }
    None
}

/// A member that has failed more than once in a row and is not back, whether its next try waits or runs.
fn crash_loop(name: &ServiceName, observed: &Observed, members: &[ReplicaStatus]) -> Option<String> {
    let is_back =
        |ordinal| members.iter().any(|m| m.ordinal == ordinal && m.phase == Phase::Ready && m.updated);
    members.iter().filter(|member| !is_back(member.ordinal)).find_map(|member| {
        let past = observed.history.member(name, member.ordinal).filter(|past| past.failures > 1)?;
        let waiting =
            members.iter().find(|m| m.ordinal == member.ordinal && m.phase == Phase::CrashLoopBackOff);
        let message = waiting.map_or_else(|| failed(past), |waiting| waiting.message.clone());
        Some(format!("{}: {message}", member.name))
    })
}

fn failed(past: &MemberHistory) -> String {
    let last = past.last_failure.as_deref().unwrap_or("unknown");
    format!("failed {} times in a row, last: {last}", past.failures)
}

fn removals_wait(waited: Duration) -> String {
    format!(
        "the data plane has not acknowledged the newest snapshot for {} s: removals wait until it does",
        waited.as_secs()
    )
}
