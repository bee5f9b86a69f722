//! `simulate`: what the decisions promise of a manifest, in a modelled world of faults.

use std::process::ExitCode;

use ringmaster_sim::{Config, Fault, Outcome, campaign, run, shrink};

use super::{BadInput, parse, read_manifests};
use crate::cli::{Faults, Simulate};
use crate::output::out;

/// A promise was broken.
const BROKEN: u8 = 4;
const COMMIT: &str = concat!("v", env!("CARGO_PKG_VERSION"));

pub(super) fn run_simulation(options: &Simulate) -> anyhow::Result<ExitCode> {
    if options.faults.iter().any(|fault| matches!(fault, Faults::List)) {
        for fault in Fault::ALL {
            out(&format!("{fault:<18} {}", fault.about()))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut config = match options.files.as_slice() {
        [] => Config::standard(),
        files => {
            let manifest = parse(&read_manifests(files)?)?;
            Config::of(&manifest).map_err(|error| BadInput(error.to_string()))?
        }
    };
    let chosen: Vec<Fault> = options
        .faults
        .iter()
        .filter_map(|fault| if let Faults::One(fault) = fault { Some(*fault) } else { None })
        .collect();
    if !chosen.is_empty() {
        config.faults = chosen;
    }
    match options.seed {
        Some(seed) => one(&config, seed, options),
        None => many(&config, options),
    }
}

/// Replays a run.
fn one(config: &Config, seed: u64, options: &Simulate) -> anyhow::Result<ExitCode> {
    let only = (!options.sites.is_empty()).then(|| options.sites.iter().copied().collect());
    let outcome = run(config, seed, only.as_ref(), true);
    out(outcome.story(COMMIT).trim_end())?;
    Ok(verdict(&outcome))
}

fn many(config: &Config, options: &Simulate) -> anyhow::Result<ExitCode> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let tally = campaign(config, 0..options.seeds, threads, 1);
    out(tally.promises().trim_end())?;
    if options.matrix {
        out(&format!("\n{}", tally.matrix().trim_end()))?;
    }
    out(&format!("\n{} runs, {} steps", tally.runs, tally.steps))?;
    let Some(failed) = tally.failed().first() else {
        out("with this manifest and these faults, these promises hold")?;
        return Ok(ExitCode::SUCCESS);
    };
    let small = shrink(config, failed);
    out(&format!(
        "\na promise is broken; the smallest run that shows it:\n{}",
        small.story(COMMIT).trim_end()
    ))?;
    Ok(verdict(&small))
}

fn verdict(outcome: &Outcome) -> ExitCode {
    if outcome.broken.is_some() { ExitCode::from(BROKEN) } else { ExitCode::SUCCESS }
}
