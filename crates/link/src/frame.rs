//! Frames: a header with version and lengths, a message as JSON, and bytes that belong to it (a ring, a body, a text).
//!
//! Layout of the header, big-endian: `RM`, version u16, length of the message u32, length of the bytes u32.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

const MAGIC: [u8; 2] = *b"RM";
/// Grows when a frame of one version cannot be understood by the other.
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 12;

/// How large a frame may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    message: u32,
    bytes: u32,
}

impl Limits {
    /// Of whom nothing is known yet.
    pub(crate) const STRANGER: Limits = Limits { message: 64 << 10, bytes: 0 };
    /// The largest ring has 4 million points; a snapshot of 60,000 endpoints is a message of 10 MiB.
    pub(crate) const KNOWN: Limits = Limits { message: 16 << 20, bytes: 32 << 20 };
}

/// A message with its bytes.
#[derive(Debug, Clone)]
pub(crate) struct Frame<M> {
    pub(crate) message: M,
    pub(crate) bytes: Bytes,
}

impl<M> From<M> for Frame<M> {
    fn from(message: M) -> Frame<M> {
        Frame { message, bytes: Bytes::new() }
    }
}

/// A stream that breaks, or says what cannot be understood.
#[derive(Debug, Error)]
pub(crate) enum FrameError {
    #[error("the connection has ended")]
    Ended,
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("the other side does not speak this protocol")]
    Magic,
    #[error(
        "the other side speaks version {0} of the protocol, this one {VERSION}: let both be of one release"
    )]
    Version(u16),
    #[error("a frame of {0} bytes is too large")]
    TooLarge(u32),
    #[error("a message cannot be understood: {0}: let both sides be of one release")]
    Message(#[from] serde_json::Error),
    #[error("the other side takes nothing")]
    Stalled,
}

/// Reads the next frame. Not cancel-safe: what was read of a frame is lost.
pub(crate) async fn read<M: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    limits: Limits,
) -> Result<Frame<M>, FrameError> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => FrameError::Ended,
        _ => FrameError::Io(error),
    })?;
    let [a, b, c, d, m0, m1, m2, m3, b0, b1, b2, b3] = header;
    if [a, b] != MAGIC {
        return Err(FrameError::Magic);
    }
    match u16::from_be_bytes([c, d]) {
        VERSION => {}
        other => return Err(FrameError::Version(other)),
    }
    let message = within(u32::from_be_bytes([m0, m1, m2, m3]), limits.message)?;
    let bytes = within(u32::from_be_bytes([b0, b1, b2, b3]), limits.bytes)?;
    let mut text = vec![0; message];
    stream.read_exact(&mut text).await?;
    let mut content = vec![0; bytes];
    stream.read_exact(&mut content).await?;
    Ok(Frame { message: serde_json::from_slice(&text)?, bytes: content.into() })
}

/// Writes a frame; whoever does not take it within `patience` is stalled. Not cancel-safe.
pub(crate) async fn write<M: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    frame: &Frame<M>,
    patience: Duration,
) -> Result<(), FrameError> {
    let text = serde_json::to_vec(&frame.message)?;
    let length = |length: usize| u32::try_from(length).map_err(|_| FrameError::TooLarge(u32::MAX));
    let mut head = Vec::with_capacity(HEADER_BYTES + text.len());
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&VERSION.to_be_bytes());
    head.extend_from_slice(&length(text.len())?.to_be_bytes());
    head.extend_from_slice(&length(frame.bytes.len())?.to_be_bytes());
    head.extend_from_slice(&text);
    let written = async {
        stream.write_all(&head).await?;
        stream.write_all(&frame.bytes).await?;
        stream.flush().await
    };
    match timeout(patience, written).await {
        Ok(written) => Ok(written?),
        Err(_) => Err(FrameError::Stalled),
    }
}

fn within(length: u32, limit: u32) -> Result<usize, FrameError> {
    if length <= limit { Ok(length as usize) } else { Err(FrameError::TooLarge(length)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn written(message: &str, bytes: &'static [u8]) -> Vec<u8> {
        let mut all = Vec::new();
        let frame = Frame { message: message.to_owned(), bytes: Bytes::from_static(bytes) };
        write(&mut all, &frame, Duration::from_secs(1)).await.unwrap();
        all
    }

    async fn parsed(mut bytes: &[u8], limits: Limits) -> Result<Frame<String>, FrameError> {
        read(&mut bytes, limits).await
    }

    #[tokio::test]
    async fn frames_follow_each_other_and_end_between_two() {
        let all = [written("one", b"").await, written("two", b"bytes").await].concat();
        let mut stream = &all[..];
        let first: Frame<String> = read(&mut stream, Limits::KNOWN).await.unwrap();
        let second: Frame<String> = read(&mut stream, Limits::KNOWN).await.unwrap();
        assert_eq!(
            (first.message.as_str(), second.message.as_str(), &second.bytes[..]),
            ("one", "two", &b"bytes"[..])
        );
        assert!(matches!(read::<String>(&mut stream, Limits::KNOWN).await, Err(FrameError::Ended)));
    }

    #[tokio::test]
    async fn what_is_no_frame_of_ours_is_refused_before_memory_is_taken() {
        let whole = written("one", b"bytes").await;
        assert!(matches!(parsed(&whole, Limits::STRANGER).await, Err(FrameError::TooLarge(5))));
        assert!(matches!(parsed(b"GET / HTTP/1.1\r\n", Limits::KNOWN).await, Err(FrameError::Magic)));
        let mut newer = whole.clone();
        newer[3] = 2;
        assert!(matches!(parsed(&newer, Limits::KNOWN).await, Err(FrameError::Version(2))));
        let mut huge = whole.clone();
        huge[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(parsed(&huge, Limits::KNOWN).await, Err(FrameError::TooLarge(u32::MAX))));
        assert!(matches!(parsed(&whole[..whole.len() - 1], Limits::KNOWN).await, Err(FrameError::Io(_))));
    }
}
