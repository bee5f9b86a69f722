//! One connection of the load: a request, and every byte of its response verified.

use std::net::SocketAddr;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::work::{Work, is_of_body, pattern};

/// Different keys, which a consistent hash spreads over the origins.
pub(crate) const KEYS: usize = 256;
const READ_BYTES: usize = 64 << 10;

/// The requests of a work, and what answers them.
pub(crate) struct Script {
    pub(crate) work: Work,
    requests: Vec<Vec<u8>>,
    pattern: Vec<u8>,
}

/// A connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Script {
    pub(crate) fn new(work: Work) -> Script {
        let pattern = pattern();
        let request = |key: usize| {
            let method = if work.request_bytes > 0 { "POST" } else { "GET" };
            // As a browser sends them: about 350 bytes.
            let mut text = format!(
                "{method} /{}/item/{:06}-{key} HTTP/1.1\r\nHost: app.example.test\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; \
                 rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
                 Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\nCookie: session=3f9a0c77d2b14e6a; theme=dark\r\n",
                work.response_bytes,
                key * 7_919 % 1_000_003,
            );
            if work.request_bytes > 0 {
                text +=
                    &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", work.request_bytes);
            }
            if work.closes {
                text += "Connection: close\r\n";
            }
            text += "\r\n";
            let mut bytes = text.into_bytes();
            bytes.extend_from_slice(&pattern[..work.request_bytes]);
            bytes
        };
        Script { work, requests: (0..KEYS).map(request).collect(), pattern }
    }
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Connection, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("cannot connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| format!("the connection ended at once: {error}"))?;
        Ok(Connection { stream, buffer: Vec::new() })
    }

    /// Sends the request of a key and reads its response to the end; the error says what was not as it must be.
    pub(crate) async fn exchange(&mut self, script: &Script, key: usize) -> Result<(), String> {
        let sent = self.stream.write_all(&script.requests[key % KEYS]).await;
        sent.map_err(|error| format!("the connection ended as a request was sent: {error}"))?;
        self.buffer.clear();
        // A response with its head at once, where it fits.
        self.buffer.reserve(if script.work.response_bytes < 4_096 { 8_192 } else { READ_BYTES });
        let head_bytes = loop {
            if let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.read("a head").await?;
        };
        check_head(&self.buffer[..head_bytes], script.work.response_bytes)?;
        let (expected, mut received) = (script.work.response_bytes, self.buffer.len() - head_bytes);
        let mut fits = is_of_body(&script.pattern, 0, &self.buffer[head_bytes..]);
        while received < expected && fits {
            self.buffer.clear();
            let count = self.read("a body").await?;
            fits = is_of_body(&script.pattern, received, &self.buffer);
            received += count;
        }
        if !fits || received > expected {
            return Err(format!("another body than that of the origin, at {received} of {expected} bytes"));
        }
        if script.work.closes && self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) > 0 {
            return Err("bytes behind the end of a response".to_owned());
        }
        Ok(())
    }

    /// An idle connection needs no buffer.
    pub(crate) fn shrink(&mut self) {
        self.buffer = Vec::new();
    }

    async fn read(&mut self, of: &str) -> Result<usize, String> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => Err(format!("the connection was closed within {of}")),
            Ok(count) => Ok(count),
            Err(error) => Err(format!("the connection failed within {of}: {error}")),
        }
    }
}

fn check_head(head: &[u8], length: usize) -> Result<(), String> {
    let announced = fields(head).find_map(|(name, value)| {
        name.eq_ignore_ascii_case(b"content-length")
            .then(|| std::str::from_utf8(value).ok()?.parse::<usize>().ok())?
    });
    if head.starts_with(b"HTTP/1.1 200 ") && announced == Some(length) {
        return Ok(());
    }
    Err(format!(
        "another answer than 200 with {length} bytes: {:?}",
        String::from_utf8_lossy(head).trim_end()
    ))
}

/// The fields behind the first line of a head, without the blanks around their values. Without a copy: the load shares its
/// core with the origins, and a proxy that has to wait for both is not measured at work.
pub(crate) fn fields(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut ends = memchr::memchr_iter(b'\n', head);
    let mut start = ends.next().map_or(head.len(), |end| end + 1);
    ends.filter_map(move |end| {
        let line = &head[std::mem::replace(&mut start, end + 1)..end];
        let colon = memchr::memchr(b':', line)?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_head_are_found() {
        let head = b"HTTP/1.1 200 OK\r\nA: 1\r\nno colon\r\nB:\r\nC:  x y \r\n\r\n";
        let found: Vec<_> = fields(head).collect();
        assert_eq!(found, [(&b"A"[..], &b"1"[..]), (b"B", b""), (b"C", b"x y")]);
        assert_eq!(fields(b"no end").count(), 0);
    }

    #[test]
    fn only_the_answer_that_was_asked_for_is_right() {
        assert_eq!(check_head(b"HTTP/1.1 200 OK\r\nVia: x\r\ncontent-length: 64\r\n\r\n", 64), Ok(()));
        for wrong in [
            "HTTP/1.1 503 X\r\nContent-Length: 64\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 63\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
        ] {
            assert!(check_head(wrong.as_bytes(), 64).is_err(), "{wrong}");
        }
    }
}
