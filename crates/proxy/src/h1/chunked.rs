//! Takes a chunked body apart (RFC 9112 section 7.1).

use super::bytes::{is_field_value, is_token, trim};
use super::head::{Head, HeadError, Progress, Side};

/// Longest line that names a chunk's size, with its extensions.
const LINE_BYTES_MAX: usize = 1 << 10;
/// Most bytes of extensions in one body: nobody reads them, so more of them only cost.
const EXTENSION_BYTES_MAX: usize = 16 << 10;
/// Most digits of a size.
const DIGITS_MAX: usize = 15;

/// Why chunks cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChunkError {
    /// The line with the size is no hexadecimal number with well-formed extensions, or has no CRLF.
    Size,
    /// The data does not end where its size says.
    End,
    /// The extensions are longer than anybody needs.
    Extensions,
    /// The trailers are no fields.
    Trailers(HeadError),
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many bytes of data.
    Data(usize),
    /// Bytes that have not come yet.
    More,
    /// Nothing: the body has ended.
    End,
}

/// A chunked body under way.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    state: State,
    extensions: usize,
    /// The trailers, once the body has ended.
    pub(crate) trailers: Head,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// At the line with a size.
    #[default]
    Size,
    /// Inside data, of which so much is left.
    Data(u64),
    /// At the end of data.
    DataEnd,
    /// In the fields after the last chunk.
    Trailers,
    /// Behind them.
    Ended,
}

impl Chunks {
    /// What `buffer` holds at `position`, which moves over all that is not data. The data that is told has been
    /// consumed for this; the caller moves over it.
    ///
    /// # Errors
    /// [`ChunkError`]: nothing after it can be trusted.
    pub(crate) fn next(&mut self, buffer: &[u8], position: &mut usize) -> Result<Step, ChunkError> {
        loop {
            let rest = &buffer[*position..];
            match self.state {
                State::Size => {
                    let Some(end) = memchr::memchr(b'\n', &rest[..rest.len().min(LINE_BYTES_MAX)]) else {
                        return if rest.len() < LINE_BYTES_MAX {
                            Ok(Step::More)
                        } else {
                            Err(ChunkError::Size)
                        };
                    };
                    let line = rest[..end].strip_suffix(b"\r").ok_or(ChunkError::Size)?;
                    let size = self.size(line)?;
                    *position += end + 1;
                    self.state = State::Data(size);
                    if size == 0 {
                        self.trailers.reset_to_fields(*position);
                        self.state = State::Trailers;
                    }
                }
                State::Data(0) => self.state = State::DataEnd,
                State::Data(_) if rest.is_empty() => return Ok(Step::More),
                State::Data(left) => {
                    let count = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                    self.state = State::Data(left - count as u64);
                    return Ok(Step::Data(count));
                }
                State::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        *position += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Step::More),
                    _ => return Err(ChunkError::End),
                },
                State::Trailers => {
                    match self.trailers.advance(buffer, Side::Request).map_err(ChunkError::Trailers)? {
                        Progress::Whole => {
                            *position = self.trailers.len;
                            self.state = State::Ended;
                        }
                        Progress::Partial | Progress::Line => return Ok(Step::More),
                    }
                }
                State::Ended => return Ok(Step::End),
            }
        }
    }

    /// How much of the chunk at hand is still to come.
    pub(crate) fn left(&self) -> u64 {
        if let State::Data(left) = self.state { left } else { 0 }
    }

    /// Whether what is in the buffer has to stay where it is.
    pub(crate) fn holds_places(&self) -> bool {
        matches!(self.state, State::Trailers | State::Ended)
    }

    fn size(&mut self, line: &[u8]) -> Result<u64, ChunkError> {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if !(1..=DIGITS_MAX).contains(&digits) {
            return Err(ChunkError::Size);
        }
        let (digits, extensions) = line.split_at(digits);
        if !extensions.is_empty() {
            self.extensions += extensions.len();
            if self.extensions > EXTENSION_BYTES_MAX {
                return Err(ChunkError::Extensions);
            }
            are_extensions(extensions).then_some(()).ok_or(ChunkError::Size)?;
        }
        let digit = |byte: &u8| char::from(*byte).to_digit(16).map_or(0, u64::from);
        Ok(digits.iter().fold(0, |size, byte| size << 4 | digit(byte)))
    }
}

