//! `delete`: services and their replicas go.

use ringmaster_client::{Client, ClientError};
use ringmaster_core::ServiceName;

use super::{service_name, wait};
use crate::cli::Delete;
use crate::output::out;

pub(super) async fn run(client: &Client, options: &Delete) -> anyhow::Result<()> {
    let services: Vec<ServiceName> = match options.all {
        true => client.overview().await?.services.into_iter().map(|service| service.name).collect(),
        false => options.services.iter().map(|name| service_name(name)).collect::<anyhow::Result<_>>()?,
    };
    // One that is not there does not keep the others.
    let (mut deleted, mut refused) = (Vec::new(), Vec::new());
    for name in services {
        let done = match options.force {
            true => client.delete_by_force(&name).await,
            false => client.delete(&name).await,
        };
        match done {
            Ok(_) => deleted.push(name),
            Err(ClientError::Refused(why)) => refused.push(why),
            Err(error) => return Err(error.into()),
        }
    }
    if !options.wait.no_wait {
        wait::until_gone(client, &deleted, options.wait.timeout).await?;
    }
    for name in &deleted {
        let how = if options.force { " without waiting for the data plane" } else { "" };
        out(&format!("service/{name} deleted{how}"))?;
    }
    anyhow::ensure!(refused.is_empty(), "{}", refused.join("; "));
    Ok(())
}
