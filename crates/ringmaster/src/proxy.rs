//! `proxy`: the wiring of a data plane alone.

mod fixed;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ringmaster_controller::admin::{Apart, serve_apart};
use ringmaster_core::snapshot::Report;
use ringmaster_proxy::{Proxy, ProxyConfig};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cli::ProxyArgs;
use crate::serve::{in_use, logging, shutdown_on_signal};

/// Runs the data plane until SIGINT or SIGTERM; then requests in flight end within the grace.
pub(crate) fn run(options: &ProxyArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(fixed_upstreams(options))?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(ExitCode::SUCCESS)
}

async fn fixed_upstreams(options: &ProxyArgs) -> anyhow::Result<()> {
    // What is wrong with the flags is told before a log begins.
    let snapshot = fixed::snapshot(options)?;
    logging::init(options.log_format);
    let shutdown = shutdown_on_signal()?;
    let metrics_listener =
        match options.metrics_listen {
            Some(address) => {
                let listener = TcpListener::bind(address).await;
                Some(listener.map_err(|error| {
                    in_use("the listener for metrics", address, error, "--metrics-listen")
                })?)
            }
            None => None,
        };
    // Both ends stay here: nothing is published any more, and nobody asks for reports.
    let (_snapshots, receiver) = watch::channel(Arc::new(snapshot));
    let (reports, _reports) = watch::channel(Report::default());
    let mut config = ProxyConfig::new(options.listen);
    config.workers = options.threads.map_or(config.workers, usize::from);
    config.shutdown_grace = options.grace;
    let threads = config.workers;
    let proxy = Proxy::start(config, receiver, reports, shutdown.clone())?;
    tracing::info!(listen = ?proxy.local_addrs(), threads, "the data plane of ringmaster {} serves", env!("CARGO_PKG_VERSION"));
    let metrics = proxy.metrics_renderer();
    let apart = Apart { metrics: Arc::new(metrics), waits_for: Arc::new(|| None) };
    let figures = async {
        let served = match metrics_listener {
            Some(listener) => serve_apart(listener, apart, shutdown.clone()).await,
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
