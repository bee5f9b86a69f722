//! The planner: from the desired and the observed state to the actions that lead from one to the other.
//!
//! Total, deterministic and insensitive to the order of what was observed. It also says which replica of each
//! member serves, so that the snapshot leaves out whatever the plan is about to take away: publish before act.
//!
//! Deliberately absent: memory. What must be remembered (failures, publications) arrives as values.

mod member;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::Timestamp;
use crate::desired::{Desired, DesiredService};
use crate::ids::{Ordinal, ReplicaName, Revision, ServiceName};
use crate::observed::{Observed, Replica, RuntimeId};
use crate::rollout::{Progress, Rolling, Stage, Turn, stage, turns};

/// What to do, and what serves meanwhile.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The actions, in order of services and ordinals; independent of each other.
    pub actions: Vec<Action>,
    /// The replica that gets traffic, for each member that has one.
    pub serving: BTreeMap<ServiceName, BTreeMap<Ordinal, ReplicaName>>,
    /// Live replicas that are on their way out, with the reason.
    pub draining: BTreeMap<ReplicaName, RemoveReason>,
    /// Replicas that no longer serve and would again if their successors failed before `minReady` is over.
    pub standby: BTreeSet<ReplicaName>,
    /// How far each service's rollout has come.
    pub rollouts: BTreeMap<ServiceName, (Progress, Stage)>,
    /// Members that wait for their backoff to end, and until when.
    pub backing_off: BTreeMap<(ServiceName, Ordinal), Timestamp>,
    /// Deleted services of which nothing is left.
    pub finished: Vec<ServiceName>,
    /// Replicas of ours that belong to no service: reported, never touched.
    pub orphans: Vec<ReplicaName>,
    /// When to plan again even if nothing happens.
    pub wake_at: Option<Timestamp>,
}

/// One step towards the desired state.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Create and start a replica.
    Create {
        /// Its name, never used before.
        name: ReplicaName,
        /// The member's host name.
        host: Option<String>,
        /// What it runs.
        revision: Revision,
        /// Why.
        reason: CreateReason,
    },
    /// Stop a replica, if it runs, and remove it.
    Remove {
        /// Which one, by the runtime's id: never by name, which somebody may have given to another object.
        id: RuntimeId,
        /// Its name.
        name: ReplicaName,
        /// Time between its stop signal and SIGKILL; none if it has ended already.
        grace: Option<Duration>,
        /// Why.
        reason: RemoveReason,
    },
    /// Undo what somebody did to a running replica by hand.
    Repair {
        /// Which one.
        id: RuntimeId,
        /// Its name.
        name: ReplicaName,
        /// What is wrong with it.
        reason: RepairReason,
    },
}

/// Why a replica is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateReason {
    /// The member is new.
    ScaledUp,
    /// The replica that filled the place has ended, is gone or does not live.
    Replace,
    /// The replica that fills the place runs another revision.
    Outdated,
}

/// Why a replica is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveReason {
    /// Its place is no longer desired.
    ScaledDown,
    /// Its service was deleted.
    Deleted,
    /// Its successor is ready.
    Superseded,
    /// Its successor starts once it has ended.
    MakesRoom,
    /// Another replica fills the same place.
    Duplicate,
    /// It has ended.
    Ended,
    /// It was made but never started.
    NeverStarted,
    /// Its liveness probe, or its startup probe, keeps failing.
    NotAlive,
    /// Somebody is stopping it.
    Stopping,
    /// It was made for a member of another host name.
    OtherHost,
}

/// What is wrong with a running replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairReason {
    /// Somebody paused it.
    Paused,
    /// Somebody renamed it.
    Renamed,
    /// Somebody detached it from the network.
    Detached,
    /// Somebody changed its limits.
    Limits,
}

impl Action {
    /// The replica that it is about.
    pub fn name(&self) -> &ReplicaName {
        match self {
            Action::Create { name, .. } | Action::Remove { name, .. } | Action::Repair { name, .. } => name,
        }
    }
}

