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
use ringmaster_core::spec::Template;
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

    /// One replica as it is now; `None` if it is gone or is not ours.
    ///
    /// # Errors
    /// As the engine answers.
    async fn inspect(&self, id: &RuntimeId) -> Result<Option<RuntimeReplica>, RuntimeError>;

    /// Creates and starts a replica and returns it as it runs, with its address.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if its name is taken (by ours: observe again; by a foreign object: the message
    /// names it). What was created when the start fails is left behind in state `Created` or `Exited`, to be
    /// listed and removed like any dead replica.
    async fn create(&self, request: &CreateRequest) -> Result<RuntimeReplica, RuntimeError>;

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
    /// name back, attaches a detached one to the network again. Does nothing to one that is as it should be.
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

    /// Hints that something changed. They carry no data and may be lost: they only wake the loop, which lists
    /// again. The stream never ends by itself: it reconnects, and yields [`Wake::Reconnected`] whenever hints
    /// may have been missed, [`Wake::Disconnected`] when the engine stops answering.
    fn events(&self) -> BoxStream<'static, Wake>;
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

/// A hint that something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// Something happened to a replica of ours.
    Changed,
    /// The event stream was (re-)established: hints may have been missed.
    Reconnected,
    /// The engine does not answer; the text says why.
    Disconnected(String),
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

/// What went wrong, as far as a decision depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The object is gone: observe again.
    NotFound,
    /// The name is taken, or the object is in a state that forbids this: observe again.
    Conflict,
    /// The image is not there and cannot be pulled.
    ImageMissing,
    /// The request itself is wrong and will fail again: a bad command, a port in use, a template without image.
    Invalid,
    /// The engine cannot be reached or did not answer in time: nothing is known.
    Unreachable,
    /// Anything else that the engine refused.
    Engine,
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
