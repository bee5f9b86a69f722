//! One worker's connections to one endpoint, and one try on one of them.
//!
//! Idle connections are kept per worker and endpoint, the last used first. A connection that the endpoint closes
//! while it is idle is news: it may be the first sign of its death, so it is checked at once.
//!
//! Deliberately absent: what to do about a failure ([`crate::retry`]).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::error::Error;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use ringmaster_core::{ReplicaName, snapshot};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::body::{Progress, RequestBody};
use crate::outlier::{ConnectError, EjectReason, Health};
use crate::registry::{EndpointEntry, Shared};
use crate::stats::{EndpointStats, MemberStats, UpstreamError};

/// Most idle connections that one worker keeps to one endpoint.
const IDLE_MAX: usize = 256;
/// An idle connection is not used again after this long: the other side may be about to close it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Read and write buffer of a connection, and so the longest response head.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// A replica as one worker sees it.
pub(crate) struct Endpoint {
    pub(crate) replica: ReplicaName,
    pub(crate) stats: Arc<EndpointStats>,
    pub(crate) health: Arc<Health>,
    pub(crate) member: Arc<MemberStats>,
    shared: Arc<Shared>,
    pool: RefCell<Pool>,
}

#[derive(Default)]
struct Pool {
    /// The last used at the back.
    idle: VecDeque<Connection>,
    retired: bool,
}

/// A connection that can carry one request at a time. Dropping it closes it.
pub(crate) struct Connection {
    sender: SendRequest<RequestBody>,
    state: Rc<Cell<ConnectionState>>,
    idle_since: Instant,
}

/// Why a connection is where it is; decides whether its end is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionState {
    /// Carries a request: its end is that request's failure. Becomes `Idle` or `Closed`.
    Busy,
    /// In the pool: its end is news. Becomes `Busy` or `Closed`.
    Idle,
    /// We dropped it. Final.
    Closed,
}

/// Counts a request as in flight until it is dropped.
pub(crate) struct InFlight(Rc<Endpoint>);

/// A try that brought no response.
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// The request, if not a byte of it was sent.
    pub(crate) unsent: Option<Request<RequestBody>>,
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
    /// The client's body ended early.
    ClientBody,
    /// The client's body stopped coming.
    ClientStalled,
}

impl Endpoint {
    pub(crate) fn new(
        published: &snapshot::Endpoint,
        known: &EndpointEntry,
        member: &Arc<MemberStats>,
        shared: &Arc<Shared>,
    ) -> Rc<Endpoint> {
        Rc::new(Endpoint {
            replica: published.replica.clone(),
            stats: Arc::clone(&known.stats),
            health: Arc::clone(&known.health),
            member: Arc::clone(member),
            shared: Arc::clone(shared),
            pool: RefCell::default(),
        })
    }

    /// Takes a place for a request at this endpoint. Called in the same breath as the choice: between the two
    /// a worker must not acknowledge another snapshot.
    pub(crate) fn reserve(self: &Rc<Self>) -> InFlight {
        self.stats.reserve(&self.shared.signals);
        InFlight(Rc::clone(self))
    }

    /// Sends a request and waits until its response begins. `fresh` forbids a connection out of the pool.
    ///
    /// Cancel-safe: dropping it closes the connection that it used.
    pub(crate) async fn send(
        self: &Rc<Self>,
        request: Request<RequestBody>,
        fresh: bool,
        limits: &Limits,
        progress: &Progress,
    ) -> Result<(Response<Incoming>, Connection), Failure> {
        let pooled = if fresh { None } else { self.check_out() };
        let reused = pooled.is_some();
        let mut connection = match pooled {
            Some(connection) => connection,
            None => match self.connect(limits.connect).await {
                Ok(connection) => connection,
                Err(()) => return Err(self.fail(FailureKind::Connect, Some(request))),
            },
        };
        let response = connection.sender.try_send_request(request);
        match progress.response_within(response, limits.response).await {
            None if progress.is_stalled() => Err(self.fail(FailureKind::ClientStalled, None)),
            None => Err(self.fail(FailureKind::ResponseTimeout, None)),
            Some(Ok(response)) => Ok((response, connection)),
            Some(Err(mut error)) => {
                let unsent = error.take_message();
                let kind = if progress.has_failed() {
                    FailureKind::ClientBody
                } else {
                    self.judge(error.error(), reused)
                };
                Err(self.fail(kind, unsent))
            }
        }
    }

