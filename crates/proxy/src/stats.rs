//! Process-wide counters of endpoints, members and services, and the signals that say a report is due.
//!
//! A request counts without waiting for a lock, and what every request counts, in memory of its worker alone. Who keeps
//! these counters and for how long is in [`crate::registry`].

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ringmaster_core::quantity::Percent;
use ringmaster_core::ring::Ring;
use ringmaster_core::snapshot::{EjectReason, ServiceReport};
use ringmaster_core::traffic::{self, KeySample, TrafficMoved, hottest_permille};
use tokio::sync::{Notify, mpsc};

use crate::budget::Budget;
use crate::crowd::Crowd;
use crate::error::Refusal;
use crate::outlier::{Circle, Task};
use crate::per_worker::PerWorker;
use crate::stripes::Stripes;

/// Turns that an endpoint may catch up.
const TURNS_BEHIND_MAX: u64 = 1_000;

/// Wakes the reporter and hands it tasks.
#[derive(Debug)]
pub(crate) struct Signals {
    urgent: Notify,
    changed: Notify,
    dirty: AtomicBool,
    tasks: mpsc::UnboundedSender<Task>,
}

impl Signals {
    /// Signals, and the other end of the task queue.
    pub(crate) fn new() -> (Arc<Signals>, mpsc::UnboundedReceiver<Task>) {
        let (tasks, receiver) = mpsc::unbounded_channel();
        let signals =
            Signals { urgent: Notify::new(), changed: Notify::new(), dirty: AtomicBool::new(false), tasks };
        (Arc::new(signals), receiver)
    }

    /// Something changed that a report should tell within its usual interval. One load when that is known.
    pub(crate) fn touch(&self) {
        if !self.dirty.load(Ordering::SeqCst) && !self.dirty.swap(true, Ordering::SeqCst) {
            self.changed.notify_one();
        }
    }

    /// Something changed that the controller waits for: report at once.
    pub(crate) fn hurry(&self) {
        self.urgent.notify_one();
    }

    /// Hands a task to the control thread. The queue is bounded by its users: at most one check and one
    /// recovery per endpoint.
    pub(crate) fn run(&self, task: Task) {
        if self.tasks.send(task).is_err() {
            tracing::debug!("the control thread has ended, a check of an endpoint is dropped");
        }
    }

    /// Resolves when a report is due at once. Cancel-safe: a permit is only taken by completing.
    pub(crate) async fn urgent(&self) {
        self.urgent.notified().await;
    }

    /// Resolves when a report is due within the usual interval. Cancel-safe as [`Signals::urgent`].
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The report that is about to be made covers everything so far.
    pub(crate) fn settle(&self) {
        self.dirty.store(false, Ordering::SeqCst);
    }
}

/// What is counted of one endpoint. A new one is not published until the registry says so.
#[derive(Debug)]
pub(crate) struct EndpointStats {
    /// One number for all workers: every choice reads it, and the drain handshake ends when it is 0.
    in_flight: AtomicU32,
    requests: PerWorker<AtomicU64>,
    streams: AtomicU32,
    turns: AtomicU64,
    failures: AtomicU64,
    published: AtomicBool,
}

impl EndpointStats {
    /// For so many workers.
    pub(crate) fn new(workers: usize) -> EndpointStats {
        EndpointStats {
            in_flight: AtomicU32::new(0),
            requests: PerWorker::new(workers),
            streams: AtomicU32::new(0),
            turns: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            published: AtomicBool::new(false),
        }
    }

    /// A place for a request is taken at this endpoint.
    pub(crate) fn reserve(&self, signals: &Signals) {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        signals.touch();
    }

    /// A worker's request goes there.
    pub(crate) fn count(&self, worker: usize) {
        self.requests.of(worker).fetch_add(1, Ordering::Relaxed);
    }

    /// That request has ended, or its place is given back. The last one of an endpoint that is being drained is news for
    /// the controller.
    pub(crate) fn end(&self, signals: &Signals) {
        let last = self.in_flight.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && !self.published.load(Ordering::SeqCst) { signals.hurry() } else { signals.touch() }
    }

