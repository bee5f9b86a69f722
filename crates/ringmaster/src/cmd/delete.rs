//! `delete`: services and their replicas go.

use ringmaster_client::Client;
use ringmaster_core::ServiceName;

use super::{service_name, wait};
use crate::cli::Delete;
use crate::output::out;

pub(super) async fn run(client: &Client, options: &Delete) -> anyhow::Result<()> {
    let services: Vec<ServiceName> = match options.all {
        true => client.overview().await?.services.into_iter().map(|service| service.name).collect(),
        false => options.services.iter().map(|name| service_name(name)).collect::<anyhow::Result<_>>()?,
    };
    for name in &services {
        client.delete(name).await?;
    }
    if !options.no_wait {
        wait::until_gone(client, &services, options.timeout).await?;
    }
    for name in &services {
        out(&format!("service/{name} deleted"))?;
    }
    Ok(())
}
