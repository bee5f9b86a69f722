//! The seam between the two halves: what the controller publishes and what the data plane reports back.
//!
//! Both are immutable values that travel through `watch` channels; between processes a snapshot travels packed
//! ([`Packer`], [`Unpacker`]). The data plane learns everything from a
//! [`Snapshot`] (it never hears of containers), the controller learns everything from a [`Report`].

mod demand;
mod packed;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::desired::Desired;
use crate::ids::{Generation, Ordinal, ReplicaName, ServiceName};
use crate::observed::Observed;
use crate::plan::Plan;
use crate::ring::explain::{Explanation, SkipReason};
use crate::ring::{KeyHash, Ring, bounded};
use crate::spec::{
    AccessLog, Balancing, ClientLimits, GatewaySpec, ListenerSpec, Network, Resilience, RouteSpec,
};

pub use demand::{Demand, Hold, ServiceReport};
pub use packed::{PackedService, PackedSnapshot, Packer, RingBytes, RingDigest, UnpackError, Unpacker};

/// The immutable routing state. A request uses exactly one per attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Grows by one with every published change.
    pub generation: Generation,
    /// Ports to listen on; empty means the data plane's own default.
    pub listeners: Vec<ListenerSpec>,
    /// The services with their routes, by name.
    pub services: BTreeMap<ServiceName, Arc<ServiceRouting>>,
    /// The service that the assignment's API edits, if it is on.
    pub assignment_api: Option<ServiceName>,
    /// How clients are met.
    pub front: Front,
}

/// How the data plane meets its clients, whatever their requests are for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Front {
    /// Who is believed about clients.
    pub trusted_proxies: Vec<Network>,
    /// What a client may take.
    pub limits: ClientLimits,
    /// Which requests are written to the log.
    pub access_log: Option<AccessLog>,
}

impl From<&GatewaySpec> for Front {
    fn from(spec: &GatewaySpec) -> Front {
        Front {
            trusted_proxies: spec.trusted_proxies.clone(),
            limits: spec.limits.clone(),
            access_log: spec.access_log.clone(),
        }
    }
}

/// How requests of one service are routed.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceRouting {
    /// The service.
    pub name: ServiceName,
    /// Which requests are its own.
    pub route: RouteSpec,
    /// The policy and what it hashes.
    pub balancing: Balancing,
    /// Replay and timeouts.
    pub resilience: Resilience,
    /// Which member owns which keys, and who comes next; ordinals without an endpoint here are skipped.
    pub ring: Ring,
    /// The replicas that get traffic, at most one per ordinal, by ordinal.
    pub endpoints: BTreeMap<Ordinal, Endpoint>,
    /// What is to be told of its requests, and what becomes of them while it has no replica; none where its count does not
    /// follow its load.
    pub demand: Option<Demand>,
}

/// A replica as the proxy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// Its name: a new attempt is a new endpoint, with its own connections and counts.
    pub replica: ReplicaName,
    /// Where it answers.
    pub address: SocketAddr,
    /// Its share by that of the others; 0 gets nothing.
    pub weight: u32,
    /// Since when it serves, if its member is new to the set and the service starts such slowly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_since: Option<Timestamp>,
}

/// What the data plane tells the controller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// The lowest generation that every worker has swapped in: no request is given to an endpoint that this
    /// generation leaves out.
    pub acknowledged: Generation,
    /// Every endpoint of the newest snapshot, and every earlier one that still has requests in flight.
    pub endpoints: BTreeMap<ReplicaName, EndpointReport>,
    /// Every service with a [`Demand`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceName, ServiceReport>,
    /// Counters of reports with different epochs cannot be compared: a data plane has come or gone.
    #[serde(default)]
    pub epoch: u64,
    /// A data plane is cut off: what it last said is not of now.
    #[serde(default)]
    pub stale: bool,
}

