//! One connection of a data plane, as the controller sees it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ringmaster_core::snapshot::{Packer, RingDigest, Snapshot};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::address::{Reads, Writes};
use crate::frame::{self, Frame, FrameError, Limits};
use crate::message::{Hello, Question, Run, ToController, ToPlane};
use crate::{CALLS_MAX, HEARTBEAT, LocalHandler, SILENCE_MAX, random};

/// How long a data plane may take for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Frames that wait for the writer at most.
const OUTGOING_MAX: usize = 2 * CALLS_MAX;

/// A connection that has said hello.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) process: u64,
    outgoing: mpsc::Sender<Frame<ToPlane>>,
    next: AtomicU64,
    asked: Mutex<HashMap<u64, oneshot::Sender<Bytes>>>,
}

/// What the controller hears of a connection, besides answers.
pub(crate) enum Heard {
    Report(Run, ringmaster_core::snapshot::Report),
    Listeners(Vec<String>),
}

impl Session {
    /// A connection of a process, and the queue of what is sent to it.
    pub(crate) fn new(process: u64) -> (Arc<Session>, mpsc::Receiver<Frame<ToPlane>>) {
        let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
        let session =
            Session { process, outgoing, next: AtomicU64::new(random() >> 32), asked: Mutex::default() };
        (Arc::new(session), queue)
    }

    #[cfg(test)]
    pub(crate) fn of(process: u64) -> Arc<Session> {
        Session::new(process).0
    }

    /// Asks the data plane; none if it does not answer in time, or has nothing to say.
    pub(crate) async fn ask(&self, question: Question, bytes: Bytes) -> Option<Bytes> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.asked().insert(id, reply);
        let frame = Frame { message: ToPlane::Ask { id, question }, bytes };
        let asked = async {
            self.outgoing.send(frame).await.ok()?;
            answer.await.ok()
        };
        let answer = timeout(ANSWER_MAX, asked).await.ok().flatten();
        self.asked().remove(&id);
        answer.filter(|bytes| !bytes.is_empty())
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Bytes>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the first message.
pub(crate) async fn hello(reads: &mut Reads) -> Result<Hello, FrameError> {
    let first = timeout(SILENCE_MAX, frame::read(reads, Limits::STRANGER)).await;
    match first.map_err(|_| FrameError::Stalled)??.message {
        ToController::Hello(hello) => Ok(hello),
        _ => Err(FrameError::Magic),
    }
}

/// Sends the newest snapshot whenever there is one, and what else is in the queue, until the connection breaks.
pub(crate) async fn write(
    mut writes: Writes,
    mut queue: mpsc::Receiver<Frame<ToPlane>>,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    mut known: BTreeSet<RingDigest>,
) -> FrameError {
    let mut packer = Packer::default();
    let mut beat = interval(HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    snapshots.mark_changed();
    loop {
        // Cancel-safe: the channels keep what was not taken. Frames are written outside.
        let mut frames: Vec<Frame<ToPlane>> = Vec::new();
        tokio::select! {
            Ok(()) = snapshots.changed() => {
                let snapshot = Arc::clone(&snapshots.borrow_and_update());
                // Nothing has been published yet: a data plane goes on by what it has.
                if snapshot.generation.0 > 0 {
                    let packed = packer.pack(&snapshot);
                    let rings = packer.rings();
                    for (digest, ring) in rings.iter().filter(|(digest, _)| !known.contains(digest)) {
                        let bytes = Bytes::from_owner(Arc::clone(ring));
                        frames.push(Frame { message: ToPlane::Ring { digest: *digest }, bytes });
                    }
                    known = rings.into_keys().collect();
                    frames.push(ToPlane::Snapshot(packed).into());
                }
            }
            Some(frame) = queue.recv() => frames.push(frame),
            _ = beat.tick() => frames.push(ToPlane::Ping.into()),
        }
        for frame in frames {
            if let Err(error) = frame::write(&mut writes, &frame, SILENCE_MAX).await {
                return error;
            }
        }
    }
}

/// Takes what the data plane says until it says goodbye (`Ok`) or the connection breaks.
pub(crate) async fn read(
    mut reads: Reads,
    session: &Arc<Session>,
    local: &Arc<LocalHandler>,
    hear: impl Fn(Heard),
) -> Result<(), FrameError> {
    let mut calls: JoinSet<u64> = JoinSet::new();
    let mut handles: HashMap<u64, AbortHandle> = HashMap::new();
    loop {
        let read = timeout(SILENCE_MAX, frame::read::<ToController>(&mut reads, Limits::KNOWN));
        let Frame { message, bytes } = read.await.map_err(|_| FrameError::Stalled)??;
        while let Some(ended) = calls.try_join_next() {
            if let Ok(id) = ended {
                handles.remove(&id);
            }
        }
        match message {
            ToController::Report { run, report } => hear(Heard::Report(run, report)),
            ToController::Listeners(listeners) => hear(Heard::Listeners(listeners)),
            ToController::Answer { id } => {
                // Who has asked may have given up.
                if let Some(reply) = session.asked().remove(&id) {
                    drop(reply.send(bytes));
                }
            }
            ToController::Call { id, method, path } if handles.len() < CALLS_MAX => {
                let answer = local(method, path, bytes);
                let outgoing = session.outgoing.clone();
                let call = async move {
                    let (status, bytes) = answer.await;
                    // Without a connection there is nobody to tell.
                    drop(outgoing.send(Frame { message: ToPlane::Answered { id, status }, bytes }).await);
                    id
                };
                handles.insert(id, calls.spawn(call));
            }
            // The data plane counts its calls too: only one that does not is left without an answer.
            ToController::Call { .. } => tracing::warn!("too many calls of the assignment's API at once"),
            ToController::Cancel { id } => {
                if let Some(call) = handles.remove(&id) {
                    call.abort();
                }
            }
            ToController::Ping => {}
            ToController::Bye => return Ok(()),
            ToController::Hello(_) => return Err(FrameError::Magic),
        }
    }
}
