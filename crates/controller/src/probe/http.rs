//! The GET of a probe: as little of HTTP/1.1 as it takes, because hundreds are asked each second.
//!
//! The request's bytes are made once, the buffer is used again, and so is the connection, because most of what a
//! probe costs is its making and unmaking. One in [`REUSES_MAX`] makes a new one, so that a replica that no longer
//! accepts any is found out. Deliberately absent: redirects (they are answers), and bodies beyond [`BODY_BYTES_MAX`].

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;

use memchr::memmem;
use ringmaster_core::spec::{HttpGet, StatusRange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::check::{Failure, connect};

/// How often a connection is used again.
const REUSES_MAX: u32 = 32;
/// A longer head is no answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A longer body is not read to its end, and its connection is not used again.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// A buffer that has grown beyond this is given back.
const KEPT_BYTES_MAX: usize = 4 * 1024;
const FIELDS_MAX: usize = 64;

/// What is asked, and which answer is good.
#[derive(Debug)]
pub(super) struct Question {
    bytes: Vec<u8>,
    path: String,
    status: StatusRange,
    body_contains: Option<String>,
}

/// Asks one address, again and again.
#[derive(Debug)]
pub(super) struct Http {
    address: SocketAddr,
    kept: Option<(TcpStream, u32)>,
    buffer: Vec<u8>,
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Bytes(usize),
    Chunked,
    UntilClose,
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    bytes: usize,
    status: u16,
    length: Length,
    keeps: bool,
}

impl Question {
    pub(super) fn new(get: &HttpGet, address: SocketAddr) -> Question {
        let mut text = format!("GET {} HTTP/1.1\r\n", get.path);
        let is_given = |name: &str| get.headers.keys().any(|given| given.eq_ignore_ascii_case(name));
        let ours = [("host", address.to_string()), ("user-agent", "ringmaster-probe".to_owned())];
        for (name, value) in ours.iter().filter(|(name, _)| !is_given(name)) {
            write!(text, "{name}: {value}\r\n").expect("a string takes all");
        }
        for (name, value) in &get.headers {
            write!(text, "{name}: {value}\r\n").expect("a string takes all");
        }
        text.push_str("\r\n");
        let (path, body_contains) = (get.path.clone(), get.body_contains.clone());
        Question { bytes: text.into_bytes(), path, status: get.status, body_contains }
    }
}

impl Http {
    pub(super) fn new(address: SocketAddr) -> Http {
        Http { address, kept: None, buffer: Vec::new() }
    }

    /// Asks once; on a `fresh` connection if there is reason for doubt. Safe to drop: the connection goes with it.
    pub(super) async fn ask(&mut self, question: &Question, fresh: bool) -> Result<(), Failure> {
        let kept = self.kept.take().filter(|(_, uses)| !fresh && *uses < REUSES_MAX);
        if let Some((stream, uses)) = kept
            && let Ok(answer) = self.exchange(stream, uses, question).await
        {
            return self.judge(question, answer);
        }
        // A kept connection may have been closed in the meantime: only a new one tells.
        let stream = connect(self.address).await?;
        let answer = self.exchange(stream, 0, question).await;
        let answer = answer
            .map_err(|error| Failure::new(format!("GET {} on {}: {error}", question.path, self.address)))?;
        self.judge(question, answer)
    }

    /// Sends one request and reads its answer: the status, and whether the body holds what it should. Keeps the
    /// connection if it can be used again.
    async fn exchange(
        &mut self,
        mut stream: TcpStream,
        uses: u32,
        question: &Question,
    ) -> io::Result<(u16, bool)> {
        let buffer = &mut self.buffer;
        if buffer.capacity() > KEPT_BYTES_MAX {
            *buffer = Vec::new();
        }
        buffer.clear();
        stream.write_all(&question.bytes).await?;
        let head = loop {
            match head_of(buffer)? {
                // An interim answer: the real one follows.
                Some(head) if (100..200).contains(&head.status) => drop(buffer.drain(..head.bytes)),
                Some(head) => break head,
                None if buffer.len() > HEAD_BYTES_MAX => {
                    return Err(io::Error::other("the head of the answer has no end"));
                }
                None => more(&mut stream, buffer).await?,
            }
        };
        let body = read_body(&mut stream, buffer, &head, question.body_contains.is_some()).await?;
        let wanted = question.body_contains.as_deref().is_none_or(|wanted| contains(buffer, &head, wanted));
        self.kept = (body == Body::Whole && head.keeps).then_some((stream, uses + 1));
        Ok((head.status, wanted))
    }

    fn judge(&self, question: &Question, (status, holds): (u16, bool)) -> Result<(), Failure> {
        let about = || format!("GET {} on {} answered {status}", question.path, self.address);
        match &question.body_contains {
            _ if !question.status.contains(status) => Err(Failure::new(about())),
            Some(wanted) if !holds => {
                Err(Failure::new(format!("{}, and its body does not contain `{wanted}`", about())))
            }
            _ => Ok(()),
        }
    }
}

/// How much of a body has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    /// All of it, and nothing beyond.
    Whole,
    /// As much as matters.
    Part,
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.reserve(1_024);
    match stream.read_buf(buffer).await? {
        0 => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection was closed before the answer's end",
        )),
        _ => Ok(()),
    }
}