    pub(crate) fn fail(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// A request that is in flight has become a stream: it ends when one of the two wants that.
    pub(crate) fn begin_stream(&self, signals: &Signals) {
        self.streams.fetch_add(1, Ordering::SeqCst);
        signals.touch();
    }

    /// A stream is over; its request ends with it.
    pub(crate) fn end_stream(&self) {
        self.streams.fetch_sub(1, Ordering::SeqCst);
    }

    /// How many of those in flight are streams.
    pub(crate) fn streams(&self) -> u32 {
        self.streams.load(Ordering::SeqCst)
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.sum(|own| own)
    }

    /// How often it was chosen by load or turn, and not by a key: between equally loaded endpoints the one with fewer
    /// turns comes next. A new one begins where the others are.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// It was chosen over others of which the first has had so many turns. What it lags behind beyond
    /// [`TURNS_BEHIND_MAX`] is forgiven: who was away or slow for an hour must not be flooded for the next one.
    pub(crate) fn take_turn(&self, first: u64) {
        self.begin_at(first.saturating_sub(TURNS_BEHIND_MAX));
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn begin_at(&self, turns: u64) {
        self.turns.fetch_max(turns, Ordering::Relaxed);
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(crate) fn is_published(&self) -> bool {
        self.published.load(Ordering::SeqCst)
    }

    pub(crate) fn set_published(&self, published: bool) {
        self.published.store(published, Ordering::SeqCst);
    }
}

/// Why a try failed, as a metric's label. The order is that of [`UpstreamError::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpstreamError {
    /// No connection came about.
    Connect,
    /// The connection broke before a response began.
    NoResponse,
    /// The connection broke while the response was relayed.
    Truncated,
    /// What came back is not HTTP.
    Invalid,
    /// No response began in time.
    Timeout,
}

impl UpstreamError {
    pub(crate) const ALL: [(UpstreamError, &'static str); 5] = [
        (UpstreamError::Connect, "connect"),
        (UpstreamError::NoResponse, "no_response"),
        (UpstreamError::Truncated, "truncated"),
        (UpstreamError::Invalid, "invalid_response"),
        (UpstreamError::Timeout, "timeout"),
    ];
}

/// What is counted of one member's place, over all replicas that filled it.
#[derive(Debug)]
pub(crate) struct MemberStats {
    requests: PerWorker<AtomicU64>,
    ejections: [AtomicU64; EjectReason::ALL.len()],
    /// Connections that were made.
    pub(crate) connections: AtomicU64,
    errors: [AtomicU64; UpstreamError::ALL.len()],
}

impl MemberStats {
    /// For so many workers.
    pub(crate) fn new(workers: usize) -> MemberStats {
        MemberStats {
            requests: PerWorker::new(workers),
            ejections: Default::default(),
            connections: AtomicU64::new(0),
            errors: Default::default(),
        }
    }

    /// A worker's request goes there.
    pub(crate) fn count(&self, worker: usize) {
        self.requests.of(worker).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.sum(|own| own)
    }

    /// It was ejected for this; returns how often it has been for anything.
    pub(crate) fn eject(&self, reason: EjectReason) -> u64 {
        self.ejections[reason as usize].fetch_add(1, Ordering::Relaxed);
        EjectReason::ALL.into_iter().map(|reason| self.ejections(reason)).sum()
    }

    pub(crate) fn ejections(&self, reason: EjectReason) -> u64 {
        self.ejections[reason as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn count_error(&self, error: UpstreamError) {
        self.errors[error as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn errors(&self, error: UpstreamError) -> u64 {
        self.errors[error as usize].load(Ordering::Relaxed)
    }
}

/// What is counted of one service.
#[derive(Debug)]
pub(crate) struct ServiceStats {
    pub(crate) replays: AtomicU64,
    /// Tries beside a first one that took long.
    pub(crate) hedges: AtomicU64,
    /// Those whose answer came first.
    pub(crate) hedges_won: AtomicU64,
    /// Tries that the budget forbade.
    pub(crate) over_budget: AtomicU64,
    /// Requests that wait for a place at an endpoint now, on all workers.
    pub(crate) queued: Arc<AtomicU32>,
    /// Requests that wait for the first endpoint now, on all workers.
    pub(crate) held: AtomicU32,
    pub(crate) budget: Budget,
    pub(crate) circle: Arc<Circle>,
    pub(crate) stripes: Stripes,
    refusals: [AtomicU64; Refusal::ALL.len()],
    /// Since when minutes are counted.
    start: Instant,
    /// A sample of the keys of recent requests.
    recent: PerWorker<Mutex<KeySample>>,
}

impl ServiceStats {
    /// For so many workers.
    pub(crate) fn new(workers: usize) -> ServiceStats {
        ServiceStats {
            replays: AtomicU64::new(0),
            hedges: AtomicU64::new(0),
            hedges_won: AtomicU64::new(0),
            over_budget: AtomicU64::new(0),
            queued: Arc::default(),
            held: AtomicU32::new(0),
            budget: Budget::default(),
            circle: Arc::default(),
            stripes: Stripes::new(workers),
            refusals: Default::default(),
            start: Instant::now(),
            recent: PerWorker::new(workers),
        }
    }

    fn minute(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / 60
    }

    /// The samples of all workers. While they are held, no request is added to them.
    fn recent(&self) -> Vec<MutexGuard<'_, KeySample>> {
        self.recent.iter().map(|own| own.lock().unwrap_or_else(PoisonError::into_inner)).collect()
    }

    /// Asks for a try after the first one.
    pub(crate) fn may_retry(&self, share: Percent) -> bool {
        let granted = self.budget.withdraw(share, self.stripes.completed());
        // Where none are wanted, none are missed.
        if !granted && share != Percent(0) {
            self.over_budget.fetch_add(1, Ordering::Relaxed);
        }
        granted
    }

    /// A request got an answer of our own.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        self.refusals[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refusals(&self, refusal: Refusal) -> u64 {
        self.refusals[refusal as usize].load(Ordering::Relaxed)
    }

    /// A worker's request has this key. Never waits: while somebody reads the sample, it is left out.
    pub(crate) fn offer(&self, worker: usize, key: &[u8], now: Instant, random: u32) {
        if let Ok(mut sample) = self.recent.of(worker).try_lock() {
            sample.offer(self.minute(now), key, random);
        }
    }

    /// What the controller wants to know of requests.
    pub(crate) fn report(&self) -> ServiceReport {
        let (queued, held) = (self.queued.load(Ordering::Relaxed), self.held.load(Ordering::SeqCst));
        let minute = self.minute(Instant::now());
        ServiceReport {
            waiting: queued.saturating_add(held),
            responses: self.stripes.completed(),
            hottest_permille: hottest_permille(self.recent().iter().map(Deref::deref), minute),
        }
    }

    /// What a change of the ring would mean for the requests of the last minutes.
    pub(crate) fn moved(&self, before: &Ring, after: &Ring) -> Option<TrafficMoved> {
        traffic::moved(self.recent().iter().map(Deref::deref), self.minute(Instant::now()), before, after)
    }
}

/// What is counted before a service is known.
#[derive(Debug, Default)]
pub(crate) struct FrontStats {
    /// Connections of clients that were accepted.
    pub(crate) accepted: AtomicU64,
    /// Those that are open.
    pub(crate) open: AtomicU64,
    /// Who has how many of them.
    pub(crate) crowd: Arc<Crowd>,
    unrouted: [AtomicU64; Refusal::ALL.len()],
}

impl FrontStats {
    /// A request belonged to no service.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        self.unrouted[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refusals(&self, refusal: Refusal) -> u64 {
        self.unrouted[refusal as usize].load(Ordering::Relaxed)
    }
}
