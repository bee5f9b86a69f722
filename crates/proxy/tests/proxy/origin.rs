//! Origins that do with a connection exactly what a test's script says.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::world::within;

/// One that runs a script on every connection. Dropping it resets what it has open.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    counts: watch::Receiver<Counts>,
    task: AbortHandle,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) connections: usize,
    pub(crate) requests: usize,
}

/// A connection in the hands of a script.
pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    counts: Arc<watch::Sender<Counts>>,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    /// All values of a field.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }
}

impl Origin {
    /// Runs `script` on each connection.
    pub(crate) async fn script<F>(script: impl Fn(Conn) -> F + Send + Sync + 'static) -> Origin
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Origin::script_at(SocketAddr::from(([127, 0, 0, 1], 0)), script).await
    }

    pub(crate) async fn script_at<F>(
        address: SocketAddr,
        script: impl Fn(Conn) -> F + Send + Sync + 'static,
    ) -> Origin
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, counts) = watch::channel(Counts::default());
        let sender = Arc::new(sender);
        let task = tokio::spawn(async move {
            // Held here, so that aborting this task aborts them all.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                sender.send_modify(|counts| counts.connections += 1);
                let conn = Conn { stream, buffer: Vec::new(), counts: Arc::clone(&sender) };
                connections.spawn(script(conn));
            }
        });
        Origin { address, counts, task: task.abort_handle() }
    }

    /// Answers every request with its own `name`, on kept connections.
    pub(crate) async fn named(name: &'static str) -> Origin {
        Origin::named_at(SocketAddr::from(([127, 0, 0, 1], 0)), name).await
    }

    pub(crate) async fn named_at(address: SocketAddr, name: &'static str) -> Origin {
        Origin::script_at(address, move |mut conn| async move {
            while conn.request().await.is_some() {
                conn.ok(name).await;
            }
        })
        .await
    }

    /// How many connections and requests have come.
    pub(crate) fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    /// Waits until so many requests have come.
    pub(crate) async fn requests(&mut self, count: usize) {
        within(self.counts.wait_for(|counts| counts.requests >= count)).await.unwrap();
    }

    /// Ends it as SIGKILL would: its listener and all its connections are closed.
    pub(crate) async fn kill(self) {
        let address = self.address;
        self.task.abort();
        // Its port is free again once it has ended.
        within(async { while TcpListener::bind(address).await.is_err() {} }).await;
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Conn {
    /// The next request with its whole body; none at the end of the connection.
    pub(crate) async fn request(&mut self) -> Option<Received> {
        let head = self.head().await?;
        let received = Received { head, body: Vec::new() };
        let body =
            match (received.values("content-length").first(), received.values("transfer-encoding").first()) {
                (_, Some(_)) => self.until(b"0\r\n\r\n").await?,
                (Some(length), None) => {
                    let length = length.parse().unwrap();
                    while self.buffer.len() < length {
                        self.fill().await?;
                    }
                    self.buffer.drain(..length).collect()
                }
                (None, None) => Vec::new(),
            };
        self.counts.send_modify(|counts| counts.requests += 1);
        Some(Received { body, ..received })
    }

    /// The next request's head.
    pub(crate) async fn head(&mut self) -> Option<String> {
        Some(String::from_utf8(self.until(b"\r\n\r\n").await?).unwrap())
    }

    /// Bytes up to and with `end`.
    pub(crate) async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|w| w == end) {
                return Some(self.buffer.drain(..at + end.len()).collect());
            }
            self.fill().await?;
        }
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        // The other side may be gone by now, which is the other side's test.
        drop(self.stream.write_all(bytes.as_ref()).await);
    }

    /// 200 with a body.
    pub(crate) async fn ok(&mut self, body: &str) {
        self.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
    }

    /// Closes with RST instead of FIN.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    async fn fill(&mut self) -> Option<()> {
        let count = self.stream.read_buf(&mut self.buffer).await.unwrap_or(0);
        (count > 0).then_some(())
    }
}
