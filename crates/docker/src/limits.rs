//! Limits that somebody changed by hand (`docker update`): seen by comparing a container with what it was made with, and
//! set back in place, because a running process is worth more than a tidy one.
//!
//! The list does not show them. So a container is inspected when the engine tells of an update, and all of them now and
//! then, because engines lose events.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerUpdateBody, HostConfig};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use futures_util::stream::{self, BoxStream, StreamExt};
use ringmaster_core::observed::RuntimeId;
use ringmaster_core::quantity::{Cpu, Memory};
use ringmaster_core::spec::Resources;
use ringmaster_runtime::{ErrorKind, RuntimeError, Wake, labels};
use tokio::sync::Notify;

use crate::engine::{Engine, READ_MAX};
use crate::network::short;

/// How often all are looked at.
const AUDIT_PERIOD: Duration = Duration::from_secs(60);
/// Pause after the engine has come back: whoever waits for a list goes first.
const AUDIT_PAUSE: Duration = Duration::from_secs(1);
const NANO: i64 = 1_000_000_000;

/// What the engine is to be asked for so that a container has the limits again that it was made with; none if it has them,
/// or does not say. `cpus` is how many processors the machine has.
pub(crate) fn undo(container: &ContainerInspectResponse, cpus: i64) -> Option<(String, ContainerUpdateBody)> {
    let how = difference(container, cpus)?;
    let made_with = made_with(container)?;
    let memory = i64::try_from(made_with.memory.bytes).unwrap_or(i64::MAX);
    let is_free = container.host_config.as_ref().is_none_or(|now| now.nano_cpus.unwrap_or(0) == 0);
    // No limit cannot be asked for again: all that there is is the same.
    let all = (!is_free).then_some(cpus.saturating_mul(NANO));
    let body = ContainerUpdateBody {
        memory: Some(memory),
        // Equal means no swap on top of the memory.
        memory_swap: Some(memory),
        pids_limit: Some(i64::from(made_with.pids)),
        nano_cpus: made_with.cpu.map(nano_cpus).or(all),
        ..ContainerUpdateBody::default()
    };
    Some((how, body))
}

/// As the engine counts.
pub(crate) fn nano_cpus(cpu: Cpu) -> i64 {
    i64::from(cpu.millicores) * 1_000_000
}

/// How a container's limits differ from those that it was made with; none if they do not, or if it does not say.
fn difference(container: &ContainerInspectResponse, cpus: i64) -> Option<String> {
    let made_with = made_with(container)?;
    let now = container.host_config.as_ref()?;
    let found = [memory(now, &made_with), pids(now, &made_with), cpu(now, &made_with, cpus)];
    let found: Vec<String> = found.into_iter().flatten().collect();
    (!found.is_empty()).then(|| found.join(", "))
}

/// What a container was made with.
fn made_with(container: &ContainerInspectResponse) -> Option<Resources> {
    let text = container.config.as_ref()?.labels.as_ref()?.get(labels::RESOURCES)?;
    serde_json::from_str(text).ok()
}

// An engine on a kernel without a controller leaves its limit out: that is not somebody's doing.

fn memory(now: &HostConfig, made_with: &Resources) -> Option<String> {
    let found = Memory { bytes: u64::try_from(now.memory?).ok().filter(|bytes| *bytes > 0)? };
    let wanted = made_with.memory;
    (found.bytes != wanted.bytes).then(|| format!("memory {found} instead of {wanted}"))
}

fn pids(now: &HostConfig, made_with: &Resources) -> Option<String> {
    let (found, wanted) = (now.pids_limit.filter(|pids| *pids != 0)?, made_with.pids);
    let is_other = found != i64::from(wanted);
    is_other.then(|| match found {
        ..0 => format!("any number of processes instead of {wanted}"),
        found => format!("{found} processes instead of {wanted}"),
    })
}

fn cpu(now: &HostConfig, made_with: &Resources, cpus: i64) -> Option<String> {
    let found = now.nano_cpus.unwrap_or(0);
    let is_all = found == 0 || found >= cpus.saturating_mul(NANO);
    let is_so = made_with.cpu.map_or(is_all, |wanted| nano_cpus(wanted) == found);
    let told = |cpu: Option<Cpu>| cpu.map_or("any".to_owned(), |cpu| cpu.to_string());
    let millicores = u32::try_from(found / 1_000_000).unwrap_or(u32::MAX);
    let found = (!is_all).then_some(Cpu { millicores });
    (!is_so).then(|| format!("cpu {} instead of {}", told(found), told(made_with.cpu)))
}

