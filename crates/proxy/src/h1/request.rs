//! What a request's head means (RFC 9110, RFC 9112 section 3).

use super::bytes::{decimal, is_host, is_target, is_token, list};
use super::field::Name;
use super::framing::{self, Framing, FramingError};
use super::head::{Head, Span};

/// No request passes through more proxies.
const FORWARDS_MAX: u64 = 999_999_999_999_999_999;

/// The methods that mean something here; their names are case-sensitive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Connect,
    Delete,
    Get,
    Head,
    Options,
    Put,
    Trace,
    /// POST, PATCH and all that are not known: sending one twice may do something twice.
    Other,
}

impl Method {
    fn of(name: &[u8]) -> Method {
        match name {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"CONNECT" => Method::Connect,
            _ => Method::Other,
        }
    }

    /// Sending it twice has the effect of sending it once (RFC 9110 section 9.2.2).
    pub(crate) fn is_idempotent(self) -> bool {
        !matches!(self, Method::Connect | Method::Other)
    }

    /// It only reads, so that a second one beside the first does no harm but its cost.
    pub(crate) fn may_be_hedged(self) -> bool {
        matches!(self, Method::Get | Method::Head | Method::Options)
    }
}

/// A request's head, understood. The places are in the buffer that it was read from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) method_name: Span,
    /// Path and query as they came, without scheme and authority; empty where an absolute target has neither.
    pub(crate) target: Span,
    /// The authority of an absolute target, else the Host field (RFC 9112 section 3.2.2).
    pub(crate) host: Option<Span>,
    /// 0 or 1: of HTTP/1.0 or 1.1.
    pub(crate) minor: u8,
    pub(crate) framing: Framing,
    /// The client wants to send more on this connection.
    pub(crate) keep_alive: bool,
    /// The client waits for 100 before it sends the body (RFC 9110 section 10.1.1).
    pub(crate) expects_continue: bool,
    /// The protocols to switch to, if the client asks for that (RFC 9110 section 7.8).
    pub(crate) upgrade: Option<Span>,
    /// The client can take trailers (RFC 9110 section 6.5.1).
    pub(crate) takes_trailers: bool,
    /// `Connection` names fields that end here.
    pub(crate) names_fields: bool,
    /// Of TRACE and OPTIONS (RFC 9110 section 7.6.2).
    pub(crate) max_forwards: Option<u64>,
    /// The client says that the same request may come twice.
    pub(crate) has_idempotency_key: bool,
    /// Its first line stands in the buffer as an endpoint gets it.
    pub(crate) is_line_as_written: bool,
}

/// Why a request is refused by its head alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestError {
    /// The request line is not method, target and version with single blanks between (RFC 9112 section 3).
    Line,
    /// The version is none of HTTP/1.
    Version,
    /// The target has not the form that its method asks for (RFC 9112 section 3.2).
    Target,
    /// No Host field, more than one, or one that is not a host (RFC 9112 section 3.2).
    Host,
    /// The body's end is not for sure (RFC 9112 section 6.3).
    Framing(FramingError),
    /// An expectation other than 100-continue (RFC 9110 section 10.1.1).
    Expectation,
    /// TRACE with a body (RFC 9110 section 9.3.8).
    TraceBody,
    /// CONNECT asks for a tunnel, which a reverse proxy does not dig.
    Connect,
}

/// The parts of a request line.
#[derive(Debug, Clone, Copy)]
struct Line {
    method: Span,
    target: Span,
    version: Span,
    minor: u8,
}

/// Checks a request line as soon as it is there: what is wrong with it is said without waiting for the fields.
pub(crate) fn check_line(head: &Head, buffer: &[u8]) -> Result<(), RequestError> {
    split(head, buffer).map(drop)
}

fn split(head: &Head, buffer: &[u8]) -> Result<Line, RequestError> {
    let line = head.line.of(buffer);
    let first = memchr::memchr(b' ', line).ok_or(RequestError::Line)?;
    let last = memchr::memrchr(b' ', line).filter(|&last| last > first).ok_or(RequestError::Line)?;
    let (method, target, version) = (&line[..first], &line[first + 1..last], &line[last + 1..]);
    if !is_token(method) || target.is_empty() || !is_target(target) {
        return Err(RequestError::Line);
    }
    let minor = minor_version(version)?;
    let start = head.line.start();
    Ok(Line {
        method: Span::new(start..start + first),
        target: Span::new(start + first + 1..start + last),
        version: Span::new(start + last + 1..head.line.end()),
        minor,
    })
}

/// A higher minor version than ours is read as ours (RFC 9110 section 2.5).
fn minor_version(version: &[u8]) -> Result<u8, RequestError> {
    match version.strip_prefix(b"HTTP/") {
        Some(b"1.0") => Ok(0),
        Some([b'1', b'.', b'1'..=b'9']) => Ok(1),
        Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(RequestError::Version)
        }
        _ => Err(RequestError::Line),
    }
}

