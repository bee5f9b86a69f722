//! Tries of one request, until a response begins.
//!
//! A request that is at hand as a whole may be tried at several endpoints: after a failure, after an answer that another
//! endpoint may better, and beside a try that takes longer than its endpoint usually does (Dean and Barroso, "The Tail at
//! Scale", 2013). Each try resolves against the newest routing. Between the choice of an endpoint and its count nothing
//! is awaited, so a worker that has swapped in a snapshot has counted every request that it gave to an endpoint of the
//! one before. A timer adds a try and never ends the only one that is left, before the request's own deadline.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use ringmaster_core::Generation;
use ringmaster_core::spec::HedgeAfter;
use smallvec::SmallVec;
use tokio::io::ReadBuf;
use tokio::net::tcp::ReadHalf;
use tokio::time::{Instant, sleep};

use crate::error::Refusal;
use crate::forward::find;
use crate::h1::framing::Framing;
use crate::h1::request::{Method, Request};
use crate::h1::response::Response;
use crate::hold;
use crate::io::{Buffer, Timer};
use crate::key::Key;
use crate::latency;
use crate::picker::{self, Choice, Wish};
use crate::retry::{self, Decision, Rights};
use crate::routing::Service;
use crate::socket::Socket;
use crate::ticks::Alarm;
use crate::upstream::{
    Connection, Endpoint, Failure, FailureKind, HeadFailure, InFlight, Reuse, Sent, read_head,
};
use crate::worker::Worker;

/// Most interim responses before the one that counts.
pub(crate) const INTERIM_MAX: u32 = 64;
/// Who takes longer than this is looked after: most are done before.
const WATCH_AFTER: Duration = Duration::from_millis(20);
/// How long a client that has closed its side for writing, and gets nothing, may still be there to read.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(2);

/// A request as every try needs it.
pub(crate) struct Job<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) request: &'a Request,
    /// The client's bytes, which the request's places are in.
    pub(crate) buffer: &'a [u8],
    pub(crate) key: Option<&'a Key>,
    /// Its service as of the routing of `generation`.
    pub(crate) service: &'a Rc<Service>,
    pub(crate) generation: Generation,
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
    /// It shows whether its endpoint is well again.
    is_proof: bool,
    is_hedge: bool,
    course: Course<'a>,
}

/// Where a try goes on.
enum Course<'a> {
    /// Beside the race: nearly every request has no other.
    First,
    /// On the heap.
    Further(Pin<Box<dyn Future<Output = Result<Begun, Failure>> + 'a>>),
}

/// All tries of one request.
struct Race<'a> {
    job: &'a Job<'a>,
    /// Sending it twice has the effect of sending it once.
    repeatable: bool,
    running: SmallVec<[Try<'a>; 1]>,
    tried: SmallVec<[Rc<Endpoint>; 2]>,
    replays: u32,
    reuse: Reuse,
    /// An answer that is passed on if no other endpoint gives a better one.
    fallback: Option<Begun>,
    /// What to say when no try is left.
    refusal: Refusal,
    /// The request's own.
    deadline: Instant,
    alarm: Alarm,
    /// When another try is made; none if there is no reason to.
    hedge_at: Option<Instant>,
    /// It takes long enough to look whether the client is still there.
    watches_client: bool,
}

/// What happens next in a race.
enum Event {
    Ended(usize, Result<Begun, Failure>),
    HedgeIsDue,
    ClientIsGone,
}

