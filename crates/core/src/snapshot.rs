//! The seam between the two halves: what the controller publishes and what the data plane reports back.
//!
//! Both are immutable values that travel through `watch` channels. The data plane learns everything from a
//! [`Snapshot`] (it never hears of containers), the controller learns everything from a [`Report`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::desired::Desired;
use crate::ids::{Generation, Ordinal, ReplicaName, ServiceName};
use crate::observed::Observed;
use crate::plan::Plan;
use crate::ring::Ring;
use crate::spec::{Balancing, ListenerSpec, Resilience, RouteSpec};

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
}

/// A replica as the proxy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name: a new attempt is a new endpoint, with its own connections and counts.
    pub replica: ReplicaName,
    /// Where it answers.
    pub address: SocketAddr,
}

/// What the data plane tells the controller.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// The lowest generation that every worker has swapped in: no request is given to an endpoint that this
    /// generation leaves out.
    pub acknowledged: Generation,
    /// Every endpoint of the newest snapshot, and every earlier one that still has requests in flight.
    pub endpoints: BTreeMap<ReplicaName, EndpointReport>,
}

/// What the data plane knows of one endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndpointReport {
    /// Requests that have not ended: from the choice until the last upstream byte or the end of an upgrade.
    pub in_flight: u32,
    /// Requests that chose it since it was first published.
    pub requests: u64,
    /// Tries that failed before a response began.
    pub failures: u64,
    /// The proxy alone has stopped choosing it for now.
    pub ejected: bool,
}

impl Default for Snapshot {
    /// The snapshot before the first one is published: nothing is routed.
    fn default() -> Self {
        Self {
            generation: Generation(0),
            listeners: Vec::new(),
            services: BTreeMap::new(),
            assignment_api: None,
        }
    }
}

impl Snapshot {
    /// Whether both route alike, whatever their generations.
    pub fn routes_like(&self, other: &Snapshot) -> bool {
        self.listeners == other.listeners
            && self.assignment_api == other.assignment_api
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
                endpoints.insert(*ordinal, Endpoint { replica: replica.clone(), address });
            }
        }
        let routing = ServiceRouting {
            name: name.clone(),
            route: service.spec.route.clone(),
            balancing: service.spec.balancing.clone(),
            resilience: service.spec.resilience.clone(),
            ring: service.ring.clone(),
            endpoints,
        };
        services.insert(name.clone(), Arc::new(routing));
    }
    Snapshot {
        generation,
        listeners: desired.gateway.listeners.clone(),
        services,
        assignment_api: desired.gateway.assignment_api.as_ref().map(|api| api.service.clone()),
    }
}
