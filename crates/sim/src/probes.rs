//! What the controller hears: reports of the data plane, and the verdicts of its probes.
//!
//! The modelled prober asks when something may have changed, and not all the time: the verdicts are those that
//! `controller::probe` would come to, and a run has a tenth of the steps.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ringmaster_core::observed::Health;
use ringmaster_core::{Generation, ReplicaName};

use crate::controller::Controller;
use crate::event::Event;
use crate::fault::Boundary;
use crate::planted::has;
use crate::simulation::Simulation;

/// A replica that is probed.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    address: SocketAddr,
    failures: u32,
    /// The last verdict.
    pub(crate) health: Health,
}

impl Simulation<'_> {
    pub(crate) fn on_report(&mut self, number: u64) {
        let (now, run) = (self.now, self.run);
        if !self.plane.is_up(now) {
            return;
        }
        let mut report = self.plane.report();
        if self.plane.run != run {
            report.acknowledged = Generation(0);
        }
        if has!(self, ForgetsRequests) {
            report.endpoints.clear();
        }
        if has!(self, LosesReports) && number > 3 {
            return;
        }
        let Some(c) = self.controller.as_mut().filter(|c| c.reports_seen < number) else { return };
        c.reports_seen = number;
        let at = c.clock(now);
        c.world.handshake.report(report, at);
        self.come_to(Boundary::Report);
        self.wake(run);
    }

    /// Probes exactly what runs, as `controller::probe` does.
    pub(crate) fn sync_probes(&mut self, c: &mut Controller) {
        let running: BTreeMap<ReplicaName, SocketAddr> = c
            .world
            .running()
            .filter(|replica| c.desired.services.contains_key(&replica.name.service))
            .filter_map(|replica| Some((replica.name.clone(), replica.address?)))
            .collect();
        c.probes.retain(|name, _| running.contains_key(name));
        let run = self.run;
        for (name, address) in running {
            let watched = c.probes.get(&name);
            if watched.is_some_and(|watched| watched.address == address) {
                continue;
            }
            let health = match watched {
                Some(_) => {
                    c.world.set_health(name.clone(), Health::default());
                    self.after(1, Event::Wake { run });
                    Health::default()
                }
                None => c.world.health(&name),
            };
            let delay = self.jitter(5, 25);
            self.after(delay, Event::Probe { run, name: name.clone() });
            c.probes.insert(name, Watched { address, failures: 0, health });
        }
    }

    /// Asks a replica. What answers is whoever is at its address now.
    pub(crate) fn on_probe(&mut self, run: u32, name: &ReplicaName) {
        if run != self.run {
            return;
        }
        let now = self.now;
        let Some(c) = &mut self.controller else { return };
        let at = c.clock(now);
        let Some(service) = c.desired.services.get(&name.service) else { return };
        let probes = &service.spec.probes;
        let Some(watched) = c.probes.get_mut(name) else { return };
        let there = self.engine.at(watched.address);
        let before = watched.health.clone();
        let health = &mut watched.health;
        let mut again = None;
        if there.is_some_and(|container| container.answers(now)) {
            watched.failures = 0;
            health.ready_since.get_or_insert(at);
            (health.was_ready, health.dead_since, health.last_failure) = (true, None, None);
        } else {
            watched.failures += 1;
            if watched.failures >= probes.readiness.failure_threshold || there.is_none() {
                health.ready_since = None;
            }
            if health.ready_since.is_none() {
                health.last_failure = Some("no answer".to_owned());
            }
            let liveness =
                probes.liveness.as_ref().filter(|probe| watched.failures >= probe.failure_threshold);
            if liveness.is_some() && health.was_ready {
                health.dead_since.get_or_insert(at);
            }
            let period = probes.readiness.period.0.as_millis() as u64;
            let needed = probes.liveness.as_ref().map_or(0, |probe| probe.failure_threshold);
            if watched.failures < needed.max(probes.readiness.failure_threshold) {
                again = Some(period);
            } else {
                // It will not answer before something happens to it.
                again = there.and_then(|container| container.answers_from(now)).map(|from| from - now);
            }
        }
        let changed = before != watched.health;
        c.verdicts.insert(name.clone(), (watched.address, watched.health.ready_since.is_some()));
        let health = if has!(self, TrustsEverybody) {
            Health { ready_since: Some(at), was_ready: true, ..Health::default() }
        } else {
            watched.health.clone()
        };
        let changed = changed || has!(self, TrustsEverybody);
        if changed {
            c.world.set_health(name.clone(), health);
        }
        if let Some(delay) = again {
            self.after(delay.max(1), Event::Probe { run, name: name.clone() });
        }
        if changed {
            self.wake(run);
        }
    }
}
