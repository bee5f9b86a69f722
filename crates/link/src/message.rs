//! What the two sides say to each other.

use ringmaster_core::ServiceName;
use ringmaster_core::snapshot::{PackedSnapshot, Report, RingDigest};
use serde::{Deserialize, Serialize};

/// One run of one controller: generations of another cannot be compared with its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Run(pub(crate) u64);

/// What a data plane says. A rule for both: who does not know a message cannot go on, so versions are of one release.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ToController {
    /// The first message.
    Hello(Hello),
    /// What it reports of the snapshots of a run.
    #[serde(rename_all = "camelCase")]
    Report { run: Run, report: Report },
    /// Where it listens, and where it should and cannot.
    Listeners(Vec<String>),
    /// The answer to a question; its bytes are the answer, and there are none if there is none.
    Answer { id: u64 },
    /// A call of the assignment's API, with its body as bytes.
    Call { id: u64, method: String, path: String },
    /// Nobody waits for the answer to a call any more.
    Cancel { id: u64 },
    /// It is there.
    Ping,
    /// It has ended in order: nothing is in flight.
    Bye,
}

/// Who a data plane is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hello {
    /// Its name: the same after a restart.
    pub(crate) name: String,
    /// Another after a restart.
    pub(crate) process: u64,
    /// Its version.
    pub(crate) software: String,
    pub(crate) token: Option<String>,
    /// The rings that it has.
    pub(crate) rings: Vec<RingDigest>,
}

/// What a controller says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ToPlane {
    /// The answer to a hello.
    Welcome { run: Run },
    /// The other answer to a hello: why not.
    Refused { why: String },
    /// A ring, as bytes, that a snapshot to come names.
    Ring { digest: RingDigest },
    /// The newest snapshot.
    Snapshot(PackedSnapshot),
    /// A question.
    Ask { id: u64, question: Question },
    /// The answer to a call, its body as bytes.
    Answered { id: u64, status: u16 },
    /// It is there.
    Ping,
}

/// What a data plane is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Question {
    /// Its metrics, as text.
    Metrics,
    /// What it would mean for recent requests if a service had the ring in the bytes.
    Traffic { service: ServiceName },
}
