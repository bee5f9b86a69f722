//! Passive ejection: what live traffic and cheap TCP checks say about an endpoint, process-wide.
//!
//! An endpoint is *ejected* when a connection to it fails or breaks without a response, and *suspect* while a
//! connect attempt takes longer than it should: the address of a vanished container swallows packets. Both are
//! skipped by the choice as long as another endpoint is left. An ejected endpoint is connected to every
//! [`RECOVERY_INTERVAL`] and returns after two successes in a row.
//!
//! Deliberately absent: slow or wrong answers. Judging those is the probes' business.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringmaster_core::ReplicaName;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::stats::{MemberStats, Signals};

/// A connect attempt that takes longer than this makes its endpoint suspect.
const SUSPECT_AFTER: Duration = Duration::from_millis(20);
/// Pause between two connect attempts to an ejected endpoint.
const RECOVERY_INTERVAL: Duration = Duration::from_millis(100);
/// How many attempts in a row must succeed.
const RECOVERY_SUCCESSES: u32 = 2;
/// Pause between two checks of an endpoint that closed an idle connection.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// The first ejection for a broken response lasts at least this long, and twice as long each next time.
const EJECTION_MIN: Duration = Duration::from_secs(1);
const EJECTION_MAX: Duration = Duration::from_secs(10);
/// After this long in service an endpoint's past ejections are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(30);

/// Why an endpoint was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EjectReason {
    /// Nobody listens on its port.
    Refused,
    /// There is no way to its address.
    Unreachable,
    /// A connection did not come about in time.
    ConnectTimeout,
    /// It reset a connection.
    Reset,
    /// It closed a connection instead of answering.
    NoResponse,
}

impl EjectReason {
    fn as_str(self) -> &'static str {
        match self {
            EjectReason::Refused => "connection refused",
            EjectReason::Unreachable => "unreachable",
            EjectReason::ConnectTimeout => "connect timeout",
            EjectReason::Reset => "connection reset",
            EjectReason::NoResponse => "connection closed without a response",
        }
    }

    /// Whether a successful connect proves it wrong. Otherwise the ejection's time must be over, too.
    fn is_refuted_by_connecting(self) -> bool {
        match self {
            EjectReason::Refused | EjectReason::Unreachable | EjectReason::ConnectTimeout => true,
            EjectReason::Reset | EjectReason::NoResponse => false,
        }
    }
}

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
    connect_timeout_ms: AtomicU64,
    published: AtomicBool,
    ejected: AtomicBool,
    suspicions: AtomicU32,
    checking: AtomicBool,
    check_again: AtomicBool,
    track: Mutex<Track>,
}

/// What only changes with an ejection or a return.
#[derive(Debug, Default)]
struct Track {
    /// Counts ejections, so that a recovery ends with the one that it belongs to.
    ejection: u64,
    cause: Option<(EjectReason, Instant)>,
    streak: u32,
    returned_at: Option<Instant>,
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
        signals: Arc<Signals>,
    ) -> Health {
        Health {
            replica,
            address,
            member,
            signals,
            connect_timeout_ms: AtomicU64::new(0),
            published: AtomicBool::new(true),
            ejected: AtomicBool::new(false),
            suspicions: AtomicU32::new(0),
            checking: AtomicBool::new(false),
            check_again: AtomicBool::new(false),
            track: Mutex::default(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the choice may take it while there are others.
    pub(crate) fn is_usable(&self) -> bool {
        !self.is_ejected() && self.suspicions.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// It is in the newest snapshot. One that comes back starts afresh.
    pub(crate) fn publish(&self, connect_timeout: Duration) {
        let ms = u64::try_from(connect_timeout.as_millis()).unwrap_or(u64::MAX);
        self.connect_timeout_ms.store(ms, Ordering::Relaxed);
        if !self.published.swap(true, Ordering::SeqCst) {
            self.restore(&mut self.track());
        }
    }

    /// It is no longer in the newest snapshot, or has another address there: its background work ends.
    pub(crate) fn unpublish(&self) {
        self.published.store(false, Ordering::SeqCst);
    }

    /// Takes it out of the choice, unless it is out already.
    pub(crate) fn eject(self: &Arc<Self>, reason: EjectReason) {
        let mut track = self.track();
        if self.is_ejected() || !self.published.load(Ordering::SeqCst) {
            return;
        }
        let now = Instant::now();
        let relapsed = track.returned_at.is_some_and(|at| now.duration_since(at) < FORGET_AFTER);
        track.streak = if relapsed { track.streak.saturating_add(1) } else { 0 };
        track.ejection += 1;
        let time = EJECTION_MAX.min(EJECTION_MIN * 2_u32.saturating_pow(track.streak.min(8)));
        track.cause = Some((reason, now + time));
        self.ejected.store(true, Ordering::Relaxed);
        let count = self.member.ejections.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::info!(replica = %self.replica, address = %self.address, reason = reason.as_str(), count, "endpoint ejected");
        self.signals.hurry();
        self.signals.run(Task::Recover(Arc::clone(self), track.ejection));
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
        let first = SUSPECT_AFTER.min(limit);
        let result = match timeout(first, connecting.as_mut()).await {
            Ok(result) => result,
            Err(_) => {
                let _suspicion = self.suspect();
                let rest = timeout(limit - first, connecting).await;
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
        if self.ejected.swap(false, Ordering::Relaxed) {
            tracing::info!(replica = %self.replica, address = %self.address, "endpoint returned to service");
            self.signals.hurry();
        }
    }

    fn track(&self) -> MutexGuard<'_, Track> {
        self.track.lock().unwrap_or_else(PoisonError::into_inner)
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
        let Some((reason, until)) = track.cause else { return };
        if track.ejection != ejection {
            return;
        }
        let time_over = reason.is_refuted_by_connecting() || Instant::now() >= until;
        if successes >= RECOVERY_SUCCESSES && time_over {
            health.restore(&mut track);
            return;
        }
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
