//! Probes: one task per running replica asks it whether it is ready and alive.
//!
//! A replica that was never ready is asked every 20 ms, so that readiness costs no waiting; afterwards at its
//! probe's period, on ticks that all replicas share, so that an idle daemon wakes rarely. Only changes are
//! reported. Deliberately absent: consequences. The verdicts are data for the planner.

mod check;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::ReplicaName;
use ringmaster_core::observed::Health;
use ringmaster_core::spec::{Probe, Probes};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::figures;
use check::{Checker, Failure};

/// Time between two probes of a replica that was never ready.
const STARTING_PERIOD: Duration = Duration::from_millis(20);

/// A replica's health has changed.
#[derive(Debug)]
pub(crate) struct HealthChange {
    pub(crate) name: ReplicaName,
    pub(crate) health: Health,
}

/// A replica to probe.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) address: SocketAddr,
    pub(crate) probes: Probes,
    /// What is known of it.
    pub(crate) health: Health,
}

/// All probe tasks.
#[derive(Debug)]
pub(crate) struct Prober {
    clock: Clock,
    epoch: Instant,
    changes: mpsc::UnboundedSender<HealthChange>,
    running: BTreeMap<ReplicaName, Watched>,
}

#[derive(Debug)]
struct Watched {
    address: SocketAddr,
    probes: Probes,
    poke: Arc<Notify>,
    task: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Prober {
    /// Reports to `changes`: unbounded, but each task sends only when its verdict turns.
    pub(crate) fn new(clock: Clock, changes: mpsc::UnboundedSender<HealthChange>) -> Prober {
        Prober { clock, epoch: Instant::now(), changes, running: BTreeMap::new() }
    }

    /// Probes exactly these replicas. One whose probes changed goes on with what is known of it; at another
    /// address nothing is known of it any more.
    pub(crate) fn sync(&mut self, wanted: &BTreeMap<ReplicaName, Wanted>) {
        self.running.retain(|name, _| wanted.contains_key(name));
        for (name, wanted) in wanted {
            let watched = self.running.get(name);
            if watched.is_some_and(|w| w.address == wanted.address && w.probes == wanted.probes) {
                continue;
            }
            let mut health = wanted.health.clone();
            if watched.is_some_and(|watched| watched.address != wanted.address) {
                health = Health::default();
                // The receiver is the loop, which is calling this.
                drop(self.changes.send(HealthChange { name: name.clone(), health: health.clone() }));
            }
            let poke = Arc::new(Notify::new());
            let task = Task {
                name: name.clone(),
                address: wanted.address,
                probes: wanted.probes.clone(),
                poke: Arc::clone(&poke),
                clock: self.clock,
                epoch: self.epoch,
                changes: self.changes.clone(),
            };
            let task = tokio::spawn(task.run(health)).abort_handle();
            let watched = Watched { address: wanted.address, probes: wanted.probes.clone(), poke, task };
            self.running.insert(name.clone(), watched);
        }
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

struct Task {
    name: ReplicaName,
    address: SocketAddr,
    probes: Probes,
    poke: Arc<Notify>,
    clock: Clock,
    epoch: Instant,
    changes: mpsc::UnboundedSender<HealthChange>,
}

/// Counts results in a row and turns when a threshold is reached.
#[derive(Debug, Default)]
struct Streak {
    successes: u32,
    failures: u32,
}

impl Streak {
    fn count(&mut self, good: bool) {
        if good {
            *self = Streak { successes: self.successes.saturating_add(1), failures: 0 };
        } else {
            *self = Streak { successes: 0, failures: self.failures.saturating_add(1) };
        }
    }
}

impl Task {
    /// Runs until it is aborted. Safe to abort at any await: it holds nothing but its sockets.
    async fn run(self, mut health: Health) {
        let mut checker = Checker::new(self.address);
        let (mut readiness, mut liveness) = (Streak::default(), Streak::default());
        let mut next_ready = Instant::now();
        let mut next_live = self.probes.liveness.as_ref().map(|probe| self.tick(probe.period.0));
        loop {
            let next = next_live.map_or(next_ready, |live| live.min(next_ready));
            let poked = tokio::select! {
                () = tokio::time::sleep_until(next) => false,
                () = self.poke.notified() => {
                    next_ready = Instant::now();
                    true
                }
            };
            let before = health.clone();
            let now = Instant::now();
            let mut answer = None;
            if next_ready <= now {
                let probe = &self.probes.readiness;
                let result = self.ask(&mut checker, "readiness", probe, poked).await;
                self.judge_readiness(probe, &result, &mut readiness, &mut health);
                // Live traffic or the engine hinted at something, and nobody listens there: two witnesses are enough.
                if let Err(failure) = result.as_ref()
                    && poked
                    && failure.refused
                {
                    health.ready_since = None;
                    health.last_failure = Some(failure.why.clone());
                }
                answer = Some(result);
                next_ready = match health.was_ready {
                    true => self.tick(probe.period.0),
                    false => Instant::now() + STARTING_PERIOD,
                };
            }
            if let (Some(probe), Some(at)) = (&self.probes.liveness, next_live)
                && at <= now
            {
                // The same question is not asked twice in one tick.
                let result = match answer.filter(|_| same_question(probe, &self.probes.readiness)) {
                    Some(result) => result,
                    None => self.ask(&mut checker, "liveness", probe, false).await,
                };
                self.judge_liveness(probe, &result, &mut liveness, &mut health);
                next_live = Some(self.tick(probe.period.0));
            }
            if health != before
                && self
                    .changes
                    .send(HealthChange { name: self.name.clone(), health: health.clone() })
                    .is_err()
            {
                return;
            }
        }
    }

    /// Asks once, and counts it.
    async fn ask(
        &self,
        checker: &mut Checker,
        kind: &'static str,
        probe: &Probe,
        fresh: bool,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let result = checker.check(probe, fresh).await;
        figures::probed(&self.name.service, kind, result.is_ok(), started.elapsed());
        result
    }

    fn judge_readiness(
        &self,
        probe: &Probe,
        result: &Result<(), Failure>,
        streak: &mut Streak,
        health: &mut Health,
    ) {
        streak.count(result.is_ok());
        match result {
            Ok(()) if streak.successes >= probe.success_threshold => {
                health.ready_since.get_or_insert_with(|| self.clock.now());
                health.was_ready = true;
                health.last_failure = None;
            }
            Ok(()) => {}
            Err(failure) => {
                if streak.failures >= probe.failure_threshold {
                    health.ready_since = None;
                }
                if health.ready_since.is_none() {
                    health.last_failure = Some(failure.why.clone());
                }
            }
        }
    }

    fn judge_liveness(
        &self,
        probe: &Probe,
        result: &Result<(), Failure>,
        streak: &mut Streak,
        health: &mut Health,
    ) {
        streak.count(result.is_ok());
        match result {
            Ok(()) => health.dead_since = None,
            // A replica that was never ready may still be starting: readiness alone judges it.
            Err(failure) if health.was_ready && streak.failures >= probe.failure_threshold => {
                health.dead_since.get_or_insert_with(|| self.clock.now());
                health.last_failure = Some(failure.why.clone());
            }
            Err(_) => {}
        }
    }

    /// The next multiple of `period` since the prober started: all replicas are asked in one wake-up.
    fn tick(&self, period: Duration) -> Instant {
        let elapsed = self.epoch.elapsed().as_millis() as u64;
        let period = (period.as_millis() as u64).max(1);
        self.epoch + Duration::from_millis((elapsed / period + 1) * period)
    }
}

fn same_question(a: &Probe, b: &Probe) -> bool {
    a.http_get == b.http_get && a.timeout == b.timeout
}
