//! From the engine's list to replicas.
//!
//! One call lists everything; only containers that do not run are inspected too, for how they ended, and that
//! answer is kept. Deliberately absent: containers without our labels.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Mutex;

use bollard::models::{ContainerState, ContainerSummary, ContainerSummaryStateEnum as Summary};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use futures_util::{StreamExt, TryStreamExt, stream};
use ringmaster_core::observed::{ExitInfo, ReplicaState, RuntimeId, RuntimeReplica};
use ringmaster_core::quantity::Memory;
use ringmaster_core::spec::PreStop;
use ringmaster_core::{ReplicaName, Revision, Timestamp};
use ringmaster_runtime::{ErrorKind, Inspected, RuntimeError, labels};

use crate::engine::{Engine, READ_MAX};
use crate::network::short;

/// How many ended containers are inspected at the same time.
const INSPECTIONS_MAX: usize = 8;

/// How containers ended, by id, each with the status text of the list it was asked for: a container that was
/// started again by hand has another one.
#[derive(Debug, Default)]
pub(crate) struct Endings(Mutex<HashMap<String, (String, ReplicaState)>>);

impl Endings {
    fn get(&self, id: &str, status: &str) -> Option<ReplicaState> {
        let endings = self.0.lock().expect("no holder panics");
        endings.get(id).filter(|(of, _)| of == status).map(|(_, state)| state.clone())
    }

    fn put(&self, id: &str, status: &str, state: &ReplicaState) {
        let mut endings = self.0.lock().expect("no holder panics");
        endings.insert(id.to_owned(), (status.to_owned(), state.clone()));
    }

    fn keep_only(&self, listed: &[RuntimeReplica]) {
        let mut endings = self.0.lock().expect("no holder panics");
        endings.retain(|id, _| listed.iter().any(|replica| replica.id.0 == *id));
    }
}

/// The ids of the containers of ours that were there when somebody last looked. A list that leaves one of them out is
/// believed only once the engine says of that very container that it is gone: an incomplete list and an empty engine
/// look the same, and what follows from them does not.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<BTreeSet<String>>);

impl Known {
    fn now(&self) -> BTreeSet<String> {
        self.0.lock().expect("no holder panics").clone()
    }

    fn seen(&self, id: &str) {
        self.0.lock().expect("no holder panics").insert(id.to_owned());
    }

    /// It has been removed: no list is asked about it any more.
    pub(crate) fn forget(&self, id: &str) {
        self.0.lock().expect("no holder panics").remove(id);
    }
}

/// What a listing needs to know.
pub(crate) struct Lister<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) instance: &'a str,
    /// Addresses are those on this network; none are told while it is unknown.
    pub(crate) network_id: Option<&'a str>,
    pub(crate) endings: &'a Endings,
    pub(crate) known: &'a Known,
}

