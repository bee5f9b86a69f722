//! One request from its head to its answer: route, key, tries, and what is relayed back.
//!
//! Deliberately absent: which endpoint is tried, and how often ([`crate::attempt`]).

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use ringmaster_core::ReplicaName;
use ringmaster_core::snapshot::Front;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::assignment;
use crate::attempt::{self, Begun, Job};
use crate::client::{After, Client, answer};
use crate::error::Refusal;
use crate::exchange::{Access, Exchange};
use crate::h1::body::{Body, Piece};
use crate::h1::bytes::list;
use crate::h1::emit::{self, Persistence, RequestParts, ResponseParts};
use crate::h1::framing::Framing;
use crate::h1::request::{Method, Request};
use crate::h1::response::Response;
use crate::io::{Buffer, read_more};
use crate::key::{Asked, Key};
use crate::relay::{self, Outgoing, RelayError, Way, relay};
use crate::routing::{Service, without_port};
use crate::stream::{self, Sending};
use crate::upgrade;
use crate::upload::{KEPT_BYTES_MAX, Pace};
use crate::upstream::Endpoint;
use crate::worker::Worker;

/// A request on its way.
pub(crate) struct Passage<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) client: &'a mut Client,
    /// What was read from the client, the request's head at its beginning.
    pub(crate) buffer: &'a mut Buffer,
    pub(crate) request: &'a Request,
    pub(crate) exchange: Exchange,
    /// How clients are met.
    pub(crate) front: Rc<Front>,
    /// Where the next request begins, once this one's body has come as a whole.
    end: Option<usize>,
    /// The buffer may hold no more than a rest of the body: what it begins with says nothing about where that ends.
    body_is_taken: bool,
}

/// What the proxy adds to a response.
#[derive(Debug, Clone, Default)]
pub(crate) struct Added {
    /// Whole lines.
    lines: String,
    /// The response names the replica.
    names_replica: bool,
}

impl Added {
    fn lines_for(&self, replica: &ReplicaName) -> String {
        let mut lines = self.lines.clone();
        if self.names_replica {
            lines.push_str(&format!("X-Ringmaster-Replica: {}\r\n", replica.short()));
        }
        lines
    }
}

/// Why a request gets an answer of our own, and whether its body has been read.
pub(crate) enum Own {
    Refusal(Refusal),
    Answer(Answer),
}

impl From<Refusal> for Own {
    fn from(refusal: Refusal) -> Own {
        Own::Refusal(refusal)
    }
}

/// Answers one request of a client.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    client: &mut Client,
    buffer: &mut Buffer,
    request: &Request,
) -> After {
    let routing = worker.routing();
    let front = Rc::clone(&routing.front);
    client.forwarding.trusted = front.trusted_proxies.iter().any(|network| network.contains(client.address));
    let exchange = Exchange::begin(access(worker, &front, client, request, buffer));
    let mut passage =
        Passage { worker, client, buffer, request, exchange, front, end: None, body_is_taken: false };
    let method = request.method_name.of(passage.buffer);
    let is_local =
        routing.assignment_api.is_some() && assignment::is_local(method, request.path(passage.buffer));
    if is_local && worker.shared.local.is_some() {
        drop(routing);
        return Box::pin(passage.ask_local()).await;
    }
    if request.max_forwards == Some(0) {
        return Box::pin(passage.answer_as_last()).await;
    }
    let Some(service) = find(worker, request, passage.buffer) else {
        worker.shared.front.refuse(Refusal::NoRoute);
        return passage.refuse(&Refusal::NoRoute.answer()).await;
    };
    passage.exchange.count_for(&service, worker.index);
    let of_assignment = routing.assignment_api.as_ref() == Some(&service.spec.name);
    drop(routing);
    match passage.pass(&service, of_assignment).await {
        Ok(after) => after,
        Err(own) => {
            let own = match own {
                Own::Answer(answer) => answer,
                Own::Refusal(refusal) => {
                    service.stats.refuse(refusal);
                    refusal.answer()
                }
            };
            service.stats.stripes.respond(worker.index, own.status.as_u16());
            passage.refuse(&own).await
        }
    }
}

