//! Who asks, where trusted proxies stand before the data plane: the client that they name, and not they.
//!
//! Each proxy adds the address that it was asked from behind those before it, so the list is read from its end: what stands
//! before the first address that no trusted proxy has, anybody can have written.

use std::net::{IpAddr, SocketAddr};

use ringmaster_core::spec::Network;

use crate::h1::bytes::{list, trim};
use crate::h1::field::Name;
use crate::h1::head::Head;

/// The client that a trusted `peer` asks for, by `X-Forwarded-For`, or if that names nobody by `X-Real-IP`; the peer itself if
/// neither does.
pub(crate) fn client(peer: IpAddr, trusted: &[Network], head: &Head, buffer: &[u8]) -> IpAddr {
    let named_by = |kind| {
        let hops: Vec<&[u8]> = head.of(kind).flat_map(|value| list(value.of(buffer))).collect();
        let mut client = None;
        for address in hops.into_iter().rev().map_while(address) {
            client = Some(address);
            if !is_trusted(address, trusted) {
                break;
            }
        }
        client
    };
    named_by(Name::XForwardedFor).or_else(|| named_by(Name::XRealIp)).unwrap_or(peer)
}

/// Whether an address is one of a trusted proxy.
pub(crate) fn is_trusted(address: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// An address as proxies write it: some with its port, some in brackets.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(trim(hop)).ok()?;
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse().ok().or_else(|| Some(hop.parse::<SocketAddr>().ok()?.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::head::{Progress, Side};

    fn asker(fields: &str) -> String {
        let trusted: Vec<Network> = serde_json::from_str(r#"["10.0.0.0/8", "2001:db8::/32"]"#).unwrap();
        let text = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        let mut head = Head::default();
        head.reset(0);
        assert_eq!(head.advance(text.as_bytes(), Side::Request), Ok(Progress::Whole));
        client([10, 0, 0, 1].into(), &trusted, &head, text.as_bytes()).to_string()
    }

    #[test]
    fn the_client_is_the_last_address_that_no_trusted_proxy_has() {
        for (fields, expected) in [
            ("", "10.0.0.1"),
            ("X-Forwarded-For: 1.1.1.1\r\n", "1.1.1.1"),
            ("X-Forwarded-For: 6.6.6.6, 1.1.1.1, 10.0.0.2\r\n", "1.1.1.1"),
            ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.1.1.1\r\n", "1.1.1.1"),
            ("X-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n", "10.0.0.3"),
            ("X-Forwarded-For: 6.6.6.6, unknown, 10.0.0.2\r\n", "10.0.0.2"),
            ("X-Forwarded-For: \r\n", "10.0.0.1"),
            ("X-Forwarded-For: \r\nX-Real-IP: 1.1.1.1\r\n", "1.1.1.1"),
            ("X-Forwarded-For: 1.1.1.1:443\r\n", "1.1.1.1"),
            ("X-Forwarded-For: 2001:db9::1, [2001:db8::1]:80\r\n", "2001:db9::1"),
            ("X-Forwarded-For: [2001:db9::1]\r\n", "2001:db9::1"),
            ("X-Forwarded-For: ::ffff:1.1.1.1\r\n", "1.1.1.1"),
            ("X-Real-IP: 1.1.1.1\r\n", "1.1.1.1"),
            ("X-Real-IP: 6.6.6.6\r\nX-Forwarded-For: 1.1.1.1\r\n", "1.1.1.1"),
        ] {
            assert_eq!(asker(fields), expected, "{fields:?}");
        }
    }
}
