//! Carrying out one action on the runtime. Whatever was decided is checked against the object itself first:
//! nothing is destroyed on a list alone.

use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::ReplicaName;
use ringmaster_core::observed::{ReplicaState, RuntimeId, RuntimeReplica};
use ringmaster_core::spec::PreStop;
use ringmaster_core::world::Removal;
use ringmaster_runtime::{CreateRequest, ErrorKind, Inspected, Runtime, RuntimeError};
use tokio::time::Instant;

use crate::probe::get_once;

/// What is left for the stop signal at least, however long the hook took.
const AFTER_HOOK_MIN: Duration = Duration::from_secs(2);

/// What has become of the hook before a stop.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HookEnd {
    /// There was none, or it has succeeded.
    Good,
    /// It has failed, or not ended in time. The replica was stopped all the same.
    Failed(String),
}

/// Creates and starts a replica.
pub(crate) async fn create(
    runtime: Arc<dyn Runtime>,
    request: CreateRequest,
) -> Result<RuntimeReplica, RuntimeError> {
    runtime.create(&request).await
}

/// Stops and removes a replica, if it still is the one that was meant. What is to run before the stop runs first.
pub(crate) async fn remove(
    runtime: &dyn Runtime,
    id: &RuntimeId,
    name: &ReplicaName,
    grace: Option<Duration>,
) -> (Result<(), RuntimeError>, HookEnd) {
    let found = match runtime.inspect(id).await {
        Ok(found) => found,
        Err(error) => return (Err(error), HookEnd::Good),
    };
    let mut hook = HookEnd::Good;
    match (Removal::of(found.as_ref().map(|found| &found.replica), name, grace), found) {
        (Removal::Done, _) => return (Ok(()), hook),
        (Removal::Refused(why), _) => {
            let error = RuntimeError::new(format!("remove {name}"), ErrorKind::Conflict, why);
            return (Err(error), hook);
        }
        (Removal::Stop(grace), found) => {
            let begun = Instant::now();
            if let Some(found) =
                found.filter(|found| found.replica.state == ReplicaState::Running && !grace.is_zero())
            {
                hook = run_hook(runtime, found, grace).await;
            }
            let left = grace.saturating_sub(begun.elapsed()).max(AFTER_HOOK_MIN.min(grace));
            if let Err(error) = runtime.stop(id, left).await {
                return (Err(error), hook);
            }
        }
        (Removal::Remove, _) => {}
    }
    (runtime.remove(id).await, hook)
}

async fn run_hook(runtime: &dyn Runtime, found: Inspected, limit: Duration) -> HookEnd {
    let replica = found.replica;
    let outcome = match found.pre_stop {
        Ok(None) => return HookEnd::Good,
        Ok(Some(PreStop::HttpGet(get))) => match replica.address {
            Some(address) => get_once(&get, address, limit).await,
            None => Err("it has no address".to_owned()),
        },
        Ok(Some(PreStop::Exec(exec))) => match runtime.exec(&replica.id, &exec.command, limit).await {
            Ok(outcome) if outcome.code == Some(0) => Ok(()),
            Ok(outcome) => Err(crate::probe::exec_failure(&exec.command, &outcome, limit)),
            Err(error) => Err(error.to_string()),
        },
        Err(why) => Err(why),
    };
    outcome.map_or_else(HookEnd::Failed, |()| HookEnd::Good)
}
