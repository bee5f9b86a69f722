//! Header fields on their way through: hop-by-hop fields end here, forwarding fields are ours alone.
//!
//! There are no trusted proxies yet, so what a client claims in forwarding fields is dropped.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Version};

/// Fields that belong to one connection, besides those that `Connection` names (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// How the request's body is framed towards the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// By its length, or there is none.
    Length,
    /// In chunks: its length is not known.
    Chunked,
}

/// The protocol that a message asks to switch to, if it does (RFC 9110 section 7.8). Cleartext HTTP/2 is not
/// passed on: inside such a tunnel requests would go around every check made here.
pub(crate) fn upgrade_protocol(headers: &HeaderMap, version: Version) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE).filter(|_| version == Version::HTTP_11)?;
    let asked = connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"));
    let h2c = protocol.to_str().is_ok_and(|p| p.split(',').any(|p| p.trim().eq_ignore_ascii_case("h2c")));
    (asked && !h2c).then(|| protocol.clone())
}

/// Whether a response lets its connection be used again.
pub(crate) fn keeps_alive(headers: &HeaderMap, version: Version) -> bool {
    version == Version::HTTP_11
        && !connection_options(headers).any(|option| option.eq_ignore_ascii_case("close"))
}

/// Makes a client's fields into those for an endpoint.
pub(crate) fn to_upstream(
    headers: &mut HeaderMap,
    client: IpAddr,
    host: Option<&HeaderValue>,
    framing: Framing,
    upgrade: Option<&HeaderValue>,
) {
    strip_hop_by_hop(headers);
    // The body is here, or comes as we ask for it: the expectation is met on this side.
    headers.remove(EXPECT);
    headers.remove(FORWARDED);
    headers.remove(X_FORWARDED_PORT);
    let client = client.to_canonical().to_string();
    let client = HeaderValue::from_maybe_shared(bytes::Bytes::from(client));
    headers.insert(X_FORWARDED_FOR, client.expect("an address is plain ASCII"));
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    match host {
        Some(host) => {
            headers.insert(X_FORWARDED_HOST, host.clone());
            headers.insert(HOST, host.clone());
        }
        None => {
            headers.remove(X_FORWARDED_HOST);
        }
    }
    if framing == Framing::Chunked {
        headers.remove(CONTENT_LENGTH);
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    set_upgrade(headers, upgrade);
}

/// Makes an endpoint's fields into those for the client.
pub(crate) fn to_client(headers: &mut HeaderMap, upgrade: Option<&HeaderValue>) {
    if headers.contains_key(TRANSFER_ENCODING) {
        // Chunks win over a length (RFC 9112 section 6.3), and hyper chooses the framing towards the client.
        headers.remove(CONTENT_LENGTH);
    }
    strip_hop_by_hop(headers);
    set_upgrade(headers, upgrade);
}

fn set_upgrade(headers: &mut HeaderMap, upgrade: Option<&HeaderValue>) {
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // A client that names Host or the length must not take from the endpoint what it needs to understand the
    // request; usual options name no field at all.
    let named = connection_options(headers)
        .filter(|option| {
            !["close", "keep-alive", "upgrade", "host", "content-length"]
                .contains(&&*option.to_ascii_lowercase())
        })
        .filter_map(|option| option.parse::<HeaderName>().ok());
    for name in named.collect::<Vec<_>>() {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The options in all `Connection` fields.
fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|option| !option.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let pair =
            |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        fields.iter().map(pair).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn hop_by_hop_fields_end_here_with_those_that_connection_names() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Secret"),
            ("connection", "x-other, host, content-length"),
            ("host", "a"),
            ("content-length", "3"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "x"),
            ("upgrade", "h2c"),
            ("x-kept", "1"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(names(&headers), ["content-length", "host", "x-kept"]);
    }

    #[test]
    fn forwarding_fields_are_ours_alone() {
        let mut headers = map(&[
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "7.7.7.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-port", "1"),
            ("forwarded", "for=6.6.6.6"),
            ("host", "a.example"),
            ("expect", "100-continue"),
        ]);
        let host = HeaderValue::from_static("a.example");
        to_upstream(&mut headers, "::ffff:10.0.0.1".parse().unwrap(), Some(&host), Framing::Length, None);
        assert_eq!(names(&headers), ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]);
        assert_eq!(headers.get_all(X_FORWARDED_FOR).iter().collect::<Vec<_>>(), ["10.0.0.1"]);
        assert_eq!(headers[X_FORWARDED_PROTO], "http");
        assert_eq!(headers[X_FORWARDED_HOST], "a.example");
    }

    #[test]
    fn an_upgrade_needs_its_option_and_is_never_h2c() {
        let asked = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(upgrade_protocol(&asked, Version::HTTP_11).unwrap(), "websocket");
        assert_eq!(upgrade_protocol(&asked, Version::HTTP_10), None);
        assert_eq!(upgrade_protocol(&map(&[("upgrade", "websocket")]), Version::HTTP_11), None);
        let h2c = map(&[("connection", "upgrade"), ("upgrade", "websocket, h2c")]);
        assert_eq!(upgrade_protocol(&h2c, Version::HTTP_11), None);
    }

    #[test]
    fn a_chunked_response_has_no_length() {
        let mut headers = map(&[("transfer-encoding", "chunked"), ("content-length", "5")]);
        to_client(&mut headers, None);
        assert!(headers.is_empty());
    }
}
