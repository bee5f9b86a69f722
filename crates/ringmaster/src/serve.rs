//! `serve`: the daemon's wiring. The one place that names concrete runtimes and hands one half to the other.

mod child;
pub(crate) mod data_plane;
pub(crate) mod logging;
pub(crate) mod metrics;
mod runtime;
#[cfg(feature = "otel")]
mod traces;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ringmaster_controller::admin::{self, Daemon, JoinTrace, LogControl};
use ringmaster_controller::clock::Clock;
use ringmaster_controller::state::StateDir;
use ringmaster_controller::store::Store;
use ringmaster_controller::timeline::{Timeline, keeper};
use ringmaster_controller::{Controller, DataPlaneSeam, watch_file};
use ringmaster_core::Reason;
use ringmaster_core::api::{DaemonInfo, ManifestFile};
use ringmaster_core::snapshot::{Report, Snapshot};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cli::{DataPlaneMode, Serve};
use crate::cmd::BadInput;

/// Runs the daemon until SIGINT or SIGTERM. Replicas are left running: the next start adopts them.
pub(crate) fn run(options: Serve, admin: &str, token_file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let tracing = tracing(&options, runtime.handle())?;
    let ended = runtime.block_on(daemon(options, admin, token_file, &tracing));
    tracing.end();
    ended?;
    // Whatever still runs on the engine's side goes on there; nothing here is worth waiting for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(ExitCode::SUCCESS)
}

/// Where lines and spans go.
struct Tracing {
    log: Arc<dyn LogControl>,
    join_trace: Arc<JoinTrace>,
    #[cfg(feature = "otel")]
    traces: Option<traces::Traces>,
}

impl Tracing {
    fn end(self) {
        #[cfg(feature = "otel")]
        if let Some(traces) = self.traces {
            traces.end();
        }
    }
}

#[cfg(feature = "otel")]
fn tracing(options: &Serve, runtime: &tokio::runtime::Handle) -> anyhow::Result<Tracing> {
    let start = |endpoint: &String| traces::start(endpoint, &options.instance, runtime.clone());
    let endpoint = options.otlp_endpoint.as_ref().filter(|endpoint| !endpoint.is_empty());
    let (traces, spans) = endpoint.map(start).transpose()?.unzip();
    let log = Arc::new(logging::init(options.log_format, spans));
    let join_trace: Arc<JoinTrace> =
        if traces.is_some() { Arc::new(traces::join) } else { Arc::new(|_, _| ()) };
    Ok(Tracing { log, join_trace, traces })
}

#[cfg(not(feature = "otel"))]
fn tracing(options: &Serve, _runtime: &tokio::runtime::Handle) -> anyhow::Result<Tracing> {
    let log = Arc::new(logging::init(options.log_format, None));
    Ok(Tracing { log, join_trace: Arc::new(|_, _| ()) })
}

async fn daemon(
    options: Serve,
    admin: &str,
    token_file: Option<&Path>,
    tracing: &Tracing,
) -> anyhow::Result<()> {
    let shutdown = shutdown_on_signal()?;
    let (admin_listener, token) = ports(&options, admin, token_file).await?;
    let metrics_listener = metrics_port(&options).await?;
    let counted = metrics::install()?;
    let state = StateDir::open(&options.state_dir.clone().unwrap_or_else(default_state_dir))?;
    let first_generation = state.reserve_generations()?;
    let folder = state.folder("data-plane")?;
    let runtime = runtime::choose(&options, &state).await?;
    let clock = Clock::start();
    let events = state.folder("events")?.join("log");
    let timeline = Arc::new(Timeline::after(clock, keeper::read(&events)));
    let store = Arc::new(open_store(state, &timeline)?);
    apply_at_start(&options, &store, &timeline)?;

    let (snapshots, snapshot_receiver) = watch::channel(Arc::new(Snapshot::default()));
    let (report_sender, reports) = watch::channel(Report::default());
    let settle = data_plane::settle(options.data_plane);
    let seam = DataPlaneSeam { first_generation, settle, snapshots, reports };
    let kind = runtime.kind();
    let (store_too, timeline_too) = (Arc::clone(&store), Arc::clone(&timeline));
    let controller = Controller::start(runtime, store_too, timeline_too, clock, seam, shutdown.clone());
    let setup = data_plane::Setup {
        options: &options,
        folder,
        snapshots: snapshot_receiver,
        reports: report_sender,
        assignment: controller.assignment(),
        timeline: Arc::clone(&timeline),
        shutdown: shutdown.clone(),
    };
    let data_plane = data_plane::start(setup).await?;

    let info = DaemonInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime: kind.to_owned(),
        instance: options.instance.clone(),
        listeners: Vec::new(),
        engine_error: None,
        faults_allowed: options.allow_faults,
    };
    let (listen, admin) = (options.listen, admin_listener.local_addr()?);
    tracing::info!(%listen, %admin, runtime = kind, "ringmaster {} serves", info.version);
    let about = metrics::About {
        version: env!("CARGO_PKG_VERSION"),
        runtime: kind,
        instance: options.instance.clone(),
    };
    let metrics = Arc::new(metrics::renderer(counted.clone(), about));
    let metrics_listen = metrics_listener.as_ref().map(TcpListener::local_addr).transpose()?;
    let data_plane::DataPlane { listeners, metrics: data_plane, traffic, parts: data_plane_parts } =
        data_plane;
    let (log, join_trace) = (Arc::clone(&tracing.log), Arc::clone(&tracing.join_trace));
    let daemon =
        Daemon { info, token, listeners, metrics, metrics_listen, data_plane, traffic, log, join_trace };
    let admin_state = controller.admin_state(daemon);
    let mut parts: Vec<BoxFuture<'_, anyhow::Result<()>>> = vec![
        essential("the admin API", admin::serve(admin_listener, admin_state.clone(), shutdown.clone())),
        essential("the controller", controller.join()),
        metrics::upkeep(counted, shutdown.clone()).boxed(),
        essential("the memory of events", keeper::keep(events, Arc::clone(&timeline), shutdown.clone())),
    ];
    parts.extend(data_plane_parts);
    if let Some(listener) = metrics_listener {
        let serving = admin::serve_metrics(listener, admin_state, shutdown.clone());
        parts.push(essential("the listener for metrics", serving));
    }
    if let (true, Some(path)) = (options.watch, options.manifest.clone()) {
        let watching = watch_file::run(path, store, timeline, shutdown.clone());
        parts.push(essential("the watch on the manifest", watching));
    }
    run_parts(parts, &shutdown).await?;
    tracing::info!("stopped; replicas are left running");
    Ok(())
}

