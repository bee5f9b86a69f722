//! Requests whose bodies are passed on as they come: a try at one endpoint after the other, and a response that may
//! begin, and even end, before the body has.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until};

use crate::assignment;
use crate::attempt::{INTERIM_MAX, Job, forget_head, leaving, reserve_or_wait};
use crate::back::{Added, after_truncation, outgoing, patience, write_head, write_interim};
use crate::client::After;
use crate::error::Refusal;
use crate::forward::{Own, Passage};
use crate::h1::body::Body;
use crate::h1::emit::Persistence;
use crate::h1::framing::Framing;
use crate::h1::request::{Method, Request};
use crate::h1::response::Response;
use crate::io::{Buffer, Out, write_both};
use crate::key::Key;
use crate::picker::Wish;
use crate::relay::{RelayError, Way, relay};
use crate::retry::{self, Decision, Rights};
use crate::routing::Service;
use crate::upload::{KEPT_BYTES_MAX, Pace, Signs, Upload, UploadError};
use crate::upstream::{Connection, Endpoint, Failure, FailureKind, HeadFailure, InFlight, Reuse, read_head};

/// How long an endpoint may take to say whether it wants a body that the client holds back. Then the client is told to
/// send, as it would do by itself before long (RFC 9110 section 10.1.1).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// Asks a client for the body that it holds back.
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What came of a try.
enum Outcome {
    /// The exchange is over.
    Done(After),
    /// No response began.
    Failed(Failure),
    /// It ends with an answer of our own.
    Refused(Own),
}

/// What is sent, besides the body.
pub(crate) struct Sending<'a> {
    pub(crate) key: Option<&'a Key>,
    /// The request's head as it goes to an endpoint.
    pub(crate) head: &'a [u8],
    /// The client holds the body back until it is told to send it.
    pub(crate) waits: bool,
    pub(crate) added: &'a Added,
    pub(crate) of_assignment: bool,
}

/// Brings a request to an endpoint and its response back.
pub(crate) async fn pass(
    passage: &mut Passage<'_>,
    service: &Rc<Service>,
    sending: &Sending<'_>,
) -> Result<After, Own> {
    let pace = Pace::new(&passage.front.limits);
    let framing = passage.request.framing;
    let mut upload = Upload::new(framing, passage.buffer.head.len, pace, service, passage.worker.index);
    let result = try_all(passage, service, sending, &mut upload).await;
    if result.is_err() && upload.has_begun() {
        passage.body_is_taken(upload.end());
    }
    result
}

