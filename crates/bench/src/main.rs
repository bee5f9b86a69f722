//! What a request costs in the data plane, beside haproxy and nginx: the processor time of each proxy per request, as a
//! ratio to haproxy's in the same round, every response verified.
//!
//! The proxies have one worker on one core; the load and the origins share another, in this process. Rounds are
//! interleaved proxy by proxy, so that what else happens on the machine hits all alike: ratios count, times do not.
//! Part of no shipped binary. Deliberately absent: latency as a claim of its own, which takes a quiet machine.

mod client;
mod cost;
mod idle;
mod load;
mod machine;
mod origin;
mod peer;
mod process;
mod report;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tokio::runtime::{Builder, LocalOptions};

use crate::cost::Plan;
use crate::machine::Cores;
use crate::origin::Origins;
use crate::peer::{Kind, Starter};
use crate::report::Report;

/// Measures what a request costs in `ringmaster proxy`, beside haproxy and nginx where they are installed.
#[derive(Debug, Parser)]
struct Options {
    /// The program to measure.
    #[arg(long, value_name = "FILE")]
    binary: PathBuf,
    /// Rounds; the median of their ratios is printed [default: 5].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// How long one work lasts on one proxy, in milliseconds, F four times as long [default: 1000].
    #[arg(long, value_name = "MS")]
    slot_ms: Option<u64>,
    /// Only these works, as in A,C,F.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    works: Vec<String>,
    /// Half a minute: everything is verified, and no figure means much.
    #[arg(long)]
    quick: bool,
    /// Keep the tables in this file; what stands there under `## Notes` stays.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    machine::raise_open_files()?;
    let cores = Cores::of_this_process()?;
    cores.pin_to_load()?;
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let report = runtime.block_on(measure(&options, cores))?;
    let text = report.text();
    println!("{text}");
    if let Some(file) = &options.write {
        report::keep(file, &text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("kept in {}", file.display());
    }
    if report.is_verified() { Ok(ExitCode::SUCCESS) } else { Ok(ExitCode::FAILURE) }
}

async fn measure(options: &Options, cores: Cores) -> anyhow::Result<Report> {
    let binary = options
        .binary
        .canonicalize()
        .with_context(|| format!("no program at {}", options.binary.display()))?;
    let origins = Origins::start().await?;
    let starter = Starter { binary, cores, origins: origins.addresses() };
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.is_installed()).collect();
    for missing in Kind::ALL.into_iter().filter(|kind| !kinds.contains(kind)) {
        eprintln!("{} is not installed: it is left out", missing.name());
    }
    let plan = Plan {
        rounds: options.rounds.unwrap_or(if options.quick { 1 } else { 5 }),
        slot: Duration::from_millis(options.slot_ms.unwrap_or(if options.quick { 300 } else { 1_000 })),
        works: work::named(&options.works)?,
    };
    let slots = cost::measure(&starter, &origins, &kinds, &plan).await?;
    let idle_connections = if options.quick { (100, 300) } else { (1_000, 5_000) };
    let idle = if options.works.is_empty() {
        idle::measure(&starter, &kinds, idle_connections).await?
    } else {
        Vec::new()
    };
    Ok(Report {
        plan,
        kinds,
        slots: slots.slots,
        resident: slots.resident,
        idle,
        machine: machine::describe(),
    })
}
