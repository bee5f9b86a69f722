//! The modelled engine: containers with names that are locks, states, addresses, and ailments.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use ringmaster_core::observed::{ExitInfo, ReplicaState, RuntimeId, RuntimeReplica};
use ringmaster_core::spec::Template;
use ringmaster_core::{ReplicaName, Revision, Timestamp};

/// Whose a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Made by the controller.
    Ours,
    /// Made by somebody, with labels copied from one of ours: the engine lists it as ours.
    Impostor,
    /// Made by somebody: the engine does not list it.
    Foreign,
}

/// What keeps a running container from answering its probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ailment {
    None,
    /// It answers nothing, for good.
    Hangs,
    /// It answers nothing until then.
    Until(u64),
}

#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) owner: Owner,
    /// Its labels; a foreign one has none.
    pub(crate) name: Option<ReplicaName>,
    pub(crate) engine_name: String,
    pub(crate) revision: Revision,
    /// What it runs, where we made it.
    pub(crate) template: Option<Box<Template>>,
    pub(crate) host: Option<String>,
    pub(crate) state: ReplicaState,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) created_at: Timestamp,
    /// From when on it answers its probes, in milliseconds of the run; none if it never will.
    pub(crate) ready_at: Option<u64>,
    pub(crate) ailment: Ailment,
}

impl Container {
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.state, ReplicaState::Running | ReplicaState::Paused)
    }

    /// Whether a probe is answered now.
    pub(crate) fn answers(&self, now: u64) -> bool {
        let well = match self.ailment {
            Ailment::None => true,
            Ailment::Hangs => false,
            Ailment::Until(at) => at <= now,
        };
        self.state == ReplicaState::Running
            && self.address.is_some()
            && self.ready_at.is_some_and(|at| at <= now)
            && well
    }

    /// From when on it answers if nothing happens to it; none if it never does.
    pub(crate) fn answers_from(&self, now: u64) -> Option<u64> {
        let well_at = match self.ailment {
            Ailment::None => 0,
            Ailment::Hangs => return None,
            Ailment::Until(at) => at,
        };
        let ready_at = self.ready_at.filter(|_| self.state == ReplicaState::Running)?;
        Some(ready_at.max(well_at).max(now + 1))
    }

    fn seen(&self, number: u64) -> Option<RuntimeReplica> {
        Some(RuntimeReplica {
            id: id_of(number),
            name: self.name.clone()?,
            engine_name: self.engine_name.clone(),
            revision: self.revision.clone(),
            state: self.state.clone(),
            address: self.address.filter(|_| self.state == ReplicaState::Running),
            created_at: self.created_at,
            host: self.host.clone(),
        })
    }
}

/// What the engine calls a container.
pub(crate) fn id_of(number: u64) -> RuntimeId {
    RuntimeId(format!("c{number}"))
}

fn number_of(id: &RuntimeId) -> Option<u64> {
    id.0.strip_prefix('c')?.parse().ok()
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Engine {
    pub(crate) containers: BTreeMap<u64, Container>,
    next_number: u64,
    next_port: u16,
    /// The engine does not answer until then.
    pub(crate) away_until: u64,
    /// How often each tag was rebuilt.
    pub(crate) tags_moved: u64,
    /// The answer of the last list.
    last_list: Vec<RuntimeReplica>,
}

impl Engine {
    pub(crate) fn answers(&self, now: u64) -> bool {
        self.away_until <= now
    }

    pub(crate) fn list(&mut self) -> Vec<RuntimeReplica> {
        let list: Vec<_> = self.containers.iter().filter_map(|(n, c)| c.seen(*n)).collect();
        self.last_list.clone_from(&list);
        list
    }

    /// What the list before answered.
    pub(crate) fn stale_list(&self) -> Vec<RuntimeReplica> {
        self.last_list.clone()
    }

    pub(crate) fn inspect(&self, id: &RuntimeId) -> Option<RuntimeReplica> {
        let number = number_of(id)?;
        self.containers.get(&number)?.seen(number)
    }

    pub(crate) fn get(&self, id: &RuntimeId) -> Option<&Container> {
        self.containers.get(&number_of(id)?)
    }

    pub(crate) fn get_mut(&mut self, id: &RuntimeId) -> Option<&mut Container> {
        self.containers.get_mut(&number_of(id)?)
    }

    pub(crate) fn is_taken(&self, engine_name: &str) -> bool {
        self.containers.values().any(|c| c.engine_name == engine_name)
    }

    /// Makes a container; none if its name is taken.
    pub(crate) fn create(&mut self, mut container: Container) -> Option<u64> {
        if self.is_taken(&container.engine_name) {
            return None;
        }
        if container.state == ReplicaState::Running && container.address.is_none() {
            container.address = Some(self.fresh_address());
        }
        self.next_number += 1;
        self.containers.insert(self.next_number, container);
        Some(self.next_number)
    }

    pub(crate) fn remove(&mut self, id: &RuntimeId) {
        if let Some(number) = number_of(id) {
            self.containers.remove(&number);
        }
    }

    pub(crate) fn exit(&mut self, number: u64, code: i32, out_of_memory: bool) {
        if let Some(container) = self.containers.get_mut(&number).filter(|c| c.is_alive()) {
            let exit = ExitInfo { code: Some(code), out_of_memory, message: None };
            container.state = ReplicaState::Exited(exit);
            container.address = None;
        }
    }

    /// Undoes what somebody did by hand; false if the name is another's now.
    pub(crate) fn repair(&mut self, id: &RuntimeId) -> Option<bool> {
        let name = self.get(id)?.name.as_ref()?.to_string();
        let taken = self.containers.iter().any(|(n, c)| c.engine_name == name && id_of(*n) != *id);
        let address = self.fresh_address();
        let container = self.get_mut(id)?;
        if container.state == ReplicaState::Paused {
            container.state = ReplicaState::Running;
        }
        if container.state == ReplicaState::Running && container.address.is_none() {
            container.address = Some(address);
        }
        if container.engine_name != name {
            if taken {
                return Some(false);
            }
            container.engine_name = name;
        }
        Some(true)
    }

    pub(crate) fn fresh_address(&mut self) -> SocketAddr {
        self.next_port = self.next_port.wrapping_add(1);
        (Ipv4Addr::new(10, 0, (self.next_port >> 8) as u8, self.next_port as u8), 5_000).into()
    }

    /// The containers that the engine lists as ours, with their numbers.
    pub(crate) fn ours(&self) -> impl Iterator<Item = (u64, &Container)> {
        self.containers.iter().filter(|(_, c)| c.owner != Owner::Foreign).map(|(n, c)| (*n, c))
    }

    /// Whoever answers at an address now.
    pub(crate) fn at(&self, address: SocketAddr) -> Option<&Container> {
        self.containers.values().find(|c| c.address == Some(address) && c.state == ReplicaState::Running)
    }
}