/// Tries one endpoint after the other.
async fn try_all(
    passage: &mut Passage<'_>,
    found: &Rc<Service>,
    sending: &Sending<'_>,
    upload: &mut Upload,
) -> Result<After, Own> {
    let request = passage.request;
    let idempotent = request.method.is_idempotent() || request.has_idempotency_key;
    let signs = Signs::new(!sending.waits);
    let mut tried: Vec<Rc<Endpoint>> = Vec::new();
    // What is too long to be kept can hardly be sent again either.
    let is_long = matches!(request.framing, Framing::Length(length) if length > KEPT_BYTES_MAX as u64);
    let mut reuse = if idempotent && !is_long { Reuse::Any } else { Reuse::Recent };
    let (mut refusal, mut replays) = (Refusal::NoEndpoint, 0);
    loop {
        // What is streamed can be sent once at most, so it proves nothing.
        let wish = Wish { key: sending.key, tried: &tried, proves: false, is_spare: false };
        let buffer = &**passage.buffer;
        let job = Job {
            worker: passage.worker,
            request,
            buffer,
            key: sending.key,
            service: found,
            generation: passage.generation,
            wire: sending.head,
        };
        let (service, in_flight) = match reserve_or_wait(&job, &wish).await {
            Err(Refusal::NoEndpoint) if !tried.is_empty() => return Err(refusal.into()),
            reserved => reserved?,
        };
        in_flight.count();
        let endpoint = Rc::clone(in_flight.endpoint());
        let resilience = &service.spec.resilience;
        signs.sent.set(false);
        let failure =
            match endpoint.connection(reuse, passage.worker.now(), resilience.connect_timeout.0).await {
                Err(failure) => failure,
                Ok(connection) => {
                    let try_ = Try {
                        service: &service,
                        sending,
                        signs: &signs,
                        response: resilience.response_timeout.0,
                    };
                    match try_.run(passage, upload, in_flight, connection).await {
                        Outcome::Done(after) => return Ok(after),
                        Outcome::Refused(own) => return Err(own),
                        Outcome::Failed(failure) => failure,
                    }
                }
            };
        tracing::debug!(replica = %endpoint.replica, kind = ?failure.kind, "try of a streamed request failed");
        let replays_left = resilience.retries.saturating_sub(replays);
        let rights = Rights { idempotent, buffered: upload.can_repeat(), replays_left };
        let decision = retry::decide(failure.kind, failure.unsent && upload.can_repeat(), rights);
        let is_free = failure.unsent || failure.kind == FailureKind::Stale;
        match decision {
            Decision::GiveUp(refusal) => return Err(refusal.into()),
            _ if !is_free && !service.stats.may_retry(resilience.retry_budget) => {
                return Err(Refusal::Unreachable.into());
            }
            Decision::Refresh => reuse = Reuse::Never,
            Decision::Replay => {
                replays += 1;
                refusal = Refusal::Unreachable;
                tried.push(Rc::clone(&endpoint));
            }
        }
        service.stats.replays.fetch_add(1, Ordering::Relaxed);
    }
}

/// One try.
struct Try<'a> {
    service: &'a Service,
    sending: &'a Sending<'a>,
    signs: &'a Signs,
    response: Duration,
}

/// What happens next while a head is waited for.
enum Event {
    Head(Result<Response, HeadFailure>),
    Uploaded(Result<(), UploadError>),
    ClientIsGone,
    Time,
}

/// The two ends that a response passes between, and what is read and written there.
struct Ends<'e, 's> {
    to_client: &'e mut WriteHalf<'s>,
    from_upstream: &'e mut ReadHalf<'s>,
    reply: &'e mut Buffer,
    out: &'e mut Out,
}

/// A body on its way up, and behind its end the look whether the client is still there.
struct Uploading<'u, F> {
    /// Resolves when the client is gone.
    future: Pin<&'u mut F>,
    ended: &'u Cell<Option<Result<(), UploadError>>>,
    is_gone: bool,
}

/// What happens to an upload.
enum Turn {
    Ended(Result<(), UploadError>),
    ClientIsGone,
}

impl<F: Future<Output = ()>> Uploading<'_, F> {
    /// Goes on; tells each turn once.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        if self.is_gone {
            return Poll::Pending;
        }
        let had_ended = self.ended.get().is_some();
        self.is_gone = self.future.as_mut().poll(cx).is_ready();
        match self.ended.get() {
            _ if self.is_gone => Poll::Ready(Turn::ClientIsGone),
            Some(result) if !had_ended => Poll::Ready(Turn::Ended(result)),
            _ => Poll::Pending,
        }
    }

    /// The client is at fault, so nothing that is still to come can be for it.
    fn is_clients_fault(&self) -> bool {
        use UploadError::{Broken, Stalled, TooLarge};
        self.is_gone || matches!(self.ended.get(), Some(Err(Broken | Stalled | TooLarge)))
    }
}

