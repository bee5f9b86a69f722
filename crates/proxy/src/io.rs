//! Sockets as the data plane uses them: buffers that only those in need hold, limits on waiting, and writes of several
//! pieces at once.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::ops::{Deref, DerefMut};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_util::poll;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::h1::head::Head;

/// What a buffer begins with; a head that is longer makes it grow.
pub(crate) const BUFFER_BYTES: usize = 32 << 10;
/// A buffer that has grown beyond this is not kept.
const KEPT_BYTES_MAX: usize = 2 * BUFFER_BYTES;
/// What is written begins smaller.
const OUT_BYTES: usize = 2 << 10;
/// What was written is not kept if it has grown beyond this.
const KEPT_OUT_BYTES_MAX: usize = 16 << 10;
/// Most buffers of a kind that a worker keeps for the next to come.
const KEPT_MAX: usize = 128;

/// One worker's spare buffers.
#[derive(Default)]
pub(crate) struct Buffers {
    #[expect(clippy::vec_box, reason = "they come and go in their boxes")]
    read: RefCell<Vec<Box<Parts>>>,
    out: RefCell<Vec<Vec<u8>>>,
}

/// What is to be written. Returns to its worker when it is dropped.
pub(crate) struct Out {
    bytes: Vec<u8>,
    home: Rc<Buffers>,
}

/// Bytes of a connection, and the head that was read from them. Returns to its worker when it is dropped.
pub(crate) struct Buffer {
    /// Some, until it is dropped; on the heap, since it passes through many hands.
    parts: Option<Box<Parts>>,
    home: Rc<Buffers>,
}

/// What a [`Buffer`] holds.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) bytes: Vec<u8>,
    pub(crate) head: Head,
}

impl Buffers {
    pub(crate) fn take(self: &Rc<Self>) -> Buffer {
        let fresh = || Box::new(Parts { bytes: Vec::with_capacity(BUFFER_BYTES), head: Head::default() });
        let parts = self.read.borrow_mut().pop().unwrap_or_else(fresh);
        Buffer { parts: Some(parts), home: Rc::clone(self) }
    }

    pub(crate) fn out(self: &Rc<Self>) -> Out {
        let spare = self.out.borrow_mut().pop();
        Out { bytes: spare.unwrap_or_else(|| Vec::with_capacity(OUT_BYTES)), home: Rc::clone(self) }
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        let mut spare = self.home.out.borrow_mut();
        if spare.len() < 2 * KEPT_MAX && self.bytes.capacity() <= KEPT_OUT_BYTES_MAX {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.clear();
            spare.push(bytes);
        }
    }
}

impl Deref for Out {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Out {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(mut parts) = self.parts.take() else { return };
        let mut spare = self.home.read.borrow_mut();
        if spare.len() < KEPT_MAX && parts.bytes.capacity() <= KEPT_BYTES_MAX {
            parts.bytes.clear();
            parts.head.reset(0);
            spare.push(parts);
        }
    }
}

impl Deref for Buffer {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        self.parts.as_ref().expect("it is there until the drop")
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Parts {
        self.parts.as_mut().expect("it is there until the drop")
    }
}

