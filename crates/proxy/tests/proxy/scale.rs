//! Many: idle connections, changes, and more than there are file descriptors for.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ringmaster_core::spec::HashOn;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::client::Client;
use crate::origin::Origin;
use crate::world::{World, hashing, replica, service, within};

/// Idle connections that are measured, and what each may cost.
const IDLE: usize = 5_000;
const IDLE_BYTES_MAX: u64 = 5_000;

/// Runs an ignored test in a process of its own, whose memory and limits are nobody else's.
async fn alone(test: &str) {
    let this = std::env::current_exe().unwrap();
    let run = Command::new(this).args(["--ignored", "--exact", "--nocapture", test]).output();
    let output = within(run).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{text}");
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_that_change_a_hundred_times_a_second_fail_no_request() {
    let origins = [Origin::named("0").await, Origin::named("1").await, Origin::named("2").await];
    let addresses: Vec<SocketAddr> = origins.iter().map(|origin| origin.address).collect();
    let whole = hashing(HashOn::RequestId, &addresses);
    let mut world = World::start([whole.clone()]).await;
    let mut load = JoinSet::new();
    let until = Instant::now() + Duration::from_secs(3);
    for n in 0..8 {
        let address = world.address;
        load.spawn(async move {
            let mut client = Client::connect(address).await;
            let mut count = 0;
            while Instant::now() < until {
                let body = if n % 2 == 0 {
                    client.get("/", "").await
                } else {
                    client.request("POST", "/", "", b"x").await
                };
                assert_eq!(body.status, 200);
                count += 1;
            }
            count
        });
    }
    let mut ticks = interval(Duration::from_millis(10));
    let mut changes = 0;
    while Instant::now() < until {
        ticks.tick().await;
        changes += 1;
        // One leaves and comes back, as another replica or as the same; sometimes the policy's settings change as well.
        let mut routing = whole.clone();
        let gone = ringmaster_core::Ordinal(changes % 3);
        if changes % 4 < 2 {
            routing.endpoints.remove(&gone);
        } else if changes % 4 == 2 {
            routing.endpoints.get_mut(&gone).unwrap().replica =
                replica("web", gone.0, 1 + u32::from(changes));
        }
        routing.resilience.retries = u32::from(1 + changes % 2);
        world.submit(|snapshot| drop(snapshot.services.insert(routing.name.clone(), routing.into())));
    }
    let mut served = 0;
    while let Some(count) = within(load.join_next()).await {
        served += count.unwrap();
    }
    println!("{changes} changes, {served} requests");
    assert!(changes >= 200 && served >= 500, "{changes} changes, {served} requests");
    // The last one is in force, and nothing of the others is left.
    world.publish([whole]).await;
    let report =
        world.report(|report| report.endpoints.values().all(|endpoint| endpoint.in_flight == 0)).await;
    assert_eq!(report.endpoints.len(), 3);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_file_descriptors_it_lives_on_and_recovers() {
    alone("scale::exhausted_alone").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by without_file_descriptors_it_lives_on_and_recovers, in a process of its own"]
async fn exhausted_alone() {
    let origin = Origin::script(|mut conn| async move {
        // Closes after each answer, so that the next request needs a new connection.
        if conn.request().await.is_some() {
            conn.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
        }
    })
    .await;
    let mut world = World::start([service("web", 1, &[(0, 0, origin.address)])]).await;
    let mut first = world.client().await;
    assert_eq!(first.get("/", "").await.text(), "ok");
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(open + 20), ..before }).unwrap();
    let mut hoard = Vec::new();
    while let Ok(stream) = TcpStream::connect(world.address) {
        hoard.push(stream);
    }
    assert!(hoard.len() >= 5, "{}", hoard.len());
    // Nothing can be accepted or connected to; what can be answered is, and no endpoint is blamed.
    let answer = within(async {
        loop {
            let answer = first.get("/", "").await;
            if answer.status != 200 || hoard.len() > 1_000 {
                return answer;
            }
            hoard.extend(TcpStream::connect(world.address));
        }
    })
    .await;
    assert_eq!(answer.status, 502, "{answer:?}");
    hoard.clear();
    within(async { while first.get("/", "").await.status != 200 {} }).await;
    assert_eq!(world.client().await.get("/", "").await.text(), "ok", "it accepts again");
    let report = world.endpoint(&replica("web", 0, 0), |report| report.in_flight == 0).await;
    assert!(!report.ejected, "{report:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_idle_connections_are_cheap() {
    alone("scale::idle_alone").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by five_thousand_idle_connections_are_cheap, in a process of its own"]
async fn idle_alone() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let origin = Origin::named("ok").await;
    let world = World::start([service("web", 1, &[(0, 0, origin.address)])]).await;
    // What the first ones make is there for the others.
    let warm: Vec<TcpStream> = (0..200).map(|_| ask(world.address)).collect();
    let before = resident_bytes();
    let idle: Vec<TcpStream> = (0..IDLE).map(|_| ask(world.address)).collect();
    within(async {
        while world.metric("connections_active") != Some((IDLE + warm.len()) as u64) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let each = (resident_bytes() - before) / IDLE as u64;
    println!("{IDLE} idle connections, each after a request: {each} bytes each");
    assert!(each < IDLE_BYTES_MAX, "{each} bytes each");
    drop((warm, idle));
    world.stop().await;
}

/// A connection that has carried a request, and waits. Of the standard library: it has no memory of its own.
fn ask(address: SocketAddr) -> TcpStream {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let (mut answer, mut count) = ([0; 1_024], 0);
    while !answer[..count].ends_with(b"\r\n\r\nok") {
        count += stream.read(&mut answer[count..]).unwrap();
    }
    stream
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}
