//! Which runtime runs the replicas: asked for, remembered, or found out.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use ringmaster_controller::state::StateDir;
use ringmaster_docker::{DockerConfig, DockerRuntime};
use ringmaster_process::{ProcessConfig, ProcessRuntime};
use ringmaster_runtime::Runtime;

use crate::cli::{RuntimeChoice, Serve};

/// Chooses and starts a runtime. `auto` takes what an earlier start took; the first time Docker if there is an
/// engine's socket, else processes. A socket that refuses is an error, not a reason to do something else.
pub(super) async fn choose(options: &Serve, state: &StateDir) -> anyhow::Result<Arc<dyn Runtime>> {
    let socket = &options.docker_socket;
    let remembered = state.remembered_runtime();
    let kind = match (options.runtime, remembered.as_deref()) {
        (RuntimeChoice::Docker, _) => "docker",
        (RuntimeChoice::Process, _) => "process",
        (RuntimeChoice::Auto, Some("docker")) if !exists(socket) => bail!(
            "replicas of this state folder run on docker, and there is no engine at {}: start the engine, or move \
             to processes for good with --runtime process",
            socket.display()
        ),
        (RuntimeChoice::Auto, Some("docker")) => "docker",
        (RuntimeChoice::Auto, Some("process")) => "process",
        (RuntimeChoice::Auto, _) if exists(socket) => "docker",
        (RuntimeChoice::Auto, _) => {
            tracing::info!("no engine at {}: replicas run as processes", socket.display());
            "process"
        }
    };
    let runtime: Arc<dyn Runtime> = match kind {
        "docker" => {
            let mut config = DockerConfig::new(&options.instance);
            config.socket.clone_from(socket);
            config.network.clone_from(&options.network);
            Arc::new(DockerRuntime::connect(config).await?)
        }
        _ => {
            let dir = state.folder("process")?;
            let daemon = std::env::current_exe()?;
            let config = ProcessConfig { dir, daemon, instance: options.instance.clone() };
            Arc::new(ProcessRuntime::open(config).await?)
        }
    };
    state.remember_runtime(kind)?;
    Ok(runtime)
}

/// A socket that cannot even be looked at is there: the attempt to use it says what is wrong.
fn exists(socket: &Path) -> bool {
    !matches!(std::fs::symlink_metadata(socket), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}
