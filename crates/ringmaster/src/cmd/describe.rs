//! `describe`: one service in full.

use ringmaster_client::Client;
use ringmaster_core::autoscale::AutoscaleStatus;
use ringmaster_core::event::Event;
use ringmaster_core::spec::Autoscale;
use ringmaster_core::status::ReplicaStatus;
use ringmaster_core::{ServiceName, Timestamp};

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
    if let (Some(spec), Some(scale)) = (&spec.autoscale, &status.autoscale) {
        autoscale(spec, scale)?;
    }
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
    let failures: Vec<String> =
        status.members.iter().flat_map(|member| failure_lines(member, list.now)).collect();
    if !failures.is_empty() {
        out("\nFailures:")?;
        out(&failures.join("\n"))?;
    }
    let own = |event: &&Event| event.service.as_ref() == Some(name) || event.service.is_none();
    let events: Vec<Event> = list.events.iter().filter(own).cloned().collect();
    out("\nEvents:")?;
    Ok(out(&event_table(&events[events.len().saturating_sub(EVENTS_SHOWN)..], list.now))?)
}

/// The bounds, what was measured, and what was decided.
fn autoscale(spec: &Autoscale, status: &AutoscaleStatus) -> anyhow::Result<()> {
    let zero = if spec.scale_to_zero { ", and none when idle" } else { "" };
    out(&format!("Autoscale:    {} to {} replicas{zero}", spec.min_replicas, spec.max_replicas))?;
    for metric in &status.metrics {
        let label = metric.metric.label();
        out(&format!("  {label}: {} per replica on average, target {}", metric.mean, metric.target))?;
    }
    out(&format!("  wanted: {} ({}: {})", status.wanted, status.reason, status.message))?;
    if let Some(hot) = &status.hot_key {
        out(&format!("  hot key: {hot}"))?;
    }
    Ok(())
}

/// How a member's place failed last, with what the failed replica wrote.
fn failure_lines(member: &ReplicaStatus, now: Timestamp) -> Vec<String> {
    let Some(failure) = &member.failure else { return Vec::new() };
    let times = if failure.in_a_row == 1 {
        "once".to_owned()
    } else {
        format!("{} times in a row", failure.in_a_row)
    };
    let code = failure.exit_code.filter(|code| !failure.why.contains(&format!("exit code {code}")));
    let code = code.map_or(String::new(), |code| format!(", exit code {code}"));
    let next = member.retry_at.map_or(String::new(), |at| format!("; next attempt in {}", age(now, at)));
    let head = format!(
        "  {} failed {times}, {} ago: {}{code}{next}",
        member.name,
        age(failure.at, now),
        failure.why
    );
    std::iter::once(head).chain(failure.output.lines().map(|line| format!("    | {line}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_with_its_code_its_next_attempt_and_its_last_lines() {
        let member = serde_json::json!({
            "name": "web-0", "engineName": null, "ordinal": 0, "displayName": "web-0", "phase": "CrashLoopBackOff",
            "message": "", "revision": null, "updated": false, "address": null, "id": null, "createdAt": null,
            "restarts": 3, "inFlight": 0, "requests": 0, "ejected": false, "retryAt": 14_000,
            "failure": { "inARow": 3, "at": 9_000, "why": "exit code 2", "exitCode": 2, "output": "one\ntwo" },
        });
        let mut member: ReplicaStatus = serde_json::from_value(member).unwrap();
        let shown = |member: &ReplicaStatus| failure_lines(member, Timestamp(10_000)).join("\n");
        assert_eq!(
            shown(&member),
            "  web-0 failed 3 times in a row, 1s ago: exit code 2; next attempt in 4s\n    | one\n    | two"
        );
        member.retry_at = None;
        let failure = member.failure.as_mut().unwrap();
        (failure.in_a_row, failure.why, failure.output) = (1, "liveness probe failed".to_owned(), "".into());
        assert_eq!(shown(&member), "  web-0 failed once, 1s ago: liveness probe failed, exit code 2");
        member.failure = None;
        assert_eq!(shown(&member), "");
    }
}
