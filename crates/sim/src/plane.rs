//! The modelled data plane: it takes snapshots late, reports late, has requests in flight, and dies.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmaster_core::snapshot::{EndpointReport, Report, ServiceReport, Snapshot};
use ringmaster_core::{Generation, ReplicaName, ServiceName};

use crate::load::Held;

#[derive(Debug, Clone, Default)]
pub(crate) struct Plane {
    /// It ends with the controller, or lives apart.
    pub(crate) is_apart: bool,
    /// How often it was started.
    pub(crate) life: u32,
    pub(crate) snapshot: Arc<Snapshot>,
    /// The controller's run that the snapshot is of.
    pub(crate) run: u32,
    pub(crate) in_flight: BTreeMap<ReplicaName, u32>,
    /// When its snapshots began to leave a replica out.
    pub(crate) left_out_at: BTreeMap<ReplicaName, u64>,
    pub(crate) stalled_until: u64,
    pub(crate) down_until: u64,
    /// What was published last and not taken up yet: only the newest counts.
    pub(crate) waiting: Option<(u32, Arc<Snapshot>)>,
    /// Requests that wait for a replica, and how many ever have.
    pub(crate) held: Vec<Held>,
    pub(crate) held_so_far: u64,
    /// Responses so far, of each service.
    pub(crate) responses: BTreeMap<ServiceName, u64>,
    /// A number for each report: an older one never overrules a newer one.
    pub(crate) reports: u64,
    /// One is on its way.
    pub(crate) is_report_due: bool,
}

impl Plane {
    pub(crate) fn is_up(&self, now: u64) -> bool {
        self.down_until <= now
    }

    /// Takes up what waits. Returns the generations before and after, if they can be compared: those of a run do not
    /// go on where another left off if the state folder was lost.
    pub(crate) fn swap(&mut self, now: u64, numbering_lost: bool) -> Option<(Generation, Generation)> {
        let (run, next) = self.waiting.take()?;
        let before = (self.run == run || !numbering_lost).then_some(self.snapshot.generation);
        if Arc::ptr_eq(&self.snapshot, &next) {
            return None; // It was sent again.
        }
        for endpoint in self.snapshot.endpoints() {
            if !next.endpoints().any(|e| e.replica == endpoint.replica) {
                self.left_out_at.insert(endpoint.replica.clone(), now);
            }
        }
        for endpoint in next.endpoints() {
            self.left_out_at.remove(&endpoint.replica);
        }
        let after = next.generation;
        (self.run, self.snapshot) = (run, next);
        self.left_out_at.retain(|name, _| self.in_flight.contains_key(name));
        before.map(|before| (before, after))
    }

    /// Whether the count of a service follows its load: its figures are told.
    pub(crate) fn follows(&self, service: &ServiceName) -> bool {
        self.snapshot.services.get(service).is_some_and(|routing| routing.demand.is_some())
    }

    pub(crate) fn routes_to(&self, name: &ReplicaName) -> bool {
        self.snapshot.endpoints().any(|endpoint| endpoint.replica == *name)
    }

    /// What it reports to a run of the controller.
    pub(crate) fn report(&self) -> Report {
        let in_flight = |name: &ReplicaName| self.in_flight.get(name).copied().unwrap_or_default();
        let names = self.snapshot.endpoints().map(|endpoint| &endpoint.replica).chain(self.in_flight.keys());
        let endpoints = names
            .map(|name| {
                (name.clone(), EndpointReport { in_flight: in_flight(name), ..EndpointReport::default() })
            })
            .collect();
        let told = self.snapshot.services.iter().filter(|(_, routing)| routing.demand.is_some());
        let services = told.map(|(name, _)| {
            let (waiting, responses) =
                (self.waiting_for(name), self.responses.get(name).copied().unwrap_or_default());
            (name.clone(), ServiceReport { waiting, responses, hottest_permille: None })
        });
        let (acknowledged, services) = (self.snapshot.generation, services.collect());
        Report { acknowledged, endpoints, services, epoch: u64::from(self.life), ..Report::default() }
    }

    /// How many requests of a service wait for a replica.
    pub(crate) fn waiting_for(&self, service: &ServiceName) -> u32 {
        self.held.iter().filter(|held| held.service == *service).count() as u32
    }

    /// A request for a key begins; none if nobody serves.
    pub(crate) fn choose(&self, nth_service: usize, key: &[u8]) -> Option<ReplicaName> {
        let count = self.snapshot.services.len();
        let routing = self.snapshot.services.values().nth(nth_service % count.max(1))?;
        let mut candidates = routing.ring.candidates(key);
        let chosen = candidates.find_map(|ordinal| routing.endpoints.get(&ordinal));
        chosen.or_else(|| routing.endpoints.values().next()).map(|endpoint| endpoint.replica.clone())
    }

    pub(crate) fn begin(&mut self, name: &ReplicaName) {
        *self.in_flight.entry(name.clone()).or_default() += 1;
    }

    /// A request has ended. Returns whether it was the last of a replica that is left out: that is worth a report.
    pub(crate) fn end(&mut self, name: &ReplicaName) -> bool {
        let Some(count) = self.in_flight.get_mut(name) else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        self.in_flight.remove(name);
        self.left_out_at.remove(name);
        !self.routes_to(name)
    }

    /// A replica has ended, and its requests with it. Returns whether there were any that somebody waits for.
    pub(crate) fn cut(&mut self, name: &ReplicaName) -> bool {
        self.left_out_at.remove(name);
        self.in_flight.remove(name).is_some() && !self.routes_to(name)
    }

    /// Its requests end with it; what it had taken up is kept, as on disk.
    pub(crate) fn die(&mut self) {
        self.life += 1;
        self.in_flight.clear();
        self.held.clear();
        self.responses.clear();
        self.left_out_at.clear();
    }
}
