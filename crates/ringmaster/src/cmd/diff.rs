//! `diff`: what `apply` would change, and what that would do.

use std::process::ExitCode;

use ringmaster_client::Client;
use ringmaster_core::api::{ApplyRequest, Change, ServiceChange};
use ringmaster_core::manifest::{GatewayDocument, ServiceDocument};
use ringmaster_core::spec::ServiceSpec;
use ringmaster_core::{ServiceName, spec::GatewaySpec};
use similar::TextDiff;

use super::{parse, read_manifests};
use crate::cli::Diff;
use crate::output::{colours, out};

/// Fewer requests say nothing about the traffic.
const REQUESTS_MIN: u64 = 20;

pub(super) async fn run(client: &Client, options: &Diff) -> anyhow::Result<ExitCode> {
    let files = read_manifests(&options.files)?;
    parse(&files)?;
    // What is under way forbids an apply, and does not keep anybody from looking.
    let request =
        ApplyRequest { files, prune: options.prune, dry_run: true, force: true, ..ApplyRequest::default() };
    let response = client.apply(&request).await?;
    for service in response.services.iter().filter(|service| service.change != Change::Unchanged) {
        let yaml = |spec: &Option<ServiceSpec>| {
            spec.as_ref().map_or(Ok(String::new()), |s| service_yaml(&service.name, s))
        };
        show(&format!("service/{}", service.name), &yaml(&service.before)?, &yaml(&service.after)?)?;
        for consequence in consequences(service) {
            out(&format!("# {}: {consequence}", service.name))?;
        }
    }
    if let Some(gateway) = &response.gateway {
        show("gateway", &gateway_yaml(&gateway.before)?, &gateway_yaml(&gateway.after)?)?;
    }
    Ok(ExitCode::from(u8::from(response.changes())))
}

fn consequences(service: &ServiceChange) -> Vec<String> {
    let count = |spec: &Option<ServiceSpec>| spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    let (before, after) = (count(&service.before), count(&service.after));
    let mut lines = Vec::new();
    match service.change {
        Change::Created => lines.push(format!("{} created", replicas(after))),
        Change::Deleted => lines.push(format!("{} drained and removed", replicas(before))),
        _ if before < after => lines.push(format!("{} added", replicas(after - before))),
        _ if before > after => lines.push(format!("{} drained and removed", replicas(before - after))),
        _ => {}
    }
    if service.rollout {
        let kept = replicas(before.min(after));
        lines.push(format!("the template changes: {kept} replaced, one at a time"));
    }
    if service.change == Change::Configured {
        let about = if service.keys_moved_exact { "" } else { "about " };
        let (before, after) = service.max_over_mean;
        lines.push(format!(
            "{about}{:.1} % of the keys move, max/mean {before:.4} → {after:.4}",
            100.0 * service.keys_moved
        ));
        if let Some(traffic) = service.traffic.filter(|traffic| traffic.requests >= REQUESTS_MIN) {
            lines.push(format!(
                "of the {} requests of the last {} minutes about {:.1} % would go elsewhere",
                traffic.requests,
                ringmaster_core::traffic::MINUTES,
                100.0 * traffic.share
            ));
        }
    }
    lines
}

fn replicas(count: u32) -> String {
    if count == 1 { "1 replica is".to_owned() } else { format!("{count} replicas are") }
}

fn show(name: &str, before: &str, after: &str) -> anyhow::Result<()> {
    let diff = TextDiff::from_lines(before, after);
    let text = diff
        .unified_diff()
        .context_radius(3)
        .header(&format!("live {name}"), &format!("file {name}"))
        .to_string();
    let coloured = text.lines().map(|line| match (colours(), line.as_bytes().first()) {
        (true, Some(b'+')) => format!("\x1b[32m{line}\x1b[0m"),
        (true, Some(b'-')) => format!("\x1b[31m{line}\x1b[0m"),
        _ => line.to_owned(),
    });
    Ok(out(&coloured.collect::<Vec<_>>().join("\n"))?)
}

/// A live spec as the manifest that would make it.
pub(super) fn service_yaml(name: &ServiceName, spec: &ServiceSpec) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string(&ServiceDocument::new(name.clone(), spec.clone()))?)
}

fn gateway_yaml(spec: &GatewaySpec) -> anyhow::Result<String> {
    let name = ServiceName::new("default")?;
    Ok(serde_saphyr::to_string(&GatewayDocument::new(name, spec.clone()))?)
}
