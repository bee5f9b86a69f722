//! `ring` and `explain`: of a running service, or of a manifest without a daemon.

use ringmaster_client::Client;
use ringmaster_core::ServiceName;
use ringmaster_core::api::{RingShare, RingView};
use ringmaster_core::desired::ring_members;
use ringmaster_core::ring::explain::{Explanation, SkipReason, Skipped};
use ringmaster_core::ring::{Ring, fresh};
use ringmaster_core::spec::ServiceSpec;
use serde::Serialize;

use super::{BadInput, parse, read_manifests, service_name};
use crate::cli::{Output, RingOf};
use crate::output::{left_out, out, table};

/// The seed of a ring that only a file describes: what it shows is an example of what a daemon would make.
const OFFLINE_SEED: u64 = 0;

/// From this max/mean on shares are worth a line.
const UNEVEN: f64 = 1.01;
/// Shares in one line.
const SHARES_SHOWN: usize = 10;

pub(super) async fn shares(client: &Client, of: &RingOf) -> anyhow::Result<()> {
    let name = named(of)?;
    print_shares(&client.ring(&name, of.replicas).await?, of.output)
}

pub(super) async fn explanation(client: &Client, of: &RingOf, key: &str) -> anyhow::Result<()> {
    let name = named(of)?;
    print_explanation(&name, &client.explain(&name, key, of.replicas).await?, of.output)
}

pub(super) fn offline_shares(of: &RingOf) -> anyhow::Result<()> {
    let (name, ring) = of_file(of)?;
    print_shares(&RingView::of(&name, &ring), of.output)
}

pub(super) fn offline_explanation(of: &RingOf, key: &str) -> anyhow::Result<()> {
    let (name, ring) = of_file(of)?;
    print_explanation(&name, &Explanation::of(&ring, key.as_bytes(), |_| None), of.output)
}

fn named(of: &RingOf) -> anyhow::Result<ServiceName> {
    service_name(of.service.as_deref().unwrap_or_default())
}

/// The ring that a manifest's service would have if it were new.
fn of_file(of: &RingOf) -> anyhow::Result<(ServiceName, Ring)> {
    let files = read_manifests(of.file.as_slice())?;
    let mut services = parse(&files)?.services;
    let name = match (&of.service, services.len()) {
        (Some(service), _) => service_name(service)?,
        (None, 1) => services.keys().next().cloned().expect("there is one"),
        (None, _) => {
            let names: Vec<String> = services.keys().map(ToString::to_string).collect();
            return Err(BadInput(format!("name one of the services: {}", names.join(", "))).into());
        }
    };
    let Some(service) = services.remove(&name) else {
        return Err(BadInput(format!("the file has no service `{name}`")).into());
    };
    let count = of.replicas.or(service.spec.replicas).unwrap_or(1) as usize;
    let refused = |error: &dyn std::fmt::Display| BadInput(format!("service {name}: {error}"));
    let members = ringmaster_core::members::resize(&[], count).map_err(|error| refused(&error))?;
    let balancing = &service.spec.balancing;
    let ring = fresh(balancing, OFFLINE_SEED, &ring_members(&name, balancing, &members));
    Ok((name.clone(), ring.map_err(|error| refused(&error))?))
}

/// The shares to expect of a new service, where they are uneven: unequal weights, or formulas that spread badly.
pub(super) fn uneven_shares(name: &ServiceName, spec: &ServiceSpec) -> Option<String> {
    let members = ringmaster_core::members::resize(&[], spec.replicas? as usize).ok()?;
    let balancing = &spec.balancing;
    let ring = fresh(balancing, OFFLINE_SEED, &ring_members(name, balancing, &members)).ok()?;
    let view = RingView::of(name, &ring);
    if view.max_over_mean < UNEVEN {
        return None;
    }
    let share = |replica: &RingShare| format!("{} {:.2} %", replica.name, 100.0 * replica.share);
    let mut shares: Vec<String> = view.replicas.iter().take(SHARES_SHOWN).map(share).collect();
    shares.extend((view.replicas.len() > SHARES_SHOWN).then(|| "…".to_owned()));
    Some(format!("expected shares {}, max/mean {:.4}", shares.join(", "), view.max_over_mean))
}

