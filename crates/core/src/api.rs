//! What the admin API and its client say to each other, besides specs and statuses.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::event::Event;
use crate::ids::{Generation, Ordinal, ServiceName};
use crate::ring::stats::Spread;
use crate::ring::{Ring, Share};
use crate::spec::{GatewaySpec, Policy, ServiceSpec, Template};
use crate::status::ServiceStatus;
use crate::traffic::TrafficMoved;

/// One file of an `apply`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManifestFile {
    /// The name to show in errors; `-` for standard input.
    pub file: String,
    /// Its content.
    pub text: String,
}

/// Makes the desired state what the files say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplyRequest {
    /// The files; all of them or nothing.
    pub files: Vec<ManifestFile>,
    /// Delete services that the files do not name.
    #[serde(default)]
    pub prune: bool,
    /// Only tell what would change.
    #[serde(default)]
    pub dry_run: bool,
    /// Refuse a change by which more than this share of a service's keys gets another owner, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_move: Option<f64>,
    /// Take up another template even while a rollout is under way, and one that has failed before.
    #[serde(default)]
    pub force: bool,
}

/// What an `apply` changed, or would.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplyResponse {
    /// The generation of the desired state that contains the change.
    pub generation: Generation,
    /// Each service that the files name or that is pruned.
    pub services: Vec<ServiceChange>,
    /// The gateway before and after, if it changes.
    pub gateway: Option<GatewayChange>,
}

/// What happens to one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceChange {
    /// The service.
    pub name: ServiceName,
    /// In one word.
    pub change: Change,
    /// The live spec before; none for a new service.
    pub before: Option<ServiceSpec>,
    /// The spec after; none for a deleted service.
    pub after: Option<ServiceSpec>,
    /// The share of all keys that get another owner, from 0 to 1.
    pub keys_moved: f64,
    /// Whether that share is counted, and not estimated from a sample of keys.
    pub keys_moved_exact: bool,
    /// What that means for the requests of the last minutes, where the data plane has seen some with a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficMoved>,
    /// Largest share of keys by the mean one, before and after; 0 without replicas.
    pub max_over_mean: (f64, f64),
    /// The template changes: every replica is replaced, as `strategy` says.
    pub rollout: bool,
}

/// The gateway before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayChange {
    /// As it was.
    pub before: GatewaySpec,
    /// As it will be.
    pub after: GatewaySpec,
}

/// What happens to a service, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// It is new.
    Created,
    /// It changes.
    Configured,
    /// It stays as it is.
    Unchanged,
    /// It goes.
    Deleted,
}

impl ApplyResponse {
    /// Whether anything changes.
    pub fn changes(&self) -> bool {
        self.gateway.is_some() || self.services.iter().any(|service| service.change != Change::Unchanged)
    }
}

/// Who owns how much of a ring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RingView {
    /// The policy.
    pub policy: Policy,
    /// How it places keys, in one line.
    pub description: String,
    /// Every member, by ordinal.
    pub replicas: Vec<RingShare>,
    /// The largest share by the mean one.
    pub max_over_mean: f64,
    /// The smallest share by the mean one.
    pub min_over_mean: f64,
    /// The standard deviation of the shares, which are fractions of 1.
    pub stddev: f64,
    /// The share of all keys that would get another owner, from 0 to 1; only where another number of replicas was asked
    /// for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_moved: Option<f64>,
    /// Whether that share is counted, and not estimated from a sample of keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_moved_exact: Option<bool>,
}

/// One member's part of a ring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RingShare {
    /// Its place.
    pub ordinal: Ordinal,
    /// The name that people use: `<service>-<ordinal>`.
    pub name: String,
    /// Slots or points that it owns; 0 where the policy has none.
    pub slots: u64,
    /// Its share of all keys, from 0 to 1.
    pub share: f64,
}

