//! One replica's probes: waits until one is due, asks, and tells when the verdict turns.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Histogram};
use ringmaster_core::ReplicaName;
use ringmaster_core::observed::{Health, RuntimeId};
use ringmaster_core::probing::{ProbeKind, Verdicts, asked, next_tick, starting_period};
use ringmaster_core::spec::{Probe, Probes};
use ringmaster_runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::check::{Answer, Checker};
use super::{HealthChange, Turns};
use crate::clock::Clock;
use crate::figures;

/// What the task of one replica works with.
pub(super) struct Task {
    pub(super) name: ReplicaName,
    pub(super) id: RuntimeId,
    pub(super) address: SocketAddr,
    pub(super) probes: Probes,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) turns: Arc<Turns>,
    pub(super) poke: Arc<Notify>,
    pub(super) clock: Clock,
    pub(super) epoch: Instant,
    pub(super) changes: mpsc::UnboundedSender<HealthChange>,
}

/// When each probe is due, by its kind.
#[derive(Debug)]
struct Due {
    at: [Instant; ProbeKind::ALL.len()],
    /// From when on a failed startup probe counts: it is asked more often than its period says.
    startup_counts_from: Instant,
}

/// What is counted, looked up once.
struct Counted {
    took: Histogram,
    /// Successes and failures, by the probe's kind.
    ends: [(Counter, Counter); ProbeKind::ALL.len()],
}

impl Task {
    /// Runs until it is aborted. Safe to abort at any await: it holds nothing but its sockets.
    pub(super) async fn run(self, mut health: Health) {
        let begun = Instant::now();
        let seed = xxh3_64(self.name.to_string().as_bytes());
        let mut checker = Checker::new(&self);
        let counted = Counted::of(&self.name);
        let mut verdicts = Verdicts::default();
        let mut due = self.due(begun, seed);
        loop {
            let next =
                asked(&self.probes, &health).iter().flatten().map(|(kind, _)| due.at[*kind as usize]).min();
            let next = next.unwrap_or(begun);
            let poked = tokio::select! {
                () = tokio::time::sleep_until(next) => false,
                () = self.poke.notified() => true,
            };
            let before = health.clone();
            let now = Instant::now();
            let mut last: Option<(&Probe, Answer)> = None;
            for (kind, probe) in asked(&self.probes, &health).into_iter().flatten() {
                // A hint is no reason to start a process in every replica.
                let hinted = poked && kind != ProbeKind::Liveness && probe.exec.is_none();
                if due.at[kind as usize] > now && !hinted {
                    continue;
                }
                // The same question is not asked twice in one tick.
                let answer = match last.take().filter(|(other, _)| probe.asks_the_same(other)) {
                    Some((_, answer)) => answer,
                    None => {
                        let started = Instant::now();
                        let answer = checker.check(&self, kind, probe, hinted).await;
                        counted.ended(kind, &answer, started.elapsed());
                        answer
                    }
                };
                self.judge(kind, probe, &answer, &mut verdicts, &mut due, &mut health);
                if let (Answer::Failed(failure), true) = (&answer, hinted && kind == ProbeKind::Readiness)
                    && failure.refused
                {
                    // Live traffic or the engine hinted at something, and nobody listens there: two witnesses are enough.
                    health.ready_since = None;
                    health.last_failure = Some(failure.why.clone());
                }
                due.at[kind as usize] = self.next(kind, probe, &health, begun.elapsed(), seed);
                last = Some((probe, answer));
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

    fn due(&self, begun: Instant, seed: u64) -> Due {
        let mut at = [begun; ProbeKind::ALL.len()];
        if let Some(liveness) = &self.probes.liveness {
            at[ProbeKind::Liveness as usize] = self.tick(liveness, seed);
        }
        let startup = self.probes.startup.as_ref();
        let startup_counts_from = begun + startup.map_or(Duration::ZERO, |probe| probe.period.0);
        Due { at, startup_counts_from }
    }

    fn judge(
        &self,
        kind: ProbeKind,
        probe: &Probe,
        answer: &Answer,
        verdicts: &mut Verdicts,
        due: &mut Due,
        health: &mut Health,
    ) {
        let answer = match answer {
            Answer::Good => Ok(()),
            Answer::Failed(failure) => Err(failure.why.as_str()),
            // The engine did not answer, which says nothing about the replica.
            Answer::Unknown => return,
        };
        if kind == ProbeKind::Startup {
            let now = Instant::now();
            if answer.is_err() && now < due.startup_counts_from {
                return;
            }
            due.startup_counts_from = now + probe.period.0;
        }
        verdicts.judge(kind, probe, answer, health, self.clock.now());
    }

    fn next(&self, kind: ProbeKind, probe: &Probe, health: &Health, age: Duration, seed: u64) -> Instant {
        let is_starting = match kind {
            ProbeKind::Startup => !health.started,
            ProbeKind::Readiness => !health.was_ready,
            ProbeKind::Liveness => false,
        };
        if is_starting { Instant::now() + starting_period(probe, age) } else { self.tick(probe, seed) }
    }

    fn tick(&self, probe: &Probe, seed: u64) -> Instant {
        self.epoch + next_tick(self.epoch.elapsed(), probe.period.0, probe.jitter, seed)
    }
}

impl Counted {
    fn of(name: &ReplicaName) -> Counted {
        let ends = ProbeKind::ALL.map(|kind| {
            let of = |good| figures::probes(&name.service, kind, good);
            (of(true), of(false))
        });
        Counted { took: figures::probe_duration(&name.service), ends }
    }

    fn ended(&self, kind: ProbeKind, answer: &Answer, took: Duration) {
        self.took.record(took);
        let (good, bad) = &self.ends[kind as usize];
        if matches!(answer, Answer::Good) { good.increment(1) } else { bad.increment(1) }
    }
}
