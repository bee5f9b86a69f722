//! `rollout`: the templates that a service has had, and back to one of them.

use ringmaster_client::Client;
use ringmaster_core::Generation;
use ringmaster_core::api::RevisionList;

use super::{service_name, wait};
use crate::cli::{Output, Rollout, Undo};
use crate::output::{age, out, table};

pub(super) async fn run(client: &Client, what: Rollout) -> anyhow::Result<()> {
    match what {
        Rollout::History { service, output } => {
            print(&client.revisions(&service_name(&service)?).await?, output)
        }
        Rollout::Undo(options) => undo(client, &options).await,
    }
}

async fn undo(client: &Client, options: &Undo) -> anyhow::Result<()> {
    let name = service_name(&options.service)?;
    let done = client.rollback(&name, options.to_revision.map(Generation)).await?;
    if !options.no_wait {
        wait::until_converged(client, std::slice::from_ref(&name), done.generation, options.timeout).await?;
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
