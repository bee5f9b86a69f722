//! `kill -9` of the engine itself under load, and its return: with `--live-restore` nothing happens to anybody; without it the
//! engine stops every container when it comes back, and the service is made whole.

use std::path::Path;
use std::time::Duration;

use ringmaster_docker::testing::replica_image;
use tokio::time::Instant;

use crate::common::{Daemon, On, Setup, shared};
use crate::engine_faults::bed::settled;
use crate::load::{Load, Outcome};
use crate::private_engine::PrivateEngine;

const REPLICAS: u32 = 3;
const WITHIN: Duration = Duration::from_secs(60);

struct Killed {
    outcome: Outcome,
    /// When the engine was started again, after the load's start.
    restarted: Duration,
    /// From then on until all was as desired again.
    whole: Duration,
    /// Whether the same containers run as before.
    same: bool,
}

/// Kills the engine under load and starts it again.
async fn killed(test: &str, pool: u8, flags: &[&str]) -> Option<Killed> {
    let machines_bridge = || Path::new("/sys/class/net/docker0").exists();
    let had_bridge = machines_bridge();
    let mut engine = PrivateEngine::start(test, pool, flags).await?;
    let docker = engine.docker();
    let (setup, _folder) = Setup::new(On::Docker(replica_image(&docker).await));
    let setup = setup.with(&["--docker-socket", engine.socket.to_str().unwrap()]);
    let daemon = Daemon::with(setup).await;
    daemon.apply_and_converge(&daemon.web, &daemon.manifest(&daemon.web, REPLICAS, "")).await;
    let before = settled(&docker, &daemon, REPLICAS, "before", WITHIN).await;
    let mut load = Load::start(daemon.setup.listen, 100);
    let load_started = load.started;
    load.more(50).await;
    engine.kill();
    daemon.event("EngineUnreachable", "").await;
    load.more(100).await;
    assert_eq!(daemon.status(&daemon.web).await.unwrap().ready, REPLICAS, "unknown is not gone");
    let restarted = Instant::now();
    engine.restart().await;
    daemon.event("EngineReachable", "").await;
    let after = settled(&docker, &daemon, REPLICAS, "after", WITHIN).await;
    let whole = restarted.elapsed();
    load.more(50).await;
    let outcome = load.stop().await;
    println!(
        "engine killed {flags:?}: whole {whole:?} after its restart; {} of {} requests failed, slowest {:?}",
        outcome.failed.len(),
        outcome.total,
        outcome.slowest
    );
    assert_eq!(machines_bridge(), had_bridge, "the private engine has touched the machine's own");
    Some(Killed { restarted: restarted - load_started, whole, same: before == after, outcome })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_killed_with_live_restore_costs_nothing() {
    let _shared = shared().await;
    let test = "an_engine_that_is_killed_with_live_restore_costs_nothing";
    let Some(killed) = killed(test, 211, &["--live-restore"]).await else { return };
    assert!(killed.same, "a replica was replaced");
    assert_eq!(killed.outcome.failed, [], "of {} requests", killed.outcome.total);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_stops_everything_when_it_is_back_is_made_whole() {
    let _shared = shared().await;
    let test = "an_engine_that_stops_everything_when_it_is_back_is_made_whole";
    let Some(killed) = killed(test, 212, &[]).await else { return };
    assert!(!killed.same, "the engine stops what it finds");
    // Nothing runs for a moment, so requests of that moment fail: none before the engine is started again, none after all is
    // as desired.
    let meanwhile = killed.restarted..=killed.restarted + killed.whole;
    assert!(
        killed.outcome.failed.iter().all(|(sent, _)| meanwhile.contains(sent)),
        "outside of {meanwhile:?}: {:?}",
        killed.outcome.failed
    );
}
