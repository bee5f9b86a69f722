//! A response on its way to the client: its body is passed on as it comes, with bounded memory.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::h1::body::{Body, Piece};
use crate::h1::emit;
use crate::h1::framing::Framing;
use crate::io::{Buffer, read_more, within, write_both};
use crate::splice::Pipes;
use crate::upstream::InFlight;

/// Data up to this is copied behind what is written before it, instead of being written as a piece of its own.
pub(crate) const COPIED_BYTES_MAX: usize = 4 << 10;

/// What is left of a body goes without passing through our memory if it is at least this.
const SPLICED_BYTES_MIN: u64 = 64 << 10;

/// From whom to whom a response goes.
pub(crate) struct Way<'w, 's> {
    pub(crate) source: &'w mut ReadHalf<'s>,
    pub(crate) sink: &'w mut WriteHalf<'s>,
    pub(crate) pipes: &'w Pipes,
}

/// Why a response did not get to its end.
#[derive(Debug)]
pub(crate) enum RelayError {
    /// The endpoint broke it off, or it is not what its head announced. Nothing of it, not even its head, may have been
    /// `written`.
    Truncated { written: bool },
    /// The client is gone, or takes nothing.
    Client(io::Error),
}

/// Of what is written.
impl From<io::Error> for RelayError {
    fn from(error: io::Error) -> RelayError {
        RelayError::Client(error)
    }
}

/// How a body goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing {
    /// For the client.
    pub(crate) framing: Framing,
    /// The client can take the trailers.
    pub(crate) trailers: bool,
    pub(crate) patience: Patience,
}

/// How long nothing may move.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// A client that takes nothing for this long is given up.
    pub(crate) stall: Duration,
    /// An endpoint that sends nothing of a body whose length it told for this long does not send the rest; none if it may be
    /// waiting for the client. Of a body without a length nobody can tell: it may be a stream of what happens rarely.
    pub(crate) pause: Option<Duration>,
}

/// Passes on a body whose first bytes may stand in `buffer` behind their head. `out` holds what is to be written before
/// it: the head. The request is no longer `in_flight` once the last byte has come; `relayed` counts the bytes of the body that were handed over.
/// Returns whether nothing has come behind the body, as is right.
///
/// Not cancel-safe: a body that was begun and not ended leaves the client's connection unusable.
pub(crate) async fn relay(
    way: Way<'_, '_>,
    buffer: &mut Buffer,
    body: &mut Body,
    out: &mut Vec<u8>,
    outgoing: Outgoing,
    relayed: &Cell<u64>,
    in_flight: &mut Option<InFlight>,
) -> Result<bool, RelayError> {
    let chunked = outgoing.framing == Framing::Chunked;
    let Patience { stall, pause } = outgoing.patience;
    let mut written = false;
    let Way { source, sink, pipes } = way;
    loop {
        let Ok(piece) = body.next(buffer) else {
            if written {
                write(sink, out, &[], stall).await?;
            }
            return Err(RelayError::Truncated { written });
        };
        match piece {
            Piece::Data(range) => {
                let data = &buffer[range];
                relayed.set(relayed.get() + data.len() as u64);
                if chunked {
                    emit::chunk(out, data);
                    if out.len() > COPIED_BYTES_MAX {
                        written = true;
                        write(sink, out, &[], stall).await?;
                    }
                } else if data.len() <= COPIED_BYTES_MAX {
                    out.extend_from_slice(data);
                } else {
                    written = true;
                    write(sink, out, data, stall).await?;
                }
            }
            Piece::More => {
                written = true;
                write(sink, out, &[], stall).await?;
                body.compact(buffer);
                if let Some(left) = body.left().filter(|left| *left >= SPLICED_BYTES_MIN)
                    && pipes
                        .relay((*source).as_ref(), (*sink).as_ref(), left, outgoing.patience, relayed)
                        .await?
                {
                    body.skip(left);
                    continue;
                }
                let reading = read_more(source, buffer);
                let read = within(pause.filter(|_| body.left().is_some()), reading).await;
                let Some(Ok(count)) = read else { return Err(RelayError::Truncated { written }) };
                if count == 0 && !body.ends_with_connection() {
                    return Err(RelayError::Truncated { written });
                }
            }
            Piece::End => {
                // The endpoint has done its part, however long the client takes.
                drop(in_flight.take());
                if chunked {
                    let trailers = body.trailers().filter(|_| outgoing.trailers);
                    emit::last_chunk(out, trailers.map(|trailers| (trailers, &buffer[..])));
                }
                write(sink, out, &[], stall).await?;
                return Ok(body.end() == buffer.len());
            }
        }
    }
}

/// Writes what has piled up, then `data`.
pub(crate) async fn write(
    sink: &mut (impl AsyncWrite + Unpin),
    out: &mut Vec<u8>,
    data: &[u8],
    stall: Duration,
) -> io::Result<()> {
    if out.is_empty() && data.is_empty() {
        return Ok(());
    }
    let written = within(Some(stall), write_both(sink, out, data)).await;
    let written = written.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
    out.clear();
    written
}
