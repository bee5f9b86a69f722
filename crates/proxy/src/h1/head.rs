//! Reads the head of a message: its first line and its fields (RFC 9112 sections 2 to 5).
//!
//! A head is read line by line as bytes arrive and never from its beginning again, so that a sender of single bytes
//! costs no more than any other. What is read stays where it is: a [`Head`] is a list of places in the buffer.

use std::ops::Range;

use super::bytes::{can_begin, first_colon, first_control, is_field_value, is_token, token_len, trim};
use super::field::Name;

/// Longest first line, without its end.
pub(crate) const LINE_BYTES_MAX: usize = 8 << 10;
/// Longest head without its first line, and longest trailer section.
pub(crate) const FIELDS_BYTES_MAX: usize = 64 << 10;
/// Most fields of a head or a trailer section.
pub(crate) const FIELDS_MAX: usize = 100;
/// Longest name of a field that is looked for in one go, with its colon.
const USUAL_NAME_BYTES_MAX: usize = 64;
/// Most empty lines before a request (RFC 9112 section 2.2 asks for one at least).
const EMPTY_LINES_MAX: usize = 2;

/// A place in the buffer that a head was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) fn new(range: Range<usize>) -> Span {
        Span { start: range.start as u32, end: range.end as u32 }
    }

    pub(crate) fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.start as usize..self.end as usize]
    }

    pub(crate) fn start(self) -> usize {
        self.start as usize
    }

    pub(crate) fn end(self) -> usize {
        self.end as usize
    }
}

/// One field as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) kind: Name,
    pub(crate) name: Span,
    /// Without the blanks around it.
    pub(crate) value: Span,
    /// In the buffer there is nothing but `: ` between the two, and CRLF behind.
    pub(crate) is_as_written: bool,
}

/// Whose head it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Request,
    /// A blank before a colon is taken out and not refused (RFC 9112 section 5.1).
    Response,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// Another recipient could read it otherwise, or not at all.
    Malformed(Defect),
    /// The first line is longer than [`LINE_BYTES_MAX`].
    LineTooLong,
    /// More than [`FIELDS_MAX`] fields or [`FIELDS_BYTES_MAX`] bytes.
    FieldsTooLarge,
}

/// What is wrong with a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    /// It begins with what no message begins with.
    Beginning,
    /// A line ends in LF alone (RFC 9112 section 2.2).
    BareLf,
    /// A field continues on the next line (RFC 9112 section 5.2).
    Folded,
    /// A line of the fields has no colon.
    NoColon,
    /// The name of a field is no token, or a blank follows it (RFC 9112 section 5.1).
    FieldName,
    /// The value of a field has a control character (RFC 9110 section 5.5).
    FieldValue,
}

/// A head as far as it has been read.
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// The first line without its end.
    pub(crate) line: Span,
    pub(crate) fields: Vec<Field>,
    /// The [bits](Name::bit) of the fields that are there.
    kinds: u32,
    /// The bytes that the whole head has, with those ignored before it.
    pub(crate) len: usize,
    line_start: usize,
    scanned: usize,
    empty_lines: usize,
    fields_start: usize,
    has_line: bool,
}

/// How far a head is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More has to come.
    Partial,
    /// The first line is there, and more has to come: time to look at it.
    Line,
    /// All of it is there.
    Whole,
}

impl Head {
    /// Makes it ready for the next message, which begins at `start` of the buffer.
    pub(crate) fn reset(&mut self, start: usize) {
        let fields = std::mem::take(&mut self.fields);
        *self = Head { fields, line_start: start, scanned: start, ..Head::default() };
        self.fields.clear();
    }

    /// Makes it ready for a section of fields without a first line: the trailers of a chunked body.
    pub(crate) fn reset_to_fields(&mut self, start: usize) {
        self.reset(start);
        (self.has_line, self.fields_start) = (true, start);
    }

    /// Whether anything of it has come.
    pub(crate) fn has_begun(&self, buffer: &[u8]) -> bool {
        self.has_line || self.line_start < buffer.len()
    }

