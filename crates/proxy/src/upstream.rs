//! One worker's connections to one endpoint, and one try on one of them.
//!
//! Idle connections are kept per worker and endpoint, the last used first. A connection that the endpoint closes
//! while it is idle is news: it may be the first sign of its death, so it is checked at once.
//!
//! Deliberately absent: what to do about a failure ([`crate::retry`]).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ringmaster_core::snapshot::EjectReason;
use ringmaster_core::{ReplicaName, snapshot};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::h1::head::{Progress, Side};
use crate::h1::request::Method;
use crate::h1::response::{self, Response};
use crate::io::{Buffer, Buffers, Parts, is_quiet, is_still_quiet, read_more};
use crate::outlier::{ConnectError, Health, Proof};
use crate::queue::Waiting;
use crate::registry::{EndpointEntry, Shared};
use crate::stats::{EndpointStats, MemberStats, UpstreamError};

/// Most idle connections that one worker keeps to one endpoint.
const IDLE_MAX: usize = 256;
/// An idle connection is not used again after this long: the other side may be about to close it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for a request that cannot be sent again should the other side close just then. Servers close their idle
/// connections after whole seconds.
const IDLE_TIMEOUT_ONCE_ONLY: Duration = Duration::from_millis(900);

/// A replica as one worker sees it.
pub(crate) struct Endpoint {
    pub(crate) replica: ReplicaName,
    /// Which one it is.
    worker: usize,
    pub(crate) stats: Arc<EndpointStats>,
    pub(crate) health: Arc<Health>,
    pub(crate) member: Arc<MemberStats>,
    shared: Arc<Shared>,
    waiting: Rc<Waiting>,
    pool: RefCell<Pool>,
}

#[derive(Default)]
struct Pool {
    /// The last used at the back.
    idle: VecDeque<Connection>,
    /// Wakes who watches the idle ones.
    watcher: Option<Waker>,
    retired: bool,
}

/// A connection that can carry one request at a time. Dropping it closes it.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    idle_since: Instant,
    reused: bool,
}

/// Counts a request as in flight until it is dropped.
pub(crate) struct InFlight {
    endpoint: Rc<Endpoint>,
    /// It shows whether the endpoint is well again.
    proof: Option<Proof>,
    /// It became one beyond the limit: its end makes no room.
    in_excess: bool,
    /// It has become a stream.
    is_stream: bool,
}

/// A try that brought no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// Not a byte of the request was sent.
    pub(crate) unsent: bool,
}

/// What happened to a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// No connection came about.
    Connect,
    /// A connection out of the pool had ended, or ended as it was used again. It says little about the endpoint.
    Stale,
    /// A fresh connection broke before a response began.
    Broken,
    /// What came back is not HTTP.
    Invalid,
    /// No response began in time.
    ResponseTimeout,
    /// The client's body ended early, or is not what its head announced.
    ClientBody,
    /// The client's body stopped coming.
    ClientStalled,
}

/// Why no head of a response came.
#[derive(Debug)]
pub(crate) enum HeadFailure {
    /// The connection ended or failed; whether a part of a head had come.
    Ended { error: Option<io::Error>, begun: bool },
    /// What came is not the head of a response.
    Invalid,
}

/// Which connection a request may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Any that is idle.
    Any,
    /// One that was idle only now: the request cannot be sent again.
    Recent,
    /// None.
    Never,
}

impl Endpoint {
    pub(crate) fn new(
        worker: usize,
        published: &snapshot::Endpoint,
        known: &EndpointEntry,
        member: &Arc<MemberStats>,
        shared: &Arc<Shared>,
        waiting: &Rc<Waiting>,
    ) -> Rc<Endpoint> {
        let endpoint = Rc::new(Endpoint {
            replica: published.replica.clone(),
            worker,
            stats: Arc::clone(&known.stats),
            health: Arc::clone(&known.health),
            member: Arc::clone(member),
            shared: Arc::clone(shared),
            waiting: Rc::clone(waiting),
            pool: RefCell::default(),
        });
        let watched = Rc::downgrade(&endpoint);
        drop(tokio::task::spawn_local(poll_fn(move |cx| Endpoint::watch(&watched, cx))));
        endpoint
    }

    /// It has answered a request, as [`Health::answered`] wants to know.
    pub(crate) fn answered(&self, status: u16, took: Option<Duration>, proof: bool) {
        self.health.answered(self.worker, status, took, proof);
    }

    /// After how long an answer of it is later than usual, if anything is known.
    pub(crate) fn hedge_delay(&self) -> Option<Duration> {
        self.health.hedge_delay(self.worker)
    }

    /// Takes a place for a request at this endpoint. Called in the same breath as the choice: between the two
    /// a worker must not acknowledge another snapshot.
    pub(crate) fn reserve(self: &Rc<Self>, proof: Option<Proof>) -> InFlight {
        self.stats.reserve(&self.shared.signals);
        InFlight { endpoint: Rc::clone(self), proof, in_excess: false, is_stream: false }
    }

