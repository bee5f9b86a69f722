//! The options of `simulate`.

use clap::Args;
use ringmaster_sim::{Fault, Site};

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// A manifest; `-` is standard input. May be given several times. Left out, two small services are simulated.
    #[arg(short, long = "file", value_name = "FILE|-")]
    pub(crate) files: Vec<String>,
    /// How many runs, each with a seed of its own.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub(crate) seeds: u64,
    /// Only the run of this seed, with all that happens in it.
    #[arg(long, value_name = "S", conflicts_with = "seeds")]
    pub(crate) seed: Option<u64>,
    /// Only the faults at these places of that run, as a failure prints them behind SITES=.
    #[arg(long, value_delimiter = ',', requires = "seed", value_name = "SITE,...")]
    pub(crate) sites: Vec<Site>,
    /// Which faults may strike [default: all; `list` names them].
    #[arg(long, value_delimiter = ',', value_name = "FAULT,...")]
    pub(crate) faults: Vec<Faults>,
    /// Show how often each fault struck at each point of the run.
    #[arg(long)]
    pub(crate) matrix: bool,
}

/// A fault, or the question which there are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Faults {
    List,
    One(Fault),
}

impl std::str::FromStr for Faults {
    type Err = String;
    fn from_str(text: &str) -> Result<Faults, String> {
        if text == "list" { Ok(Faults::List) } else { text.parse().map(Faults::One) }
    }
}
