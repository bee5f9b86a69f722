//! The docker runtime passes the suite that every runtime passes, against a real engine.

mod common;

use ringmaster_docker::testing::{Cleanup, unique_name};
use ringmaster_docker::{DockerConfig, DockerRuntime};
use ringmaster_runtime::{Runtime, conformance};

use common::Bench;

macro_rules! claim {
    ($name:ident) => {
        #[tokio::test]
        async fn $name() {
            if let Some(bench) = Bench::open(stringify!($name)).await {
                conformance::$name(&bench.runtime, &bench.fixture).await;
            }
        }
    };
}

ringmaster_runtime::conformance_claims!(claim);

#[tokio::test]
async fn adopts_what_runs() {
    let Some(bench) = Bench::open("adopts_what_runs").await else { return };
    let open = async || {
        let runtime = DockerRuntime::connect(bench.config.clone()).await.unwrap();
        Box::new(runtime) as Box<dyn Runtime>
    };
    conformance::adopts_what_runs(open().await, open, &bench.fixture).await;
}

#[tokio::test]
async fn instances_do_not_see_each_other() {
    let Some(bench) = Bench::open("instances_do_not_see_each_other").await else { return };
    let config = DockerConfig { instance: unique_name(), ..bench.config.clone() };
    let _cleanup = Cleanup::of(&config.instance);
    let other = DockerRuntime::connect(config).await.unwrap();
    conformance::instances_do_not_see_each_other(&bench.runtime, &other, &bench.fixture).await;
}
