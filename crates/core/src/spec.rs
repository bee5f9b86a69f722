//! What a manifest can say: the wire types shared by YAML, the admin API and the CLI.
//!
//! Each field is documented where it stands (the JSON Schema and the error texts are made from here), each
//! default is a named function or constant. Parsing, limits and rules between fields are in
//! [`crate::manifest`].

mod autoscale;
mod balancing;
mod defaults;
mod gateway;
mod lifecycle;
mod probes;
mod resilience;
mod strategy;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use autoscale::Autoscale;
pub(crate) use balancing::ONE_OR_MANY;
pub use balancing::{
    AssignmentHash, AssignmentSpec, Balancing, HashKeys, HashOn, OnCollision, Policy, Probing,
    REQUEST_HASH_DEFAULT, Successor, VIRTUAL_SERVER_HASH_DEFAULT,
};
pub use gateway::{AccessLog, AssignmentApiSpec, ClientLimits, GatewaySpec, ListenerSpec, Network};
pub use lifecycle::{Lifecycle, PreStop, StopSignal};
pub use probes::{Exec, HttpGet, Probe, Probes, StatusRange, TcpSocket};
pub use resilience::{Ejection, HedgeAfter, Resilience};
pub use strategy::{Rollback, Strategy, StrategyKind};

use crate::quantity::{Cpu, Memory};

/// Most replicas that one service may ask for.
pub const REPLICAS_MAX: u32 = 1_000;

/// The apiVersion that this version reads and writes.
pub const API_VERSION: &str = "ringmaster/v1";

/// A service: N replicas of one template behind one balancing policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// How many replicas to keep running. Left out, `apply` keeps the live count (1 for a new service).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<u32>,
    /// Sets the count by the load. Default: none, the count is `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<Autoscale>,
    /// What to run. A changed template is a new revision; `strategy` says how it replaces the replicas.
    pub template: Template,
    /// When a replica gets traffic, and when it is replaced.
    #[serde(default)]
    pub probes: Probes,
    /// How replicas are replaced.
    #[serde(default)]
    pub strategy: Strategy,
    /// Which replica a request goes to.
    #[serde(default)]
    pub balancing: Balancing,
    /// What happens to a request whose replica fails.
    #[serde(default)]
    pub resilience: Resilience,
    /// Which requests belong to this service.
    #[serde(default)]
    pub route: RouteSpec,
}

/// What a replica runs. `image` is for the docker runtime, `process` for the process runtime.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Template {
    /// The image that the docker runtime runs, such as `ringmaster/replica:dev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// When the docker runtime pulls the image.
    #[serde(default)]
    pub pull_policy: PullPolicy,
    /// What the process runtime runs, where no engine answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessTemplate>,
    /// The port on which a replica listens (docker). The process runtime assigns one and says it in `PORT`.
    #[serde(default = "defaults::default_port")]
    #[schemars(range(min = 1))]
    pub port: u16,
    /// Environment variables. `SERVER_ID`, `HOSTNAME` and `PORT` are set by Ringmaster.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Replaces the image's entry point (docker).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Replaces the image's arguments (docker).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The working directory. Default: the image's, or the daemon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// The user, as `uid`, `uid:gid` or a name in the image (docker).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Folders and volumes to mount (docker).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Limits on what a replica may use (docker).
    #[serde(default)]
    pub resources: Resources,
    /// How closely a replica is confined (docker).
    #[serde(default)]
    pub security_context: SecurityContext,
    /// How much of a replica's output is kept.
    #[serde(default)]
    pub logs: LogLimits,
    /// How a replica is asked to end.
    #[serde(default, skip_serializing_if = "Lifecycle::is_default")]
    pub lifecycle: Lifecycle,
}

impl Template {
    /// What it runs, in one line: the image, or the command.
    pub fn runs(&self) -> String {
        let command = || self.process.as_ref().map(|process| process.command.join(" "));
        self.image.clone().or_else(command).unwrap_or_default()
    }
}

/// When the docker runtime pulls an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PullPolicy {
    /// Pull only what the engine does not have.
    #[default]
    IfNotPresent,
    /// Pull before each new revision.
    Always,
    /// Never pull: the image must be there.
    Never,
}

/// What the process runtime runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProcessTemplate {
    /// The program and its arguments. A first word `ringmaster` is the daemon's own binary.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
}

/// A mount (docker).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// An absolute path of the host, or the name of an engine volume.
    pub source: String,
    /// The absolute path inside the replica.
    pub target: String,
    /// Mounted read-only.
    #[serde(default)]
    pub read_only: bool,
}

/// Limits on what a replica may use (docker).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// Processor time, such as `500m` (half a core). Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory; a replica that uses more is killed. Default 512Mi.
    #[serde(default = "defaults::default_memory")]
    pub memory: Memory,
    /// Processes and threads. Default 256.
    #[serde(default = "defaults::default_pids")]
    #[schemars(range(min = 1))]
    pub pids: u32,
}

/// How closely a replica is confined (docker).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecurityContext {
    /// The profile.
    #[serde(default)]
    pub profile: SecurityProfile,
}

/// A set of confinements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SecurityProfile {
    /// Stock images run: no new privileges, limits, the engine's capabilities less MKNOD, NET_RAW,
    /// AUDIT_WRITE, SYS_CHROOT and SETFCAP.
    #[default]
    Baseline,
    /// All capabilities dropped, read-only root with a tmpfs on /tmp, not root.
    Restricted,
}

/// How much of a replica's output is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogLimits {
    /// Size of one log file. Default 10Mi.
    #[serde(default = "defaults::default_log_size")]
    pub max_size: Memory,
    /// How many files are kept. Default 3.
    #[serde(default = "defaults::default_log_files")]
    #[schemars(range(min = 1, max = 100))]
    pub max_files: u32,
}

/// Which requests belong to a service. The longest matching prefix wins, a named host before `*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSpec {
    /// Host names without port; `*` is any. Default `["*"]`.
    #[serde(default = "defaults::default_hosts")]
    pub hosts: Vec<String>,
    /// Matches whole path segments: `/api` matches `/api` and `/api/x`, not `/apis`. Default `/`.
    #[serde(default = "defaults::default_path_prefix")]
    pub path_prefix: String,
    /// Answers carry the name of the replica that made them, such as `X-Ringmaster-Replica: web-1`. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replica_header: bool,
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpu: None, memory: defaults::default_memory(), pids: defaults::default_pids() }
    }
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { max_size: defaults::default_log_size(), max_files: defaults::default_log_files() }
    }
}

impl Default for RouteSpec {
    fn default() -> Self {
        Self {
            hosts: defaults::default_hosts(),
            path_prefix: defaults::default_path_prefix(),
            replica_header: false,
        }
    }
}
