//! What of a request is hashed: the key that decides its place on the ring.
//!
//! A request without the value that its service hashes on has no affinity, and gets no key. Values are taken
//! as they were sent: a query parameter is not percent-decoded.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use ringmaster_core::spec::HashOn;
use smallvec::SmallVec;

use crate::h1::field::Name;
use crate::h1::head::Head;
use crate::h1::request::Request;

/// The field whose value is the key of `hashOn: requestId`.
const X_REQUEST_ID: &str = "x-request-id";

/// A request as it was read.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) request: &'a Request,
    pub(crate) head: &'a Head,
    pub(crate) buffer: &'a [u8],
}

/// `hashOn`, made ready for look-up.
#[derive(Debug)]
pub(crate) enum KeySource {
    RequestId,
    Path,
    ClientIp,
    Header(String),
    Cookie(String),
    /// As `Cookie`, and set where the client has none.
    SetCookie(String),
    Query(String),
}

/// The bytes that the ring hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    Digits([u8; 6]),
    /// Short as most are, it is not on the heap.
    Text(SmallVec<[u8; 36]>),
}

impl Key {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Key::Digits(digits) => digits,
            Key::Text(text) => text,
        }
    }

    /// An empty value is as good as none: everybody without a session would share one replica.
    fn text(value: &[u8]) -> Option<Key> {
        (!value.is_empty()).then(|| Key::Text(SmallVec::from_slice(value)))
    }
}

impl KeySource {
    pub(crate) fn new(hash_on: &HashOn) -> KeySource {
        match hash_on {
            HashOn::RequestId => KeySource::RequestId,
            HashOn::Path => KeySource::Path,
            HashOn::ClientIp => KeySource::ClientIp,
            HashOn::Header(name) => KeySource::Header(name.clone()),
            HashOn::Cookie(name) => KeySource::Cookie(name.clone()),
            HashOn::SetCookie(name) => KeySource::SetCookie(name.clone()),
            HashOn::Query(name) => KeySource::Query(name.clone()),
        }
    }

    /// The field that gives the client the key which it was drawn, if it did not bring it. The cookie lasts as long
    /// as the browser's session, and no script sees it.
    pub(crate) fn set_cookie(&self, asked: Asked<'_>, key: &Key) -> Option<String> {
        let KeySource::SetCookie(name) = self else { return None };
        if cookie(asked, name).is_some() {
            return None;
        }
        let value = std::str::from_utf8(key.as_bytes()).ok()?;
        Some(format!("Set-Cookie: {name}={value}; Path=/; HttpOnly; SameSite=Lax\r\n"))
    }

    /// The key of a request, if it has one.
    pub(crate) fn key(&self, asked: Asked<'_>, client: IpAddr, random: &Random) -> Option<Key> {
        match self {
            KeySource::RequestId => header(asked, X_REQUEST_ID).or_else(|| Some(random.six_digits())),
            KeySource::Path => Key::text(asked.request.path(asked.buffer)),
            KeySource::ClientIp => Key::text(client.to_canonical().to_string().as_bytes()),
            KeySource::Header(name) => header(asked, name),
            KeySource::Cookie(name) => cookie(asked, name),
            KeySource::SetCookie(name) => cookie(asked, name).or_else(|| Some(random.sixteen_digits())),
            KeySource::Query(name) => query(asked.request.query(asked.buffer), name),
        }
    }
}

fn header(asked: Asked<'_>, name: &str) -> Option<Key> {
    let is_it =
        |field: &&crate::h1::head::Field| field.name.of(asked.buffer).eq_ignore_ascii_case(name.as_bytes());
    asked.head.fields.iter().find(is_it).and_then(|field| Key::text(field.value.of(asked.buffer)))
}

fn cookie(asked: Asked<'_>, name: &str) -> Option<Key> {
    let fields = asked.head.of(Name::Cookie);
    let mut pairs = fields.flat_map(|value| value.of(asked.buffer).split(|&b| b == b';'));
    Key::text(pairs.find_map(|pair| value_of(pair.trim_ascii(), name))?)
}

fn query(query: &[u8], name: &str) -> Option<Key> {
    Key::text(query.split(|&b| b == b'&').find_map(|pair| value_of(pair, name))?)
}

/// The value in `name=value`.
fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// Random numbers of one worker, for choices and not for secrets (SplitMix64, Steele et al., OOPSLA 2014).
#[derive(Debug)]
pub(crate) struct Random(Cell<u64>);

impl Random {
    /// Seeded by the system, through the standard library's hasher.
    pub(crate) fn new() -> Random {
        Random(Cell::new(RandomState::new().hash_one(0_u8)))
    }

    /// 32 random bits.
    pub(crate) fn bits(&self) -> u32 {
        (self.next() >> 32) as u32
    }

    fn next(&self) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut z = self.0.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which must be above 0 and below 2^32: the top half scaled, without division.
    pub(crate) fn below(&self, end: usize) -> usize {
        (((self.next() >> 32) * end as u64) >> 32) as usize
    }

