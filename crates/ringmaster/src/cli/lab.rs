//! The options of `lab`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Which experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LabExperiment {
    /// Distribution: requests per replica, as it is, without hashOn, and as the assignment hashes.
    A1,
    /// Scaling: 2 to 6 replicas.
    A2,
    /// Failure: kill -9, SIGSTOP, stop, two at once, all, under load (the daemon needs --allow-faults).
    A3,
    /// Hash functions: every policy and several formulas.
    A4,
    /// One page of everything; what is not in the folder yet is measured.
    Report,
    /// The same load through haproxy and nginx, where installed.
    Compare,
}

#[derive(Debug, Args)]
pub(crate) struct Lab {
    /// Which experiment.
    #[arg(value_enum)]
    pub(crate) experiment: LabExperiment,
    /// Requests of each load.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) requests: usize,
    /// Requests in flight where they are sent as fast as they are answered.
    #[arg(long, default_value_t = 100)]
    pub(crate) concurrency: usize,
    /// Requests per second of an open loop [default: as fast as answered; a3 1000].
    #[arg(long, value_name = "R")]
    pub(crate) rate: Option<f64>,
    /// The seed of the request ids and of the arrivals.
    #[arg(long, default_value_t = ringmaster_lab::SEED_DEFAULT)]
    pub(crate) seed: u64,
    /// How often a1 is repeated, each time with the next seed.
    #[arg(long, default_value_t = 1)]
    pub(crate) runs: usize,
    /// The service.
    #[arg(long, default_value = "web")]
    pub(crate) service: String,
    /// The folder of the results.
    #[arg(long, default_value = "lab-out", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// The data plane [default: where the daemon says that it listens].
    #[arg(long, value_name = "URL")]
    pub(crate) target: Option<String>,
    /// H(i) of your own, for a4.
    #[arg(long, value_name = "FORMULA")]
    pub(crate) request_hash: Option<String>,
    /// Φ(i, j) of your own, for a4.
    #[arg(long, value_name = "FORMULA")]
    pub(crate) server_hash: Option<String>,
    /// A manifest: a4 measures its service's balancing too, and a daemon that is started for the experiment serves it.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}