impl Lister<'_> {
    /// All replicas of this instance.
    pub(crate) async fn all(&self) -> Result<Vec<RuntimeReplica>, RuntimeError> {
        // Taken before: what is created meanwhile need not be in the list.
        let mut missing = self.known.now();
        let replicas = self.replicas("list replicas", None).await?;
        let replicas: Vec<_> = replicas.into_iter().map(|found| found.replica).collect();
        for replica in &replicas {
            missing.remove(&replica.id.0);
            self.known.seen(&replica.id.0);
        }
        stream::iter(missing)
            .map(|id| self.confirm_gone(id))
            .buffer_unordered(INSPECTIONS_MAX)
            .try_collect::<()>()
            .await?;
        let replicas = without_copies(replicas);
        self.endings.keep_only(&replicas);
        Ok(replicas)
    }

    /// An error if a container that a list leaves out is still there.
    async fn confirm_gone(&self, id: String) -> Result<(), RuntimeError> {
        use bollard::models::ContainerStateStatusEnum as Status;
        let call = self.engine.docker.inspect_container(&id, None::<InspectContainerOptions>);
        match self.engine.call(format!("inspect container {}", short(&id)), READ_MAX, call).await {
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(found) => {
                let state = found.state.and_then(|state| state.status);
                if !matches!(state, Some(Status::REMOVING | Status::DEAD)) {
                    let name = found.name.unwrap_or_default();
                    let why = format!(
                        "the engine's list leaves out container {} ({}), which it still has: the list is not believed",
                        short(&id),
                        name.trim_start_matches('/'),
                    );
                    return Err(RuntimeError::new("list replicas", ErrorKind::Engine, why));
                }
            }
        }
        self.known.forget(&id);
        Ok(())
    }

    /// The one with this id, if it is of this instance.
    pub(crate) async fn one(&self, id: &str) -> Result<Option<Inspected>, RuntimeError> {
        let operation = format!("find container {}", short(id));
        // The engine matches prefixes of ids.
        let found =
            self.replicas(&operation, Some(id)).await?.into_iter().find(|found| found.replica.id.0 == id);
        if let Some(found) = &found {
            self.known.seen(&found.replica.id.0);
        }
        Ok(found)
    }

    async fn replicas(&self, operation: &str, id: Option<&str>) -> Result<Vec<Inspected>, RuntimeError> {
        let labels = vec![
            format!("{}={}", labels::OWNER_KEY, labels::OWNER),
            format!("{}={}", labels::INSTANCE, self.instance),
        ];
        let mut filters = HashMap::from([("label".to_owned(), labels)]);
        if let Some(id) = id {
            filters.insert("id".to_owned(), vec![id.to_owned()]);
        }
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let call = self.engine.docker.list_containers(Some(options));
        let summaries = self.engine.call(operation, READ_MAX, call).await?;
        stream::iter(summaries)
            .map(|summary| self.replica(operation, summary))
            .buffered(INSPECTIONS_MAX)
            .try_filter_map(async |replica| Ok(replica))
            .try_collect()
            .await
    }

    /// None if it is not ours after all, or has gone meanwhile.
    async fn replica(
        &self,
        operation: &str,
        summary: ContainerSummary,
    ) -> Result<Option<Inspected>, RuntimeError> {
        let broken = |what: String| RuntimeError::new(operation, ErrorKind::Engine, what);
        let id = summary.id.ok_or_else(|| broken("the engine listed a container without id".to_owned()))?;
        let Some(identity) = Identity::read(summary.labels.unwrap_or_default()) else {
            tracing::warn!(container = %short(&id), "ignoring a container that wears only some of our labels");
            return Ok(None);
        };
        let identity = identity.map_err(|label| {
            broken(format!("container {} has a label that we cannot read: {label}; remove it", short(&id)))
        })?;
        let status = summary.status.unwrap_or_default();
        let state = match summary.state {
            // One being restarted by hand runs, or will in a moment.
            Some(Summary::RUNNING | Summary::RESTARTING | Summary::STOPPING) => ReplicaState::Running,
            Some(Summary::PAUSED) => ReplicaState::Paused,
            Some(Summary::REMOVING) => ReplicaState::Removing,
            Some(Summary::CREATED | Summary::EXITED | Summary::DEAD) => {
                match self.ending(&id, &status).await? {
                    Some(state) => state,
                    None => return Ok(None),
                }
            }
            Some(Summary::EMPTY) | None => {
                return Err(broken(format!("container {} has no state", short(&id))));
            }
        };
        let networks = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let address = networks
            .into_values()
            .find(|endpoint| self.network_id.is_some() && endpoint.network_id.as_deref() == self.network_id)
            .and_then(|endpoint| endpoint.ip_address?.parse().ok())
            .map(|ip| SocketAddr::new(ip, identity.port))
            .filter(|_| matches!(state, ReplicaState::Running | ReplicaState::Paused));
        let names = summary.names.unwrap_or_default();
        // A name with a second slash is a link's.
        let engine_name = names.iter().filter_map(|name| name.strip_prefix('/')).find(|n| !n.contains('/'));
        let replica = RuntimeReplica {
            id: RuntimeId(id),
            engine_name: engine_name.unwrap_or_default().to_owned(),
            name: identity.name,
            revision: identity.revision,
            state,
            address,
            // The list tells whole seconds.
            created_at: Timestamp(u64::try_from(summary.created.unwrap_or(0)).unwrap_or(0) * 1_000),
            host: identity.host,
        };
        Ok(Some(Inspected { replica, pre_stop: identity.pre_stop }))
    }

    /// The state of a container that does not run; none if it is gone.
    async fn ending(&self, id: &str, status: &str) -> Result<Option<ReplicaState>, RuntimeError> {
        if let Some(state) = self.endings.get(id, status) {
            return Ok(Some(state));
        }
        let call = self.engine.docker.inspect_container(id, None::<InspectContainerOptions>);
        let operation = format!("inspect container {}", short(id));
        let inspected = match self.engine.call(operation, READ_MAX, call).await {
            Ok(inspected) => inspected,
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let limit = inspected.host_config.and_then(|now| now.memory).filter(|bytes| *bytes > 0);
        let state = not_running(inspected.state.unwrap_or_default(), limit);
        if matches!(state, ReplicaState::Exited(_)) {
            self.endings.put(id, status, &state);
        }
        Ok(Some(state))
    }
}

