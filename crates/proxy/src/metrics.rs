//! The counters in the Prometheus text format, read from the registry when asked for.
//!
//! Series of services and members that are no longer published are left out. No worker waits while the text is
//! written: the registry is held only to take references.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringmaster_core::ServiceName;
use ringmaster_core::exposition::{Exposition, Kind};
use ringmaster_core::snapshot::{EjectReason, Latency};

use crate::error::Refusal;
use crate::registry::{Registry, Shared};
use crate::stats::{MemberStats, ServiceStats, UpstreamError};

/// A service's counters, and what its endpoints are doing.
struct Service {
    name: ServiceName,
    stats: Arc<ServiceStats>,
    servers: Vec<Server>,
    /// Endpoints that are chosen, ejected, and finishing what they have.
    states: [u32; 3],
}

struct Server {
    ordinal: String,
    stats: Arc<MemberStats>,
    now: Now,
}

/// What the replicas that fill a server's place are doing.
#[derive(Debug, Clone, Copy, Default)]
struct Now {
    /// Of all of them.
    in_flight: u32,
    /// The published one is out of the choice.
    ejected: bool,
    /// It is let back, and has to show that it is well.
    on_probation: bool,
    /// The published one's.
    latency: Option<Latency>,
}

/// Renders all counters.
pub(crate) fn render(shared: &Shared) -> String {
    let services = shared.with_latest(|registry, _| services(registry));
    let mut out = Exposition::new();
    per_server(&mut out, &services);
    per_service(&mut out, &services);
    front(&mut out, shared);
    out.finish()
}

fn services(registry: &Registry) -> Vec<Service> {
    let mut busy: BTreeMap<(&ServiceName, _), Now> = BTreeMap::new();
    let mut states: BTreeMap<&ServiceName, [u32; 3]> = BTreeMap::new();
    for (replica, entry) in &registry.endpoints {
        let (in_flight, published) = (entry.stats.in_flight(), entry.stats.is_published());
        let now = busy.entry((&replica.service, replica.ordinal)).or_default();
        now.in_flight += in_flight;
        let ejected = published && entry.health.is_ejected();
        if published {
            now.ejected |= ejected;
            now.on_probation |= entry.health.circuit().is_some_and(|circuit| circuit.on_probation);
            now.latency = entry.health.latency();
        }
        let state = match (published, ejected) {
            (true, false) => Some(0),
            (true, true) => Some(1),
            (false, _) => (in_flight > 0).then_some(2),
        };
        if let Some(state) = state {
            states.entry(&replica.service).or_default()[state] += 1;
        }
    }
    let service = |(name, entry): (&ServiceName, &crate::registry::ServiceEntry)| Service {
        name: name.clone(),
        stats: Arc::clone(&entry.stats),
        servers: entry
            .members
            .iter()
            .map(|(ordinal, stats)| {
                let now = busy.get(&(name, *ordinal)).copied().unwrap_or_default();
                Server { ordinal: ordinal.to_string(), stats: Arc::clone(stats), now }
            })
            .collect(),
        states: states.get(name).copied().unwrap_or_default(),
    };
    registry.services.iter().map(service).collect()
}

fn per_server(out: &mut Exposition, services: &[Service]) {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut family = |name: &str, kind, help: &str, value: &dyn Fn(&Server) -> u64| {
        out.family(name, kind, help);
        for service in services {
            for server in &service.servers {
                out.sample(&[("service", service.name.as_str()), ("server", &server.ordinal)], value(server));
            }
        }
    };
    family("ringmaster_proxy_requests_total", Kind::Counter, "Tries that chose this server.", &|server| {
        server.stats.requests()
    });
    family(
        "ringmaster_proxy_requests_in_flight",
        Kind::Gauge,
        "Requests that have not ended, over all replicas of this server.",
        &|server| u64::from(server.now.in_flight),
    );
    family(
        "ringmaster_proxy_server_ejected",
        Kind::Gauge,
        "1 while the published replica of this server is out of the choice.",
        &|server| u64::from(server.now.ejected),
    );
    family(
        "ringmaster_proxy_server_on_probation",
        Kind::Gauge,
        "1 while the published replica of this server is let back after an ejection, and has to show that it answers well.",
        &|server| u64::from(server.now.on_probation),
    );
    family(
        "ringmaster_proxy_upstream_connections_total",
        Kind::Counter,
        "Connections that were made to this server.",
        &|server| load(&server.stats.connections),
    );
    out.family(
        "ringmaster_proxy_server_latency_seconds",
        Kind::Gauge,
        "How long the published replica of this server takes until its responses begin: the smoothed mean by which hedges \
         are timed; none before its first response.",
    );
    for service in services {
        for server in &service.servers {
            if let Some(latency) = server.now.latency {
                let labels = [("service", service.name.as_str()), ("server", &server.ordinal)];
                out.sample(&labels, latency.mean_us as f64 / 1e6);
            }
        }
    }
    by_reason(out, services);
}