/// Looks at containers of one instance.
#[derive(Debug, Clone)]
pub(crate) struct Audit {
    pub(crate) engine: Engine,
    pub(crate) instance: String,
    /// How many processors the engine's machine has.
    pub(crate) cpus: i64,
    /// The engine has come back.
    pub(crate) back: Arc<Notify>,
}

impl Audit {
    /// What somebody has changed about this container; nothing if it is gone.
    pub(crate) async fn one(&self, id: &str) -> Result<Option<Wake>, RuntimeError> {
        let call = self.engine.docker.inspect_container(id, None::<InspectContainerOptions>);
        match self.engine.call(format!("inspect container {}", short(id)), READ_MAX, call).await {
            Ok(found) => {
                let how = difference(&found, self.cpus);
                Ok(how.map(|how| Wake::ChangedLimits(RuntimeId(id.to_owned()), how)))
            }
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Everything that was changed, a moment after the engine has come back and every minute, for ever.
    pub(crate) fn all(self) -> BoxStream<'static, Wake> {
        let rounds = stream::unfold(self, |audit| async move {
            // Both arms lose nothing when dropped: a notification that nobody took is kept.
            tokio::select! {
                () = audit.back.notified() => tokio::time::sleep(AUDIT_PAUSE).await,
                () = tokio::time::sleep(AUDIT_PERIOD) => {}
            }
            let found = audit.round().await.unwrap_or_else(|error| {
                tracing::debug!(%error, "limits are looked at again later");
                Vec::new()
            });
            Some((stream::iter(found), audit))
        });
        rounds.flatten().boxed()
    }

    /// One after the other: nobody waits for it.
    async fn round(&self) -> Result<Vec<Wake>, RuntimeError> {
        let ours = vec![
            format!("{}={}", labels::OWNER_KEY, labels::OWNER),
            format!("{}={}", labels::INSTANCE, self.instance),
        ];
        let filters = HashMap::from([("label", ours)]);
        let options = ListContainersOptionsBuilder::new().filters(&filters).build();
        let call = self.engine.docker.list_containers(Some(options));
        let running = self.engine.call("list containers to look at their limits", READ_MAX, call).await?;
        let mut found = Vec::new();
        for id in running.into_iter().filter_map(|container| container.id) {
            found.extend(self.one(&id).await?);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ContainerConfig;

    use super::*;

    fn container(resources: &str, now: HostConfig) -> ContainerInspectResponse {
        let labels = HashMap::from([(labels::RESOURCES.to_owned(), resources.to_owned())]);
        ContainerInspectResponse {
            config: Some(ContainerConfig { labels: Some(labels), ..ContainerConfig::default() }),
            host_config: Some(now),
            ..ContainerInspectResponse::default()
        }
    }

    #[test]
    fn what_differs_from_what_it_was_made_with_is_told() {
        let check = |resources: &str, (memory, pids, nano): (i64, Option<i64>, i64), how: Option<&str>| {
            let now = HostConfig {
                memory: Some(memory),
                pids_limit: pids,
                nano_cpus: Some(nano),
                ..HostConfig::default()
            };
            assert_eq!(difference(&container(resources, now), 2).as_deref(), how, "{resources}");
        };
        let (limited, free) =
            (r#"{"cpu":"500m","memory":"64Mi","pids":32}"#, r#"{"memory":"64Mi","pids":32}"#);
        let mib = 1 << 20;
        check(limited, (64 * mib, Some(32), NANO / 2), None);
        check(free, (64 * mib, Some(32), 0), None);
        check(free, (64 * mib, Some(32), 2 * NANO), None);
        check(free, (0, None, 0), None);
        check("nonsense", (1, None, 1), None);
        check(free, (128 * mib, Some(32), 0), Some("memory 128Mi instead of 64Mi"));
        check(free, (64 * mib, Some(-1), 0), Some("any number of processes instead of 32"));
        let all = "memory 65Mi instead of 64Mi, 7 processes instead of 32, cpu 1 instead of 500m";
        check(limited, (65 * mib, Some(7), NANO), Some(all));
        check(free, (64 * mib, Some(32), NANO), Some("cpu 1 instead of any"));
        check(limited, (64 * mib, Some(32), 2 * NANO), Some("cpu any instead of 500m"));
    }
}
