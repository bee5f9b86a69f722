//! Probes: one task per running replica asks it whether it has started, is ready and alive.
//!
//! What an answer means and when the next question is due is decided in [`ringmaster_core::probing`]: a replica that was
//! never ready is asked often, so that readiness costs no waiting; afterwards at its probe's period, on ticks that all
//! replicas share, so that an idle daemon wakes rarely. Only changes are reported. Deliberately absent:
//! consequences. The verdicts are data for the planner.

mod check;
mod http;
mod task;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::observed::{Health, RuntimeId};
use ringmaster_core::spec::{HttpGet, Probes};
use ringmaster_core::{ReplicaName, ServiceName};
use ringmaster_runtime::Runtime;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::clock::Clock;
use http::{Http, Question};
use task::Task;

pub(crate) use check::exec_failure;

/// Questions over the network that one service has under way at a time. Its own bound: replicas that hang keep only
/// those of their service waiting.
const ASKED_MAX: usize = 64;
/// Commands that one service has under way at a time: each is a process on the engine's machine.
const EXECS_MAX: usize = 8;

/// A replica's health has changed.
#[derive(Debug)]
pub(crate) struct HealthChange {
    pub(crate) name: ReplicaName,
    pub(crate) health: Health,
}

/// A replica to probe.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a ReplicaName,
    pub(crate) id: &'a RuntimeId,
    pub(crate) address: SocketAddr,
    pub(crate) probes: &'a Probes,
}

/// All probe tasks.
pub(crate) struct Prober {
    clock: Clock,
    epoch: Instant,
    runtime: Arc<dyn Runtime>,
    changes: mpsc::UnboundedSender<HealthChange>,
    running: BTreeMap<ReplicaName, Watched>,
    turns: BTreeMap<ServiceName, Arc<Turns>>,
    /// The number of the last synchronization.
    pass: u64,
}

/// A service's turns to ask.
#[derive(Debug)]
struct Turns {
    asks: Semaphore,
    execs: Semaphore,
}

#[derive(Debug)]
struct Watched {
    id: RuntimeId,
    address: SocketAddr,
    probes: Probes,
    poke: Arc<Notify>,
    task: AbortHandle,
    /// Seen by the synchronization of this number.
    seen: u64,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Prober {
    /// Reports to `changes`: unbounded, but each task sends only when its verdict turns.
    pub(crate) fn new(
        clock: Clock,
        changes: mpsc::UnboundedSender<HealthChange>,
        runtime: Arc<dyn Runtime>,
    ) -> Prober {
        let (running, turns) = (BTreeMap::new(), BTreeMap::new());
        Prober { clock, epoch: Instant::now(), runtime, changes, running, turns, pass: 0 }
    }

    /// Probes exactly these replicas. One whose probes changed goes on with what is known of it (`health`); at another
    /// address, or as another object, nothing is known of it any more.
    pub(crate) fn sync<'a>(
        &mut self,
        wanted: impl Iterator<Item = Wanted<'a>>,
        health: impl Fn(&ReplicaName) -> Health,
    ) {
        self.pass += 1;
        let pass = self.pass;
        for wanted in wanted {
            if let Some(watched) = self.running.get_mut(wanted.name) {
                watched.seen = pass;
                if watched.is(&wanted) {
                    continue;
                }
            }
            let health = match self.running.get(wanted.name) {
                Some(watched) if watched.address != wanted.address || watched.id != *wanted.id => {
                    let (name, health) = (wanted.name.clone(), Health::default());
                    // The receiver is the loop, which is calling this.
                    drop(self.changes.send(HealthChange { name, health: health.clone() }));
                    health
                }
                _ => health(wanted.name),
            };
            let watched = self.watch(&wanted, health, pass);
            self.running.insert(wanted.name.clone(), watched);
        }
        self.running.retain(|_, watched| watched.seen == pass);
        let running = &self.running;
        self.turns.retain(|service, _| running.keys().any(|name| name.service == *service));
    }

    fn watch(&mut self, wanted: &Wanted<'_>, health: Health, seen: u64) -> Watched {
        let poke = Arc::new(Notify::new());
        let turns = self.turns.entry(wanted.name.service.clone()).or_insert_with(|| {
            Arc::new(Turns { asks: Semaphore::new(ASKED_MAX), execs: Semaphore::new(EXECS_MAX) })
        });
        let task = Task {
            name: wanted.name.clone(),
            id: wanted.id.clone(),
            address: wanted.address,
            probes: wanted.probes.clone(),
            runtime: Arc::clone(&self.runtime),
            turns: Arc::clone(turns),
            poke: Arc::clone(&poke),
            clock: self.clock,
            epoch: self.epoch,
            changes: self.changes.clone(),
        };
        let task = tokio::spawn(task.run(health)).abort_handle();
        let (id, probes) = (wanted.id.clone(), wanted.probes.clone());
        Watched { id, address: wanted.address, probes, poke, task, seen }
    }

    /// Asks all replicas at once: something has happened to one of them, and a list may not show it yet.
    pub(crate) fn poke_all(&self) {
        for watched in self.running.values() {
            watched.poke.notify_one();
        }
    }

    /// Asks a replica at once: something suggests that it has changed.
    pub(crate) fn poke(&self, name: &ReplicaName) {
        if let Some(watched) = self.running.get(name) {
            watched.poke.notify_one();
        }
    }
}

impl Watched {
    fn is(&self, wanted: &Wanted<'_>) -> bool {
        self.id == *wanted.id && self.address == wanted.address && self.probes == *wanted.probes
    }
}

/// Asks once, for whoever is not probing.
///
/// # Errors
/// Why it failed, for people.
pub(crate) async fn get_once(get: &HttpGet, address: SocketAddr, limit: Duration) -> Result<(), String> {
    let question = Question::new(get, address);
    let asked = tokio::time::timeout(limit, Http::new(address).ask(&question, true)).await;
    let failed = asked.unwrap_or_else(|_| Err(check::no_answer(address, limit)));
    failed.map_err(|failure| failure.why)
}
