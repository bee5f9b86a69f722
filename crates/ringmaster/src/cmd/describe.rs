//! `describe`: one service in full.

use ringmaster_client::Client;
use ringmaster_core::ServiceName;
use ringmaster_core::event::Event;

use super::events::event_table;
use super::get::replica_table;
use crate::output::{age, out, table};

/// How many of the newest events are shown.
const EVENTS_SHOWN: usize = 20;

pub(super) async fn run(client: &Client, name: &ServiceName) -> anyhow::Result<()> {
    let service = client.service(name).await?;
    let list = client.events(0).await?;
    let spec = &service.spec;
    let balancing = &spec.balancing;
    let keys = balancing.hash_on.under(balancing.policy);
    let hash_on =
        (balancing.policy.hashes() && !keys.is_empty()).then(|| serde_json::to_string(keys)).transpose()?;
    out(&format!("Name:         {name}"))?;
    out(&format!("Generation:   {}", service.generation))?;
    out(&format!("Runs:         {}", spec.template.runs()))?;
    out(&format!("Route:        {}{}", spec.route.hosts.join(","), spec.route.path_prefix))?;
    out(&format!(
        "Hash on:      {}",
        hash_on.unwrap_or_else(|| "nothing: the less loaded of two replicas".to_owned())
    ))?;
    out(&format!(
        "Drain:        {} before a stop, then {}",
        spec.strategy.drain, spec.strategy.termination_grace
    ))?;
    let Some(status) = &service.status else {
        return Ok(out("Status:       not seen by the controller yet")?);
    };
    out(&format!(
        "Replicas:     {} desired, {} ready, {} updated",
        status.replicas, status.ready, status.updated
    ))?;
    out(&format!("Revision:     {}", status.revision.as_deref().unwrap_or("unknown")))?;
    let rows = status.conditions.iter().map(|condition| {
        vec![
            format!("  {:?}", condition.kind),
            if condition.status { "True" } else { "False" }.to_owned(),
            age(condition.since, list.now),
            condition.reason.to_string(),
            condition.message.clone(),
        ]
    });
    out("\nConditions:")?;
    out(&table(&["  TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"], rows.collect()))?;
    out("\nReplicas:")?;
    out(&replica_table(&status.members, list.now, true))?;
    let own = |event: &&Event| event.service.as_ref() == Some(name) || event.service.is_none();
    let events: Vec<Event> = list.events.iter().filter(own).cloned().collect();
    out("\nEvents:")?;
    Ok(out(&event_table(&events[events.len().saturating_sub(EVENTS_SHOWN)..], list.now))?)
}
