//! Carrying out one action on the runtime. Whatever was decided is checked against the object itself first:
//! nothing is destroyed on a list alone.

use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::ReplicaName;
use ringmaster_core::observed::{ReplicaState, RuntimeId, RuntimeReplica};
use ringmaster_runtime::{CreateRequest, ErrorKind, Runtime, RuntimeError};

/// Creates and starts a replica.
pub(crate) async fn create(
    runtime: Arc<dyn Runtime>,
    request: CreateRequest,
) -> Result<RuntimeReplica, RuntimeError> {
    runtime.create(&request).await
}

/// Stops and removes a replica, if it still is the one that was meant.
pub(crate) async fn remove(
    runtime: Arc<dyn Runtime>,
    id: RuntimeId,
    name: ReplicaName,
    grace: Option<Duration>,
) -> Result<(), RuntimeError> {
    let Some(found) = runtime.inspect(&id).await? else { return Ok(()) };
    if found.name != name {
        let why = format!("it is {} now: observing again", found.name);
        return Err(RuntimeError::new(format!("remove {name}"), ErrorKind::Conflict, why));
    }
    match (&found.state, grace) {
        (ReplicaState::Running | ReplicaState::Paused, Some(grace)) => runtime.stop(&id, grace).await?,
        (ReplicaState::Running | ReplicaState::Paused, None) => {
            // It was to be removed because it had ended, and somebody has started it again.
            let why = "it runs again: observing again";
            return Err(RuntimeError::new(format!("remove {name}"), ErrorKind::Conflict, why));
        }
        _ => {}
    }
    runtime.remove(&id).await
}
