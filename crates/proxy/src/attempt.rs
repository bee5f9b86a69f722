//! Tries of one request, until a response begins.
//!
//! A request that is at hand as a whole may be tried at several endpoints: after a failure, after an answer that another
//! endpoint may better, and beside a try that takes longer than its endpoint usually does (Dean and Barroso, "The Tail at
//! Scale", 2013). Each try resolves against the newest routing. Between the choice of an endpoint and its count nothing
//! is awaited, so a worker that has swapped in a snapshot has counted every request that it gave to an endpoint of the
//! one before. A timer adds a try and never ends the only one that is left, before the request's own deadline.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;
use tokio::time::{Instant, Sleep, sleep};

use crate::error::Refusal;
use crate::forward::find;
use crate::h1::request::{Method, Request};
use crate::h1::response::Response;
use crate::io::{Buffer, Timer};
use crate::key::Key;
use crate::picker;
use crate::retry::{self, Decision, Rights};
use crate::routing::Service;
use crate::upstream::{Connection, Endpoint, Failure, FailureKind, HeadFailure, InFlight, Reuse, Sent, read_head};
use crate::worker::Worker;

/// Most interim responses before the one that counts.
pub(crate) const INTERIM_MAX: u32 = 64;
/// How long a client that has closed its side for writing, and gets nothing, may still be there to read.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(2);

/// A request as every try needs it.
pub(crate) struct Job<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) request: &'a Request,
    /// The client's bytes, which the request's places are in.
    pub(crate) buffer: &'a [u8],
    pub(crate) key: Option<&'a Key>,
    /// What is sent.
    pub(crate) wire: &'a [u8],
}

/// A response that has begun, and what ends with it.
pub(crate) struct Begun {
    pub(crate) connection: Connection,
    pub(crate) buffer: Buffer,
    pub(crate) response: Response,
    pub(crate) in_flight: InFlight,
    /// The endpoint took the whole request.
    pub(crate) sent_whole: bool,
    interim: u32,
}

/// A try under way.
struct Try<'a> {
    endpoint: Rc<Endpoint>,
    since: Instant,
    future: Pin<Box<dyn Future<Output = Result<Begun, Failure>> + 'a>>,
}

/// All tries of one request.
struct Race<'a> {
    job: &'a Job<'a>,
    running: Vec<Try<'a>>,
    tried: Vec<Rc<Endpoint>>,
    replays: u32,
    reuse: Reuse,
    /// An answer that is passed on if no other endpoint gives a better one.
    fallback: Option<Begun>,
    /// What to say when no try is left.
    refusal: Refusal,
    response_timeout: Duration,
    hedge: Option<Pin<Box<Sleep>>>,
}

/// What happens next in a race.
enum Event {
    Ended(usize, Result<Begun, Failure>),
    HedgeIsDue,
    ClientIsGone,
}

/// Tries until a response begins, or the decision is to give up; the error is none if the client is gone.
pub(crate) async fn run(job: &Job<'_>, client: &TcpStream, timer: &mut Timer) -> Result<Begun, Option<Refusal>> {
    let once_only = !(job.request.method.is_idempotent() || job.request.has_idempotency_key);
    let mut race = Race {
        job,
        running: Vec::with_capacity(1),
        tried: Vec::new(),
        replays: 0,
        reuse: if once_only { Reuse::Recent } else { Reuse::Any },
        fallback: None,
        refusal: Refusal::NoEndpoint,
        response_timeout: Duration::ZERO,
        hedge: None,
    };
    race.start().map_err(Some)?;
    let mut gone = pin!(gone(client));
    loop {
        let limit = race.response_timeout;
        let Some(event) = timer.within(limit, poll_fn(|cx| race.poll(cx, gone.as_mut()))).await else {
            return race.give_up_waiting();
        };
        match event {
            Event::ClientIsGone => return Err(None),
            Event::HedgeIsDue => race.hedge(),
            Event::Ended(index, Ok(begun)) => {
                if let Some(begun) = race.answered(index, begun) {
                    return Ok(begun);
                }
            }
            Event::Ended(index, Err(failure)) => race.failed(index, failure)?,
        }
        if race.running.is_empty() {
            return race.fallback.take().ok_or(Some(race.refusal));
        }
    }
}

impl<'a> Race<'a> {
    fn poll(&mut self, cx: &mut Context<'_>, gone: Pin<&mut impl Future<Output = ()>>) -> Poll<Event> {
        for (index, running) in self.running.iter_mut().enumerate() {
            if let Poll::Ready(result) = running.future.as_mut().poll(cx) {
                return Poll::Ready(Event::Ended(index, result));
            }
        }
        if self.hedge.as_mut().is_some_and(|hedge| hedge.as_mut().poll(cx).is_ready()) {
            self.hedge = None;
            return Poll::Ready(Event::HedgeIsDue);
        }
        gone.poll(cx).map(|()| Event::ClientIsGone)
    }

    /// Starts a try at the best endpoint that has not been tried.
    fn start(&mut self) -> Result<(), Refusal> {
        let job = self.job;
        let service = find(job.worker, job.request, job.buffer).ok_or(Refusal::NoRoute)?;
        let Some(in_flight) = picker::reserve(&service, job.key, &self.tried, &job.worker.random) else {
            return Err(if service.places.is_empty() { Refusal::NoEndpoint } else { self.refusal });
        };
        in_flight.count();
        let endpoint = Rc::clone(in_flight.endpoint());
        if self.replays > 0 || self.reuse == Reuse::Never {
            service.stats.replays.fetch_add(1, Ordering::Relaxed);
        }
        let resilience = &service.spec.resilience;
        self.response_timeout = resilience.response_timeout.0;
        let future = Box::pin(attempt(job, in_flight, self.reuse, resilience.connect_timeout.0));
        self.tried.push(Rc::clone(&endpoint));
        self.plan_hedge(&service, &endpoint);
        self.running.push(Try { endpoint, since: Instant::now(), future });
        Ok(())
    }

