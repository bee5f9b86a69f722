//! `events`: the timeline.

use futures_util::StreamExt;
use ringmaster_client::Client;
use ringmaster_core::Timestamp;
use ringmaster_core::event::{Event, Severity};

use crate::cli::Output;
use crate::output::{age, out, table};

pub(super) async fn run(client: &Client, watch: bool, output: Output) -> anyhow::Result<()> {
    let mut list = client.events(0).await?;
    print(&list.events, list.now, output)?;
    if !watch {
        return Ok(());
    }
    let mut changes = client.changes().await?.boxed();
    let mut seen = list.events.last().map_or(0, |event| event.sequence);
    while changes.next().await.is_some() {
        list = client.events(seen).await?;
        for event in &list.events {
            seen = seen.max(event.sequence);
            match output {
                Output::Json => out(&serde_json::to_string(event)?)?,
                _ => out(&line(event))?,
            }
        }
    }
    Err(client.gone().into())
}

fn print(events: &[Event], now: Timestamp, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => out(&serde_json::to_string_pretty(events)?)?,
        Output::Yaml => out(serde_saphyr::to_string(&events)?.trim_end())?,
        Output::Name => {
            out(&events.iter().map(|event| event.reason.to_string()).collect::<Vec<_>>().join("\n"))?
        }
        Output::Table | Output::Wide => out(&event_table(events, now))?,
    }
    Ok(())
}

/// Events as a table.
pub(super) fn event_table(events: &[Event], now: Timestamp) -> String {
    let rows = events.iter().map(|event| {
        let count = if event.count > 1 { format!(" (x{})", event.count) } else { String::new() };
        vec![
            format!("{}{count}", age(event.at, now)),
            severity(event).to_owned(),
            event.reason.to_string(),
            event.object.clone(),
            event.message.replace('\n', " "),
        ]
    });
    table(&["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"], rows.collect())
}

fn line(event: &Event) -> String {
    let at = crate::output::rfc3339(event.at);
    format!("{at}  {:<8} {:<16} {:<10} {}", severity(event), event.reason, event.object, event.message)
}

fn severity(event: &Event) -> &'static str {
    match event.severity {
        Severity::Normal => "Normal",
        Severity::Warning => "Warning",
    }
}