impl Plan {
    /// Asks to be made again at `at`, or earlier if something asks for that.
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Decides.
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let mut by_service: BTreeMap<&ServiceName, BTreeMap<Ordinal, Vec<&Replica>>> = BTreeMap::new();
    for replica in &observed.replicas {
        let ordinals = by_service.entry(&replica.name.service).or_default();
        ordinals.entry(replica.name.ordinal).or_default().push(replica);
    }
    for ordinals in by_service.values_mut() {
        for replicas in ordinals.values_mut() {
            replicas.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        }
    }
    for (name, service) in &desired.services {
        let replicas = by_service.remove(name).unwrap_or_default();
        if service.deleting && replicas.is_empty() {
            plan.finished.push(name.clone());
        }
        plan_service(name, service, &replicas, observed, &mut plan);
    }
    plan.orphans
        .extend(by_service.into_values().flat_map(BTreeMap::into_values).flatten().map(|r| r.name.clone()));
    if observed.list_error.is_some() {
        // What cannot be seen is not acted upon: no destruction on a guess, no creation beside the unseen.
        plan.actions.clear();
        plan.finished.clear();
    }
    plan
}

fn plan_service(
    name: &ServiceName,
    service: &DesiredService,
    replicas: &BTreeMap<Ordinal, Vec<&Replica>>,
    observed: &Observed,
    plan: &mut Plan,
) {
    let revision = observed.revisions.get(name).and_then(|revision| revision.as_ref().ok());
    let members: BTreeSet<Ordinal> = service.members.iter().map(|member| member.ordinal).collect();
    let mut places = Vec::new();
    for (ordinal, replicas) in replicas {
        if !members.contains(ordinal) {
            let reason = if service.deleting { RemoveReason::Deleted } else { RemoveReason::ScaledDown };
            for replica in replicas {
                member::drop_replica(replica, reason, service, observed, plan);
            }
        }
    }
    let strategy = &service.spec.strategy;
    for member in &service.members {
        let found = replicas.get(&member.ordinal).map_or(&[][..], Vec::as_slice);
        places.push((member.ordinal, member::Place::of(name, member, found, revision, strategy, observed)));
    }
    let stable = observed.stable.get(name).map(|release| &release.revision);
    let rolling = Rolling {
        strategy,
        rollout: &service.rollout,
        wanted: revision,
        stable_differs: stable.map(|stable| Some(stable) != revision),
    };
    let views: Vec<_> = places.iter().map(|(_, place)| place.view(revision, observed)).collect();
    let progress = rolling.progress(&views);
    plan.rollouts.insert(name.clone(), (progress, stage(&rolling, progress)));
    let given = turns(&rolling, &views);
    let serving = plan.serving.entry(name.clone()).or_default();
    for ((ordinal, place), view) in places.iter().zip(&views) {
        // On an engine that is away nobody can take over: what has not begun to go stays in service.
        let goes = given[ordinal] == Turn::StopFirst && (view.withdrawn || observed.list_error.is_none());
        if let Some(replica) = place.serving.filter(|_| !goes) {
            serving.insert(*ordinal, replica.name.clone());
        }
        plan.standby.extend(place.standby.map(|replica| replica.name.clone()));
    }
    let releases = member::Releases { wanted: revision, stable };
    for (ordinal, place) in &places {
        member::plan_place(place, service, releases, given[ordinal], observed, plan);
    }
}

impl fmt::Display for CreateReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CreateReason::ScaledUp => "its place is empty",
            CreateReason::Replace => "the replica before it has failed",
            CreateReason::Outdated => "the template has changed",
        })
    }
}

impl fmt::Display for RemoveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RemoveReason::ScaledDown => "scaled down",
            RemoveReason::Deleted => "the service was deleted",
            RemoveReason::Superseded => "its successor is ready",
            RemoveReason::MakesRoom => "its successor starts once it has ended",
            RemoveReason::Duplicate => "another replica fills its place",
            RemoveReason::Ended => "it has ended",
            RemoveReason::NeverStarted => "it was never started",
            RemoveReason::NotAlive => "its liveness or startup probe keeps failing",
            RemoveReason::Stopping => "somebody is stopping it",
            RemoveReason::OtherHost => "its place belongs to another host name now",
        })
    }
}

impl fmt::Display for RepairReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RepairReason::Paused => "somebody paused it",
            RepairReason::Renamed => "somebody renamed it",
            RepairReason::Detached => "somebody detached it from the network",
            RepairReason::Limits => "somebody changed its limits",
        })
    }
}
