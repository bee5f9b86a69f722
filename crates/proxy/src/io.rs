//! A client's connection with its time limits: how long it may idle, and how long a request head may take.
//!
//! hyper's own limit on heads also runs while a connection idles between two requests, so both are kept here.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::routing::Service;

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientLimits {
    /// Before its first request and between two.
    idle: Duration,
    /// For a request head, from its first byte.
    head: Duration,
}

impl ClientLimits {
    pub(crate) const DEFAULT: ClientLimits =
        ClientLimits { idle: Duration::from_secs(75), head: Duration::from_secs(10) };
}

/// Counts the exchanges of one connection. Only one task uses it; it is atomic because hyper asks for `Send`.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    begun: AtomicU32,
    ended: AtomicU32,
}

/// One request and its response; ends when it is dropped.
pub(crate) struct Exchange {
    activity: Arc<Activity>,
    began: std::time::Instant,
    /// Whose figures it is part of, and on which worker; none until the service is known.
    counted: Option<(Rc<Service>, usize)>,
    sent: u64,
}

impl Exchange {
    pub(crate) fn begin(activity: &Arc<Activity>) -> Exchange {
        activity.begun.fetch_add(1, Ordering::Relaxed);
        let began = std::time::Instant::now();
        Exchange { activity: Arc::clone(activity), began, counted: None, sent: 0 }
    }

    /// When its head had come.
    pub(crate) fn began(&self) -> std::time::Instant {
        self.began
    }

    /// Its end is counted in this service's durations.
    pub(crate) fn count_for(&mut self, service: &Rc<Service>, worker: usize) {
        self.counted = Some((Rc::clone(service), worker));
    }

    /// It became a tunnel, whose life says nothing about how long requests take.
    pub(crate) fn uncounted(mut self) -> Exchange {
        self.counted = None;
        self
    }

    /// So many bytes of the response's body were handed over.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.activity.ended.fetch_add(1, Ordering::Relaxed);
        if let Some((service, worker)) = &self.counted {
            service.stats.stripes.end(*worker, self.began.elapsed(), self.sent);
        }
    }
}

/// A client's socket that fails with `TimedOut` when it idles or dawdles.
pub(crate) struct ClientIo<S> {
    stream: S,
    limits: ClientLimits,
    activity: Arc<Activity>,
    wait: Wait,
    /// Bytes came since this wait began.
    received: bool,
    /// Exchanges that had ended when this wait began.
    exchanges: u32,
    timer: Pin<Box<Sleep>>,
}

/// What the connection waits for.
#[derive(Debug, Clone, Copy)]
enum Wait {
    /// For the first byte of a head, since then. Becomes `Head`, or a new `Idle` after an exchange.
    Idle(Instant),
    /// For the rest of a head, since then. Becomes `Idle` after its exchange.
    Head(Instant),
}

impl<S> ClientIo<S> {
    pub(crate) fn new(stream: S, limits: ClientLimits, activity: Arc<Activity>) -> ClientIo<S> {
        let wait = Wait::Idle(Instant::now());
        ClientIo {
            stream,
            limits,
            activity,
            wait,
            received: false,
            exchanges: 0,
            timer: Box::pin(sleep(limits.idle)),
        }
    }

    fn deadline(&self) -> Instant {
        match self.wait {
            Wait::Idle(since) => since + self.limits.idle,
            Wait::Head(since) => since + self.limits.head,
        }
    }

    /// Whether the time is over. The timer is only moved when it has fired or must fire earlier, so a usual
    /// request costs no timer operation.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let ended = self.activity.ended.load(Ordering::Relaxed);
        if self.activity.begun.load(Ordering::Relaxed) != ended {
            // A request is being served: other limits hold.
            return Poll::Pending;
        }
        if ended != self.exchanges {
            self.exchanges = ended;
            self.wait = Wait::Idle(Instant::now());
            self.received = false;
        }
        if self.received && matches!(self.wait, Wait::Idle(_)) {
            self.wait = Wait::Head(Instant::now());
            let deadline = self.deadline();
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let deadline = self.deadline();
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(result) => {
                self.received = true;
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_timeout(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const LIMITS: ClientLimits =
        ClientLimits { idle: Duration::from_millis(400), head: Duration::from_millis(100) };

    fn pair() -> (DuplexStream, ClientIo<DuplexStream>, Arc<Activity>) {
        let activity = Arc::new(Activity::default());
        let (client, server) = duplex(64);
        (client, ClientIo::new(server, LIMITS, Arc::clone(&activity)), activity)
    }

    /// Reads until the limit strikes; returns how long that took.
    async fn time_out(io: &mut ClientIo<DuplexStream>) -> Duration {
        let started = Instant::now();
        let error = loop {
            if let Err(error) = io.read(&mut [0; 8]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        started.elapsed()
    }

    #[tokio::test]
    async fn an_idle_connection_ends_after_its_time() {
        let (_client, mut io, _) = pair();
        assert!(time_out(&mut io).await >= LIMITS.idle);
    }

    #[tokio::test]
    async fn a_slow_head_ends_earlier() {
        let (mut client, mut io, _) = pair();
        client.write_all(b"GET").await.unwrap();
        let time = time_out(&mut io).await;
        assert!(time >= LIMITS.head && time < LIMITS.idle, "{time:?}");
    }

    #[tokio::test]
    async fn a_request_that_is_served_has_no_limit_and_the_next_wait_is_new() {
        let (mut client, mut io, activity) = pair();
        client.write_all(b"GET").await.unwrap();
        assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 3);
        let exchange = Exchange::begin(&activity);
        let served = tokio::time::timeout(LIMITS.idle + LIMITS.head, io.read(&mut [0; 8])).await;
        assert!(served.is_err(), "nothing struck while the request was served");
        drop(exchange);
        assert!(time_out(&mut io).await >= LIMITS.idle);
    }
}
