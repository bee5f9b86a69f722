//! One client's connection: idle between requests, and one request after the other.
//!
//! A connection that waits holds no buffer. What it needs for requests is made when bytes arrive and given back when
//! there are none left, so idle connections are cheap.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::answer::Answer;
use crate::claims::is_trusted;
use crate::closing::Witness;
use crate::error::Refusal;
use crate::forward;
use crate::h1::emit::{Forwarding, Persistence};
use crate::h1::head::{Progress, Side};
use crate::h1::request::{self, Request};
use crate::io::{Buffer, Parts, Timer, read_more, write_both};
use crate::socket::Socket;
use crate::worker::Worker;

/// How long, and for how many bytes, what a client still sends is thrown away before its connection is closed: else
/// the system would take back the answer that says why (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1 << 20;
/// How long, and how many connections of a worker, keep what a request needs after one.
const WARM: Duration = Duration::from_secs(1);
const WARM_MAX: u32 = 256;
/// How long an answer of our own may take to be taken.
const ANSWER: Duration = Duration::from_secs(5);

/// A client's connection.
pub(crate) struct Client {
    pub(crate) stream: Socket,
    pub(crate) address: IpAddr,
    pub(crate) forwarding: Forwarding,
    pub(crate) timer: Timer,
}

/// What happens to a connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// The next request begins here in the buffer.
    Next(usize),
    /// It closes.
    Close,
    /// It closes, and the client may still be sending.
    Linger,
    /// It is cut off, so that the client takes what it has for no whole response (RFC 9112 section 8).
    Reset,
}

/// What became of what was read.
enum Burst {
    /// All requests are answered, since then.
    Idle(Instant),
    Close,
    Linger,
    Reset,
}

/// What came instead of a request.
enum NoRequest {
    /// Nothing, so far.
    Idle,
    /// The end, or a failure.
    Closed,
    /// Something that is none.
    Refused(Refusal),
}

/// Serves a connection until it ends.
pub(crate) async fn serve(worker: Rc<Worker>, stream: Socket, address: SocketAddr) {
    let address = address.ip().to_canonical();
    let front = Rc::clone(&worker.routing().front);
    // A trusted proxy brings many clients.
    let most = front.limits.connections_per_client.filter(|_| !is_trusted(address, &front.trusted_proxies));
    let Some(_place) = worker.shared.front.crowd.enter(address, most) else {
        return cut_off(&stream);
    };
    // Whether it is trusted is looked at with each request.
    let forwarding = Forwarding::of(address);
    let timer = Timer::new(front.limits.idle_timeout.0);
    drop(front);
    let mut client = Client { stream, address, forwarding, timer };
    let closing = worker.closing.witness();
    loop {
        // The first time nobody has waited yet: most bring a request with them. On the heap, and only while there is something to do: an idle connection is small.
        match Box::pin(burst(&worker, &mut client, &closing)).await {
            Burst::Idle(since) => {
                let until = since + worker.routing().front.limits.idle_timeout.0;
                if !client.has_more(until, &closing).await {
                    break;
                }
            }
            Burst::Close => break,
            Burst::Linger => {
                Box::pin(linger(&mut client.stream)).await;
                break;
            }
            Burst::Reset => return cut_off(&client.stream),
        }
    }
    // Closing the socket tells the other side; a call to say so before would be one too many.
}

impl Client {
    /// Waits for bytes, or the end; false if there will be none `until` then, or as `closing` says.
    async fn has_more(&mut self, until: Instant, closing: &Witness) -> bool {
        let Client { stream, timer, .. } = self;
        let Ok(stream) = stream.registered() else { return false };
        let readable = poll_fn(|cx| {
            if closing.poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            stream.poll_read_ready(cx).map(|ready| ready.is_ok())
        });
        timer.until(until, readable).await == Some(true)
    }

    /// Reads what has come; none if nothing has.
    fn read_what_has_come(&mut self, buffer: &mut Buffer) -> Option<io::Result<usize>> {
        if self.stream.is_fresh() {
            let read = self.stream.read_now(buffer);
            return Some(read)
                .filter(|read| !matches!(read, Err(e) if e.kind() == io::ErrorKind::WouldBlock));
        }
        // Polled and not tried: a read that finds less than there is room for settles that there is no more, and spares
        // whoever looks next a call to learn it.
        read_more(&mut self.stream, buffer).now_or_never()
    }
}

/// One of the connections that stay as they are for a moment after a request: the next one often comes at once.
struct Warm<'a>(&'a Worker);

impl Warm<'_> {
    fn stay(worker: &Worker) -> Option<Warm<'_>> {
        let count = worker.warm.get();
        (count < WARM_MAX).then(|| {
            worker.warm.set(count + 1);
            Warm(worker)
        })
    }
}

