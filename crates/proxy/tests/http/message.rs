//! HTTP/1.1 messages as the strictest reader sees them: whatever the proxy sends, to either side, must pass here.
//!
//! Deliberately absent: tolerance. What RFC 9112 lets a recipient forgive, a sender must not have sent.

/// A message, or as much of it as has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// The request line or the status line.
    pub(crate) start: String,
    /// Names as they were sent; each byte of a value is one character.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) framing: Framing,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

/// What tells the end of a body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Framing {
    #[default]
    Empty,
    Length,
    Chunked,
    Close,
}

/// Whose message it is, which decides how its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
    /// To HEAD.
    ResponseToHead,
}

/// What has been read so far.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// A message, and how many bytes it took.
    Whole(Message, usize),
    /// The begin of one; with its head, once that is there.
    Partial(Option<Message>),
    Invalid(String),
}

impl Message {
    /// All values of a field, joined with `|`; none if it is absent.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self.values(name).collect();
        (!values.is_empty()).then(|| values.join("|"))
    }

    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether a list field has this member.
    pub(crate) fn lists(&self, name: &str, member: &str) -> bool {
        let members = self.values(name).flat_map(|value| value.split(','));
        members.map(str::trim).any(|m| m.eq_ignore_ascii_case(member))
    }

    /// The status code of a response.
    pub(crate) fn status(&self) -> u16 {
        self.start.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// Head and trailers as lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.fields.iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }
}

/// Reads one message from the begin of `bytes`; `ended` says that there will be no more.
pub(crate) fn parse(bytes: &[u8], kind: Kind, ended: bool) -> Parsed {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return Parsed::Partial(None);
    };
    let mut message = match head(&bytes[..end], kind) {
        Ok(message) => message,
        Err(what) => return Parsed::Invalid(what),
    };
    message.framing = match framing(&message, kind) {
        Ok(framing) => framing,
        Err(what) => return Parsed::Invalid(what),
    };
    let rest = &bytes[end + 4..];
    let used = match message.framing {
        Framing::Empty => Ok(Some(0)),
        Framing::Length => Ok(length(&mut message, rest)),
        Framing::Chunked => chunks(&mut message, rest),
        Framing::Close => {
            message.body = rest.to_vec();
            Ok(ended.then_some(rest.len()))
        }
    };
    match used {
        Ok(Some(used)) => Parsed::Whole(message, end + 4 + used),
        Ok(None) => Parsed::Partial(Some(message)),
        Err(what) => Parsed::Invalid(what),
    }
}

/// Bytes as text, each one character.
pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

pub(crate) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn head(bytes: &[u8], kind: Kind) -> Result<Message, String> {
    let text = latin1(bytes);
    let mut lines = text.split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let valid = if kind == Kind::Request { request_line(&start) } else { status_line(&start) };
    if !valid {
        return Err(format!("start line {start:?}"));
    }
    let fields = lines.map(field).collect::<Result<_, _>>()?;
    Ok(Message { start, fields, ..Message::default() })
}

fn request_line(line: &str) -> bool {
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { return false };
    is_token(method) && !target.is_empty() && target.chars().all(|c| c > ' ' && c != '\x7f')
}

fn status_line(line: &str) -> bool {
    let code = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split_once(' '));
    code.is_some_and(|(code, reason)| {
        let in_range = matches!(code.as_bytes(), [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9']);
        in_range && reason.chars().all(is_text)
    })
}

fn field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or_else(|| format!("field without a colon {line:?}"))?;
    let value = value.trim_matches([' ', '\t']);
    if is_token(name) && value.chars().all(is_text) {
        Ok((name.to_owned(), value.to_owned()))
    } else {
        Err(format!("field {line:?}"))
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

/// VCHAR, SP, HTAB and obs-text.
fn is_text(c: char) -> bool {
    c == '\t' || (c >= ' ' && c != '\x7f')
}

fn framing(message: &Message, kind: Kind) -> Result<Framing, String> {
    let (length, coding) = (message.get("content-length"), message.get("transfer-encoding"));
    let status = message.status();
    let bodiless = kind != Kind::Request && (status < 200 || status == 204);
    if bodiless && (length.is_some() || coding.is_some()) {
        return Err(format!("{status} with a length or a coding (RFC 9110 8.6, RFC 9112 6.1)"));
    }
    match (length, coding) {
        (Some(_), Some(_)) => Err("both Content-Length and Transfer-Encoding".to_owned()),
        (_, Some(coding)) if coding != "chunked" => Err(format!("transfer coding {coding:?}")),
        (Some(length), _) if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) => {
            Err(format!("length {length:?}"))
        }
        _ if bodiless || status == 304 || kind == Kind::ResponseToHead => Ok(Framing::Empty),
        (Some(_), None) => Ok(Framing::Length),
        (None, Some(_)) => Ok(Framing::Chunked),
        (None, None) if kind == Kind::Request => Ok(Framing::Empty),
        (None, None) => Ok(Framing::Close),
    }
}

fn length(message: &mut Message, rest: &[u8]) -> Option<usize> {
    let length = message.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
    message.body = rest[..rest.len().min(length)].to_vec();
    (rest.len() >= length).then_some(length)
}

/// How many bytes a chunked body took; none if it goes on.
fn chunks(message: &mut Message, rest: &[u8]) -> Result<Option<usize>, String> {
    let mut at = 0;
    loop {
        let Some(end) = find(&rest[at..], b"\r\n") else { return Ok(None) };
        let line = latin1(&rest[at..at + end]);
        let digits = line.split(';').next().unwrap_or_default();
        let valid = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let size = usize::from_str_radix(digits, 16).ok().filter(|_| valid);
        let size =
            size.filter(|_| line.chars().all(is_text)).ok_or_else(|| format!("chunk size {line:?}"))?;
        at += end + 2;
        if size == 0 {
            return trailers(message, rest, at);
        }
        message.body.extend(&rest[at..rest.len().min(at + size)]);
        if rest.len() < at + size + 2 {
            return Ok(None);
        }
        if &rest[at + size..at + size + 2] != b"\r\n" {
            return Err("a chunk without its CRLF".to_owned());
        }
        at += size + 2;
    }
}

fn trailers(message: &mut Message, rest: &[u8], mut at: usize) -> Result<Option<usize>, String> {
    loop {
        let Some(end) = find(&rest[at..], b"\r\n") else { return Ok(None) };
        let line = latin1(&rest[at..at + end]);
        at += end + 2;
        if line.is_empty() {
            return Ok(Some(at));
        }
        message.trailers.push(field(&line)?);
    }
}
