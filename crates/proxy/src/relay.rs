//! A response on its way to the client: its body is passed on as it comes, with bounded memory.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::h1::body::{Body, Piece};
use crate::h1::emit;
use crate::h1::framing::Framing;
use crate::io::{Buffer, read_more, write_both};

/// Data up to this is copied behind what is written before it, instead of being written as a piece of its own.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// Why a response did not get to its end.
#[derive(Debug)]
pub(crate) enum RelayError {
    /// The endpoint broke it off, or it is not what its head announced. Nothing of it, not even its head, may have been
    /// `written`.
    Truncated { written: bool },
    /// The client is gone, or takes nothing.
    Client(io::Error),
}

/// How a body goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing {
    /// For the client.
    pub(crate) framing: Framing,
    /// The client can take the trailers.
    pub(crate) trailers: bool,
    /// A client that takes nothing for this long is given up.
    pub(crate) stall: Duration,
}

/// Passes on a body whose first bytes may stand in `buffer` behind their head. `out` holds what is to be written before
/// it: the head. `relayed` counts the bytes of the body that were handed over.
/// Returns whether nothing has come behind the body, as is right.
///
/// Not cancel-safe: a body that was begun and not ended leaves the client's connection unusable.
pub(crate) async fn relay(
    source: &mut (impl AsyncRead + Unpin),
    sink: &mut (impl AsyncWrite + Unpin),
    buffer: &mut Buffer,
    body: &mut Body,
    out: &mut Vec<u8>,
    outgoing: Outgoing,
    relayed: &Cell<u64>,
) -> Result<bool, RelayError> {
    let chunked = outgoing.framing == Framing::Chunked;
    let mut written = false;
    loop {
        match body.next(buffer).map_err(|_| RelayError::Truncated { written })? {
            Piece::Data(range) => {
                let data = &buffer[range];
                relayed.set(relayed.get() + data.len() as u64);
                if chunked {
                    emit::chunk(out, data);
                    if out.len() > COPIED_BYTES_MAX {
                        written = true;
                        write(sink, out, &[], outgoing.stall).await?;
                    }
                } else if data.len() <= COPIED_BYTES_MAX {
                    out.extend_from_slice(data);
                } else {
                    written = true;
                    write(sink, out, data, outgoing.stall).await?;
                }
            }
            Piece::More => {
                written = true;
                write(sink, out, &[], outgoing.stall).await?;
                body.compact(buffer);
                let count = read_more(source, buffer).await.map_err(|_| RelayError::Truncated { written })?;
                if count == 0 && !body.ends_with_connection() {
                    return Err(RelayError::Truncated { written });
                }
            }
            Piece::End => {
                if chunked {
                    let trailers = body.trailers().filter(|_| outgoing.trailers);
                    emit::last_chunk(out, trailers.map(|trailers| (trailers, &buffer[..])));
                }
                write(sink, out, &[], outgoing.stall).await?;
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
) -> Result<(), RelayError> {
    if out.is_empty() && data.is_empty() {
        return Ok(());
    }
    let written = match timeout(stall, write_both(sink, out, data)).await {
        Ok(written) => written,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    out.clear();
    written.map_err(RelayError::Client)
}