/// What is written to the log of a request, if it is to be.
fn access(
    worker: &Worker,
    front: &Front,
    client: &Client,
    request: &Request,
    buffer: &[u8],
) -> Option<Box<Access>> {
    let sample = front.access_log.as_ref()?.sample;
    let drawn = worker.random.below(100) < usize::from(sample.0);
    drawn.then(|| Box::new(Access::new(client.address, request, buffer)))
}

/// The service that a request belongs to as of the newest snapshot.
pub(crate) fn find(worker: &Worker, request: &Request, buffer: &[u8]) -> Option<Rc<Service>> {
    let host = request.host.and_then(|host| std::str::from_utf8(host.of(buffer)).ok()).map(without_port);
    let path = std::str::from_utf8(request.path(buffer)).ok()?;
    worker.routing().find(host, path).cloned()
}

/// How a response's body is delimited for this client, and what its connection does afterwards.
pub(crate) fn outgoing(
    worker: &Worker,
    request: &Request,
    response: &Response,
    stall: Duration,
    may_stay: bool,
) -> (Outgoing, Persistence) {
    let framing = match response.framing {
        Framing::Length(length) => Framing::Length(length),
        _ if request.minor == 1 => Framing::Chunked,
        _ => Framing::Close,
    };
    let stays = may_stay && request.keep_alive && framing != Framing::Close && !worker.is_closing();
    let persistence = match (stays, request.minor) {
        (false, _) => Persistence::Closes,
        (true, 0) => Persistence::StaysAsAsked,
        (true, _) => Persistence::Stays,
    };
    (Outgoing { framing, trailers: request.takes_trailers, stall }, persistence)
}

/// Writes the head of an interim response for the client.
pub(crate) fn write_interim(out: &mut Vec<u8>, response: &Response, buffer: &Buffer) {
    let (framing, connection) = (Framing::Length(0), Persistence::Stays);
    emit::response(
        out,
        &ResponseParts { response, head: &buffer.head, buffer, framing, connection, date: b"", added: b"" },
    );
}

/// Writes the head of a response for the client, and counts it.
#[expect(
    clippy::too_many_arguments,
    reason = "two callers, which have nothing in common that would hold these"
)]
pub(crate) fn write_head(
    worker: &Worker,
    exchange: &mut Exchange,
    out: &mut Vec<u8>,
    service: &Service,
    endpoint: &Endpoint,
    (response, buffer): (&Response, &Buffer),
    added: &Added,
    (outgoing, connection): (Outgoing, Persistence),
) {
    service.stats.stripes.respond(worker.index, response.status);
    exchange.answered(response.status, Some(&endpoint.replica));
    let added = added.lines_for(&endpoint.replica);
    let now;
    let date: &[u8] = if response.has_date {
        b""
    } else {
        now = worker.date();
        &now
    };
    let parts = ResponseParts {
        response,
        head: &buffer.head,
        buffer,
        framing: outgoing.framing,
        connection,
        date,
        added: added.as_bytes(),
    };
    emit::response(out, &parts);
}

