//! What the controller costs with hundreds of replicas, and how soon a new daemon serves them: the real binary and real
//! processes, measured from the outside. Each test has the machine to itself.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::common::{Daemon, On, SOON, Setup, alone};

/// A measured cost beyond this multiple of its goal is a regression, whatever the machine was doing.
const SLACK: f64 = if cfg!(debug_assertions) { 8.0 } else { 2.0 };
/// Over how long processor time is measured.
const MEASURED: Duration = Duration::from_secs(10);
/// A time without anything done after which nothing is left of what was asked for.
const QUIET: Duration = Duration::from_secs(1);
const REPLICAS_MANY: u32 = 300;
const REPLICAS_ADOPTED: u32 = 100;

fn print(what: &str, measured: f64, goal: f64, unit: &str) {
    let verdict = if measured <= goal { "met" } else { "MISSED" };
    println!("figure: {what}: {measured:.2}{unit} (goal {goal:.2}{unit}, {verdict})");
}

/// Processor time of the daemon so far, in seconds.
fn cpu_seconds(daemon: &Daemon) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

/// The sum of the series of a metric whose line contains a text.
async fn metric(daemon: &Daemon, name: &str, contains: &str) -> f64 {
    let text =
        reqwest::get(format!("http://{}/metrics", daemon.setup.admin)).await.unwrap().text().await.unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(contains));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

fn manifest(daemon: &Daemon, replicas: u32, period: &str) -> String {
    let probe = format!("period: {period}, timeout: 1s");
    daemon.manifest("web", replicas, "").replace("period: 500ms, timeout: 250ms", &probe)
}

async fn ready(daemon: &Daemon, replicas: u32) {
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        let status = daemon.status("web").await;
        if status.as_ref().is_some_and(|status| status.ready == replicas && status.is_converged()) {
            return;
        }
        assert!(Instant::now() < deadline, "{:?}", status.map(|status| (status.ready, status.conditions)));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Awaits a while in which nothing but probes was done: what starting left behind (a last list, a last report) ends first.
async fn quiet(counts: impl AsyncFn() -> [f64; 4]) {
    let deadline = Instant::now() + SOON;
    let (mut last, mut since) = (counts().await, Instant::now());
    while since.elapsed() < QUIET {
        assert!(Instant::now() < deadline, "it never rests: {last:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = counts().await;
        if now[1..] != last[1..] {
            (last, since) = (now, Instant::now());
        }
    }
}

/// What a stretch of time cost: the share of a core in per cent, and how many probes, lists, other engine calls and
/// writes there were.
async fn cost(daemon: &Daemon) -> (f64, [f64; 4]) {
    let counts = async || {
        let calls = metric(daemon, "ringmaster_engine_call_duration_seconds_count", "").await;
        let lists =
            metric(daemon, "ringmaster_engine_call_duration_seconds_count", "operation=\"list\"").await;
        let resolutions =
            metric(daemon, "ringmaster_engine_call_duration_seconds_count", "operation=\"resolve\"").await;
        let probes = metric(daemon, "ringmaster_probes_total", "probe=\"readiness\"").await;
        let writes = metric(daemon, "ringmaster_state_writes_total", "").await;
        [probes, lists, calls - lists - resolutions, writes]
    };
    quiet(counts).await;
    let before = counts().await;
    let (cpu, began) = (cpu_seconds(daemon), Instant::now());
    tokio::time::sleep(MEASURED).await;
    let share = 100.0 * (cpu_seconds(daemon) - cpu) / began.elapsed().as_secs_f64();
    let after = counts().await;
    (share, std::array::from_fn(|index| after[index] - before[index]))
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_replicas_cost_little() {
    let _alone = alone().await;
    let (setup, _folder) = Setup::new(On::Process);
    let daemon = Daemon::with(Setup { log_level: "warn", ..setup }).await;
    let began = Instant::now();
    daemon.apply(&manifest(&daemon, REPLICAS_MANY, "1h")).await;
    ready(&daemon, REPLICAS_MANY).await;
    println!("{REPLICAS_MANY} processes ready after {:.1?}", began.elapsed());
    let (idle, [probes, lists, others, writes]) = cost(&daemon).await;
    assert_eq!(probes, 0.0, "nothing is due");
    print("300 replicas, nothing to do: share of a core", idle, 1.0, " %");
    print("300 replicas, nothing to do: lists in 10 s", lists, 1.0, "");
    print("300 replicas, nothing to do: other engine calls, and writes", others + writes, 0.0, "");
    daemon.apply(&manifest(&daemon, REPLICAS_MANY, "500ms")).await;
    let (probing, [probes, ..]) = cost(&daemon).await;
    let expected = f64::from(REPLICAS_MANY) * 2.0 * MEASURED.as_secs_f64();
    println!(
        "{probes} probes of {expected} in {MEASURED:?}: {:.0} µs each",
        probing / 100.0 * MEASURED.as_secs_f64() * 1e6 / probes
    );
    print("300 replicas probed twice a second: share of a core", probing, 3.0, " %");
    assert!((probes - expected).abs() < expected * 0.1, "{probes} probes, of {expected}");
    assert!(idle < SLACK && lists <= 2.0 && others + writes == 0.0 && probing < 3.0 * SLACK);
}

/// Which replica answers for each of some keys.
async fn owners(daemon: &Daemon) -> Vec<String> {
    let client = reqwest::Client::new();
    let mut owners = Vec::new();
    for key in 0..200 {
        let request = client.get(format!("http://{}/home", daemon.setup.listen)).header("x-key", key);
        owners.push(request.send().await.unwrap().text().await.unwrap());
    }
    owners
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_replicas_are_adopted_within_a_second() {
    let _alone = alone().await;
    let mut daemon = Daemon::start(On::Process).await;
    let yaml = daemon.manifest("web", REPLICAS_ADOPTED, "  balancing: { hashOn: { header: X-Key } }\n");
    daemon.apply(&yaml).await;
    ready(&daemon, REPLICAS_ADOPTED).await;
    let ids = async |daemon: &Daemon| -> BTreeSet<_> {
        daemon
            .status("web")
            .await
            .unwrap()
            .members
            .into_iter()
            .map(|m| (m.engine_name, m.id, m.created_at))
            .collect()
    };
    let (before, owned) = (ids(&daemon).await, owners(&daemon).await);
    let mut times = Vec::new();
    for _ in 0..3 {
        daemon.end(Signal::KILL).await;
        let began = Instant::now();
        daemon.restart().await;
        daemon
            .until("web", "adopted", |status| status.ready == REPLICAS_ADOPTED && status.is_converged())
            .await;
        assert_eq!(daemon.get("/home").await.0, 200);
        times.push(began.elapsed().as_secs_f64());
        assert_eq!(owners(&daemon).await, owned, "a key has moved");
        assert_eq!(ids(&daemon).await, before, "a replica was touched");
        let acted = metric(&daemon, "ringmaster_actions_total", "").await;
        assert_eq!(acted, 0.0, "there was nothing to do: {}", daemon.events_text().await);
    }
    times.sort_by(f64::total_cmp);
    print("a killed daemon serves 100 adopted replicas again, median of three", times[1], 1.0, " s");
    assert!(times[1] < SLACK, "{times:?}");
}
