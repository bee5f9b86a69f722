//! One fault under a steady load: what is done, when the daemon notices, when nobody is sent there any more, when
//! the replacement is there, and what the users see of it.
//!
//! All moments are seen from outside: the daemon's events for what it knows, the answers themselves for the death
//! of a replica (its last answer), and its status, looked at again and again, for who is ready and may be chosen.

mod trace;

use std::time::Duration;

use ringmaster_core::event::Event;
use ringmaster_core::status::{Phase, ServiceStatus};
use ringmaster_core::{Reason, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::LabError;
use crate::load::{self, Outcome, Pace, Plan};
use crate::session::{Session, progress};

use trace::Seen;
pub use trace::{FaultReport, Look, Start, Victim};

/// Load before the fault, and after everything is as it was.
const STEADY_BEFORE: Duration = Duration::from_secs(1);
const STEADY_AFTER: Duration = Duration::from_millis(700);
/// A frozen replica that nobody replaces is let go after this long.
const THAW_AFTER: Duration = Duration::from_secs(20);
/// How long everything may take.
const RECOVER_DEADLINE: Duration = Duration::from_secs(90);
/// Between two looks at the status.
const LOOK_EVERY: Duration = Duration::from_millis(15);
/// The longest that a request may take: a frozen replica's wait for its end, or the proxy's.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What to do, and to whom.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// Such as `kill -9 of one replica`.
    pub(crate) name: String,
    /// `KILL`, `TERM` or `STOP`.
    pub(crate) signal: &'static str,
    /// Ordinals.
    pub(crate) victims: Vec<u16>,
    /// Whether some replica lives on: then no request needs to fail.
    pub(crate) survivable: bool,
    /// Whether the replicas die of it at once.
    pub(crate) kills: bool,
}

/// A load in the background, and everything that is seen meanwhile.
pub(crate) struct Watch<'a> {
    session: &'a Session,
    bar: indicatif::ProgressBar,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<Outcome, LabError>>,
    /// The last event before it.
    seen: u64,
    /// What the daemon's clock shows more than ours, in milliseconds.
    clock_ahead_ms: f64,
    rate: f64,
    looks: Vec<(f64, ServiceStatus)>,
}

impl<'a> Watch<'a> {
    /// Starts the load, and waits until it is steady.
    pub(crate) async fn start(
        session: &'a Session,
        what: &str,
        seed: u64,
        requests: usize,
        rate: f64,
    ) -> Result<Watch<'a>, LabError> {
        let view = session.view().await?;
        let events = session.client.events(0).await?.events;
        let stop = CancellationToken::new();
        let pace = Pace::Open { per_second: rate, stop: stop.clone() };
        let target = session.target(&view)?;
        let plan = Plan { target, seed, requests, pace, timeout: REQUEST_TIMEOUT };
        let bar = progress(what, requests as u64);
        let mut watch = Watch {
            session,
            stop,
            seen: events.last().map_or(0, |event| event.sequence),
            clock_ahead_ms: clock_ahead(session).await?,
            rate,
            looks: Vec::new(),
            running: tokio::spawn(load::run(plan, bar.clone(), session.cancel.clone())),
            bar,
        };
        let steady = (rate * STEADY_BEFORE.as_secs_f64()) as u64;
        while watch.bar.position() < steady && !watch.running.is_finished() {
            watch.look().await?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(watch)
    }

    /// Notes what the status says now, and returns it.
    pub(crate) async fn look(&mut self) -> Result<ServiceStatus, LabError> {
        self.session.check()?;
        let status = self.session.status().await?;
        self.looks.push((wall_ms(), status.clone()));
        Ok(status)
    }

