//! A running data plane, and snapshots to publish to it.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::ring::{RingMember, fresh};
use ringmaster_core::snapshot::{Endpoint, EndpointReport, Report, ServiceRouting, Snapshot};
use ringmaster_core::spec::{Balancing, HashKeys, HashOn, Resilience, RouteSpec};
use ringmaster_core::{Attempt, Generation, Ordinal, ReplicaName, ServiceName};
use ringmaster_proxy::{Proxy, ProxyConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::Client;

/// No condition of a test takes longer than this.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Awaits `future` under the deadline.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("the condition must come true before the deadline")
}

pub(crate) fn name(service: &str) -> ServiceName {
    ServiceName::new(service).unwrap()
}

pub(crate) fn replica(service: &str, ordinal: u16, attempt: u32) -> ReplicaName {
    ReplicaName { service: name(service), ordinal: Ordinal(ordinal), attempt: Attempt(attempt) }
}

/// The members that a ring is made of.
pub(crate) fn ring_members(count: u16) -> Vec<RingMember> {
    let member =
        |ordinal| RingMember { ordinal: Ordinal(ordinal), name: format!("web-{ordinal}"), weight: 1 };
    (0..count).map(member).collect()
}

/// A service over `members` ordinals with these endpoints: ordinal, attempt, address.
pub(crate) fn service(service: &str, members: u16, endpoints: &[(u16, u32, SocketAddr)]) -> ServiceRouting {
    let balancing = Balancing::default();
    let ring = fresh(&balancing, 7, &ring_members(members)).unwrap();
    let endpoint = |&(ordinal, attempt, address): &(u16, u32, SocketAddr)| {
        let replica = replica(service, ordinal, attempt);
        (Ordinal(ordinal), Endpoint { replica, address, weight: 1, new_since: None })
    };
    ServiceRouting {
        name: name(service),
        route: RouteSpec::default(),
        balancing,
        resilience: Resilience::default(),
        ring,
        endpoints: endpoints.iter().map(endpoint).collect(),
        demand: None,
    }
}

/// As [`service`], hashing on `hash_on`.
pub(crate) fn hashing(hash_on: HashOn, endpoints: &[SocketAddr]) -> ServiceRouting {
    let endpoints: Vec<(u16, u32, SocketAddr)> = (0..).zip(endpoints).map(|(o, a)| (o, 0, *a)).collect();
    let mut routing = service("web", endpoints.len() as u16, &endpoints);
    routing.balancing.hash_on = HashKeys(vec![hash_on]);
    routing
}

/// The first key (as decimal text) whose candidates begin with these ordinals.
pub(crate) fn key_for(routing: &ServiceRouting, ordinals: &[u16]) -> String {
    let begins = |key: &String| {
        routing.ring.candidates(key.as_bytes()).map(|o| o.0).take(ordinals.len()).eq(ordinals.iter().copied())
    };
    (0..).map(|n: u32| n.to_string()).find(begins).unwrap()
}

/// A service on two endpoints, and a field with which a request goes to the first of them first.
pub(crate) fn first_then_second(first: SocketAddr, second: SocketAddr) -> (ServiceRouting, String) {
    let routing = hashing(HashOn::Header("x-key".into()), &[first, second]);
    let key = key_for(&routing, &[0, 1]);
    (routing, format!("x-key: {key}\r\n"))
}

/// A data plane under test.
pub(crate) struct World {
    pub(crate) proxy: Proxy,
    pub(crate) address: SocketAddr,
    pub(crate) token: CancellationToken,
    snapshots: watch::Sender<Arc<Snapshot>>,
    reports: watch::Receiver<Report>,
}

impl World {
    /// One with two workers and these services, acknowledged.
    pub(crate) async fn start(services: impl IntoIterator<Item = ServiceRouting>) -> World {
        World::start_with(|_| {}, services).await
    }

    pub(crate) async fn start_with(
        configure: impl FnOnce(&mut ProxyConfig),
        services: impl IntoIterator<Item = ServiceRouting>,
    ) -> World {
        let mut config = ProxyConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.workers = 2;
        configure(&mut config);
        let (snapshots, receiver) = watch::channel(Arc::new(Snapshot::default()));
        let (sender, reports) = watch::channel(Report::default());
        let token = CancellationToken::new();
        let proxy = Proxy::start(config, receiver, sender, token.clone()).unwrap();
        let address = proxy.local_addrs()[0];
        let mut world = World { proxy, address, token, snapshots, reports };
        world.publish(services).await;
        world
    }

    /// Publishes these services and waits for the acknowledgement.
    pub(crate) async fn publish(&mut self, services: impl IntoIterator<Item = ServiceRouting>) {
        let services: BTreeMap<_, _> = services.into_iter().map(|s| (s.name.clone(), Arc::new(s))).collect();
        self.change(|snapshot| snapshot.services = services).await;
    }

    /// Publishes the changed snapshot and waits for the acknowledgement.
    pub(crate) async fn change(&mut self, change: impl FnOnce(&mut Snapshot)) {
        let generation = self.submit(change);
        self.report(|report| report.acknowledged >= generation).await;
    }

    /// Publishes the changed snapshot.
    pub(crate) fn submit(&mut self, change: impl FnOnce(&mut Snapshot)) -> Generation {
        let mut snapshot = Snapshot::clone(&self.snapshots.borrow());
        change(&mut snapshot);
        snapshot.generation = snapshot.generation.next();
        let generation = snapshot.generation;
        self.snapshots.send_replace(Arc::new(snapshot));
        generation
    }

    /// Waits for a report.
    pub(crate) async fn report(&mut self, condition: impl FnMut(&Report) -> bool) -> Report {
        within(self.reports.wait_for(condition)).await.unwrap().clone()
    }

    /// Waits until a report says this of an endpoint.
    pub(crate) async fn endpoint(
        &mut self,
        replica: &ReplicaName,
        mut condition: impl FnMut(&EndpointReport) -> bool,
    ) -> EndpointReport {
        self.report(|report| report.endpoints.get(replica).is_some_and(&mut condition)).await.endpoints
            [replica]
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// The value of one series.
    pub(crate) fn metric(&self, series: &str) -> Option<u64> {
        let text = self.proxy.render_metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("ringmaster_proxy_{series} ")))?;
        Some(line.parse().unwrap())
    }

    /// Ends the data plane in order.
    pub(crate) async fn stop(self) {
        self.token.cancel();
        within(self.proxy.join()).await.unwrap();
    }
}
