//! What happens in a run, and the calls that are on their way.

use std::cmp::Ordering;

use ringmaster_core::autoscale::Decided;
use ringmaster_core::observed::{RuntimeId, RuntimeReplica};
use ringmaster_core::rollout::{FailedRelease, Release};
use ringmaster_core::spec::Template;
use ringmaster_core::world::ErrorKind;
use ringmaster_core::{ReplicaName, Revision, ServiceName};

use crate::fault::Boundary;
use crate::store::Edit;

/// Something that happens at a time.
#[derive(Debug)]
pub(crate) enum Event {
    Idle,
    Start,
    Wake { run: u32 },
    Timer { run: u32 },
    Listed { run: u32, number: u64, began: u64, result: Option<Result<Vec<RuntimeReplica>, String>> },
    Resolved { run: u32, service: ServiceName, template: Box<Template>, refused: Option<String> },
    Call(Box<Call>),
    Done(Box<Call>, Result<Option<RuntimeReplica>, Failure>),
    Hint,
    Probe { run: u32, name: ReplicaName },
    Exits(u64),
    Swap,
    Report { number: u64 },
    PlaneBack,
    Request,
    RequestEnds { life: u32, name: ReplicaName, count: u32 },
    Load,
    HoldEnds { number: u64 },
    SetCount { run: u32, decided: Box<Decided> },
    Edit(Edit),
    WriteReady { run: u32 },
    GiveUp { run: u32, name: ServiceName, failed: Box<(FailedRelease, Release)> },
}

/// An event and its time; of two at one time, the one that was asked for first comes first.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) at: u64,
    pub(crate) sequence: u64,
    pub(crate) event: Event,
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

/// A call that failed.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    pub(crate) why: String,
}

/// A step of an action on its way to the engine and back.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) run: u32,
    pub(crate) name: ReplicaName,
    pub(crate) step: Step,
    pub(crate) answer_lost: bool,
    pub(crate) start_refused: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Create { revision: Revision, host: Option<String>, template: Box<Template> },
    Inspect { id: RuntimeId, grace: Option<std::time::Duration> },
    Stop { id: RuntimeId, grace: std::time::Duration },
    Remove { id: RuntimeId },
    Repair { id: RuntimeId },
}

impl Step {
    pub(crate) fn boundary(&self) -> Boundary {
        match self {
            Step::Create { .. } => Boundary::Create,
            Step::Inspect { .. } => Boundary::Inspect,
            Step::Stop { .. } => Boundary::Stop,
            Step::Remove { .. } => Boundary::Remove,
            Step::Repair { .. } => Boundary::Repair,
        }
    }
}
