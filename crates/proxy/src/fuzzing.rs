//! What the fuzz targets see of the parsers (`crates/proxy/fuzz`); compiled for them alone.
//!
//! Each reader here takes the bytes as they would arrive: in pieces, whose lengths `cuts` tells. Whatever the pieces, the
//! result has to be the same; the targets hold that.

use crate::h1::body::{Body, Piece};
use crate::h1::framing::Framing;
use crate::h1::head::{Head, Progress, Side};
use crate::h1::request::{self, Method, Request};
use crate::h1::response::{self, Response};

/// A head that is taken, in the words of any other parser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its first line, without its end.
    pub line: Vec<u8>,
    /// Names and values, without the blanks around them.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// The bytes that it has, with empty lines before it.
    pub len: usize,
    /// What it is taken to mean.
    pub meaning: String,
}

/// What came of the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// They are this.
    Taken(T),
    /// More would have to come.
    Partial,
    /// They are refused.
    Refused,
}

/// A chunked body that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unchunked {
    /// Its data.
    pub data: Vec<u8>,
    /// Where the next message begins.
    pub end: usize,
    /// The fields after the last chunk.
    pub trailers: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A whole message, as far as its two ends have to agree about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Of a request its method, of a response its status.
    pub what: String,
    /// Of a request: path and query as they go on; empty of a response.
    pub target: String,
    /// The same as it was sent.
    pub whole_target: String,
    /// Of its version, as it was said.
    pub minor: u8,
    /// Names and values, without the blanks around them.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// Its body, whatever it was framed by.
    pub body: Vec<u8>,
    /// Another one may follow on its connection.
    pub stays: bool,
    /// The client wants to speak another protocol afterwards.
    pub switches: bool,
}

/// Reads the requests that stand one behind the other, up to the first that is not whole or not fine.
pub fn requests(mut bytes: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    while let Some((message, len)) = request(bytes) {
        bytes = &bytes[len..];
        let is_last = !message.stays || message.switches;
        found.push(message);
        if is_last {
            break;
        }
    }
    found
}

fn request(bytes: &[u8]) -> Option<(Message, usize)> {
    let mut head = Head::default();
    head.reset(0);
    let whole = head.advance(bytes, Side::Request) == Ok(Progress::Whole);
    let request = whole.then(|| Request::of(&head, bytes).ok()).flatten()?;
    let (body, end) = body(request.framing, head.len, bytes)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let message = Message {
        what: text(request.method_name.of(bytes)),
        target: text(request.target.of(bytes)),
        whole_target: text(head.line.of(bytes).split(|&byte| byte == b' ').nth(1).unwrap_or_default()),
        minor: digit(head.line.of(bytes).last()),
        fields: fields(&head, bytes),
        body,
        stays: request.keep_alive,
        switches: request.upgrade.is_some(),
    };
    Some((message, end))
}

/// Reads a response to a GET, or as `to_head` says to a HEAD, after which its connection ends.
pub fn response(bytes: &[u8], to_head: bool) -> Option<Message> {
    let mut head = Head::default();
    head.reset(0);
    let whole = head.advance(bytes, Side::Response) == Ok(Progress::Whole);
    let method = if to_head { Method::Head } else { Method::Get };
    let response = whole.then(|| Response::of(&head, bytes, method).ok()).flatten()?;
    let (body, _) = body(response.framing, head.len, bytes)?;
    Some(Message {
        what: response.status.to_string(),
        target: String::new(),
        whole_target: String::new(),
        minor: digit(head.line.of(bytes).get(7)),
        fields: fields(&head, bytes),
        body,
        stays: response.keep_alive,
        switches: response.upgrade.is_some(),
    })
}

fn digit(byte: Option<&u8>) -> u8 {
    byte.map_or(0, |byte| byte - b'0')
}

/// The data of a whole body, and where it ends.
fn body(framing: Framing, start: usize, bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut data) = (Body::new(framing, start), Vec::new());
    loop {
        match body.next(bytes).ok()? {
            Piece::Data(range) => data.extend_from_slice(&bytes[range]),
            Piece::More if body.ends_with_connection() => {}
            Piece::More => return None,
            Piece::End => return Some((data, body.end())),
        }
    }
}