    /// Takes a connection back when its response has ended.
    pub(crate) fn check_in(&self, mut connection: Connection) {
        let mut pool = self.pool.borrow_mut();
        if pool.retired || connection.sender.is_closed() {
            return;
        }
        connection.idle_since = Instant::now();
        connection.state.set(ConnectionState::Idle);
        pool.drop_expired(connection.idle_since);
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
    }

    fn check_out(&self) -> Option<Connection> {
        let mut pool = self.pool.borrow_mut();
        pool.drop_expired(Instant::now());
        // One that is neither closed nor ready still writes a request whose response came early; it stays.
        while let Some(index) = pool.idle.iter().rposition(|c| c.sender.is_ready() || c.sender.is_closed()) {
            let connection = pool.idle.remove(index)?;
            if !connection.sender.is_closed() {
                connection.state.set(ConnectionState::Busy);
                return Some(connection);
            }
        }
        None
    }

    async fn connect(self: &Rc<Self>, limit: Duration) -> Result<Connection, ()> {
        let stream = self.health.connect(limit).await.map_err(|error| match error {
            ConnectError::Endpoint(reason) => self.health.eject(reason),
            ConnectError::Local(error) => {
                tracing::warn!(replica = %self.replica, %error, "cannot connect: out of sockets or ports on our side");
            }
        })?;
        self.handshake(stream).await.map_err(|error| {
            tracing::warn!(replica = %self.replica, %error, "cannot set up an upstream connection");
        })
    }

    /// Puts HTTP on a connection and drives it in the background until it ends.
    async fn handshake(self: &Rc<Self>, stream: TcpStream) -> Result<Connection, hyper::Error> {
        let mut builder = Builder::new();
        builder.max_buf_size(BUFFER_BYTES_MAX);
        let (sender, driver) = builder.handshake(TokioIo::new(stream)).await?;
        self.member.connections.fetch_add(1, Ordering::Relaxed);
        let state = Rc::new(Cell::new(ConnectionState::Busy));
        let (endpoint, watched) = (Rc::downgrade(self), Rc::clone(&state));
        tokio::task::spawn_local(async move {
            if let Err(error) = driver.with_upgrades().await {
                tracing::debug!(%error, "upstream connection ended");
            }
            if watched.get() == ConnectionState::Idle {
                Endpoint::lost_idle(&endpoint);
            }
        });
        Ok(Connection { sender, state, idle_since: Instant::now() })
    }

    fn lost_idle(endpoint: &Weak<Endpoint>) {
        if let Some(endpoint) = endpoint.upgrade() {
            endpoint.pool.borrow_mut().idle.retain(|connection| !connection.sender.is_closed());
            endpoint.health.request_check(false);
        }
    }

    /// Tells what an error of hyper means, and what it says about the endpoint.
    fn judge(&self, error: &hyper::Error, reused: bool) -> FailureKind {
        if error.is_parse() {
            return FailureKind::Invalid;
        }
        if reused {
            return FailureKind::Stale;
        }
        let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        let reset = io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionReset);
        self.health.eject(if reset { EjectReason::Reset } else { EjectReason::NoResponse });
        FailureKind::Broken
    }

    fn fail(&self, kind: FailureKind, unsent: Option<Request<RequestBody>>) -> Failure {
        let error = match kind {
            FailureKind::Connect => Some(UpstreamError::Connect),
            FailureKind::Broken => Some(UpstreamError::NoResponse),
            FailureKind::Invalid => Some(UpstreamError::Invalid),
            FailureKind::ResponseTimeout => Some(UpstreamError::Timeout),
            FailureKind::Stale => {
                // If it was only the pool's connection that had ended, the endpoint is as good as before; if its
                // request may have been under way, nothing more goes there until a connect has succeeded.
                self.health.request_check(unsent.is_none());
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
}

/// How long the parts of a try may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) connect: Duration,
    pub(crate) response: Duration,
}

impl Pool {
    fn drop_expired(&mut self, now: Instant) {
        while self.idle.front().is_some_and(|c| now.duration_since(c.idle_since) >= IDLE_TIMEOUT) {
            self.idle.pop_front();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.state.set(ConnectionState::Closed);
    }
}

impl InFlight {
    /// Counts the request as given to this endpoint.
    pub(crate) fn count(&self) {
        self.0.stats.count();
        self.0.member.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn endpoint(&self) -> &Rc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.stats.end(&self.0.shared.signals);
    }
}
