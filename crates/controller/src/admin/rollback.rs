//! The templates that a service has had, and back to one of them.

use axum::Json;
use axum::extract::{Path, State};
use ringmaster_core::api::{RevisionList, RollbackRequest, RollbackResponse};
use ringmaster_core::{Reason, ServiceName};

use super::error::Refusal;
use super::{AdminState, handlers};

pub(super) async fn revisions(
    State(state): State<AdminState>,
    Path(name): Path<String>,
) -> Result<Json<RevisionList>, Refusal> {
    let name = ServiceName::new(name).map_err(Refusal::bad_request)?;
    let history = handlers::change(&state, move |state| state.store.history(&name)).await?;
    Ok(Json(RevisionList {
        previous: history.previous().map(|previous| previous.revision),
        lost: history.lost.iter().map(|(revision, why)| format!("revision {revision} {why}")).collect(),
        revisions: history.revisions,
        now: state.clock.now(),
    }))
}

pub(super) async fn rollback(
    State(state): State<AdminState>,
    Path(name): Path<String>,
    Json(request): Json<RollbackRequest>,
) -> Result<Json<RollbackResponse>, Refusal> {
    let name = ServiceName::new(name).map_err(Refusal::bad_request)?;
    let service = name.clone();
    let done =
        handlers::change(&state, move |state| state.store.rollback(&name, request.to_revision)).await?;
    let message = format!(
        "back to the template of revision {} ({}) as asked, generation {}",
        done.revision, done.runs, done.generation
    );
    state.timeline.normal(Some(&service), "service", Reason::RolledBack, message);
    Ok(Json(done))
}
