//! `apply`: the desired state becomes what manifests say.

use ringmaster_client::Client;
use ringmaster_core::ServiceName;
use ringmaster_core::api::{ApplyRequest, Change};

use super::{parse, read_manifests, wait};
use crate::cli::Apply;
use crate::output::out;

pub(super) async fn run(client: &Client, options: &Apply) -> anyhow::Result<()> {
    let files = read_manifests(&options.files)?;
    parse(&files)?;
    let request = ApplyRequest {
        files,
        prune: options.prune,
        dry_run: false,
        max_move: options.max_move,
        force: options.force,
    };
    let response = client.apply(&request).await?;
    for service in &response.services {
        let what = match service.change {
            Change::Created => "created",
            Change::Configured => "configured",
            Change::Unchanged => "unchanged",
            Change::Deleted => "deleted",
        };
        out(&format!("service/{} {what}", service.name))?;
    }
    if response.gateway.is_some() {
        out("gateway configured")?;
    }
    if options.wait.no_wait {
        return Ok(());
    }
    let named = |deleted: bool| -> Vec<ServiceName> {
        let of_kind = response.services.iter().filter(|s| (s.change == Change::Deleted) == deleted);
        of_kind.map(|service| service.name.clone()).collect()
    };
    wait::until_converged(client, &named(false), response.generation, options.wait.timeout).await?;
    wait::until_gone(client, &named(true), options.wait.timeout).await?;
    for service in client.overview().await?.services {
        if let (Some(status), true) = (&service.status, named(false).contains(&service.name)) {
            out(&format!("service/{} {} of {} replicas ready", service.name, status.ready, status.replicas))?;
            if let Some(told) = wait::held(&service) {
                out(&format!("service/{told}"))?;
            }
        }
    }
    Ok(())
}