    /// Reads on in `buffer`, which holds what it held before and perhaps more.
    pub(crate) fn advance(&mut self, buffer: &[u8], side: Side) -> Result<Progress, HeadError> {
        let had_line = self.has_line;
        loop {
            if self.has_line && self.scanned == self.line_start {
                self.usual_fields(buffer)?;
            }
            let Some(offset) = line_end(&buffer[self.scanned..]) else { break };
            let end = self.scanned + offset;
            let start = self.line_start;
            (self.scanned, self.line_start) = (end + 1, end + 1);
            if !self.has_line && end + 1 - start > LINE_BYTES_MAX + 2 {
                return Err(HeadError::LineTooLong);
            }
            if self.has_line {
                self.within_limits(end + 1)?;
            }
            let line = &buffer[start..end];
            if !self.has_line && line.first().is_some_and(|&byte| !can_begin(byte) && byte != b'\r') {
                return Err(HeadError::Malformed(Defect::Beginning));
            }
            let line = line.strip_suffix(b"\r").ok_or(HeadError::Malformed(Defect::BareLf))?;
            if !self.has_line {
                self.first_line(line, start, side)?;
            } else if line.is_empty() {
                self.len = end + 1;
                return Ok(Progress::Whole);
            } else {
                self.field(line, start, side)?;
            }
        }
        self.scanned = buffer.len();
        if !self.has_line {
            let odd = |byte: &u8| !can_begin(*byte) && !matches!(byte, b'\r' | b'\n');
            if buffer.get(self.line_start).is_some_and(odd) {
                return Err(HeadError::Malformed(Defect::Beginning));
            }
            let long = buffer.len() - self.line_start > LINE_BYTES_MAX + 2;
            return if long { Err(HeadError::LineTooLong) } else { Ok(Progress::Partial) };
        }
        self.within_limits(buffer.len())?;
        Ok(if had_line { Progress::Partial } else { Progress::Line })
    }

    /// The fields of one name.
    pub(crate) fn of(&self, kind: Name) -> impl Iterator<Item = Span> {
        let fields = if self.has(kind) { &*self.fields } else { &[] };
        fields.iter().filter(move |field| field.kind == kind).map(|field| field.value)
    }

    /// Whether there is a field of this name.
    pub(crate) fn has(&self, kind: Name) -> bool {
        self.kinds & kind.bit() != 0
    }

    /// Reads whole fields that are written as nearly all are, up to one that is not or the end: that is for
    /// [`Head::field`], which knows what is wrong with it, if anything is.
    fn usual_fields(&mut self, buffer: &[u8]) -> Result<(), HeadError> {
        while let Some((name_len, value)) = usual_field(&buffer[self.line_start..]) {
            let start = self.line_start;
            let value = start + value.start..start + value.end;
            (self.line_start, self.scanned) = (value.end + 2, value.end + 2);
            self.within_limits(self.line_start)?;
            self.push(Field {
                kind: Name::of(&buffer[start..start + name_len]),
                name: Span::new(start..start + name_len),
                is_as_written: value.start == start + name_len + 2,
                value: Span::new(value),
            })?;
        }
        Ok(())
    }

    fn push(&mut self, field: Field) -> Result<(), HeadError> {
        if self.fields.len() >= FIELDS_MAX {
            return Err(HeadError::FieldsTooLarge);
        }
        self.kinds |= field.kind.bit();
        self.fields.push(field);
        Ok(())
    }

    fn first_line(&mut self, line: &[u8], start: usize, side: Side) -> Result<(), HeadError> {
        if line.is_empty() && side == Side::Request && self.empty_lines < EMPTY_LINES_MAX {
            self.empty_lines += 1;
            return Ok(());
        }
        if line.first().is_none_or(|&byte| byte == b'\r') {
            return Err(HeadError::Malformed(Defect::Beginning));
        }
        self.line = Span::new(start..start + line.len());
        (self.has_line, self.fields_start) = (true, self.line_start);
        Ok(())
    }