/// The head at the beginning of the buffer, once it is whole.
fn head_of(buffer: &[u8]) -> io::Result<Option<Head>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let bytes = match response.parse(buffer) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(io::Error::other(format!("the answer is not HTTP/1.1: {error}"))),
    };
    let status = response.code.unwrap_or_default();
    let mut head = Head { bytes, status, length: Length::UntilClose, keeps: response.version == Some(1) };
    for field in response.headers.iter() {
        let value = String::from_utf8_lossy(field.value);
        let value = value.trim();
        if field.name.eq_ignore_ascii_case("connection") {
            head.keeps &= !value.split(',').any(|token| token.trim().eq_ignore_ascii_case("close"));
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            head.length = Length::Chunked;
        } else if field.name.eq_ignore_ascii_case("content-length") && head.length != Length::Chunked {
            let length = value.parse().map_err(|_| io::Error::other(format!("a length of `{value}`")))?;
            head.length = Length::Bytes(length);
        }
    }
    if matches!(status, 100..200 | 204 | 304) {
        head.length = Length::Bytes(0);
    }
    Ok(Some(head))
}

/// Reads the body, if it is `wanted` or its end has to be found for the next question.
async fn read_body(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    head: &Head,
    wanted: bool,
) -> io::Result<Body> {
    loop {
        let body = &buffer[head.bytes..];
        let end = match head.length {
            Length::Bytes(length) => Some(length),
            Length::Chunked => chunks(body, |_| ())?,
            Length::UntilClose => None,
        };
        match end {
            Some(end) if body.len() >= end => {
                return Ok(if body.len() == end { Body::Whole } else { Body::Part });
            }
            _ if body.len() >= BODY_BYTES_MAX || (!wanted && end.is_some_and(|end| end > BODY_BYTES_MAX)) => {
                return Ok(Body::Part);
            }
            None if head.length == Length::UntilClose => {
                if !wanted {
                    return Ok(Body::Part);
                }
                buffer.reserve(1_024);
                if stream.read_buf(buffer).await? == 0 {
                    return Ok(Body::Part);
                }
            }
            _ => more(stream, buffer).await?,
        }
    }
}

fn contains(buffer: &[u8], head: &Head, wanted: &str) -> bool {
    let body = &buffer[head.bytes..];
    match head.length {
        Length::Bytes(length) => memmem::find(&body[..length.min(body.len())], wanted.as_bytes()).is_some(),
        Length::UntilClose => memmem::find(body, wanted.as_bytes()).is_some(),
        Length::Chunked => {
            let mut whole = Vec::with_capacity(body.len());
            // What is broken was found while it was read.
            drop(chunks(body, |chunk| whole.extend_from_slice(chunk)));
            memmem::find(&whole, wanted.as_bytes()).is_some()
        }
    }
}

/// Walks the chunks of a body (RFC 9112 section 7.1); returns where it ends, once that is there.
fn chunks(body: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<Option<usize>> {
    let broken = || io::Error::other("a chunk of the answer is broken");
    let mut at = 0;
    loop {
        let (start, size) = match httparse::parse_chunk_size(&body[at..]) {
            Ok(httparse::Status::Complete((read, size))) => {
                (at + read, usize::try_from(size).map_err(|_| broken())?)
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(broken()),
        };
        if size == 0 {
            return Ok(trailer_end(&body[start..]).map(|end| start + end));
        }
        let end = start.checked_add(size).ok_or_else(broken)?;
        each(&body[start..end.min(body.len())]);
        match body.get(end..end.saturating_add(2)) {
            Some(b"\r\n") => at = end + 2,
            Some(_) => return Err(broken()),
            None => return Ok(None),
        }
    }
}

/// Where the trailer that begins here ends: with an empty line.
fn trailer_end(text: &[u8]) -> Option<usize> {
    if text.starts_with(b"\r\n") { Some(2) } else { memmem::find(text, b"\r\n\r\n").map(|at| at + 4) }
}

#[cfg(test)]
mod tests;
