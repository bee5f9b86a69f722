//! What a container has used so far, asked once.

use std::time::Duration;

use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::StreamExt;
use ringmaster_runtime::{ErrorKind, RuntimeError};

use crate::engine::{Engine, READ_MAX};
use crate::network::short;

/// The processor time of all that runs in a container; none if it does not run.
pub(crate) async fn cpu_used(engine: &Engine, id: &str) -> Result<Option<Duration>, RuntimeError> {
    let operation = format!("read the processor time of container {}", short(id));
    // Without `one-shot` the engine measures for a second or two before it answers.
    let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
    let mut answers = Box::pin(engine.docker.stats(id, Some(options)));
    let call = async { answers.next().await.transpose() };
    let stats = match engine.call(operation.clone(), READ_MAX, call).await {
        Ok(stats) => stats,
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let usage = stats.and_then(|stats| stats.cpu_stats?.cpu_usage?.total_usage);
    match usage {
        // One that has ended has used nothing, the engine says.
        Some(0) => Ok(None),
        Some(nanoseconds) => Ok(Some(Duration::from_nanos(nanoseconds))),
        None => {
            let why = "the engine does not count it: use `targetInFlight` or `targetRps`";
            Err(RuntimeError::new(operation, ErrorKind::Invalid, why))
        }
    }
}
