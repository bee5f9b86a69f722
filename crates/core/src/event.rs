//! The event timeline: what happened, to what, and why.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::ids::ServiceName;
use crate::reason::Reason;

/// One entry of the timeline. Repetitions of the same entry are counted, not listed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Grows with every new or repeated entry; a reader asks for those after the last it has seen.
    pub sequence: u64,
    /// When it last happened.
    pub at: Timestamp,
    /// When it first happened.
    pub first_at: Timestamp,
    /// How often.
    pub count: u32,
    /// Normal course, or something that a person should know.
    pub severity: Severity,
    /// The service, if it is about one.
    pub service: Option<ServiceName>,
    /// What it is about: a replica's short name, or `service`, `engine`, `manifest`, `state`.
    pub object: String,
    /// Why, in one word that scripts can match.
    pub reason: Reason,
    /// The whole sentence for people.
    pub message: String,
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// The normal course.
    Normal,
    /// Something that a person should know.
    Warning,
}
