//! What rollouts cost those who send requests meanwhile, on the real engine, and what the same costs behind haproxy.
//!
//! Each test has the machine to itself. What must never fail is asserted; times are printed with their goals.

mod haproxy;

use std::collections::BTreeMap;
use std::time::Duration;

use ringmaster_core::Timestamp;
use ringmaster_core::event::Event;
use tokio::time::Instant;

use crate::common::{Daemon, alone, docker_or_skip};
use crate::load::{Load, Outcome};
use crate::rollout::release;

/// Keys that the load turns through.
const KEYS: u64 = 120;
/// Requests a second.
pub(crate) const RATE: u32 = 300;

pub(crate) fn print(what: &str, measured: f64, goal: f64, unit: &str) {
    let verdict = if measured <= goal { "met" } else { "MISSED" };
    println!("figure: {what}: {measured:.2}{unit} (goal {goal:.2}{unit}, {verdict})");
}

/// How many rollouts: 5, or as many as RINGMASTER_ROLLOUTS says.
fn rollouts() -> u32 {
    std::env::var("RINGMASTER_ROLLOUTS")
        .map_or(5, |text| text.parse().expect("RINGMASTER_ROLLOUTS is a number"))
}

/// GET and POST in turn; each key is asked for by both.
fn mixed(daemon: &Daemon) -> Load {
    let base = format!("http://{}", daemon.setup.listen);
    Load::of(RATE, move |client, number| {
        let key = format!("key-{}", number / 2 % KEYS);
        let request = match number % 2 {
            0 => client.get(format!("{base}/home")),
            _ => client.post(format!("{base}/echo")).body(format!("body of {number}")),
        };
        request.header("X-Key", key)
    })
}

/// How often a key's requests went to another replica than the one before, on average.
fn moves(outcome: &Outcome) -> f64 {
    let mut last: BTreeMap<u64, &String> = BTreeMap::new();
    let mut moves = 0_u32;
    for (number, answer) in outcome.log.iter().filter(|(number, _)| *number % 2 == 0) {
        let before = last.insert(number / 2 % KEYS, answer);
        moves += u32::from(before.is_some_and(|before| before != answer));
    }
    f64::from(moves) / KEYS as f64
}

pub(crate) fn tell(what: &str, outcome: &Outcome) {
    let slowest = outcome.times.iter().map(|(_, took)| took).max().copied().unwrap_or_default();
    let mut took: Vec<Duration> = outcome.times.iter().map(|(_, took)| *took).collect();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: {} requests, {} failed, median {:.1?}, p99 {:.1?}, p99.9 {:.1?}, slowest {slowest:.1?}",
        outcome.total,
        outcome.failed.len(),
        at(0.5),
        at(0.99),
        at(0.999)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rollouts_of_six_replicas_under_load() {
    let _alone = alone().await;
    let Some(on) = docker_or_skip("rollout_figures::rollouts_of_six_replicas_under_load").await else {
        return;
    };
    let daemon = Daemon::start(on).await;
    let version = |number: u32| {
        let more = release(&daemon, 6, &format!("GREETING: r{number}"), "");
        more + "  balancing: { policy: slot-table, hashOn: { header: X-Key } }\n"
    };
    daemon.apply_and_converge(&daemon.web, &version(0)).await;
    let mut load = mixed(&daemon);
    load.more(RATE as usize).await;
    let began = Instant::now();
    for number in 1..=rollouts() {
        let generation = daemon.apply(&version(number)).await.generation;
        daemon.converged(&daemon.web, generation).await;
    }
    let each = began.elapsed() / rollouts();
    load.more(RATE as usize).await;
    let outcome = load.stop().await;
    tell(&format!("{} rollouts of 6 replicas, {each:.1?} each", rollouts()), &outcome);
    let moved = moves(&outcome) / f64::from(rollouts());
    print("failed requests in rollouts", outcome.failed.len() as f64, 0.0, "");
    print("slowest request in rollouts", outcome.slowest.as_secs_f64() * 1_000.0, 100.0, " ms");
    print("moves of a key in a rollout of 6", moved, 1.0, "");
    assert_eq!(outcome.failed, []);
    // A hedge or a replay may show one answer of another replica now and then, a move of keys shows in all of them.
    assert!((0.95..=1.05).contains(&moved), "{moved}");
}

/// The time from the first event of a reason about an object until the first of another.
fn spans(events: &[Event], from: &str, to: &str) -> Duration {
    let at = |reason: &str, object: &str| -> Option<Timestamp> {
        events.iter().find(|e| e.reason.as_str() == reason && e.object == object).map(|e| e.at)
    };
    let begins = events.iter().filter(|e| e.reason.as_str() == from);
    begins.filter_map(|e| Some(at(to, &e.object)?.since(e.at))).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rollout_of_ten_takes_beyond_the_engine() {
    let _alone = alone().await;
    let Some(on) = docker_or_skip("rollout_figures::what_a_rollout_of_ten_takes_beyond_the_engine").await
    else {
        return;
    };
    let daemon = Daemon::start(on).await;
    let version = |number: u32| release(&daemon, 10, &format!("GREETING: r{number}"), "maxSurge: 1");
    daemon.apply_and_converge(&daemon.web, &version(0)).await;
    let seen = daemon.client.events(0).await.unwrap().events.last().map_or(0, |event| event.sequence);
    let began = Instant::now();
    daemon.apply_and_converge(&daemon.web, &version(1)).await;
    let took = began.elapsed();
    let events = daemon.client.events(seen).await.unwrap().events;
    let (starts, stops) = (spans(&events, "Creating", "Started"), spans(&events, "Removing", "Removed"));
    let each = |time: Duration| time.as_secs_f64() * 1_000.0 / 10.0;
    println!(
        "a rollout of 10, one at a time: {took:.2?}; the engine starts for {starts:.2?}, and stops for {stops:.2?}"
    );
    println!("beyond its starts: {:.0} ms per replica", each(took.saturating_sub(starts)));
    let own = each(took.saturating_sub(starts + stops));
    print("a rollout of 10 beyond the engine's starts and stops, per replica", own, 100.0, " ms");
    assert!(own < 200.0, "{own} ms");
}
