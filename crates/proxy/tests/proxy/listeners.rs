use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;

use ringmaster_core::snapshot::{Report, Snapshot};
use ringmaster_core::spec::ListenerSpec;
use ringmaster_proxy::{ListenerState, Proxy, ProxyConfig, ProxyError};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::origin::Origin;
use crate::world::{World, name, service, within};

fn free_port() -> SocketAddr {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn listener(port: u16) -> ListenerSpec {
    ListenerSpec { name: name("extra"), port }
}

/// Waits until a condition of the outside world holds, trying again and again.
async fn eventually<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    within(async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_come_and_go_with_snapshots_and_connections_stay() {
    let origin = Origin::named("web").await;
    let mut world = World::start([service("web", 1, &[(0, 0, origin.address)])]).await;
    let extra = free_port();
    world.change(|snapshot| snapshot.listeners = vec![listener(extra.port())]).await;
    eventually(|| async { world.proxy.local_addrs() == [extra] }).await;
    eventually(|| async { TcpStream::connect(world.address).await.is_err() }).await;
    let mut client = Client::connect(extra).await;
    assert_eq!(client.get("/", "").await.text(), "web");
    world.change(|snapshot| snapshot.listeners.clear()).await;
    eventually(|| async { TcpStream::connect(extra).await.is_err() }).await;
    assert_eq!(world.proxy.local_addrs(), [world.address]);
    assert_eq!(client.get("/", "").await.text(), "web");
    assert_eq!(world.client().await.get("/", "").await.text(), "web");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_port_in_use_says_what_to_do() {
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (_snapshots, receiver) = watch::channel(Arc::new(Snapshot::default()));
    let (reports, _receiver) = watch::channel(Report::default());
    let result = Proxy::start(ProxyConfig::new(address), receiver, reports, CancellationToken::new());
    let Err(error) = result else { panic!("the port is in use") };
    assert!(matches!(error, ProxyError::PortInUse { address: a } if a == address), "{error}");
    assert!(error.to_string().contains("choose another port"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_data_planes_do_not_share_a_port_unnoticed() {
    let world = World::start([]).await;
    let (_snapshots, receiver) = watch::channel(Arc::new(Snapshot::default()));
    let (reports, _receiver) = watch::channel(Report::default());
    let second = Proxy::start(ProxyConfig::new(world.address), receiver, reports, CancellationToken::new());
    assert!(matches!(second, Err(ProxyError::PortInUse { .. })));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_port_in_use_is_reported_and_opened_when_it_is_free() {
    let origin = Origin::named("web").await;
    let mut world = World::start([service("web", 1, &[(0, 0, origin.address)])]).await;
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let other = free_port();
    world
        .change(|snapshot| snapshot.listeners = vec![listener(address.port()), listener(other.port())])
        .await;
    eventually(|| async { world.proxy.local_addrs().contains(&other) }).await;
    let listeners = world.proxy.listeners();
    let failed = listeners.iter().find(|listener| listener.address == address).unwrap();
    assert!(matches!(&failed.state, ListenerState::Failed(why) if why.contains("in use")), "{failed:?}");
    assert_eq!(Client::connect(other).await.get("/", "").await.text(), "web");
    drop(taken);
    eventually(|| async { world.proxy.local_addrs().contains(&address) }).await;
    assert_eq!(Client::connect(address).await.get("/", "").await.text(), "web");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_goes_on_when_the_controller_is_gone() {
    let origin = Origin::named("web").await;
    let world = World::start([service("web", 1, &[(0, 0, origin.address)])]).await;
    let World { proxy, address, token, .. } = world;
    for _ in 0..3 {
        assert_eq!(Client::connect(address).await.get("/", "").await.text(), "web");
    }
    token.cancel();
    within(proxy.join()).await.unwrap();
}
