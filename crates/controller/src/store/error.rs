//! Why a change of the desired state was refused.

use ringmaster_core::ServiceName;
use ringmaster_core::desired::ChangeError;
use ringmaster_core::manifest::{ManifestErrors, RouteConflict};
use ringmaster_core::members::MembersError;
use ringmaster_core::ring::RingError;
use thiserror::Error;

use super::{RollbackError, RolloutError};
use crate::state::StateError;

/// A change of the desired state that was refused. Nothing was changed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The manifest is wrong.
    #[error("{0}")]
    Manifest(#[from] ManifestErrors),
    /// The members cannot change so.
    #[error(transparent)]
    Members(#[from] MembersError),
    /// No such service.
    #[error("there is no service `{0}`: `ringmaster get services` lists those there are")]
    UnknownService(ServiceName),
    /// It is being deleted.
    #[error("service `{0}` is being deleted: try again when it is gone")]
    Deleting(ServiceName),
    /// The autoscaler sets its count.
    #[error(
        "service `{0}` is autoscaled, and its count follows its load: change `autoscale.minReplicas` and \
         `autoscale.maxReplicas` in its manifest, or remove `autoscale`"
    )]
    Autoscaled(ServiceName),
    /// Another service has this route.
    #[error("{0}: give one of them other `route.hosts` or another `route.pathPrefix`")]
    RouteTaken(RouteConflict),
    /// The assignment's API names a service that is not there.
    #[error("gateway: assignmentApi.service names `{0}`, and there is no such service")]
    AssignmentService(ServiceName),
    /// The members and the balancing settings make no ring.
    #[error("balancing: {0}")]
    Ring(#[from] RingError),
    /// More keys would move than whoever asked for the change allows.
    #[error(
        "service `{service}`: {:.1} % of the keys would move, more than the {:.1} % that --max-move allows: nothing \
         was applied", 100.0 * .share, 100.0 * .limit
    )]
    MovesTooMuch {
        /// Whose keys.
        service: ServiceName,
        /// Which share of them.
        share: f64,
        /// Which share may.
        limit: f64,
    },
    /// The service cannot go back.
    #[error(transparent)]
    Rollback(#[from] RollbackError),
    /// Its rollout cannot begin, or not be changed so.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// Whoever asked for the change has rules of its own, and this breaks one.
    #[error("{0}")]
    Refused(String),
    /// It could not be persisted.
    #[error("the change could not be saved, nothing was applied: {0}")]
    State(#[from] StateError),
}

impl From<ChangeError> for StoreError {
    fn from(error: ChangeError) -> StoreError {
        match error {
            ChangeError::Members(error) => error.into(),
            ChangeError::Ring(error) => error.into(),
        }
    }
}

impl StoreError {
    /// Whether the same change may be accepted later, without anybody doing anything.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            StoreError::State(_) | StoreError::Deleting(_) | StoreError::Rollout(RolloutError::UnderWay(_))
        )
    }
}