/// The state of a container that the list said does not run. `limit` is that of its memory, in bytes.
fn not_running(state: ContainerState, limit: Option<i64>) -> ReplicaState {
    use bollard::models::ContainerStateStatusEnum as Status;
    let out_of_memory = state.oom_killed.unwrap_or(false);
    let beyond = || {
        let bytes = limit.filter(|_| out_of_memory).and_then(|bytes| u64::try_from(bytes).ok())?;
        Some(format!("it needs more than its limit of {} (template.resources.memory)", Memory { bytes }))
    };
    let message = state.error.filter(|error| !error.is_empty()).or_else(beyond);
    match state.status {
        // Started by hand between the list and this.
        Some(Status::RUNNING | Status::RESTARTING | Status::STOPPING) => ReplicaState::Running,
        Some(Status::PAUSED) => ReplicaState::Paused,
        Some(Status::REMOVING) => ReplicaState::Removing,
        // A failed start leaves a container `created`, with an exit code and the reason.
        Some(Status::CREATED) if state.exit_code.unwrap_or(0) == 0 && message.is_none() => {
            ReplicaState::Created
        }
        _ => ReplicaState::Exited(ExitInfo {
            code: state.exit_code.and_then(|code| i32::try_from(code).ok()),
            out_of_memory,
            message,
        }),
    }
}

/// What a container's labels say that it is.
struct Identity {
    name: ReplicaName,
    revision: Revision,
    port: u16,
    host: Option<String>,
    /// What is to run before its stop. That it cannot be read is told when it is to run, and hides no replica.
    pre_stop: Result<Option<PreStop>, String>,
}

impl Identity {
    /// None if a label is missing, an error if one is not what we would have written.
    fn read(mut found: HashMap<String, String>) -> Option<Result<Identity, String>> {
        let service = found.remove(labels::SERVICE)?;
        let ordinal = found.remove(labels::ORDINAL)?;
        let attempt = found.remove(labels::ATTEMPT)?;
        let revision = Revision(found.remove(labels::REVISION)?);
        let port = found.remove(labels::PORT)?;
        let host = found.remove(labels::HOST);
        let pre_stop = found.remove(labels::PRE_STOP).map(|text| {
            serde_json::from_str(&text)
                .map_err(|error| format!("its label {} cannot be read: {error}", labels::PRE_STOP))
        });
        let pre_stop = pre_stop.transpose();
        let name = format!("{service}-{ordinal}-{attempt}");
        Some(match (name.parse(), port.parse()) {
            (Ok(name), Ok(port)) => Ok(Identity { name, revision, port, host, pre_stop }),
            (Err(_), _) => Err(format!("`{name}` is not a replica's name")),
            (_, Err(_)) => Err(format!("`{port}` is not a port")),
        })
    }
}

