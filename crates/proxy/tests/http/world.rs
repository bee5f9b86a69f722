//! A data plane of its own for each case, so that no case can spoil another.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::ring::{RingMember, fresh};
use ringmaster_core::snapshot::{Endpoint, Report, ServiceRouting, Snapshot};
use ringmaster_core::spec::{Balancing, Resilience, RouteSpec};
use ringmaster_core::{Attempt, Ordinal, ReplicaName, ServiceName};
use ringmaster_proxy::{Proxy, ProxyConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::Client;

/// No condition takes longer than this.
const DEADLINE: Duration = Duration::from_secs(20);
/// A proxy that neither sends nor closes for this long will not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);

/// Awaits `future` under the deadline.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("the condition must come true before the deadline")
}

/// A data plane in front of one origin.
pub(crate) struct World {
    pub(crate) address: SocketAddr,
    proxy: Proxy,
    token: CancellationToken,
    _snapshots: watch::Sender<Arc<Snapshot>>,
}

impl World {
    pub(crate) async fn start(origin: SocketAddr) -> World {
        World::start_with(origin, |_| {}).await
    }

    /// One whose service is as `change` makes it.
    pub(crate) async fn start_with(origin: SocketAddr, change: impl FnOnce(&mut ServiceRouting)) -> World {
        World::start_at(IpAddr::from([127, 0, 0, 1]), origin, change).await
    }

    /// One that listens on `address`.
    pub(crate) async fn start_at(
        address: IpAddr,
        origin: SocketAddr,
        change: impl FnOnce(&mut ServiceRouting),
    ) -> World {
        let mut routing = service(origin);
        change(&mut routing);
        let mut snapshot = Snapshot::default();
        snapshot.services = BTreeMap::from([(routing.name.clone(), Arc::new(routing))]);
        snapshot.generation = snapshot.generation.next();
        let generation = snapshot.generation;
        let mut config = ProxyConfig::new(SocketAddr::from((address, 0)));
        config.workers = 1;
        let (snapshots, receiver) = watch::channel(Arc::new(snapshot));
        let (sender, mut reports) = watch::channel(Report::default());
        let token = CancellationToken::new();
        let proxy = Proxy::start(config, receiver, sender, token.clone()).unwrap();
        let address = proxy.local_addrs()[0];
        within(reports.wait_for(|report| report.acknowledged >= generation)).await.unwrap();
        World { address, proxy, token, _snapshots: snapshots }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Ends the data plane; all its connections have ended then.
    pub(crate) async fn stop(self) {
        self.token.cancel();
        within(self.proxy.join()).await.unwrap();
    }
}

/// A service that takes any host and path, with this one endpoint.
fn service(origin: SocketAddr) -> ServiceRouting {
    let balancing = Balancing::default();
    let name = ServiceName::new("web").unwrap();
    let member = RingMember { ordinal: Ordinal(0), name: "web-0".to_owned(), weight: 1 };
    let ring = fresh(&balancing, 7, &[member]).unwrap();
    let replica = ReplicaName { service: name.clone(), ordinal: Ordinal(0), attempt: Attempt(0) };
    let endpoint = Endpoint { replica, address: origin, weight: 1, new_since: None };
    ServiceRouting {
        name,
        route: RouteSpec::default(),
        balancing,
        resilience: Resilience::default(),
        ring,
        endpoints: [(Ordinal(0), endpoint)].into(),
        demand: None,
    }
}
