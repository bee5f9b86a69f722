//! A light HTTP/1.1 client: one kept-alive connection, one request at a time, nothing hidden.
//!
//! Deliberately absent: retries, redirects, pools and decoding. A load generator that repeats a failed request by
//! itself measures its own kindness.

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Most fields of a head.
const FIELDS_MAX: usize = 64;
/// The field in which the proxy says who answered, where the manifest asks for it.
pub(crate) const REPLICA_FIELD: &str = "x-ringmaster-replica";

/// One connection to a server.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// What was read and not used yet; the answer lies at its beginning.
    buffer: Vec<u8>,
}

/// An answer, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// The value of [`REPLICA_FIELD`].
    pub(crate) replica: Option<String>,
    /// Whether the connection can be used again.
    pub(crate) keep: bool,
}

/// How an answer's body ends.
enum Length {
    Known(usize),
    Chunked,
    UntilClose,
}

struct Head {
    bytes: usize,
    status: u16,
    length: Length,
    keep: bool,
    replica: Option<String>,
}

/// The text of a request. `fields` are whole lines, each with its line end.
pub(crate) fn request_text(method: &str, path: &str, host: &str, fields: &str, body: &str) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}");
    if !body.is_empty() || method == "POST" {
        let length = body.len();
        // Writing to a String cannot fail.
        write!(text, "Content-Type: application/json\r\nContent-Length: {length}\r\n")
            .expect("a String grows");
    }
    text + "\r\n" + body
}

impl Connection {
    pub(crate) async fn open(target: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: Vec::with_capacity(1_024) })
    }

    /// Sends a request and reads its answer. After an error the connection is of no more use.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            if let Some(head) = parse_head(&self.buffer)? {
                break head;
            }
            self.more("closed without an answer").await?;
        };
        let (body, keep) = match head.length {
            Length::Known(length) => {
                while self.buffer.len() < head.bytes + length {
                    self.more("closed within the answer").await?;
                }
                (self.buffer[head.bytes..head.bytes + length].to_vec(), head.keep)
            }
            Length::Chunked => loop {
                if let Some(body) = unchunk(&self.buffer[head.bytes..])? {
                    break (body, head.keep);
                }
                self.more("closed within the answer").await?;
            },
            Length::UntilClose => {
                while self.read().await? > 0 {}
                (self.buffer[head.bytes..].to_vec(), false)
            }
        };
        Ok(Answer { status: head.status, body, replica: head.replica, keep })
    }

    async fn more(&mut self, if_closed: &'static str) -> io::Result<()> {
        match self.read().await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, if_closed)),
            _ => Ok(()),
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        if self.buffer.len() > ANSWER_BYTES_MAX {
            return Err(invalid("longer than 4 MiB"));
        }
        self.stream.read_buf(&mut self.buffer).await
    }
}

/// One request on a connection of its own.
pub(crate) async fn once(target: SocketAddr, request: &str) -> io::Result<Answer> {
    Connection::open(target).await?.exchange(request.as_bytes()).await
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not an answer of HTTP/1.1: {what}"))
}

fn parse_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let end = match response.parse(bytes).map_err(|error| invalid(&error.to_string()))? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(end) => end,
    };
    let status = response.code.unwrap_or_default();
    let mut head = Head {
        bytes: end,
        status,
        length: if matches!(status, 204 | 304) { Length::Known(0) } else { Length::UntilClose },
        keep: response.version == Some(1),
        replica: None,
    };
    for field in response.headers.iter() {
        let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
        if field.name.eq_ignore_ascii_case("content-length") {
            head.length = Length::Known(value.parse().map_err(|_| invalid("Content-Length"))?);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            head.length = Length::Chunked;
        } else if field.name.eq_ignore_ascii_case("connection") {
            head.keep &= !value.eq_ignore_ascii_case("close");
        } else if field.name.eq_ignore_ascii_case(REPLICA_FIELD) {
            head.replica = Some(value.to_owned());
        }
    }
    Ok(Some(head))
}

/// The body out of its chunks; none while the last one is missing. Trailers are not expected.
fn unchunk(mut bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let (start, size) = match httparse::parse_chunk_size(bytes).map_err(|_| invalid("a chunk's size"))? {
            httparse::Status::Partial => return Ok(None),
            httparse::Status::Complete((start, size)) => (start, size as usize),
        };
        let Some(chunk) = bytes.get(start..start.saturating_add(size).saturating_add(2)) else {
            return Ok(None);
        };
        if size == 0 {
            return Ok(Some(body));
        }
        body.extend_from_slice(&chunk[..size]);
        bytes = &bytes[start + size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_say_how_the_body_ends() {
        let head = |text: &str| parse_head(text.as_bytes()).unwrap().unwrap();
        let known = head("HTTP/1.1 200 OK\r\ncontent-length: 7\r\nX-Ringmaster-Replica: web-2\r\n\r\n");
        assert!(matches!(known.length, Length::Known(7)) && known.keep);
        assert_eq!(known.replica.as_deref(), Some("web-2"));
        assert!(!head("HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").keep);
        assert!(matches!(
            head("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").length,
            Length::Chunked
        ));
        assert!(parse_head(b"HTTP/1.1 200 OK\r\n").unwrap().is_none());
        assert!(parse_head(b"SSH-2.0\r\n\r\n").is_err());
    }

    #[test]
    fn chunks_are_put_together() {
        assert_eq!(unchunk(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").unwrap().unwrap(), b"abcde");
        assert_eq!(unchunk(b"3\r\nabc\r\n2\r\nd").unwrap(), None);
        assert_eq!(unchunk(b"").unwrap(), None);
        assert!(unchunk(b"zz\r\n").is_err());
    }
}