impl Deref for Parts {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Parts {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

/// Reads once, behind what `buffer` holds; 0 is the end. A buffer without room grows by [`BUFFER_BYTES`].
///
/// Cancel-safe: what was read is in the buffer.
pub(crate) async fn read_more(
    source: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<usize> {
    if buffer.capacity() - buffer.len() < 1 << 10 {
        buffer.reserve(BUFFER_BYTES);
    }
    source.read_buf(buffer).await
}

/// Writes both pieces, in as few calls as the system allows.
pub(crate) async fn write_both(
    sink: &mut (impl AsyncWrite + Unpin),
    first: &[u8],
    second: &[u8],
) -> io::Result<()> {
    let (mut first, mut second) = (first, second);
    while !first.is_empty() || !second.is_empty() {
        let written = if first.is_empty() || second.is_empty() {
            let rest = if first.is_empty() { second } else { first };
            poll_fn(|cx| Pin::new(&mut *sink).poll_write(cx, rest)).await?
        } else {
            let slices = [IoSlice::new(first), IoSlice::new(second)];
            poll_fn(|cx| Pin::new(&mut *sink).poll_write_vectored(cx, &slices)).await?
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let of_first = written.min(first.len());
        first = &first[of_first..];
        second = &second[written - of_first..];
    }
    Ok(())
}

/// Waits at most so long, if there is a limit; none if it takes longer. Who does not have to wait needs no timer.
///
/// Cancel-safe as `future` is.
pub(crate) async fn within<F: Future>(limit: Option<Duration>, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    match (poll!(future.as_mut()), limit) {
        (Poll::Ready(output), _) => Some(output),
        (Poll::Pending, Some(limit)) => timeout(limit, future).await.ok(),
        (Poll::Pending, None) => Some(future.await),
    }
}

/// Whether nothing is to be read from a connection, neither bytes nor its end; `cx` is woken when that changes.
pub(crate) fn is_quiet(stream: &TcpStream, cx: &mut Context<'_>) -> bool {
    loop {
        match stream.poll_read_ready(cx) {
            Poll::Pending => return true,
            // That it is ready may be left over from a read that took all there was: reading tells.
            Poll::Ready(Ok(())) => match stream.try_read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return false,
            },
            Poll::Ready(Err(_)) => return false,
        }
    }
}

/// Whether nothing is to be read from a connection that was quiet before; nobody is woken for it.
pub(crate) fn is_still_quiet(stream: &TcpStream) -> bool {
    stream.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// One timer for all the limits of a connection, one at a time.
pub(crate) struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// Who is woken when it fires.
    waker: Option<Waker>,
}

impl Timer {
    pub(crate) fn new(longest: Duration) -> Timer {
        Timer { sleep: Box::pin(sleep(longest)), waker: None }
    }

    /// Waits for `future` until then; none if it takes longer.
    ///
    /// The system's timer is only moved when it has fired or must fire earlier, so that a usual wait costs no timer
    /// operation. Cancel-safe as `future` is.
    pub(crate) async fn until<F: Future>(&mut self, until: Instant, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            if until < self.sleep.deadline() {
                self.sleep.as_mut().reset(until);
            } else if !self.sleep.is_elapsed() && self.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker()))
            {
                // It is set for this or for earlier, and wakes who asks.
                return Poll::Pending;
            }
            self.waker = Some(cx.waker().clone());
            loop {
                ready!(self.sleep.as_mut().poll(cx));
                if Instant::now() >= until {
                    return Poll::Ready(None);
                }
                self.sleep.as_mut().reset(until);
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn both_pieces_are_written_however_small_the_pipe_is() {
        let (mut near, mut far) = duplex(3);
        let (first, second) = (b"hello ".to_vec(), b"beautiful world".to_vec());
        let all = [first.clone(), second.clone()].concat();
        let writing = tokio::spawn(async move {
            write_both(&mut near, &first, &second).await.unwrap();
            near.shutdown().await.unwrap();
        });
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        writing.await.unwrap();
        assert_eq!(read, all);
    }

    #[tokio::test]
    async fn each_wait_has_a_limit_of_its_own() {
        let mut timer = Timer::new(Duration::from_secs(60));
        for limit in [50, 10, 30] {
            let limit = Duration::from_millis(limit);
            let started = Instant::now();
            assert_eq!(timer.until(started + limit, std::future::pending::<()>()).await, None);
            assert!(started.elapsed() >= limit && started.elapsed() < Duration::from_secs(10));
            assert_eq!(timer.until(Instant::now() + limit, async { 7 }).await, Some(7));
        }
    }

    #[test]
    fn buffers_return_empty_and_only_as_they_were() {
        let buffers = Rc::new(Buffers::default());
        let mut first = buffers.take();
        first.extend_from_slice(b"abc");
        drop(first);
        let again = buffers.take();
        assert!(again.is_empty() && buffers.read.borrow().is_empty());
        let mut large = buffers.take();
        large.reserve(4 * BUFFER_BYTES);
        drop(large);
        assert!(buffers.read.borrow().is_empty());
    }
}
