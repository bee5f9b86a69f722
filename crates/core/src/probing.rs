//! What probes say in a row, and when to ask again.
//!
//! Deliberately absent: asking, and clocks. [`Verdicts`] turns answers into [`Health`], [`next_tick`] and
//! [`starting_period`] say when the next question is due.

use std::time::Duration;

use crate::Timestamp;
use crate::observed::Health;
use crate::quantity::Percent;
use crate::spec::{Probe, Probes};

/// Time between two probes of a replica that has just begun to start.
pub const STARTING_PERIOD: Duration = Duration::from_millis(20);

/// Which of a replica's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Whether it has started: until then the others wait.
    Startup,
    /// Whether it gets traffic.
    Readiness,
    /// Whether it lives.
    Liveness,
}

/// Results in a row, of one probe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Streak {
    successes: u32,
    failures: u32,
}

/// What the probes of one replica have said lately.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdicts {
    startup: Streak,
    readiness: Streak,
    liveness: Streak,
}

impl ProbeKind {
    /// All of them.
    pub const ALL: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness];

    /// Its word in manifests and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ProbeKind::Startup => "startup",
            ProbeKind::Readiness => "readiness",
            ProbeKind::Liveness => "liveness",
        }
    }
}

impl Streak {
    fn count(&mut self, good: bool) {
        *self = match good {
            true => Streak { successes: self.successes.saturating_add(1), failures: 0 },
            false => Streak { successes: 0, failures: self.failures.saturating_add(1) },
        };
    }
}

impl Verdicts {
    /// Takes note of an answer: `Err` says why it is a failure. `probe` is the one that was asked, of `kind`.
    pub fn judge(
        &mut self,
        kind: ProbeKind,
        probe: &Probe,
        answer: Result<(), &str>,
        health: &mut Health,
        now: Timestamp,
    ) {
        match kind {
            ProbeKind::Startup => self.judge_startup(probe, answer, health, now),
            ProbeKind::Readiness => self.judge_readiness(probe, answer, health, now),
            ProbeKind::Liveness => self.judge_liveness(probe, answer, health, now),
        }
    }

    fn judge_startup(
        &mut self,
        probe: &Probe,
        answer: Result<(), &str>,
        health: &mut Health,
        now: Timestamp,
    ) {
        self.startup.count(answer.is_ok());
        match answer {
            Ok(()) => {
                health.started = true;
                health.last_failure = None;
            }
            Err(why) => {
                if self.startup.failures >= probe.failure_threshold {
                    health.dead_since.get_or_insert(now);
                }
                note(&mut health.last_failure, why);
            }
        }
    }

    fn judge_readiness(
        &mut self,
        probe: &Probe,
        answer: Result<(), &str>,
        health: &mut Health,
        now: Timestamp,
    ) {
        self.readiness.count(answer.is_ok());
        match answer {
            Ok(()) if self.readiness.successes >= probe.success_threshold => {
                health.ready_since.get_or_insert(now);
                health.was_ready = true;
                health.last_failure = None;
            }
            Ok(()) => {}
            Err(why) => {
                if self.readiness.failures >= probe.failure_threshold {
                    health.ready_since = None;
                }
                if health.ready_since.is_none() {
                    note(&mut health.last_failure, why);
                }
            }
        }
    }

    fn judge_liveness(
        &mut self,
        probe: &Probe,
        answer: Result<(), &str>,
        health: &mut Health,
        now: Timestamp,
    ) {
        self.liveness.count(answer.is_ok());
        match answer {
            Ok(()) => health.dead_since = None,
            Err(why) if self.liveness.failures >= probe.failure_threshold => {
                health.dead_since.get_or_insert(now);
                note(&mut health.last_failure, why);
            }
            Err(_) => {}
        }
    }
}

/// Says why without making the same text again: a replica that hangs for an hour says the same all the time.
fn note(last_failure: &mut Option<String>, why: &str) {
    if last_failure.as_deref() != Some(why) {
        *last_failure = Some(why.to_owned());
    }
}

