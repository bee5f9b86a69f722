//! A response on its way back: what the client gets of it, and what the data plane adds.

use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use ringmaster_core::ReplicaName;
use ringmaster_core::snapshot::Front;

use crate::attempt::{self, Begun};
use crate::client::After;
use crate::error::Refusal;
use crate::exchange::Exchange;
use crate::forward::{Own, Passage};
use crate::h1::body::Body;
use crate::h1::bytes::list;
use crate::h1::emit::{self, Persistence, ResponseParts};
use crate::h1::framing::Framing;
use crate::h1::request::{Request, protocols};
use crate::h1::response::Response;
use crate::io::Buffer;
use crate::relay::{self, COPIED_BYTES_MAX, Outgoing, Patience, RelayError, Way, relay};
use crate::routing::Service;
use crate::upgrade;
use crate::upstream::Endpoint;
use crate::worker::Worker;

/// What the proxy adds to a response.
#[derive(Debug, Clone, Default)]
pub(crate) struct Added {
    /// Whole lines.
    pub(crate) lines: String,
    /// The response names the replica.
    pub(crate) names_replica: bool,
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

/// How long nothing of a response may move.
pub(crate) fn patience(front: &Front, service: &Service) -> Patience {
    let pause = service.spec.resilience.response_timeout.0;
    Patience { stall: front.limits.stall_timeout.0, pause: Some(pause) }
}

/// How a response's body is delimited for this client, and what its connection does afterwards.
pub(crate) fn outgoing(
    worker: &Worker,
    request: &Request,
    response: &Response,
    patience: Patience,
    may_stay: bool,
) -> (Outgoing, Persistence) {
    let framing = match response.framing {
        Framing::Length(length) => Framing::Length(length),
        _ if request.minor == 1 => Framing::Chunked,
        _ => Framing::Close,
    };
    let stays = may_stay && request.keep_alive && framing != Framing::Close && !worker.closing.has_begun();
    let persistence = match (stays, request.minor) {
        (false, _) => Persistence::Closes,
        (true, 0) => Persistence::StaysAsAsked,
        (true, _) => Persistence::Stays,
    };
    (Outgoing { framing, trailers: request.takes_trailers, patience }, persistence)
}

/// What ends a response of which something is missing, so that the client can tell (RFC 9112 section 8): where a length or
/// a last chunk is missing that is enough, and all that has come may be of use.
pub(crate) fn after_truncation(outgoing: Outgoing) -> After {
    if outgoing.framing == Framing::Close { After::Reset } else { After::Close }
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
    exchange: &mut Exchange<'_>,
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
    /// Passes on what comes before a response, until the response itself is there.
    pub(crate) async fn settle_interim(&mut self, begun: &mut Begun, limit: Duration) -> Result<(), Own> {
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
                && list(taken).all(|taken| protocols(asked).any(|asked| asked.eq_ignore_ascii_case(taken)))
        };
        if asked.zip(taken).is_some_and(fits) { Ok(()) } else { Err(begun.is_invalid().into()) }
    }

    /// Writes the head of a response whose request was sent as a whole; returns how its body goes on.
    fn write_head(
        &mut self,
        out: &mut Vec<u8>,
        service: &Service,
        begun: &Begun,
        added: &Added,
    ) -> (Outgoing, Persistence) {
        let to = outgoing(self.worker, self.request, &begun.response, patience(&self.front, service), true);
        let (endpoint, message) = (begun.in_flight.endpoint(), (&begun.response, &begun.buffer));
        write_head(self.worker, &mut self.exchange, out, service, endpoint, message, added, to);
        to
    }

    /// Relays a response whose request was sent as a whole.
    pub(crate) async fn bring_back(
        &mut self,
        service: &Service,
        begun: Begun,
        added: &Added,
        end: usize,
    ) -> After {
        let mut out = self.worker.buffers.out();
        let going = self.write_head(&mut out, service, &begun, added);
        match begun.whole_body() {
            Some(body) => self.hand_over(begun, body, &mut out, going, end).await,
            // On the heap: what comes in pieces is long, or slow.
            None => Box::pin(self.relay_back(service, begun, &mut out, going, end)).await,
        }
    }

