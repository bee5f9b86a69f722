//! What can go wrong in an experiment, each as one line that says what to do.

use std::io;

use ringmaster_client::ClientError;
use thiserror::Error;

use crate::chart::ChartError;

/// An experiment that did not come to its end.
#[derive(Debug, Error)]
pub enum LabError {
    /// The options are wrong in themselves; nothing was changed.
    #[error("{0}")]
    Input(String),
    /// The daemon does not answer, or refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Ctrl-C. What was measured until then is kept.
    #[error("interrupted: the service is as it was, and what was measured until now is in {0}")]
    Interrupted(String),
    /// A file or a folder.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, and on what.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The service did not come to the state that an experiment needs.
    #[error("{0}")]
    Failed(String),
    /// A chart.
    #[error("draw a chart: {0}")]
    Chart(#[from] ChartError),
}

impl LabError {
    /// For `map_err`: what was being done when an I/O operation failed.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
        let what = what.into();
        |source| LabError::Io { what, source }
    }
}