    /// Another try is made when this one takes longer than usual.
    fn plan_hedge(&mut self, service: &Service, endpoint: &Endpoint) {
        self.hedge = None;
    }

    fn hedge(&mut self) {}

    /// A try has brought an answer; none if another one is waited for.
    fn answered(&mut self, index: usize, begun: Begun) -> Option<Begun> {
        drop(self.running.swap_remove(index));
        Some(begun)
    }

    /// A try has failed.
    fn failed(&mut self, index: usize, failure: Failure) -> Result<(), Refusal> {
        let Try { endpoint, since, .. } = self.running.swap_remove(index);
        let after_us = since.elapsed().as_micros() as u64;
        tracing::debug!(replica = %endpoint.replica, kind = ?failure.kind, after_us, "try failed");
        let job = self.job;
        let Some(service) = find(job.worker, job.request, job.buffer) else { return Err(Refusal::NoRoute) };
        let rights = Rights {
            idempotent: job.request.method.is_idempotent() || job.request.has_idempotency_key,
            buffered: true,
            replays_left: service.spec.resilience.retries.saturating_sub(self.replays),
        };
        match retry::decide(failure.kind, failure.unsent, rights) {
            Decision::GiveUp(refusal) => {
                self.refusal = refusal;
                return Ok(());
            }
            Decision::Refresh => {
                self.reuse = Reuse::Never;
                self.tried.retain(|tried| !Rc::ptr_eq(tried, &endpoint));
            }
            Decision::Replay => {
                self.replays += 1;
                self.refusal = Refusal::Unreachable;
            }
        }
        match self.start() {
            Ok(()) => Ok(()),
            // The others go on.
            Err(_) if !self.running.is_empty() || self.fallback.is_some() => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    /// No answer came in time.
    fn give_up_waiting(&mut self) -> Result<Begun, Option<Refusal>> {
        for running in self.running.drain(..) {
            running.endpoint.fail(FailureKind::ResponseTimeout, false);
        }
        self.fallback.take().ok_or(Some(Refusal::ResponseTimeout))
    }
}

/// One try at one endpoint.
async fn attempt(job: &Job<'_>, in_flight: InFlight, reuse: Reuse, connect: Duration) -> Result<Begun, Failure> {
    let endpoint = Rc::clone(in_flight.endpoint());
    let mut connection = endpoint.connection(reuse, connect).await?;
    let mut buffer = job.worker.buffers.take();
    let method = job.request.method;
    let (response, sent) = endpoint.exchange(&mut connection, job.wire, method, &mut buffer).await?;
    Ok(Begun { connection, buffer, response, in_flight, sent_whole: sent == Sent::Whole, interim: 0 })
}

impl Begun {
    /// Goes on from an interim response to the next one.
    pub(crate) async fn next_head(&mut self, method: Method, timer: &mut Timer) -> Result<(), Refusal> {
        self.interim += 1;
        if self.interim > INTERIM_MAX {
            return Err(self.is_invalid());
        }
        forget_head(&mut self.buffer);
        let endpoint = Rc::clone(self.in_flight.endpoint());
        let next = timer.within(INTERIM_WAIT, read_head(&mut self.connection.stream, &mut self.buffer, method)).await;
        match next {
            Some(Ok(response)) => {
                self.response = response;
                Ok(())
            }
            Some(Err(HeadFailure::Invalid)) => Err(self.is_invalid()),
            Some(Err(failure)) => {
                endpoint.judge(&failure, false, false);
                Err(Refusal::Unreachable)
            }
            None => {
                endpoint.fail(FailureKind::ResponseTimeout, false);
                Err(Refusal::ResponseTimeout)
            }
        }
    }

    /// What came is not what was asked for.
    pub(crate) fn is_invalid(&self) -> Refusal {
        self.in_flight.endpoint().fail(FailureKind::Invalid, false);
        Refusal::InvalidResponse
    }
}

/// Makes room for the head after an interim one.
pub(crate) fn forget_head(buffer: &mut Buffer) {
    let len = buffer.head.len;
    buffer.drain(..len);
    buffer.head.reset(0);
}

/// How long the next head may take after an interim one.
const INTERIM_WAIT: Duration = Duration::from_secs(60);

/// Resolves when a client is gone: reset, or closed for long.
async fn gone(client: &TcpStream) {
    let mut byte = [0];
    let peeked = poll_fn(|cx| client.poll_peek(cx, &mut ReadBuf::new(&mut byte))).await;
    match peeked {
        // It may only have closed its side for writing.
        Ok(0) => sleep(HALF_CLOSED_MAX).await,
        // The next request is there already: what became of the client shows when its answer is written.
        Ok(_) => std::future::pending().await,
        Err(_) => {}
    }
}

/// Runs `relaying` unless the client goes: none then. `moved` tells how much has been relayed.
pub(crate) async fn unless_gone<T>(
    client: &mut ReadHalf<'_>,
    moved: &Cell<u64>,
    relaying: impl Future<Output = T>,
) -> Option<T> {
    let mut relaying = pin!(relaying);
    let mut leaving = pin!(async {
        match client.peek(&mut [0]).await {
            Ok(0) => loop {
                let before = moved.get();
                sleep(HALF_CLOSED_MAX).await;
                if moved.get() == before {
                    return;
                }
            },
            Ok(_) => std::future::pending().await,
            Err(_) => {}
        }
    });
    poll_fn(|cx| match relaying.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => leaving.as_mut().poll(cx).map(|()| None),
    })
    .await
}