    fn field(&mut self, line: &[u8], start: usize, side: Side) -> Result<(), HeadError> {
        let malformed = |defect| Err(HeadError::Malformed(defect));
        if matches!(line[0], b' ' | b'\t') {
            return malformed(Defect::Folded);
        }
        let name = &line[..token_len(line)];
        let blanks = match side {
            Side::Request => 0,
            Side::Response => blanks(&line[name.len()..]),
        };
        let colon = name.len() + blanks;
        if name.is_empty() || line.get(colon) != Some(&b':') {
            let has_colon = memchr::memchr(b':', line).is_some();
            return malformed(if has_colon { Defect::FieldName } else { Defect::NoColon });
        }
        let after = &line[colon + 1..];
        let value = trim(after);
        if !is_field_value(value) {
            return malformed(Defect::FieldValue);
        }
        let value_start = start + colon + 1 + if value.is_empty() { 0 } else { self::blanks(after) };
        self.push(Field {
            kind: Name::of(name),
            name: Span::new(start..start + name.len()),
            value: Span::new(value_start..value_start + value.len()),
            is_as_written: false,
        })
    }

    fn within_limits(&self, end: usize) -> Result<(), HeadError> {
        let large = end - self.fields_start > FIELDS_BYTES_MAX;
        if large { Err(HeadError::FieldsTooLarge) } else { Ok(()) }
    }
}

/// Where the line ends that begins or goes on here.
fn line_end(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"\r\n") { Some(1) } else { memchr::memchr(b'\n', bytes) }
}

/// The length of the name, and the place of the value, of a whole field with at most one blank before its value, none
/// behind it and no tab; none for all others.
///
/// A colon is looked for only where that of a usual name stands: behind the last field there may be a long body.
fn usual_field(bytes: &[u8]) -> Option<(usize, Range<usize>)> {
    if bytes.first() == Some(&b'\r') {
        return None;
    }
    let name_len = first_colon(&bytes[..bytes.len().min(USUAL_NAME_BYTES_MAX)])?;
    if !is_token(&bytes[..name_len]) {
        return None;
    }
    let after = &bytes[name_len + 1..];
    let blank = usize::from(after.first() == Some(&b' '));
    let value = &after[blank..];
    let len = first_control(value)?;
    let ends_well = value.get(len..len + 2) == Some(b"\r\n");
    let is_blank = |byte: Option<&u8>| byte == Some(&b' ');
    if !ends_well || is_blank(value.first()) || is_blank(value[..len].last()) {
        return None;
    }
    let start = name_len + 1 + blank;
    Some((name_len, start..start + len))
}