impl Request {
    /// Understands a whole head.
    ///
    /// # Errors
    /// [`RequestError`], whose order is that in which things are looked at.
    pub(crate) fn of(head: &Head, buffer: &[u8]) -> Result<Request, RequestError> {
        let line = split(head, buffer)?;
        let method = Method::of(line.method.of(buffer));
        let host = host_field(head, buffer, line.minor)?;
        let (target, authority) = target(method, line.target, buffer)?;
        if method == Method::Connect {
            return Err(RequestError::Connect);
        }
        let framing = framing::declared(head, buffer, line.minor).map_err(RequestError::Framing)?;
        let mut request = Request {
            method,
            method_name: line.method,
            target,
            host: authority.or(host),
            minor: line.minor,
            framing: framing.unwrap_or(Framing::Length(0)),
            keep_alive: line.minor == 1,
            expects_continue: false,
            upgrade: None,
            takes_trailers: false,
            names_fields: false,
            max_forwards: None,
            has_idempotency_key: false,
            is_line_as_written: target == line.target && line.version.of(buffer) == b"HTTP/1.1",
        };
        request.read_fields(head, buffer)?;
        if method == Method::Trace && request.has_body() {
            return Err(RequestError::TraceBody);
        }
        Ok(request)
    }

    /// Whether bytes of a body follow, as far as the head tells.
    pub(crate) fn has_body(&self) -> bool {
        self.framing != Framing::Length(0)
    }

    /// The path without the query; of an absolute target without a path it is `/`.
    pub(crate) fn path<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        let target = self.target.of(buffer);
        let path = &target[..memchr::memchr(b'?', target).unwrap_or(target.len())];
        if path.is_empty() { b"/" } else { path }
    }

    /// The query without its question mark; empty if there is none.
    pub(crate) fn query<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        let target = self.target.of(buffer);
        memchr::memchr(b'?', target).map_or(&[], |at| &target[at + 1..])
    }

    fn read_fields(&mut self, head: &Head, buffer: &[u8]) -> Result<(), RequestError> {
        let mut options = Options::default();
        let mut upgrade = None;
        for field in &head.fields {
            let value = field.value.of(buffer);
            match field.kind {
                Name::Connection => options.add(value),
                Name::Upgrade => upgrade = Some(upgrade.map_or(Some(field.value), |_: Option<Span>| None)),
                Name::Expect if self.minor == 1 => {
                    if !value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(RequestError::Expectation);
                    }
                    self.expects_continue = self.has_body();
                }
                Name::Te => self.takes_trailers |= list(value).any(|te| te.eq_ignore_ascii_case(b"trailers")),
                Name::MaxForwards if matches!(self.method, Method::Trace | Method::Options) => {
                    // Of several the least (RFC 9110 section 7.6.2).
                    self.max_forwards = [self.max_forwards, forwards(value)].into_iter().flatten().min();
                }
                Name::IdempotencyKey => self.has_idempotency_key = true,
                _ => {}
            }
        }
        self.names_fields = options.names_fields;
        self.keep_alive = if self.minor == 1 { !options.close } else { options.keep_alive && !options.close };
        let may_switch = self.minor == 1 && options.upgrade && !self.has_body();
        self.upgrade =
            upgrade.flatten().filter(|span| may_switch && protocols(span.of(buffer)).next().is_some());
        Ok(())
    }
}

/// A number of forwards; what is beyond our numbers is as good as our greatest.
fn forwards(value: &[u8]) -> Option<u64> {
    let zeros = value.iter().take_while(|&&digit| digit == b'0').count();
    match &value[zeros..] {
        [] => (zeros > 0).then_some(0),
        digits => digits.iter().all(u8::is_ascii_digit).then(|| decimal(digits).unwrap_or(FORWARDS_MAX)),
    }
}

/// The protocols that a client may switch to, of those that it asks for. Cleartext HTTP/2 is none of them: inside such a tunnel
/// requests would go around every check made here.
pub(crate) fn protocols(upgrade: &[u8]) -> impl Iterator<Item = &[u8]> {
    list(upgrade).filter(|protocol| !protocol.eq_ignore_ascii_case(b"h2c"))
}

/// What `Connection` says (RFC 9110 section 7.6.1).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    /// It names fields.
    pub(crate) names_fields: bool,
}

impl Options {
    /// Adds those of one field.
    pub(crate) fn add(&mut self, value: &[u8]) {
        for option in list(value) {
            match option {
                o if o.eq_ignore_ascii_case(b"close") => self.close = true,
                o if o.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                o if o.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
                _ => self.names_fields = true,
            }
        }
    }
}

fn host_field(head: &Head, buffer: &[u8], minor: u8) -> Result<Option<Span>, RequestError> {
    let mut fields = head.of(Name::Host);
    match (fields.next(), fields.next()) {
        (Some(host), None) if is_host(host.of(buffer)) => Ok(Some(host)),
        (None, None) if minor == 0 => Ok(None),
        _ => Err(RequestError::Host),
    }
}