    /// A connection for one request that wants it `now`.
    ///
    /// Cancel-safe: dropping it closes the connection that it was making.
    pub(crate) async fn connection(
        self: &Rc<Self>,
        reuse: Reuse,
        now: Instant,
        limit: Duration,
    ) -> Result<Connection, Failure> {
        if let Some(connection) = self.check_out(reuse, now) {
            return Ok(connection);
        }
        match self.health.connect(limit).await {
            Ok(stream) => {
                self.member.connections.fetch_add(1, Ordering::Relaxed);
                return Ok(Connection { stream, idle_since: Instant::now(), reused: false });
            }
            Err(ConnectError::Endpoint(reason)) => self.health.eject(reason),
            Err(ConnectError::Local(error)) => {
                tracing::warn!(replica = %self.replica, %error, "cannot connect: out of sockets or ports on our side");
            }
        }
        Err(self.fail(FailureKind::Connect, true))
    }

    /// Sends a request that is at hand as a whole, and waits until the head of a response is in a buffer, which it
    /// takes only then: most of what is in flight waits, and the fewer buffers go round, the warmer they are.
    ///
    /// An endpoint may answer before it has taken everything; then some bytes are left unsent, and the connection
    /// cannot be used again. Cancel-safe: dropping it closes the connection.
    pub(crate) async fn exchange(
        self: &Rc<Self>,
        connection: &mut Connection,
        wire: &[u8],
        method: Method,
        buffers: &Rc<Buffers>,
    ) -> Result<(Response, Buffer, Sent), Failure> {
        let written = Cell::new(0);
        let answer = {
            let (mut source, mut sink) = connection.stream.split();
            let mut write_failed = false;
            let mut answer = std::pin::pin!(async {
                // An error shows when it is read.
                let _ready_or_broken = poll_fn(|cx| source.as_ref().poll_read_ready(cx)).await;
                let mut buffer = buffers.take();
                read_head(&mut source, &mut buffer, method).await.map(|response| (response, buffer))
            });
            poll_fn(|cx| {
                while written.get() < wire.len() && !write_failed {
                    match Pin::new(&mut sink).poll_write(cx, &wire[written.get()..]) {
                        Poll::Ready(Ok(count)) => written.set(written.get() + count),
                        // What it says is in what can still be read, if anything is.
                        Poll::Ready(Err(_)) => write_failed = true,
                        Poll::Pending => break,
                    }
                }
                std::future::Future::poll(answer.as_mut(), cx)
            })
            .await
        };
        match answer {
            Ok((response, buffer)) => {
                let sent = if written.get() == wire.len() { Sent::Whole } else { Sent::Partly };
                Ok((response, buffer, sent))
            }
            Err(failure) => Err(self.judge(&failure, connection.reused, written.get() == 0)),
        }
    }

    /// Takes a connection back when its response has ended.
    pub(crate) fn check_in(&self, mut connection: Connection, now: Instant) {
        let mut pool = self.pool.borrow_mut();
        if pool.retired {
            return;
        }
        let quiet = match &pool.watcher {
            Some(waker) => is_quiet(&connection.stream, &mut Context::from_waker(waker)),
            None => is_quiet(&connection.stream, &mut Context::from_waker(Waker::noop())),
        };
        if !quiet {
            // More bytes than were announced, or the end: either way it carries nothing more.
            return;
        }
        connection.idle_since = now;
        pool.drop_expired(now);
        if pool.idle.len() >= IDLE_MAX {
            pool.idle.pop_front();
        }
        pool.idle.push_back(connection);
    }

    /// The response broke off while it was relayed.
    pub(crate) fn truncated(&self) {
        self.member.count_error(UpstreamError::Truncated);
        self.health.request_check(true);
    }

    /// The endpoint is no longer published to this worker: its idle connections close.
    pub(crate) fn retire(&self) {
        let mut pool = self.pool.borrow_mut();
        pool.retired = true;
        pool.idle.clear();
        if let Some(watcher) = pool.watcher.take() {
            watcher.wake();
        }
    }

    /// Tells what the end of a connection means, and what it says about the endpoint.
    pub(crate) fn judge(self: &Rc<Self>, failure: &HeadFailure, reused: bool, unsent: bool) -> Failure {
        match failure {
            HeadFailure::Invalid => self.fail(FailureKind::Invalid, false),
            HeadFailure::Ended { begun: false, .. } if reused => self.fail(FailureKind::Stale, unsent),
            HeadFailure::Ended { error, .. } => {
                let reset =
                    error.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
                self.health.eject(if reset { EjectReason::Reset } else { EjectReason::NoResponse });
                self.fail(FailureKind::Broken, unsent)
            }
        }
    }

