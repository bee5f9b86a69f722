//! What a response's head means (RFC 9112 sections 4 and 6.3).

use super::bytes::is_field_value;
use super::field::Name;
use super::framing::{self, Framing, FramingError};
use super::head::{Field, Head, Span};
use super::request::{Method, Options};

/// A response's head, understood. The places are in the buffer that it was read from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Response {
    /// 100 to 599.
    pub(crate) status: u16,
    /// 0 or 1: of HTTP/1.0 or 1.1.
    pub(crate) minor: u8,
    pub(crate) reason: Span,
    pub(crate) framing: Framing,
    /// The length that a response to HEAD, or a 304, would have had.
    pub(crate) length_of_absent_body: Option<u64>,
    /// The connection can carry another request once this response has ended.
    pub(crate) keep_alive: bool,
    /// The protocol that was switched to.
    pub(crate) upgrade: Option<Span>,
    /// `Connection` names fields that end here.
    pub(crate) names_fields: bool,
    pub(crate) has_date: bool,
    /// It answers HEAD: what its fields say of a body is of one that never comes.
    pub(crate) is_to_head: bool,
    /// Its first line stands in the buffer as a client gets it.
    pub(crate) is_line_as_written: bool,
}

/// Why a response cannot be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseError {
    /// The first line is not a version of HTTP/1, a status and a reason.
    Line,
    /// The body's end is not for sure.
    Framing(FramingError),
}

/// Checks a status line as soon as it is there.
pub(crate) fn check_line(head: &Head, buffer: &[u8]) -> Result<(), ResponseError> {
    split(head, buffer).map(drop)
}

/// The minor version, the status and the reason.
fn split(head: &Head, buffer: &[u8]) -> Result<(u8, u16, Span), ResponseError> {
    let line = head.line.of(buffer);
    let rest = line.strip_prefix(b"HTTP/1.").ok_or(ResponseError::Line)?;
    let [minor, b' ', status @ ..] = rest else { return Err(ResponseError::Line) };
    let (Some(digits), Some(rest)) = (status.get(..3), status.get(3..)) else {
        return Err(ResponseError::Line);
    };
    if !minor.is_ascii_digit() || !digits.iter().all(u8::is_ascii_digit) || !matches!(rest, [] | [b' ', ..]) {
        return Err(ResponseError::Line);
    }
    let status = digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    let reason = rest.get(1..).unwrap_or_default();
    if !(100..=599).contains(&status) || !is_field_value(reason) {
        return Err(ResponseError::Line);
    }
    let end = head.line.end();
    Ok((u8::from(*minor != b'0'), status, Span::new(end - reason.len()..end)))
}

/// Whether it is of HTTP/1.1, and a blank stands before the reason.
fn is_as_written(head: &Head, buffer: &[u8], reason: Span) -> bool {
    let before =
        &head.line.of(buffer)[..head.line.end() - head.line.start() - (reason.end() - reason.start())];
    before.starts_with(b"HTTP/1.1 ") && before.ends_with(b" ")
}

impl Response {
    /// Understands a whole head of the answer to a request of this method.
    ///
    /// # Errors
    /// [`ResponseError`] for what must not be passed on as it is.
    pub(crate) fn of(head: &Head, buffer: &[u8], method: Method) -> Result<Response, ResponseError> {
        let (minor, status, reason) = split(head, buffer)?;
        let mut options = Options::default();
        let (mut has_date, mut upgrade) = (false, None);
        for field in &head.fields {
            match field.kind {
                Name::Connection => options.add(field.value.of(buffer)),
                Name::Date => has_date = true,
                Name::Upgrade => upgrade = Some(field.value),
                _ => {}
            }
        }
        let mut response = Response {
            status,
            minor,
            reason,
            framing: Framing::Length(0),
            length_of_absent_body: None,
            keep_alive: if minor == 1 { !options.close } else { options.keep_alive && !options.close },
            upgrade: upgrade.filter(|_| options.upgrade),
            names_fields: options.names_fields,
            has_date,
            is_to_head: method == Method::Head,
            is_line_as_written: is_as_written(head, buffer, reason),
        };
        let declared = declared(head, buffer, minor);
        if status < 200 || status == 204 {
            // These have no body whatever their fields say, and no fields about one.
            return Ok(response);
        }
        let declared = declared.map_err(ResponseError::Framing)?;
        if method == Method::Head || status == 304 {
            if let Some(Framing::Length(length)) = declared {
                response.length_of_absent_body = Some(length);
            }
            return Ok(response);
        }
        response.framing = declared.unwrap_or(Framing::Close);
        response.keep_alive &= response.framing != Framing::Close;
        if response.framing == Framing::Chunked && head.of(Name::ContentLength).next().is_some() {
            // Chunks win over a length, but whoever sends both is not trusted with a second response.
            response.keep_alive = false;
        }
        Ok(response)
    }