impl Drop for Warm<'_> {
    fn drop(&mut self) {
        self.0.warm.set(self.0.warm.get() - 1);
    }
}

/// Serves requests as long as they come.
async fn burst(worker: &Rc<Worker>, client: &mut Client, closing: &Witness) -> Burst {
    loop {
        let since = match requests(worker, client).await {
            Burst::Idle(since) => since,
            end => return end,
        };
        let Some(_warm) = Warm::stay(worker) else { return Burst::Idle(since) };
        let warm = WARM.min(worker.routing().front.limits.idle_timeout.0);
        if !client.has_more(since + warm, closing).await {
            return Burst::Idle(since);
        }
    }
}

/// Serves requests as long as there are bytes of them.
async fn requests(worker: &Rc<Worker>, client: &mut Client) -> Burst {
    let mut buffer = worker.buffers.take();
    match client.read_what_has_come(&mut buffer) {
        Some(Ok(0) | Err(_)) => return Burst::Close,
        Some(Ok(_)) => {}
        None => return Burst::Idle(worker.now()),
    }
    loop {
        buffer.head.reset(0);
        let limit = worker.routing().front.limits.header_timeout.0;
        let after = match read_request(client, &mut buffer, limit).await {
            Ok(request) => forward::serve(worker, client, &mut buffer, &request).await,
            Err(NoRequest::Idle) => return Burst::Idle(worker.now()),
            Err(NoRequest::Closed) => return Burst::Close,
            Err(NoRequest::Refused(refusal)) => {
                worker.shared.front.refuse(refusal);
                // Of a line that is too long there is only its beginning.
                let is_to_head = buffer.trim_ascii_start().starts_with(b"HEAD ");
                answer(worker, client, &refusal.answer(), is_to_head, Persistence::Closes).await;
                After::Linger
            }
        };
        match after {
            After::Next(end) => {
                buffer.drain(..end);
                if buffer.is_empty() {
                    return Burst::Idle(worker.now());
                }
            }
            After::Close => return Burst::Close,
            After::Linger => return Burst::Linger,
            After::Reset => return Burst::Reset,
        }
    }
}

/// Reads the head of a request, of which `buffer` may hold a part.
async fn read_request(
    client: &mut Client,
    buffer: &mut Buffer,
    limit: Duration,
) -> Result<Request, NoRequest> {
    let mut since = None;
    loop {
        let Parts { bytes, head } = &mut **buffer;
        let refused = |refusal: Refusal| NoRequest::Refused(refusal);
        match head.advance(bytes, Side::Request).map_err(|error| refused(error.into()))? {
            Progress::Whole => return Request::of(head, bytes).map_err(|error| refused(error.into())),
            Progress::Line => request::check_line(head, bytes).map_err(|error| refused(error.into()))?,
            Progress::Partial => {}
        }
        if !head.has_begun(bytes) {
            return Err(NoRequest::Idle);
        }
        let since = *since.get_or_insert_with(Instant::now);
        match client.timer.until(since + limit, read_more(&mut client.stream, bytes)).await {
            Some(Ok(0) | Err(_)) => return Err(NoRequest::Closed),
            Some(Ok(_)) => {}
            None => return Err(refused(Refusal::HeadTimeout)),
        }
    }
}

/// Writes an answer of our own; returns whether it was taken.
pub(crate) async fn answer(
    worker: &Worker,
    client: &mut Client,
    answer: &Answer,
    is_to_head: bool,
    persistence: Persistence,
) -> bool {
    let mut out = worker.buffers.out();
    answer.write(&mut out, is_to_head, persistence, &worker.date());
    let written = timeout(ANSWER, write_both(&mut client.stream, &out, &[])).await;
    matches!(written, Ok(Ok(())))
}

/// Ends a connection so that the other side sees that something is missing.
fn cut_off(stream: &Socket) {
    let resets = |fd: BorrowedFd<'_>| SockRef::from(&fd).set_linger(Some(Duration::ZERO));
    if let Err(error) = stream.fd().and_then(resets) {
        tracing::trace!(%error, "client connection was gone before it was cut off");
    }
}

/// Says that nothing more comes, and waits until the client has noticed.
async fn linger(stream: &mut Socket) {
    let closing = async {
        stream.shutdown().await?;
        let mut thrown_away = [0; 4 << 10];
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            let count = stream.read(&mut thrown_away).await?;
            if count == 0 {
                break;
            }
            left = left.saturating_sub(count);
        }
        io::Result::Ok(())
    };
    if let Ok(Err(error)) = timeout(LINGER, closing).await {
        tracing::trace!(%error, "client connection ended while it was closed");
    }
}