/// What has a reason, for each of which there is a series from the start: the first one is an increase.
fn by_reason(out: &mut Exposition, services: &[Service]) {
    out.family(
        "ringmaster_proxy_ejections_total",
        Kind::Counter,
        "How often this server was taken out of the choice, by reason.",
    );
    for service in services {
        for server in &service.servers {
            for reason in EjectReason::ALL {
                let labels = [
                    ("service", service.name.as_str()),
                    ("server", &server.ordinal),
                    ("reason", reason.label()),
                ];
                out.sample(&labels, server.stats.ejections(reason));
            }
        }
    }
    out.family(
        "ringmaster_proxy_upstream_errors_total",
        Kind::Counter,
        "Tries that this server failed, by reason.",
    );
    for service in services {
        for server in &service.servers {
            for (error, reason) in UpstreamError::ALL {
                let labels =
                    [("service", service.name.as_str()), ("server", &server.ordinal), ("reason", reason)];
                out.sample(&labels, server.stats.errors(error));
            }
        }
    }
}

fn per_service(out: &mut Exposition, services: &[Service]) {
    let totals: Vec<_> = services.iter().map(|service| (service, service.stats.stripes.totals())).collect();
    out.family("ringmaster_proxy_replays_total", Kind::Counter, "Tries after the first.");
    for service in services {
        out.sample(&[("service", service.name.as_str())], service.stats.replays.load(Ordering::Relaxed));
    }
    let mut family = |name: &str, help: &str, counter: &dyn Fn(&ServiceStats) -> &AtomicU64| {
        out.family(name, Kind::Counter, help);
        for service in services {
            let count = counter(&service.stats).load(Ordering::Relaxed);
            out.sample(&[("service", service.name.as_str())], count);
        }
    };
    family("ringmaster_proxy_hedges_total", "Tries beside a first one that took longer than usual.", &|s| {
        &s.hedges
    });
    family("ringmaster_proxy_hedges_won_total", "Such tries whose answer came first.", &|s| &s.hedges_won);
    family(
        "ringmaster_proxy_retry_budget_exhausted_total",
        "Tries after the first that the retry budget forbade.",
        &|s| &s.over_budget,
    );
    out.family(
        "ringmaster_proxy_requests_queued",
        Kind::Gauge,
        "Requests that wait for a place: all replicas have as many in flight as they may.",
    );
    for service in services {
        out.sample(&[("service", service.name.as_str())], service.stats.queued.load(Ordering::Relaxed));
    }
    out.family(
        "ringmaster_proxy_requests_held",
        Kind::Gauge,
        "Requests that wait for the first replica of a service that had none.",
    );
    for service in services {
        out.sample(&[("service", service.name.as_str())], service.stats.held.load(Ordering::Relaxed));
    }
    out.family(
        "ringmaster_proxy_responses_total",
        Kind::Counter,
        "Responses to clients, by class of status.",
    );
    for (service, totals) in &totals {
        for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(totals.responses) {
            out.sample(&[("service", service.name.as_str()), ("code", class)], count);
        }
    }
    out.family(
        "ringmaster_proxy_request_duration_seconds",
        Kind::Histogram,
        "Time from a request's head to the last byte of its response, without tunnels.",
    );
    for (service, totals) in &totals {
        let labels = [("service", service.name.as_str())];
        out.histogram(&labels, totals.buckets, totals.beyond, totals.seconds);
    }
    out.family("ringmaster_proxy_request_bytes_total", Kind::Counter, "Bytes of request bodies.");
    for (service, totals) in &totals {
        out.sample(&[("service", service.name.as_str())], totals.received);
    }
    out.family("ringmaster_proxy_response_bytes_total", Kind::Counter, "Bytes of response bodies.");
    for (service, totals) in &totals {
        out.sample(&[("service", service.name.as_str())], totals.sent);
    }
    out.family(
        "ringmaster_proxy_refusals_total",
        Kind::Counter,
        "Requests of this service that got an answer of the data plane's own, by reason.",
    );
    for service in services {
        for (refusal, reason, _) in Refusal::ALL.into_iter().filter(|(.., routed)| *routed) {
            let labels = [("service", service.name.as_str()), ("reason", reason)];
            out.sample(&labels, service.stats.refusals(refusal));
        }
    }
    out.family(
        "ringmaster_proxy_endpoints",
        Kind::Gauge,
        "Replicas by what the data plane does with them: chosen, ejected, or draining with requests in flight.",
    );
    for service in services {
        for (state, count) in ["chosen", "ejected", "draining"].into_iter().zip(service.states) {
            out.sample(&[("service", service.name.as_str()), ("state", state)], count);
        }
    }
}

