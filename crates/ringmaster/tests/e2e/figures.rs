//! The figures, measured on the real engine beside the same calls made directly, and printed. Each test has the
//! machine to itself. What must never fail is asserted; a time is compared with a baseline taken in the
//! same run, and asserted with slack for a shared machine: the printed line says whether the goal was met.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, EventMessage};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, EventsOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
};
use futures_util::{StreamExt, future::join_all};
use ringmaster_core::event::Event;
use ringmaster_docker::testing::engine_or_skip;
use tokio::time::Instant;

use crate::common::{Daemon, Setup, alone, docker_or_skip};
use crate::load::Load;

/// A measured ratio beyond this multiple of its goal is a regression, whatever the machine was doing.
const SLACK: f64 = 2.0;

fn print(what: &str, measured: f64, goal: f64, unit: &str) {
    let verdict = if measured <= goal { "met" } else { "MISSED" };
    println!("figure: {what}: {measured:.2}{unit} (goal {goal:.2}{unit}, {verdict})");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

/// Creates and starts `count` containers at once, directly through the engine's API and configured like one of
/// ours, as `like` was inspected: the time it takes.
async fn directly(docker: &Docker, like: &ContainerInspectResponse, count: usize) -> Duration {
    let config = like.config.clone().unwrap();
    let began = Instant::now();
    let one = |index: usize| {
        let name = format!("direct-{}-{index}", config.hostname.clone().unwrap_or_default());
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        // Everything but the labels: it is not ours.
        let body = ContainerCreateBody {
            image: config.image.clone(),
            env: config.env.clone(),
            user: config.user.clone(),
            host_config: like.host_config.clone(),
            ..ContainerCreateBody::default()
        };
        async move {
            let id = docker.create_container(Some(options), body).await.unwrap().id;
            docker.start_container(&id, None::<StartContainerOptions>).await.unwrap();
            id
        }
    };
    let ids = join_all((0..count).map(one)).await;
    let took = began.elapsed();
    let force = || RemoveContainerOptionsBuilder::default().force(true).build();
    for removed in join_all(ids.iter().map(|id| docker.remove_container(id, Some(force())))).await {
        removed.unwrap();
    }
    took
}

/// The container of one of our replicas, as the engine has it.
async fn inspect(daemon: &Daemon, docker: &Docker) -> ContainerInspectResponse {
    let id = daemon.replica(&daemon.web, 0).await.id.unwrap();
    docker.inspect_container(&id, None).await.unwrap()
}

/// From the apply until all are ready, as the daemon's own timeline tells it.
async fn scaled(daemon: &Daemon, replicas: u32) -> Duration {
    let began = Instant::now();
    daemon.apply_and_converge(&daemon.web, &daemon.manifest(&daemon.web, replicas, "")).await;
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_and_idling() {
    let _alone = alone().await;
    let Some(docker) = engine_or_skip("figures::starting_and_idling").await else { return };
    let Some(on) = docker_or_skip("figures::starting_and_idling").await else { return };
    let daemon = Daemon::start(on).await;
    scaled(&daemon, 1).await;
    let like = inspect(&daemon, &docker).await;
    scaled(&daemon, 0).await;
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let ours = scaled(&daemon, 3).await;
        scaled(&daemon, 0).await;
        let direct = directly(&docker, &like, 3).await;
        println!("0 -> 3: {ours:?}, directly {direct:?}");
        ratios.push(ours.as_secs_f64() / direct.as_secs_f64());
    }
    let three = median(ratios);
    scaled(&daemon, 3).await;
    let direct = directly(&docker, &like, 27).await;
    let ours = scaled(&daemon, 30).await;
    println!("3 -> 30: {ours:?}, 27 directly {direct:?}");
    let thirty = ours.as_secs_f64() / direct.as_secs_f64();
    let (cpu, memory) = idle(&daemon).await;
    print("0 -> 3 against three parallel create+start", three, 1.5, "x");
    print("3 -> 30 against 27 parallel create+start", thirty, 1.2, "x");
    print("daemon idle with 30 replicas, share of a core", cpu, 1.0, " %");
    print("daemon idle with 30 replicas, resident", memory, 40.0, " MiB");
    assert!(three < 1.5 * SLACK && thirty < 1.2 * SLACK && cpu < SLACK && memory < 40.0 * SLACK);
}

/// Processor share in per cent and resident memory in MiB, over ten seconds of nothing to do.
async fn idle(daemon: &Daemon) -> (f64, f64) {
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
    };
    // What starting left behind (a last list, a last report) ends first.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, began) = (ticks(), Instant::now());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let hertz = rustix::param::clock_ticks_per_second() as f64;
    let share = 100.0 * (ticks() - before) / hertz / began.elapsed().as_secs_f64();
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (share, resident.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0)
}

/// Milliseconds since the Unix epoch.
fn wall_ms() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64() * 1_000.0
}