/// Tries until a response begins, or the decision is to give up; the error is none if the client is gone.
pub(crate) async fn run(
    job: &Job<'_>,
    client: &mut Socket,
    timer: &mut Timer,
) -> Result<Begun, Option<Refusal>> {
    let now = job.worker.now();
    let repeatable = job.request.method.is_idempotent() || job.request.has_idempotency_key;
    let mut race = Race {
        job,
        repeatable,
        running: SmallVec::new(),
        tried: SmallVec::new(),
        replays: 0,
        reuse: if repeatable { Reuse::Any } else { Reuse::Recent },
        fallback: None,
        refusal: Refusal::NoEndpoint,
        deadline: now,
        alarm: job.worker.ticks.alarm(),
        hedge_at: None,
        watches_client: false,
    };
    let wish = Wish { key: job.key, tried: &[], proves: repeatable, is_spare: false };
    let mut gone = pin!(gone(client));
    let reserved = {
        let mut reserving = pin!(reserve_or_wait(job, &wish));
        poll_fn(|cx| match reserving.as_mut().poll(cx) {
            Poll::Ready(reserved) => Poll::Ready(reserved.map_err(Some)),
            Poll::Pending => gone.as_mut().poll(cx).map(|()| Err(None)),
        })
        .await
    };
    let (service, in_flight) = reserved?;
    in_flight.count();
    let connect = service.spec.resilience.connect_timeout.0;
    race.enter(&service, Rc::clone(in_flight.endpoint()), in_flight.is_proof(), false, Course::First);
    drop(service);
    let mut first = pin!(attempt(job, in_flight, race.reuse, connect));
    loop {
        let Some(event) =
            timer.until(race.deadline, poll_fn(|cx| race.poll(cx, first.as_mut(), gone.as_mut()))).await
        else {
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

/// A place for the first try; waits for one, within the limits, if all endpoints have as many requests as they may.
pub(crate) async fn reserve_or_wait(
    job: &Job<'_>,
    wish: &Wish<'_>,
) -> Result<(Rc<Service>, InFlight), Refusal> {
    let began = job.worker.now();
    let mut since = began;
    loop {
        let service = job.service()?;
        match picker::reserve(&service, wish, &job.worker.random) {
            Choice::Place(in_flight) => return Ok((service, in_flight)),
            Choice::Nobody => {
                // On the heap, as all that is rare.
                Box::pin(hold::wait(&service, &job.worker.shared.signals, began)).await?;
                since = Instant::now();
                continue;
            }
            Choice::Full => {}
        }
        let resilience = &service.spec.resilience;
        let waiter = service.waiting.enter(resilience.max_queued).ok_or(Refusal::Overloaded)?;
        if since.elapsed() >= resilience.queue_timeout.0 {
            return Err(Refusal::Overloaded);
        }
        waiter.turn().await;
    }
}

impl Job<'_> {
    /// The request's service as of the newest snapshot.
    fn service(&self) -> Result<Rc<Service>, Refusal> {
        if self.worker.routing().generation == self.generation {
            return Ok(Rc::clone(self.service));
        }
        find(self.worker, self.request, self.buffer).ok_or(Refusal::NoRoute)
    }
}

impl<'a> Race<'a> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut first: Pin<&mut impl Future<Output = Result<Begun, Failure>>>,
        gone: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<Event> {
        for (index, running) in self.running.iter_mut().enumerate() {
            let polled = match &mut running.course {
                Course::First => first.as_mut().poll(cx),
                Course::Further(future) => future.as_mut().poll(cx),
            };
            if let Poll::Ready(result) = polled {
                return Poll::Ready(Event::Ended(index, result));
            }
        }
        while self.alarm.poll(cx).is_ready() {
            self.watches_client = true;
            let Some(at) = self.hedge_at else { continue };
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.hedge_at = None;
                return Poll::Ready(Event::HedgeIsDue);
            }
            self.alarm.set(at);
        }
        if !self.watches_client {
            return Poll::Pending;
        }
        gone.poll(cx).map(|()| Event::ClientIsGone)
    }

    /// Starts a try after the first.
    fn start(&mut self, service: &Service, in_flight: InFlight, is_hedge: bool) {
        let endpoint = Rc::clone(in_flight.endpoint());
        in_flight.count();
        let connect = service.spec.resilience.connect_timeout.0;
        let is_proof = in_flight.is_proof();
        let future = Box::pin(attempt(self.job, in_flight, self.reuse, connect));
        self.enter(service, endpoint, is_proof, is_hedge, Course::Further(future));
    }

    /// Takes note of a try that begins.
    fn enter(
        &mut self,
        service: &Service,
        endpoint: Rc<Endpoint>,
        is_proof: bool,
        is_hedge: bool,
        course: Course<'a>,
    ) {
        let resilience = &service.spec.resilience;
        let since = self.job.worker.now();
        if !is_hedge {
            self.deadline = since + resilience.response_timeout.0;
        }
        self.tried.push(Rc::clone(&endpoint));
        self.hedge_at = self.hedge_delay(service, &endpoint).map(|delay| since + delay);
        self.alarm.set(since + WATCH_AFTER);
        self.running.push(Try { endpoint, since, is_proof, is_hedge, course });
    }

    /// Starts another try at the best endpoint that has not been tried: whether there is one, and may be one.
    /// `is_spare` says that there are tries or answers already; `is_free` that the budget has nothing to say.
    fn start_another(&mut self, service: &Service, is_spare: bool, is_free: bool, is_hedge: bool) -> bool {
        let wish = Wish { key: self.job.key, tried: &self.tried, proves: self.repeatable, is_spare };
        let Choice::Place(in_flight) = picker::reserve(service, &wish, &self.job.worker.random) else {
            return false;
        };
        if !is_free && !service.stats.may_retry(service.spec.resilience.retry_budget) {
            return false;
        }
        self.start(service, in_flight, is_hedge);
        true
    }

    /// When another try is made beside one that has only just begun; none if never.
    fn hedge_delay(&self, service: &Service, endpoint: &Endpoint) -> Option<Duration> {
        let resilience = &service.spec.resilience;
        if !self.job.request.method.may_be_hedged() || self.tried.len() > resilience.retries as usize {
            return None;
        }
        match resilience.hedge_after {
            _ if service.places.len() < 2 => None,
            HedgeAfter::Off => None,
            HedgeAfter::After(delay) => Some(delay.0),
            // Of one that is not known yet the others tell what is usual.
            HedgeAfter::Auto => Some(endpoint.hedge_delay().unwrap_or_else(|| {
                let others = service.places.iter().filter_map(|place| place.endpoint.hedge_delay());
                others.max().unwrap_or(latency::HEDGE_UNKNOWN)
            })),
        }
    }

    fn hedge(&mut self) {
        let Ok(service) = self.job.service() else { return };
        if self.start_another(&service, true, false, true) {
            service.stats.hedges.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A try has brought an answer; none if another one is waited for.
    fn answered(&mut self, index: usize, mut begun: Begun) -> Option<Begun> {
        let Try { endpoint, since, is_proof, is_hedge, .. } = self.running.swap_remove(index);
        let status = begun.response.status;
        begun.in_flight.end_proof();
        let learns = self.job.request.method.may_be_hedged();
        let took = learns.then(|| self.job.worker.now().duration_since(since));
        endpoint.answered(status, took, is_proof);
        if self.retries_answer(status) {
            self.fallback = Some(begun);
            return None;
        }
        for other in self.running.iter().filter(|other| other.since < since) {
            other.endpoint.health.lost(other.is_proof);
        }
        if is_hedge && let Ok(service) = self.job.service() {
            service.stats.hedges_won.fetch_add(1, Ordering::Relaxed);
        }
        Some(begun)
    }

    /// Whether another endpoint is asked after an answer that says that this one cannot serve: once.
    fn retries_answer(&mut self, status: u16) -> bool {
        let cannot_serve = matches!(status, 502..=504) && self.repeatable && self.fallback.is_none();
        if !cannot_serve {
            return false;
        }
        let Ok(service) = self.job.service() else { return false };
        if self.replays >= service.spec.resilience.retries {
            return false;
        }
        let others = !self.running.is_empty() || self.start_another(&service, true, false, false);
        if others {
            self.replays += 1;
            service.stats.replays.fetch_add(1, Ordering::Relaxed);
        }
        others
    }

    /// A try has failed.
    fn failed(&mut self, index: usize, failure: Failure) -> Result<(), Refusal> {
        let Try { endpoint, since, .. } = self.running.swap_remove(index);
        let after_us = since.elapsed().as_micros() as u64;
        tracing::debug!(replica = %endpoint.replica, kind = ?failure.kind, after_us, "try failed");
        let service = self.job.service()?;
        let replays_left = service.spec.resilience.retries.saturating_sub(self.replays);
        let rights = Rights { idempotent: self.repeatable, buffered: true, replays_left };
        match retry::decide(failure.kind, failure.unsent, rights) {
            Decision::GiveUp(refusal) => {
                self.refusal = refusal;
                return Ok(());
            }
            Decision::Refresh => {
                (self.reuse, self.refusal) = (Reuse::Never, Refusal::Unreachable);
                self.tried.retain(|tried| !Rc::ptr_eq(tried, &endpoint));
            }
            Decision::Replay => {
                self.replays += 1;
                self.refusal = Refusal::Unreachable;
            }
        }
        let is_spare = !self.running.is_empty() || self.fallback.is_some();
        let is_free = failure.unsent || failure.kind == FailureKind::Stale;
        if self.start_another(&service, is_spare, is_free, false) {
            service.stats.replays.fetch_add(1, Ordering::Relaxed);
        } else if service.places.is_empty() {
            self.refusal = Refusal::NoEndpoint;
        }
        Ok(())
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
async fn attempt(
    job: &Job<'_>,
    in_flight: InFlight,
    reuse: Reuse,
    connect: Duration,
) -> Result<Begun, Failure> {
    let endpoint = Rc::clone(in_flight.endpoint());
    let mut connection = endpoint.connection(reuse, job.worker.now(), connect).await?;
    let (method, buffers) = (job.request.method, &job.worker.buffers);
    let (response, buffer, sent) = endpoint.exchange(&mut connection, job.wire, method, buffers).await?;
    Ok(Begun { connection, buffer, response, in_flight, sent_whole: sent == Sent::Whole, interim: 0 })
}

impl Begun {
    /// Where its body stands in the buffer, if all of it has come and it is passed on as it is.
    pub(crate) fn whole_body(&self) -> Option<Range<usize>> {
        let Framing::Length(length) = self.response.framing else { return None };
        let start = self.buffer.head.len;
        let end = usize::try_from(length).ok()?.checked_add(start)?;
        (end <= self.buffer.len()).then_some(start..end)
    }

    /// Goes on from an interim response to the next one.
    pub(crate) async fn next_head(
        &mut self,
        method: Method,
        timer: &mut Timer,
        limit: Duration,
    ) -> Result<(), Refusal> {
        self.interim += 1;
        if self.interim > INTERIM_MAX {
            return Err(self.is_invalid());
        }
        forget_head(&mut self.buffer);
        let endpoint = Rc::clone(self.in_flight.endpoint());
        let next = timer
            .until(Instant::now() + limit, read_head(&mut self.connection.stream, &mut self.buffer, method))
            .await;
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

/// Resolves when a client is gone: reset, or closed for long.
async fn gone(client: &mut Socket) {
    let mut byte = [0];
    let Ok(client) = client.registered() else { return };
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
    let mut leaving = pin!(leaving(client, moved));
    poll_fn(|cx| match relaying.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => leaving.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Resolves when a client, who has nothing more to send for this request, is gone; `moved` tells how much it has got.
pub(crate) async fn leaving(client: &mut ReadHalf<'_>, moved: &Cell<u64>) {
    match client.peek(&mut [0]).await {
        // It may only have closed its side for writing.
        Ok(0) => loop {
            let before = moved.get();
            sleep(HALF_CLOSED_MAX).await;
            if moved.get() == before {
                return;
            }
        },
        // The next request is there already.
        Ok(_) => std::future::pending().await,
        Err(_) => {}
    }
}
