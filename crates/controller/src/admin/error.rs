//! Refusals as HTTP: one table from error to status code, one JSON form.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ringmaster_core::api::ErrorBody;

use super::trace::Why;
use crate::store::StoreError;

/// A refused request; nothing was changed.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Refusal {
        Refusal { status, error: error.into() }
    }

    pub(super) fn bad_request(error: impl ToString) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, error.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        let status = match &error {
            StoreError::Manifest(_)
            | StoreError::Members(_)
            | StoreError::Refused(_)
            | StoreError::Ring(_)
            | StoreError::AssignmentService(_) => StatusCode::UNPROCESSABLE_ENTITY,
            StoreError::UnknownService(_) => StatusCode::NOT_FOUND,
            StoreError::Deleting(_)
            | StoreError::Autoscaled(_)
            | StoreError::RouteTaken(_)
            | StoreError::MovesTooMuch { .. }
            | StoreError::Rollback(_)
            | StoreError::Rollout(_) => StatusCode::CONFLICT,
            StoreError::State(_) => StatusCode::INSUFFICIENT_STORAGE,
        };
        Refusal::new(status, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(ErrorBody { error: self.error.clone() })).into_response();
        response.extensions_mut().insert(Why(self.error));
        response
    }
}