/// The path and query of a target, and its authority if it has one.
fn target(method: Method, target: Span, buffer: &[u8]) -> Result<(Span, Option<Span>), RequestError> {
    let text = target.of(buffer);
    if method == Method::Connect {
        let has_port = memchr::memrchr(b':', text).is_some_and(|at| at + 1 < text.len());
        return if is_host(text) && has_port { Ok((target, None)) } else { Err(RequestError::Target) };
    }
    match text {
        [b'/', ..] => return Ok((target, None)),
        b"*" if method == Method::Options => return Ok((target, None)),
        _ => {}
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let scheme = scheme.ok_or(RequestError::Target)?;
    let rest = &text[scheme.len()..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    if end == 0 || !is_host(&rest[..end]) {
        return Err(RequestError::Target);
    }
    let authority = target.start() + scheme.len();
    let path = authority + end;
    Ok((Span::new(path..target.end()), Some(Span::new(authority..path))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::head::{Progress, Side};

    fn with<R>(text: &str, f: impl FnOnce(Result<Request, RequestError>, &[u8]) -> R) -> R {
        let mut head = Head::default();
        head.reset(0);
        assert_eq!(head.advance(text.as_bytes(), Side::Request), Ok(Progress::Whole), "{text:?}");
        f(Request::of(&head, text.as_bytes()), text.as_bytes())
    }

    fn error(text: &str) -> Option<RequestError> {
        with(text, |request, _| request.err())
    }

    #[test]
    fn a_request_line_has_exactly_three_parts() {
        for line in [
            "GET /",
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET /a b HTTP/1.1",
            "G(T / HTTP/1.1",
            "GET / http/1.1",
            "GET / HTTP/1",
            "GET / HTTP/1.10",
            "GET /\u{e4} HTTP/1.1",
            "GET /a#b HTTP/1.1",
        ] {
            assert_eq!(error(&format!("{line}\r\nHost: a\r\n\r\n")), Some(RequestError::Line), "{line}");
        }
        for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/3.0"] {
            assert_eq!(error(&format!("GET / {version}\r\nHost: a\r\n\r\n")), Some(RequestError::Version));
        }
        assert_eq!(error("BREW /a|b{c} HTTP/1.2\r\nHost: a\r\n\r\n"), None);
    }

    #[test]
    fn a_target_has_the_form_of_its_method() {
        for target in ["*", "a", "a:80", "ftp://a/", "http:///", "http://a@b/", "http:/a", "?x"] {
            assert_eq!(
                error(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")),
                Some(RequestError::Target),
                "{target}"
            );
        }
        assert_eq!(error("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), None);
        assert_eq!(error("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"), Some(RequestError::Connect));
        assert_eq!(error("CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n"), Some(RequestError::Target));
    }

    #[test]
    fn an_absolute_target_brings_its_own_host() {
        for (target, path, query) in
            [("http://b:80/x?y", "/x", "y"), ("HTTP://b:80", "/", ""), ("https://b:80?y", "/", "y")]
        {
            with(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), |request, buffer| {
                let request = request.unwrap();
                assert_eq!(request.host.unwrap().of(buffer), b"b:80", "{target}");
                assert_eq!(
                    (request.path(buffer), request.query(buffer)),
                    (path.as_bytes(), query.as_bytes())
                );
            });
        }
    }

    #[test]
    fn there_is_one_host() {
        for fields in ["", "Host: a\r\nHost: a\r\n", "Host: a b\r\n", "Host: a/b\r\n"] {
            assert_eq!(
                error(&format!("GET / HTTP/1.1\r\n{fields}\r\n")),
                Some(RequestError::Host),
                "{fields:?}"
            );
        }
        assert_eq!(error("GET / HTTP/1.0\r\n\r\n"), None);
        assert_eq!(error("GET http://a/ HTTP/1.1\r\n\r\n"), Some(RequestError::Host));
    }

    #[test]
    fn a_connection_lives_on_as_its_version_and_its_options_say() {
        for (version, fields, lives) in [
            ("1.1", "", true),
            ("1.1", "Connection: x, Close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: keep-alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            with(&format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"), |request, _| {
                assert_eq!(request.unwrap().keep_alive, lives, "{version} {fields}");
            });
        }
    }

    #[test]
    fn an_upgrade_needs_its_option_and_is_never_h2c() {
        for (version, fields, switches) in [
            ("1.1", "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n", true),
            ("1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n", false),
            ("1.1", "Upgrade: websocket\r\n", false),
            ("1.1", "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n", true),
            ("1.1", "Connection: upgrade\r\nUpgrade: H2C\r\n", false),
            ("1.1", "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n", false),
        ] {
            with(&format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"), |request, _| {
                assert_eq!(request.unwrap().upgrade.is_some(), switches, "{version} {fields}");
            });
        }
    }

    #[test]
    fn only_one_expectation_is_known() {
        let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(error(&post("Expect: tea\r\n")), Some(RequestError::Expectation));
        let waits = |fields: &str| with(&post(fields), |request, _| request.unwrap().expects_continue);
        assert!(waits("Expect: 100-Continue\r\nContent-Length: 1\r\n"));
        assert!(!waits("Expect: 100-continue\r\n"));
        assert_eq!(
            error("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"),
            Some(RequestError::TraceBody)
        );
    }
}
