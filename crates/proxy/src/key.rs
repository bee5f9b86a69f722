//! What of a request is hashed: the key that decides its place on the ring.
//!
//! A request without the value that its service hashes on has no affinity, and gets no key. Values are taken
//! as they were sent: a query parameter is not percent-decoded.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use http::header::COOKIE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use ringmaster_core::spec::HashOn;

/// The field whose value is the key of `hashOn: requestId`.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// `hashOn`, made ready for look-up.
#[derive(Debug)]
pub(crate) enum KeySource {
    /// A header that cannot exist.
    None,
    RequestId,
    Path,
    ClientIp,
    Header(HeaderName),
    Cookie(String),
    /// As `Cookie`, and set where the client has none.
    SetCookie(String),
    Query(String),
}

/// The bytes that the ring hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    Digits([u8; 6]),
    Text(Box<[u8]>),
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
        (!value.is_empty()).then(|| Key::Text(value.into()))
    }
}

impl KeySource {
    pub(crate) fn new(hash_on: &HashOn) -> KeySource {
        match hash_on {
            HashOn::RequestId => KeySource::RequestId,
            HashOn::Path => KeySource::Path,
            HashOn::ClientIp => KeySource::ClientIp,
            HashOn::Header(name) => name.parse().map_or(KeySource::None, KeySource::Header),
            HashOn::Cookie(name) => KeySource::Cookie(name.clone()),
            HashOn::SetCookie(name) => KeySource::SetCookie(name.clone()),
            HashOn::Query(name) => KeySource::Query(name.clone()),
        }
    }

    /// The field that gives the client the key which it was drawn, if it did not bring it. The cookie lasts as long
    /// as the browser's session, and no script sees it.
    pub(crate) fn set_cookie(&self, request: &Parts, key: &Key) -> Option<HeaderValue> {
        let KeySource::SetCookie(name) = self else { return None };
        if cookie(&request.headers, name).is_some() {
            return None;
        }
        let value = std::str::from_utf8(key.as_bytes()).ok()?;
        HeaderValue::from_str(&format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax")).ok()
    }

    /// The key of a request, if it has one.
    pub(crate) fn key(&self, request: &Parts, client: IpAddr, random: &Random) -> Option<Key> {
        match self {
            KeySource::None => None,
            KeySource::RequestId => {
                header(&request.headers, &X_REQUEST_ID).or_else(|| Some(random.six_digits()))
            }
            KeySource::Path => Key::text(request.uri.path().as_bytes()),
            KeySource::ClientIp => Key::text(client.to_canonical().to_string().as_bytes()),
            KeySource::Header(name) => header(&request.headers, name),
            KeySource::Cookie(name) => cookie(&request.headers, name),
            KeySource::SetCookie(name) => {
                cookie(&request.headers, name).or_else(|| Some(random.sixteen_digits()))
            }
            KeySource::Query(name) => query(request.uri.query().unwrap_or_default(), name),
        }
    }
}

fn header(headers: &HeaderMap, name: &HeaderName) -> Option<Key> {
    headers.get(name).and_then(|value| Key::text(value.as_bytes()))
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<Key> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|&b| b == b';'));
    let value = pairs.filter_map(|pair| value_of(pair.trim_ascii(), name)).next()?;
    Key::text(value)
}

fn query(query: &str, name: &str) -> Option<Key> {
    Key::text(query.as_bytes().split(|&b| b == b'&').find_map(|pair| value_of(pair, name))?)
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
    use http::Request;

    use super::*;

    fn key(hash_on: HashOn, request: http::request::Builder) -> Option<Vec<u8>> {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let client = IpAddr::from([10, 0, 0, 7]);
        let key = KeySource::new(&hash_on).key(&parts, client, &Random::new());
        key.map(|key| key.as_bytes().to_vec())
    }

    #[test]
    fn a_request_id_is_the_one_sent_or_six_random_digits() {
        let sent = key(HashOn::RequestId, Request::get("/").header("X-Request-Id", "abc"));
        assert_eq!(sent.unwrap(), b"abc");
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let drawn: u32 = String::from_utf8(key(HashOn::RequestId, Request::get("/")).unwrap())
                .unwrap()
                .parse()
                .unwrap();
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
        assert_eq!(key(HashOn::Path, Request::get("/a/b?c=1")).unwrap(), b"/a/b");
    }

    #[test]
    fn a_client_key_is_its_address() {
        assert_eq!(key(HashOn::ClientIp, Request::get("/")).unwrap(), b"10.0.0.7");
    }

    #[test]
    fn a_header_key_is_its_value_and_none_without() {
        let on = HashOn::Header("X-User".to_owned());
        assert_eq!(key(on.clone(), Request::get("/").header("x-user", "eve")).unwrap(), b"eve");
        assert_eq!(key(on.clone(), Request::get("/")), None);
        assert_eq!(key(on, Request::get("/").header("x-user", "")), None);
        assert_eq!(key(HashOn::Header("no header".to_owned()), Request::get("/")), None);
    }

    #[test]
    fn a_cookie_key_is_found_among_others() {
        let on = HashOn::Cookie("sid".to_owned());
        let request =
            Request::get("/").header("cookie", "xsid=1; sid=2=3; other=4").header("cookie", "sid=9");
        assert_eq!(key(on.clone(), request).unwrap(), b"2=3");
        assert_eq!(key(on, Request::get("/").header("cookie", "sidx=1")), None);
    }

    #[test]
    fn a_cookie_is_set_once() {
        let source = KeySource::new(&HashOn::SetCookie("sid".to_owned()));
        let ask = |request: http::request::Builder| {
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let key = source.key(&parts, IpAddr::from([10, 0, 0, 7]), &Random::new()).unwrap();
            let set = source.set_cookie(&parts, &key).map(|field| field.to_str().unwrap().to_owned());
            (String::from_utf8(key.as_bytes().to_vec()).unwrap(), set)
        };
        let (drawn, set) = ask(Request::get("/").header("cookie", "other=1; sid="));
        assert_eq!(set.unwrap(), format!("sid={drawn}; Path=/; HttpOnly; SameSite=Lax"));
        assert_ne!(ask(Request::get("/")).0, drawn);
        assert_eq!(ask(Request::get("/").header("cookie", format!("sid={drawn}"))), (drawn, None));
    }

    #[test]
    fn a_query_key_is_found_among_others() {
        let on = HashOn::Query("user".to_owned());
        assert_eq!(key(on.clone(), Request::get("/?xuser=1&user=a%20b")).unwrap(), b"a%20b");
        assert_eq!(key(on, Request::get("/?users=1")), None);
    }
}
