//! Replicas as containers of a Docker engine, through its API.
//!
//! Responsible for: one network, containers that carry our labels, their confinement, and the mapping of the
//! engine's failures. Deliberately absent: decisions and retries (see [`Runtime`]), and touching any object
//! without our owner and instance labels.

mod container;
mod engine;
mod events;
mod exec;
mod image;
mod limits;
mod listing;
mod logs;
mod network;
#[cfg(feature = "testing")]
pub mod testing;
mod usage;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::{ContainerInspectResponse, EndpointSettings, NetworkConnectRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
    RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder, StartContainerOptions,
    StopContainerOptionsBuilder,
};
use futures_util::stream::BoxStream;
use ringmaster_core::observed::{ReplicaState, RuntimeId, RuntimeReplica};
use ringmaster_core::spec::Template;
use ringmaster_runtime::{
    CreateRequest, ErrorKind, ExecOutcome, Inspected, Runtime, RuntimeError, Signal, Wake,
};

use crate::engine::{CHANGE_MAX, Engine, READ_MAX};
use crate::exec::Overdue;
use crate::limits::Audit;
use crate::listing::{Endings, Known, Lister};
use crate::network::{OurNetwork, is_ours, short};

/// Which engine, and what is ours on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerConfig {
    /// The engine's unix socket.
    pub socket: PathBuf,
    /// Tells this daemon's objects from those of other daemons on the same engine.
    pub instance: String,
    /// The name of the network that replicas are on. Made if there is none; a bridge network of this name
    /// that somebody else made is used, and never removed.
    pub network: String,
}

impl DockerConfig {
    /// The engine at `/var/run/docker.sock`, with network `net1`.
    pub fn new(instance: impl Into<String>) -> DockerConfig {
        DockerConfig {
            socket: PathBuf::from("/var/run/docker.sock"),
            instance: instance.into(),
            network: "net1".to_owned(),
        }
    }
}

/// Replicas as containers.
#[derive(Debug)]
pub struct DockerRuntime {
    engine: Engine,
    instance: String,
    network: OurNetwork,
    endings: Endings,
    overdue: Overdue,
    known: Known,
    /// How many processors the engine's machine has.
    cpus: i64,
}

impl DockerRuntime {
    /// Connects to the engine and makes sure that there is a network.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] tells a missing socket, one without permission and one that refuses apart;
    /// [`ErrorKind::Invalid`] if a network of the configured name is no bridge network.
    pub async fn connect(config: DockerConfig) -> Result<DockerRuntime, RuntimeError> {
        let engine = Engine::connect(&config.socket).await?;
        let network = OurNetwork::new(&config.network, &config.instance);
        network.ensure(&engine).await?;
        let info = engine.call("ask the engine what it runs on", READ_MAX, engine.docker.info()).await?;
        tracing::info!(
            socket = %config.socket.display(),
            api = %engine.docker.client_version(),
            network = %config.network,
            "connected to the engine"
        );
        Ok(DockerRuntime {
            engine,
            instance: config.instance,
            network,
            endings: Endings::default(),
            overdue: Overdue::default(),
            known: Known::default(),
            cpus: info.ncpu.unwrap_or(i64::MAX / 1_000_000_000),
        })
    }

    /// Removes our network, if we made it and nothing is attached to it. Replicas are not touched.
    ///
    /// # Errors
    /// As the engine answers.
    pub async fn teardown(&self) -> Result<(), RuntimeError> {
        self.network.teardown(&self.engine).await
    }

    async fn look(&self, id: &str) -> Result<Option<Inspected>, RuntimeError> {
        let network_id = self.network.known_id().await;
        self.lister(network_id.as_deref()).one(id).await
    }

    async fn find(&self, id: &str) -> Result<Option<RuntimeReplica>, RuntimeError> {
        Ok(self.look(id).await?.map(|found| found.replica))
    }

    fn lister<'a>(&'a self, network_id: Option<&'a str>) -> Lister<'a> {
        Lister {
            engine: &self.engine,
            instance: &self.instance,
            network_id,
            endings: &self.endings,
            known: &self.known,
        }
    }

