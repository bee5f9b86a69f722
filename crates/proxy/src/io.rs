//! A client's connection with its time limits: how long it may idle, and how long a request head may take.
//!
//! hyper's own limit on heads also runs while a connection idles between two requests, so both are kept here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// How long a connection may idle before its first and between two requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a request head may take from its first byte.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Counts the exchanges of one connection. Only one task uses it; it is atomic because hyper asks for `Send`.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    begun: AtomicU32,
    ended: AtomicU32,
}

/// One request and its response; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Exchange(Arc<Activity>);

impl Exchange {
    pub(crate) fn begin(activity: &Arc<Activity>) -> Exchange {
        activity.begun.fetch_add(1, Ordering::Relaxed);
        Exchange(Arc::clone(activity))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// A client's socket that fails with `TimedOut` when it idles or dawdles.
pub(crate) struct ClientIo {
    stream: TcpStream,
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

impl Wait {
    fn deadline(self) -> Instant {
        match self {
            Wait::Idle(since) => since + IDLE_TIMEOUT,
            Wait::Head(since) => since + HEAD_TIMEOUT,
        }
    }
}

impl ClientIo {
    pub(crate) fn new(stream: TcpStream, activity: Arc<Activity>) -> ClientIo {
        let wait = Wait::Idle(Instant::now());
        ClientIo {
            stream,
            activity,
            wait,
            received: false,
            exchanges: 0,
            timer: Box::pin(sleep(IDLE_TIMEOUT)),
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
            self.timer.as_mut().reset(self.wait.deadline());
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let deadline = self.wait.deadline();
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl AsyncRead for ClientIo {
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

impl AsyncWrite for ClientIo {
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