/// What the data plane knows of one endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointReport {
    /// Requests that have not ended: from the choice until the last upstream byte or the end of an upgrade.
    pub in_flight: u32,
    /// How many of these are streams: upgraded connections and server-sent events, which end when a client or the replica
    /// wants it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub streams: u32,
    /// Requests that chose it since it was first published.
    pub requests: u64,
    /// Tries that failed before a response began.
    pub failures: u64,
    /// The proxy alone has stopped choosing it for now.
    pub ejected: bool,
    /// Why and since when it is ejected, or on probation after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit: Option<Circuit>,
    /// How long it takes until its responses begin, of the last some hundred; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The state of an endpoint that is not simply in service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Circuit {
    /// What it was ejected for.
    pub reason: EjectReason,
    /// When that was.
    pub since: Timestamp,
    /// It is let back: single requests that could be sent elsewhere prove it.
    pub on_probation: bool,
}

/// Why the data plane leaves an endpoint out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EjectReason {
    /// Nobody listens on its port.
    Refused,
    /// There is no way to its address.
    Unreachable,
    /// A connection did not come about in time.
    ConnectTimeout,
    /// It reset a connection.
    Reset,
    /// It closed a connection instead of answering.
    NoResponse,
    /// Others answered sooner although they were asked later.
    Slow,
    /// Its answers in a row were errors of the class 5xx.
    Errors,
    /// More of its answers than of the others' were errors of the class 5xx.
    ErrorRate,
}

/// How long responses take to begin, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Latency {
    /// The smoothed mean (RFC 6298 section 2).
    pub mean_us: u64,
    /// The smoothed deviation from it.
    pub deviation_us: u64,
}

impl EjectReason {
    /// All of them.
    pub const ALL: [EjectReason; 8] = [
        EjectReason::Refused,
        EjectReason::Unreachable,
        EjectReason::ConnectTimeout,
        EjectReason::Reset,
        EjectReason::NoResponse,
        EjectReason::Slow,
        EjectReason::Errors,
        EjectReason::ErrorRate,
    ];

    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            EjectReason::Refused => "connection refused",
            EjectReason::Unreachable => "unreachable",
            EjectReason::ConnectTimeout => "connect timeout",
            EjectReason::Reset => "connection reset",
            EjectReason::NoResponse => "connection closed without a response",
            EjectReason::Slow => "slower than the others",
            EjectReason::Errors => "5xx in a row",
            EjectReason::ErrorRate => "more 5xx than the others",
        }
    }

    /// As a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            EjectReason::Refused => "refused",
            EjectReason::Unreachable => "unreachable",
            EjectReason::ConnectTimeout => "connect_timeout",
            EjectReason::Reset => "reset",
            EjectReason::NoResponse => "no_response",
            EjectReason::Slow => "slow",
            EjectReason::Errors => "errors",
            EjectReason::ErrorRate => "error_rate",
        }
    }

    /// What is known by how a connection goes; the rest is known by the answers alone.
    pub fn is_of_connections(self) -> bool {
        !matches!(self, EjectReason::Slow | EjectReason::Errors | EjectReason::ErrorRate)
    }
}

impl fmt::Display for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.on_probation { "on probation after" } else { "ejected" };
        write!(f, "{state}: {}", self.reason.as_str())
    }
}

impl ServiceRouting {
    /// Why the data plane passes a member over for a key at `now`, as far as its report tells; none if it may
    /// serve. A member without an endpoint is not ready, or on its way out: the caller knows which.
    pub fn passed_over(
        &self,
        ordinal: Ordinal,
        hash: KeyHash,
        report: &Report,
        now: Timestamp,
    ) -> Option<SkipReason> {
        let Some(endpoint) = self.endpoints.get(&ordinal) else { return Some(SkipReason::NotReady) };
        let known =
            |endpoint: &Endpoint| report.endpoints.get(&endpoint.replica).copied().unwrap_or_default();
        if known(endpoint).ejected {
            return Some(SkipReason::Ejected);
        }
        let is_held_back = |duration: Duration| {
            endpoint.new_since.is_some_and(|since| !bounded::keeps(hash, now.since(since), duration))
        };
        if self.balancing.slow_start.is_some_and(|duration| is_held_back(duration.0)) {
            return Some(SkipReason::SlowStart);
        }
        let bound = self.balancing.bounded_load?;
        let in_flight = |endpoint: &Endpoint| u64::from(known(endpoint).in_flight);
        let total = self.endpoints.values().map(in_flight).sum();
        let weights = self.endpoints.values().map(|endpoint| u64::from(endpoint.weight)).sum();
        let has_room = bounded::has_room(bound, in_flight(endpoint), total, endpoint.weight, weights);
        (!has_room).then_some(SkipReason::OverBound)
    }