impl Try<'_> {
    async fn run(
        &self,
        passage: &mut Passage<'_>,
        upload: &mut Upload,
        mut in_flight: InFlight,
        mut connection: Connection,
    ) -> Outcome {
        let Passage { worker, client, buffer, request, exchange, front, .. } = passage;
        let endpoint = Rc::clone(in_flight.endpoint());
        let path =
            self.sending.of_assignment.then(|| String::from_utf8_lossy(request.path(buffer)).into_owned());
        let (mut reply, mut out) = (worker.buffers.take(), worker.buffers.out());
        let reused = connection.is_reused();
        let (relayed, ended) = (Cell::new(0), Cell::new(None));
        let (result, keep_alive, (outgoing, persistence), uploaded) = {
            let Ok(stream) = client.stream.registered() else { return Outcome::Done(After::Close) };
            let (mut from_client, mut to_client) = stream.split();
            let (mut from_upstream, mut to_upstream) = connection.stream.split();
            let future = pin!(async {
                let sent =
                    upload.run(self.sending.head, &mut from_client, buffer, &mut to_upstream, self.signs);
                let result = sent.await;
                ended.set(Some(result));
                match result {
                    Ok(()) => leaving(&mut from_client, &relayed).await,
                    Err(_) => std::future::pending().await,
                }
            });
            let mut uploading = Uploading { future, ended: &ended, is_gone: false };
            let mut ends = Ends {
                to_client: &mut to_client,
                from_upstream: &mut from_upstream,
                reply: &mut reply,
                out: &mut out,
            };
            let response = match self.head(&mut ends, request, (&endpoint, reused), &mut uploading).await {
                Ok(response) => response,
                Err(outcome) => return outcome,
            };
            endpoint.answered(response.status, None, in_flight.is_proof());
            in_flight.end_proof();
            if let Some(path) = path.filter(|_| response.status == 404) {
                return Outcome::Refused(Own::Answer(assignment::unknown_endpoint(&path)));
            }
            // An answer before the end of the body is the end of the connection, and says so: what may still come of the body
            // is in its way (RFC 9110 section 10.1.1).
            let may_stay = ended.get() == Some(Ok(()));
            let mut patience = patience(front, self.service);
            // Until the body has ended the endpoint may be waiting for it.
            patience.pause = patience.pause.filter(|_| may_stay);
            let to = outgoing(worker, request, &response, patience, may_stay);
            let message = (&response, &*ends.reply);
            write_head(worker, exchange, ends.out, self.service, &endpoint, message, self.sending.added, to);
            if response.is_event_stream(&ends.reply.head, ends.reply) {
                in_flight.begin_stream();
            }
            let mut body = Body::new(response.framing, ends.reply.head.len);
            let mut in_flight = Some(in_flight);
            let way = Way { source: ends.from_upstream, sink: ends.to_client, pipes: &worker.pipes };
            let relaying = relay(way, ends.reply, &mut body, ends.out, to.0, &relayed, &mut in_flight);
            let result = beside(relaying, &mut uploading).await;
            (result, response.keep_alive, to, ended.get())
        };
        exchange.sent(relayed.get());
        let next = upload.end().filter(|_| uploaded == Some(Ok(())));
        match result {
            Some(Ok(clean)) => {
                if keep_alive && clean && next.is_some() {
                    endpoint.check_in(connection, worker.now());
                }
                Outcome::Done(match next {
                    Some(next) if persistence != Persistence::Closes => After::Next(next),
                    Some(_) if !request.keep_alive => After::Close,
                    // It may still be sending, and is to read its answer.
                    _ => After::Linger,
                })
            }
            Some(Err(RelayError::Truncated { written })) => {
                endpoint.truncated();
                match written {
                    true => Outcome::Done(match after_truncation(outgoing) {
                        After::Close if next.is_none() => After::Linger,
                        after => after,
                    }),
                    false => Outcome::Refused(Refusal::InvalidResponse.into()),
                }
            }
            Some(Err(RelayError::Client(_))) | None => Outcome::Done(after_truncation(outgoing)),
        }
    }

    /// Waits for the head of the response while the body goes up, and passes on what comes before it.
    async fn head(
        &self,
        ends: &mut Ends<'_, '_>,
        request: &Request,
        (endpoint, reused): (&Rc<Endpoint>, bool),
        uploading: &mut Uploading<'_, impl Future<Output = ()>>,
    ) -> Result<Response, Outcome> {
        let mut interim = 0;
        let mut go_on_at = (!self.signs.may_send.get()).then(|| Instant::now() + CONTINUE_WAIT);
        self.signs.moved.set(Instant::now());
        loop {
            let until = go_on_at.unwrap_or_else(|| self.signs.moved.get() + self.response);
            match next(ends, request.method, uploading, until).await {
                Event::Head(Ok(response)) if response.is_interim() && interim < INTERIM_MAX => {
                    interim += 1;
                    if response.status == 100 {
                        go_on_at = None;
                        self.signs.may_send.set(true);
                    }
                    if request.minor == 1 {
                        write_interim(ends.out, &response, ends.reply);
                        let written = write_both(ends.to_client, ends.out, &[]).await;
                        written.map_err(|_| Outcome::Done(After::Close))?;
                        ends.out.clear();
                    }
                    forget_head(ends.reply);
                }
                // Nobody has asked to switch, and a flood of interim responses is none.
                Event::Head(Ok(response)) if response.status < 200 => {
                    return Err(Outcome::Failed(endpoint.fail(FailureKind::Invalid, false)));
                }
                Event::Head(Ok(response)) => return Ok(response),
                Event::Head(Err(failure)) => {
                    return Err(Outcome::Failed(endpoint.judge(&failure, reused, !self.signs.sent.get())));
                }
                Event::Uploaded(Ok(()) | Err(UploadError::Refused)) => {}
                Event::Uploaded(Err(error)) => return Err(client_failed(endpoint, error)),
                Event::ClientIsGone => return Err(Outcome::Done(After::Close)),
                Event::Time if go_on_at.take().is_some() => {
                    self.signs.may_send.set(true);
                    let written = write_both(ends.to_client, CONTINUE, &[]).await;
                    written.map_err(|_| Outcome::Done(After::Close))?;
                }
                Event::Time if Instant::now() < self.signs.moved.get() + self.response => {}
                // The client has a patience of its own to try.
                Event::Time if self.signs.starved.get() => self.signs.moved.set(Instant::now()),
                Event::Time => {
                    endpoint.fail(FailureKind::ResponseTimeout, false);
                    return Err(Outcome::Refused(Refusal::ResponseTimeout.into()));
                }
            }
        }
    }
}