/// The probes that a replica of this health is asked: until it has started nothing but that, and whether it lives only
/// once it has been ready or its startup probe has succeeded. One that is new may still be starting.
pub fn asked<'a>(probes: &'a Probes, health: &Health) -> [Option<(ProbeKind, &'a Probe)>; 2] {
    let starting = !health.started && !health.was_ready;
    match (&probes.startup, starting) {
        (Some(startup), true) => [Some((ProbeKind::Startup, startup)), None],
        (startup, _) => {
            let may_be_dead = health.was_ready || startup.is_some();
            let liveness = probes.liveness.as_ref().filter(|_| may_be_dead);
            let liveness = liveness.map(|probe| (ProbeKind::Liveness, probe));
            [Some((ProbeKind::Readiness, &probes.readiness)), liveness]
        }
    }
}

/// Time between two probes of a replica that is starting for `age`: a tenth of it, so that waiting for a slow one costs
/// little, and finding it ready at most a tenth more than it took.
pub fn starting_period(probe: &Probe, age: Duration) -> Duration {
    let longest = probe.period.0;
    // A command costs a process; its period says how often it may.
    let shortest = if probe.exec.is_some() { longest } else { STARTING_PERIOD };
    (age / 10).max(shortest).min(longest)
}

/// When the next probe is due, `elapsed` after the beginning of time: at the next multiple of the period, so that one
/// wake-up serves all replicas, put off by a share of the period that follows from the replica's `seed`.
pub fn next_tick(elapsed: Duration, period: Duration, jitter: Percent, seed: u64) -> Duration {
    let period_us = u64::try_from(period.as_micros()).unwrap_or(u64::MAX).max(1);
    let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    let spread_us = u128::from(period_us) * u128::from(jitter.0) / 100;
    // The place in the period is kept: two probes of one replica are always one period apart.
    let offset_us = ((u128::from(seed) * spread_us) >> 64) as u64;
    let ticks = elapsed_us.saturating_sub(offset_us) / period_us + u64::from(elapsed_us >= offset_us);
    Duration::from_micros((ticks.saturating_mul(period_us)).saturating_add(offset_us))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantity::Span;

    fn probe(failures: u32, successes: u32) -> Probe {
        let mut probe = Probes::default().readiness;
        (probe.failure_threshold, probe.success_threshold) = (failures, successes);
        probe
    }

    fn answers(kind: ProbeKind, probe: &Probe, health: &mut Health, text: &str) -> Vec<(bool, bool)> {
        let mut verdicts = Verdicts::default();
        let mut judged = Vec::new();
        for (at, letter) in text.chars().enumerate() {
            let answer = if letter == '+' { Ok(()) } else { Err("no") };
            verdicts.judge(kind, probe, answer, health, Timestamp(at as u64));
            judged.push((health.ready_since.is_some(), health.dead_since.is_some()));
        }
        judged
    }

    #[test]
    fn readiness_turns_at_its_thresholds_in_a_row() {
        let mut health = Health::default();
        let judged = answers(ProbeKind::Readiness, &probe(3, 2), &mut health, "+-++--+---++");
        let ready: String = judged.iter().map(|(ready, _)| if *ready { 'r' } else { '.' }).collect();
        assert_eq!(ready, "...rrrrrr..r");
        assert_eq!(health.ready_since, Some(Timestamp(11)), "since the answer that turned it");
        assert!(judged.iter().all(|(_, dead)| !dead), "readiness kills nobody");
    }

    #[test]
    fn liveness_and_startup_kill_at_their_threshold_and_not_before() {
        for kind in [ProbeKind::Liveness, ProbeKind::Startup] {
            let mut health = Health::default();
            let judged = answers(kind, &probe(3, 1), &mut health, "--+--");
            assert!(judged.iter().all(|(_, dead)| !dead), "{kind:?}");
            let judged = answers(kind, &probe(3, 1), &mut health, "----");
            assert_eq!(judged.iter().map(|(_, dead)| *dead).collect::<Vec<_>>(), [false, false, true, true]);
            assert_eq!(health.dead_since, Some(Timestamp(2)), "since the first verdict");
        }
    }

    #[test]
    fn until_it_has_started_nothing_else_is_asked() {
        let kinds = |probes: &Probes, health: &Health| {
            asked(probes, health).iter().flatten().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>()
        };
        let (new, started) = (Health::default(), Health { started: true, ..Health::default() });
        let was_ready = Health { was_ready: true, ..Health::default() };
        let liveness = Probes { liveness: Some(probe(1, 1)), ..Probes::default() };
        assert_eq!(kinds(&liveness, &new), ["readiness"], "one that is new may still be starting");
        assert_eq!(kinds(&liveness, &was_ready), ["readiness", "liveness"]);
        let all = Probes { startup: Some(probe(1, 1)), ..liveness };
        assert_eq!(kinds(&all, &new), ["startup"]);
        assert_eq!(kinds(&all, &started), ["readiness", "liveness"]);
        assert_eq!(
            kinds(&all, &was_ready),
            ["readiness", "liveness"],
            "a startup probe that is new in the manifest"
        );
    }

    #[test]
    fn a_slow_start_is_asked_about_ever_less_often() {
        let ms = |age| starting_period(&probe(1, 1), Duration::from_millis(age)).as_millis();
        assert_eq!([0, 200, 1_000, 9_000, 99_000].map(ms), [20, 20, 100, 900, 1_000]);
        let mut command = probe(1, 1);
        command.exec = Some(crate::spec::Exec { command: vec!["true".to_owned()] });
        assert_eq!(starting_period(&command, Duration::ZERO).as_millis(), 1_000);
        command.period = Span::from_millis(10);
        assert_eq!(starting_period(&command, Duration::ZERO).as_millis(), 10);
    }

    #[test]
    fn ticks_are_shared_and_jitter_keeps_each_replica_its_place() {
        let period = Duration::from_millis(500);
        let tick = |elapsed, jitter, seed| {
            next_tick(Duration::from_millis(elapsed), period, Percent(jitter), seed).as_millis()
        };
        for seed in [0, 7, u64::MAX] {
            assert_eq!([0, 1, 499, 500, 1_234].map(|at| tick(at, 0, seed)), [500, 500, 500, 1_000, 1_500]);
        }
        assert_eq!(tick(0, 20, 0), 500, "the first place of all is the tick itself");
        assert_eq!(tick(0, 20, u64::MAX / 2), 49);
        assert_eq!(tick(49, 20, u64::MAX / 2), 49, "half a microsecond is left");
        assert_eq!(tick(50, 20, u64::MAX / 2), 549);
        assert_eq!(tick(560, 20, u64::MAX / 2), 1_049);
        assert_eq!(tick(50, 100, u64::MAX), 499, "never a whole period");
    }
}