/// Kills a container's process and returns when it was dead: all of these are in milliseconds of wall time.
async fn kill_process(docker: &Docker, id: &str) -> f64 {
    let pid = docker.inspect_container(id, None).await.unwrap().state.unwrap().pid.unwrap() as i32;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if matches!(state, None | Some('Z' | 'X')) {
            return wall_ms();
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

/// What one kill cost.
#[derive(Debug, Default)]
struct Kill {
    last_choice_ms: f64,
    withdrawn_after_event_ms: f64,
    ready_after_event_ms: f64,
}

async fn one_kill(daemon: &Daemon, docker: &Docker, ordinal: u16, seen: u64) -> Kill {
    let victim = daemon.replica(&daemon.web, ordinal).await;
    let (engine_name, id) = (victim.engine_name.unwrap(), victim.id.unwrap());
    let filters = HashMap::from([("container", vec![id.clone()]), ("event", vec!["die".to_owned()])]);
    let mut events = docker.events(Some(EventsOptionsBuilder::default().filters(&filters).build())).boxed();
    let died = tokio::spawn(async move { events.next().await.unwrap().unwrap() });
    let dead_at = kill_process(docker, &id).await;
    let event: EventMessage = died.await.unwrap();
    let event_at = event.time_nano.unwrap() as f64 / 1e6;
    daemon
        .until(&daemon.web, "replaced", |status| {
            status.ready == 3
                && status.is_converged()
                && !status.members.iter().any(|m| {
                    m.engine_name.as_ref() == Some(&engine_name)
                        && m.phase == ringmaster_core::status::Phase::Ready
                })
        })
        .await;
    let timeline = daemon.client.events(seen).await.unwrap().events;
    let at = |reason: &str, fits: &dyn Fn(&Event) -> bool| {
        let found = timeline.iter().rev().find(|e| e.reason.as_str() == reason && fits(e));
        found.unwrap_or_else(|| panic!("no {reason} in {timeline:#?}")).at.0 as f64
    };
    let withdrawn = at("Withdrawn", &|e| e.message.starts_with(&engine_name));
    let ready = at("Ready", &|e| e.object == victim.name && !e.message.starts_with(&engine_name));
    // A request that chose the dead replica failed there, and the log of failed tries says when it chose.
    let choices =
        daemon.log().lines().filter_map(|line| failed_choice(line, &engine_name)).collect::<Vec<_>>();
    let last = choices.into_iter().fold(dead_at, f64::max);
    Kill {
        last_choice_ms: last - dead_at,
        withdrawn_after_event_ms: withdrawn - event_at,
        ready_after_event_ms: ready - event_at.max(withdrawn),
    }
}

/// When a failed try on a replica began, out of a line of the daemon's log.
fn failed_choice(line: &str, engine_name: &str) -> Option<f64> {
    let entry: serde_json::Value = serde_json::from_str(line).ok()?;
    if entry["message"] != "try failed" || entry["replica"] != engine_name {
        return None;
    }
    let at: jiff::Timestamp = entry["timestamp"].as_str()?.parse().ok()?;
    Some(at.as_nanosecond() as f64 / 1e6 - entry["after_us"].as_f64()? / 1e3)
}

#[tokio::test(flavor = "multi_thread")]
async fn failover() {
    let _alone = alone().await;
    let Some(docker) = engine_or_skip("figures::failover").await else { return };
    let Some(on) = docker_or_skip("figures::failover").await else { return };
    let kills: usize = std::env::var("RINGMASTER_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let (setup, _folder) = Setup::new(on);
    let daemon = Daemon::with(Setup { log_level: "info,ringmaster_proxy=debug", ..setup }).await;
    daemon
        .apply_and_converge(
            &daemon.web,
            &daemon.manifest(&daemon.web, 3, "  balancing: { hashOn: requestId }\n"),
        )
        .await;
    let like = inspect(&daemon, &docker).await;
    let mut load = Load::start(daemon.setup.listen, 200);
    load.more(50).await;
    let (mut measured, mut baseline) = (Vec::new(), Vec::new());
    for index in 0..kills {
        baseline.push(directly(&docker, &like, 1).await.as_secs_f64() * 1e3);
        let seen = daemon.client.events(0).await.unwrap().events.last().map_or(0, |event| event.sequence);
        let kill = one_kill(&daemon, &docker, (index % 3) as u16, seen).await;
        println!("kill {index}: {kill:.1?}");
        measured.push(kill);
        if index % 3 == 2 {
            forget_failures(&daemon).await;
        }
    }
    load.more(50).await;
    let outcome = load.stop().await;
    let of = |value: fn(&Kill) -> f64| measured.iter().map(value).collect::<Vec<f64>>();
    let create = median(baseline);
    let last_choice = percentile(of(|kill| kill.last_choice_ms), 0.95);
    let withdrawn = percentile(of(|kill| kill.withdrawn_after_event_ms), 0.95);
    let ready = median(of(|kill| kill.ready_after_event_ms)) / create;
    println!(
        "{kills} kills, {} requests, slowest {:?}, one create+start {create:.0} ms",
        outcome.total, outcome.slowest
    );
    print("failed requests", outcome.failed.len() as f64, 0.0, "");
    print("last choice of a dead replica after its death, p95", last_choice, 100.0, " ms");
    print("out of the snapshot after the engine's die event, p95", withdrawn, 100.0, " ms");
    print("ready replacement against one create+start, median", ready, 1.3, "x");
    assert_eq!(outcome.failed, [], "of {} requests", outcome.total);
    assert!(last_choice < 100.0 * SLACK && withdrawn < 100.0 * SLACK && ready < 1.3 * SLACK);
}

/// A member that is killed again within a minute has to wait: a crash loop. A new template starts afresh, so that
/// each kill measures a first replacement.
async fn forget_failures(daemon: &Daemon) {
    let generation = daemon.client.overview().await.unwrap().generation;
    let env = format!("    env: {{ ROUND: \"{generation}\" }}\n    resources:");
    let manifest = daemon
        .manifest(&daemon.web, 3, "  balancing: { hashOn: requestId }\n")
        .replace("    resources:", &env);
    daemon.apply_and_converge(&daemon.web, &manifest).await;
}