/// What happens first: a head, the end of the body, or that it is time.
async fn next(
    ends: &mut Ends<'_, '_>,
    method: Method,
    uploading: &mut Uploading<'_, impl Future<Output = ()>>,
    until: Instant,
) -> Event {
    let mut reading = pin!(read_head(ends.from_upstream, ends.reply, method));
    let mut time = pin!(sleep_until(until));
    poll_fn(|cx| {
        if let Poll::Ready(head) = reading.as_mut().poll(cx) {
            return Poll::Ready(Event::Head(head));
        }
        match uploading.poll(cx) {
            Poll::Ready(Turn::Ended(result)) => return Poll::Ready(Event::Uploaded(result)),
            Poll::Ready(Turn::ClientIsGone) => return Poll::Ready(Event::ClientIsGone),
            Poll::Pending => {}
        }
        time.as_mut().poll(cx).map(|()| Event::Time)
    })
    .await
}

/// Relays a response while the body still goes up; none if that shows that the client is at fault.
async fn beside<T>(
    relaying: impl Future<Output = T>,
    uploading: &mut Uploading<'_, impl Future<Output = ()>>,
) -> Option<T> {
    let mut relaying = pin!(relaying);
    poll_fn(|cx| {
        let _ended_or_not = uploading.poll(cx).is_ready();
        if uploading.is_clients_fault() {
            return Poll::Ready(None);
        }
        relaying.as_mut().poll(cx).map(Some)
    })
    .await
}

fn client_failed(endpoint: &Endpoint, error: UploadError) -> Outcome {
    match error {
        UploadError::TooLarge => Outcome::Refused(Refusal::BodyTooLarge.into()),
        UploadError::Stalled => Outcome::Failed(endpoint.fail(FailureKind::ClientStalled, false)),
        UploadError::Broken | UploadError::Refused => {
            Outcome::Failed(endpoint.fail(FailureKind::ClientBody, false))
        }
    }
}
