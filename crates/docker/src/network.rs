//! The network that replicas and the data plane share.
//!
//! Found or made by name, used by id: engines allow two networks of one name and then refuse every start that
//! goes by the name. Deliberately absent: changing or removing a network that we did not make.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{Network, NetworkCreateRequest};
use bollard::query_parameters::{InspectNetworkOptions, ListNetworksOptionsBuilder};
use ringmaster_runtime::{ErrorKind, RuntimeError, labels};
use tokio::sync::Mutex;

use crate::engine::{CHANGE_MAX, Engine, READ_MAX};

/// How often the search is begun again when others make the same network at the same time.
const ROUNDS_MAX: u32 = 40;

/// The network's name, and its id once it is known.
#[derive(Debug)]
pub(crate) struct OurNetwork {
    pub(crate) name: String,
    instance: String,
    id: Mutex<Option<String>>,
}

impl OurNetwork {
    pub(crate) fn new(name: &str, instance: &str) -> OurNetwork {
        OurNetwork { name: name.to_owned(), instance: instance.to_owned(), id: Mutex::new(None) }
    }

    /// The id as last known; replicas are listed by it.
    pub(crate) async fn known_id(&self) -> Option<String> {
        self.id.lock().await.clone()
    }

    /// The id of a network that is there now: found, or made.
    pub(crate) async fn ensure(&self, engine: &Engine) -> Result<String, RuntimeError> {
        // Held across the calls on purpose: one task makes the network, the others wait for its id.
        let mut known = self.id.lock().await;
        if let Some(id) = known.as_deref() {
            let operation = format!("inspect network {}", self.name);
            let call = engine.docker.inspect_network(id, None::<InspectNetworkOptions>);
            match engine.call(operation, READ_MAX, call).await {
                Ok(_) => return Ok(id.to_owned()),
                Err(error) if error.kind == ErrorKind::NotFound => {
                    tracing::warn!(network = %self.name, "the network is gone, looking for it again");
                }
                Err(error) => return Err(error),
            }
        }
        let id = self.find_or_create(engine).await?;
        *known = Some(id.clone());
        Ok(id)
    }

    /// Whoever sees another network of the name after making one removes its own and begins again. Two makers
    /// can both do so, but never both keep theirs: the later one to become visible sees the earlier.
    async fn find_or_create(&self, engine: &Engine) -> Result<String, RuntimeError> {
        let mut found = Vec::new();
        for round in 0..ROUNDS_MAX {
            found = self.named(engine).await?;
            match found.as_slice() {
                [] => {}
                [only] => return self.usable(only),
                // Others are making one and will remove their surplus.
                _ => {
                    tokio::time::sleep(Duration::from_millis(20 + 5 * u64::from(round))).await;
                    continue;
                }
            }
            let made = self.create(engine).await?;
            if self.named(engine).await?.iter().all(|network| network.id.as_ref() == Some(&made)) {
                tracing::info!(network = %self.name, id = %short(&made), "network created");
                return Ok(made);
            }
            match self.delete(engine, &made).await {
                Ok(()) => {}
                // Somebody uses it already, so it is as good as any other.
                Err(error) if error.kind == ErrorKind::Engine => return Ok(made),
                Err(error) => return Err(error),
            }
            // The id is random, so no two makers wait equally long.
            let jitter = u64::from_str_radix(made.get(..2).unwrap_or("0"), 16).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(jitter * u64::from(round + 1))).await;
        }
        // The surplus stays, so it is not being removed by anybody: take the same one every time.
        found.sort_by_key(|network| (!self.is_ours(network), network.id.clone()));
        match found.first() {
            Some(network) => {
                tracing::warn!(network = %self.name, count = found.len(), "several networks have this name");
                self.usable(network)
            }
            None => Err(RuntimeError::new(
                format!("create network {}", self.name),
                ErrorKind::Conflict,
                "others keep making and removing it: choose another name for this daemon's network",
            )),
        }
    }

    async fn named(&self, engine: &Engine) -> Result<Vec<Network>, RuntimeError> {
        // The engine's filter matches parts of names, so it only narrows.
        let filters = HashMap::from([("name", vec![self.name.as_str()])]);
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let call = engine.docker.list_networks(Some(options));
        let mut networks = engine.call("list networks", READ_MAX, call).await?;
        networks.retain(|network| network.name.as_deref() == Some(&self.name) && network.id.is_some());
        Ok(networks)
    }

    fn usable(&self, network: &Network) -> Result<String, RuntimeError> {
        let driver = network.driver.as_deref().unwrap_or("unknown");
        if driver != "bridge" {
            return Err(RuntimeError::new(
                format!("use network {}", self.name),
                ErrorKind::Invalid,
                format!("its driver is {driver}, and bridge is needed: choose another network name"),
            ));
        }
        Ok(network.id.clone().unwrap_or_default())
    }

    async fn create(&self, engine: &Engine) -> Result<String, RuntimeError> {
        let request = NetworkCreateRequest {
            name: self.name.clone(),
            driver: Some("bridge".to_owned()),
            labels: Some(HashMap::from([
                (labels::OWNER_KEY.to_owned(), labels::OWNER.to_owned()),
                (labels::INSTANCE.to_owned(), self.instance.clone()),
            ])),
            ..NetworkCreateRequest::default()
        };
        let docker = engine.within(CHANGE_MAX);
        let call = docker.create_network(request);
        Ok(engine.call(format!("create network {}", self.name), CHANGE_MAX, call).await?.id)
    }

    async fn delete(&self, engine: &Engine, id: &str) -> Result<(), RuntimeError> {
        let docker = engine.within(CHANGE_MAX);
        let operation = format!("remove network {}", self.name);
        match engine.call(operation, CHANGE_MAX, docker.remove_network(id)).await {
            Err(error) if error.kind != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn is_ours(&self, network: &Network) -> bool {
        network.labels.as_ref().is_some_and(|l| is_ours(l, &self.instance))
    }

    /// Removes the networks of this name that we made and nobody uses.
    pub(crate) async fn teardown(&self, engine: &Engine) -> Result<(), RuntimeError> {
        let mut known = self.id.lock().await;
        for network in self.named(engine).await? {
            let Some(id) = network.id.as_deref().filter(|_| self.is_ours(&network)) else { continue };
            let operation = format!("inspect network {}", self.name);
            let call = engine.docker.inspect_network(id, None::<InspectNetworkOptions>);
            let used = match engine.call(operation, READ_MAX, call).await {
                Ok(details) => details.containers.is_some_and(|containers| !containers.is_empty()),
                Err(error) if error.kind == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if used {
                tracing::info!(network = %self.name, "the network is in use and stays");
                continue;
            }
            self.delete(engine, id).await?;
            *known = None;
        }
        Ok(())
    }
}

/// Whether an object with these labels belongs to this daemon.
pub(crate) fn is_ours(found: &HashMap<String, String>, instance: &str) -> bool {
    found.get(labels::OWNER_KEY).is_some_and(|owner| owner == labels::OWNER)
        && found.get(labels::INSTANCE).is_some_and(|of| of == instance)
}

/// The part of an id that people use.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
