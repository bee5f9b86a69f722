//! What an experiment is told.

use std::path::PathBuf;

use ringmaster_core::ServiceName;
use ringmaster_core::spec::AssignmentSpec;

use crate::error::LabError;

/// The seed of the request ids unless another is given: the example of the assignment's sheet.
pub const SEED_DEFAULT: u64 = 132_574;
/// Most requests of one load.
const REQUESTS_MAX: usize = 10_000_000;
/// Most requests in flight.
const CONCURRENCY_MAX: usize = 10_000;
/// Most repetitions of a1.
const RUNS_MAX: usize = 1_000;

/// Which experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Experiment {
    /// How evenly requests are distributed.
    A1,
    /// What 2 to 6 replicas do to that.
    A2,
    /// What failures cost.
    A3,
    /// What other hash functions do.
    A4,
    /// The same load through other balancers.
    Compare,
    /// All of them on one page.
    Report,
}

/// The options of `ringmaster lab`.
#[derive(Debug, Clone)]
pub struct Options {
    /// The daemon's admin API.
    pub admin: String,
    /// Whether somebody asked for that daemon: then no other is started where it does not answer.
    pub admin_given: bool,
    /// The admin API's token.
    pub token: Option<String>,
    /// The data plane, if not where the daemon listens.
    pub target: Option<String>,
    /// The service.
    pub service: ServiceName,
    /// Requests of each load.
    pub requests: usize,
    /// Requests in flight where the load is not an open loop.
    pub concurrency: usize,
    /// Requests a second of open loops; left out, loads that count are sent `concurrency` at a time.
    pub rate: Option<f64>,
    /// The seed of ids and arrivals.
    pub seed: u64,
    /// How often a1 is repeated, each time with the next seed.
    pub runs: usize,
    /// Where the results go.
    pub out: PathBuf,
    /// Formulas of one's own for a4.
    pub formulas: Option<AssignmentSpec>,
    /// A manifest whose service a4 adds; and what a daemon of our own serves.
    pub manifest: Option<String>,
    /// This program, to start a daemon with.
    pub program: PathBuf,
    /// Its version.
    pub version: String,
    /// Whether to draw with colours on the terminal.
    pub colour: bool,
}

impl Experiment {
    /// Those of the assignment, in the order of the report.
    pub const HANDED_IN: [Experiment; 4] = [Experiment::A1, Experiment::A2, Experiment::A3, Experiment::A4];

    /// The name of its files.
    pub fn name(self) -> &'static str {
        match self {
            Experiment::A1 => "a1",
            Experiment::A2 => "a2",
            Experiment::A3 => "a3",
            Experiment::A4 => "a4",
            Experiment::Compare => "compare",
            Experiment::Report => "report",
        }
    }
}

impl Options {
    /// Whether they make sense in themselves.
    ///
    /// # Errors
    /// [`LabError::Input`] with the option that does not.
    pub fn check(&self) -> Result<(), LabError> {
        within("--requests", self.requests, REQUESTS_MAX)?;
        within("--concurrency", self.concurrency, CONCURRENCY_MAX)?;
        within("--runs", self.runs, RUNS_MAX)?;
        match self.rate {
            Some(rate) if !(rate > 0.0 && rate <= 1e6) => Err(LabError::Input(format!(
                "--rate {rate}: give requests per second, above 0 and at most 1000000"
            ))),
            _ => Ok(()),
        }
    }
}

fn within(option: &str, value: usize, most: usize) -> Result<(), LabError> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(LabError::Input(format!("{option} {value}: give a number from 1 to {most}")))
}
