//! The demo workload as a program: what images are made of. It is configured by [`Config::from_env`].
//!
//! `ringmaster-replica check [PATH]` asks the replica beside it instead of serving: a command for probes, in an image
//! that holds no other program.
//!
//! Exits with 0 after SIGTERM or a check that succeeds, with 1 when it cannot serve or a check fails, with 2 when it is
//! given other arguments.

use std::process::ExitCode;

use ringmaster_replica::{Config, check, run};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let path = match arguments[..] {
        [] => None,
        ["check"] => Some("/heartbeat"),
        ["check", path] if path.starts_with('/') => Some(path),
        [argument, ..] => {
            eprintln!(
                "ringmaster-replica: unexpected argument `{argument}`: it takes `check [PATH]` or nothing, and is \
                 configured by PORT, SERVER_ID"
            );
            return ExitCode::from(2);
        }
    };
    // One thread: a demo replica needs no more, and it starts in a few milliseconds.
    let outcome = Config::from_env().and_then(|config| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match path {
            Some(path) => runtime.block_on(check(&config, path)),
            None => runtime.block_on(run(config)),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringmaster-replica: {error}");
            ExitCode::FAILURE
        }
    }
}
