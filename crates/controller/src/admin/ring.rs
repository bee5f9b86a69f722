//! Who owns which keys, and why a key goes where it goes.

use axum::Json;
use axum::extract::{Path, Query, State};
use ringmaster_core::api::RingView;
use ringmaster_core::ring::explain::{Explanation, SkipReason};
use ringmaster_core::status::{Phase, ServiceStatus};
use ringmaster_core::{Ordinal, ServiceName};
use serde::Deserialize;

use super::error::Refusal;
use super::{AdminState, handlers};

#[derive(Debug, Deserialize)]
pub(super) struct RingQuery {
    replicas: Option<u32>,
}

pub(super) async fn ring(
    State(state): State<AdminState>,
    Path(name): Path<String>,
    Query(query): Query<RingQuery>,
) -> Result<Json<RingView>, Refusal> {
    let name = ServiceName::new(name).map_err(Refusal::bad_request)?;
    let view = handlers::change(&state, move |state| {
        let now = state.store.ring(&name)?;
        let Some(replicas) = query.replicas else { return Ok(RingView::of(&name, &now)) };
        let then = state.store.ring_with(&name, replicas)?;
        Ok(RingView::of(&name, &then).after(&now, &then))
    });
    Ok(Json(view.await?))
}

#[derive(Debug, Deserialize)]
pub(super) struct ExplainQuery {
    key: String,
    replicas: Option<u32>,
}

/// Explains by what the data plane goes by: the published snapshot, and its own report. With another number of
/// replicas nobody is passed over.
pub(super) async fn explain(
    State(state): State<AdminState>,
    Path(name): Path<String>,
    Query(query): Query<ExplainQuery>,
) -> Result<Json<Explanation>, Refusal> {
    let name = ServiceName::new(name).map_err(Refusal::bad_request)?;
    let key = query.key.as_bytes();
    if let Some(replicas) = query.replicas {
        return Ok(Json(Explanation::of(&state.store.ring_with(&name, replicas)?, key, |_| None)));
    }
    let ring = state.store.ring(&name)?;
    let board = state.board.borrow().clone();
    let status = board.statuses.get(&name);
    let snapshot = state.snapshots.borrow().clone();
    let Some(routing) = snapshot.services.get(&name) else {
        return Ok(Json(Explanation::of(&ring, key, |ordinal| Some(not_there(status, ordinal)))));
    };
    let mut explanation = routing.explain(key, &state.reports.borrow(), state.clock.now());
    for skipped in explanation.skipped.iter_mut().filter(|skipped| skipped.reason == SkipReason::NotReady) {
        skipped.reason = not_there(status, skipped.ordinal);
    }
    Ok(Json(explanation))
}

/// Why a member has no endpoint, as its status tells.
fn not_there(status: Option<&ServiceStatus>, ordinal: Ordinal) -> SkipReason {
    let mut members = status.into_iter().flat_map(|s| &s.members).filter(|m| m.ordinal == ordinal);
    let is_draining = members.any(|member| member.phase == Phase::Draining);
    if is_draining { SkipReason::Draining } else { SkipReason::NotReady }
}
