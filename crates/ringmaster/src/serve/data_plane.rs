//! The data plane of a daemon, wherever it runs: in this process, in a child, or elsewhere.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ringmaster_controller::admin::DataPlaneMetrics;
use ringmaster_controller::assignment::Assignment;
use ringmaster_controller::store::Traffic;
use ringmaster_controller::timeline::Timeline;
use ringmaster_core::exposition::{Exposition, Kind};
use ringmaster_core::snapshot::{Report, Snapshot};
use ringmaster_link::{Address, CONNECTED_METRIC, Hub, HubConfig, LocalHandler, Note};
use ringmaster_proxy::{ListenerState, ListenerStatus, LocalApi, LocalResponse, Proxy, ProxyConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{child, essential, in_use};
use crate::cli::{DataPlaneMode, Serve};
use crate::cmd::BadInput;

/// The socket in the state folder.
const SOCKET: &str = "link.sock";
/// How long the first snapshot may wait for verdicts on replicas that a data plane has served on.
const SETTLE: Duration = Duration::from_secs(2);

/// What a data plane is started with.
pub(super) struct Setup<'a> {
    pub(super) options: &'a Serve,
    /// A folder in the state folder.
    pub(super) folder: PathBuf,
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(super) reports: watch::Sender<Report>,
    pub(super) assignment: Assignment,
    pub(super) timeline: Arc<Timeline>,
    pub(super) shutdown: CancellationToken,
}

/// What the admin API asks it, and what has to run for it.
pub(super) struct DataPlane {
    pub(super) listeners: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    pub(super) metrics: Arc<DataPlaneMetrics>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) parts: Vec<BoxFuture<'static, anyhow::Result<()>>>,
}

/// How long the first snapshot may wait: see [`ringmaster_controller::DataPlaneSeam`].
pub(super) fn settle(mode: DataPlaneMode) -> Duration {
    if mode == DataPlaneMode::InProcess { Duration::ZERO } else { SETTLE }
}

/// Starts it, or what it connects to.
pub(super) async fn start(setup: Setup<'_>) -> anyhow::Result<DataPlane> {
    let options = setup.options;
    if options.data_plane != DataPlaneMode::None && options.link_listen.is_some() {
        let error = "--link-listen is for data planes elsewhere: use it with --data-plane none";
        return Err(BadInput(error.to_owned()).into());
    }
    if options.data_plane == DataPlaneMode::InProcess { in_process(setup) } else { apart(setup).await }
}

fn in_process(setup: Setup<'_>) -> anyhow::Result<DataPlane> {
    let mut config = ProxyConfig::new(setup.options.listen);
    config.local = Some(Arc::new(Local(setup.assignment)));
    config.workers = setup.options.workers.map_or(config.workers, usize::from);
    let proxy = Proxy::start(config, setup.snapshots, setup.reports, setup.shutdown)?;
    let (listeners, metrics) = (proxy.listeners_reader(), proxy.metrics_renderer());
    Ok(DataPlane {
        listeners: Arc::new(move || listeners().iter().map(listener_text).collect()),
        metrics: Arc::new(move || std::future::ready(is_there() + &metrics()).boxed()),
        traffic: Arc::new(proxy.traffic_reader()),
        parts: vec![essential("the data plane", proxy.join())],
    })
}

/// The one in this process is there as long as anybody can ask.
fn is_there() -> String {
    let mut out = Exposition::new();
    let (name, help) = CONNECTED_METRIC;
    out.family(name, Kind::Gauge, help);
    out.sample(&[("data_plane", "in-process")], 1);
    out.finish()
}

async fn apart(setup: Setup<'_>) -> anyhow::Result<DataPlane> {
    let Setup { options, folder, snapshots, reports, assignment, timeline, shutdown } = setup;
    let address = options.link_listen.clone().unwrap_or_else(|| Address::Unix(folder.join(SOCKET)));
    let token = options.link_token_file.as_deref().map(super::read_token).transpose()?;
    if address.needs_token() && token.is_none() {
        bail!("--link-listen {address} could be reached by others: give it a token with --link-token-file");
    }
    let listener = address.listen().await.map_err(|error| {
        anyhow::anyhow!(
            "the link to data planes cannot listen on {address}: {error}: choose another --link-listen, or a shorter or \
             writable --state-dir"
        )
    })?;
    let note = move |note: Note| match note.is_good() {
        true => timeline.normal(None, "data-plane", note.reason(), note.to_string()),
        false => timeline.warning(None, "data-plane", note.reason(), note.to_string()),
    };
    let config = HubConfig {
        token,
        memory: Some(folder.join("planes")),
        local: local_handler(assignment),
        note: Arc::new(note),
    };
    let hub = Hub::new(config, snapshots, reports);
    tracing::info!(%address, "data planes are let in");
    // With a child the link outlives it: its goodbye is heard, and the next daemon does not wait for it.
    let link =
        if options.data_plane == DataPlaneMode::Child { CancellationToken::new() } else { shutdown.clone() };
    let mut parts = vec![essential("the link to data planes", hub.clone().serve(listener, link.clone()))];
    if options.data_plane == DataPlaneMode::Child {
        let child = child::Child::of(options, folder, &address)?;
        child.prepare(|listen, error| in_use("the data plane", listen, error, "--listen")).await?;
        let supervised = async move {
            let ended = child.supervise(shutdown).await;
            link.cancel();
            ended
        };
        parts.push(supervised.boxed());
    }
    let (listeners, metrics, traffic) = (hub.clone(), hub.clone(), hub);
    let runtime = tokio::runtime::Handle::current();
    Ok(DataPlane {
        listeners: Arc::new(move || listeners.listeners()),
        metrics: Arc::new(move || {
            let hub = metrics.clone();
            async move { hub.metrics().await }.boxed()
        }),
        // Asked on threads that may wait, beside the disk.
        traffic: Arc::new(move |service, _, after| runtime.block_on(traffic.traffic(service, after))),
        parts,
    })
}

/// The assignment's routes, handed from the controller to the data plane.
struct Local(Assignment);

impl LocalApi for Local {
    fn call(
        &self,
        method: http::Method,
        path: String,
        body: bytes::Bytes,
    ) -> BoxFuture<'static, LocalResponse> {
        let assignment = self.0.clone();
        async move {
            let answer = assignment.call(method.as_str(), &path, &body).await;
            LocalResponse { status: answer.status, body: answer.body.into() }
        }
        .boxed()
    }
}

/// The same for a data plane in another process.
fn local_handler(assignment: Assignment) -> Arc<LocalHandler> {
    Arc::new(move |method, path, body| {
        let assignment = assignment.clone();
        async move {
            let answer = assignment.call(&method, &path, &body).await;
            (answer.status, answer.body.into())
        }
        .boxed()
    })
}

/// A listener as the admin API tells it: its address, and why it is not open.
pub(crate) fn listener_text(listener: &ListenerStatus) -> String {
    match &listener.state {
        ListenerState::Open => listener.address.to_string(),
        ListenerState::Failed(why) => format!("{} ({why})", listener.address),
    }
}