    async fn inspected(&self, id_or_name: &str) -> Result<Option<ContainerInspectResponse>, RuntimeError> {
        let call = self.engine.docker.inspect_container(id_or_name, None::<InspectContainerOptions>);
        let operation = format!("inspect container {}", short(id_or_name));
        match self.engine.call(operation, READ_MAX, call).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn owns(&self, container: &ContainerInspectResponse) -> bool {
        let labels = container.config.as_ref().and_then(|config| config.labels.as_ref());
        labels.is_some_and(|labels| is_ours(labels, &self.instance))
    }

    /// The container as it is now, looked at just before it is touched; none if it is gone.
    async fn ours(
        &self,
        verb: &str,
        id: &RuntimeId,
    ) -> Result<Option<ContainerInspectResponse>, RuntimeError> {
        // The engine takes names and prefixes for ids too; an id is only itself.
        let found = self.inspected(&id.0).await?.filter(|found| found.id.as_deref() == Some(&id.0));
        match found {
            Some(found) if !self.owns(&found) => Err(RuntimeError::new(
                format!("{verb} container {}", short(&id.0)),
                ErrorKind::Conflict,
                "it is not ours: it has other labels, and stays untouched",
            )),
            found => Ok(found),
        }
    }

    /// Who has the name that we wanted.
    async fn name_taken(&self, operation: String, name: &str) -> RuntimeError {
        let message = match self.inspected(name).await {
            Ok(Some(holder)) if self.owns(&holder) => format!("{name} exists already"),
            Ok(Some(holder)) => format!(
                "the name {name} is taken by container {} ({}), which is not ours: rename or remove it",
                short(holder.id.as_deref().unwrap_or("?")),
                holder.config.and_then(|config| config.image).unwrap_or_default(),
            ),
            Ok(None) => format!("the name {name} was taken, and is free again"),
            Err(error) => format!("the name {name} is taken; by whom is unknown: {error}"),
        };
        RuntimeError::new(operation, ErrorKind::Conflict, message)
    }

    async fn rename(&self, id: &str, name: &str) -> Result<(), RuntimeError> {
        let operation = format!("rename container {} to {name}", short(id));
        let options = RenameContainerOptionsBuilder::new().name(name).build();
        let call = self.engine.docker.rename_container(id, options);
        match self.engine.call(operation.clone(), READ_MAX, call).await {
            Err(error) if error.kind == ErrorKind::Conflict => Err(self.name_taken(operation, name).await),
            outcome => outcome,
        }
    }

    /// Gives a container the limits back that it was made with, if it has others.
    async fn set_limits_back(&self, id: &str) -> Result<(), RuntimeError> {
        let Some(found) = self.inspected(id).await? else { return Ok(()) };
        let Some((how, body)) = limits::undo(&found, self.cpus) else { return Ok(()) };
        let operation = format!("set back the limits of container {} ({how})", short(id));
        let docker = self.engine.within(CHANGE_MAX);
        let call = docker.update_container(id, body);
        settled(self.engine.call(operation, CHANGE_MAX, call).await)
    }

    async fn reattach(&self, id: &str, replica: &RuntimeReplica) -> Result<(), RuntimeError> {
        let network_id = self.network.ensure(&self.engine).await?;
        let aliases = container::aliases_of(replica.name.short(), replica.host.as_deref());
        let request = NetworkConnectRequest {
            container: id.to_owned(),
            endpoint_config: Some(EndpointSettings { aliases: Some(aliases), ..EndpointSettings::default() }),
        };
        let operation = format!("attach {} to network {}", replica.name, self.network.name);
        let docker = self.engine.within(CHANGE_MAX);
        let call = docker.connect_network(&network_id, request);
        match self.engine.call(operation, CHANGE_MAX, call).await {
            Ok(()) => Ok(()),
            // The engine says 403 to one that is attached already; whether it is, a look tells.
            Err(error) => match self.find(id).await? {
                Some(now) if now.address.is_some() => Ok(()),
                _ => Err(error),
            },
        }
    }
}

/// Success if the object is gone, or is in the state that the call was to bring about.
fn settled(outcome: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    match outcome {
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Conflict) => {
            tracing::debug!(%error, "nothing left to do");
            Ok(())
        }
        outcome => outcome,
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    fn kind(&self) -> &'static str {
        "docker"
    }

    async fn resolve(&self, template: &Template) -> Result<String, RuntimeError> {
        image::resolve(&self.engine, template).await
    }

    async fn list(&self) -> Result<Vec<RuntimeReplica>, RuntimeError> {
        let network_id = self.network.known_id().await;
        let replicas = self.lister(network_id.as_deref()).all().await?;
        self.overdue.keep_only(&replicas);
        Ok(replicas)
    }

    async fn inspect(&self, id: &RuntimeId) -> Result<Option<Inspected>, RuntimeError> {
        self.look(&id.0).await
    }

    async fn create(&self, request: &CreateRequest) -> Result<RuntimeReplica, RuntimeError> {
        let name = request.name.to_string();
        let network_id = self.network.ensure(&self.engine).await?;
        let body = container::body(request, &self.instance, &network_id, &self.engine.socket)?;
        let docker = self.engine.within(CHANGE_MAX);
        let operation = format!("create container {name}");
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let call = docker.create_container(Some(options), body);
        let id = match self.engine.call(operation.clone(), CHANGE_MAX, call).await {
            Ok(created) => created.id,
            Err(error) if error.kind == ErrorKind::Conflict => {
                return Err(self.name_taken(operation, &name).await);
            }
            Err(error) if error.kind == ErrorKind::NotFound => {
                return Err(RuntimeError::new(operation, ErrorKind::ImageMissing, error.message));
            }
            Err(error) => return Err(error),
        };
        let operation = format!("start container {name}");
        let call = docker.start_container(&id, None::<StartContainerOptions>);
        self.engine.call(operation.clone(), CHANGE_MAX, call).await?;
        self.find(&id).await?.ok_or_else(|| {
            RuntimeError::new(operation, ErrorKind::NotFound, "it was removed as soon as it had started")
        })
    }

