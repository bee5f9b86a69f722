//! The origins behind every proxy: they answer with as many bytes as the path says, check what they are sent, and count.
//!
//! A path is `/BYTES/…`. What comes wrong is answered with 400, which the load notices, and kept as the reason.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::client::fields;
use crate::work::{BODY_BYTES_MAX, is_of_body, pattern};

/// Origins of a bench, as many as the issue at hand has replicas.
const ORIGINS: usize = 3;
const READ_BYTES: usize = 16 << 10;

/// All origins.
pub(crate) struct Origins {
    addresses: Vec<SocketAddr>,
    counters: Rc<Counters>,
}

/// What all origins have seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    pub(crate) body_bytes: u64,
    pub(crate) connections: u64,
    pub(crate) wrong: u64,
}

#[derive(Default)]
struct Counters {
    seen: Cell<Seen>,
    reason: RefCell<Option<String>>,
}

/// A request, as far as an origin cares.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// Length of the response's body.
    response_bytes: usize,
    /// Length of the request's.
    request_bytes: usize,
    closes: bool,
}

impl Origins {
    pub(crate) async fn start() -> io::Result<Origins> {
        let (counters, pattern) = (Rc::<Counters>::default(), Rc::new(pattern()));
        let mut addresses = Vec::new();
        for _ in 0..ORIGINS {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            addresses.push(listener.local_addr()?);
            spawn_local(accept(listener, Rc::clone(&counters), Rc::clone(&pattern)));
        }
        Ok(Origins { addresses, counters })
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    pub(crate) fn seen(&self) -> Seen {
        self.counters.seen.get()
    }

    /// What came wrong first, since the last time.
    pub(crate) fn take_reason(&self) -> Option<String> {
        self.counters.reason.take()
    }
}

impl Counters {
    fn count(&self, change: impl FnOnce(&mut Seen)) {
        let mut seen = self.seen.get();
        change(&mut seen);
        self.seen.set(seen);
    }

    fn wrong(&self, reason: String) {
        self.count(|seen| seen.wrong += 1);
        self.reason.borrow_mut().get_or_insert(reason);
    }
}

async fn accept(listener: TcpListener, counters: Rc<Counters>, pattern: Rc<Vec<u8>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                counters.count(|seen| seen.connections += 1);
                let (counters, pattern) = (Rc::clone(&counters), Rc::clone(&pattern));
                spawn_local(async move {
                    // A proxy may close its connections whenever it likes; the load says whether that was right.
                    drop(serve(stream, &counters, &pattern).await);
                });
            }
            Err(error) => return counters.wrong(format!("an origin cannot accept: {error}")),
        }
    }
}

async fn serve(mut stream: TcpStream, counters: &Counters, pattern: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut buffer, mut out) = (Vec::with_capacity(READ_BYTES), Vec::with_capacity(512));
    loop {
        let head_bytes = loop {
            if let Some(end) = memmem::find(&buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let asked = match read_head(&buffer[..head_bytes]) {
            Ok(asked) => asked,
            Err(reason) => {
                counters.wrong(reason);
                return stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
            }
        };
        while buffer.len() < head_bytes + asked.request_bytes {
            if stream.read_buf(&mut buffer).await? == 0 {
                counters.wrong("a request's body ended early".to_owned());
                return Ok(());
            }
        }
        let end = head_bytes + asked.request_bytes;
        if !is_of_body(pattern, 0, &buffer[head_bytes..end]) {
            counters.wrong("a request's body was not what was sent".to_owned());
        }
        counters.count(|seen| {
            seen.requests += 1;
            seen.body_bytes += asked.request_bytes as u64;
        });
        buffer.drain(..end);
        out.clear();
        write_head(&mut out, &asked);
        let body = &pattern[..asked.response_bytes];
        if body.len() <= READ_BYTES {
            out.extend_from_slice(body);
            stream.write_all(&out).await?;
        } else {
            stream.write_all(&out).await?;
            stream.write_all(body).await?;
        }
        if asked.closes {
            return Ok(());
        }
    }
}

fn write_head(out: &mut Vec<u8>, asked: &Asked) {
    out.extend_from_slice(
        b"HTTP/1.1 200 OK\r\nServer: origin/1.0\r\nDate: Sun, 22 Nov 2026 09:00:00 GMT\r\nContent-Type: text/plain\r\n\
          Cache-Control: no-store\r\nX-Request-Cost: 0\r\nContent-Length: ",
    );
    out.extend_from_slice(asked.response_bytes.to_string().as_bytes());
    out.extend_from_slice(if asked.closes { b"\r\nConnection: close\r\n\r\n" } else { b"\r\n\r\n" });
}

fn read_head(head: &[u8]) -> Result<Asked, String> {
    let wrong = |what: &str| format!("{what} in {:?}", String::from_utf8_lossy(head));
    let line = &head[..memchr::memchr(b'\r', head).unwrap_or(head.len())];
    let line = std::str::from_utf8(line).map_err(|_| wrong("bytes that are no text"))?;
    let (method, rest) = line.split_once(" /").ok_or_else(|| wrong("no method and path"))?;
    let (size, rest) = rest.split_once('/').ok_or_else(|| wrong("no length"))?;
    let response_bytes = size.parse().map_err(|_| wrong("no length"))?;
    let mut asked = Asked { response_bytes, request_bytes: 0, closes: false };
    let (mut has_host, mut is_forwarded) = (false, false);
    for (name, value) in fields(head) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("host") {
            has_host = value == b"app.example.test";
        } else if is("x-forwarded-for") {
            is_forwarded = value == b"127.0.0.1";
        } else if is("content-length") {
            let length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            asked.request_bytes = length.ok_or_else(|| wrong("a bad Content-Length"))?;
        } else if is("transfer-encoding") {
            return Err(wrong("an encoding that nobody asked for"));
        } else if is("connection") {
            asked.closes = value.eq_ignore_ascii_case(b"close");
        }
    }
    let fits = asked.response_bytes <= BODY_BYTES_MAX && asked.request_bytes <= BODY_BYTES_MAX;
    let method_fits = method == if asked.request_bytes > 0 { "POST" } else { "GET" };
    match (fits && method_fits && rest.ends_with(" HTTP/1.1"), has_host, is_forwarded) {
        (true, true, true) => Ok(asked),
        (false, ..) => Err(wrong("a line or a length that was not asked for")),
        (_, false, _) => Err(wrong("another Host")),
        (_, _, false) => Err(wrong("no X-Forwarded-For of the client")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_proxy_must_pass_on_is_checked() {
        let good = "POST /64/item/7 HTTP/1.1\r\nHost: app.example.test\r\nX-Forwarded-For: 127.0.0.1\r\n\
                    content-length: 9\r\nConnection: close\r\n\r\n";
        let asked = Asked { response_bytes: 64, request_bytes: 9, closes: true };
        assert_eq!(read_head(good.as_bytes()), Ok(asked));
        for (from, to) in [
            ("POST", "GET"),
            ("/64/", "/x/"),
            ("app.example.test", "other"),
            ("X-Forwarded-For", "X-Other"),
            ("content-length: 9", "Transfer-Encoding: chunked"),
            ("HTTP/1.1", "HTTP/1.0"),
        ] {
            assert!(read_head(good.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }
}