    /// The value of a cookie that only tells clients apart: 64 random bits in hexadecimal digits.
    fn sixteen_digits(&self) -> Key {
        Key::text(format!("{:016x}", self.next()).as_bytes()).expect("it has sixteen digits")
    }

    /// 100000 to 999999, the request ids of the assignment.
    fn six_digits(&self) -> Key {
        let mut number = 100_000 + self.below(900_000);
        let mut digits = [b'0'; 6];
        for digit in digits.iter_mut().rev() {
            *digit += (number % 10) as u8;
            number /= 10;
        }
        Key::Digits(digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::head::{Progress, Side};

    /// `GET target` with these fields.
    fn asking<R>(target: &str, fields: &[(&str, &str)], f: impl FnOnce(Asked<'_>) -> R) -> R {
        let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let (mut head, buffer) = (Head::default(), text.as_bytes());
        head.reset(0);
        assert_eq!(head.advance(buffer, Side::Request), Ok(Progress::Whole));
        let request = &Request::of(&head, buffer).unwrap();
        f(Asked { request, head: &head, buffer })
    }

    fn key(hash_on: HashOn, target: &str, fields: &[(&str, &str)]) -> Option<Vec<u8>> {
        let client = IpAddr::from([10, 0, 0, 7]);
        let key = asking(target, fields, |asked| KeySource::new(&hash_on).key(asked, client, &Random::new()));
        key.map(|key| key.as_bytes().to_vec())
    }

    #[test]
    fn a_request_id_is_the_one_sent_or_six_random_digits() {
        let sent = key(HashOn::RequestId, "/", &[("X-Request-Id", "abc")]);
        assert_eq!(sent.unwrap(), b"abc");
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let drawn: u32 =
                String::from_utf8(key(HashOn::RequestId, "/", &[]).unwrap()).unwrap().parse().unwrap();
            assert!((100_000..=999_999).contains(&drawn), "{drawn}");
            seen.insert(drawn);
        }
        assert!(seen.len() > 90);
    }

    #[test]
    fn six_digits_cover_their_range_evenly() {
        let random = Random::new();
        let mut first = [0_u32; 10];
        for _ in 0..90_000 {
            first[usize::from(random.six_digits().as_bytes()[0] - b'0')] += 1;
        }
        assert_eq!(first[0], 0);
        assert!(first[1..].iter().all(|&count| (9_400..=10_600).contains(&count)), "{first:?}");
    }

    #[test]
    fn a_path_key_leaves_the_query_out() {
        assert_eq!(key(HashOn::Path, "/a/b?c=1", &[]).unwrap(), b"/a/b");
    }

    #[test]
    fn a_client_key_is_its_address() {
        assert_eq!(key(HashOn::ClientIp, "/", &[]).unwrap(), b"10.0.0.7");
    }

    #[test]
    fn a_header_key_is_its_value_and_none_without() {
        let on = HashOn::Header("X-User".to_owned());
        assert_eq!(key(on.clone(), "/", &[("x-user", "eve")]).unwrap(), b"eve");
        assert_eq!(key(on.clone(), "/", &[]), None);
        assert_eq!(key(on, "/", &[("x-user", "")]), None);
        assert_eq!(key(HashOn::Header("no header".to_owned()), "/", &[]), None);
    }

    #[test]
    fn a_cookie_key_is_found_among_others() {
        let on = HashOn::Cookie("sid".to_owned());
        let fields = [("cookie", "xsid=1; sid=2=3; other=4"), ("cookie", "sid=9")];
        assert_eq!(key(on.clone(), "/", &fields).unwrap(), b"2=3");
        assert_eq!(key(on, "/", &[("cookie", "sidx=1")]), None);
    }

    #[test]
    fn a_cookie_is_set_once() {
        let source = KeySource::new(&HashOn::SetCookie("sid".to_owned()));
        let ask = |fields: &[(&str, &str)]| {
            asking("/", fields, |asked| {
                let key = source.key(asked, IpAddr::from([10, 0, 0, 7]), &Random::new()).unwrap();
                let set = source.set_cookie(asked, &key);
                (String::from_utf8(key.as_bytes().to_vec()).unwrap(), set)
            })
        };
        let (drawn, set) = ask(&[("cookie", "other=1; sid=")]);
        assert_eq!(set.unwrap(), format!("Set-Cookie: sid={drawn}; Path=/; HttpOnly; SameSite=Lax\r\n"));
        assert_ne!(ask(&[]).0, drawn);
        assert_eq!(ask(&[("cookie", &format!("sid={drawn}"))]), (drawn, None));
    }

    #[test]
    fn a_query_key_is_found_among_others() {
        let on = HashOn::Query("user".to_owned());
        assert_eq!(key(on.clone(), "/?xuser=1&user=a%20b", &[]).unwrap(), b"a%20b");
        assert_eq!(key(on, "/?users=1", &[]), None);
    }
}
