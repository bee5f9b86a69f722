//! The one seam towards whatever runs replicas: the [`Runtime`] trait, the labels that mark what is ours, and
//! (feature `conformance`) the suite that every runtime passes.
//!
//! Deliberately absent: any decision. A runtime does as it is told, tells what it sees, and never retries.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod labels;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use ringmaster_core::observed::{RuntimeId, RuntimeReplica};
use ringmaster_core::spec::{PreStop, Template};
pub use ringmaster_core::world::ErrorKind;
use ringmaster_core::{ReplicaName, Revision};
use thiserror::Error;

/// What runs replicas.
///
/// Every method is safe to cancel: a call that was dropped may or may not have had its effect, and the next
/// [`Runtime::list`] tells which. Every method is idempotent or says how it fails on repetition.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Which kind it is, for people: `docker`, `process`.
    fn kind(&self) -> &'static str;

    /// Resolves what a template runs to the identity of its content (an image id), pulling if the template's
    /// policy asks for it. Part of the revision, so that a rebuilt tag is a new revision.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the template is not for this runtime, [`ErrorKind::ImageMissing`] if there is
    /// no such image and none can be had.
    async fn resolve(&self, template: &Template) -> Result<String, RuntimeError>;

    /// All replicas with our owner and instance labels, whole or not at all.
    ///
    /// # Errors
    /// Any failure or doubt is an error: a partial list is never returned.
    async fn list(&self) -> Result<Vec<RuntimeReplica>, RuntimeError>;

    /// One replica as it is now, and what is to run before its stop; `None` if it is gone or is not ours.
    ///
    /// # Errors
    /// As the engine answers.
    async fn inspect(&self, id: &RuntimeId) -> Result<Option<Inspected>, RuntimeError>;

    /// Creates and starts a replica and returns it as it runs, with its address.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if its name is taken (by ours: observe again; by a foreign object: the message
    /// names it). What was created when the start fails is left behind in state `Created` or `Exited`, to be
    /// listed and removed like any dead replica.
    async fn create(&self, request: &CreateRequest) -> Result<RuntimeReplica, RuntimeError>;

    /// Runs a command beside a running replica's process: in its container, or on the host in its folder and with its
    /// environment. Not before the last one that was given up has ended.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the replica does not run, [`ErrorKind::Invalid`] if there is no such program.
    async fn exec(
        &self,
        id: &RuntimeId,
        command: &[String],
        limit: Duration,
    ) -> Result<ExecOutcome, RuntimeError>;

    /// Stops a replica: its stop signal, then after `grace` SIGKILL. Returns when it has ended; one that has
    /// ended already, or is gone, is a success.
    ///
    /// # Errors
    /// As the engine answers.
    async fn stop(&self, id: &RuntimeId, grace: Duration) -> Result<(), RuntimeError>;

    /// Removes a replica, killing it if it still runs; one that is gone is a success.
    ///
    /// # Errors
    /// As the engine answers.
    async fn remove(&self, id: &RuntimeId) -> Result<(), RuntimeError>;

    /// Undoes what someone did to a running replica by hand: resumes a paused one, gives a renamed one its
    /// name back, attaches a detached one to the network again, sets limits back to what it was made with. Does nothing to
    /// one that is as it should be.
    ///
    /// # Errors
    /// As the engine answers; [`ErrorKind::Conflict`] if the name is taken by another object.
    async fn repair(&self, id: &RuntimeId) -> Result<(), RuntimeError>;

    /// Sends a signal to a replica's main process.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if it does not run.
    async fn signal(&self, id: &RuntimeId, signal: Signal) -> Result<(), RuntimeError>;

    /// The last `lines` lines of a replica's output, oldest first. Works on an ended replica too.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such replica.
    async fn logs(&self, id: &RuntimeId, lines: usize) -> Result<String, RuntimeError>;

    /// The processor time that a running replica has used so far; none if it does not run.
    ///
    /// # Errors
    /// As the engine answers; [`ErrorKind::Invalid`] if this runtime cannot tell.
    async fn cpu_used(&self, id: &RuntimeId) -> Result<Option<Duration>, RuntimeError>;

    /// Hints that something changed. They carry no data and may be lost: they only wake the loop, which lists
    /// again. The stream never ends by itself: it reconnects, and yields [`Wake::Reconnected`] whenever hints
    /// may have been missed, [`Wake::Disconnected`] when the engine stops answering.
    fn events(&self) -> BoxStream<'static, Wake>;
}

/// A replica, looked at by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// As it is now.
    pub replica: RuntimeReplica,
    /// What is to run before it is stopped, as it was created with; or why what was written down cannot be read.
    pub pre_stop: Result<Option<PreStop>, String>,
}

/// What to create.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// Its name: service, ordinal, attempt.
    pub name: ReplicaName,
    /// The member's own host name, if it has one: the container's host name and network alias.
    pub host: Option<String>,
    /// What it runs.
    pub template: Template,
    /// What `template` resolved to; the image to run is this very one, even if the tag moves meanwhile.
    pub content_id: String,
    /// The hash of both.
    pub revision: Revision,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Its exit code, 128 + n after signal n; none if it has not ended within its limit.
    pub code: Option<i32>,
    /// The end of what it wrote, both streams; at most [`EXEC_OUTPUT_BYTES_MAX`].
    pub output: String,
}

/// Most output of a command that is kept.
pub const EXEC_OUTPUT_BYTES_MAX: usize = 4_096;

/// A hint that something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// Something happened to a replica of ours.
    Changed,
    /// A signal that ends it was sent to this replica: nothing new should go there. Not every runtime can tell, and
    /// what we stop ourselves is told too.
    Stopping(RuntimeId),
    /// Somebody has changed the limits of this replica; the text says from what to what. A list does not show it.
    ChangedLimits(RuntimeId, String),
    /// The event stream was (re-)established: hints may have been missed.
    Reconnected,
    /// The engine does not answer; the text says why.
    Disconnected(String),
}

impl ExecOutcome {
    /// What a command that wrote `output` and ended with `code` came to.
    pub fn new(code: Option<i32>, output: &[u8]) -> ExecOutcome {
        let end = &output[output.len().saturating_sub(EXEC_OUTPUT_BYTES_MAX)..];
        ExecOutcome { code, output: String::from_utf8_lossy(end).into_owned() }
    }
}

/// A signal that `ringmaster kill` may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Term,
    /// SIGSTOP: the process hangs.
    Stop,
    /// SIGCONT: it goes on.
    Cont,
}

/// An operation of a runtime that failed.
#[derive(Debug, Error)]
#[error("{operation}: {message}")]
pub struct RuntimeError {
    /// What failed, on what, such as `create container web-0-1`.
    pub operation: String,
    /// What to decide on.
    pub kind: ErrorKind,
    /// Why, and what to do about it, in one line.
    pub message: String,
}

impl RuntimeError {
    /// An error of `kind` in `operation`.
    pub fn new(operation: impl Into<String>, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { operation: operation.into(), kind, message: message.into() }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signal::Kill => "SIGKILL",
            Signal::Term => "SIGTERM",
            Signal::Stop => "SIGSTOP",
            Signal::Cont => "SIGCONT",
        })
    }
}