    /// Whether its body is a stream of events (the HTML standard, section 9.2), which has no end of its own. `head` is the
    /// one that it was understood from.
    pub(crate) fn is_event_stream(&self, head: &Head, buffer: &[u8]) -> bool {
        let is_type = |field: &&Field| field.name.of(buffer).eq_ignore_ascii_case(b"content-type");
        let essence = |field: &Field| {
            let value = field.value.of(buffer);
            let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
            value[..end].trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
        };
        !matches!(self.framing, Framing::Length(_)) && head.fields.iter().find(is_type).is_some_and(essence)
    }

    /// Whether another head follows this one.
    pub(crate) fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// As for requests, but chunks win over a length, and the same length twice is that length (RFC 9112 section 6.3).
fn declared(head: &Head, buffer: &[u8], minor: u8) -> Result<Option<Framing>, FramingError> {
    match framing::declared(head, buffer, minor) {
        Err(FramingError::Both) => Ok(Some(Framing::Chunked)),
        Err(FramingError::Length) => {
            let mut values = head.of(Name::ContentLength).map(|span| super::bytes::decimal(span.of(buffer)));
            let first = values.next().flatten().ok_or(FramingError::Length)?;
            let same =
                values.all(|value| value == Some(first)) && head.of(Name::TransferEncoding).next().is_none();
            if same { Ok(Some(Framing::Length(first))) } else { Err(FramingError::Length) }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::head::{Progress, Side};

    fn read(text: &str, method: Method) -> Result<Response, ResponseError> {
        let mut head = Head::default();
        head.reset(0);
        assert_eq!(head.advance(text.as_bytes(), Side::Response), Ok(Progress::Whole), "{text:?}");
        Response::of(&head, text.as_bytes(), method)
    }

    #[test]
    fn a_status_line_has_its_version_and_three_digits() {
        for line in
            ["HTTP/1.1 200 OK", "HTTP/1.1 200 ", "HTTP/1.1 200", "HTTP/1.0 404 Not \u{e4}", "HTTP/1.2 200 OK"]
        {
            assert!(read(&format!("{line}\r\n\r\n"), Method::Get).is_ok(), "{line}");
        }
        for line in [
            "HTTP/2.0 200 OK",
            "HTTP/1.1 20 OK",
            "HTTP/1.1 2000",
            "HTTP/1.1 099 X",
            "HTTP/1.1 600 X",
            "HTTP/1.1  200 OK",
            "HTTP/1.1 2x0 OK",
            "http/1.1 200 OK",
            "HTTP/1.1 200OK",
            "garbage",
            "HTTP/1.1",
        ] {
            assert_eq!(
                read(&format!("{line}\r\n\r\n"), Method::Get).err(),
                Some(ResponseError::Line),
                "{line}"
            );
        }
    }

    #[test]
    fn a_body_ends_as_the_request_the_status_and_the_fields_say() {
        let none = Framing::Length(0);
        for (status, method, fields, framing) in [
            ("200 OK", Method::Get, "Content-Length: 3\r\n", Framing::Length(3)),
            ("200 OK", Method::Get, "Content-Length: 3\r\nContent-Length: 3\r\n", Framing::Length(3)),
            ("200 OK", Method::Get, "Transfer-Encoding: chunked\r\n", Framing::Chunked),
            ("200 OK", Method::Get, "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", Framing::Chunked),
            ("200 OK", Method::Get, "", Framing::Close),
            ("200 OK", Method::Head, "Content-Length: 3\r\n", none),
            ("304 X", Method::Get, "Content-Length: 3\r\n", none),
            ("204 X", Method::Get, "Content-Length: 3\r\n", none),
            ("204 X", Method::Get, "Transfer-Encoding: chunked\r\n", none),
            ("100 X", Method::Get, "", none),
        ] {
            let response = read(&format!("HTTP/1.1 {status}\r\n{fields}\r\n"), method).unwrap();
            assert_eq!(response.framing, framing, "{status} {fields}");
        }
        let head = read("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Method::Head).unwrap();
        assert_eq!(head.length_of_absent_body, Some(3));
    }

    #[test]
    fn an_end_that_is_not_for_sure_is_an_error() {
        for fields in [
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 1, 2\r\n",
            "Transfer-Encoding: gzip\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
        ] {
            let read = read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), Method::Get);
            assert!(matches!(read, Err(ResponseError::Framing(_))), "{fields}");
        }
        assert!(read("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Method::Get).is_err());
    }

    #[test]
    fn only_what_surely_ended_leaves_a_connection_to_use() {
        for (text, lives) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n", false),
            ("HTTP/1.1 200 OK\r\n", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n", true),
        ] {
            assert_eq!(read(&format!("{text}\r\n"), Method::Get).unwrap().keep_alive, lives, "{text:?}");
        }
    }
}