fn print_shares(view: &RingView, output: Output) -> anyhow::Result<()> {
    if print_as_data(view, output)? {
        return Ok(());
    }
    out(&format!("policy {}: {}", view.policy, view.description))?;
    let mean = 1.0 / view.replicas.len().max(1) as f64;
    let row = |replica: &RingShare| {
        let share = format!("{:.4} %", 100.0 * replica.share);
        vec![replica.name.clone(), replica.slots.to_string(), share, format!("{:.4}", replica.share / mean)]
    };
    out(&table(&["REPLICA", "SLOTS", "SHARE", "BY MEAN"], view.replicas.iter().map(row).collect()))?;
    if let Some(moved) = view.keys_moved {
        let about = if view.keys_moved_exact == Some(true) { "" } else { "about " };
        out(&format!("{about}{:.1} % of the keys would move", 100.0 * moved))?;
    }
    Ok(out(&format!(
        "max/mean {:.4}, min/mean {:.4}, standard deviation {:.4} %",
        view.max_over_mean,
        view.min_over_mean,
        100.0 * view.stddev
    ))?)
}

fn print_explanation(service: &ServiceName, explanation: &Explanation, output: Output) -> anyhow::Result<()> {
    if print_as_data(explanation, output)? {
        return Ok(());
    }
    let text = |value: &Option<String>| {
        value.clone().unwrap_or_else(|| "none: this policy does not hash".to_owned())
    };
    let replica = |ordinal| format!("{service}-{ordinal}");
    out(&format!("key         {}", explanation.key))?;
    out(&format!("hash        {}", text(&explanation.hash)))?;
    if let Some(slot) = explanation.slot {
        out(&format!("slot        {slot}"))?;
    }
    if let Some(owner) = explanation.owner {
        out(&format!("owner       {}", replica(owner)))?;
    }
    for skipped in &explanation.skipped {
        out(&format!("passed over {}: {}", replica(skipped.ordinal), why(explanation, skipped)))?;
    }
    if let Some(serves) = explanation.serves() {
        out(&format!("goes to     {}", replica(serves)))?;
    }
    for (ordinal, circuit) in explanation.circuits.iter().filter(|(_, circuit)| circuit.on_probation) {
        let told = left_out(*circuit, explanation.at.unwrap_or_default());
        out(&format!("but         {} is {told}: single requests go there", replica(*ordinal)))?;
    }
    let next: Vec<String> = explanation.candidates.iter().skip(1).map(|ordinal| replica(*ordinal)).collect();
    Ok(out(&format!("then        {}", if next.is_empty() { "nobody".to_owned() } else { next.join(", ") }))?)
}

/// Why a member is passed over; since when and for what, if it is ejected.
fn why(explanation: &Explanation, skipped: &Skipped) -> String {
    let circuit = explanation.circuits.get(&skipped.ordinal).filter(|circuit| !circuit.on_probation);
    match (skipped.reason, circuit, explanation.at) {
        (SkipReason::Ejected, Some(circuit), Some(at)) => left_out(*circuit, at),
        (reason, ..) => reason.to_string(),
    }
}

/// Prints for scripts where that was asked for; returns whether it was.
fn print_as_data(value: &impl Serialize, output: Output) -> anyhow::Result<bool> {
    match output {
        Output::Json => out(&serde_json::to_string_pretty(value)?)?,
        Output::Yaml => out(serde_saphyr::to_string(value)?.trim_end())?,
        Output::Table | Output::Wide | Output::Name => return Ok(false),
    }
    Ok(true)
}
