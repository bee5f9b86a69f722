//! `lab`: the experiments, with Ctrl-C as an orderly end.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use ringmaster_core::spec::AssignmentSpec;
use ringmaster_lab::{Experiment, LabError, Options};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{BadInput, parse, read_manifests, service_name};
use crate::cli::{Lab, LabExperiment};
use crate::output::{colours, out};

/// An experiment that came to its end and missed a promise.
const MISSED: u8 = 4;
/// What shells say of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

pub(super) async fn run(admin: String, token: Option<String>, lab: Lab) -> anyhow::Result<ExitCode> {
    let experiment = match lab.experiment {
        LabExperiment::A1 => Experiment::A1,
        LabExperiment::A2 => Experiment::A2,
        LabExperiment::A3 => Experiment::A3,
        LabExperiment::A4 => Experiment::A4,
        LabExperiment::Compare => Experiment::Compare,
        LabExperiment::Report => Experiment::Report,
    };
    let options = options(admin, token, lab)?;
    match ringmaster_lab::run(experiment, options, cancelled_by_signals()?).await {
        Ok(summary) => {
            out(summary.text.trim_end())?;
            Ok(if summary.pass { ExitCode::SUCCESS } else { ExitCode::from(MISSED) })
        }
        Err(LabError::Input(why)) => Err(BadInput(why).into()),
        Err(LabError::Client(error)) => Err(error.into()),
        Err(error @ LabError::Interrupted(_)) => {
            eprintln!("{error}");
            Ok(ExitCode::from(INTERRUPTED))
        }
        Err(error) => Err(error.into()),
    }
}

fn options(admin: String, token: Option<String>, lab: Lab) -> anyhow::Result<Options> {
    let manifest = lab.file.as_ref().map(|file| checked_manifest(file)).transpose()?;
    Ok(Options {
        admin,
        admin_given: admin_was_given(),
        token,
        target: lab.target,
        service: service_name(&lab.service)?,
        requests: lab.requests,
        concurrency: lab.concurrency,
        rate: lab.rate,
        seed: lab.seed,
        runs: lab.runs,
        out: lab.out,
        formulas: formulas(lab.request_hash, lab.server_hash)?,
        manifest,
        program: std::env::current_exe()?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        colour: colours() && std::io::stdout().is_terminal(),
    })
}

/// Whether somebody named a daemon: then no other is brought up where it does not answer.
fn admin_was_given() -> bool {
    let named = |argument: std::ffi::OsString| {
        argument.to_str().is_some_and(|text| text == "--admin" || text.starts_with("--admin="))
    };
    std::env::args_os().any(named) || std::env::var_os("RINGMASTER_ADMIN").is_some()
}

/// The manifest's text; a mistake in it is reported before anything is started.
fn checked_manifest(file: &Path) -> anyhow::Result<String> {
    let files = read_manifests(&[file.display().to_string()])?;
    parse(&files)?;
    Ok(files.into_iter().map(|file| file.text).collect())
}

/// Formulas of one's own, checked as those of a manifest are.
fn formulas(request: Option<String>, server: Option<String>) -> anyhow::Result<Option<AssignmentSpec>> {
    if request.is_none() && server.is_none() {
        return Ok(None);
    }
    let spec =
        AssignmentSpec { request_hash: request, virtual_server_hash: server, ..AssignmentSpec::default() };
    let rules = ringmaster_core::ring::assignment::AssignmentRules::new(&spec);
    rules.map_err(|error| BadInput(option_of(&error.to_string())))?;
    Ok(Some(spec))
}

/// Errors of formulas name the manifest's fields; here they are options.
fn option_of(error: &str) -> String {
    match error.split_once(": ") {
        Some(("requestHash", why)) => format!("--request-hash: {why}"),
        Some(("virtualServerHash", why)) => format!("--server-hash: {why}"),
        _ => error.to_owned(),
    }
}

/// The first SIGINT or SIGTERM ends the experiment in good order; the second one ends the program.
fn cancelled_by_signals() -> anyhow::Result<CancellationToken> {
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        next().await;
        eprintln!("stopping: the service is being restored (once more to leave it as it is)");
        token.cancel();
        next().await;
        std::process::exit(i32::from(INTERRUPTED));
    });
    Ok(cancel)
}
