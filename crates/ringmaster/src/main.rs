//! `ringmaster`: the one binary. Verbs in [`cmd`], the daemon's wiring in [`serve`], that of a data plane alone in
//! [`proxy`].
//!
//! Exit codes: 0 done; 1 it did not work out (or `diff` found a difference); 2 the input is wrong and nothing
//! was applied; 3 no daemon answers.

mod cli;
mod cmd;
mod output;
mod proxy;
mod serve;

use std::process::ExitCode;

use clap::Parser;
use ringmaster_client::ClientError;

fn main() -> ExitCode {
    let arguments = cli::Cli::parse();
    match cmd::run(arguments) {
        Ok(code) => code,
        Err(error) => {
            if broken_pipe(&error) {
                return ExitCode::SUCCESS;
            }
            let (text, code) = explain(&error);
            eprintln!("{text}");
            ExitCode::from(code)
        }
    }
}

/// The whole chain on one line, and the exit code that scripts can use.
fn explain(error: &anyhow::Error) -> (String, u8) {
    if let Some(manifest) = error.downcast_ref::<ringmaster_core::manifest::ManifestErrors>() {
        return (manifest.to_string(), 2);
    }
    let code = match error.downcast_ref::<ClientError>() {
        Some(ClientError::Invalid(report)) => return (report.clone(), 2),
        Some(ClientError::Unreachable { .. }) => 3,
        _ if error.downcast_ref::<cmd::BadInput>().is_some() => 2,
        _ => 1,
    };
    (format!("error: {error:#}"), code)
}

/// `ringmaster get replicas | head` is no error.
fn broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