    /// Hands over a response that has come as a whole, as nearly all short ones have.
    async fn hand_over(
        &mut self,
        begun: Begun,
        body: Range<usize>,
        out: &mut Vec<u8>,
        (outgoing, persistence): (Outgoing, Persistence),
        end: usize,
    ) -> After {
        let Begun { connection, buffer, response, in_flight, sent_whole, .. } = begun;
        let endpoint = Rc::clone(in_flight.endpoint());
        // The endpoint has done its part, however long the client takes.
        drop(in_flight);
        let data = &buffer[body.clone()];
        self.exchange.sent(data.len() as u64);
        if persistence == Persistence::Closes {
            self.client.stream.write_last();
        }
        let result = if data.len() <= COPIED_BYTES_MAX {
            out.extend_from_slice(data);
            relay::write(&mut self.client.stream, out, &[], outgoing.patience.stall).await
        } else {
            relay::write(&mut self.client.stream, out, data, outgoing.patience.stall).await
        };
        if response.keep_alive && sent_whole && body.end == buffer.len() {
            endpoint.check_in(connection, self.worker.now());
        }
        match result {
            Ok(()) if persistence != Persistence::Closes => After::Next(end),
            Ok(()) => After::Close,
            Err(error) => self.gave_up(&error),
        }
    }

    fn gave_up(&self, error: &io::Error) -> After {
        tracing::debug!(client = %self.client.address, %error, "client took no more of its response");
        After::Close
    }

    /// Relays a response as it comes.
    async fn relay_back(
        &mut self,
        service: &Service,
        begun: Begun,
        out: &mut Vec<u8>,
        (outgoing, persistence): (Outgoing, Persistence),
        end: usize,
    ) -> After {
        let Begun { mut connection, mut buffer, response, mut in_flight, sent_whole, .. } = begun;
        if response.is_event_stream(&buffer.head, &buffer) {
            in_flight.begin_stream();
        }
        let mut body = Body::new(response.framing, buffer.head.len);
        let relayed = Cell::new(0);
        let endpoint = Rc::clone(in_flight.endpoint());
        let mut in_flight = Some(in_flight);
        let result = {
            let client = match self.client.stream.registered() {
                Ok(client) => client,
                Err(error) => return self.gave_up(&error),
            };
            let (mut watched, mut sink) = client.split();
            let (mut source, _) = connection.stream.split();
            let way = Way { source: &mut source, sink: &mut sink, pipes: &self.worker.pipes };
            let relaying = relay(way, &mut buffer, &mut body, out, outgoing, &relayed, &mut in_flight);
            attempt::unless_gone(&mut watched, &relayed, relaying).await
        };
        self.exchange.sent(relayed.get());
        match result {
            Some(Ok(clean)) => {
                if response.keep_alive && sent_whole && clean {
                    endpoint.check_in(connection, self.worker.now());
                }
                if persistence == Persistence::Closes { After::Close } else { After::Next(end) }
            }
            Some(Err(RelayError::Truncated { written })) => {
                endpoint.truncated();
                if written {
                    return after_truncation(outgoing);
                }
                service.stats.refuse(Refusal::InvalidResponse);
                self.refuse_at(&Refusal::InvalidResponse.answer(), Some(end)).await
            }
            Some(Err(RelayError::Client(error))) => {
                self.gave_up(&error);
                after_truncation(outgoing)
            }
            None => after_truncation(outgoing),
        }
    }

    /// The protocol is switched: from here on bytes pass.
    pub(crate) async fn tunnel(
        &mut self,
        service: &Service,
        begun: Begun,
        added: &Added,
        end: usize,
    ) -> After {
        let mut out = self.worker.buffers.out();
        self.write_head(&mut out, service, &begun, added);
        self.exchange.uncounted();
        if relay::write(&mut self.client.stream, &mut out, &[], self.front.limits.stall_timeout.0)
            .await
            .is_ok()
        {
            let early = &self.buffer[end..];
            let Begun { mut connection, buffer, mut in_flight, .. } = begun;
            in_flight.begin_stream();
            let rest = &buffer[buffer.head.len..];
            let token = self.worker.token();
            if let Ok(client) = self.client.stream.registered() {
                upgrade::run(client, early, &mut connection.stream, rest, token).await;
            }
            drop(in_flight);
        }
        After::Close
    }
}
