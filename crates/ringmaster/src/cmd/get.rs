//! `get services` and `get replicas`.

use futures_util::StreamExt;
use ringmaster_client::Client;
use ringmaster_core::Timestamp;
use ringmaster_core::api::{Overview, ServiceView};
use ringmaster_core::status::{ConditionKind, Phase, ReplicaStatus};

use super::diff::service_yaml;
use crate::cli::{Get, Listed, Output};
use crate::output::{age, left_out, millis, out, table};

pub(super) async fn run(client: &Client, options: &Get) -> anyhow::Result<()> {
    let mut shown = print(&client.overview().await?, options, None)?;
    if !options.watch {
        return Ok(());
    }
    let mut changes = client.changes().await?.boxed();
    while changes.next().await.is_some() {
        shown = print(&client.overview().await?, options, Some(shown))?;
    }
    Err(client.gone().into())
}

/// Prints what there is, unless it is what was shown before; returns what counts as shown.
fn print(overview: &Overview, options: &Get, before: Option<String>) -> anyhow::Result<String> {
    let only = options.name.as_deref().map(|only| only.rsplit_once('/').map_or(only, |(_, name)| name));
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    let services: Vec<&ServiceView> = overview.services.iter().collect();
    let (text, fingerprint, found) = match options.what {
        Listed::Services => {
            let list: Vec<&ServiceView> = services.into_iter().filter(|s| wanted(s.name.as_str())).collect();
            (service_text(&list, options.output)?, service_rows(&list, false), list.len())
        }
        Listed::Replicas => {
            let all = services.iter().flat_map(|s| s.status.iter().flat_map(|status| status.members.iter()));
            let of_service = |m: &ReplicaStatus| m.name.rsplit_once('-').map_or("", |(s, _)| s).to_owned();
            let list: Vec<ReplicaStatus> =
                all.filter(|m| wanted(&m.name) || wanted(&of_service(m))).cloned().collect();
            let states =
                list.iter().map(|m| vec![m.name.clone(), format!("{:?}", m.phase), m.message.clone()]);
            (replica_text(&list, overview.now, options.output)?, states.collect(), list.len())
        }
    };
    if let (Some(name), 0) = (&options.name, found) {
        let what = if options.what == Listed::Services { "service" } else { "replica or service" };
        anyhow::bail!("there is no {what} `{name}`: `ringmaster get services` lists those there are");
    }
    // Ages alone are no news.
    let fingerprint = format!("{fingerprint:?}");
    if before.as_ref() != Some(&fingerprint) {
        out(text.trim_end())?;
    }
    Ok(fingerprint)
}

fn service_text(list: &[&ServiceView], output: Output) -> anyhow::Result<String> {
    Ok(match output {
        Output::Table | Output::Wide => {
            let wide = output == Output::Wide;
            let mut header = vec!["NAME", "READY", "UPDATED", "STATUS", "REVISION"];
            if wide {
                header.extend(["ROUTE", "RUNS"]);
            }
            table(&header, service_rows(list, wide))
        }
        Output::Json => serde_json::to_string_pretty(list)?,
        Output::Yaml => {
            let documents = list.iter().map(|service| service_yaml(&service.name, &service.spec));
            documents.collect::<anyhow::Result<Vec<_>>>()?.join("---\n")
        }
        Output::Name => list.iter().map(|s| format!("service/{}", s.name)).collect::<Vec<_>>().join("\n"),
    })
}

fn service_rows(list: &[&ServiceView], wide: bool) -> Vec<Vec<String>> {
    let row = |service: &&ServiceView| {
        let (ready, updated, revision) = service.status.as_ref().map_or_else(
            || ("?".to_owned(), "?".to_owned(), "?".to_owned()),
            |s| {
                let revision = s.revision.clone().unwrap_or_else(|| "unknown".to_owned());
                (format!("{}/{}", s.ready, s.replicas), s.updated.to_string(), revision)
            },
        );
        let mut cells = vec![service.name.to_string(), ready, updated, service_state(service), revision];
        if wide {
            cells.push(format!("{}{}", service.spec.route.hosts.join(","), service.spec.route.path_prefix));
            cells.push(service.spec.template.runs());
        }
        cells
    };
    list.iter().map(row).collect()
}

