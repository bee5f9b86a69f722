//! An origin that does with a connection exactly what a script says, and records every byte that it gets.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::message::{Kind, Message, Parsed, find, latin1, parse};
use crate::world::within;

pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    record: Record,
    token: CancellationToken,
    tasks: TaskTracker,
}

/// What came on each connection.
type Record = Arc<Mutex<Vec<Vec<u8>>>>;

/// A connection in the hands of a script.
pub(crate) struct Conn {
    /// Which one it is, from 0.
    pub(crate) index: usize,
    stream: TcpStream,
    record: Record,
    buffer: Vec<u8>,
}

/// All that an origin got.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) requests: Vec<Message>,
    /// What did not become a whole request, for each connection that has any.
    pub(crate) partial: Vec<String>,
    /// What is not HTTP.
    pub(crate) invalid: Vec<String>,
}

impl Origin {
    /// Runs `script` on each connection; what the script leaves unread is read and recorded after it.
    pub(crate) async fn start<F>(script: impl Fn(Conn) -> F + Send + Sync + 'static) -> Origin
    where
        F: Future<Output = Option<Conn>> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (record, token, tasks) = (Record::default(), CancellationToken::new(), TaskTracker::new());
        let (all, ending, runs) = (Arc::clone(&record), token.clone(), tasks.clone());
        let accepted = move |stream: TcpStream| {
            stream.set_nodelay(true).unwrap();
            let index = {
                let mut record = all.lock().unwrap();
                record.push(Vec::new());
                record.len() - 1
            };
            let script = script(Conn { index, stream, record: Arc::clone(&all), buffer: Vec::new() });
            runs.spawn(async move {
                if let Some(mut conn) = script.await {
                    while conn.fill().await.is_some() {}
                }
            });
        };
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    stream = listener.accept() => accepted(stream.unwrap().0),
                    () = ending.cancelled() => break,
                }
            }
            while let Some(Ok((stream, _))) = listener.accept().now_or_never() {
                accepted(stream);
            }
        });
        Origin { address, record, token, tasks }
    }

    /// What it has got, once all its connections have ended.
    pub(crate) async fn end(self) -> Seen {
        self.token.cancel();
        self.tasks.close();
        within(self.tasks.wait()).await;
        self.seen()
    }

    /// How many connections have brought anything. Others only look whether it is there.
    pub(crate) fn used(&self) -> usize {
        self.record.lock().unwrap().iter().filter(|bytes| !bytes.is_empty()).count()
    }

    /// What it has got so far.
    pub(crate) fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        for mut bytes in self.record.lock().unwrap().iter().map(Vec::as_slice) {
            while !bytes.is_empty() {
                match parse(bytes, Kind::Request, false) {
                    Parsed::Whole(request, used) => {
                        seen.requests.push(request);
                        bytes = &bytes[used..];
                        continue;
                    }
                    Parsed::Partial(_) => seen.partial.push(latin1(bytes).chars().take(300).collect()),
                    Parsed::Invalid(what) => seen.invalid.push(what),
                }
                break;
            }
        }
        seen
    }
}

impl Conn {
    /// The next request as a whole; none if there is none.
    pub(crate) async fn request(&mut self) -> Option<Message> {
        loop {
            match parse(&self.buffer, Kind::Request, false) {
                Parsed::Whole(request, used) => {
                    self.buffer.drain(..used);
                    return Some(request);
                }
                Parsed::Partial(_) => self.fill().await?,
                Parsed::Invalid(_) => return None,
            }
        }
    }

    /// The head of the next request.
    pub(crate) async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                return Some(latin1(&self.buffer.drain(..at + 4).collect::<Vec<u8>>()));
            }
            self.fill().await?;
        }
    }

    /// Bytes up to and with `end`.
    pub(crate) async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.buffer, end) {
                return Some(self.buffer.drain(..at + end.len()).collect());
            }
            self.fill().await?;
        }
    }

    /// Exactly these many bytes.
    pub(crate) async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill().await?;
        }
        Some(self.buffer.drain(..count).collect())
    }

    /// Writes; false if the other side is gone.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// 200 with a body, on a connection that is kept.
    pub(crate) async fn ok(&mut self, body: &str) -> bool {
        self.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await
    }

    /// Ends what this side sends; what comes is still read.
    pub(crate) async fn finish(&mut self) {
        // An error says that the other side is gone, which is what was to be told.
        drop(self.stream.shutdown().await);
    }

    /// Ends the connection as a crash does.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    /// Waits for the other side's end.
    pub(crate) async fn ended(&mut self) {
        while self.fill().await.is_some() {}
    }

    async fn fill(&mut self) -> Option<()> {
        let before = self.buffer.len();
        let count = self.stream.read_buf(&mut self.buffer).await.unwrap_or(0);
        self.record.lock().unwrap()[self.index].extend(&self.buffer[before..]);
        (count > 0).then_some(())
    }
}
