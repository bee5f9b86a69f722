//! a2, scaling: 2 to 6 replicas by editing the desired state, the same requests each time.
//!
//! The mean load that the assignment asks for is 10,000 / N by arithmetic and says nothing; beside it stands what
//! does: how far the busiest and the idlest are from it, how many keys a step moves, and what it costs.

mod view;

use std::collections::HashMap;

use ringmaster_core::Ordinal;
use ringmaster_core::spec::Policy;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::error::LabError;
use crate::load::{Latency, Outcome, Pace};
use crate::machine::Provenance;
use crate::measure::{Check, Counted, Verdict};
use crate::output::Folder;
use crate::predict::Prediction;
use crate::session::Session;
use crate::stats::Ideal;

/// The numbers of replicas that the assignment asks for.
pub(crate) const REPLICAS: std::ops::RangeInclusive<u32> = 2..=6;
/// The rate of the open loop that measures latencies, and how many requests it sends.
const LATENCY_RATE: f64 = 1_000.0;
const LATENCY_REQUESTS: usize = 1_500;

/// What a2 found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct A2 {
    /// Where and with what.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// Whether the promises held.
    pub verdict: Verdict,
    /// The promises.
    pub checks: Vec<Check>,
    /// Requests of each load.
    pub requests: u64,
    /// How they were sent.
    pub sent: String,
    /// One for each number of replicas.
    pub steps: Vec<Step>,
}

/// One number of replicas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// How many.
    pub replicas: u32,
    /// From the edit until all were ready and everything was as desired.
    pub converge_seconds: f64,
    /// The load.
    pub counted: Counted,
    /// What ideal hashing does to as many requests.
    pub ideal: Ideal,
    /// What the step from one replica fewer moved.
    pub moved: Option<Moved>,
    /// Latencies at a steady rate.
    pub steady: Option<Steady>,
}

/// Keys that changed their replica with a step, as shares of all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moved {
    /// Of the ids that were answered before and after.
    pub measured: f64,
    /// Of all keys, as the two rings say; none where they are not known.
    pub predicted: Option<f64>,
    /// The fewest that have to: what the new replica gets.
    pub optimum: f64,
    /// How many ids were compared.
    pub ids: u64,
}

/// An open loop: latencies from the intended send time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Steady {
    /// Requests per second.
    pub rate: f64,
    /// How many.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
    /// Latencies.
    pub latency: Latency,
}

/// Measures; whatever ends it, what is known until then is kept.
pub(crate) async fn run(session: &Session, folder: &Folder) -> Result<A2, LabError> {
    let mut found = A2 {
        provenance: session.provenance.clone(),
        verdict: Verdict::Incomplete,
        checks: Vec::new(),
        requests: session.options.requests as u64,
        sent: session.sent(),
        steps: Vec::new(),
    };
    let result = steps(session, &mut found).await;
    found.judge(result.is_ok());
    if !found.steps.is_empty() {
        folder.keep(&found)?;
    }
    result.map(|()| found)
}

async fn steps(session: &Session, found: &mut A2) -> Result<(), LabError> {
    let mut before: Option<(Prediction, HashMap<u32, Ordinal>)> = None;
    for replicas in REPLICAS {
        let (view, took) = session.scale(replicas).await?;
        let what = format!("a2: {replicas} replicas");
        let measured = session.measure(&what, &view, session.options.seed).await?;
        let owners = owners(&measured.outcome);
        let moved =
            before.as_ref().filter(|_| measured.prediction.has_keys()).map(|(prediction, earlier)| {
                let (measured_share, ids) = moved_ids(earlier, &owners);
                Moved {
                    measured: measured_share,
                    predicted: prediction.moved_to(&measured.prediction),
                    optimum: 1.0 / f64::from(replicas),
                    ids,
                }
            });
        let mut step = Step {
            replicas,
            converge_seconds: took.as_secs_f64(),
            ideal: measured.counted.ideal(),
            counted: measured.counted,
            moved,
            steady: None,
        };
        if !session.cancel.is_cancelled() {
            step.steady = Some(steady(session, replicas).await?);
        }
        found.steps.push(step);
        before = Some((measured.prediction, owners));
        session.check()?;
    }
    Ok(())
}

async fn steady(session: &Session, replicas: u32) -> Result<Steady, LabError> {
    let stop = CancellationToken::new();
    stop.cancel();
    let rate = session.options.rate.unwrap_or(LATENCY_RATE);
    let requests = LATENCY_REQUESTS.min(session.options.requests);
    let target = session.target(&session.view().await?)?;
    let what = format!("a2: {replicas} replicas, {rate}/s");
    let pace = Pace::Open { per_second: rate, stop };
    let outcome = session.load(&what, target, session.options.seed, requests, pace).await?;
    Ok(Steady {
        rate,
        requests: outcome.samples.len() as u64,
        failed: outcome.failures.len() as u64,
        latency: outcome.latency,
    })
}

/// Who answered each id.
fn owners(outcome: &Outcome) -> HashMap<u32, Ordinal> {
    outcome.samples.iter().filter_map(|sample| Some((sample.id, sample.replica?))).collect()
}

/// The share of ids that another replica answered than before, and of how many.
fn moved_ids(before: &HashMap<u32, Ordinal>, after: &HashMap<u32, Ordinal>) -> (f64, u64) {
    let both = before.iter().filter_map(|(id, earlier)| Some((earlier, after.get(id)?)));
    let (mut ids, mut moved) = (0_u64, 0_u64);
    for (earlier, later) in both {
        ids += 1;
        moved += u64::from(earlier != later);
    }
    (moved as f64 / ids.max(1) as f64, ids)
}

impl A2 {
    fn judge(&mut self, complete: bool) {
        let mut checks = Vec::new();
        for step in &self.steps {
            let (n, counted) = (step.replicas, &step.counted);
            let steady = step.steady.as_ref().map_or((0, 0), |steady| (steady.failed, steady.requests));
            checks.push(Check::none_failed(
                format!("failed requests with {n} replicas"),
                counted.failed + steady.0,
                counted.requests + steady.1,
            ));
            checks.push(Check::likely(format!("χ² probability with {n} replicas"), counted.p));
            if counted.is_even() {
                let limit = step.ideal.max_over_mean_p999;
                let what = format!("max/mean with {n} replicas (99.9th percentile of ideal hashing)");
                checks.push(Check::at_most(what, counted.max_over_mean, limit, 4, ""));
            }
            if let Some(moved) = step.moved.filter(|_| counted.policy == Policy::SlotTable.name()) {
                // Sampling may show a little more than what moved.
                let noise = (moved.optimum * (1.0 - moved.optimum) / moved.ids.max(1) as f64).sqrt();
                let what = format!(
                    "keys moved from {} to {n} replicas (optimum {:.2} %)",
                    n - 1,
                    100.0 * moved.optimum
                );
                let limit = 100.0 * (moved.optimum + 3.5 * noise);
                checks.push(Check::at_most(what, 100.0 * moved.measured, limit, 2, " %"));
            }
        }
        self.verdict = Verdict::of(&checks, complete);
        self.checks = checks;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moved_ids_are_those_that_changed_their_replica() {
        let of = |pairs: &[(u32, u16)]| pairs.iter().map(|(id, ordinal)| (*id, Ordinal(*ordinal))).collect();
        let (before, after) = (of(&[(1, 0), (2, 1), (3, 1), (9, 0)]), of(&[(1, 0), (2, 2), (3, 1), (4, 2)]));
        assert_eq!(moved_ids(&before, &after), (1.0 / 3.0, 3));
    }
}
