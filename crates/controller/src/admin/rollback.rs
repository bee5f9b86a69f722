//! The templates that a service has had, back to one of them, and what people decide about a rollout.

use axum::Json;
use axum::extract::{Path, State};
use ringmaster_core::api::{
    RevisionList, RollbackRequest, RollbackResponse, RolloutAction, RolloutRequest, RolloutResponse,
};
use ringmaster_core::{Reason, Revision, ServiceName};

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

pub(super) async fn rollout(
    State(state): State<AdminState>,
    Path(name): Path<String>,
    Json(request): Json<RolloutRequest>,
) -> Result<Json<RolloutResponse>, Refusal> {
    let name = ServiceName::new(name).map_err(Refusal::bad_request)?;
    let service = name.clone();
    let (action, now) = (request.action, state.clock.now());
    let done = handlers::change(&state, move |state| {
        let rolling = rolling(state, &name);
        state.store.rollout(&name, action, now, rolling)
    })
    .await?;
    let (reason, what) = match action {
        RolloutAction::Pause => (Reason::RolloutPaused, "no further replica is replaced until it is resumed"),
        RolloutAction::Resume => (Reason::RolloutResumed, "it goes on"),
        RolloutAction::Promote => (Reason::Promoted, "the canary is good, and the others follow"),
        RolloutAction::Restart => {
            (Reason::Restarted, "every replica is replaced by another of the same template")
        }
    };
    let message = format!("{what}, as asked, generation {}", done.generation);
    state.timeline.normal(Some(&service), "service", reason, message);
    Ok(Json(done))
}

/// The revision that a service is on its way to, as the loop has last seen it.
fn rolling(state: &AdminState, name: &ServiceName) -> Option<Revision> {
    let (desired, board) = (state.store.desired(), state.board.borrow().clone());
    let (service, status) = (desired.services.get(name)?, board.statuses.get(name)?);
    let is_current = status.observed_generation >= service.generation;
    let stable = status.rollout.stable.as_ref().filter(|_| is_current)?;
    let revision = status.revision.as_ref().filter(|revision| **revision != stable.revision)?;
    Some(Revision(revision.clone()))
}
