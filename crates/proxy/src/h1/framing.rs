//! Where a message's body ends (RFC 9112 section 6.3).

use super::bytes::{decimal, list};
use super::field::Name;
use super::head::Head;

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes; none is 0.
    Length(u64),
    /// Chunks, and the last of them is empty.
    Chunked,
    /// Until the connection closes; of responses alone.
    Close,
}

/// Why a body's end cannot be told for sure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FramingError {
    /// Both a length and chunks.
    Both,
    /// A length that is not one number.
    Length,
    /// A coding of a message whose version has none.
    Version,
    /// Chunks are not the last coding, or come twice.
    Coding,
    /// Chunks around a coding that is not known here.
    UnknownCoding,
}

/// The framing that the fields name, if they do.
///
/// # Errors
/// [`FramingError`] for what RFC 9112 sections 6.1 to 6.3 call faulty: it has to be refused, since the next recipient
/// may find another end.
pub(crate) fn declared(head: &Head, buffer: &[u8], minor: u8) -> Result<Option<Framing>, FramingError> {
    if !head.has(Name::ContentLength) && !head.has(Name::TransferEncoding) {
        return Ok(None);
    }
    let mut length = None;
    let mut codings = None;
    for field in &head.fields {
        match field.kind {
            Name::ContentLength => {
                let value = decimal(field.value.of(buffer)).ok_or(FramingError::Length)?;
                if length.is_some() {
                    return Err(FramingError::Length);
                }
                length = Some(value);
            }
            Name::TransferEncoding => codings = Some(add(codings, field.value.of(buffer))?),
            _ => {}
        }
    }
    match (length, codings) {
        (_, Some(_)) if minor == 0 => Err(FramingError::Version),
        (_, Some(Codings { last_is_chunked: false, .. })) => Err(FramingError::Coding),
        (_, Some(Codings { others: true, .. })) => Err(FramingError::UnknownCoding),
        (Some(_), Some(_)) => Err(FramingError::Both),
        (None, Some(_)) => Ok(Some(Framing::Chunked)),
        (Some(length), None) => Ok(Some(Framing::Length(length))),
        (None, None) => Ok(None),
    }
}

/// What the fields say about codings.
#[derive(Debug, Clone, Copy, Default)]
struct Codings {
    last_is_chunked: bool,
    others: bool,
}

fn add(known: Option<Codings>, value: &[u8]) -> Result<Codings, FramingError> {
    let mut codings = known.unwrap_or_default();
    for coding in list(value) {
        if codings.last_is_chunked {
            // Nothing comes after chunks, least of all chunks.
            return Err(FramingError::Coding);
        }
        codings.last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        codings.others |= !codings.last_is_chunked;
    }
    Ok(codings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::head::{Progress, Side};

    fn framing(fields: &str, minor: u8) -> Result<Option<Framing>, FramingError> {
        let text = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        let mut head = Head::default();
        head.reset(0);
        assert_eq!(head.advance(text.as_bytes(), Side::Request), Ok(Progress::Whole));
        declared(&head, text.as_bytes(), minor)
    }

    #[test]
    fn a_length_or_chunks_or_nothing() {
        assert_eq!(framing("", 1), Ok(None));
        assert_eq!(framing("Content-Length: 42\r\n", 0), Ok(Some(Framing::Length(42))));
        for value in ["chunked", "CHUNKED", ", chunked ,", "\tchunked"] {
            assert_eq!(framing(&format!("Transfer-Encoding: {value}\r\n"), 1), Ok(Some(Framing::Chunked)));
        }
    }

    #[test]
    fn whatever_is_ambiguous_is_faulty() {
        for (fields, error) in [
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", FramingError::Both),
            ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", FramingError::Both),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", FramingError::Length),
            ("Content-Length: 1, 1\r\n", FramingError::Length),
            ("Content-Length: +1\r\n", FramingError::Length),
            ("Content-Length: 0x1\r\n", FramingError::Length),
            ("Content-Length: \r\n", FramingError::Length),
            ("Content-Length: 99999999999999999999\r\n", FramingError::Length),
            ("Transfer-Encoding: \r\n", FramingError::Coding),
            ("Transfer-Encoding: gzip\r\n", FramingError::Coding),
            ("Transfer-Encoding: xchunked\r\n", FramingError::Coding),
            ("Transfer-Encoding: chunked, chunked\r\n", FramingError::Coding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", FramingError::Coding),
            ("Transfer-Encoding: chunked, identity\r\n", FramingError::Coding),
            ("Transfer-Encoding: chunked;q=1\r\n", FramingError::Coding),
            ("Transfer-Encoding: \"chunked\"\r\n", FramingError::Coding),
            ("Transfer-Encoding: gzip, chunked\r\n", FramingError::UnknownCoding),
        ] {
            assert_eq!(framing(fields, 1), Err(error), "{fields:?}");
        }
        assert_eq!(framing("Transfer-Encoding: chunked\r\n", 0), Err(FramingError::Version));
    }
}
