//! What the daemon logs, told and changed while it runs.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ringmaster_core::Reason;
use ringmaster_core::api::LogFilter;

use super::AdminState;
use super::error::Refusal;

/// Longer filters are a mistake.
const FILTER_BYTES_MAX: usize = 4 << 10;

/// The filter of the log, which the binary keeps.
pub trait LogControl: Send + Sync {
    /// The filter in force.
    fn filter(&self) -> String;

    /// Puts another in force, from the next line on.
    ///
    /// # Errors
    /// What is wrong with it; then the one before stays in force.
    fn set(&self, filter: &str) -> Result<(), String>;
}

pub(super) async fn get(State(state): State<AdminState>) -> Json<LogFilter> {
    Json(LogFilter { filter: state.daemon.log.filter() })
}

pub(super) async fn put(State(state): State<AdminState>, text: String) -> Result<Json<LogFilter>, Refusal> {
    let filter = text.trim();
    if filter.len() > FILTER_BYTES_MAX {
        let error = format!("a log filter may have {FILTER_BYTES_MAX} bytes, this has {}", filter.len());
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error));
    }
    let before = state.daemon.log.filter();
    let refused = |why| {
        let error = format!("log filter `{filter}`: {why}; `{before}` stays in force");
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error)
    };
    state.daemon.log.set(filter).map_err(refused)?;
    let now = state.daemon.log.filter();
    if now != before {
        let message = format!("`{now}` as asked, it was `{before}`");
        state.timeline.normal(None, "log", Reason::LogFilterSet, message);
    }
    Ok(Json(LogFilter { filter: now }))
}
