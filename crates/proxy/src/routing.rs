//! One worker's routing: from host and path to a service, and the service's endpoints with their pools.
//!
//! Built anew from each snapshot and swapped as a whole. An endpoint that is in both keeps its pool; one that is
//! left out closes its idle connections.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringmaster_core::quantity::Span;
use ringmaster_core::ring::select::Turns;
use ringmaster_core::snapshot::{self, Front, ServiceRouting, Snapshot};
use ringmaster_core::spec::Balancing;
use ringmaster_core::{Generation, Ordinal, ReplicaName, ServiceName, Timestamp};

use crate::key::KeySource;
use crate::queue::Waiting;
use crate::registry::{EndpointEntry, Registry, Shared};
use crate::stats::{MemberStats, ServiceStats};
use crate::upstream::Endpoint;

/// All routes of one generation.
#[derive(Default)]
pub(crate) struct Routing {
    pub(crate) generation: Generation,
    pub(crate) assignment_api: Option<ServiceName>,
    /// How clients are met.
    pub(crate) front: Rc<Front>,
    hosts: HashMap<String, Vec<Route>>,
    any_host: Vec<Route>,
    endpoints: HashMap<ReplicaName, Rc<Endpoint>>,
    waiting: HashMap<ServiceName, Rc<Waiting>>,
}

/// One path prefix of a host; the longest come first.
struct Route {
    prefix: String,
    service: Rc<Service>,
}

/// A service as a worker sees it.
pub(crate) struct Service {
    pub(crate) spec: Arc<ServiceRouting>,
    /// What is hashed: the first that a request has counts.
    pub(crate) keys: Vec<KeySource>,
    /// Whose turn it is on this worker, under `round-robin`.
    pub(crate) turns: RefCell<Turns>,
    pub(crate) stats: Arc<ServiceStats>,
    /// Who waits on this worker for a place at an endpoint.
    pub(crate) waiting: Rc<Waiting>,
    /// Who may serve, by ordinal.
    pub(crate) places: Vec<Place>,
    /// The sum of their weights.
    pub(crate) weights: u64,
    has_ramps: bool,
    by_ordinal: Vec<Option<usize>>,
}

/// An endpoint in its service.
pub(crate) struct Place {
    pub(crate) endpoint: Rc<Endpoint>,
    pub(crate) weight: u32,
    /// Of one that is new and has not taken over all that is its own.
    ramp: Option<Ramp>,
}

/// A slow start.
#[derive(Debug, Clone, Copy)]
struct Ramp {
    /// The age when `since` was read.
    age: Duration,
    since: Instant,
    duration: Duration,
}

impl Place {
    fn new(endpoint: Rc<Endpoint>, published: &snapshot::Endpoint, balancing: &Balancing) -> Place {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ramp = |(new_since, duration): (Timestamp, Span)| {
            let age = wall.saturating_sub(Duration::from_millis(new_since.0));
            (age < duration.0).then_some(Ramp { age, since: Instant::now(), duration: duration.0 })
        };
        let ramp = published.new_since.zip(balancing.slow_start).and_then(ramp);
        Place { endpoint, weight: published.weight, ramp }
    }

    /// Whether it is new, and `taken_over` (asked with its age and how long it starts slowly) does not hold yet.
    pub(crate) fn is_held_back(&self, taken_over: impl FnOnce(Duration, Duration) -> bool) -> bool {
        self.ramp.is_some_and(|ramp| {
            let age = ramp.age + ramp.since.elapsed();
            age < ramp.duration && !taken_over(age, ramp.duration)
        })
    }
}

impl Service {
    /// Requests in flight at all its endpoints, of all workers.
    pub(crate) fn in_flight(&self) -> u64 {
        self.places.iter().map(|place| u64::from(place.endpoint.stats.in_flight())).sum()
    }

    /// Whether one of the places is in its slow start.
    pub(crate) fn has_new(&self) -> bool {
        self.has_ramps && self.places.iter().any(|place| place.is_held_back(|_, _| false))
    }

    pub(crate) fn place(&self, ordinal: Ordinal) -> Option<&Place> {
        self.places.get((*self.by_ordinal.get(ordinal.index())?)?)
    }

    pub(crate) fn new(
        spec: &Arc<ServiceRouting>,
        stats: Arc<ServiceStats>,
        waiting: Rc<Waiting>,
        places: Vec<Place>,
    ) -> Service {
        let mut by_ordinal = Vec::new();
        for (position, place) in places.iter().enumerate() {
            let index = place.endpoint.replica.ordinal.index();
            if by_ordinal.len() <= index {
                by_ordinal.resize(index + 1, None);
            }
            by_ordinal[index] = Some(position);
        }
        let weights = places.iter().map(|place| u64::from(place.weight)).sum();
        let has_ramps = places.iter().any(|place| place.ramp.is_some());
        let balancing = &spec.balancing;
        let keys = balancing.hash_on.under(balancing.policy).iter().map(KeySource::new).collect();
        Service {
            spec: Arc::clone(spec),
            keys,
            turns: RefCell::default(),
            stats,
            waiting,
            places,
            weights,
            has_ramps,
            by_ordinal,
        }
    }
}

