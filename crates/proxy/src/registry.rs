//! What all threads share: the counters and verdicts behind the newest snapshot, and the acknowledgements.
//!
//! The registry is brought up to a snapshot by whichever thread sees it first, always under its lock and always
//! with the newest snapshot read under that lock. So all workers agree on the counters of an endpoint, and an
//! entry can only vanish when no worker can have it: it is unpublished, every worker has swapped in the newest
//! snapshot, and nothing is in flight. No request takes this lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringmaster_core::snapshot::{EndpointReport, Report, ServiceReport, Snapshot};
use ringmaster_core::{Generation, Ordinal, ReplicaName, ServiceName};
use tokio::sync::{mpsc, watch};

use crate::LocalApi;
use crate::listener::ListenerStatus;
use crate::outlier::{Health, Task};
use crate::stats::{EndpointStats, FrontStats, MemberStats, ServiceStats, Signals};

/// Most deleted services whose counters are remembered.
const RETIRED_MAX: usize = 100;

/// What all threads of one data plane share.
pub(crate) struct Shared {
    pub(crate) local: Option<Arc<dyn LocalApi>>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) front: FrontStats,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    acknowledged: Box<[AtomicU64]>,
    registry: Mutex<Registry>,
    listeners: Mutex<Vec<ListenerStatus>>,
}

/// Counters and verdicts by name.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Workers that count.
    workers: usize,
    applied: Option<Arc<Snapshot>>,
    pub(crate) endpoints: BTreeMap<ReplicaName, EndpointEntry>,
    pub(crate) services: BTreeMap<ServiceName, ServiceEntry>,
    /// Services that are gone: should one come back, its counters go on where they were.
    retired: BTreeMap<ServiceName, ServiceEntry>,
}

/// One endpoint's.
#[derive(Debug, Clone)]
pub(crate) struct EndpointEntry {
    pub(crate) stats: Arc<EndpointStats>,
    pub(crate) health: Arc<Health>,
}

/// One service's, with its members' places.
#[derive(Debug)]
pub(crate) struct ServiceEntry {
    pub(crate) stats: Arc<ServiceStats>,
    pub(crate) members: BTreeMap<Ordinal, Arc<MemberStats>>,
    /// Members that are gone: should one come back, its counters go on where they were.
    retired: BTreeMap<Ordinal, Arc<MemberStats>>,
}

impl Shared {
    pub(crate) fn new(
        snapshots: watch::Receiver<Arc<Snapshot>>,
        workers: usize,
        local: Option<Arc<dyn LocalApi>>,
    ) -> (Arc<Shared>, mpsc::UnboundedReceiver<Task>) {
        let (signals, tasks) = Signals::new();
        let shared = Shared {
            local,
            signals,
            front: FrontStats::default(),
            snapshots,
            acknowledged: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            registry: Mutex::new(Registry::new(workers)),
            listeners: Mutex::default(),
        };
        (Arc::new(shared), tasks)
    }

    /// A receiver of its own for a task that follows the snapshots.
    pub(crate) fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Runs `f` on the registry as of the newest snapshot. Brief: other workers wait to swap meanwhile.
    pub(crate) fn with_latest<R>(&self, f: impl FnOnce(&mut Registry, &Arc<Snapshot>) -> R) -> R {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = Arc::clone(&self.snapshots.borrow());
        registry.apply(&snapshot, &self.signals);
        f(&mut registry, &snapshot)
    }

    /// Worker `index` gives no request to an endpoint that `generation` leaves out.
    pub(crate) fn acknowledge(&self, index: usize, generation: Generation) {
        self.acknowledged[index].store(generation.0, Ordering::SeqCst);
        self.signals.hurry();
    }

    /// The report of this moment. Forgets drained endpoints.
    pub(crate) fn report(&self) -> Report {
        // Acknowledgements first: a choice made before one of them is then in the counts that are read after.
        let acknowledged: Vec<u64> = self.acknowledged.iter().map(|a| a.load(Ordering::SeqCst)).collect();
        self.with_latest(|registry, snapshot| {
            let settled = acknowledged.iter().all(|&a| a == snapshot.generation.0);
            registry
                .endpoints
                .retain(|_, entry| !settled || entry.stats.is_published() || entry.stats.in_flight() > 0);
            Report {
                acknowledged: Generation(acknowledged.iter().copied().min().unwrap_or(0)),
                endpoints: registry.endpoints.iter().filter_map(EndpointEntry::report).collect(),
                services: services(registry, snapshot),
                ..Report::default()
            }
        })
    }

    /// The counters of a service that is published.
    pub(crate) fn service_stats(&self, service: &ServiceName) -> Option<Arc<ServiceStats>> {
        self.with_latest(|registry, _| registry.services.get(service).map(|entry| Arc::clone(&entry.stats)))
    }

