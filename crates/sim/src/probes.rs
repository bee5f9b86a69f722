//! What the controller hears: reports of the data plane, and the verdicts of its probes.
//!
//! What answers mean is decided by the real rules ([`ringmaster_core::probing`]). The modelled prober asks while an
//! answer may turn a verdict, and when something has happened, and not all the time: a run has a tenth of the steps.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ringmaster_core::observed::{Health, RuntimeId, RuntimeReplica};
use ringmaster_core::probing::{ProbeKind, Verdicts, asked};
use ringmaster_core::spec::{Probe, Probes};
use ringmaster_core::{Generation, ReplicaName};

use crate::controller::Controller;
use crate::event::Event;
use crate::fault::Boundary;
use crate::planted::has;
use crate::simulation::Simulation;

/// A replica that is probed.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    id: RuntimeId,
    address: SocketAddr,
    verdicts: Verdicts,
    /// A failure of a startup or liveness probe counts once in its period: from then on, by the probe's kind.
    counts_from: [u64; ProbeKind::ALL.len()],
    /// When it is asked next without a hint.
    due_at: Option<u64>,
    /// What they come to.
    pub(crate) health: Health,
}

impl Simulation<'_> {
    pub(crate) fn on_report(&mut self, number: u64) {
        let (now, run) = (self.now, self.run);
        self.plane.is_report_due = false;
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
        if has!(self, ForgetsTheHeld) {
            report.services.values_mut().for_each(|told| told.waiting = 0);
        }
        c.scaling.hear(&report, &c.desired, at);
        c.world.handshake.report(report, at);
        self.come_to(Boundary::Report);
        self.wake(run);
    }

    /// Probes exactly what runs, as `controller::probe` does.
    pub(crate) fn sync_probes(&mut self, c: &mut Controller) {
        let run = self.run;
        let is_wanted = |replica: &&RuntimeReplica| c.desired.services.contains_key(&replica.name.service);
        let mut new = Vec::new();
        let mut count = 0;
        for replica in c.world.running().filter(is_wanted) {
            let Some(address) = replica.address else { continue };
            count += 1;
            let known = c.probes.get(&replica.name).map(|w| w.address == address && w.id == replica.id);
            if known != Some(true) {
                new.push((replica.name.clone(), replica.id.clone(), address, known.is_some()));
            }
        }
        for (name, id, address, is_another) in new {
            if is_another {
                c.world.set_health(name.clone(), Health::default());
                self.after(1, Event::Wake { run });
            }
            let health = c.world.health(&name);
            let delay = self.jitter(5, 25);
            self.after(delay, Event::Probe { run, name: name.clone() });
            c.probes.insert(name, Watched::new(id, address, health));
        }
        if c.probes.len() > count {
            let running: BTreeSet<&ReplicaName> =
                c.world.running().filter(is_wanted).map(|replica| &replica.name).collect();
            c.probes.retain(|name, _| running.contains(name));
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
        let is_good = there.is_some_and(|container| container.answers(now));
        let answer = if is_good { Ok(()) } else { Err("no answer") };
        let before = watched.health.clone();
        let health = &mut watched.health;
        for (kind, probe) in asked(probes, &before).into_iter().flatten() {
            let counts_from = &mut watched.counts_from[kind as usize];
            if kind != ProbeKind::Readiness && !is_good {
                if *counts_from > now {
                    continue;
                }
                *counts_from = now + period_of(probe);
            }
            watched.verdicts.judge(kind, probe, answer, health, at);
        }
        if there.is_none() {
            // Refused, and the engine has hinted at something: two witnesses are enough.
            health.ready_since = None;
            health.last_failure = Some("nobody is there".to_owned());
        }
        // If nothing turns a verdict before, it is asked when it will answer.
        let answers = there.filter(|_| !is_good).and_then(|container| container.answers_from(now));
        let turns = turns_at(probes, &watched.health, &watched.counts_from, is_good, now);
        let again = turns.into_iter().chain(answers).min();
        let is_under_way = watched.due_at.is_some_and(|due| due > now && again.is_none_or(|at| due <= at));
        if !is_under_way {
            watched.due_at = again;
        }
        let again = again.filter(|_| !is_under_way);
        let health = &watched.health;
        c.verdicts.insert(name.clone(), (watched.address, health.ready_since.is_some()));
        let trusts = has!(self, TrustsEverybody);
        let changed = trusts || before != *health;
        if changed {
            let health = match trusts {
                true => Health { ready_since: Some(at), was_ready: true, ..Health::default() },
                false => health.clone(),
            };
            c.world.set_health(name.clone(), health);
        }
        if let Some(at) = again {
            self.after(at - now, Event::Probe { run, name: name.clone() });
        }
        if changed {
            self.wake(run);
        }
    }
}

impl Watched {
    fn new(id: RuntimeId, address: SocketAddr, health: Health) -> Watched {
        let counts_from = [0; ProbeKind::ALL.len()];
        Watched { id, address, verdicts: Verdicts::default(), counts_from, due_at: None, health }
    }
}

fn period_of(probe: &Probe) -> u64 {
    (probe.period.0.as_millis() as u64).max(1)
}

/// When the same answer again may turn a verdict; none if it turns nothing.
fn turns_at(
    probes: &Probes,
    health: &Health,
    counts_from: &[u64; ProbeKind::ALL.len()],
    is_good: bool,
    now: u64,
) -> Option<u64> {
    let at = |(kind, probe): (ProbeKind, &Probe)| {
        let turns = match (kind, is_good) {
            (ProbeKind::Readiness, _) => health.ready_since.is_some() != is_good,
            (ProbeKind::Startup, true) => !health.started,
            (ProbeKind::Liveness, true) => health.dead_since.is_some(),
            (ProbeKind::Startup | ProbeKind::Liveness, false) => health.dead_since.is_none(),
        };
        let next = match counts_from[kind as usize] {
            from if !is_good && from > now => from,
            _ => now + period_of(probe),
        };
        turns.then_some(next)
    };
    asked(probes, health).into_iter().flatten().filter_map(at).min()
}