/// The service's state in one word: its trouble, if any, before its progress.
fn service_state(service: &ServiceView) -> String {
    let Some(status) = &service.status else { return "Unknown".to_owned() };
    if service.deleting {
        return "Deleting".to_owned();
    }
    match status.condition(ConditionKind::Degraded).filter(|condition| condition.status) {
        Some(degraded) => degraded.reason.to_string(),
        None if status.is_converged() => "Ready".to_owned(),
        None => "Progressing".to_owned(),
    }
}

fn replica_text(list: &[ReplicaStatus], now: Timestamp, output: Output) -> anyhow::Result<String> {
    Ok(match output {
        Output::Table | Output::Wide => replica_table(list, now, output == Output::Wide),
        Output::Json => serde_json::to_string_pretty(list)?,
        Output::Yaml => serde_saphyr::to_string(&list)?,
        Output::Name => {
            // A name is a place: the ended replica that is kept for its output has the same one.
            let places = list.iter().filter(|m| m.phase != Phase::Exited);
            places.map(|m| format!("replica/{}", m.name)).collect::<Vec<_>>().join("\n")
        }
    })
}

/// Replicas as a table.
pub(super) fn replica_table(list: &[ReplicaStatus], now: Timestamp, wide: bool) -> String {
    let mut header = vec!["NAME", "STATUS", "ADDRESS", "IN FLIGHT", "REQUESTS", "RESTARTS", "AGE"];
    if wide {
        header.extend(["LATENCY", "REVISION", "ENGINE NAME", "MESSAGE"]);
    }
    let rows = list.iter().map(|member| {
        let mut state = phase(member.phase).to_owned();
        if member.ejected {
            state += " (ejected)";
        } else if member.circuit.is_some() {
            state += " (on probation)";
        } else if member.phase == Phase::Ready && !member.updated {
            state += " (old)";
        }
        let dash = || "-".to_owned();
        let mut cells = vec![
            member.name.clone(),
            state,
            member.address.clone().unwrap_or_else(dash),
            member.in_flight.to_string(),
            member.requests.to_string(),
            member.restarts.to_string(),
            member.created_at.map_or_else(dash, |at| age(at, now)),
        ];
        if wide {
            cells.push(member.latency.map_or_else(dash, |latency| millis(latency.mean_us as f64 / 1e3)));
            cells.push(member.revision.clone().unwrap_or_else(dash));
            cells.push(member.engine_name.clone().unwrap_or_else(dash));
            // The message says why it is out; when is told here, because it changes with every look.
            let circuit = member.circuit.filter(|_| member.phase == Phase::Ready);
            cells.push(circuit.map_or_else(|| message(member, now), |circuit| left_out(circuit, now)));
        }
        cells
    });
    table(&header, rows.collect())
}

/// Why it is as it is, and how long that takes at most: the time is told here, because it changes with every look.
fn message(member: &ReplicaStatus, now: Timestamp) -> String {
    let text = &member.message;
    match (member.drain_until, member.retry_at) {
        (Some(until), _) => format!("{text}, {} left", age(now, until)),
        (None, Some(at)) => format!("{text}; next attempt in {}", age(now, at)),
        (None, None) => text.clone(),
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "Pending",
        Phase::Starting => "Starting",
        Phase::Ready => "Ready",
        Phase::NotReady => "NotReady",
        Phase::Paused => "Paused",
        Phase::Draining => "Draining",
        Phase::Terminating => "Terminating",
        Phase::Exited => "Exited",
        Phase::CrashLoopBackOff => "CrashLoopBackOff",
    }
}