fn front(out: &mut Exposition, shared: &Shared) {
    let front = &shared.front;
    out.family(
        "ringmaster_proxy_unrouted_requests_total",
        Kind::Counter,
        "Requests that belonged to no service, by reason.",
    );
    for (refusal, reason, _) in Refusal::ALL.into_iter().filter(|(.., routed)| !routed) {
        out.sample(&[("reason", reason)], front.refusals(refusal));
    }
    out.family(
        "ringmaster_proxy_connections_total",
        Kind::Counter,
        "Connections of clients that were accepted.",
    );
    out.sample(&[], front.accepted.load(Ordering::Relaxed));
    out.family("ringmaster_proxy_connections_active", Kind::Gauge, "Connections of clients that are open.");
    out.sample(&[], front.open.load(Ordering::Relaxed));
    out.family(
        "ringmaster_proxy_acknowledged_generation",
        Kind::Gauge,
        "The generation of routing that every worker goes by.",
    );
    out.sample(&[], shared.acknowledged());
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ringmaster_core::ring::{RingMember, fresh};
    use ringmaster_core::snapshot::{Endpoint, ServiceRouting, Snapshot};
    use ringmaster_core::spec::{Balancing, Resilience, RouteSpec};
    use ringmaster_core::{Attempt, Generation, Ordinal, ReplicaName};
    use tokio::sync::watch;

    use super::*;

    const REPLICAS: u16 = 1_000;

    fn snapshot(services: &[(&str, u16)]) -> Arc<Snapshot> {
        let routing = |(name, count): &(&str, u16)| {
            let name = ServiceName::new(*name).unwrap();
            let member = |n: u16| RingMember { ordinal: Ordinal(n), name: format!("{name}-{n}"), weight: 1 };
            let balancing = Balancing::default();
            let endpoint = |n: u16| {
                let replica = ReplicaName { service: name.clone(), ordinal: Ordinal(n), attempt: Attempt(0) };
                let address = ([127, 0, 0, 1], 1).into();
                (Ordinal(n), Endpoint { replica, address, weight: 1, new_since: None })
            };
            let routing = ServiceRouting {
                name: name.clone(),
                route: RouteSpec::default(),
                ring: fresh(&balancing, 1, &(0..*count).map(member).collect::<Vec<_>>()).unwrap(),
                balancing,
                resilience: Resilience::default(),
                endpoints: (0..*count).map(endpoint).collect(),
                demand: None,
            };
            (name, Arc::new(routing))
        };
        Arc::new(Snapshot {
            generation: Generation(1),
            services: services.iter().map(routing).collect(),
            ..Snapshot::default()
        })
    }

    fn value(shared: &Shared, series: &str) -> Option<u64> {
        let text = render(shared);
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    #[test]
    fn a_thousand_replicas_are_rendered_within_a_tenth_of_a_second() {
        let (_sender, receiver) = watch::channel(snapshot(&[("web", REPLICAS)]));
        let (shared, _tasks) = Shared::new(receiver, 2, None);
        let started = Instant::now();
        let text = render(&shared);
        let took = started.elapsed();
        println!("{} lines, {} KB in {took:.1?}", text.lines().count(), text.len() / 1024);
        assert!(took.as_millis() < 100, "{took:?}");
        assert_eq!(text.matches("ringmaster_proxy_requests_total{").count(), usize::from(REPLICAS));
    }

    #[test]
    fn what_is_gone_has_no_series_and_what_comes_back_goes_on_counting() {
        let series = r#"ringmaster_proxy_requests_total{service="web",server="2"}"#;
        let (sender, receiver) = watch::channel(snapshot(&[("api", 1), ("web", 3)]));
        let (shared, _tasks) = Shared::new(receiver, 1, None);
        let count = || {
            shared.with_latest(|registry, _| {
                let web = &registry.services[&ServiceName::new("web").unwrap()];
                (0..5).for_each(|_| web.members[&Ordinal(2)].count(0));
                web.stats.replays.fetch_add(1, Ordering::Relaxed);
            });
        };
        count();
        assert_eq!(value(&shared, series), Some(5));
        sender.send_replace(snapshot(&[("web", 2)]));
        assert_eq!(value(&shared, series), None);
        assert!(!render(&shared).contains("api"));
        sender.send_replace(snapshot(&[("web", 3)]));
        assert_eq!(value(&shared, series), Some(5));
        sender.send_replace(snapshot(&[("api", 1)]));
        assert!(!render(&shared).contains("web"));
        sender.send_replace(snapshot(&[("web", 3)]));
        count();
        assert_eq!(value(&shared, series), Some(10));
        assert_eq!(value(&shared, r#"ringmaster_proxy_replays_total{service="web"}"#), Some(2));
    }
}
