//! A body as it is taken out of a buffer, however it is framed.

use std::ops::Range;

use super::chunked::{ChunkError, Chunks, Step};
use super::framing::Framing;
use super::head::Head;

/// A body under way. Its bytes stand in a buffer behind what has to stay there, which is the head.
#[derive(Debug)]
pub(crate) struct Body {
    kind: Kind,
    /// What stays in the buffer.
    base: usize,
    /// The next byte that is looked at.
    position: usize,
}

#[derive(Debug)]
enum Kind {
    Length(u64),
    Chunked(Box<Chunks>),
    Close { ended: bool },
}

/// What a buffer holds of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Data, at this place.
    Data(Range<usize>),
    /// Nothing: more has to be read.
    More,
    /// Nothing: it has ended.
    End,
}

impl Body {
    /// A body that begins at `base` of its buffer.
    pub(crate) fn new(framing: Framing, base: usize) -> Body {
        let kind = match framing {
            Framing::Length(length) => Kind::Length(length),
            Framing::Chunked => Kind::Chunked(Box::default()),
            Framing::Close => Kind::Close { ended: false },
        };
        Body { kind, base, position: base }
    }

    /// The next piece in the buffer.
    ///
    /// # Errors
    /// [`ChunkError`] if it is not the body that its head announced.
    pub(crate) fn next(&mut self, buffer: &[u8]) -> Result<Piece, ChunkError> {
        let available = buffer.len() - self.position;
        let count = match &mut self.kind {
            Kind::Length(0) | Kind::Close { ended: true } => return Ok(Piece::End),
            Kind::Length(_) | Kind::Close { .. } if available == 0 => return Ok(Piece::More),
            Kind::Length(left) => {
                let count = usize::try_from(*left).map_or(available, |left| left.min(available));
                *left -= count as u64;
                count
            }
            Kind::Chunked(chunks) => match chunks.next(buffer, &mut self.position)? {
                Step::Data(count) => count,
                Step::More => return Ok(Piece::More),
                Step::End => return Ok(Piece::End),
            },
            Kind::Close { .. } => available,
        };
        let data = self.position..self.position + count;
        self.position = data.end;
        Ok(Piece::Data(data))
    }

    /// The connection was closed by whoever sends the body: whether that is its end.
    pub(crate) fn ends_with_connection(&mut self) -> bool {
        match &mut self.kind {
            Kind::Close { ended } => {
                *ended = true;
                true
            }
            Kind::Length(left) => *left == 0,
            Kind::Chunked(_) => false,
        }
    }

    /// Forgets what was looked at, to make room.
    pub(crate) fn compact(&mut self, buffer: &mut Vec<u8>) {
        let holds = matches!(&self.kind, Kind::Chunked(chunks) if chunks.holds_places());
        if !holds && self.position > self.base {
            buffer.drain(self.base..self.position);
            self.position = self.base;
        }
    }

    /// Where the next message begins, once the body has ended.
    pub(crate) fn end(&self) -> usize {
        self.position
    }

    /// How many bytes are to come, if its length is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self.kind {
            Kind::Length(left) => Some(left),
            _ => None,
        }
    }

    /// How many bytes are to come for sure: of chunks those of the one at hand.
    pub(crate) fn announced(&self) -> u64 {
        match &self.kind {
            Kind::Length(left) => *left,
            Kind::Chunked(chunks) => chunks.left(),
            Kind::Close { .. } => 0,
        }
    }

    /// The bytes were passed on outside the buffer.
    pub(crate) fn skip(&mut self, count: u64) {
        if let Kind::Length(left) = &mut self.kind {
            *left = left.saturating_sub(count);
        }
    }

    /// The fields after the last chunk, once the body has ended.
    pub(crate) fn trailers(&self) -> Option<&Head> {
        match &self.kind {
            Kind::Chunked(chunks) => Some(&chunks.trailers),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_takes_so_many_bytes_and_leaves_the_next_message() {
        let mut buffer = b"HEADabcde".to_vec();
        let mut body = Body::new(Framing::Length(7), 4);
        assert_eq!(body.next(&buffer), Ok(Piece::Data(4..9)));
        assert_eq!(body.next(&buffer), Ok(Piece::More));
        body.compact(&mut buffer);
        assert_eq!(buffer, b"HEAD");
        buffer.extend(b"fgNEXT");
        assert_eq!(body.next(&buffer), Ok(Piece::Data(4..6)));
        assert_eq!((body.next(&buffer), body.end()), (Ok(Piece::End), 6));
    }

    #[test]
    fn a_body_without_an_end_ends_with_its_connection() {
        let mut body = Body::new(Framing::Close, 0);
        assert_eq!(body.next(b"abc"), Ok(Piece::Data(0..3)));
        assert_eq!(body.next(b"abc"), Ok(Piece::More));
        assert!(body.ends_with_connection());
        assert_eq!(body.next(b"abc"), Ok(Piece::End));
        assert!(!Body::new(Framing::Length(1), 0).ends_with_connection());
        assert!(!Body::new(Framing::Chunked, 0).ends_with_connection());
    }

    #[test]
    fn chunks_are_compacted_between_reads() {
        let mut buffer = b"HEAD5\r\nhel".to_vec();
        let mut body = Body::new(Framing::Chunked, 4);
        assert_eq!(body.next(&buffer), Ok(Piece::Data(7..10)));
        assert_eq!(body.next(&buffer), Ok(Piece::More));
        body.compact(&mut buffer);
        buffer.extend(b"lo\r\n0\r\nX: 1\r\n\r\nNEXT");
        assert_eq!(body.next(&buffer), Ok(Piece::Data(4..6)));
        assert_eq!(body.next(&buffer), Ok(Piece::End));
        assert_eq!(&buffer[body.end()..], b"NEXT");
        assert_eq!(body.trailers().unwrap().fields.len(), 1);
    }
}
