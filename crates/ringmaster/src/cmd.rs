//! The verbs, one file each where there is something to it.

mod apply;
mod delete;
mod describe;
mod diff;
mod events;
mod get;
mod lab;
mod ring;
mod rollout;
mod simulate;
mod top;
mod wait;

use std::io::Read;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use ringmaster_client::{Client, ClientError};
use ringmaster_core::ServiceName;
use ringmaster_core::api::ManifestFile;
use ringmaster_core::manifest::{self, Source};

use crate::cli::{Cli, SignalName, Verb};
use crate::output::out;

/// Input that is wrong in itself: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadInput(pub(crate) String);

/// Runs a verb.
pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.verb {
        Verb::Serve(options) => {
            return crate::serve::run(*options, &cli.admin, cli.admin_token_file.as_deref());
        }
        Verb::Proxy(options) => return crate::proxy::run(&options),
        Verb::Replica => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(ringmaster_replica::run(ringmaster_replica::Config::from_env()?))?;
        }
        Verb::Validate { files } => validate(&files)?,
        Verb::Simulate(options) => return simulate::run_simulation(&options),
        Verb::Ring(of) if of.file.is_some() => ring::offline_shares(&of)?,
        Verb::Explain { of, key } if of.file.is_some() => ring::offline_explanation(&of, &key)?,
        Verb::Schema => out(&serde_json::to_string_pretty(&manifest::json_schema())?)?,
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "ringmaster", &mut std::io::stdout());
        }
        _ => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            return runtime.block_on(remote(cli));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The verbs that talk to a daemon.
async fn remote(cli: Cli) -> anyhow::Result<ExitCode> {
    let token = cli.admin_token_file.as_deref().map(crate::serve::read_token).transpose()?;
    let url = if cli.admin.contains("://") { cli.admin } else { format!("http://{}", cli.admin) };
    if let Verb::Lab(options) = cli.verb {
        return lab::run(url, token, *options).await;
    }
    let client = Client::new(&url, token)?;
    match cli.verb {
        Verb::Apply(options) => apply::run(&client, &options).await?,
        // Exit code 1 means that there is a difference: nothing else may end so.
        Verb::Diff(options) => {
            return diff::run(&client, &options).await.map_err(|error| {
                match error.downcast_ref::<ClientError>() {
                    Some(ClientError::Refused(why)) => BadInput(why.clone()).into(),
                    _ => error,
                }
            });
        }
        Verb::Get(options) => get::run(&client, &options).await?,
        Verb::Describe { service } => describe::run(&client, &service_name(&service)?).await?,
        Verb::Scale(options) => {
            let name = service_name(&options.service)?;
            let generation = client.scale(&name, options.replicas).await?;
            if !options.wait.no_wait {
                wait::until_converged(&client, std::slice::from_ref(&name), generation, options.wait.timeout)
                    .await?;
            }
            out(&format!("service/{name} scaled to {}", options.replicas))?;
        }
        Verb::Rollout(what) => rollout::run(&client, what).await?,
        Verb::Top(options) => top::run(&client, &options).await?,
        Verb::LogLevel { filter: None } => out(&client.log_filter().await?.filter)?,
        Verb::LogLevel { filter: Some(filter) } => {
            let set = client.set_log_filter(&filter).await.map_err(|error| match error {
                ClientError::Invalid(why) => BadInput(why).into(),
                other => anyhow::Error::from(other),
            })?;
            out(&set.filter)?;
        }
        Verb::Delete(options) => delete::run(&client, &options).await?,
        Verb::Logs(options) => {
            out(client
                .logs(replica_name(&options.replica), options.lines, options.previous)
                .await?
                .trim_end())?;
        }
        Verb::Ring(of) => ring::shares(&client, &of).await?,
        Verb::Explain { of, key } => ring::explanation(&client, &of, &key).await?,
        Verb::Events { watch, output } => events::run(&client, watch, output).await?,
        Verb::Kill { replica, signal } => {
            let signal = match signal {
                SignalName::Kill => "KILL",
                SignalName::Term => "TERM",
                SignalName::Stop => "STOP",
                SignalName::Cont => "CONT",
            };
            let name = client.fault(replica_name(&replica), signal).await?;
            out(&format!("SIG{signal} sent to {name}"))?;
        }
        Verb::Health => {
            client.health().await?;
            out("ok")?;
        }
        Verb::Version => {
            out(&format!("ringmaster {}", env!("CARGO_PKG_VERSION")))?;
            match client.version().await {
                Ok(daemon) => {
                    out(&format!("daemon     {} ({} runtime)", daemon.version, daemon.runtime))?;
                    out(&format!("listening  {}", daemon.listeners.join(", ")))?;
                }
                Err(error) => out(&format!("daemon     none: {error}"))?,
            }
        }
        Verb::Serve(_)
        | Verb::Proxy(_)
        | Verb::Replica
        | Verb::Validate { .. }
        | Verb::Simulate(_)
        | Verb::Schema
        | Verb::Lab(_)
        | Verb::Completions { .. } => {
            unreachable!("these verbs are answered before")
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn validate(files: &[String]) -> anyhow::Result<()> {
    let files = read_manifests(files)?;
    let manifest = parse(&files)?;
    for (name, service) in &manifest.services {
        let count = service.spec.replicas.map_or("the live number of".to_owned(), |count| count.to_string());
        out(&format!("service/{name}: {count} replicas, valid"))?;
        if let Some(shares) = ring::uneven_shares(name, &service.spec) {
            out(&format!("service/{name}: {shares}"))?;
        }
        for warning in manifest::balancing_warnings(&service.spec.balancing) {
            out(&format!("warning: service/{name}: {warning}"))?;
        }
    }
    if manifest.gateway.is_some() {
        out("gateway: valid")?;
    }
    Ok(())
}

pub(crate) fn parse(files: &[ManifestFile]) -> anyhow::Result<manifest::Manifest> {
    let sources: Vec<Source<'_>> =
        files.iter().map(|file| Source { file: &file.file, text: &file.text }).collect();
    Ok(manifest::parse(&sources)?)
}

/// Reads manifests and checks them here, so that a mistake is reported even without a daemon.
pub(crate) fn read_manifests(files: &[String]) -> anyhow::Result<Vec<ManifestFile>> {
    let read = |file: &String| -> anyhow::Result<ManifestFile> {
        let mut bytes = Vec::new();
        let limit = manifest::APPLY_BYTES_MAX as u64 + 1;
        match file.as_str() {
            "-" => std::io::stdin().take(limit).read_to_end(&mut bytes).context("read standard input")?,
            path => std::fs::File::open(path)
                .and_then(|opened| opened.take(limit).read_to_end(&mut bytes))
                .map_err(|error| BadInput(format!("read {path}: {error}")))?,
        };
        let text = String::from_utf8(bytes).map_err(|_| BadInput(format!("{file}: not UTF-8 text")))?;
        Ok(ManifestFile { file: file.clone(), text })
    };
    files.iter().map(read).collect()
}

/// `get -o name` prints `replica/web-0`: that is a name too.
fn replica_name(text: &str) -> &str {
    text.strip_prefix("replica/").unwrap_or(text)
}

fn service_name(text: &str) -> anyhow::Result<ServiceName> {
    let text = text.strip_prefix("service/").unwrap_or(text);
    ServiceName::new(text).map_err(|error| BadInput(error.to_string()).into())
}
