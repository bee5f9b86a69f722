//! The same six containers recreated one by one behind haproxy with health checks, as a team without a controller does
//! it: stop, remove, run, wait until it answers, next. Printed beside our figure; GET only, because haproxy must not send
//! a POST again.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    StopContainerOptionsBuilder,
};
use ringmaster_docker::testing::{engine_or_skip, replica_image, unique_name};
use tokio::time::Instant;

use super::{RATE, tell};
use crate::common::{alone, eventually, free_address};
use crate::load::Load;

/// Ends haproxy with the test.
struct Haproxy(Child);

impl Drop for Haproxy {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn haproxy(listen: SocketAddr, servers: &[SocketAddr], folder: &std::path::Path) -> Option<Haproxy> {
    let lines: String =
        (0..).zip(servers).map(|(index, server)| format!("    server s{index} {server}\n")).collect();
    let config = format!(
        "global\n    maxconn 4000\ndefaults\n    mode http\n    timeout connect 250ms\n    timeout client 60s\n    timeout \
         server 60s\n    retries 3\n    option redispatch 1\nfrontend front\n    bind {listen}\n    default_backend \
         back\nbackend back\n    option httpchk GET /heartbeat\n    default-server check inter 500ms fall 2 rise 1\n{lines}"
    );
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, config).unwrap();
    let child =
        Command::new("haproxy").arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.ok().map(Haproxy)
}

async fn run(docker: &Docker, image: &str, name: &str, address: SocketAddr, number: usize) {
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        env: Some(vec![
            format!("PORT={}", address.port()),
            format!("HOST={}", address.ip()),
            format!("SERVER_ID={number}"),
        ]),
        // No address translation on the way: the fastest that an engine has.
        host_config: Some(HostConfig { network_mode: Some("host".to_owned()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    let id = docker.create_container(Some(options), body).await.unwrap().id;
    docker.start_container(&id, None::<StartContainerOptions>).await.unwrap();
    answers(&format!("http://{address}/heartbeat")).await;
}

async fn answers(url: &str) {
    eventually(url, || async { reqwest::get(url).await.ok().filter(|answer| answer.status().is_success()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn six_containers_recreated_one_by_one_behind_haproxy() {
    let _alone = alone().await;
    let test = "rollout_figures::haproxy::six_containers_recreated_one_by_one_behind_haproxy";
    let Some(docker) = engine_or_skip(test).await else { return };
    let image = replica_image(&docker).await;
    let (folder, listen, prefix) = (tempfile::tempdir().unwrap(), free_address(), unique_name());
    let servers: Vec<SocketAddr> = (0..6).map(|_| free_address()).collect();
    let Some(_haproxy) = haproxy(listen, &servers, folder.path()) else {
        println!("SKIPPED {test}: haproxy is not installed");
        return;
    };
    let named = |index: usize| format!("{prefix}-{index}");
    for (index, server) in servers.iter().enumerate() {
        run(&docker, &image, &named(index), *server, index).await;
    }
    let url = format!("http://{listen}/home");
    answers(&url).await;
    let mut load = Load::of(RATE, move |client, _| client.get(&url));
    load.more(3 * RATE as usize).await;
    let began = Instant::now();
    for (index, server) in servers.iter().enumerate() {
        let name = named(index);
        docker
            .stop_container(&name, Some(StopContainerOptionsBuilder::default().t(10).build()))
            .await
            .unwrap();
        docker.remove_container(&name, None).await.unwrap();
        run(&docker, &image, &name, *server, index).await;
    }
    let took = began.elapsed();
    load.more(RATE as usize).await;
    let outcome = load.stop().await;
    for index in 0..servers.len() {
        let force = RemoveContainerOptionsBuilder::default().force(true).build();
        docker.remove_container(&named(index), Some(force)).await.unwrap();
    }
    tell(&format!("beside it, 6 containers recreated one by one behind haproxy, {took:.1?}"), &outcome);
    assert!(outcome.total > 4 * RATE as usize, "{}", outcome.total);
}