    async fn exec(
        &self,
        id: &RuntimeId,
        command: &[String],
        limit: Duration,
    ) -> Result<ExecOutcome, RuntimeError> {
        exec::run(&self.engine, &self.overdue, id, command, limit).await
    }

    async fn stop(&self, id: &RuntimeId, grace: Duration) -> Result<(), RuntimeError> {
        if self.ours("stop", id).await?.is_none() {
            return Ok(());
        }
        // Whole seconds, rounded up: a replica may have more time than promised, not less.
        let seconds = i32::try_from(grace.as_millis().div_ceil(1_000)).unwrap_or(i32::MAX);
        let limit = grace.saturating_add(CHANGE_MAX);
        let docker = self.engine.within(limit);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let call = docker.stop_container(&id.0, Some(options));
        settled(self.engine.call(format!("stop container {}", short(&id.0)), limit, call).await)
    }

    async fn remove(&self, id: &RuntimeId) -> Result<(), RuntimeError> {
        if self.ours("remove", id).await?.is_none() {
            return Ok(());
        }
        let docker = self.engine.within(CHANGE_MAX);
        // Anonymous volumes go with it; named ones are their owner's.
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let call = docker.remove_container(&id.0, Some(options));
        settled(self.engine.call(format!("remove container {}", short(&id.0)), CHANGE_MAX, call).await)?;
        self.known.forget(&id.0);
        Ok(())
    }

    async fn repair(&self, id: &RuntimeId) -> Result<(), RuntimeError> {
        let Some(replica) = self.find(&id.0).await? else { return Ok(()) };
        if replica.state == ReplicaState::Paused {
            let operation = format!("resume container {}", replica.name);
            let call = self.engine.docker.unpause_container(&id.0);
            if let Err(error) = settled(self.engine.call(operation, READ_MAX, call).await) {
                // Engines up to 20.10 say 500 of one that is not paused; whether it is, a look tells.
                match self.find(&id.0).await? {
                    Some(now) if now.state == ReplicaState::Paused => return Err(error),
                    _ => tracing::debug!(%error, "nothing left to resume"),
                }
            }
        }
        let name = replica.name.to_string();
        if replica.engine_name != name {
            self.rename(&id.0, &name).await?;
        }
        let runs = matches!(replica.state, ReplicaState::Running | ReplicaState::Paused);
        if runs && replica.address.is_none() {
            self.reattach(&id.0, &replica).await?;
        }
        if runs { self.set_limits_back(&id.0).await } else { Ok(()) }
    }

    async fn signal(&self, id: &RuntimeId, signal: Signal) -> Result<(), RuntimeError> {
        let operation = format!("send {signal} to container {}", short(&id.0));
        let not_running = |operation| RuntimeError::new(operation, ErrorKind::NotFound, "it does not run");
        if self.ours("signal", id).await?.is_none() {
            return Err(not_running(operation));
        }
        let options = KillContainerOptionsBuilder::new().signal(&signal.to_string()).build();
        let docker = self.engine.within(CHANGE_MAX);
        let call = docker.kill_container(&id.0, Some(options));
        match self.engine.call(operation.clone(), CHANGE_MAX, call).await {
            Err(error) if error.kind == ErrorKind::Conflict => Err(not_running(operation)),
            outcome => outcome,
        }
    }

    async fn logs(&self, id: &RuntimeId, lines: usize) -> Result<String, RuntimeError> {
        if self.ours("read the logs of", id).await?.is_none() {
            return Err(RuntimeError::new(
                format!("read the logs of container {}", short(&id.0)),
                ErrorKind::NotFound,
                "there is no such container",
            ));
        }
        logs::tail(&self.engine, &id.0, lines).await
    }

    async fn cpu_used(&self, id: &RuntimeId) -> Result<Option<Duration>, RuntimeError> {
        usage::cpu_used(&self.engine, &id.0).await
    }

    fn events(&self) -> BoxStream<'static, Wake> {
        let (engine, instance) = (self.engine.clone(), self.instance.clone());
        events::wakes(Audit { engine, instance, cpus: self.cpus, back: Arc::default() })
    }
}

/// A template out of its JSON, for tests of this crate.
#[cfg(test)]
fn template_from_json(text: &str) -> Template {
    serde_json::from_str(text).unwrap()
}
