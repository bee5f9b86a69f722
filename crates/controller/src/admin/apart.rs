//! What a data plane that runs apart says of itself: `/metrics`, `/healthz`, `/readyz`, and nothing else.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How a data plane is asked about itself.
#[derive(Clone)]
pub struct Apart {
    /// Renders its metrics.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Why it has nothing to route by yet, if so.
    pub waits_for: Arc<dyn Fn() -> Option<String> + Send + Sync>,
}

/// Serves a data plane's own figures until shut down.
///
/// # Errors
/// If the listener fails.
pub async fn serve_apart(
    listener: TcpListener,
    apart: Apart,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(super::handlers::healthz))
        .route("/readyz", get(readyz))
        .with_state(apart);
    super::serve_router(listener, app, shutdown).await
}

async fn metrics(State(apart): State<Apart>) -> Response {
    super::metrics::exposed((apart.metrics)())
}

async fn readyz(State(apart): State<Apart>) -> Response {
    match (apart.waits_for)() {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}
