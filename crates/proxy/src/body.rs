//! Bodies: what goes to an endpoint, and what goes to a client. Both stream with bounded memory.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, timeout_at};

use crate::io::Exchange;
use crate::routing::Service;
use crate::upstream::{Connection, InFlight};

/// What goes to an endpoint.
pub(crate) enum RequestBody {
    /// Empty, or buffered as a whole: it can be sent again.
    Whole(Option<Bytes>),
    /// Streams from the client: it can be sent once.
    Stream(Incoming, Progress),
}

impl RequestBody {
    pub(crate) fn whole(bytes: Bytes) -> RequestBody {
        RequestBody::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            RequestBody::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            RequestBody::Stream(incoming, progress) => {
                let frame = Pin::new(&mut *incoming).poll_frame(cx);
                progress.advance(&frame, incoming.is_end_stream());
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Whole(bytes) => bytes.is_none(),
            RequestBody::Stream(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            RequestBody::Stream(incoming, _) => incoming.size_hint(),
        }
    }
}

/// How far a streaming request body has come: the time for a response starts with its last byte, and a client
/// that stops sending is not the endpoint's failure.
#[derive(Clone)]
pub(crate) struct Progress(Rc<Upload>);

struct Upload {
    /// Who counts its bytes, and on which worker.
    counted: Option<(Rc<Service>, usize)>,
    state: Cell<UploadState>,
    last: Cell<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UploadState {
    /// There is more, and the endpoint has not asked for it yet. Becomes one of the others.
    Sending,
    /// The endpoint waits for what the client has not sent yet. Becomes one of the others.
    Starved,
    /// All of it was sent.
    Sent,
    /// The client ended early.
    Failed,
}

impl Progress {
    /// Of a body that is sent at once.
    pub(crate) fn sent() -> Progress {
        Progress::new(UploadState::Sent, None)
    }

    /// Of a body that streams to this service through this worker.
    pub(crate) fn sending(service: &Rc<Service>, worker: usize) -> Progress {
        Progress::new(UploadState::Sending, Some((Rc::clone(service), worker)))
    }

    fn new(state: UploadState, counted: Option<(Rc<Service>, usize)>) -> Progress {
        Progress(Rc::new(Upload { counted, state: Cell::new(state), last: Cell::new(Instant::now()) }))
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.0.state.get() == UploadState::Failed
    }

    /// Whether it is the client that we wait for.
    pub(crate) fn is_stalled(&self) -> bool {
        self.0.state.get() == UploadState::Starved
    }

    fn advance(&self, frame: &Poll<Option<Result<Frame<Bytes>, hyper::Error>>>, ended: bool) {
        let state = match frame {
            Poll::Pending => UploadState::Starved,
            Poll::Ready(Some(Err(_))) => UploadState::Failed,
            Poll::Ready(Some(Ok(_))) if !ended => UploadState::Sending,
            Poll::Ready(Some(Ok(_)) | None) => UploadState::Sent,
        };
        self.0.state.set(state);
        if let (Some((service, worker)), Poll::Ready(Some(Ok(frame)))) = (&self.0.counted, frame) {
            service.stats.stripes.receive(*worker, frame.data_ref().map_or(0, Bytes::len) as u64);
        }
        if frame.is_ready() {
            self.0.last.set(Instant::now());
        }
    }

    /// Waits for a response until nothing has moved for `limit`; none if that happened.
    ///
    /// Cancel-safe as `response` is.
    pub(crate) async fn response_within<T>(
        &self,
        response: impl Future<Output = T>,
        limit: Duration,
    ) -> Option<T> {
        tokio::pin!(response);
        self.0.last.set(Instant::now());
        loop {
            let deadline = self.0.last.get() + limit;
            if let Ok(response) = timeout_at(deadline, response.as_mut()).await {
                return Some(response);
            }
            if self.0.last.get() + limit <= deadline {
                return None;
            }
        }
    }
}

/// What goes to a client.
pub(crate) struct ResponseBody {
    source: Source,
    /// The exchange ends with its response body.
    exchange: Option<Exchange>,
}

enum Source {
    Done,
    Whole(Bytes),
    Relay(Box<Relay>),
}

/// A response under way from an endpoint, with all that ends with its last byte.
struct Relay {
    incoming: Incoming,
    /// The connection, if it can be used again after this response.
    connection: Option<Connection>,
    in_flight: InFlight,
}

impl ResponseBody {
    pub(crate) fn empty() -> ResponseBody {
        ResponseBody { source: Source::Done, exchange: None }
    }

    pub(crate) fn whole(bytes: Bytes) -> ResponseBody {
        ResponseBody {
            source: if bytes.is_empty() { Source::Done } else { Source::Whole(bytes) },
            exchange: None,
        }
    }

    /// Relays `incoming`. With its last byte the request is no longer in flight, and its connection is free
    /// again if it is `reusable`.
    pub(crate) fn relay(
        incoming: Incoming,
        connection: Connection,
        reusable: bool,
        in_flight: InFlight,
    ) -> ResponseBody {
        let ended = incoming.is_end_stream();
        // One that cannot be used again lives on until its response has ended; dropping its handle says no more
        // than that nothing else will be sent.
        let connection = reusable.then_some(connection);
        let relay = Relay { incoming, connection, in_flight };
        if ended {
            relay.finish();
            return ResponseBody::empty();
        }
        ResponseBody { source: Source::Relay(Box::new(relay)), exchange: None }
    }

    pub(crate) fn ending(mut self, exchange: Exchange) -> ResponseBody {
        self.exchange = Some(exchange);
        self
    }
}

impl Relay {
    fn finish(self) {
        if let Some(connection) = self.connection {
            self.in_flight.endpoint().check_in(connection);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = match &mut self.source {
            Source::Done => None,
            Source::Whole(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Source::Relay(relay) => ready!(Pin::new(&mut relay.incoming).poll_frame(cx)),
        };
        let goes_on = match &self.source {
            Source::Relay(relay) => matches!(frame, Some(Ok(_))) && !relay.incoming.is_end_stream(),
            Source::Done | Source::Whole(_) => false,
        };
        if !goes_on && let Source::Relay(relay) = std::mem::replace(&mut self.source, Source::Done) {
            match &frame {
                Some(Err(_)) => relay.in_flight.endpoint().truncated(),
                Some(Ok(_)) | None => relay.finish(),
            }
        }
        if let (Some(exchange), Some(Ok(frame))) = (&mut self.exchange, &frame) {
            exchange.sent(frame.data_ref().map_or(0, Bytes::len));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Done => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Relay(relay) => relay.incoming.size_hint(),
        }
    }
}