/// An image committed from a replica carries its labels, and so does every container of that image. The one
/// with the right engine name is the replica, else the oldest.
fn without_copies(replicas: Vec<RuntimeReplica>) -> Vec<RuntimeReplica> {
    let mut kept: BTreeMap<ReplicaName, RuntimeReplica> = BTreeMap::new();
    let rank = |r: &RuntimeReplica| (r.engine_name != r.name.to_string(), r.created_at, r.id.clone());
    for replica in replicas {
        match kept.get(&replica.name) {
            Some(other) => {
                let (copy, original) =
                    if rank(other) < rank(&replica) { (&replica, other) } else { (other, &replica) };
                tracing::warn!(
                    container = %short(&copy.id.0),
                    "ignoring a container that wears the labels of {}",
                    original.name
                );
                kept.insert(replica.name.clone(), original.clone());
            }
            None => {
                kept.insert(replica.name.clone(), replica);
            }
        }
    }
    kept.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn missing_labels_are_foreign_and_broken_ones_an_error() {
        let all = [
            (labels::SERVICE, "web"),
            (labels::ORDINAL, "2"),
            (labels::ATTEMPT, "7"),
            (labels::REVISION, "abc"),
            (labels::PORT, "5000"),
        ];
        let identity = Identity::read(found(&all)).unwrap().unwrap();
        assert_eq!((identity.name.to_string().as_str(), identity.port), ("web-2-7", 5000));
        for index in 0..all.len() {
            let mut some = all.to_vec();
            some.remove(index);
            assert!(Identity::read(found(&some)).is_none());
        }
        for (key, value) in [(labels::ORDINAL, "02"), (labels::PORT, "http"), (labels::SERVICE, "We b")] {
            let mut broken = found(&all);
            broken.insert(key.to_owned(), value.to_owned());
            assert!(Identity::read(broken).unwrap().is_err(), "{key}={value}");
        }
        let mut hooked = found(&all);
        hooked.insert(labels::PRE_STOP.to_owned(), "{".to_owned());
        let why = Identity::read(hooked).unwrap().unwrap().pre_stop.unwrap_err();
        assert!(why.contains(labels::PRE_STOP), "{why}");
    }

    #[test]
    fn a_copy_of_a_replica_is_not_a_second_replica() {
        let replica = |id: &str, engine_name: &str, created: u64| RuntimeReplica {
            id: RuntimeId(id.to_owned()),
            name: "web-0-1".parse().unwrap(),
            engine_name: engine_name.to_owned(),
            revision: Revision("r".to_owned()),
            state: ReplicaState::Running,
            address: None,
            created_at: Timestamp(created),
            host: None,
        };
        let check = |replicas: Vec<RuntimeReplica>, kept: &str| {
            let ids: Vec<_> = without_copies(replicas).into_iter().map(|r| r.id.0).collect();
            assert_eq!(ids, [kept]);
        };
        check(vec![replica("a", "bold_bohr", 1), replica("b", "web-0-1", 2)], "b");
        check(vec![replica("b", "web-0-1", 2), replica("a", "bold_bohr", 1)], "b");
        check(vec![replica("a", "bold_bohr", 1), replica("b", "calm_curie", 2)], "a");
    }

    #[test]
    fn a_failed_start_is_an_exit_with_its_reason() {
        use bollard::models::ContainerStateStatusEnum as Status;
        let created = |exit_code, error: &str| ContainerState {
            status: Some(Status::CREATED),
            exit_code: Some(exit_code),
            error: Some(error.to_owned()),
            ..ContainerState::default()
        };
        assert_eq!(not_running(created(0, ""), None), ReplicaState::Created);
        let failed = not_running(created(128, "no such program"), Some(1));
        let ReplicaState::Exited(exit) = failed else { panic!() };
        assert_eq!((exit.code, exit.message.as_deref()), (Some(128), Some("no such program")));
    }
}