impl Passage<'_> {
    /// Its body was passed on, up to its end if that has come.
    pub(crate) fn body_is_taken(&mut self, end: Option<usize>) {
        (self.end, self.body_is_taken) = (end, true);
    }

    /// Brings the request to an endpoint and its response back.
    async fn pass(&mut self, service: &Rc<Service>, of_assignment: bool) -> Result<After, Own> {
        let most = self.front.limits.max_body.map(|most| most.bytes);
        if let Framing::Length(length) = self.request.framing
            && most.is_some_and(|most| length > most)
        {
            return Err(Refusal::BodyTooLarge.into());
        }
        let (key, added) = self.key(service);
        let mut wire = self.worker.buffers.out();
        let head = self.request.framing;
        let has_come = !self.buffer[self.buffer.head.len..].is_empty();
        let waits = self.request.expects_continue && !has_come;
        let parts = RequestParts {
            request: self.request,
            head: &self.buffer.head,
            buffer: self.buffer,
            forwarding: &self.client.forwarding,
            default_host: service.spec.name.as_str(),
            expect_continue: waits,
        };
        emit::request(&mut wire, &parts);
        let head_len = wire.len();
        let end = if waits { None } else { self.gather(service, head, &mut wire).await? };
        let Some(end) = end else {
            wire.truncate(head_len);
            let sending = Sending { key: key.as_ref(), head: &wire, waits, added: &added, of_assignment };
            // On the heap, as all that is rare: the usual way stays small.
            return Box::pin(stream::pass(self, service, &sending)).await;
        };
        self.end = Some(end);
        let job = Job {
            worker: self.worker,
            request: self.request,
            buffer: self.buffer,
            key: key.as_ref(),
            wire: &wire,
        };
        let begun = attempt::run(&job, &self.client.stream, &mut self.client.timer).await;
        let mut begun = match begun {
            Ok(begun) => begun,
            // Nobody is left to take an answer.
            Err(None) => return Ok(After::Close),
            Err(Some(refusal)) => return Err(refusal.into()),
        };
        if begun.response.status < 200 {
            let limit = service.spec.resilience.response_timeout.0;
            Box::pin(self.settle_interim(&mut begun, limit)).await?;
        }
        if of_assignment && begun.response.status == 404 {
            let path = String::from_utf8_lossy(self.request.path(self.buffer)).into_owned();
            let own = assignment::unknown_endpoint(&path);
            service.stats.stripes.respond(self.worker.index, own.status.as_u16());
            return Ok(self.refuse_at(&own, Some(end)).await);
        }
        if begun.response.status == 101 {
            return Ok(Box::pin(self.tunnel(service, begun, &added, end)).await);
        }
        Ok(self.bring_back(service, begun, &added, end).await)
    }

    /// The request's key, and what its answer gets with it.
    fn key(&self, service: &Service) -> (Option<Key>, Added) {
        let asked = Asked { request: self.request, head: &self.buffer.head, buffer: self.buffer };
        let mut added = Added { lines: String::new(), names_replica: service.spec.route.replica_header };
        let found = service.keys.iter().find_map(|source| {
            let key = source.key(asked, self.client.address, &self.worker.random)?;
            if let Some(line) = source.set_cookie(asked, &key) {
                added.lines = line;
            }
            Some(key)
        });
        if let Some(key) = &found {
            service.stats.offer(key.as_bytes(), self.worker.random.bits());
        }
        (found, added)
    }

    /// Reads a short body behind the head that is sent; returns where the next request begins, or none if the body has
    /// to be streamed.
    async fn gather(
        &mut self,
        service: &Service,
        framing: Framing,
        wire: &mut Vec<u8>,
    ) -> Result<Option<usize>, Refusal> {
        let mut body = Body::new(framing, self.buffer.head.len);
        let waits_for_it = match framing {
            Framing::Length(length) if length > KEPT_BYTES_MAX as u64 => return Ok(None),
            Framing::Length(_) => true,
            Framing::Chunked | Framing::Close => false,
        };
        let mut received = 0;
        let mut pace = Pace::new(&self.front.limits);
        let (Client { timer, stream, .. }, buffer) = (&mut *self.client, &mut *self.buffer);
        loop {
            match body.next(buffer).map_err(|_| Refusal::ClientBodyBroken)? {
                Piece::Data(range) => {
                    received += range.len() as u64;
                    if !pace.receive(range.len()) {
                        return Err(Refusal::BodyTooLarge);
                    }
                    let data = &buffer[range];
                    if waits_for_it { wire.extend_from_slice(data) } else { emit::chunk(wire, data) }
                }
                Piece::More if !waits_for_it => return Ok(None),
                Piece::More => {
                    body.compact(buffer);
                    let since = Instant::now();
                    let read = timer.within(pace.patience(), read_more(stream, buffer)).await;
                    pace.waited_since(since);
                    match read {
                        Some(Ok(count)) if count > 0 => {}
                        Some(_) => return Err(Refusal::ClientBodyBroken),
                        None => return Err(Refusal::ClientBodyStalled),
                    }
                }
                Piece::End => {
                    if !waits_for_it {
                        emit::last_chunk(wire, None);
                    }
                    service.stats.stripes.receive(self.worker.index, received);
                    return Ok(Some(body.end()));
                }
            }
        }
    }

    /// Passes on what comes before a response, until the response itself is there.
    async fn settle_interim(&mut self, begun: &mut Begun, limit: Duration) -> Result<(), Own> {
        let mut out = Vec::new();
        while begun.response.is_interim() {
            if self.request.minor == 1 {
                write_interim(&mut out, &begun.response, &begun.buffer);
                relay::write(&mut self.client.stream, &mut out, &[], self.front.limits.stall_timeout.0)
                    .await
                    .map_err(|_| Refusal::ClientBodyBroken)?;
            }
            begun.next_head(self.request.method, &mut self.client.timer, limit).await?;
        }
        if begun.response.status != 101 {
            return Ok(());
        }
        // It has to name what it took, out of what was asked for (RFC 9110 section 7.8).
        let asked = self.request.upgrade.map(|asked| asked.of(self.buffer));
        let taken = begun.response.upgrade.map(|taken| taken.of(&begun.buffer));
        let fits = |(asked, taken): (&[u8], &[u8])| {
            !taken.is_empty()
                && list(taken).all(|taken| list(asked).any(|asked| asked.eq_ignore_ascii_case(taken)))
        };
        if asked.zip(taken).is_some_and(fits) { Ok(()) } else { Err(begun.is_invalid().into()) }
    }

    /// Relays a response whose request was sent as a whole.
    async fn bring_back(&mut self, service: &Service, begun: Begun, added: &Added, end: usize) -> After {
        let (outgoing, persistence) =
            outgoing(self.worker, self.request, &begun.response, self.front.limits.stall_timeout.0, true);
        let mut out = self.worker.buffers.out();
        let (endpoint, message) = (begun.in_flight.endpoint(), (&begun.response, &begun.buffer));
        write_head(
            self.worker,
            &mut self.exchange,
            &mut out,
            service,
            endpoint,
            message,
            added,
            (outgoing, persistence),
        );
        let Begun { mut connection, mut buffer, response, in_flight, sent_whole, .. } = begun;
        let mut body = Body::new(response.framing, buffer.head.len);
        let relayed = Cell::new(0);
        let endpoint = Rc::clone(in_flight.endpoint());
        let mut in_flight = Some(in_flight);
        let result = {
            let (mut watched, mut sink) = self.client.stream.split();
            let (mut source, _) = connection.stream.split();
            let way = Way { source: &mut source, sink: &mut sink, pipes: &self.worker.pipes };
            let relaying = relay(way, &mut buffer, &mut body, &mut out, outgoing, &relayed, &mut in_flight);
            attempt::unless_gone(&mut watched, &relayed, relaying).await
        };
        self.exchange.sent(relayed.get());
        match result {
            Some(Ok(clean)) => {
                if response.keep_alive && sent_whole && clean {
                    endpoint.check_in(connection);
                }
                if persistence == Persistence::Closes { After::Close } else { After::Next(end) }
            }
            Some(Err(RelayError::Truncated { written })) => {
                endpoint.truncated();
                if written {
                    return After::Reset;
                }
                service.stats.refuse(Refusal::InvalidResponse);
                self.refuse_at(&Refusal::InvalidResponse.answer(), Some(end)).await
            }
            Some(Err(RelayError::Client(error))) => {
                tracing::debug!(client = %self.client.address, %error, "client took no more of its response");
                After::Close
            }
            None => After::Close,
        }
    }

    /// The protocol is switched: from here on bytes pass.
    async fn tunnel(&mut self, service: &Service, begun: Begun, added: &Added, end: usize) -> After {
        let mut out = self.worker.buffers.out();
        let (outgoing, _) =
            outgoing(self.worker, self.request, &begun.response, self.front.limits.stall_timeout.0, true);
        let (endpoint, message) = (begun.in_flight.endpoint(), (&begun.response, &begun.buffer));
        write_head(
            self.worker,
            &mut self.exchange,
            &mut out,
            service,
            endpoint,
            message,
            added,
            (outgoing, Persistence::Stays),
        );
        self.exchange.uncounted();
        if relay::write(&mut self.client.stream, &mut out, &[], self.front.limits.stall_timeout.0)
            .await
            .is_ok()
        {
            let early = &self.buffer[end..];
            let Begun { mut connection, buffer, in_flight, .. } = begun;
            let rest = &buffer[buffer.head.len..];
            let token = self.worker.token();
            upgrade::run(&mut self.client.stream, early, &mut connection.stream, rest, token).await;
            drop(in_flight);
        }
        After::Close
    }

    /// Lets the controller answer.
    async fn ask_local(&mut self) -> After {
        let mut body = Vec::new();
        let mut reader = Body::new(self.request.framing, self.buffer.head.len);
        let end = loop {
            match reader.next(self.buffer) {
                Ok(Piece::Data(range)) => body.extend_from_slice(&self.buffer[range]),
                Ok(Piece::End) => break reader.end(),
                Ok(Piece::More) => {
                    reader.compact(self.buffer);
                    if self.request.expects_continue && body.is_empty() {
                        let mut go_on = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
                        if relay::write(
                            &mut self.client.stream,
                            &mut go_on,
                            &[],
                            self.front.limits.stall_timeout.0,
                        )
                        .await
                        .is_err()
                        {
                            return After::Close;
                        }
                    }
                    let read = read_more(&mut self.client.stream, self.buffer);
                    match self.client.timer.within(self.front.limits.stall_timeout.0, read).await {
                        Some(Ok(count)) if count > 0 => {}
                        Some(_) => return self.refuse(&Refusal::ClientBodyBroken.answer()).await,
                        None => return self.refuse(&Refusal::ClientBodyStalled.answer()).await,
                    }
                }
                Err(_) => return self.refuse(&Refusal::ClientBodyBroken.answer()).await,
            }
            if body.len() > KEPT_BYTES_MAX {
                return self.refuse(&assignment::too_large()).await;
            }
        };
        let method = http::Method::from_bytes(self.request.method_name.of(self.buffer)).unwrap_or_default();
        let path = String::from_utf8_lossy(self.request.path(self.buffer)).into_owned();
        let Some(local) = self.worker.shared.local.clone() else { return After::Close };
        let own = assignment::call(&*local, method, &path, Bytes::from(body)).await;
        self.refuse_at(&own, Some(end)).await
    }

    /// The request may go no further: who gets it answers (RFC 9110 section 7.6.2).
    async fn answer_as_last(&mut self) -> After {
        let own = match self.request.method {
            Method::Trace => {
                // What was received, less what nobody else should see (RFC 9110 section 9.3.8).
                let secret = ["authorization", "cookie", "proxy-authorization"];
                let bytes = &self.buffer.bytes;
                let mut echo = self.buffer.head.line.of(bytes).to_vec();
                echo.extend_from_slice(b"\r\n");
                for field in &self.buffer.head.fields {
                    let name = field.name.of(bytes);
                    if !secret.iter().any(|secret| name.eq_ignore_ascii_case(secret.as_bytes())) {
                        emit::line(&mut echo, name, field.value.of(bytes));
                    }
                }
                echo.extend_from_slice(b"\r\n");
                Answer { content_type: "message/http", ..Answer::json(StatusCode::OK, echo) }
            }
            _ => Answer {
                fields: "Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH, TRACE\r\n",
                ..Answer::json(StatusCode::OK, Vec::new())
            },
        };
        self.refuse(&own).await
    }

    /// Answers in the endpoints' stead. A body that is not in the buffer as a whole is not waited for: the connection
    /// closes.
    async fn refuse(&mut self, own: &Answer) -> After {
        if self.end.is_some() || self.body_is_taken {
            return self.refuse_at(own, self.end).await;
        }
        let mut body = Body::new(self.request.framing, self.buffer.head.len);
        let end = loop {
            match body.next(self.buffer) {
                Ok(Piece::Data(_)) => {}
                Ok(Piece::End) => break Some(body.end()),
                Ok(Piece::More) | Err(_) => break None,
            }
        };
        self.refuse_at(own, end).await
    }

    /// As [`Passage::refuse`], where the end of the request is known.
    async fn refuse_at(&mut self, own: &Answer, end: Option<usize>) -> After {
        let stays = end.filter(|_| self.request.keep_alive && !self.worker.is_closing());
        let persistence = match (stays, self.request.minor) {
            (None, _) => Persistence::Closes,
            (Some(_), 0) => Persistence::StaysAsAsked,
            (Some(_), _) => Persistence::Stays,
        };
        let is_to_head = self.request.method == Method::Head;
        self.exchange.answered(own.status.as_u16(), None);
        match (answer(self.worker, self.client, own, is_to_head, persistence).await, stays, end) {
            (true, Some(end), _) => After::Next(end),
            (true, None, Some(_)) => After::Close,
            (true, None, None) => After::Linger,
            (false, ..) => After::Close,
        }
    }
}
