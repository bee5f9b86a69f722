//! Who owns which keys, and why a key goes where it goes.

use axum::Json;
use axum::extract::{Path, Query, State};
use ringmaster_core::api::RingView;
use ringmaster_core::desired::DesiredService;
use ringmaster_core::ring::explain::{Explanation, SkipReason};
use ringmaster_core::status::{Phase, ServiceStatus};
use ringmaster_core::{Ordinal, ServiceName};
use serde::Deserialize;

use super::AdminState;
use super::error::Refusal;
use crate::store::StoreError;

pub(super) async fn ring(
    State(state): State<AdminState>,
    Path(name): Path<String>,
) -> Result<Json<RingView>, Refusal> {
    let (name, service) = find(&state, name)?;
    Ok(Json(RingView::of(&name, &service.ring)))
}

#[derive(Debug, Deserialize)]
pub(super) struct ExplainQuery {
    key: String,
}

pub(super) async fn explain(
    State(state): State<AdminState>,
    Path(name): Path<String>,
    Query(query): Query<ExplainQuery>,
) -> Result<Json<Explanation>, Refusal> {
    let (name, service) = find(&state, name)?;
    let board = state.board.borrow().clone();
    let status = board.statuses.get(&name);
    Ok(Json(Explanation::of(&service.ring, query.key.as_bytes(), |ordinal| passed_over(status, ordinal))))
}

/// Why a member gets no requests now, as its status tells.
fn passed_over(status: Option<&ServiceStatus>, ordinal: Ordinal) -> Option<SkipReason> {
    let members = || status.into_iter().flat_map(|s| &s.members).filter(|m| m.ordinal == ordinal);
    match members().find(|member| member.phase == Phase::Ready) {
        Some(ready) => ready.ejected.then_some(SkipReason::Ejected),
        None if members().any(|member| member.phase == Phase::Draining) => Some(SkipReason::Draining),
        None => Some(SkipReason::NotReady),
    }
}

fn find(state: &AdminState, name: String) -> Result<(ServiceName, DesiredService), Refusal> {
    let name = ServiceName::new(name).map_err(Refusal::bad_request)?;
    match state.store.desired().services.get(&name) {
        Some(service) => Ok((name, service.clone())),
        None => Err(StoreError::UnknownService(name).into()),
    }
}
