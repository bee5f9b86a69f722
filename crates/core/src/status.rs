//! The status of every service, as people and scripts read it: counts, conditions, and each replica's state
//! with its reason.

mod remembered;
mod replica;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::autoscale::AutoscaleStatus;
use crate::desired::{Desired, DesiredService};
use crate::handshake::{ACKNOWLEDGE_TIMEOUT, DrainState};
use crate::history::MemberHistory;
use crate::ids::{Generation, Revision, ServiceName};
use crate::observed::Observed;
use crate::plan::Plan;
use crate::reason::Reason;
use crate::rollout::{FailedRelease, Stage};

pub use remembered::{Held, Recollection, Remembered};
use replica::replica_statuses;
pub use replica::{FailureStatus, Phase, ReplicaStatus};

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
    /// How far its rollout has come.
    #[serde(default)]
    pub rollout: RolloutStatus,
    /// When the counts above last changed: the progress deadline counts from here.
    pub progressed_at: Timestamp,
    /// What the autoscaler has decided last; none where there is no autoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<AutoscaleStatus>,
}

/// How far the rollout of a service has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// In one word.
    pub stage: Stage,
    /// How many members have a replica of the wanted release, ready or not.
    pub updated: u32,
    /// How many of these have been ready for `minReady`.
    pub available: u32,
    /// How many may get the wanted release now: less than all while a canary waits.
    pub limit: u32,
    /// Since which generation the wanted release is wanted.
    pub since: Generation,
    /// The last release of which every replica was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<StableStatus>,
    /// The release that was given up, until another is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedStatus>,
}

/// A release that was given up. Its template stays out: it may hold secrets, and a status is read by many.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedStatus {
    /// Its short hash, if its template could be resolved.
    pub revision: Option<Revision>,
    /// The generation since which it was wanted.
    pub generation: Generation,
    /// When it was given up.
    pub at: Timestamp,
    /// Why, for people.
    pub why: String,
    /// The generation that gave it up.
    pub given_up_in: Generation,
    /// The generation since which the release was wanted that the service went back to.
    pub back_to: Generation,
}

/// The last release of which every replica was ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StableStatus {
    /// Its short hash.
    pub revision: String,
    /// The generation since which it was wanted.
    pub generation: Generation,
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
    #[serde(rename = "lastTransitionTime", alias = "since")]
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

impl FailedStatus {
    fn of(failed: &FailedRelease) -> FailedStatus {
        let FailedRelease { revision, generation, at, why, given_up_in, back_to, template: _ } = failed;
        FailedStatus {
            revision: revision.clone(),
            generation: *generation,
            at: *at,
            why: why.clone(),
            given_up_in: *given_up_in,
            back_to: *back_to,
        }
    }
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

/// What holds up all else until the engine has answered.
const UNRESOLVED: &str = "; what its template names is still being looked up, or pulled";

/// The status of every service. `previous` gives the times since when conditions have held.
pub fn status(
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
    previous: &BTreeMap<ServiceName, ServiceStatus>,
) -> BTreeMap<ServiceName, ServiceStatus> {
    status_after(desired, observed, plan, previous, &Recollection::default())
}

/// As [`status`], in a run of the daemon that goes on from what earlier ones knew.
pub fn status_after(
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
    previous: &BTreeMap<ServiceName, ServiceStatus>,
    recollection: &Recollection,
) -> BTreeMap<ServiceName, ServiceStatus> {
    let of = |(name, service)| {
        let past = Past { previous: previous.get(name), remembered: recollection.get(name) };
        (name.clone(), service_status(name, service, desired, observed, plan, past))
    };
    desired.services.iter().map(of).collect()
}

/// What is known of a service from before.
#[derive(Clone, Copy)]
struct Past<'a> {
    /// The status before this one.
    previous: Option<&'a ServiceStatus>,
    /// What an earlier run of the daemon knew, while this one still finds out.
    remembered: Option<&'a Remembered>,
}

