//! The demo workload as a program: what images are made of. It takes no arguments; see [`Config::from_env`].
//!
//! Exits with 0 after SIGTERM, with 1 when it cannot serve, with 2 when it is given arguments.

use std::process::ExitCode;

use ringmaster_replica::{Config, run};

fn main() -> ExitCode {
    if let Some(argument) = std::env::args().nth(1) {
        eprintln!(
            "ringmaster-replica: unexpected argument `{argument}`: it is configured by PORT, SERVER_ID"
        );
        return ExitCode::from(2);
    }
    // One thread: a demo replica needs no more, and it starts in a few milliseconds.
    let outcome = Config::from_env().and_then(|config| {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(config))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringmaster-replica: {error}");
            ExitCode::FAILURE
        }
    }
}
