//! A client that sends bytes as a test wrote them and understands what comes back.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::within;

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Client {
        Client { stream: within(TcpStream::connect(address)).await.unwrap(), buffer: Vec::new() }
    }

    /// None if the connection was refused or reset.
    pub(crate) async fn try_connect(address: SocketAddr) -> Option<Client> {
        let stream = within(TcpStream::connect(address)).await.ok()?;
        Some(Client { stream, buffer: Vec::new() })
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// `GET path` with further fields (each ending in CRLF), and its answer.
    pub(crate) async fn get(&mut self, path: &str, fields: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")).await;
        self.answer().await
    }

    /// A request with a body of known length, and its answer.
    pub(crate) async fn request(&mut self, method: &str, path: &str, fields: &str, body: &[u8]) -> Answer {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n{fields}\r\n"
        );
        self.send([head.as_bytes(), body].concat()).await;
        self.answer_to(method).await.expect("an answer must come")
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await.expect("an answer must come")
    }

    /// The next answer; none if the connection ended before its end.
    pub(crate) async fn answer_to(&mut self, method: &str) -> Option<Answer> {
        let (status, headers) = self.head().await?;
        let no_body = method == "HEAD" || status < 200 || status == 204 || status == 304;
        let body = if no_body {
            Vec::new()
        } else if headers.get("transfer-encoding").is_some_and(|te| te == "chunked") {
            self.chunks().await?
        } else if let Some(length) = headers.get("content-length") {
            let length = length.parse().unwrap();
            self.take(length).await?
        } else {
            while self.fill().await {}
            std::mem::take(&mut self.buffer)
        };
        Some(Answer { status, headers, body })
    }

    pub(crate) async fn head(&mut self) -> Option<(u16, BTreeMap<String, String>)> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            if !self.fill().await {
                return None;
            }
        };
        let head = String::from_utf8(self.take(end + 4).await?).unwrap();
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Some((status, lines.filter_map(field).collect()))
    }

    /// Whether the connection ends without another byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.fill().await
    }

    /// The next `count` bytes, or none if there are fewer.
    pub(crate) async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                    break at;
                }
                if !self.fill().await {
                    return None;
                }
            };
            let line = String::from_utf8(self.take(end + 2).await?).unwrap();
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            body.extend(self.take(size).await?);
            self.take(2).await?;
            if size == 0 {
                return Some(body);
            }
        }
    }

    /// Reads more; false at the end of the connection, in order or not.
    async fn fill(&mut self) -> bool {
        within(self.stream.read_buf(&mut self.buffer)).await.is_ok_and(|count| count > 0)
    }
}
