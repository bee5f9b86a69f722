//! The world as one pass of the loop sees it: a value, gathered before anything is decided.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::debut::Debuts;
use crate::handshake::Handshake;
use crate::history::History;
use crate::ids::{ReplicaName, Revision, ServiceName};
use crate::rollout::Release;

/// What a runtime calls a replica: a container id, a process's record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuntimeId(pub String);

/// Where a replica is in its life, as its runtime tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum ReplicaState {
    /// Made, not started. Becomes `Running`, or stays so when the start failed.
    Created,
    /// Running. Becomes any of the following.
    Running,
    /// Frozen by someone (`docker pause`, SIGSTOP is not seen here). Becomes `Running` when resumed.
    Paused,
    /// Its process has ended. Final: a member's place is filled by a new replica.
    Exited(ExitInfo),
    /// The engine is removing it. Final.
    Removing,
}

/// How a replica's process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitInfo {
    /// The exit code, 128 + n after signal n; unknown if the runtime could not tell.
    pub code: Option<i32>,
    /// Killed for using more memory than its limit.
    pub out_of_memory: bool,
    /// The runtime's own words, for instance why a start failed.
    pub message: Option<String>,
}

impl std::fmt::Display for ExitInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            Some(code) => write!(f, "exit code {code}")?,
            None => f.write_str("exit code unknown")?,
        }
        if self.out_of_memory {
            f.write_str(", out of memory")?;
        }
        match &self.message {
            Some(message) => write!(f, ", {message}"),
            None => Ok(()),
        }
    }
}

/// A replica as its runtime lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeReplica {
    /// The runtime's id of it.
    pub id: RuntimeId,
    /// Which place it fills, from its labels: renaming a container does not change it.
    pub name: ReplicaName,
    /// The name that it has on the engine now; differs from `name` when somebody renamed it.
    pub engine_name: String,
    /// What it runs.
    pub revision: Revision,
    /// Where it is in its life.
    pub state: ReplicaState,
    /// Where it answers, while it runs and is attached to our network.
    pub address: Option<SocketAddr>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The host name that it was made with, if its member has one.
    pub host: Option<String>,
}

/// A replica as the planner sees it: the runtime's view and ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The runtime's id; none while it is being created.
    pub id: Option<RuntimeId>,
    /// Which place it fills.
    pub name: ReplicaName,
    /// The name that it has on the engine now.
    pub engine_name: String,
    /// What it runs.
    pub revision: Revision,
    /// Where it is in its life.
    pub state: ReplicaState,
    /// Where it answers.
    pub address: Option<SocketAddr>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The host name that it was made with, if its member has one.
    pub host: Option<String>,
    /// What the probes say.
    pub health: Health,
    /// An action of ours on it that has not ended, or that no list has confirmed yet.
    pub pending: Option<Pending>,
    /// What somebody did to it that a list does not show, or that could not be undone.
    pub drift: Drift,
}

/// What somebody did to a replica by hand, beside what its state, name and address show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drift {
    /// Its limits were changed.
    pub limits: bool,
    /// Why the last repair failed, while the next one waits.
    pub unrepaired: Option<String>,
}

impl Replica {
    /// Whether it runs or is about to: it fills its member's place.
    pub fn is_live(&self) -> bool {
        matches!(self.state, ReplicaState::Created | ReplicaState::Running | ReplicaState::Paused)
    }

    /// Whether it may get traffic.
    pub fn is_ready(&self) -> bool {
        self.state == ReplicaState::Running
            && self.address.is_some()
            && self.health.ready_since.is_some()
            && self.health.stopping_since.is_none()
            && self.pending != Some(Pending::Remove)
    }
}

/// What the probes say of a replica, and the engine's hint that somebody is ending it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Its startup probe has succeeded.
    pub started: bool,
    /// Since when its readiness probe has been good; none while it is not.
    pub ready_since: Option<Timestamp>,
    /// It has been ready before.
    pub was_ready: bool,
    /// Since when its liveness or its startup probe has been failing beyond its threshold.
    pub dead_since: Option<Timestamp>,
    /// Since when somebody has been stopping it: it was sent a signal that is to end it.
    pub stopping_since: Option<Timestamp>,
    /// Why the last probe failed.
    pub last_failure: Option<String>,
}

/// An action of ours that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// It is being created and started.
    Create,
    /// It is being stopped and removed.
    Remove,
    /// It is being resumed or renamed back.
    Repair,
}

/// Everything that a plan follows from, besides the desired state.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The time of this pass.
    pub now: Timestamp,
    /// Why the last list failed, if it did: then the replicas are those last known, and nothing is destroyed.
    pub list_error: Option<String>,
    /// All replicas of ours.
    pub replicas: Vec<Replica>,
    /// The revision that each service's template resolves to, or why it does not (an image that is missing).
    pub revisions: BTreeMap<ServiceName, Result<Revision, String>>,
    /// The last release of each service of which every replica was ready.
    pub stable: BTreeMap<ServiceName, Release>,
    /// Past failures of each member.
    pub history: History,
    /// What was published when, and what the data plane has acknowledged.
    pub handshake: Handshake,
    /// Who is new to its service's set.
    pub debuts: Debuts,
}
