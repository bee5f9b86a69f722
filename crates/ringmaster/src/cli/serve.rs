//! The options of `serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ringmaster_link::Address;

use super::LogFormat;

/// Which runtime runs the replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuntimeChoice {
    /// Docker where there is an engine socket, else processes.
    Auto,
    /// Containers on a Docker engine.
    Docker,
    /// Child processes on this machine.
    Process,
}

/// Where the data plane runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DataPlaneMode {
    /// In the daemon's own process.
    InProcess,
    /// In a process of its own, which serves on when the daemon is killed, and is found again by the next one.
    Child,
    /// Elsewhere: `ringmaster proxy --controller` follows this daemon.
    None,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  ringmaster serve --manifest manifests/replicas.yaml --watch\n  \
                        ringmaster serve --runtime process --listen 127.0.0.1:8080 --admin 127.0.0.1:8081 --state-dir ./state")]
pub(crate) struct Serve {
    /// What runs the replicas.
    #[arg(long, env = "RINGMASTER_RUNTIME", value_enum, default_value_t = RuntimeChoice::Auto)]
    pub(crate) runtime: RuntimeChoice,
    /// A manifest to apply at the first start. Later starts apply it only if its text has changed, even if what it
    /// names was scaled or deleted meanwhile.
    #[arg(long, env = "RINGMASTER_MANIFEST", value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// Apply the manifest whenever it is edited.
    #[arg(long, env = "RINGMASTER_WATCH", requires = "manifest")]
    pub(crate) watch: bool,
    /// Where the data plane listens unless a Gateway names ports.
    #[arg(long, env = "RINGMASTER_LISTEN", default_value = "0.0.0.0:5000", value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    /// Where the data plane runs.
    #[arg(long, env = "RINGMASTER_DATA_PLANE", value_enum, default_value_t = DataPlaneMode::InProcess)]
    pub(crate) data_plane: DataPlaneMode,
    /// With `--data-plane none`: where data planes (`ringmaster proxy --controller`) find this controller
    /// [default: the socket data-plane/link.sock in the state folder].
    #[arg(long, env = "RINGMASTER_LINK_LISTEN", value_name = "unix:PATH|HOST:PORT")]
    pub(crate) link_listen: Option<Address>,
    /// A file with the token that data planes have to show; needed for HOST:PORT.
    #[arg(long, env = "RINGMASTER_LINK_TOKEN_FILE", value_name = "FILE")]
    pub(crate) link_token_file: Option<PathBuf>,
    /// Where metrics alone are served, without a token, for a scraper elsewhere [default: only on the admin API].
    #[arg(long, env = "RINGMASTER_METRICS_LISTEN", value_name = "ADDR")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Where the desired state is kept [default: /var/lib/ringmaster as root, else ~/.local/state/ringmaster].
    #[arg(long, env = "RINGMASTER_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// The name of this daemon: two daemons on one engine need different ones.
    #[arg(long, env = "RINGMASTER_INSTANCE", default_value = "default", value_name = "NAME")]
    pub(crate) instance: String,
    /// The engine's socket.
    #[arg(
        long,
        env = "RINGMASTER_DOCKER_SOCKET",
        default_value = "/var/run/docker.sock",
        value_name = "PATH"
    )]
    pub(crate) docker_socket: PathBuf,
    /// The network that replicas are attached to; made if it does not exist.
    #[arg(long, env = "RINGMASTER_NETWORK", default_value = "net1", value_name = "NAME")]
    pub(crate) network: String,
    /// Threads of the data plane [default: one per core].
    #[arg(long, env = "RINGMASTER_WORKERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
    /// Let `ringmaster kill` inject faults.
    #[arg(long, env = "RINGMASTER_ALLOW_FAULTS")]
    pub(crate) allow_faults: bool,
    /// A collector that takes traces by OTLP over HTTP, such as http://127.0.0.1:4318 [default: no traces].
    #[cfg(feature = "otel")]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
    /// How log lines look. What is logged: RUST_LOG at the start, `ringmaster log-level` later.
    #[arg(long, env = "RINGMASTER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub(crate) log_format: LogFormat,
}
