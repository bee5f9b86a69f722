//! Passive ejection: what live traffic and cheap TCP checks say about an endpoint, process-wide.
//!
//! An endpoint is *ejected* when a connection to it fails or breaks without a response, when others answer sooner although
//! they were asked later, or when its answers are errors; it is *suspect* while a connect attempt takes longer than it
//! should: the address of a vanished container swallows packets. Both are skipped by the choice as long as another
//! endpoint is left. An ejected endpoint is connected to every [`RECOVERY_INTERVAL`]. Two successes in a row bring back
//! one whose connections failed; one that was ejected for its answers is then *on probation*: single requests that could
//! be sent elsewhere have to show that it answers well.
//!
//! What answers say ejects only so many at once ([`Circle`]), and never the last one: trying it beats refusing.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringmaster_core::snapshot::{self, Circuit, EjectReason};
use ringmaster_core::spec::{Ejection, Resilience};
use ringmaster_core::{ReplicaName, Timestamp};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::latency::Latency;
use crate::per_worker::PerWorker;
use crate::stats::{MemberStats, Signals};

/// A connect attempt that takes longer than this makes its endpoint suspect.
const SUSPECT_AFTER: Duration = Duration::from_millis(20);
/// Pause between two connect attempts to an ejected endpoint.
const RECOVERY_INTERVAL: Duration = Duration::from_millis(100);
/// How many attempts in a row must succeed.
const RECOVERY_SUCCESSES: u32 = 2;
/// Pause between two checks of an endpoint that closed an idle connection.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Good answers in a row that end a probation.
const PROOFS: u32 = 2;
/// After this long in service an endpoint's past ejections are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(30);

/// Why a connection did not come about.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The endpoint's doing.
    Endpoint(EjectReason),
    /// Our own: no descriptors or ports left. It says nothing about the endpoint.
    Local(io::Error),
}

/// What the control thread does for an endpoint.
#[derive(Debug)]
pub(crate) enum Task {
    /// Connect once and eject on failure.
    Check(Arc<Health>, Option<Suspicion>),
    /// Connect until it can return; the number names the ejection.
    Recover(Arc<Health>, u64),
}

/// The verdict about one endpoint at one address.
#[derive(Debug)]
pub(crate) struct Health {
    replica: ReplicaName,
    address: SocketAddr,
    member: Arc<MemberStats>,
    signals: Arc<Signals>,
    circle: Arc<Circle>,
    connect_timeout_ms: AtomicU64,
    published: AtomicBool,
    state: AtomicU8,
    /// A request proves it at this moment.
    proving: AtomicBool,
    proofs: AtomicU32,
    /// Answers of the class 5xx in a row, and what ejects.
    errors: AtomicU32,
    errors_max: AtomicU32,
    /// Requests in a row that others answered sooner, and what ejects.
    losses: AtomicU32,
    losses_max: AtomicU32,
    answers: PerWorker<Answers>,
    errors_total: AtomicU64,
    suspicions: AtomicU32,
    checking: AtomicBool,
    check_again: AtomicBool,
    track: Mutex<Track>,
}

/// One worker's answers from it.
#[derive(Debug, Default)]
struct Answers {
    total: AtomicU64,
    /// How long they take to begin.
    latency: Latency,
}

/// What only changes with an ejection or a return.
#[derive(Debug, Default)]
struct Track {
    /// Counts ejections, so that a recovery ends with the one that it belongs to.
    ejection: u64,
    cause: Option<Cause>,
    streak: u32,
    returned_at: Option<Instant>,
    spec: Ejection,
}

/// Why and until when it is out.
#[derive(Debug, Clone, Copy)]
struct Cause {
    reason: EjectReason,
    since: Timestamp,
    until: Instant,
}

/// In service: the choice takes it. Becomes `OUT`.
const IN: u8 = 0;
/// Ejected. Becomes `IN` or `ON_PROBATION`.
const OUT: u8 = 1;
/// One request at a time shows whether it is well. Becomes `IN` or `OUT`.
const ON_PROBATION: u8 = 2;

/// What the endpoints of one service know of each other.
#[derive(Debug, Default)]
pub(crate) struct Circle {
    published: AtomicU32,
    ejected: AtomicU32,
    /// Held from the question whether one more may be ejected until it is; taken after its track.
    deciding: Mutex<()>,
}

impl Circle {
    /// So many endpoints are published.
    pub(crate) fn publish(&self, count: usize) {
        self.published.store(count as u32, Ordering::Relaxed);
    }