/// How many blanks and tabs it begins with.
fn blanks(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Read = Result<(String, Vec<(String, String)>, usize), HeadError>;

    /// Reads a head that arrives in these pieces.
    fn read(pieces: &[&[u8]], side: Side) -> Option<Read> {
        let (mut head, mut buffer) = (Head::default(), Vec::new());
        head.reset(0);
        for piece in pieces {
            buffer.extend_from_slice(piece);
            match head.advance(&buffer, side) {
                Ok(Progress::Whole) => {
                    let text = |span: Span| String::from_utf8_lossy(span.of(&buffer)).into_owned();
                    let fields = head.fields.iter().map(|f| (text(f.name), text(f.value))).collect();
                    return Some(Ok((text(head.line), fields, head.len)));
                }
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }

    fn malformed(text: &str) -> Option<Defect> {
        match read(&[text.as_bytes()], Side::Request) {
            Some(Err(HeadError::Malformed(defect))) => Some(defect),
            _ => None,
        }
    }

    #[test]
    fn a_head_is_its_line_and_its_fields() {
        let text = "\r\nGET / HTTP/1.1\r\nHost:a\r\nX-Empty:\r\nX-Blanks: \t b c \t\r\n\r\nbody";
        let (line, fields, len) = read(&[text.as_bytes()], Side::Request).unwrap().unwrap();
        assert_eq!((&*line, len), ("GET / HTTP/1.1", text.len() - 4));
        let pairs = [("Host", "a"), ("X-Empty", ""), ("X-Blanks", "b c")];
        assert_eq!(fields, pairs.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn what_others_could_read_otherwise_is_refused() {
        for (fields, defect) in [
            ("A: 1\n\r\n", Defect::BareLf),
            ("A: 1\r\n b\r\n\r\n", Defect::Folded),
            ("A\r\n\r\n", Defect::NoColon),
            ("A : 1\r\n\r\n", Defect::FieldName),
            (": 1\r\n\r\n", Defect::FieldName),
            ("A\u{e4}: 1\r\n\r\n", Defect::FieldName),
            ("A: 1\r2\r\n\r\n", Defect::FieldValue),
            ("A: \0\r\n\r\n", Defect::FieldValue),
        ] {
            assert_eq!(malformed(&format!("GET / HTTP/1.1\r\n{fields}")), Some(defect), "{fields:?}");
        }
        assert_eq!(malformed("GET / HTTP/1.1\n"), Some(Defect::BareLf));
        for text in [" GET / HTTP/1.1\r\n", "\x16\x03\x01", "\r\n\r\n\r\nGET / HTTP/1.1\r\n"] {
            assert_eq!(malformed(text), Some(Defect::Beginning), "{text:?}");
        }
    }

    #[test]
    fn a_blank_before_a_colon_of_a_response_is_taken_out() {
        let read = read(&[b"HTTP/1.1 200 OK\r\nA \t: 1\r\n\r\n"], Side::Response).unwrap().unwrap();
        assert_eq!(read.1, [("A".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn heads_have_limits() {
        let line = format!("GET /{} HTTP/1.1\r\n", "a".repeat(LINE_BYTES_MAX));
        let endless = "a".repeat(LINE_BYTES_MAX + 3);
        for text in [line, endless] {
            assert_eq!(read(&[text.as_bytes()], Side::Request), Some(Err(HeadError::LineTooLong)));
        }
        let blanks = "GET / HTTP/1.1".len();
        let longest = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(LINE_BYTES_MAX - blanks));
        assert!(read(&[longest.as_bytes()], Side::Request).unwrap().is_ok());
        let longer = longest.replace(" HTTP", "a HTTP");
        assert_eq!(read(&[longer.as_bytes()], Side::Request), Some(Err(HeadError::LineTooLong)));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: 1\r\n".repeat(FIELDS_MAX + 1));
        let long = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(FIELDS_BYTES_MAX));
        for text in [many, long] {
            assert_eq!(read(&[text.as_bytes()], Side::Request), Some(Err(HeadError::FieldsTooLarge)));
        }
        let most = format!("GET / HTTP/1.1\r\n{}\r\n", "A: 1\r\n".repeat(FIELDS_MAX));
        assert!(read(&[most.as_bytes()], Side::Request).unwrap().is_ok());
    }

    /// Pieces of heads, good and bad.
    fn soup() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"GET / HTTP/1.1".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"Host: a".to_vec()),
            Just(b"X-A:\t1 ".to_vec()),
            Just(b"X-B: two words\r\n".to_vec()),
            Just(b" ".to_vec()),
            Just(b":".to_vec()),
            Just(b"\r\n\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..4),
        ];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_reads_the_same(bytes in soup(), cuts in proptest::collection::vec(0_usize..200, 0..6)) {
            for side in [Side::Request, Side::Response] {
                let whole = read(&[&bytes], side);
                let mut cuts: Vec<usize> = cuts.iter().map(|&cut| cut.min(bytes.len())).collect();
                cuts.sort_unstable();
                let mut pieces = Vec::new();
                let mut start = 0;
                for cut in cuts.into_iter().chain([bytes.len()]) {
                    pieces.push(&bytes[start..cut]);
                    start = cut;
                }
                prop_assert_eq!(read(&pieces, side), whole.clone());
                let single: Vec<&[u8]> = bytes.chunks(1).collect();
                prop_assert_eq!(read(&single, side), whole);
            }
        }
    }
}
