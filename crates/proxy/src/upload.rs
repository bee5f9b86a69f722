//! A request's body that is passed on as it comes, with bounded memory: what is too long to be kept, or comes bit by bit.
//!
//! What has been sent is kept as long as it is short, so that it can be sent again.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ringmaster_core::spec::ClientLimits;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::h1::body::{Body, Piece};
use crate::h1::emit;
use crate::h1::framing::Framing;
use crate::io::{Buffer, read_more};
use crate::routing::Service;

/// Request bodies up to this are kept, so that they can be sent again.
pub(crate) const KEPT_BYTES_MAX: usize = 64 << 10;
/// A client's rate is looked at after this long.
const PACE_WINDOW: Duration = Duration::from_secs(10);
/// Data up to this is gathered before it is written.
const GATHERED_BYTES_MAX: usize = 16 << 10;

/// A body under way to an endpoint.
pub(crate) struct Upload {
    body: Body,
    chunked: bool,
    /// What was sent so far, as it was framed; empty once that is too much.
    kept: Vec<u8>,
    overflowed: bool,
    begun: bool,
    ended: bool,
    pace: Pace,
    service: Rc<Service>,
    worker: usize,
}

/// How fast a client sends, and how much.
#[derive(Debug)]
pub(crate) struct Pace {
    /// How long the client was waited for; what an endpoint takes its time for is not the client's doing.
    waited: Duration,
    bytes: u64,
    limits: ClientLimits,
}

impl Pace {
    pub(crate) fn new(limits: &ClientLimits) -> Pace {
        Pace { waited: Duration::ZERO, bytes: 0, limits: limits.clone() }
    }

    /// So many bytes have come: whether that is no more than is allowed.
    pub(crate) fn receive(&mut self, bytes: usize) -> bool {
        self.bytes += bytes as u64;
        self.allows(0)
    }

    /// Whether so many bytes may still come.
    pub(crate) fn allows(&self, more: u64) -> bool {
        self.limits.max_body.is_none_or(|most| self.bytes.saturating_add(more) <= most.bytes)
    }

    /// How long the next bytes may take: until the client stalls, or is too slow on the whole.
    pub(crate) fn patience(&self) -> Duration {
        let earned = Duration::from_secs(self.bytes / self.limits.min_body_rate.bytes.max(1));
        self.limits.stall_timeout.0.min(PACE_WINDOW.max(earned).saturating_sub(self.waited))
    }

    /// The client was waited for since then.
    pub(crate) fn waited_since(&mut self, since: Instant) {
        self.waited += since.elapsed();
    }
}

/// How an upload ended before its body did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UploadError {
    /// The client ended early, or its chunks are none.
    Broken,
    /// The client stopped sending.
    Stalled,
    /// The client sends more than is allowed.
    TooLarge,
    /// The endpoint takes no more: it may have said why.
    Refused,
}

/// What the two sides of an exchange tell each other.
#[derive(Debug)]
pub(crate) struct Signs {
    /// The endpoint waits for what the client has not sent yet.
    pub(crate) starved: Cell<bool>,
    /// When something moved last.
    pub(crate) moved: Cell<Instant>,
    /// The client may send its body now.
    pub(crate) may_send: Cell<bool>,
    /// A byte has gone to the endpoint.
    pub(crate) sent: Cell<bool>,
}

impl Signs {
    pub(crate) fn new(may_send: bool) -> Signs {
        Signs {
            starved: Cell::new(false),
            moved: Cell::new(Instant::now()),
            may_send: Cell::new(may_send),
            sent: Cell::new(false),
        }
    }
}

impl Upload {
    /// Of a body that begins behind the head in the client's buffer.
    pub(crate) fn new(
        framing: Framing,
        base: usize,
        pace: Pace,
        service: &Rc<Service>,
        worker: usize,
    ) -> Upload {
        Upload {
            body: Body::new(framing, base),
            chunked: framing == Framing::Chunked,
            kept: Vec::new(),
            overflowed: false,
            begun: false,
            ended: false,
            pace,
            service: Rc::clone(service),
            worker,
        }
    }