/// Reads the head of a request.
pub fn request_head(bytes: &[u8], cuts: &[u8]) -> Outcome<Accepted> {
    let understand = |head: &Head, bytes: &[u8]| {
        let request = Request::of(head, bytes).ok()?;
        // The places have to be inside the buffer, on whatever they are asked.
        let (path, query) = (request.path(bytes).to_vec(), request.query(bytes).to_vec());
        let host = request.host.map(|host| host.of(bytes).to_vec());
        Some(format!("{request:?} {path:?} {query:?} {host:?}"))
    };
    read(bytes, cuts, Side::Request, |head, bytes| request::check_line(head, bytes).is_ok(), understand)
}

/// Reads the head of the response to a GET or, as `to_head` says, to a HEAD.
pub fn response_head(bytes: &[u8], cuts: &[u8], to_head: bool) -> Outcome<Accepted> {
    let method = if to_head { Method::Head } else { Method::Get };
    let understand = |head: &Head, bytes: &[u8]| {
        let response = Response::of(head, bytes, method).ok()?;
        assert!((100..=599).contains(&response.status));
        let reason = response.reason.of(bytes).to_vec();
        Some(format!("{response:?} {reason:?}"))
    };
    read(bytes, cuts, Side::Response, |head, bytes| response::check_line(head, bytes).is_ok(), understand)
}

/// Reads a chunked body, forgetting between two pieces what was looked at.
pub fn chunked(bytes: &[u8], cuts: &[u8]) -> Outcome<Unchunked> {
    let mut body = Body::new(Framing::Chunked, 0);
    let (mut buffer, mut data, mut forgotten) = (Vec::new(), Vec::new(), 0);
    for piece in pieces(bytes, cuts) {
        let before = buffer.len();
        body.compact(&mut buffer);
        forgotten += before - buffer.len();
        buffer.extend_from_slice(piece);
        loop {
            match body.next(&buffer) {
                Err(_) => return Outcome::Refused,
                Ok(Piece::More) => break,
                Ok(Piece::Data(range)) => data.extend_from_slice(&buffer[range]),
                Ok(Piece::End) => {
                    let trailers = body.trailers().map(|head| fields(head, &buffer)).unwrap_or_default();
                    return Outcome::Taken(Unchunked { data, end: forgotten + body.end(), trailers });
                }
            }
        }
    }
    Outcome::Partial
}

fn read(
    bytes: &[u8],
    cuts: &[u8],
    side: Side,
    line_is_fine: impl Fn(&Head, &[u8]) -> bool,
    understand: impl Fn(&Head, &[u8]) -> Option<String>,
) -> Outcome<Accepted> {
    let (mut head, mut buffer) = (Head::default(), Vec::new());
    head.reset(0);
    for piece in pieces(bytes, cuts) {
        buffer.extend_from_slice(piece);
        match head.advance(&buffer, side) {
            Err(_) => return Outcome::Refused,
            Ok(Progress::Line) if !line_is_fine(&head, &buffer) => return Outcome::Refused,
            Ok(Progress::Line | Progress::Partial) => {}
            Ok(Progress::Whole) => {
                let Some(meaning) = understand(&head, &buffer) else { return Outcome::Refused };
                let line = head.line.of(&buffer).to_vec();
                let fields = fields(&head, &buffer);
                return Outcome::Taken(Accepted { line, fields, len: head.len, meaning });
            }
        }
    }
    Outcome::Partial
}

fn fields(head: &Head, buffer: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let field =
        |place: &crate::h1::head::Field| (place.name.of(buffer).to_vec(), place.value.of(buffer).to_vec());
    head.fields.iter().map(field).collect()
}

/// The bytes in pieces of these lengths, over and over; without lengths in one piece.
fn pieces<'a>(mut bytes: &'a [u8], cuts: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut cuts = cuts.iter().cycle();
    std::iter::from_fn(move || {
        let length = cuts.next().map_or(bytes.len(), |&cut| usize::from(cut).max(1));
        let piece = bytes.split_off(..length.min(bytes.len()))?;
        (!piece.is_empty()).then_some(piece)
    })
}