/// Ports and the token first: a daemon that cannot serve should not touch its state, let alone the engine.
async fn ports(
    options: &Serve,
    admin: &str,
    token_file: Option<&Path>,
) -> anyhow::Result<(TcpListener, Option<String>)> {
    let address = admin_address(admin)?;
    let token = token_file.map(read_token).transpose()?;
    if token.is_none() && !address.ip().is_loopback() {
        bail!(
            "the admin API on {address} could be reached from other machines: give it a token with \
             --admin-token-file, or let it listen on 127.0.0.1"
        );
    }
    if options.data_plane == DataPlaneMode::InProcess {
        // Only a look: the data plane binds it again when there is something to serve.
        TcpListener::bind(options.listen)
            .await
            .map_err(|e| in_use("the data plane", options.listen, e, "--listen"))?;
    }
    let listener = TcpListener::bind(address).await;
    Ok((listener.map_err(|e| in_use("the admin API", address, e, "--admin"))?, token))
}

/// The second listener for metrics, if one is asked for.
async fn metrics_port(options: &Serve) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = options.metrics_listen else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    listener.map(Some).map_err(|e| in_use("the listener for metrics", address, e, "--metrics-listen"))
}

pub(crate) fn in_use(what: &str, address: SocketAddr, error: std::io::Error, option: &str) -> anyhow::Error {
    anyhow!("{what} cannot listen on {address}: {error}: stop what listens there, or choose another {option}")
}

/// Runs until the shutdown. The end of an essential part ends the daemon, whole: a half of it that looks alive
/// would be worse.
async fn run_parts(
    parts: Vec<BoxFuture<'_, anyhow::Result<()>>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let all = parts.into_iter().map(|part| async move {
        let result = part.await;
        let early = !shutdown.is_cancelled();
        shutdown.cancel();
        match result {
            Ok(()) if early => Err(anyhow!("a part of the daemon has ended by itself")),
            result => result,
        }
    });
    let ends = futures_util::future::join_all(all).await;
    ends.into_iter().collect()
}

fn essential<'a, E: std::error::Error + Send + Sync + 'static>(
    what: &'static str,
    part: impl Future<Output = Result<(), E>> + Send + 'a,
) -> BoxFuture<'a, anyhow::Result<()>> {
    async move { part.await.with_context(|| format!("{what} has failed")) }.boxed()
}

fn open_store(state: StateDir, timeline: &Timeline) -> anyhow::Result<Store> {
    let loaded = state.load()?;
    for damage in &loaded.damage {
        timeline.warning(None, "state", Reason::StateRecovered, damage.clone());
    }
    Ok(Store::new(state, loaded)?)
}

/// Applies `--manifest`, unless it was applied before and has not changed. A wrong file keeps a new daemon from
/// starting; one that has served before goes on with what it knows.
fn apply_at_start(options: &Serve, store: &Store, timeline: &Timeline) -> anyhow::Result<()> {
    let Some(path) = &options.manifest else { return Ok(()) };
    let file = path.display().to_string();
    let read = std::fs::read_to_string(path)
        .map_err(|error| anyhow::Error::new(BadInput(format!("read {file}: {error}"))));
    let applied = read.and_then(|text| {
        store.apply_file_once(&ManifestFile { file: file.clone(), text }).map_err(|error| match error {
            ringmaster_controller::store::StoreError::Manifest(report) => report.into(),
            other => anyhow::Error::new(other),
        })
    });
    match applied {
        Ok(Some(response)) if response.changes() => {
            let message = format!("{file} applied as generation {}", response.generation);
            timeline.normal(None, "manifest", Reason::ManifestApplied, message);
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(error) if store.desired().generation.0 == 0 => Err(error),
        Err(error) => {
            let message = format!("{file} was refused, going on with what was applied before: {error:#}");
            timeline.warning(None, "manifest", Reason::ManifestRefused, message);
            Ok(())
        }
    }
}

fn admin_address(text: &str) -> anyhow::Result<SocketAddr> {
    let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    address
        .parse()
        .map_err(|_| BadInput(format!("--admin {text}: not an address such as 127.0.0.1:5001")).into())
}

/// Reads a token: the file's first line.
pub(crate) fn read_token(path: &Path) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("read the token in {}", path.display()))?;
    match text.lines().next().map(str::trim) {
        Some(token) if token.len() >= 16 => Ok(token.to_owned()),
        _ => bail!("the token in {} is shorter than 16 characters", path.display()),
    }
}

fn default_state_dir() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/ringmaster");
    }
    let base = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
    base.unwrap_or_else(std::env::temp_dir).join("ringmaster")
}

pub(crate) fn shutdown_on_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
        token.cancel();
    });
    Ok(shutdown)
}