    /// Whether what was sent can be sent again.
    pub(crate) fn can_repeat(&self) -> bool {
        !self.overflowed
    }

    /// Whether bytes of the body may be gone from the client's buffer.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Where the next request begins, if the body has ended.
    pub(crate) fn end(&self) -> Option<usize> {
        self.ended.then(|| self.body.end())
    }

    /// Sends the head and all that follows. Returns when everything is sent.
    ///
    /// Cancel-safe in that another call to another endpoint sends everything again, if [`Upload::can_repeat`].
    pub(crate) async fn run(
        &mut self,
        head: &[u8],
        client: &mut (impl AsyncRead + Unpin),
        buffer: &mut Buffer,
        sink: &mut (impl AsyncWrite + Unpin),
        signs: &Signs,
    ) -> Result<(), UploadError> {
        send(sink, head, signs).await?;
        poll_fn(|_| if signs.may_send.get() { Poll::Ready(()) } else { Poll::Pending }).await;
        if !self.kept.is_empty() {
            send(sink, &self.kept, signs).await?;
        }
        if self.ended {
            return Ok(());
        }
        self.begun = true;
        let mut out = Vec::new();
        loop {
            match self.body.next(buffer).map_err(|_| UploadError::Broken)? {
                Piece::Data(range) => {
                    let data = &buffer[range];
                    self.service.stats.stripes.receive(self.worker, data.len() as u64);
                    if !self.pace.receive(data.len()) {
                        return Err(UploadError::TooLarge);
                    }
                    if self.chunked {
                        emit::chunk(&mut out, data)
                    } else {
                        out.extend_from_slice(data)
                    }
                    if out.len() >= GATHERED_BYTES_MAX {
                        self.pass_on(&mut out, sink, signs).await?;
                    }
                }
                // What is announced to be too much need not come to be refused.
                Piece::More if !self.pace.allows(self.body.announced()) => return Err(UploadError::TooLarge),
                Piece::More => {
                    self.pass_on(&mut out, sink, signs).await?;
                    self.body.compact(buffer);
                    signs.starved.set(true);
                    let since = Instant::now();
                    let read = timeout(self.pace.patience(), read_more(client, buffer)).await;
                    self.pace.waited_since(since);
                    signs.starved.set(false);
                    signs.moved.set(Instant::now());
                    match read {
                        Ok(Ok(count)) if count > 0 => {}
                        Ok(_) => return Err(UploadError::Broken),
                        Err(_) => return Err(UploadError::Stalled),
                    }
                }
                Piece::End => {
                    if self.chunked {
                        // Trailers of requests end here: few endpoints expect them.
                        emit::last_chunk(&mut out, None);
                    }
                    self.ended = true;
                    return self.pass_on(&mut out, sink, signs).await;
                }
            }
        }
    }

    async fn pass_on(
        &mut self,
        out: &mut Vec<u8>,
        sink: &mut (impl AsyncWrite + Unpin),
        signs: &Signs,
    ) -> Result<(), UploadError> {
        if self.kept.len() + out.len() > KEPT_BYTES_MAX {
            self.overflowed = true;
            self.kept = Vec::new();
        }
        if !self.overflowed {
            // Kept before it is sent: a try that is cut off in between loses nothing.
            self.kept.extend_from_slice(out);
        }
        let sent = send(sink, out, signs).await;
        out.clear();
        sent
    }
}

async fn send(
    sink: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    signs: &Signs,
) -> Result<(), UploadError> {
    while !bytes.is_empty() {
        match sink.write(bytes).await {
            Ok(count) if count > 0 => {
                bytes = &bytes[count..];
                signs.sent.set(true);
                signs.moved.set(Instant::now());
            }
            _ => return Err(UploadError::Refused),
        }
    }
    Ok(())
}