    /// Why a key goes where it goes at `now`: see [`ServiceRouting::passed_over`].
    pub fn explain(&self, key: &[u8], report: &Report, now: Timestamp) -> Explanation {
        let hash = self.ring.hash(key);
        let explanation =
            Explanation::of(&self.ring, key, |ordinal| self.passed_over(ordinal, hash, report, now));
        let circuit = |(ordinal, endpoint): (&Ordinal, &Endpoint)| {
            Some((*ordinal, report.endpoints.get(&endpoint.replica)?.circuit?))
        };
        let circuits = self.endpoints.iter().filter_map(circuit).collect();
        Explanation { circuits, at: Some(now), ..explanation }
    }
}

impl Default for Snapshot {
    /// The snapshot before the first one is published: nothing is routed.
    fn default() -> Self {
        Self {
            generation: Generation(0),
            listeners: Vec::new(),
            services: BTreeMap::new(),
            assignment_api: None,
            front: Front::default(),
        }
    }
}

impl Report {
    /// What several data planes say together, in the words of one: what the slowest has acknowledged, the requests of
    /// all, and an ejection by any. None of nobody.
    pub fn together<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Option<Report> {
        let mut reports = reports.into_iter();
        let mut all = reports.next()?.clone();
        for report in reports {
            all.acknowledged = all.acknowledged.min(report.acknowledged);
            for (name, more) in &report.endpoints {
                let sum = all.endpoints.entry(name.clone()).or_default();
                sum.in_flight = sum.in_flight.saturating_add(more.in_flight);
                sum.streams = sum.streams.saturating_add(more.streams);
                sum.requests = sum.requests.saturating_add(more.requests);
                sum.failures = sum.failures.saturating_add(more.failures);
                sum.ejected |= more.ejected;
                sum.circuit = sum.circuit.or(more.circuit);
                sum.latency = sum.latency.max(more.latency);
            }
            for (name, more) in &report.services {
                all.services.entry(name.clone()).or_default().add(more);
            }
        }
        Some(all)
    }
}

impl Snapshot {
    /// Whether both route alike, whatever their generations.
    pub fn routes_like(&self, other: &Snapshot) -> bool {
        self.listeners == other.listeners
            && self.assignment_api == other.assignment_api
            && self.front == other.front
            && self.services == other.services
    }

    /// All endpoints of all services.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.services.values().flat_map(|service| service.endpoints.values())
    }
}

/// The routing state that follows from a plan: what is ready, less what the plan takes out of service.
///
/// The caller compares it with the published one by [`Snapshot::routes_like`] and gives it the next
/// generation when it differs.
pub fn snapshot(desired: &Desired, observed: &Observed, plan: &Plan, generation: Generation) -> Snapshot {
    let mut services = BTreeMap::new();
    // A deleted service has given up its route: another may have taken it already.
    for (name, service) in desired.services.iter().filter(|(_, service)| !service.deleting) {
        let mut endpoints = BTreeMap::new();
        for (ordinal, replica) in plan.serving.get(name).into_iter().flatten() {
            let found = observed.replicas.iter().find(|r| r.name == *replica);
            if let Some(address) = found.and_then(|r| r.address) {
                let new_since = observed.debuts.new_since(name, *ordinal, observed.now);
                let endpoint = Endpoint {
                    replica: replica.clone(),
                    address,
                    weight: service.spec.balancing.weight(*ordinal),
                    new_since: new_since.filter(|_| service.spec.balancing.slow_start.is_some()),
                };
                endpoints.insert(*ordinal, endpoint);
            }
        }
        let routing = ServiceRouting {
            name: name.clone(),
            route: service.spec.route.clone(),
            balancing: service.spec.balancing.clone(),
            resilience: service.spec.resilience.clone(),
            ring: service.ring.clone(),
            endpoints,
            demand: service.spec.autoscale.as_ref().map(Demand::of),
        };
        services.insert(name.clone(), Arc::new(routing));
    }
    Snapshot {
        generation,
        listeners: desired.gateway.listeners.clone(),
        services,
        assignment_api: desired.gateway.assignment_api.as_ref().map(|api| api.service.clone()),
        front: Front::from(&desired.gateway),
    }
}
