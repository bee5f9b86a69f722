//! Writes heads and chunks (RFC 9112), and decides which fields go on (RFC 9110 section 7.6).
//!
//! Every message is written anew from what was understood of it: nothing of a line that was only tolerated gets further.
//! The fields that go on keep their order, their spelling and their repeats.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use super::bytes::{is_token, list};
use super::field::Name;
use super::framing::Framing;
use super::head::{Field, Head};
use super::request::{Method, Request, protocols};
use super::response::Response;

/// What each message that passes says of its way (RFC 9110 section 7.6.3).
const VIA: &[u8] = b"Via: 1.1 ringmaster\r\n";
const VIA_1_0: &[u8] = b"Via: 1.0 ringmaster\r\n";

/// What a request says about its client, as the data plane vouches for it.
#[derive(Debug, Clone)]
pub(crate) struct Forwarding {
    /// The client's address as text.
    client: Box<[u8]>,
    /// The same as [RFC 7239 section 4](https://www.rfc-editor.org/rfc/rfc7239#section-4) has it.
    element: Box<[u8]>,
    /// Whether what the client itself says about others is believed, because it is a proxy of ours.
    pub(crate) trusted: bool,
}

impl Forwarding {
    /// Of a client whose word is not taken.
    pub(crate) fn of(client: IpAddr) -> Forwarding {
        let text = match client {
            IpAddr::V4(client) => v4(client),
            IpAddr::V6(client) => client.to_string().into_bytes(),
        };
        let (before, after): (&[u8], &[u8]) =
            if client.is_ipv6() { (b"for=\"[", b"]\"") } else { (b"for=", b"") };
        let element = [before, &text, after].concat().into();
        Forwarding { client: text.into(), element, trusted: false }
    }
}

/// An address as text: each connection has one written.
fn v4(address: Ipv4Addr) -> Vec<u8> {
    let mut text = Vec::with_capacity(15);
    for octet in address.octets() {
        if !text.is_empty() {
            text.push(b'.');
        }
        number(&mut text, u64::from(octet));
    }
    text
}

/// What is written of a request besides its fields.
pub(crate) struct RequestParts<'a> {
    pub(crate) request: &'a Request,
    pub(crate) head: &'a Head,
    pub(crate) buffer: &'a [u8],
    pub(crate) forwarding: &'a Forwarding,
    /// Whom a trusted client asks for; of any other it is the client.
    pub(crate) asker: IpAddr,
    /// The host of a request that has none, as HTTP/1.0 allows.
    pub(crate) default_host: &'a str,
    /// The endpoint is to say whether it wants the body.
    pub(crate) expect_continue: bool,
}