    /// Looks until a state holds.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&ServiceStatus) -> bool,
    ) -> Result<(), LabError> {
        let deadline = Instant::now() + RECOVER_DEADLINE;
        while !holds(&self.look().await?) {
            if Instant::now() > deadline {
                return Err(LabError::Failed(format!("not {what} after {RECOVER_DEADLINE:?}")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Ends the load when enough was sent, and returns it with the daemon's events meanwhile.
    pub(crate) async fn end(mut self) -> Result<(Outcome, Vec<Event>, Vec<Look>), LabError> {
        let calm = self.bar.position() + (self.rate * STEADY_AFTER.as_secs_f64()) as u64;
        while self.bar.position() < calm && !self.running.is_finished() {
            self.look().await?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.stop.cancel();
        // Requests that wait for a frozen replica's end are waited for, too.
        while !self.running.is_finished() {
            self.look().await?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let panicked =
            |error: tokio::task::JoinError| LabError::Failed(format!("the load has ended: {error}"));
        let outcome = self.running.await.map_err(panicked)??;
        self.bar.finish_and_clear();
        let generation = self.session.view().await?.generation;
        self.session.unless_cancelled(self.session.converged(generation)).await?;
        let events = self.session.client.events(self.seen).await?.events;
        let looks = self.looks.iter().map(|(at, status)| Look::of(at - outcome.began_ms, status)).collect();
        Ok((outcome, events, looks))
    }
}

/// What the daemon's clock shows more than ours: from the quickest of a few answers.
async fn clock_ahead(session: &Session) -> Result<f64, LabError> {
    let mut best = (f64::INFINITY, 0.0);
    for _ in 0..5 {
        let before = wall_ms();
        let now = session.client.events(u64::MAX).await?.now.0 as f64;
        let after = wall_ms();
        if after - before < best.0 {
            // It shows whole milliseconds: half of one has passed in the mean.
            best = (after - before, now + 0.5 - (before + after) / 2.0);
        }
    }
    Ok(best.1)
}

/// Injects a fault and watches until everything is as before.
pub(crate) async fn inject(
    session: &Session,
    fault: &Fault,
    seed: u64,
    requests: usize,
    rate: f64,
) -> Result<FaultReport, LabError> {
    let before = session.status().await?;
    let engine_name = |ordinal: u16| -> Option<String> {
        before.members.iter().find(|m| m.ordinal.0 == ordinal && m.phase == Phase::Ready)?.engine_name.clone()
    };
    let old: Vec<(u16, Option<String>)> =
        fault.victims.iter().map(|ordinal| (*ordinal, engine_name(*ordinal))).collect();
    let wanted = before.replicas;
    let mut watch = Watch::start(session, &format!("a3: {}", fault.name), seed, requests, rate).await?;
    let injected_ms = wall_ms();
    let names: Vec<String> = fault.victims.iter().map(|n| format!("{}-{n}", session.service())).collect();
    let calls: Vec<_> = names
        .iter()
        .map(|name| {
            let (client, name) = (session.client.clone(), name.clone());
            let signal = fault.signal;
            tokio::spawn(async move { client.fault(&name, signal).await })
        })
        .collect();
    // While the engine is at it, the status changes already.
    while calls.iter().any(|call| !call.is_finished()) {
        watch.look().await?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    for call in calls {
        call.await.map_err(|error| LabError::Failed(error.to_string()))??;
    }
    let thaw_at = Instant::now() + THAW_AFTER;
    let mut thawed = fault.kills;
    loop {
        let replaced = {
            let old = &old;
            let status = watch.look().await?;
            let is_new = |(ordinal, name): &(u16, Option<String>)| {
                let mut members = status.members.iter();
                members.any(|m| m.ordinal.0 == *ordinal && m.phase == Phase::Ready && m.engine_name != *name)
            };
            (thawed && !fault.kills || old.iter().all(is_new)) && status.ready == wanted
        };
        if replaced {
            break;
        }
        if !thawed && Instant::now() > thaw_at {
            thawed = true;
            for name in &names {
                session.client.fault(name, "CONT").await?;
            }
        }
        if Instant::now() > thaw_at + RECOVER_DEADLINE {
            return Err(LabError::Failed(format!(
                "{}: not recovered after {RECOVER_DEADLINE:?}",
                fault.name
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let clock_ahead_ms = watch.clock_ahead_ms;
    let (outcome, events, looks) = watch.end().await?;
    let injected = injected_ms - outcome.began_ms;
    let daemon_ms = |at: Timestamp| at.0 as f64 - clock_ahead_ms - outcome.began_ms;
    let seen =
        Seen { injected_ms: injected, outcome: &outcome, events: &events, daemon_ms: &daemon_ms, looks };
    Ok(trace::report(session.service().as_str(), fault, rate, &old, seen))
}

/// Adds a replica under the same load, and takes it away: how long one start takes here and now.
pub(crate) async fn one_start(
    session: &Session,
    seed: u64,
    rate: f64,
    times: usize,
) -> Result<Start, LabError> {
    let wanted = session.status().await?.replicas;
    let added = format!("{}-{wanted}", session.service());
    let mut watch = Watch::start(session, "a3: one start", seed, rate as usize, rate).await?;
    for _ in 0..times {
        for count in [wanted + 1, wanted] {
            let generation = session.client.scale(session.service(), count).await?;
            watch
                .until("scaled", |status| {
                    status.observed_generation >= generation && status.is_converged() && status.ready == count
                })
                .await?;
        }
    }
    let (outcome, events, _) = watch.end().await?;
    let of = |reason: Reason| -> Vec<f64> {
        let of_it = events.iter().filter(|event| event.object == added && event.reason == reason);
        of_it.map(|event| event.at.0 as f64).collect()
    };
    let starts: Vec<f64> =
        of(Reason::Creating).iter().zip(of(Reason::Ready)).map(|(from, to)| to - from).collect();
    Ok(Start {
        milliseconds: crate::stats::median(&starts),
        each_ms: starts,
        requests: outcome.samples.len() as u64,
        failed: outcome.samples.iter().filter(|sample| sample.failed).count() as u64,
    })
}

fn wall_ms() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64() * 1e3
}