impl Past<'_> {
    /// Since when a condition has been so, if it was.
    fn since(self, kind: ConditionKind, status: bool) -> Option<Timestamp> {
        let previous = || self.previous?.condition(kind).filter(|before| before.status == status);
        let remembered = self.remembered.and_then(|known| known.since(kind, status));
        remembered.or_else(|| previous().map(|before| before.since))
    }

    /// When these counts came about, if they are what they were: generation, desired, ready, updated.
    fn progressed_at(
        self,
        (generation, replicas, ready, updated): (Generation, u32, u32, u32),
    ) -> Option<Timestamp> {
        let counts = (replicas, ready, updated);
        let remembered = self.remembered.filter(|known| {
            known.generation >= generation && (known.replicas, known.ready, known.updated) == counts
        });
        let previous = || {
            self.previous.filter(|before| {
                before.observed_generation >= generation
                    && (before.replicas, before.ready, before.updated) == counts
            })
        };
        remembered.map(|known| known.progressed_at).or_else(|| Some(previous()?.progressed_at))
    }
}

fn service_status(
    name: &ServiceName,
    service: &DesiredService,
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
    past: Past<'_>,
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
        && plan.rollouts.get(name).is_none_or(|(_, stage)| *stage == Stage::Complete)
        && !plan.standby.iter().any(|replica| replica.service == *name)
        && !plan.actions.iter().any(|action| action.name().service == *name);
    let counts = (service.generation, replicas, ready, updated);
    let progressed_at = past.progressed_at(counts).unwrap_or(observed.now);
    // Draining takes the time that it was given: only places that are not filled as desired are stuck.
    let rollout = rollout_status(name, service, observed, plan);
    // A rollout that somebody holds is not stuck, unless it is one of whom something is missing.
    let waits = rollout.stage.is_held() && ready == replicas;
    let open = !service.deleting && (ready, updated) != (replicas, replicas) && !waits;
    let stuck = open && observed.now.since(progressed_at) >= service.spec.strategy.progress_deadline.0;
    let degraded = degradation(name, observed, plan, &members, stuck, service);
    let available = ready > 0 || replicas == 0;
    // A pull may take minutes, or never end.
    let looked_up = if revision.is_none() && !service.deleting { UNRESOLVED } else { "" };
    let progress = format!("{ready} of {replicas} ready, {updated} updated{looked_up}");
    let to_zero = service.spec.autoscale.as_ref().is_some_and(|scale| scale.scale_to_zero);
    let made = [
        match available {
            true if replicas == 0 && to_zero => {
                let why = "the next request starts a replica".to_owned();
                (ConditionKind::Available, true, Reason::ScaledToZero, why)
            }
            true => (ConditionKind::Available, true, Reason::Ready, progress.clone()),
            false => (ConditionKind::Available, false, Reason::NoReplicaReady, progress.clone()),
        },
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
        let since = past.since(kind, status).unwrap_or(observed.now);
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
        rollout,
        progressed_at,
        autoscale: None,
    }
}

fn rollout_status(
    name: &ServiceName,
    service: &DesiredService,
    observed: &Observed,
    plan: &Plan,
) -> RolloutStatus {
    let (progress, stage) = plan.rollouts.get(name).copied().unwrap_or_default();
    let stable = observed.stable.get(name).map(|release| StableStatus {
        revision: release.revision.to_string(),
        generation: release.generation,
    });
    RolloutStatus {
        stage,
        updated: progress.updated,
        available: progress.available,
        limit: progress.limit,
        since: service.rollout.since,
        stable,
        failed: service.rollout.failed.as_ref().map(FailedStatus::of),
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
        let mut why = removals_wait(waited);
        if service.deleting {
            why +=
                &format!("; if it is gone for good, `ringmaster delete --force {name}` does not wait for it");
        }
        return Some((Reason::DataPlaneSilent, why));
    }
    if let Some(crashing) = crash_loop(name, observed, members) {
        return Some((Reason::CrashLoopBackOff, crashing));
    }
    if stuck {
        let waiting = members.iter().find(|m| m.phase != Phase::Ready && !m.message.is_empty());
        let why = match waiting {
            Some(member) => format!("; {}: {}", member.name, member.message),
            None if !observed.revisions.contains_key(name) => UNRESOLVED.to_owned(),
            None => String::new(),
        };
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