/// `*( BWS ";" BWS name [ BWS "=" BWS value ] )`, values as tokens or quoted strings.
fn are_extensions(mut rest: &[u8]) -> bool {
    if !is_field_value(rest) {
        return false;
    }
    while !rest.is_empty() {
        let Some(after) = trim_start(rest).strip_prefix(b";") else { return false };
        let after = trim_start(after);
        let name =
            after.iter().position(|byte| matches!(byte, b';' | b'=' | b' ' | b'\t')).unwrap_or(after.len());
        if !is_token(&after[..name]) {
            return false;
        }
        rest = &after[name..];
        let Some(value) = trim_start(rest).strip_prefix(b"=") else { continue };
        let value = trim_start(value);
        let end = match value.strip_prefix(b"\"") {
            Some(quoted) => match end_of_quoted(quoted) {
                Some(end) => end + 1,
                None => return false,
            },
            None => {
                let end =
                    value.iter().position(|byte| matches!(byte, b';' | b' ' | b'\t')).unwrap_or(value.len());
                if !is_token(&value[..end]) {
                    return false;
                }
                end
            }
        };
        rest = &value[end..];
    }
    true
}

fn trim_start(bytes: &[u8]) -> &[u8] {
    let blanks = bytes.len() - trim(bytes).len();
    let leading = bytes.iter().take(blanks).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &bytes[leading..]
}

/// How many bytes a quoted string has after its first quote, with the last one.
fn end_of_quoted(bytes: &[u8]) -> Option<usize> {
    let mut escaped = false;
    bytes
        .iter()
        .position(|&byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })
        .map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a body that arrives in these pieces: its data and where it ended.
    fn read(pieces: &[&[u8]]) -> Result<(Vec<u8>, Option<usize>), ChunkError> {
        let (mut chunks, mut buffer, mut position, mut data) = (Chunks::default(), Vec::new(), 0, Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match chunks.next(&buffer, &mut position)? {
                    Step::Data(count) => {
                        data.extend_from_slice(&buffer[position..position + count]);
                        position += count;
                    }
                    Step::More => break,
                    Step::End => return Ok((data, Some(position))),
                }
            }
        }
        Ok((data, None))
    }

    #[test]
    fn chunks_are_put_together() {
        for text in [
            "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
            "005;a=b ; c=\"d;\\\"e\"\r\nhello\r\n6;x\r\n world\r\n0\r\nX-T: 1\r\n\r\n",
            "B\r\nhello world\r\n000\r\n\r\n",
        ] {
            let (data, end) = read(&[text.as_bytes(), b"next"]).unwrap();
            assert_eq!((&*data, end), (&b"hello world"[..], Some(text.len())), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_a_chunk_is_refused() {
        for text in [
            "zz\r\n",
            "\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1\n",
            "1\r\na",
            "1;\r\n",
            "1;=b\r\n",
            "1;a=\r\n",
            "1;a=\"b\r\n",
            "1;a\rb\r\n",
            "ffffffffffffffff\r\n",
            "1 a\r\n",
        ] {
            let expected = if text == "1\r\na" { Ok((b"a".to_vec(), None)) } else { Err(ChunkError::Size) };
            assert_eq!(read(&[text.as_bytes()]), expected, "{text:?}");
        }
        for text in ["1\r\nab", "1\r\na\n", "1\r\na\rb", "1\r\naa\r\n"] {
            assert_eq!(read(&[text.as_bytes()]), Err(ChunkError::End), "{text:?}");
        }
        for text in ["0\r\nX\r\n\r\n", "0\r\n a: b\r\n\r\n", "0\r\nX : 1\r\n\r\n", "0\r\nX: 1\n\r\n"] {
            assert!(matches!(read(&[text.as_bytes()]), Err(ChunkError::Trailers(_))), "{text:?}");
        }
        let endless = format!("1;{}", "a".repeat(LINE_BYTES_MAX));
        assert_eq!(read(&[endless.as_bytes()]), Err(ChunkError::Size));
        let many = format!("1;{}\r\na\r\n", "a".repeat(1_000)).repeat(17);
        assert_eq!(read(&[many.as_bytes()]), Err(ChunkError::Extensions));
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_reads_the_same(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "5\r\nhello\r\n", "1;a=b\r\nx\r\n", "0\r\n", "\r\n", "X: 1\r\n", "\n", "2\r\n", "ab", "z"]), 0..12),
            cut in 0_usize..100,
        ) {
            let text = parts.concat().into_bytes();
            let whole = read(&[&text]);
            let cut = cut.min(text.len());
            prop_assert_eq!(read(&[&text[..cut], &text[cut..]]), whole.clone());
            let single: Vec<&[u8]> = text.chunks(1).collect();
            prop_assert_eq!(read(&single), whole);
        }
    }
}