    /// Counts a failure.
    pub(crate) fn fail(&self, kind: FailureKind, unsent: bool) -> Failure {
        let error = match kind {
            FailureKind::Connect => Some(UpstreamError::Connect),
            FailureKind::Broken => Some(UpstreamError::NoResponse),
            FailureKind::Invalid => Some(UpstreamError::Invalid),
            FailureKind::ResponseTimeout => Some(UpstreamError::Timeout),
            FailureKind::Stale => {
                // If it was only the pool's connection that had ended, the endpoint is as good as before; if its
                // request may have been under way, nothing more goes there until a connect has succeeded.
                self.health.request_check(!unsent);
                None
            }
            FailureKind::ClientBody | FailureKind::ClientStalled => None,
        };
        if let Some(error) = error {
            self.stats.fail();
            self.member.count_error(error);
        }
        Failure { kind, unsent }
    }

    fn check_out(&self, reuse: Reuse, now: Instant) -> Option<Connection> {
        if reuse == Reuse::Never {
            return None;
        }
        let mut pool = self.pool.borrow_mut();
        while let Some(mut connection) = pool.idle.pop_back() {
            let idle = now.duration_since(connection.idle_since);
            if idle >= IDLE_TIMEOUT {
                // The others have been idle for longer.
                pool.idle.clear();
                return None;
            }
            if reuse == Reuse::Recent && idle >= IDLE_TIMEOUT_ONCE_ONLY {
                pool.idle.push_back(connection);
                return None;
            }
            if is_still_quiet(&connection.stream) {
                connection.reused = true;
                return Some(connection);
            }
            self.health.request_check(false);
        }
        None
    }

    /// Looks after idle connections until the endpoint is retired; woken when one of them has something to say.
    fn watch(watched: &Weak<Endpoint>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(endpoint) = watched.upgrade() else { return Poll::Ready(()) };
        let lost = {
            let mut pool = endpoint.pool.borrow_mut();
            if pool.retired {
                return Poll::Ready(());
            }
            if !pool.watcher.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                pool.watcher = Some(cx.waker().clone());
            }
            let before = pool.idle.len();
            pool.idle.retain(|connection| is_quiet(&connection.stream, cx));
            before > pool.idle.len()
        };
        if lost {
            endpoint.health.request_check(false);
        }
        Poll::Pending
    }
}

/// How much of a request an endpoint took before it answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// All of it.
    Whole,
    /// Not all: it would take what follows for the rest.
    Partly,
}

/// Reads the head of a response behind what `buffer` may hold of it already.
///
/// Cancel-safe: what was read is in the buffer.
pub(crate) async fn read_head(
    source: &mut (impl tokio::io::AsyncRead + Unpin),
    buffer: &mut Buffer,
    method: Method,
) -> Result<Response, HeadFailure> {
    loop {
        let Parts { bytes, head } = &mut **buffer;
        match head.advance(bytes, Side::Response) {
            Ok(Progress::Whole) => {
                return Response::of(head, bytes, method).map_err(|_| HeadFailure::Invalid);
            }
            Ok(Progress::Line) => response::check_line(head, bytes).map_err(|_| HeadFailure::Invalid)?,
            Ok(Progress::Partial) => {}
            Err(_) => return Err(HeadFailure::Invalid),
        }
        let begun = head.has_begun(bytes);
        match read_more(source, bytes).await {
            Ok(0) => return Err(HeadFailure::Ended { error: None, begun }),
            Ok(_) => {}
            Err(error) => return Err(HeadFailure::Ended { error: Some(error), begun }),
        }
    }
}

impl Connection {
    /// Whether it has carried a request before.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }
}

impl Pool {
    fn drop_expired(&mut self, now: Instant) {
        while self.idle.front().is_some_and(|c| now.duration_since(c.idle_since) >= IDLE_TIMEOUT) {
            self.idle.pop_front();
        }
    }
}

impl InFlight {
    /// Counts the request as given to this endpoint.
    pub(crate) fn count(&self) {
        self.endpoint.stats.count(self.endpoint.worker);
        self.endpoint.member.count(self.endpoint.worker);
    }

    pub(crate) fn endpoint(&self) -> &Rc<Endpoint> {
        &self.endpoint
    }

    /// Whether it shows that the endpoint is well again.
    pub(crate) fn is_proof(&self) -> bool {
        self.proof.is_some()
    }

    /// Gives back a place that there was none of. Nobody who waits is woken for it: they would take and give back what
    /// none of them can have, without end.
    pub(crate) fn give_back(mut self) {
        self.in_excess = true;
    }

    /// It is a stream from here on: an upgraded connection, or events that are sent as they happen.
    pub(crate) fn begin_stream(&mut self) {
        if !std::mem::replace(&mut self.is_stream, true) {
            self.endpoint.stats.begin_stream(&self.endpoint.shared.signals);
        }
    }

    /// Its answer has begun, which shows all that is asked of it: the next one may prove, however long this one lasts.
    pub(crate) fn end_proof(&mut self) {
        self.proof = None;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.is_stream {
            self.endpoint.stats.end_stream();
        }
        self.endpoint.stats.end(&self.endpoint.shared.signals);
        if !self.in_excess {
            self.endpoint.waiting.freed();
        }
    }
}