impl Routing {
    /// The routing of the newest snapshot for a worker. `previous` lends the endpoints that live on.
    pub(crate) fn newest(shared: &Arc<Shared>, worker: usize, previous: &Routing) -> Routing {
        shared.with_latest(|registry, snapshot| {
            let made = |published: &snapshot::Endpoint, known: &_, member: &_, waiting: &_| {
                Endpoint::new(worker, published, known, member, shared, waiting)
            };
            Routing::build(snapshot, registry, previous, made)
        })
    }

    fn build(
        snapshot: &Snapshot,
        registry: &Registry,
        previous: &Routing,
        made: impl Fn(&snapshot::Endpoint, &EndpointEntry, &Arc<MemberStats>, &Rc<Waiting>) -> Rc<Endpoint>,
    ) -> Routing {
        let mut routing = Routing {
            generation: snapshot.generation,
            assignment_api: snapshot.assignment_api.clone(),
            front: Rc::new(snapshot.front.clone()),
            ..Routing::default()
        };
        for (name, spec) in &snapshot.services {
            let Some(entry) = registry.services.get(name) else { continue };
            let nobody = || Rc::new(Waiting::counted_in(&entry.stats.queued));
            let waiting = previous.waiting.get(name).cloned().unwrap_or_else(nobody);
            let places = spec.endpoints.values().filter_map(|published| {
                let known = registry.endpoints.get(&published.replica)?;
                let member = entry.members.get(&published.replica.ordinal)?;
                let reused = previous.endpoints.get(&published.replica);
                let reused = reused.filter(|endpoint| Arc::ptr_eq(&endpoint.health, &known.health));
                let made = || made(published, known, member, &waiting);
                Some(Place::new(reused.cloned().unwrap_or_else(made), published, &spec.balancing))
            });
            let places: Vec<Place> = places.collect();
            for Place { endpoint, .. } in &places {
                routing.endpoints.insert(endpoint.replica.clone(), Rc::clone(endpoint));
            }
            routing.waiting.insert(name.clone(), Rc::clone(&waiting));
            let service = Rc::new(Service::new(spec, Arc::clone(&entry.stats), waiting, places));
            routing.add_routes(&service);
        }
        for routes in routing.hosts.values_mut().chain([&mut routing.any_host]) {
            routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        }
        routing
    }

    fn add_routes(&mut self, service: &Rc<Service>) {
        let spec = &service.spec.route;
        // `/api/` and `/api` mean the same segment; the root's own slash is the empty prefix.
        let prefix = spec.path_prefix.trim_end_matches('/').to_owned();
        for host in &spec.hosts {
            let route = Route { prefix: prefix.clone(), service: Rc::clone(service) };
            match host.as_str() {
                "*" => self.any_host.push(route),
                name => self.hosts.entry(name.to_ascii_lowercase()).or_default().push(route),
            }
        }
    }

    /// The service of a request: a named host before any, then the longest prefix of whole segments.
    pub(crate) fn find(&self, authority: Option<&[u8]>, path: &[u8]) -> Option<&Rc<Service>> {
        let authority = authority.filter(|_| !self.hosts.is_empty());
        let host = authority.and_then(|authority| std::str::from_utf8(authority).ok()).map(without_port);
        let named = host.and_then(|host| self.hosts.get(&*lower_case(host)));
        let routes = named.into_iter().flatten().chain(&self.any_host);
        routes.into_iter().find(|route| is_prefix(&route.prefix, path)).map(|route| &route.service)
    }

    /// Closes the idle connections of endpoints that `next` no longer has, and has whoever waits for one look.
    pub(crate) fn retire(&self, next: &Routing) {
        self.waiting.values().for_each(|waiting| waiting.swap());
        for (replica, endpoint) in &self.endpoints {
            if !next.endpoints.get(replica).is_some_and(|kept| Rc::ptr_eq(kept, endpoint)) {
                endpoint.retire();
            }
        }
    }
}

/// The host without its port.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // The colons of an IPv6 address are inside brackets.
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    }
}

fn lower_case(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|b| b.is_ascii_uppercase()) { host.to_ascii_lowercase().into() } else { host.into() }
}

fn is_prefix(prefix: &str, path: &[u8]) -> bool {
    path.strip_prefix(prefix.as_bytes())
        .is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_matches_whole_segments() {
        for path in ["/api", "/api/", "/api/x"] {
            assert!(is_prefix("/api", path.as_bytes()), "{path}");
        }
        for path in ["/apis", "/ap", "/", "*"] {
            assert!(!is_prefix("/api", path.as_bytes()), "{path}");
        }
        assert!(is_prefix("", b"/") && is_prefix("", b"*") && is_prefix("", b"/x"));
    }

    #[test]
    fn a_port_is_no_part_of_a_host() {
        for (authority, host) in [
            ("a.example:80", "a.example"),
            ("a.example", "a.example"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(without_port(authority), host);
        }
    }
}
