//! A client that sends bytes as a test wrote them, and reads answers strictly.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;

use crate::message::{Kind, Message, Parsed, find, latin1, parse};
use crate::world::{PATIENCE, within};

pub(crate) struct Client {
    reader: OwnedReadHalf,
    writer: Writer,
    buffer: Vec<u8>,
    ended: Option<Ended>,
    /// How long to wait for the next byte.
    pub(crate) patience: Duration,
    /// The interim answers so far.
    pub(crate) interim: Vec<Message>,
}

/// How the proxy ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Closed,
    Reset,
}

/// Why there is no whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The connection ended; with what had come of the answer, if its head had.
    Cut(Option<Message>),
    /// Nothing more came, and the connection stays open.
    Silence(String),
    /// What came is not HTTP.
    Invalid(String),
}

enum Writer {
    Idle(OwnedWriteHalf),
    /// A body may be answered before it is sent, so writing and reading go on side by side.
    Busy(JoinHandle<OwnedWriteHalf>),
    Finished,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Client {
        let stream = within(TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (reader, writer) = stream.into_split();
        Client {
            reader,
            writer: Writer::Idle(writer),
            buffer: Vec::new(),
            ended: None,
            patience: PATIENCE,
            interim: Vec::new(),
        }
    }

    /// Sends these pieces, each in a write of its own, in the background. Whether the proxy takes them is its
    /// answer's matter.
    pub(crate) async fn send(&mut self, pieces: Vec<Vec<u8>>) {
        let Some(mut writer) = self.writer().await else { return };
        self.writer = Writer::Busy(tokio::spawn(async move {
            for piece in pieces {
                if writer.write_all(&piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            writer
        }));
    }

    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.send(vec![bytes.as_ref().to_vec()]).await;
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn finish(&mut self) {
        if let Some(writer) = self.writer().await {
            drop(writer);
            self.writer = Writer::Finished;
        }
    }

    /// The next final answer to `method`.
    pub(crate) async fn answer(&mut self, method: &str) -> Result<Message, Trouble> {
        loop {
            let message = self.next(method).await?;
            // What follows a switch is no HTTP.
            if message.status() >= 200 || message.status() == 101 {
                return Ok(message);
            }
            self.interim.push(message);
        }
    }

    /// The next answer, interim or final.
    pub(crate) async fn next(&mut self, method: &str) -> Result<Message, Trouble> {
        let kind = if method == "HEAD" { Kind::ResponseToHead } else { Kind::Response };
        loop {
            match parse(&self.buffer, kind, self.ended == Some(Ended::Closed)) {
                Parsed::Whole(message, used) => {
                    self.buffer.drain(..used);
                    return Ok(message);
                }
                Parsed::Invalid(what) => return Err(Trouble::Invalid(what)),
                Parsed::Partial(None) if self.ended.is_some() && !self.buffer.is_empty() => {
                    return Err(Trouble::Invalid(format!("half a head {:?}", latin1(&self.buffer))));
                }
                Parsed::Partial(message) if self.ended.is_some() => return Err(Trouble::Cut(message)),
                Parsed::Partial(_) if !self.fill().await => {
                    let end = latin1(&self.buffer).chars().take(200).collect();
                    return Err(Trouble::Silence(end));
                }
                Parsed::Partial(_) => {}
            }
        }
    }

    /// Exactly these many bytes, whatever they are; none if there are fewer.
    pub(crate) async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if self.ended.is_some() || !self.fill().await {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    /// Waits until these bytes are there, and leaves them to be read; false if they do not come.
    pub(crate) async fn peek(&mut self, bytes: &[u8]) -> bool {
        while find(&self.buffer, bytes).is_none() {
            if self.ended.is_some() || !self.fill().await {
                return false;
            }
        }
        true
    }

    /// What is left until the connection ends; none if it does not end.
    pub(crate) async fn rest(&mut self) -> Option<Vec<u8>> {
        while self.ended.is_none() {
            if !self.fill().await {
                return None;
            }
        }
        Some(std::mem::take(&mut self.buffer))
    }

    /// Ends the connection as a crash does.
    pub(crate) async fn reset(mut self) {
        if let Some(writer) = self.writer().await {
            writer.forget();
            socket2::SockRef::from(self.reader.as_ref()).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }

    /// Reads more, or notes the end; false if neither comes.
    async fn fill(&mut self) -> bool {
        match tokio::time::timeout(self.patience, self.reader.read_buf(&mut self.buffer)).await {
            Err(_) => return false,
            Ok(Ok(0)) => self.ended = Some(Ended::Closed),
            Ok(Ok(_)) => {}
            Ok(Err(_)) => self.ended = Some(Ended::Reset),
        }
        true
    }

    async fn writer(&mut self) -> Option<OwnedWriteHalf> {
        match std::mem::replace(&mut self.writer, Writer::Finished) {
            Writer::Idle(writer) => Some(writer),
            Writer::Busy(task) => within(task).await.ok(),
            Writer::Finished => None,
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Writer::Busy(task) = &self.writer {
            task.abort();
        }
    }
}