    /// Whether one more may be ejected for its answers.
    fn may_eject(&self, spec: &Ejection) -> bool {
        let published = self.published.load(Ordering::Relaxed);
        let ejected = self.ejected.load(Ordering::Relaxed);
        let most = (published * u32::from(spec.max_ejected.0) / 100).max(u32::from(spec.max_ejected.0 > 0));
        ejected < most && ejected + 1 < published
    }
}

/// A request that shows whether an endpoint on probation is well; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Proof(Arc<Health>);

impl Drop for Proof {
    fn drop(&mut self) {
        self.0.proving.store(false, Ordering::SeqCst);
    }
}

/// Keeps an endpoint suspect until it is dropped.
#[derive(Debug)]
pub(crate) struct Suspicion(Arc<Health>);

impl Drop for Suspicion {
    fn drop(&mut self) {
        self.0.suspicions.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Health {
    pub(crate) fn new(
        replica: ReplicaName,
        address: SocketAddr,
        member: Arc<MemberStats>,
        circle: Arc<Circle>,
        signals: Arc<Signals>,
        workers: usize,
    ) -> Health {
        Health {
            replica,
            address,
            member,
            signals,
            circle,
            connect_timeout_ms: AtomicU64::new(0),
            published: AtomicBool::new(false),
            state: AtomicU8::new(IN),
            proving: AtomicBool::new(false),
            proofs: AtomicU32::new(0),
            errors: AtomicU32::new(0),
            errors_max: AtomicU32::new(0),
            losses: AtomicU32::new(0),
            losses_max: AtomicU32::new(0),
            answers: PerWorker::new(workers),
            errors_total: AtomicU64::new(0),
            suspicions: AtomicU32::new(0),
            checking: AtomicBool::new(false),
            check_again: AtomicBool::new(false),
            track: Mutex::default(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the choice may take it while there are others; `proves` says that the request could be sent elsewhere,
    /// should it fail here.
    pub(crate) fn is_usable(&self, proves: bool) -> bool {
        let fit = match self.state.load(Ordering::Relaxed) {
            IN => true,
            ON_PROBATION => proves && !self.proving.load(Ordering::Relaxed),
            _ => false,
        };
        fit && self.suspicions.load(Ordering::Relaxed) == 0
    }

    /// How often it has been ejected.
    pub(crate) fn ejections(&self) -> u64 {
        self.track().ejection
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.state.load(Ordering::Relaxed) == OUT
    }

    /// Why it is out, or was before its probation.
    pub(crate) fn circuit(&self) -> Option<Circuit> {
        let state = self.state.load(Ordering::Relaxed);
        if state == IN {
            return None;
        }
        let cause = self.track().cause?;
        Some(Circuit { reason: cause.reason, since: cause.since, on_probation: state == ON_PROBATION })
    }

    /// Takes the part of the one request that proves it, if that is asked for: an error if another one does already.
    pub(crate) fn prove(self: &Arc<Self>) -> Result<Option<Proof>, ()> {
        if self.state.load(Ordering::SeqCst) != ON_PROBATION {
            return Ok(None);
        }
        let taken = self.proving.swap(true, Ordering::SeqCst);
        if taken { Err(()) } else { Ok(Some(Proof(Arc::clone(self)))) }
    }

    /// It has answered a worker's request, `took` so long if that is of the kind to learn from; `proof` says whether as
    /// the one that proves it.
    pub(crate) fn answered(
        self: &Arc<Self>,
        worker: usize,
        status: u16,
        took: Option<Duration>,
        proof: bool,
    ) {
        let answers = self.answers.of(worker);
        answers.total.fetch_add(1, Ordering::Relaxed);
        forget(&self.losses);
        if status < 500 {
            if let Some(took) = took {
                answers.latency.learn(took);
            }
            forget(&self.errors);
            if proof && self.proofs.fetch_add(1, Ordering::SeqCst) + 1 >= PROOFS {
                self.restore(&mut self.track());
            }
            return;
        }
        self.errors_total.fetch_add(1, Ordering::Relaxed);
        let (errors, max) =
            (self.errors.fetch_add(1, Ordering::Relaxed) + 1, self.errors_max.load(Ordering::Relaxed));
        if proof || (max > 0 && errors >= max) {
            self.eject(EjectReason::Errors);
        }
    }

    /// Another endpoint has answered a request sooner, although it was asked later.
    pub(crate) fn lost(self: &Arc<Self>, proof: bool) {
        // If its address has vanished, that is known before more have lost.
        self.request_check(true);
        let (losses, max) =
            (self.losses.fetch_add(1, Ordering::Relaxed) + 1, self.losses_max.load(Ordering::Relaxed));
        if proof || (max > 0 && losses >= max) {
            self.eject(EjectReason::Slow);
        }
    }

    /// How many requests it has answered, and how many of them with errors.
    pub(crate) fn answers(&self) -> (u64, u64) {
        (self.answers.sum(|own| &own.total), self.errors_total.load(Ordering::Relaxed))
    }

    /// After how long an answer is later than usual: as the asking worker knows it, or else any other.
    pub(crate) fn hedge_delay(&self, worker: usize) -> Option<Duration> {
        let others = || self.answers.iter().find_map(|other| other.latency.hedge_delay());
        self.answers.of(worker).latency.hedge_delay().or_else(others)
    }

    /// What all workers know together of how long its answers take to begin, if they know anything.
    pub(crate) fn latency(&self) -> Option<snapshot::Latency> {
        let known: Vec<_> = self.answers.iter().filter_map(|own| own.latency.known()).collect();
        let mean = |of: fn(&snapshot::Latency) -> u64| {
            known.iter().map(of).sum::<u64>().checked_div(known.len() as u64)
        };
        let (mean_us, deviation_us) = (mean(|own| own.mean_us)?, mean(|own| own.deviation_us)?);
        Some(snapshot::Latency { mean_us, deviation_us })
    }

    /// It is in the newest snapshot. One that comes back starts afresh.
    pub(crate) fn publish(&self, resilience: &Resilience) {
        let ms = u64::try_from(resilience.connect_timeout.0.as_millis()).unwrap_or(u64::MAX);
        self.connect_timeout_ms.store(ms, Ordering::Relaxed);
        self.errors_max.store(resilience.ejection.consecutive_errors, Ordering::Relaxed);
        self.losses_max.store(resilience.ejection.hedge_losses, Ordering::Relaxed);
        let mut track = self.track();
        track.spec = resilience.ejection.clone();
        if !self.published.swap(true, Ordering::SeqCst) {
            self.restore(&mut track);
        }
    }

    /// It is no longer in the newest snapshot, or has another address there: its background work ends.
    pub(crate) fn unpublish(&self) {
        if self.published.swap(false, Ordering::SeqCst) {
            let _track = self.track();
            self.enter(IN);
        }
    }

    /// Takes it out of the choice, unless it is out already.
    pub(crate) fn eject(self: &Arc<Self>, reason: EjectReason) {
        let mut track = self.track();
        if self.is_ejected() || !self.published.load(Ordering::SeqCst) {
            return;
        }
        let on_probation = self.state.load(Ordering::SeqCst) == ON_PROBATION;
        let _deciding = self.circle.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        if !reason.is_of_connections() && !on_probation && !self.circle.may_eject(&track.spec) {
            return;
        }
        let now = Instant::now();
        let relapsed =
            on_probation || track.returned_at.is_some_and(|at| now.duration_since(at) < FORGET_AFTER);
        track.streak = if relapsed { track.streak.saturating_add(1) } else { 0 };
        track.ejection += 1;
        let time = track.spec.max_time.0.min(track.spec.time.0 * 2_u32.saturating_pow(track.streak.min(8)));
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = Timestamp(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX));
        track.cause = Some(Cause { reason, since, until: now + time });
        self.enter(OUT);
        let count = self.member.eject(reason);
        tracing::info!(replica = %self.replica, address = %self.address, reason = reason.as_str(), count, ?time, "endpoint ejected");
        self.signals.hurry();
        self.signals.run(Task::Recover(Arc::clone(self), track.ejection));
    }

    /// Changes its state; only with the track held.
    fn enter(&self, state: u8) {
        let before = self.state.swap(state, Ordering::SeqCst);
        match (before == IN, state == IN) {
            (true, false) => drop(self.circle.ejected.fetch_add(1, Ordering::Relaxed)),
            (false, true) => drop(self.circle.ejected.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        for count in [&self.errors, &self.losses, &self.proofs] {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// Makes it suspect until the guard is dropped.
    pub(crate) fn suspect(self: &Arc<Self>) -> Suspicion {
        self.suspicions.fetch_add(1, Ordering::Relaxed);
        Suspicion(Arc::clone(self))
    }

    /// Has the control thread connect to it soon; with `suspicious`, nothing is sent there until that is done.
    pub(crate) fn request_check(self: &Arc<Self>, suspicious: bool) {
        if self.checking.swap(true, Ordering::SeqCst) {
            self.check_again.store(true, Ordering::SeqCst);
        } else {
            let suspicion = suspicious.then(|| self.suspect());
            self.signals.run(Task::Check(Arc::clone(self), suspicion));
        }
    }

    /// Connects to the endpoint; one that takes long is suspect meanwhile.
    ///
    /// Cancel-safe: dropping it closes the socket and ends the suspicion.
    pub(crate) async fn connect(self: &Arc<Self>, limit: Duration) -> Result<TcpStream, ConnectError> {
        let connecting = TcpStream::connect(self.address);
        tokio::pin!(connecting);
        // Who asked may be served by another endpoint meanwhile: then others still want to know.
        let mut unfinished = Unfinished { health: self, armed: false };
        let first = SUSPECT_AFTER.min(limit);
        let result = match timeout(first, connecting.as_mut()).await {
            Ok(result) => result,
            Err(_) => {
                let _suspicion = self.suspect();
                unfinished.armed = true;
                let rest = timeout(limit - first, connecting).await;
                unfinished.armed = false;
                rest.map_err(|_| ConnectError::Endpoint(EjectReason::ConnectTimeout))?
            }
        };
        let stream = result.map_err(classify)?;
        stream.set_nodelay(true).map_err(classify)?;
        Ok(stream)
    }

    fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms.load(Ordering::Relaxed))
    }

    fn restore(&self, track: &mut Track) {
        track.cause = None;
        track.returned_at = Some(Instant::now());
        if self.state.load(Ordering::SeqCst) != IN {
            self.enter(IN);
            tracing::info!(replica = %self.replica, address = %self.address, "endpoint returned to service");
            self.signals.hurry();
        }
    }

    fn track(&self) -> MutexGuard<'_, Track> {
        self.track.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has an endpoint checked, if it is dropped while armed.
struct Unfinished<'a> {
    health: &'a Arc<Health>,
    armed: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.health.request_check(true);
        }
    }
}

/// Runs one task to its end, which comes soon after the endpoint is unpublished.
pub(crate) async fn run(task: Task) {
    match task {
        Task::Check(health, suspicion) => check(health, suspicion).await,
        Task::Recover(health, ejection) => recover(&health, ejection).await,
    }
}

async fn check(health: Arc<Health>, mut suspicion: Option<Suspicion>) {
    loop {
        health.check_again.store(false, Ordering::SeqCst);
        match health.connect(health.connect_timeout()).await {
            Ok(_) => {}
            Err(ConnectError::Endpoint(reason)) => health.eject(reason),
            Err(ConnectError::Local(error)) => {
                tracing::warn!(replica = %health.replica, %error, "cannot check an endpoint: out of sockets or ports");
            }
        }
        drop(suspicion.take());
        sleep(CHECK_INTERVAL).await;
        if health.check_again.load(Ordering::SeqCst) {
            continue;
        }
        // A request that came between the load and this store finds `checking` still set, so look again.
        health.checking.store(false, Ordering::SeqCst);
        if !health.check_again.load(Ordering::SeqCst) || health.checking.swap(true, Ordering::SeqCst) {
            return;
        }
    }
}

async fn recover(health: &Arc<Health>, ejection: u64) {
    let mut successes = 0;
    loop {
        sleep(RECOVERY_INTERVAL).await;
        if !health.published.load(Ordering::SeqCst) {
            return;
        }
        let connected = health.connect(health.connect_timeout()).await.is_ok();
        successes = if connected { successes + 1 } else { 0 };
        let mut track = health.track();
        let Some(Cause { reason, until, .. }) = track.cause else { return };
        if track.ejection != ejection || !health.is_ejected() {
            return;
        }
        let time_over = is_refuted_by_connecting(reason) || Instant::now() >= until;
        if successes >= RECOVERY_SUCCESSES && time_over {
            if reason.is_of_connections() {
                health.restore(&mut track);
            } else {
                health.enter(ON_PROBATION);
                tracing::info!(replica = %health.replica, address = %health.address, "endpoint on probation");
                health.signals.hurry();
            }
            return;
        }
    }
}

/// Whether a successful connect proves it wrong. Otherwise the ejection's time must be over, too.
fn is_refuted_by_connecting(reason: EjectReason) -> bool {
    matches!(reason, EjectReason::Refused | EjectReason::Unreachable | EjectReason::ConnectTimeout)
}

/// Ends a row; a store only where there is one, since others read the same memory.
fn forget(row: &AtomicU32) {
    if row.load(Ordering::Relaxed) != 0 {
        row.store(0, Ordering::Relaxed);
    }
}

fn classify(error: io::Error) -> ConnectError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Endpoint(EjectReason::Refused),
        io::ErrorKind::TimedOut => ConnectError::Endpoint(EjectReason::ConnectTimeout),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::NotConnected => {
            ConnectError::Endpoint(EjectReason::Reset)
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            ConnectError::Endpoint(EjectReason::Unreachable)
        }
        _ => ConnectError::Local(error),
    }
}