/// Writes a request's head for an endpoint.
pub(crate) fn request(out: &mut Vec<u8>, parts: &RequestParts<'_>) {
    let RequestParts { request, head, buffer, forwarding, .. } = *parts;
    let (mut kept, mut counted_down) = (Kept::new(buffer), false);
    if request.is_line_as_written {
        kept.begin(head);
    } else {
        request_line(out, request, buffer);
    }
    if !head.has(Name::Host) {
        kept.end(out);
        line(out, b"Host", request.host.map_or(parts.default_host.as_bytes(), |host| host.of(buffer)));
    }
    for field in &head.fields {
        match field.kind {
            Name::Other | Name::Cookie | Name::Date | Name::IdempotencyKey | Name::XForwarded
                if request.names_fields && is_named(head, buffer, field) => {}
            Name::Other | Name::Cookie | Name::Date | Name::IdempotencyKey => kept.line(out, field),
            Name::Host => match request.host {
                Some(host) if host != field.value => {
                    kept.end(out);
                    line(out, field.name.of(buffer), host.of(buffer));
                }
                _ => kept.line(out, field),
            },
            Name::MaxForwards => match request.max_forwards {
                Some(left) => {
                    kept.end(out);
                    if !std::mem::replace(&mut counted_down, true) {
                        number_line(out, b"Max-Forwards: ", left.saturating_sub(1));
                    }
                }
                None => kept.line(out, field),
            },
            Name::XForwardedPort | Name::XForwarded if forwarding.trusted => kept.line(out, field),
            // What is of one hop, what is written below, and what only we may say.
            _ => {}
        }
    }
    kept.end(out);
    forwarded(out, parts);
    out.extend_from_slice(if request.minor == 1 { VIA } else { VIA_1_0 });
    match request.framing {
        Framing::Length(length) if length > 0 || head.has(Name::ContentLength) => {
            number_line(out, b"Content-Length: ", length);
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::Length(_) | Framing::Close => {}
    }
    if parts.expect_continue {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    if let Some(upgrade) = request.upgrade {
        out.extend_from_slice(b"Connection: upgrade\r\nUpgrade: ");
        for (index, protocol) in protocols(upgrade.of(buffer)).enumerate() {
            out.extend_from_slice(if index == 0 { b"" } else { b", " });
            out.extend_from_slice(protocol);
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the first line of a request whose own one does not go on as it is.
fn request_line(out: &mut Vec<u8>, request: &Request, buffer: &[u8]) {
    out.extend_from_slice(request.method_name.of(buffer));
    out.push(b' ');
    match request.target.of(buffer) {
        // An absolute target without a path: of OPTIONS it means the server (RFC 9112 section 3.2.4).
        [] if request.method == Method::Options => out.push(b'*'),
        [] => out.push(b'/'),
        [b'?', ..] => {
            out.push(b'/');
            out.extend_from_slice(request.target.of(buffer));
        }
        target => out.extend_from_slice(target),
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

fn forwarded(out: &mut Vec<u8>, parts: &RequestParts<'_>) {
    let RequestParts { request, head, buffer, forwarding, asker, .. } = *parts;
    let of = |kind| forwarding.trusted.then(|| head.of(kind)).into_iter().flatten();
    let believed = |kind| of(kind).last().map(|span| span.of(buffer));
    out.extend_from_slice(b"X-Forwarded-For: ");
    for value in of(Name::XForwardedFor).map(|value| value.of(buffer)).filter(|value| !value.is_empty()) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(&forwarding.client);
    out.extend_from_slice(b"\r\nForwarded: ");
    for value in of(Name::Forwarded).map(|value| value.of(buffer)).filter(|value| !value.is_empty()) {
        // A quote that is left open would take what is written behind it for its own.
        if quotes_are_closed(value) {
            out.extend_from_slice(value);
        } else {
            out.extend_from_slice(&Forwarding::of(asker).element);
        }
        out.extend_from_slice(b", ");
    }
    let host = request.host.map(|host| host.of(buffer));
    out.extend_from_slice(&forwarding.element);
    if let Some(host) = host.filter(|host| !host.is_empty()) {
        // What is no token is quoted (RFC 7239 section 4).
        let quote: &[u8] = if is_token(host) { b"" } else { b"\"" };
        for part in [b";host=", quote, host, quote] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b";proto=http\r\nX-Forwarded-Proto: ");
    out.extend_from_slice(believed(Name::XForwardedProto).unwrap_or(b"http"));
    if let Some(host) = believed(Name::XForwardedHost).or(host) {
        out.extend_from_slice(b"\r\nX-Forwarded-Host: ");
        out.extend_from_slice(host);
    }
    out.extend_from_slice(b"\r\nX-Real-IP: ");
    if forwarding.trusted {
        out.extend_from_slice(asker.to_string().as_bytes());
    } else {
        out.extend_from_slice(&forwarding.client);
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether each quoted string in a value ends in it (RFC 9110 section 5.6.4).
fn quotes_are_closed(value: &[u8]) -> bool {
    let (mut is_quoted, mut bytes) = (false, value.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'\\' if is_quoted => drop(bytes.next()),
            _ => {}
        }
    }
    !is_quoted
}

/// How a response goes on to the client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResponseParts<'a> {
    pub(crate) response: &'a Response,
    pub(crate) head: &'a Head,
    pub(crate) buffer: &'a [u8],
    /// How its body is delimited for the client.
    pub(crate) framing: Framing,
    /// What the connection does afterwards.
    pub(crate) connection: Persistence,
    /// The time of now, for a response that has none.
    pub(crate) date: &'a [u8],
    /// Whole lines that the data plane adds.
    pub(crate) added: &'a [u8],
}

/// What a client's connection does after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// It stays, as HTTP/1.1 has it unsaid.
    Stays,
    /// It stays, which a client of HTTP/1.0 asked for and has to be told.
    StaysAsAsked,
    /// It closes.
    Closes,
}

/// Writes a response's head for a client.
pub(crate) fn response(out: &mut Vec<u8>, parts: &ResponseParts<'_>) {
    let ResponseParts { response, head, buffer, .. } = *parts;
    let mut kept = Kept::new(buffer);
    if response.is_line_as_written {
        kept.begin(head);
    } else {
        status_line(out, response.status, response.reason.of(buffer));
    }
    for field in &head.fields {
        let is_named = response.names_fields && field.kind != Name::Date && is_named(head, buffer, field);
        let stays = !field.kind.is_hop_by_hop() && !is_named;
        if stays {
            kept.line(out, field);
        }
    }
    kept.end(out);
    if response.is_interim() {
        out.extend_from_slice(b"\r\n");
        return;
    }
    out.extend_from_slice(if response.minor == 1 { VIA } else { VIA_1_0 });
    if !response.has_date && response.status != 101 {
        line(out, b"Date", parts.date);
    }
    out.extend_from_slice(parts.added);
    // 426 says which protocol it wants: without that it is none (RFC 9110 section 15.5.22).
    if let Some(upgrade) = response.upgrade.filter(|_| matches!(response.status, 101 | 426)) {
        out.extend_from_slice(b"Connection: upgrade\r\n");
        line(out, b"Upgrade", upgrade.of(buffer));
    }
    if response.status != 101 {
        let bodiless = response.status == 204 || response.status == 304;
        match (response.length_of_absent_body, parts.framing) {
            (Some(length), _) => number_line(out, b"Content-Length: ", length),
            (None, Framing::Length(length)) if !bodiless && length_is_known(response, length) => {
                number_line(out, b"Content-Length: ", length);
            }
            (None, Framing::Chunked) => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            (None, _) => {}
        }
        persistence(out, parts.connection);
    }
    out.extend_from_slice(b"\r\n");
}

/// A response to HEAD without a length has none: 0 would be a claim.
fn length_is_known(response: &Response, length: u64) -> bool {
    length > 0 || response.framing == Framing::Length(0) && !response.is_to_head
}

/// Writes what the client is told about its connection.
pub(crate) fn persistence(out: &mut Vec<u8>, persistence: Persistence) {
    match persistence {
        Persistence::Stays => {}
        Persistence::StaysAsAsked => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        Persistence::Closes => out.extend_from_slice(b"Connection: close\r\n"),
    }
}

/// Writes a status line; the version is our own (RFC 9110 section 2.5).
pub(crate) fn status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    number(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

/// Writes a field.
pub(crate) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Fields that go on as they are. Where one stands in the buffer as it would be written, and the next right behind it, they
/// are copied together.
struct Kept<'a> {
    buffer: &'a [u8],
    copied: Range<usize>,
}

impl<'a> Kept<'a> {
    fn new(buffer: &'a [u8]) -> Kept<'a> {
        Kept { buffer, copied: 0..0 }
    }

    /// The first line, before all fields.
    fn begin(&mut self, head: &Head) {
        self.copied = head.line.start()..head.line.end() + 2;
    }

    /// The next field.
    fn line(&mut self, out: &mut Vec<u8>, field: &Field) {
        let (name, value) = (field.name, field.value);
        if !field.is_as_written {
            self.end(out);
            return line(out, name.of(self.buffer), value.of(self.buffer));
        }
        if name.start() != self.copied.end {
            self.end(out);
            self.copied.start = name.start();
        }
        self.copied.end = value.end() + 2;
    }

    /// Writes what has come so far.
    fn end(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.buffer[std::mem::take(&mut self.copied)]);
    }
}

/// Writes a whole chunk; an empty one would be the last.
pub(crate) fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    if !data.is_empty() {
        chunk_size(out, data.len());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes the line that begins a chunk.
fn chunk_size(out: &mut Vec<u8>, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(size >> (4 * place)) & 0xf]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the last chunk, with those trailers that may be there (RFC 9110 section 6.5.1).
pub(crate) fn last_chunk(out: &mut Vec<u8>, trailers: Option<(&Head, &[u8])>) {
    out.extend_from_slice(b"0\r\n");
    if let Some((trailers, buffer)) = trailers {
        for field in &trailers.fields {
            let name = field.name.of(buffer);
            if !field.kind.is_forbidden_in_trailers(name) {
                line(out, name, field.value.of(buffer));
            }
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether `Connection` names this field.
fn is_named(head: &Head, buffer: &[u8], field: &Field) -> bool {
    let name = field.name.of(buffer);
    let named = |option: &[u8]| option.eq_ignore_ascii_case(name);
    head.of(Name::Connection).any(|options| list(options.of(buffer)).any(named))
}

fn number_line(out: &mut Vec<u8>, name: &[u8], value: u64) {
    out.extend_from_slice(name);
    number(out, value);
    out.extend_from_slice(b"\r\n");
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests;
