//! A daemon behind the fault proxy, under a steady load, and what the engine itself says of its containers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use bollard::Docker;
use bollard::models::ContainerSummaryStateEnum as State;
use bollard::query_parameters::ListContainersOptionsBuilder;
use ringmaster_docker::testing::engine_or_skip;
use ringmaster_runtime::labels;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::common::{Daemon, SOON, Setup, docker_or_skip};
use crate::engine_proxy::EngineProxy;
use crate::load::Load;

/// Requests a second, all the time.
const RATE: u32 = 100;

pub(crate) struct Bed {
    pub(crate) docker: Docker,
    pub(crate) daemon: Daemon,
    pub(crate) proxy: EngineProxy,
    load: Load,
    replicas: u32,
    // Dropped last: the daemon's state is in it.
    _folder: TempDir,
}

/// A container: the name it should have by its labels, and its id.
pub(crate) type Identity = (String, String);

impl Bed {
    /// So many replicas, converged and under load; none without an engine.
    pub(crate) async fn start(test: &str, replicas: u32) -> Option<Bed> {
        Bed::with(test, replicas, |setup, _| setup).await
    }

    /// As [`Bed::start`], with more flags.
    pub(crate) async fn with(test: &str, replicas: u32, more: impl Fn(Setup, &Path) -> Setup) -> Option<Bed> {
        let docker = engine_or_skip(test).await?;
        let (setup, folder) = Setup::new(docker_or_skip(test).await?);
        let proxy = EngineProxy::start(&folder.path().join("engine.sock"));
        let setup = more(setup.with(&["--docker-socket", proxy.path.to_str().unwrap()]), folder.path());
        let daemon = Daemon::with(setup).await;
        daemon.apply_and_converge(&daemon.web, &daemon.manifest(&daemon.web, replicas, "")).await;
        let mut load = Load::start(daemon.setup.listen, RATE);
        load.more(20).await;
        Some(Bed { docker, daemon, proxy, load, replicas, _folder: folder })
    }

    /// Asks for another number of replicas.
    pub(crate) async fn scale(&mut self, replicas: u32) {
        self.daemon.apply(&self.daemon.manifest(&self.daemon.web, replicas, "")).await;
        self.replicas = replicas;
    }

    /// What runs.
    pub(crate) async fn running(&self) -> BTreeSet<Identity> {
        containers(&self.docker, &self.daemon.setup.instance).await.remove(&true).unwrap_or_default()
    }

    /// Makes the daemon list: a signal that changes nothing is an event of the engine.
    pub(crate) async fn nudge(&self) {
        self.daemon.client.fault(&format!("{}-0", self.daemon.web), "CONT").await.unwrap();
    }

    /// Awaits that all is as desired, by what the daemon and the engine say.
    pub(crate) async fn settled(&self, what: &str) -> BTreeSet<Identity> {
        self.settled_within(what, SOON).await
    }

    /// As [`Bed::settled`], within another time.
    pub(crate) async fn settled_within(&self, what: &str, limit: Duration) -> BTreeSet<Identity> {
        let found = settled(&self.docker, &self.daemon, self.replicas, what, limit).await;
        println!("settled: {what}");
        found
    }

    /// Awaits more answers.
    pub(crate) async fn serve(&mut self) {
        self.load.more(20).await;
    }

    /// Ends the load: no request has failed.
    pub(crate) async fn over(self) {
        let outcome = self.load.stop().await;
        println!("{} requests, slowest {:?}", outcome.total, outcome.slowest);
        assert_eq!(outcome.failed, [], "of {} requests\n{}", outcome.total, self.daemon.events_text().await);
    }
}

/// The containers of an instance by whether they run.
async fn containers(docker: &Docker, instance: &str) -> BTreeMap<bool, BTreeSet<Identity>> {
    let label = format!("{}={instance}", labels::INSTANCE);
    let filters = HashMap::from([("label", vec![label.as_str()])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let mut found: BTreeMap<bool, BTreeSet<Identity>> = BTreeMap::new();
    // An engine that is away shows nothing; whoever asks looks again.
    for container in docker.list_containers(Some(options)).await.unwrap_or_default() {
        let labels = container.labels.unwrap_or_default();
        let name =
            [labels::SERVICE, labels::ORDINAL, labels::ATTEMPT].map(|label| labels[label].as_str()).join("-");
        let runs = matches!(container.state, Some(State::RUNNING | State::PAUSED));
        found.entry(runs).or_default().insert((name, container.id.unwrap()));
    }
    found
}

/// Awaits that the service has converged and that the engine has exactly one running container for each place; beside it at
/// most the last one that ended there, which is kept for its output.
pub(crate) async fn settled(
    docker: &Docker,
    daemon: &Daemon,
    replicas: u32,
    what: &str,
    limit: Duration,
) -> BTreeSet<Identity> {
    let deadline = Instant::now() + limit;
    let desired: Vec<String> = (0..replicas).map(|ordinal| format!("{}-{ordinal}", daemon.web)).collect();
    loop {
        let status = daemon.status(&daemon.web).await;
        let by_state = containers(docker, &daemon.setup.instance).await;
        let places = |runs: bool| -> Vec<String> {
            let names = by_state.get(&runs).into_iter().flatten();
            let mut places: Vec<String> =
                names.map(|(name, _)| name.rsplit_once('-').unwrap().0.to_owned()).collect();
            places.sort();
            places
        };
        let mut ended = places(false);
        let count = ended.len();
        ended.dedup();
        let is_so = status.as_ref().is_some_and(|s| s.is_converged() && s.ready == replicas)
            && places(true) == desired
            && ended.len() == count
            && ended.iter().all(|place| desired.contains(place));
        if is_so {
            return by_state[&true].clone();
        }
        assert!(
            Instant::now() < deadline,
            "{what}: not settled within {limit:?}: {by_state:#?}\n{status:#?}\n{}",
            daemon.events_text().await
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
