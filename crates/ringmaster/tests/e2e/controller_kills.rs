//! `kill -9` of the controller at random points of a rollout under load: each time it converges, no request fails, and no
//! container is left that should not be there.

use std::time::{SystemTime, UNIX_EPOCH};

use ringmaster_docker::testing::engine_or_skip;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::common::{Daemon, SOON, Setup, docker_or_skip, shared};
use crate::engine_faults::bed::settled;
use crate::load::Load;

/// How many kills.
const KILLS: &str = "RINGMASTER_CONTROLLER_KILLS";
/// The seed of the times: to repeat a run.
const SEED: &str = "RINGMASTER_SEED";
const REPLICAS: u32 = 3;

/// The variable's value as a number.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// The next number below 1,000 (SplitMix64).
fn permille(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % 1_000
}

fn version(daemon: &Daemon, version: u64) -> String {
    let env = format!("    env: {{ VERSION: v{version} }}\n    resources:");
    daemon.manifest(&daemon.web, REPLICAS, "").replace("    resources:", &env)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_killed_during_a_rollout_finishes_it_when_it_is_back() {
    let _shared = shared().await;
    let test = "a_controller_that_is_killed_during_a_rollout_finishes_it_when_it_is_back";
    let Some(docker) = engine_or_skip(test).await else { return };
    let (setup, _folder) = Setup::new(docker_or_skip(test).await.unwrap());
    let mut daemon = Daemon::with(setup.with(&["--data-plane", "child"])).await;
    let web = daemon.web.clone();
    daemon.apply_and_converge(&web, &version(&daemon, 0)).await;
    let mut load = Load::start(daemon.setup.listen, 100);
    load.more(50).await;
    // How long one takes that nobody disturbs: the kills are within that, and a little beyond.
    let begun = Instant::now();
    daemon.apply_and_converge(&web, &version(&daemon, 1)).await;
    let whole = begun.elapsed();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number(SEED).unwrap_or(now);
    let kills = number(KILLS).unwrap_or(5);
    println!("{SEED}={seed} {KILLS}={kills}; an undisturbed rollout takes {whole:?}");
    let mut state = seed;
    let (mut unfinished, mut back) = (0, Vec::new());
    for kill in 0..kills {
        let response = daemon.apply(&version(&daemon, kill + 2)).await;
        let at = whole * permille(&mut state) as u32 / 900;
        let killed_at = Instant::now() + at;
        tokio::time::sleep_until(killed_at).await;
        let status = daemon.status(&web).await.unwrap();
        unfinished += u32::from(!status.is_converged());
        daemon.end(Signal::KILL).await;
        load.more(5).await;
        let restarted = Instant::now();
        daemon.restart().await;
        let what = format!("kill {kill} at {at:?} of the rollout, seed {seed}");
        let status = daemon.converged(&web, response.generation).await;
        assert!(status.updated == REPLICAS, "{what}: {status:#?}");
        settled(&docker, &daemon, REPLICAS, &what, SOON).await;
        back.push(restarted.elapsed());
    }
    let outcome = load.stop().await;
    back.sort();
    println!(
        "{kills} kills, {unfinished} before the rollout's end: converged {:?} after the restart in the median, {:?} at most; {} of {} \
         requests failed, slowest {:?}",
        back[back.len() / 2],
        back[back.len() - 1],
        outcome.failed.len(),
        outcome.total,
        outcome.slowest
    );
    assert_eq!(outcome.failed, [], "of {} requests, seed {seed}", outcome.total);
}