impl RingView {
    /// The view of a service's ring.
    pub fn of(service: &ServiceName, ring: &Ring) -> RingView {
        let shares = ring.shares();
        let spread = Spread::of(&shares);
        let replica = |share: Share| RingShare {
            ordinal: share.ordinal,
            name: format!("{service}-{}", share.ordinal),
            slots: share.slots,
            share: share.share,
        };
        RingView {
            policy: ring.policy(),
            description: ring.describe(),
            replicas: shares.into_iter().map(replica).collect(),
            max_over_mean: spread.max_over_mean,
            min_over_mean: spread.min_over_mean,
            stddev: spread.stddev,
            keys_moved: None,
            keys_moved_exact: None,
        }
    }

    /// With what the change from one ring to the other moves.
    #[must_use]
    pub fn after(self, before: &Ring, after: &Ring) -> RingView {
        let moved = before.moved_to(after);
        RingView { keys_moved: Some(moved.share), keys_moved_exact: Some(moved.is_exact), ..self }
    }
}

/// Sets the live replica count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScaleRequest {
    /// How many.
    pub replicas: u32,
}

/// The templates that a service has had, as far back as they are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionList {
    /// Oldest first, each template once; the last one is in force.
    pub revisions: Vec<TemplateRevision>,
    /// The revision that `rollback` goes back to unless it is told another.
    pub previous: Option<Generation>,
    /// Revisions that should be there and cannot be read, with the reason: what they held is not in the list.
    pub lost: Vec<String>,
    /// The daemon's time.
    pub now: Timestamp,
}

/// A template that a service has had.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateRevision {
    /// The generation of the desired state since which it was in force, the last time that it was.
    pub revision: Generation,
    /// When that was written.
    pub at: Option<Timestamp>,
    /// The template.
    pub template: Template,
    /// What it runs, in one line.
    pub runs: String,
    /// It is in force.
    pub current: bool,
    /// Whether every replica of it was ready at once; none if that is not known.
    #[serde(default)]
    pub ready: Option<bool>,
}

/// Makes an earlier template of a service the one in force.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RollbackRequest {
    /// Of which revision; none is the template before the one in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_revision: Option<Generation>,
}

/// What a rollback did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RollbackResponse {
    /// The generation of the desired state that contains the change.
    pub generation: Generation,
    /// The revision whose template is in force again.
    pub revision: Generation,
    /// What that runs, in one line.
    pub runs: String,
}

/// What is to happen to a service's rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RolloutAction {
    /// Touch no further place until it is resumed.
    Pause,
    /// Go on.
    Resume,
    /// The canary is good: the other replicas follow.
    Promote,
    /// Replace every replica by another of the same template.
    Restart,
}

/// Changes a service's rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutRequest {
    /// How.
    pub action: RolloutAction,
}

/// What that did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutResponse {
    /// The generation of the desired state that contains the change.
    pub generation: Generation,
}

/// Which lines the daemon logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogFilter {
    /// A level, or `target=level` with commas between.
    pub filter: String,
}

/// Sends a signal to a replica's process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultRequest {
    /// `KILL`, `TERM`, `STOP` or `CONT`.
    pub signal: String,
}

/// One service: what should be and what is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// Its name.
    pub name: ServiceName,
    /// The generation of its last change.
    pub generation: Generation,
    /// Its live spec.
    pub spec: ServiceSpec,
    /// It is being deleted.
    pub deleting: bool,
    /// What is; none until the loop has seen it.
    pub status: Option<ServiceStatus>,
}

/// Everything at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// The generation of the desired state.
    pub generation: Generation,
    /// The daemon's time, to which all timestamps relate.
    pub now: Timestamp,
    /// All services.
    pub services: Vec<ServiceView>,
    /// The gateway.
    pub gateway: GatewaySpec,
    /// About the daemon.
    pub daemon: DaemonInfo,
}

/// About the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DaemonInfo {
    /// Its version.
    pub version: String,
    /// Which runtime: `docker` or `process`.
    pub runtime: String,
    /// Its instance name.
    pub instance: String,
    /// Where the data plane listens.
    pub listeners: Vec<String>,
    /// Why the engine cannot be reached, if so.
    pub engine_error: Option<String>,
    /// Faults may be injected.
    pub faults_allowed: bool,
}

/// The timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventList {
    /// Oldest first.
    pub events: Vec<Event>,
    /// The daemon's time.
    pub now: Timestamp,
}

/// Why a request was refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// What failed, on what, and what to do.
    pub error: String,
}
