//! Requests whose bodies are passed on as they come: a try at one endpoint after the other, and a response that may
//! begin, and even end, before the body has.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::assignment;
use crate::attempt::{INTERIM_MAX, Job, forget_head, reserve_or_wait};
use crate::client::After;
use crate::error::Refusal;
use crate::forward::{Added, Own, Passage, outgoing, write_head, write_interim};
use crate::h1::body::Body;
use crate::h1::emit::Persistence;
use crate::h1::response::Response;
use crate::io::write_both;
use crate::key::Key;
use crate::picker::Wish;
use crate::relay::{RelayError, Way, relay};
use crate::retry::{self, Decision, Rights};
use crate::routing::Service;
use crate::upload::{Pace, Signs, Upload, UploadError};
use crate::upstream::{Connection, Endpoint, Failure, FailureKind, HeadFailure, InFlight, Reuse, read_head};

/// How long an endpoint may take to say whether it wants a body that the client holds back. Then the client is told to
/// send, as it would do by itself before long (RFC 9110 section 10.1.1).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

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
    let result = try_all(passage, sending, &mut upload).await;
    if result.is_err() && upload.has_begun() {
        passage.body_is_taken(upload.end());
    }
    result
}

/// Tries one endpoint after the other.
async fn try_all(
    passage: &mut Passage<'_>,
    sending: &Sending<'_>,
    upload: &mut Upload,
) -> Result<After, Own> {
    let request = passage.request;
    let idempotent = request.method.is_idempotent() || request.has_idempotency_key;
    let signs = Signs::new(!sending.waits);
    let mut tried: Vec<Rc<Endpoint>> = Vec::new();
    let mut reuse = if idempotent { Reuse::Any } else { Reuse::Recent };
    let (mut refusal, mut replays) = (Refusal::NoEndpoint, 0);
    loop {
        // What is streamed can be sent once at most, so it proves nothing.
        let wish = Wish { key: sending.key, tried: &tried, proves: false, is_spare: false };
        let buffer = &**passage.buffer;
        let job = Job { worker: passage.worker, request, buffer, key: sending.key, wire: sending.head };
        let (service, in_flight) = match reserve_or_wait(&job, &wish).await {
            Err(Refusal::NoEndpoint) if !tried.is_empty() => return Err(refusal.into()),
            reserved => reserved?,
        };
        in_flight.count();
        let endpoint = Rc::clone(in_flight.endpoint());
        let resilience = &service.spec.resilience;
        signs.sent.set(false);
        let failure = match endpoint.connection(reuse, resilience.connect_timeout.0).await {
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
        match retry::decide(failure.kind, failure.unsent && upload.can_repeat(), rights) {
            Decision::GiveUp(refusal) => return Err(refusal.into()),
            Decision::Refresh => reuse = Reuse::Never,
            Decision::Replay => {
                replays += 1;
                refusal = Refusal::Unreachable;
                if !failure.unsent && !service.stats.may_retry(resilience.retry_budget) {
                    return Err(refusal.into());
                }
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
    Time,
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
        let mut reply = worker.buffers.take();
        let mut out = worker.buffers.out();
        let reused = connection.is_reused();
        let mut uploaded = None;
        let relayed = Cell::new(0);
        let ended = {
            let (mut from_client, mut to_client) = client.stream.split();
            let (mut from_upstream, mut to_upstream) = connection.stream.split();
            let mut uploading =
                pin!(upload.run(self.sending.head, &mut from_client, buffer, &mut to_upstream, self.signs));
            let mut interim = 0;
            let mut go_on_at = (!self.signs.may_send.get()).then(|| Instant::now() + CONTINUE_WAIT);
            self.signs.moved.set(Instant::now());
            let response = loop {
                let until = go_on_at.unwrap_or_else(|| self.signs.moved.get() + self.response);
                let event = {
                    let mut reading = pin!(read_head(&mut from_upstream, &mut reply, request.method));
                    let mut time = pin!(sleep_until(until));
                    poll_fn(|cx| {
                        if let Poll::Ready(head) = reading.as_mut().poll(cx) {
                            return Poll::Ready(Event::Head(head));
                        }
                        if uploaded.is_none()
                            && let Poll::Ready(result) = uploading.as_mut().poll(cx)
                        {
                            return Poll::Ready(Event::Uploaded(result));
                        }
                        time.as_mut().poll(cx).map(|()| Event::Time)
                    })
                    .await
                };
                match event {
                    Event::Head(Ok(response)) if response.is_interim() => {
                        interim += 1;
                        if interim > INTERIM_MAX {
                            break Err(HeadFailure::Invalid);
                        }
                        if response.status == 100 {
                            go_on_at = None;
                            self.signs.may_send.set(true);
                        }
                        if request.minor == 1 {
                            write_interim(&mut out, &response, &reply);
                            if write_both(&mut to_client, &out, &[]).await.is_err() {
                                return Outcome::Done(After::Close);
                            }
                            out.clear();
                        }
                        forget_head(&mut reply);
                    }
                    Event::Head(head) => break head,
                    Event::Uploaded(Err(UploadError::Broken)) => {
                        return self.client_failed(&endpoint, FailureKind::ClientBody);
                    }
                    Event::Uploaded(Err(UploadError::Stalled)) => {
                        return self.client_failed(&endpoint, FailureKind::ClientStalled);
                    }
                    Event::Uploaded(Err(UploadError::TooLarge)) => {
                        return Outcome::Refused(Refusal::BodyTooLarge.into());
                    }
                    Event::Uploaded(result) => uploaded = Some(result),
                    Event::Time if go_on_at.take().is_some() => {
                        self.signs.may_send.set(true);
                        if write_both(&mut to_client, CONTINUE, &[]).await.is_err() {
                            return Outcome::Done(After::Close);
                        }
                    }
                    Event::Time if Instant::now() < self.signs.moved.get() + self.response => {}
                    Event::Time if self.signs.starved.get() => {
                        return self.client_failed(&endpoint, FailureKind::ClientStalled);
                    }
                    Event::Time => {
                        endpoint.fail(FailureKind::ResponseTimeout, false);
                        return Outcome::Refused(Refusal::ResponseTimeout.into());
                    }
                }
            };
            let response = match response {
                Ok(response) if response.status != 101 => response,
                Ok(_) => return Outcome::Failed(endpoint.fail(FailureKind::Invalid, false)),
                Err(failure) => {
                    return Outcome::Failed(endpoint.judge(&failure, reused, !self.signs.sent.get()));
                }
            };
            endpoint.health.answered(response.status, None, in_flight.is_proof());
            in_flight.end_proof();
            if let Some(path) = path.filter(|_| response.status == 404) {
                return Outcome::Refused(Own::Answer(assignment::unknown_endpoint(&path)));
            }
            // An error before the end of the body is the end of the connection: the rest of the body is in its way.
            let may_stay = uploaded.is_some() || response.status < 400;
            let stall = front.limits.stall_timeout.0;
            let (outgoing, persistence) = outgoing(worker, request, &response, stall, may_stay);
            write_head(
                worker,
                exchange,
                &mut out,
                self.service,
                &endpoint,
                (&response, &reply),
                self.sending.added,
                (outgoing, persistence),
            );
            let mut body = Body::new(response.framing, reply.head.len);
            let mut in_flight = Some(in_flight);
            let way = Way { source: &mut from_upstream, sink: &mut to_client, pipes: &worker.pipes };
            let mut relaying =
                pin!(relay(way, &mut reply, &mut body, &mut out, outgoing, &relayed, &mut in_flight));
            let result = poll_fn(|cx| {
                if uploaded.is_none()
                    && let Poll::Ready(result) = uploading.as_mut().poll(cx)
                {
                    uploaded = Some(result);
                }
                match uploaded {
                    // The client is at fault, so nothing that is still to come can be for it.
                    Some(Err(UploadError::Broken | UploadError::Stalled | UploadError::TooLarge)) => {
                        Poll::Ready(None)
                    }
                    _ => relaying.as_mut().poll(cx).map(Some),
                }
            })
            .await;
            result.map(|result| (result, response.keep_alive, persistence))
        };
        exchange.sent(relayed.get());
        let next = upload.end().filter(|_| uploaded == Some(Ok(())));
        Outcome::Done(match ended {
            Some((Ok(clean), keep_alive, persistence)) => {
                if keep_alive && clean && next.is_some() {
                    endpoint.check_in(connection);
                }
                match next {
                    Some(next) if persistence != Persistence::Closes => After::Next(next),
                    Some(_) => After::Close,
                    None => After::Linger,
                }
            }
            Some((Err(RelayError::Truncated { .. }), ..)) => {
                endpoint.truncated();
                After::Reset
            }
            Some((Err(RelayError::Client(_)), ..)) | None => After::Close,
        })
    }

    fn client_failed(&self, endpoint: &Endpoint, kind: FailureKind) -> Outcome {
        Outcome::Failed(endpoint.fail(kind, false))
    }
}
