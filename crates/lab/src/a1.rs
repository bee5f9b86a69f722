//! a1, distribution: who answers how many of 10,000 requests, for the service as it is, without `hashOn`, and
//! under the assignment's hash functions.

pub(crate) mod view;

use ringmaster_core::spec::{Balancing, HashKeys, Policy};
use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::machine::Provenance;
use crate::measure::{Check, Counted, Verdict};
use crate::output::Folder;
use crate::session::Session;
use crate::stats::{Ideal, average};

/// The largest max/mean of requests without affinity, at 100 in flight.
const UNHASHED_MAX_OVER_MEAN: f64 = 1.005;

/// What a1 found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct A1 {
    /// Where and with what.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// The service as it is, first run.
    #[serde(flatten)]
    pub as_is: Counted,
    /// Whether the promises held.
    pub verdict: Verdict,
    /// The promises.
    pub checks: Vec<Check>,
    /// What ideal hashing does.
    pub ideal: Ideal,
    /// How it was sent: `100 at a time`, or `as an open loop at 2000/s`.
    pub sent: String,
    /// Every run of the service as it is.
    pub runs: Vec<Run>,
    /// The same service without `hashOn`.
    pub without_hash_on: Option<Counted>,
    /// The same service under the assignment's hash functions.
    pub assignment: Option<Counted>,
}

/// One run in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// Answers by replica.
    pub counts: Vec<u64>,
    /// Requests that failed.
    pub failed: u64,
    /// The largest count by the mean one.
    pub max_over_mean: f64,
    /// χ² against the prediction.
    pub chi_square: f64,
    /// Its probability.
    pub p: f64,
    /// From the first request to the last answer.
    pub seconds: f64,
}

/// Measures; after each load what is known until then is kept.
pub(crate) async fn run(session: &Session, folder: &Folder) -> Result<A1, LabError> {
    let view = session.view().await?;
    let mut first: Option<A1> = None;
    for index in 0..session.options.runs {
        let seed = session.options.seed.wrapping_add(index as u64);
        let what = match session.options.runs {
            1 => "a1: as it is".to_owned(),
            runs => format!("a1: as it is, run {} of {runs}", index + 1),
        };
        let counted = session.measure(&what, &view, seed).await?.counted;
        let run = Run::of(seed, &counted);
        let found = first.get_or_insert_with(|| A1::begin(session, counted));
        found.runs.push(run);
        found.judge(false);
        if session.cancel.is_cancelled() {
            break;
        }
    }
    let mut found = first.ok_or_else(|| LabError::Input("--runs 0: give at least 1".to_owned()))?;
    folder.keep(&found)?;
    session.check()?;

    let as_is = &view.spec.balancing;
    let policy = if as_is.policy == Policy::Assignment { Policy::default() } else { as_is.policy };
    let unhashed = Balancing {
        policy,
        hash_on: HashKeys::default(),
        bounded_load: None,
        assignment: None,
        ..as_is.clone()
    };
    let unhashed = session.balance(&unhashed).await?;
    let counted = session.measure("a1: without hashOn", &unhashed, session.options.seed).await?.counted;
    found.without_hash_on = Some(counted);
    found.judge(false);
    folder.keep(&found)?;
    session.check()?;

    let assignment = Balancing { policy: Policy::Assignment, ..Balancing::default() };
    let assignment = session.balance(&assignment).await?;
    let counted = session.measure("a1: assignment", &assignment, session.options.seed).await?.counted;
    found.assignment = Some(counted);
    found.judge(!session.cancel.is_cancelled());
    folder.keep(&found)?;
    session.check()?;
    Ok(found)
}

impl A1 {
    fn begin(session: &Session, as_is: Counted) -> A1 {
        A1 {
            provenance: session.provenance.clone(),
            ideal: as_is.ideal(),
            as_is,
            verdict: Verdict::Incomplete,
            checks: Vec::new(),
            sent: session.sent(),
            runs: Vec::new(),
            without_hash_on: None,
            assignment: None,
        }
    }

    fn judge(&mut self, complete: bool) {
        let mut checks = Vec::new();
        let failed: u64 = self.runs.iter().map(|run| run.failed).sum();
        let sent = self.runs.len() as u64 * self.as_is.requests;
        checks.push(Check::none_failed("failed requests, as it is", failed, sent));
        if self.as_is.is_even() {
            let worst = self.runs.iter().map(|run| run.max_over_mean).fold(0.0, f64::max);
            let (ideal, runs) = (&self.ideal, self.runs.len());
            checks.push(Check::at_most(
                format!("max/mean of each of {runs} runs, as it is (99.9th percentile of ideal hashing)"),
                worst,
                ideal.max_over_mean_p999,
                4,
                "",
            ));
            if runs > 1 {
                let all: Vec<f64> = self.runs.iter().map(|run| run.max_over_mean).collect();
                let bound = ideal.mean_bound(runs);
                checks.push(Check::at_most(
                    format!("mean of max/mean over {runs} runs (ideal {:.4})", ideal.max_over_mean),
                    average(&all),
                    bound,
                    4,
                    "",
                ));
            }
        }
        checks.push(Check::likely("χ² probability against the prediction, as it is", self.as_is.p));
        if let Some(unhashed) = &self.without_hash_on {
            checks.push(Check::none_failed(
                "failed requests, without hashOn",
                unhashed.failed,
                unhashed.requests,
            ));
            checks.push(Check::at_most(
                "max/mean without hashOn",
                unhashed.max_over_mean,
                UNHASHED_MAX_OVER_MEAN,
                4,
                "",
            ));
        }
        if let Some(assignment) = &self.assignment {
            let what = "failed requests, assignment";
            checks.push(Check::none_failed(what, assignment.failed, assignment.requests));
            checks.push(Check::likely("χ² probability against the exact shares, assignment", assignment.p));
        }
        self.verdict = Verdict::of(&checks, complete);
        self.checks = checks;
    }
}

impl Run {
    fn of(seed: u64, counted: &Counted) -> Run {
        Run {
            seed,
            counts: counted.replicas.iter().map(|replica| replica.count).collect(),
            failed: counted.failed,
            max_over_mean: counted.max_over_mean,
            chi_square: counted.chi_square,
            p: counted.p,
            seconds: counted.seconds,
        }
    }
}
