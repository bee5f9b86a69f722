//! `rollout`: how far it is, what people decide about it, the templates that a service has had, and back to one of them.

use ringmaster_client::Client;
use ringmaster_core::api::{RevisionList, RolloutAction};
use ringmaster_core::{Generation, ServiceName};

use super::{service_name, wait};
use crate::cli::{Output, Rollout, RolloutOf, Undo};
use crate::output::{age, out, table};

pub(super) async fn run(client: &Client, what: Rollout) -> anyhow::Result<()> {
    match what {
        Rollout::History { service, output } => {
            print(&client.revisions(&service_name(&service)?).await?, output)
        }
        Rollout::Undo(options) => undo(client, &options).await,
        Rollout::Status(options) => status(client, &options).await,
        Rollout::Pause { service } => {
            let name = service_name(&service)?;
            client.rollout(&name, RolloutAction::Pause).await?;
            Ok(out(&format!("service/{name} paused"))?)
        }
        Rollout::Resume(options) => decide(client, &options, RolloutAction::Resume, "resumed").await,
        Rollout::Promote(options) => decide(client, &options, RolloutAction::Promote, "promoted").await,
        Rollout::Restart(options) => decide(client, &options, RolloutAction::Restart, "restarted").await,
    }
}

async fn decide(
    client: &Client,
    options: &RolloutOf,
    action: RolloutAction,
    done: &str,
) -> anyhow::Result<()> {
    let name = service_name(&options.service)?;
    let generation = client.rollout(&name, action).await?.generation;
    if !options.wait.no_wait {
        wait::until_converged(client, std::slice::from_ref(&name), generation, options.wait.timeout).await?;
    }
    out(&format!("service/{name} {done}"))?;
    tell_held(client, &name).await
}

async fn tell_held(client: &Client, name: &ServiceName) -> anyhow::Result<()> {
    match wait::held(&client.service(name).await?) {
        Some(told) => Ok(out(&format!("service/{told}"))?),
        None => Ok(()),
    }
}

async fn status(client: &Client, options: &RolloutOf) -> anyhow::Result<()> {
    let name = service_name(&options.service)?;
    if !options.wait.no_wait {
        wait::until_rolled_out(client, &name, options.wait.timeout).await?;
    }
    let service = client.service(&name).await?;
    let Some(status) = &service.status else {
        anyhow::bail!("service/{name}: the controller has not looked at it yet: try again");
    };
    let rollout = &status.rollout;
    if let Some(failed) = &rollout.failed {
        anyhow::bail!("{}", wait::rolled_back(&name, failed));
    }
    let stage = rollout.stage.as_str();
    let counts =
        format!("{} of {} updated, {} available", rollout.updated, status.replicas, rollout.available);
    out(&format!("service/{name} {stage}: {counts}, revision {}", rollout.since))?;
    tell_held(client, &name).await
}

async fn undo(client: &Client, options: &Undo) -> anyhow::Result<()> {
    let name = service_name(&options.service)?;
    let done = client.rollback(&name, options.to_revision.map(Generation)).await?;
    if !options.wait.no_wait {
        wait::until_converged(client, std::slice::from_ref(&name), done.generation, options.wait.timeout)
            .await?;
    }
    Ok(out(&format!("service/{name} back to revision {} ({})", done.revision, done.runs))?)
}

fn print(list: &RevisionList, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => return Ok(out(&serde_json::to_string_pretty(list)?)?),
        Output::Yaml => return Ok(out(serde_saphyr::to_string(list)?.trim_end())?),
        Output::Name => {
            let names: Vec<String> = list.revisions.iter().map(|r| r.revision.to_string()).collect();
            return Ok(out(&names.join("\n"))?);
        }
        Output::Table | Output::Wide => {}
    }
    let rows = list.revisions.iter().map(|revision| {
        let note = match revision.revision {
            _ if revision.current => "current",
            number if Some(number) == list.previous => "undo goes here",
            _ if revision.ready == Some(false) => "never ready",
            _ => "",
        };
        vec![
            revision.revision.to_string(),
            revision.at.map_or_else(|| "-".to_owned(), |at| age(at, list.now)),
            revision.runs.clone(),
            note.to_owned(),
        ]
    });
    out(&table(&["REVISION", "AGE", "RUNS", ""], rows.collect()))?;
    for lost in &list.lost {
        out(&format!("warning: {lost}: what it held is not listed"))?;
    }
    Ok(())
}