    /// The generation that every worker has swapped in.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.iter().map(|a| a.load(Ordering::SeqCst)).min().unwrap_or(0)
    }

    pub(crate) fn listeners(&self) -> MutexGuard<'_, Vec<ListenerStatus>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of the services of which more is to be told than of their endpoints.
fn services(registry: &Registry, snapshot: &Snapshot) -> BTreeMap<ServiceName, ServiceReport> {
    let wanted = snapshot.services.iter().filter(|(_, routing)| routing.demand.is_some());
    let known =
        wanted.filter_map(|(name, _)| Some((name.clone(), registry.services.get(name)?.stats.report())));
    known.collect()
}

impl Registry {
    fn new(workers: usize) -> Registry {
        Registry {
            workers,
            applied: None,
            endpoints: BTreeMap::new(),
            services: BTreeMap::new(),
            retired: BTreeMap::new(),
        }
    }

    fn apply(&mut self, snapshot: &Arc<Snapshot>, signals: &Arc<Signals>) {
        if self.applied.as_ref().is_some_and(|applied| Arc::ptr_eq(applied, snapshot)) {
            return;
        }
        let gone = self.services.extract_if(.., |name, _| !snapshot.services.contains_key(name));
        self.retired.extend(gone);
        while self.retired.len() > RETIRED_MAX {
            self.retired.pop_first();
        }
        for (name, routing) in &snapshot.services {
            let returning = || self.retired.remove(name).unwrap_or_else(|| ServiceEntry::new(self.workers));
            let service = self.services.entry(name.clone()).or_insert_with(returning);
            service.stats.circle.publish(routing.endpoints.len());
            service.follow(
                self.workers,
                routing.ring.members().into_iter().chain(routing.endpoints.keys().copied()),
            );
            let known = routing.endpoints.values().filter_map(|e| self.endpoints.get(&e.replica));
            let turns = known.map(|entry| entry.stats.turns()).min().unwrap_or(0);
            for (ordinal, endpoint) in &routing.endpoints {
                let Some(member) = service.members.get(ordinal) else { continue };
                let new_health = || {
                    let (member, circle) = (Arc::clone(member), Arc::clone(&service.stats.circle));
                    Arc::new(Health::new(
                        endpoint.replica.clone(),
                        endpoint.address,
                        member,
                        circle,
                        Arc::clone(signals),
                        self.workers,
                    ))
                };
                let entry = self.endpoints.entry(endpoint.replica.clone());
                let entry = entry.or_insert_with(|| {
                    let stats = Arc::new(EndpointStats::new(self.workers));
                    stats.begin_at(turns);
                    EndpointEntry { stats, health: new_health() }
                });
                if entry.health.address() != endpoint.address {
                    // What is known of the old address says nothing about the new one.
                    entry.health.unpublish();
                    entry.health = new_health();
                }
                entry.stats.set_published(true);
                entry.health.publish(&routing.resilience);
            }
        }
        let published: BTreeSet<&ReplicaName> =
            snapshot.endpoints().map(|endpoint| &endpoint.replica).collect();
        for (replica, entry) in &self.endpoints {
            if !published.contains(replica) {
                entry.stats.set_published(false);
                entry.health.unpublish();
            }
        }
        self.applied = Some(Arc::clone(snapshot));
    }
}

impl ServiceEntry {
    fn new(workers: usize) -> ServiceEntry {
        let stats = Arc::new(ServiceStats::new(workers));
        ServiceEntry { stats, members: BTreeMap::new(), retired: BTreeMap::new() }
    }

    /// Counts exactly these members.
    fn follow(&mut self, workers: usize, members: impl Iterator<Item = Ordinal>) {
        let members: BTreeSet<Ordinal> = members.collect();
        self.retired.extend(self.members.extract_if(.., |ordinal, _| !members.contains(ordinal)));
        for ordinal in members {
            let fresh = || Arc::new(MemberStats::new(workers));
            let returning = || self.retired.remove(&ordinal).unwrap_or_else(fresh);
            self.members.entry(ordinal).or_insert_with(returning);
        }
    }
}

impl EndpointEntry {
    /// Its line in the report; an endpoint that is neither published nor busy has none.
    fn report((replica, entry): (&ReplicaName, &EndpointEntry)) -> Option<(ReplicaName, EndpointReport)> {
        let in_flight = entry.stats.in_flight();
        (entry.stats.is_published() || in_flight > 0).then(|| {
            let report = EndpointReport {
                in_flight,
                streams: entry.stats.streams(),
                requests: entry.stats.requests(),
                failures: entry.stats.failures(),
                ejected: entry.health.is_ejected(),
                circuit: entry.health.circuit(),
                latency: entry.health.latency(),
            };
            (replica.clone(), report)
        })
    }
}
