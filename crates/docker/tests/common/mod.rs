//! One runtime on an instance and a network of its own, removed when the test ends.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use ringmaster_core::ServiceName;
use ringmaster_core::spec::Template;
use ringmaster_docker::testing::{Cleanup, engine_or_skip, replica_image, unique_name};
use ringmaster_docker::{DockerConfig, DockerRuntime};
use ringmaster_runtime::ErrorKind;
use ringmaster_runtime::conformance::Fixture;
use serde_json::json;

/// What a test of the docker runtime needs.
pub(crate) struct Bench {
    pub(crate) config: DockerConfig,
    pub(crate) runtime: DockerRuntime,
    pub(crate) fixture: Fixture,
    _cleanup: Cleanup,
}

impl Bench {
    /// None if there is no engine: then the test is skipped.
    pub(crate) async fn open(test: &str) -> Option<Bench> {
        let docker = engine_or_skip(test).await?;
        let image = replica_image(&docker).await;
        let name = unique_name();
        let config = DockerConfig { network: name.clone(), ..DockerConfig::new(&name) };
        let cleanup = Cleanup::of(&name);
        let runtime = DockerRuntime::connect(config.clone()).await.unwrap();
        let fixture = fixture(&image, &name);
        Some(Bench { config, runtime, fixture, _cleanup: cleanup })
    }
}

/// A template out of its JSON.
pub(crate) fn template(value: serde_json::Value) -> Template {
    serde_json::from_value(value).unwrap()
}

fn fixture(image: &str, service: &str) -> Fixture {
    let limits = json!({ "memory": "64Mi", "pids": 32 });
    Fixture {
        service: ServiceName::new(service).unwrap(),
        runs: template(json!({ "image": image, "pullPolicy": "never", "resources": limits })),
        exits: template(json!({ "image": image, "args": ["--no-such-argument"] })),
        cannot_start: template(json!({ "image": image, "command": ["/no-such-program"] })),
        missing: template(json!({ "image": "ringmaster/no-such-image:none", "pullPolicy": "never" })),
        missing_kind: ErrorKind::ImageMissing,
        asks: ["/ringmaster-replica", "check"].map(str::to_owned).to_vec(),
        fails: ["/ringmaster-replica", "--no-such-argument"].map(str::to_owned).to_vec(),
        sees_signals: true,
        deadline: Duration::from_secs(60),
    }
}
