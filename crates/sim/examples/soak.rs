//! Many runs, to be left alone with: `soak SEEDS [FIRST [MANIFEST]]`. Tells the failing seeds, the first made small.

use std::process::ExitCode;
use std::time::Instant;

use ringmaster_core::manifest::{self, Source};
use ringmaster_sim::{Config, campaign, run, shrink};

/// So many failing seeds are enough to look at.
const FAILURES_MAX: usize = 20;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let (count, first) = (numbers.first().copied().unwrap_or(1_000), numbers.get(1).copied().unwrap_or(0));
    let commit = std::env::var("RINGMASTER_COMMIT").unwrap_or_else(|_| "unknown".to_owned());
    let config = match std::env::args().nth(3) {
        None => Config::standard(),
        Some(file) => match of_file(&file) {
            Ok(config) => config,
            Err(why) => {
                eprintln!("{file}: {why}");
                return ExitCode::FAILURE;
            }
        },
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let started = Instant::now();
    let tally = campaign(&config, first..first + count, threads, FAILURES_MAX);
    let took = started.elapsed().as_secs_f64();
    println!("{}\n{}", tally.promises(), tally.matrix());
    println!(
        "{} runs, {} steps in {took:.1} s on {threads} threads; {:.0} steps per second of processor time",
        tally.runs,
        tally.steps,
        tally.steps as f64 / cpu_seconds()
    );
    for failed in tally.failed() {
        println!("{}", failed.story(&commit).lines().take(2).collect::<Vec<_>>().join("\n"));
    }
    match tally.failed().first() {
        None => ExitCode::SUCCESS,
        Some(failed) => {
            let small = shrink(&config, failed);
            let again = run(&config, failed.seed, None, false).broken == failed.broken;
            println!("{}", small.story(&commit));
            println!("the same seed fails in the same way again: {again}");
            ExitCode::FAILURE
        }
    }
}

fn of_file(file: &str) -> Result<Config, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string(file)?;
    Ok(Config::of(&manifest::parse(&[Source { file, text: &text }])?)?)
}

/// The processor time of this process so far: the machine may be busy with other things.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    // Fields 14 and 15 of proc(5), in hundredths; the name was the second.
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}
