//! The admin API: REST under `/api/v1`, changes as they happen by SSE, health and metrics, and the live page.
//!
//! It edits the desired state and reads what is; it never touches a replica itself (logs and faults go to the
//! loop as commands). On loopback it asks for no token but checks `Host` and `Origin`, so that no web page can
//! drive it (DNS rebinding, cross-site requests); off loopback it needs a token.

mod apart;
mod dashboard;
mod error;
mod guard;
mod handlers;
mod log;
mod metrics;
mod ring;
mod rollback;
mod trace;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::request::Parts;
use axum::middleware;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use futures_util::future::BoxFuture;
use ringmaster_core::api::DaemonInfo;
use ringmaster_core::snapshot::{Report, Snapshot};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use apart::{Apart, serve_apart};
pub use log::LogControl;
pub use metrics::serve_metrics;

use crate::clock::Clock;
use crate::reconcile::{Board, Command};
use crate::store::{Store, Traffic};
use crate::timeline::Timeline;

/// A manifest of 1 MiB, escaped as JSON.
const BODY_BYTES_MAX: usize = 4 << 20;
/// A client that takes nothing of what it asked for is cut off after this time: a follower that has stopped reading
/// would hold its buffers for as long as its process lives.
const STALLED_MAX: Duration = Duration::from_secs(30);
/// How long a stop waits for answers under way. Who does not read is not waited for.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Renders metrics; told of a service, the argument says whether it is live.
pub type Metrics = dyn Fn(&dyn Fn(&str) -> bool) -> String + Send + Sync;

/// Renders the metrics of the data plane.
pub type DataPlaneMetrics = dyn Fn() -> BoxFuture<'static, String> + Send + Sync;
/// Makes a request's span part of the trace that its headers name, where traces are exported.
pub type JoinTrace = dyn Fn(&tracing::Span, &Parts) + Send + Sync;

/// What only the binary knows of the daemon.
#[derive(Clone)]
pub struct Daemon {
    /// Version, runtime, listeners and what is allowed.
    pub info: DaemonInfo,
    /// The token that requests must carry; none on loopback.
    pub token: Option<String>,
    /// Tells where the data plane listens, and where it should and cannot.
    pub listeners: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Renders what was counted, without the series of services that are not live.
    pub metrics: Arc<Metrics>,
    /// Where metrics alone are served.
    pub metrics_listen: Option<SocketAddr>,
    /// Renders what the data plane counts, wherever it runs.
    pub data_plane: Arc<DataPlaneMetrics>,
    /// Tells what a change of a ring means for recent requests.
    pub traffic: Arc<Traffic>,
    /// The filter of the log.
    pub log: Arc<dyn LogControl>,
    /// Makes the span of a request part of the trace that its headers name.
    pub join_trace: Arc<JoinTrace>,
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token stays out of logs.
        f.debug_struct("Daemon").field("info", &self.info).finish_non_exhaustive()
    }
}

/// What every handler shares.
#[derive(Debug, Clone)]
pub struct AdminState {
    pub(crate) store: Arc<Store>,
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) clock: Clock,
    pub(crate) board: watch::Receiver<Arc<Board>>,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) reports: watch::Receiver<Report>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) shares: Arc<metrics::Shares>,
}

/// Serves the admin API until shut down.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    state: AdminState,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    serve_router(listener, router(state, shutdown.clone()), shutdown).await
}

/// Serves until shut down. A client that does not read holds up neither the others nor the end.
async fn serve_router(
    listener: TcpListener,
    app: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    // By the kernel, because a stalled connection is not polled here: it counts data that waits for a closed window too.
    let listener = listener.tap_io(|stream| {
        let millis = STALLED_MAX.as_millis() as u32;
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, millis) {
            tracing::debug!(%error, "a client that stops reading will not be cut off");
        }
    });
    let late = shutdown.clone();
    let served = axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned());
    tokio::select! {
        ended = served => ended,
        () = async { late.cancelled().await; tokio::time::sleep(STOP_GRACE).await } => Ok(()),
    }
}

fn router(state: AdminState, shutdown: CancellationToken) -> Router {
    let api = Router::new()
        .route("/overview", get(handlers::overview))
        .route("/services", get(handlers::services))
        .route("/services/{name}", get(handlers::service).delete(handlers::delete))
        .route("/services/{name}/scale", post(handlers::scale))
        .route("/services/{name}/revisions", get(rollback::revisions))
        .route("/services/{name}/rollback", post(rollback::rollback))
        .route("/services/{name}/rollout", post(rollback::rollout))
        .route("/services/{name}/ring", get(ring::ring))
        .route("/services/{name}/explain", get(ring::explain))
        .route("/apply", post(handlers::apply))
        .route("/log", get(log::get).put(log::put))
        .route("/events", get(handlers::events))
        .route("/watch", get(handlers::watch))
        .route("/replicas/{name}/logs", get(handlers::logs))
        .route("/replicas/{name}/fault", post(handlers::fault))
        .route("/prometheus/targets", get(metrics::targets))
        .route("/version", get(handlers::version));
    Router::new()
        .nest("/api/v1", api)
        .merge(dashboard::routes())
        .route("/api", get(handlers::index))
        .route("/metrics", get(metrics::metrics))
        .route("/healthz", get(handlers::healthz))
        .route("/readyz", get(handlers::readyz))
        .fallback(handlers::not_found)
        .layer(axum::Extension(shutdown))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(state.clone(), guard::guard))
        .layer(middleware::from_fn_with_state(state.clone(), trace::trace))
        .with_state(state)
}
