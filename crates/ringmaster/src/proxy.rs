//! `proxy`: the wiring of a data plane alone, over fixed upstreams or following a controller.

mod fixed;
pub(crate) mod lock;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ringmaster_controller::admin::{Apart, serve_apart};
use ringmaster_core::snapshot::{Report, Snapshot};
use ringmaster_link::{Address, Ends, Faces, Follower, FollowerConfig, LocalCaller};
use ringmaster_proxy::{LocalApi, LocalResponse, Proxy, ProxyConfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cli::ProxyArgs;
use crate::serve::data_plane::listener_text;
use crate::serve::metrics::of_process;
use crate::serve::{in_use, logging, read_token, shutdown_on_signal};
use lock::Lock;

/// How long the controller may take to hear that this data plane has ended.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// What a data plane is connected to.
struct Wiring {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    reports: watch::Sender<Report>,
    local: Option<Arc<dyn LocalApi>>,
}

/// Runs the data plane until SIGINT or SIGTERM; then requests in flight end within the grace.
pub(crate) fn run(options: &ProxyArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match &options.controller {
        None => runtime.block_on(fixed_upstreams(options))?,
        Some(address) => runtime.block_on(follow(options, address))?,
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(ExitCode::SUCCESS)
}

async fn fixed_upstreams(options: &ProxyArgs) -> anyhow::Result<()> {
    // What is wrong with the flags is told before a log begins.
    let snapshot = fixed::snapshot(options)?;
    drop(logging::init(options.log_format, None));
    // Both ends stay here: nothing is published any more, and nobody asks for reports.
    let (_snapshots, snapshots) = watch::channel(Arc::new(snapshot));
    let (reports, _reports) = watch::channel(Report::default());
    let shutdown = shutdown_on_signal()?;
    serve(options, Wiring { snapshots, reports, local: None }, &shutdown, |_| ()).await
}

async fn follow(options: &ProxyArgs, address: &Address) -> anyhow::Result<()> {
    let token = options.link_token_file.as_deref().map(read_token).transpose()?;
    if address.needs_token() && token.is_none() {
        bail!("--controller {address} wants a token: say where it is with --link-token-file");
    }
    drop(logging::init(options.log_format, None));
    let shutdown = shutdown_on_signal()?;
    // The kernel sends it to a data plane that was stopped when its daemon was killed, and a terminal that closes sends it to
    // all: this one stays. A handler is enough, nobody has to listen.
    drop(signal(SignalKind::hangup())?);
    let take = |folder: &Path| Lock::take(folder, &std::env::args_os().skip(1).collect::<Vec<_>>());
    let _held_until_the_end = options.state_dir.as_deref().map(take).transpose()?;
    let (follower, ends) = Follower::new(FollowerConfig {
        address: address.clone(),
        token,
        name: options.name.clone().unwrap_or_else(|| format!("proxy-{}", options.listen.port())),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        folder: options.state_dir.clone(),
    });
    let Ends { snapshots, reports, local } = ends;
    let ended = CancellationToken::new();
    let (known, its_end) = (snapshots.clone(), ended.clone());
    let begin = |proxy: &Proxy| {
        let (listeners, traffic) = (proxy.listeners_reader(), proxy.traffic_reader());
        let faces = Faces {
            listeners: Box::new(move || listeners().iter().map(listener_text).collect()),
            metrics: Box::new(proxy.metrics_renderer()),
            traffic: Box::new(move |service, after| {
                let before = known.borrow().services.get(service).map(|routing| routing.ring.clone())?;
                traffic(service, &before, after)
            }),
        };
        tokio::spawn(follower.run(faces, its_end))
    };
    // The follower goes on while requests end: the controller waits for them.
    let mut following = None;
    let wiring = Wiring { snapshots, reports, local: Some(Arc::new(Remote(local))) };
    let served = serve(options, wiring, &shutdown, |proxy| following = Some(begin(proxy))).await;
    ended.cancel();
    if let Some(following) = following
        && tokio::time::timeout(GOODBYE_MAX, following).await.is_err()
    {
        tracing::warn!("the controller has not heard that this data plane has ended");
    }
    served
}

/// Serves until shut down, and all that is in flight has ended or the grace is over.
async fn serve(
    options: &ProxyArgs,
    wiring: Wiring,
    shutdown: &CancellationToken,
    begin: impl FnOnce(&Proxy),
) -> anyhow::Result<()> {
    let metrics_listener = match options.metrics_listen {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            Some(listener.map_err(|e| in_use("the listener for metrics", address, e, "--metrics-listen"))?)
        }
        None => None,
    };
    let mut config = ProxyConfig::new(options.listen);
    config.workers = options.threads.map_or(config.workers, usize::from);
    config.shutdown_grace = options.grace;
    config.local = wiring.local;
    let (threads, snapshots) = (config.workers, wiring.snapshots.clone());
    let proxy = Proxy::start(config, wiring.snapshots, wiring.reports, shutdown.clone())?;
    begin(&proxy);
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(listen = ?proxy.local_addrs(), threads, "the data plane of ringmaster {version} serves");
    let counted = proxy.metrics_renderer();
    let metrics = Arc::new(move || of_process() + &counted());
    let nothing_yet = "nothing to route by yet: the controller has not been met";
    let waits_for = Arc::new(move || (snapshots.borrow().generation.0 == 0).then(|| nothing_yet.to_owned()));
    let figures = async {
        let served = match metrics_listener {
            Some(listener) => serve_apart(listener, Apart { metrics, waits_for }, shutdown.clone()).await,
            None => return Ok(()),
        };
        shutdown.cancel();
        served.context("the listener for metrics has failed")
    };
    let serving = async {
        let ended = proxy.join().await;
        shutdown.cancel();
        ended.context("the data plane has failed")
    };
    let (serving, figures) = tokio::join!(serving, figures);
    serving.and(figures)?;
    tracing::info!("stopped");
    Ok(())
}

/// The assignment's routes, answered by the controller at the other end of the link.
struct Remote(LocalCaller);

impl LocalApi for Remote {
    fn call(
        &self,
        method: http::Method,
        path: String,
        body: bytes::Bytes,
    ) -> BoxFuture<'static, LocalResponse> {
        let call = self.0.call(method.to_string(), path, body);
        async move {
            let (status, body) = call.await;
            LocalResponse { status, body }
        }
        .boxed()
    }
}
