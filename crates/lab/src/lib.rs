//! The lab: experiments against a running daemon, with predictions beside measurements.
//!
//! One file for each experiment ([`a1`], [`a2`], [`a3`], [`a4`], [`compare`]); what they share: the load generator
//! ([`load`]), the statistics ([`stats`]), the predictions ([`predict`]), charts and the report, which know nothing
//! of experiments.
//!
//! Deliberately absent: any way to the replicas but the daemon's own HTTP interfaces. What is measured is what a user
//! would see.

pub mod a1;
pub mod a2;
pub mod a3;
pub mod a4;
pub mod chart;
pub mod compare;
mod daemon;
mod error;
pub mod fault;
mod http;
pub mod load;
pub mod machine;
pub mod measure;
mod options;
mod output;
pub mod predict;
pub mod random;
pub mod report;
mod session;
pub mod stats;

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

pub use error::LabError;
pub use options::{Experiment, Options, SEED_DEFAULT};

use crate::a1::A1;
use crate::a2::A2;
use crate::a3::A3;
use crate::a4::A4;
use crate::chart::terminal_bars;
use crate::compare::Compare;
use crate::measure::{Check, Verdict};
use crate::output::{Findings, Folder};
use crate::report::{Report, Section};
use crate::session::{Session, say};

/// The width of charts on the terminal, in columns.
const TERMINAL_COLUMNS: u16 = 100;

/// What an experiment leaves for the one who asked.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The text for the terminal: charts, promises, files.
    pub text: String,
    /// Whether every promise held.
    pub pass: bool,
    /// The report.
    pub report: PathBuf,
}

/// Runs an experiment, restores the service, and writes the results. `cancel` ends it early and in good order.
///
/// # Errors
/// [`LabError`]; whatever had been measured by then is in the folder, and the service is as it was found, unless
/// the error says otherwise.
pub async fn run(
    experiment: Experiment,
    options: Options,
    cancel: CancellationToken,
) -> Result<Summary, LabError> {
    options.check()?;
    let folder = Folder::open(options.out.clone())?;
    say(&format!("seed {}, results in {}", options.seed, folder.path().display()));
    if experiment == Experiment::Report
        && let Some((shown, provenance)) = everything(&folder)?
    {
        return Ok(summary(experiment, shown, write_report(&folder, &provenance)?, options.colour));
    }
    let session = Session::open(options, cancel).await?;
    let result = measure(experiment, &session, &folder).await;
    let (colour, provenance) = (session.options.colour, session.provenance.clone());
    let closed = session.close().await;
    let report = write_report(&folder, &provenance);
    let shown = match (result, closed) {
        (Ok(shown), Ok(())) => shown,
        (Ok(_) | Err(LabError::Interrupted(_)), Err(error)) => {
            return Err(LabError::Failed(format!("the service is not as it was found: {error}")));
        }
        (Err(error), _) => return Err(error),
    };
    Ok(summary(experiment, shown, report?, colour))
}

fn summary(experiment: Experiment, shown: Shown, report: PathBuf, colour: bool) -> Summary {
    let (bars, checks, verdict) = shown;
    let mut text = String::new();
    for chart in bars {
        text += &terminal_bars(&chart, TERMINAL_COLUMNS, colour);
        text.push('\n');
    }
    text += &promises(&checks);
    text += &format!("{}: {} and {}\n", experiment.name(), word(verdict), report.display());
    Summary { text, pass: verdict == Verdict::Pass, report }
}

type Shown = (Vec<chart::BarChart>, Vec<Check>, Verdict);

async fn measure(experiment: Experiment, session: &Session, folder: &Folder) -> Result<Shown, LabError> {
    match experiment {
        Experiment::A1 => a1::run(session, folder).await.map(|found| shown(&found)),
        Experiment::A2 => a2::run(session, folder).await.map(|found| shown(&found)),
        Experiment::A3 => a3::run(session, folder).await.map(|found| shown(&found)),
        Experiment::A4 => a4::run(session, folder).await.map(|found| shown(&found)),
        Experiment::Compare => compare::run(session, folder).await.map(|found| shown(&found)),
        Experiment::Report => missing(session, folder).await,
    }
}

/// Measures what is not in the folder yet, and shows the promises of everything.
async fn missing(session: &Session, folder: &Folder) -> Result<Shown, LabError> {
    let mut all = NOTHING;
    for experiment in Experiment::HANDED_IN {
        let known = match known(experiment, folder)? {
            Some(known) => known,
            None => {
                say(&format!("{} is not in the folder yet: measuring it", experiment.name()));
                let result = Box::pin(measure(experiment, session, folder)).await?;
                session.restore().await?;
                result
            }
        };
        join(&mut all, known);
    }
    Ok(all)
}

/// Everything, and with what it was measured, if the folder has it all: then no daemon is needed.
fn everything(folder: &Folder) -> Result<Option<(Shown, machine::Provenance)>, LabError> {
    let mut all = NOTHING;
    for experiment in Experiment::HANDED_IN {
        let Some(known) = known(experiment, folder)? else { return Ok(None) };
        join(&mut all, known);
    }
    Ok(folder.read::<A1>()?.map(|a1| (all, a1.provenance)))
}

const NOTHING: Shown = (Vec::new(), Vec::new(), Verdict::Pass);

fn join(all: &mut Shown, (bars, checks, verdict): Shown) {
    all.0.extend(bars);
    all.1.extend(checks);
    if verdict != Verdict::Pass {
        all.2 = verdict;
    }
}

fn known(experiment: Experiment, folder: &Folder) -> Result<Option<Shown>, LabError> {
    match experiment {
        Experiment::A1 => complete::<A1>(folder),
        Experiment::A2 => complete::<A2>(folder),
        Experiment::A3 => complete::<A3>(folder),
        Experiment::A4 => complete::<A4>(folder),
        Experiment::Compare => complete::<Compare>(folder),
        Experiment::Report => Ok(None),
    }
}

/// What an earlier experiment left, if it came to its end.
fn complete<F: Findings>(folder: &Folder) -> Result<Option<Shown>, LabError> {
    Ok(folder.read::<F>()?.filter(|found| found.verdict() != Verdict::Incomplete).map(|found| shown(&found)))
}

fn shown(findings: &impl Findings) -> Shown {
    (findings.bars(), findings.checks().to_vec(), findings.verdict())
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "PASS",
        Verdict::Fail => "FAIL",
        Verdict::Incomplete => "INCOMPLETE",
    }
}

/// The promises as lines.
fn promises(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let mark = if check.pass { "ok  " } else { "MISS" };
        format!("{mark} {}: {} ({})\n", check.what, check.measured, check.limit)
    };
    checks.iter().map(line).collect()
}

/// The report of everything in the folder.
fn write_report(folder: &Folder, provenance: &machine::Provenance) -> Result<PathBuf, LabError> {
    let sections: Vec<Section> = [
        folder.section::<A1>()?,
        folder.section::<A2>()?,
        folder.section::<A3>()?,
        folder.section::<A4>()?,
        folder.section::<Compare>()?,
    ]
    .into_iter()
    .flatten()
    .collect();
    let report = Report {
        title: "Ringmaster: the experiments".to_owned(),
        subtitle: "Predictions beside measurements".to_owned(),
        made_at: machine::now_text(),
        machine: provenance.rows(),
        sections,
    };
    folder.write("report.html", report::html(&report).as_bytes())?;
    Ok(folder.path().join("report.html"))
}
