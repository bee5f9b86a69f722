//! What is particular to containers: foreign objects, the network, confinement, repairs, the socket.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, Network, NetworkCreateRequest, NetworkDisconnectRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListNetworksOptionsBuilder,
    RenameContainerOptionsBuilder,
};
use futures_util::StreamExt;
use futures_util::future::join_all;
use ringmaster_core::observed::{ReplicaState, RuntimeReplica};
use ringmaster_docker::testing::{Cleanup, engine_or_skip, unique_name};
use ringmaster_docker::{DockerConfig, DockerRuntime};
use ringmaster_runtime::{ErrorKind, Runtime, Signal, Wake, labels};
use serde_json::json;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use common::{Bench, template};

fn engine() -> Docker {
    Docker::connect_with_unix_defaults().unwrap()
}

async fn inspected(id: &str) -> ContainerInspectResponse {
    engine().inspect_container(id, None::<InspectContainerOptions>).await.unwrap()
}

async fn networks(name: &str) -> Vec<Network> {
    let filters = HashMap::from([("name", vec![name])]);
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    engine().list_networks(Some(options)).await.unwrap()
}

/// A container that somebody else made, with the labels that it is given.
async fn foreign(bench: &Bench, name: &str, labels: HashMap<String, String>) -> String {
    let body = ContainerCreateBody {
        image: bench.fixture.runs.image.clone(),
        labels: Some(labels),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    engine().create_container(Some(options), body).await.unwrap().id
}

fn instance_label(bench: &Bench) -> (String, String) {
    (labels::INSTANCE.to_owned(), bench.config.instance.clone())
}

async fn now(bench: &Bench, replica: &RuntimeReplica) -> RuntimeReplica {
    bench.runtime.inspect(&replica.id).await.unwrap().unwrap().replica
}

#[tokio::test]
async fn a_foreign_container_with_our_name_is_named_and_left_alone() {
    let Some(bench) = Bench::open("a_foreign_container_with_our_name_is_named_and_left_alone").await else {
        return;
    };
    let request = bench.fixture.request(&bench.runtime, 0, &bench.fixture.runs).await;
    // Without the owner's label it is foreign; with the instance's the guard cleans it up.
    let id = foreign(&bench, &request.name.to_string(), HashMap::from([instance_label(&bench)])).await;
    let error = bench.runtime.create(&request).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(error.message.contains(&id[..12]) && error.message.contains("not ours"), "{error}");
    assert_eq!(bench.runtime.list().await.unwrap(), []);
    let id = ringmaster_core::observed::RuntimeId(id);
    assert_eq!(bench.runtime.remove(&id).await.unwrap_err().kind, ErrorKind::Conflict);
    assert_eq!(bench.runtime.inspect(&id).await.unwrap(), None);
    inspected(&id.0).await;
}

#[tokio::test]
async fn a_container_that_wears_some_of_our_labels_is_ignored() {
    let Some(bench) = Bench::open("a_container_that_wears_some_of_our_labels_is_ignored").await else {
        return;
    };
    let owner = (labels::OWNER_KEY.to_owned(), labels::OWNER.to_owned());
    let some = HashMap::from([instance_label(&bench), owner]);
    foreign(&bench, &unique_name(), some).await;
    assert_eq!(bench.runtime.list().await.unwrap(), []);
}

#[tokio::test]
async fn eight_daemons_that_start_at_once_share_one_network() {
    if engine_or_skip("eight_daemons_that_start_at_once_share_one_network").await.is_none() {
        return;
    }
    let name = unique_name();
    let config = DockerConfig { network: name.clone(), ..DockerConfig::new(&name) };
    let _cleanup = Cleanup::of(&name);
    let connects = (0..8).map(|_| DockerRuntime::connect(config.clone()));
    let runtimes: Vec<_> = join_all(connects).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(networks(&name).await.len(), 1);
    runtimes[0].teardown().await.unwrap();
    assert_eq!(networks(&name).await.len(), 0, "our own empty network is removed");
}

#[tokio::test]
async fn a_foreign_network_is_used_and_never_removed() {
    if engine_or_skip("a_foreign_network_is_used_and_never_removed").await.is_none() {
        return;
    }
    let name = unique_name();
    let _cleanup = Cleanup::of(&name);
    let label = HashMap::from([(labels::INSTANCE.to_owned(), name.clone())]);
    let request =
        NetworkCreateRequest { name: name.clone(), labels: Some(label), ..NetworkCreateRequest::default() };
    let id = engine().create_network(request).await.unwrap().id;
    let config = DockerConfig { network: name.clone(), ..DockerConfig::new(&name) };
    let runtime = DockerRuntime::connect(config).await.unwrap();
    runtime.teardown().await.unwrap();
    let found = networks(&name).await;
    assert_eq!(found.iter().map(|network| network.id.as_deref()).collect::<Vec<_>>(), [Some(id.as_str())]);
}

#[tokio::test]
async fn a_network_that_is_no_bridge_is_refused() {
    if engine_or_skip("a_network_that_is_no_bridge_is_refused").await.is_none() {
        return;
    }
    let config = DockerConfig { network: "host".to_owned(), ..DockerConfig::new(unique_name()) };
    let error = DockerRuntime::connect(config).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn a_network_that_was_removed_is_made_again() {
    let Some(bench) = Bench::open("a_network_that_was_removed_is_made_again").await else { return };
    engine().remove_network(&bench.config.network).await.unwrap();
    let replica = bench.fixture.started(&bench.runtime, 0).await;
    assert_eq!(networks(&bench.config.network).await.len(), 1);
    bench.runtime.teardown().await.unwrap();
    assert_eq!(networks(&bench.config.network).await.len(), 1, "a network in use stays");
    bench.fixture.answers(&replica).await;
}

#[tokio::test]
async fn the_profile_restricted_is_applied() {
    let Some(bench) = Bench::open("the_profile_restricted_is_applied").await else { return };
    let restricted = template(json!({
        "image": bench.fixture.runs.image,
        "securityContext": { "profile": "restricted" },
        "resources": { "cpu": "250m", "memory": "32Mi", "pids": 16 },
        "logs": { "maxSize": "1Mi", "maxFiles": 2 },
        "env": { "GREETING": "Hi", "PORT": "1" },
        "lifecycle": { "stopSignal": "SIGINT" },
    }));
    let mut request = bench.fixture.request(&bench.runtime, 6, &restricted).await;
    request.host = Some("S7".to_owned());
    let replica = bench.runtime.create(&request).await.unwrap();
    // It answers: read-only, without capabilities and as nobody.
    bench.fixture.answers(&replica).await;

    let container = inspected(&replica.id.0).await;
    let config = container.config.unwrap();
    assert_eq!(config.user.as_deref(), Some("65534:65534"));
    assert_eq!(config.hostname.as_deref(), Some("S7"));
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(config.image, Some(request.content_id), "the image is given by id");
    let env = config.env.unwrap();
    for variable in ["GREETING=Hi", "PORT=5000", "SERVER_ID=7"] {
        assert!(env.iter().any(|found| found == variable), "{variable} in {env:?}");
    }
    let host = container.host_config.unwrap();
    assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
    assert_eq!(host.readonly_rootfs, Some(true));
    assert!(host.tmpfs.unwrap().contains_key("/tmp"));
    assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
    assert_eq!((host.nano_cpus, host.pids_limit), (Some(250_000_000), Some(16)));
    assert_eq!((host.memory, host.memory_swap), (Some(32 << 20), Some(32 << 20)));
    assert_eq!(host.restart_policy.unwrap().name.unwrap().to_string(), "no");
    assert_eq!(host.privileged, Some(false));
    let log = host.log_config.unwrap();
    assert_eq!(log.typ.as_deref(), Some("json-file"));
    assert_eq!(log.config.unwrap()["max-size"], "1048576");
    let endpoints = container.network_settings.unwrap().networks.unwrap();
    let aliases = endpoints[&bench.config.network].aliases.clone().unwrap();
    let short = format!("{}-6", bench.fixture.service);
    assert!(aliases.contains(&short) && aliases.contains(&"S7".to_owned()), "{aliases:?}");
}

#[tokio::test]
async fn the_profile_baseline_is_the_default() {
    let Some(bench) = Bench::open("the_profile_baseline_is_the_default").await else { return };
    let replica = bench.fixture.started(&bench.runtime, 0).await;
    let host = inspected(&replica.id.0).await.host_config.unwrap();
    let mut drops = host.cap_drop.unwrap();
    drops.sort();
    assert_eq!(drops, ["AUDIT_WRITE", "MKNOD", "NET_RAW", "SETFCAP", "SYS_CHROOT"]);
    assert_eq!(host.readonly_rootfs, Some(false));
    assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
}

#[tokio::test]
async fn what_would_break_out_is_refused_before_anything_is_made() {
    let Some(bench) = Bench::open("what_would_break_out_is_refused_before_anything_is_made").await else {
        return;
    };
    let image = &bench.fixture.runs.image;
    let restricted = json!({ "profile": "restricted" });
    for refused in [
        json!({ "image": image, "volumes": [{ "source": "/var/run/docker.sock", "target": "/s" }] }),
        json!({ "image": image, "user": "0", "securityContext": restricted }),
    ] {
        let request = bench.fixture.request(&bench.runtime, 0, &template(refused)).await;
        assert_eq!(bench.runtime.create(&request).await.unwrap_err().kind, ErrorKind::Invalid);
    }
    assert_eq!(bench.runtime.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_missing_image_is_named_with_what_to_do() {
    let Some(bench) = Bench::open("a_missing_image_is_named_with_what_to_do").await else { return };
    // Nothing listens on port 1, so that the pull fails at once and leaves this machine alone.
    for (image, policy) in [
        ("ringmaster/no-such-image:none", "never"),
        ("127.0.0.1:1/no-such-image:none", "ifNotPresent"),
        ("127.0.0.1:1/no-such-image", "always"),
    ] {
        let missing = template(json!({ "image": image, "pullPolicy": policy }));
        let error = bench.runtime.resolve(&missing).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ImageMissing, "{error}");
        let text = error.to_string();
        assert!(text.contains(image) && text.contains("make images"), "{text}");
    }
    let mut request = bench.fixture.request(&bench.runtime, 0, &bench.fixture.runs).await;
    request.content_id = format!("sha256:{}", "0".repeat(64));
    let error = bench.runtime.create(&request).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::ImageMissing, "an image that vanished after it was resolved: {error}");
}

#[tokio::test]
async fn paused_renamed_and_detached_replicas_are_repaired() {
    let Some(bench) = Bench::open("paused_renamed_and_detached_replicas_are_repaired").await else { return };
    let replica = bench.fixture.started(&bench.runtime, 0).await;
    let docker = engine();
    docker.pause_container(&replica.id.0).await.unwrap();
    let options = RenameContainerOptionsBuilder::new().name(&unique_name()).build();
    docker.rename_container(&replica.id.0, options).await.unwrap();
    let damaged = now(&bench, &replica).await;
    assert_eq!(damaged.state, ReplicaState::Paused);
    assert_eq!(damaged.name, replica.name, "the labels still say who it is");
    assert_ne!(damaged.engine_name, replica.engine_name);
    bench.runtime.repair(&replica.id).await.unwrap();
    assert_eq!(now(&bench, &replica).await, replica);

    let request = NetworkDisconnectRequest { container: replica.id.0.clone(), force: None };
    docker.disconnect_network(&bench.config.network, request).await.unwrap();
    assert_eq!(now(&bench, &replica).await.address, None);
    bench.runtime.repair(&replica.id).await.unwrap();
    let repaired = now(&bench, &replica).await;
    bench.fixture.answers(&repaired).await;
    let endpoints = inspected(&replica.id.0).await.network_settings.unwrap().networks.unwrap();
    let aliases = endpoints[&bench.config.network].aliases.clone().unwrap();
    assert!(aliases.contains(&replica.name.short()), "{aliases:?}");
}

#[tokio::test]
async fn a_name_that_somebody_took_meanwhile_is_not_taken_back_by_force() {
    let Some(bench) = Bench::open("a_name_that_somebody_took_meanwhile_is_not_taken_back_by_force").await
    else {
        return;
    };
    let replica = bench.fixture.started(&bench.runtime, 0).await;
    let options = RenameContainerOptionsBuilder::new().name(&unique_name()).build();
    engine().rename_container(&replica.id.0, options).await.unwrap();
    let squatter = foreign(&bench, &replica.engine_name, HashMap::from([instance_label(&bench)])).await;
    let error = bench.runtime.repair(&replica.id).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(error.message.contains(&squatter[..12]), "{error}");
    bench.fixture.answers(&replica).await;
}

#[tokio::test]
async fn a_test_that_panics_leaves_nothing_behind() {
    let Some(bench) = Bench::open("a_test_that_panics_leaves_nothing_behind").await else { return };
    let config = bench.config.clone();
    bench.fixture.started(&bench.runtime, 0).await;
    let panicking = tokio::spawn(async move {
        let _bench = bench;
        panic!("the panic that this test is about");
    });
    assert!(panicking.await.unwrap_err().is_panic());
    assert_eq!(networks(&config.network).await, []);
    let _cleanup = Cleanup::of(&config.instance);
    assert_eq!(DockerRuntime::connect(config).await.unwrap().list().await.unwrap(), []);
}

#[tokio::test]
async fn a_socket_that_is_missing_and_one_that_refuses_are_told_apart() {
    let path = SocketPath::new();
    let config = DockerConfig { socket: path.0.clone(), ..DockerConfig::new("x") };
    let missing = DockerRuntime::connect(config.clone()).await.unwrap_err();
    drop(UnixListener::bind(&path.0).unwrap());
    let refused = DockerRuntime::connect(config).await.unwrap_err();
    for (error, text) in [(missing, "there is no socket at"), (refused, "no engine listens on it")] {
        assert_eq!(error.kind, ErrorKind::Unreachable);
        assert!(error.message.contains(text) && error.message.contains(path.0.to_str().unwrap()), "{error}");
    }
}

#[tokio::test]
async fn events_tell_of_an_engine_that_goes_away_and_comes_back() {
    let Some(bench) = Bench::open("events_tell_of_an_engine_that_goes_away_and_comes_back").await else {
        return;
    };
    let path = SocketPath::new();
    let relay = relay(&path);
    let config = DockerConfig { socket: path.0.clone(), ..bench.config.clone() };
    let runtime = DockerRuntime::connect(config).await.unwrap();
    let mut events = runtime.events();
    let mut next =
        async || tokio::time::timeout(bench.fixture.deadline, events.next()).await.unwrap().unwrap();
    assert_eq!(next().await, Wake::Reconnected);
    drop(relay);
    let Wake::Disconnected(_) = next().await else { panic!("the end of the stream is told") };
    std::fs::remove_file(&path.0).unwrap();
    assert_eq!(runtime.list().await.unwrap_err().kind, ErrorKind::Unreachable);
    let _relay = self::relay(&path);
    assert_eq!(next().await, Wake::Reconnected);
    let replica = bench.fixture.started(&bench.runtime, 0).await;
    bench.runtime.signal(&replica.id, Signal::Kill).await.unwrap();
    assert_eq!(next().await, Wake::Stopping(replica.id));
    assert_eq!(next().await, Wake::Changed);
    assert_eq!(runtime.list().await.unwrap().len(), 1);
}

/// A path for a socket, removed when the test ends.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new() -> SocketPath {
        SocketPath(std::env::temp_dir().join(format!("{}.sock", unique_name())))
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            eprintln!("{} is gone already: {error}", self.0.display());
        }
    }
}

/// The engine behind another socket, which goes away with the returned tasks.
fn relay(path: &SocketPath) -> JoinSet<()> {
    let listener = UnixListener::bind(&path.0).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let mut engine = UnixStream::connect("/var/run/docker.sock").await.unwrap();
                tokio::io::copy_bidirectional(&mut client, &mut engine).await
            });
        }
    });
    tasks
}
