//! The process runtime passes the suite that every runtime passes, with real processes.

mod common;

use ringmaster_process::{ProcessConfig, ProcessRuntime};
use ringmaster_runtime::{Runtime, conformance};

use common::Bench;

macro_rules! claim {
    ($name:ident) => {
        #[tokio::test]
        async fn $name() {
            let bench = Bench::open().await;
            conformance::$name(&bench.runtime, &bench.fixture).await;
        }
    };
}

ringmaster_runtime::conformance_claims!(claim);

#[tokio::test]
async fn adopts_what_runs() {
    let Bench { config, runtime, fixture, folder: _folder } = Bench::open().await;
    let reopen = async || {
        let runtime = ProcessRuntime::open(config).await.unwrap();
        Box::new(runtime) as Box<dyn Runtime>
    };
    conformance::adopts_what_runs(Box::new(runtime), reopen, &fixture).await;
}

#[tokio::test]
async fn instances_do_not_see_each_other() {
    let bench = Bench::open().await;
    let config = ProcessConfig { instance: "other".to_owned(), ..bench.config.clone() };
    let other = ProcessRuntime::open(config).await.unwrap();
    conformance::instances_do_not_see_each_other(&bench.runtime, &other, &bench.fixture).await;
}
