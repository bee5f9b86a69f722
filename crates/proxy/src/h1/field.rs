//! The fields that a proxy has to understand, by their names.

use super::bytes::is_name;

/// What all fields begin with by which proxies tell of their clients.
const X_FORWARDED: &str = "x-forwarded-";

/// A field's name, as far as it means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// Passed on as it is, unless `Connection` names it.
    Other,
    Connection,
    ContentLength,
    Cookie,
    Date,
    Expect,
    Forwarded,
    Host,
    IdempotencyKey,
    KeepAlive,
    MaxForwards,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Te,
    TransferEncoding,
    Upgrade,
    /// Any other that begins as those of the next ones do.
    XForwarded,
    XForwardedFor,
    XForwardedHost,
    XForwardedPort,
    XForwardedProto,
    XRealIp,
}

impl Name {
    /// The name of a field, in whatever case it came.
    pub(crate) fn of(token: &[u8]) -> Name {
        // Length and first letter leave one candidate at most, of two with both in common the one by another letter.
        let letter = |index: usize| token.get(index).map_or(0, u8::to_ascii_lowercase);
        let (name, kind) = match (token.len(), letter(0)) {
            (2, b't') => ("te", Name::Te),
            (4, b'h') => ("host", Name::Host),
            (4, b'd') => ("date", Name::Date),
            (6, b'c') => ("cookie", Name::Cookie),
            (6, b'e') => ("expect", Name::Expect),
            (7, b'u') => ("upgrade", Name::Upgrade),
            (9, b'f') => ("forwarded", Name::Forwarded),
            (9, b'x') => ("x-real-ip", Name::XRealIp),
            (10, b'c') => ("connection", Name::Connection),
            (10, b'k') => ("keep-alive", Name::KeepAlive),
            (12, b'm') => ("max-forwards", Name::MaxForwards),
            (14, b'c') => ("content-length", Name::ContentLength),
            (15, b'x') => ("x-forwarded-for", Name::XForwardedFor),
            (15, b'i') => ("idempotency-key", Name::IdempotencyKey),
            (16, b'x') if letter(12) == b'h' => ("x-forwarded-host", Name::XForwardedHost),
            (16, b'x') => ("x-forwarded-port", Name::XForwardedPort),
            (16, b'p') => ("proxy-connection", Name::ProxyConnection),
            (17, b't') => ("transfer-encoding", Name::TransferEncoding),
            (17, b'x') => ("x-forwarded-proto", Name::XForwardedProto),
            (18, b'p') => ("proxy-authenticate", Name::ProxyAuthenticate),
            (19, b'p') => ("proxy-authorization", Name::ProxyAuthorization),
            (13.., b'x') => ("", Name::Other),
            _ => return Name::Other,
        };
        match token.get(..X_FORWARDED.len()) {
            _ if is_name(token, name) => kind,
            Some(prefix) if is_name(prefix, X_FORWARDED) => Name::XForwarded,
            _ => Name::Other,
        }
    }

    /// One bit, of its own.
    pub(crate) fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Whether it belongs to one connection (RFC 9110 section 7.6.1), besides those that `Connection` names. The
    /// length and the coding are of a message, and each hop writes them anew.
    pub(crate) fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Name::Connection
                | Name::ContentLength
                | Name::KeepAlive
                | Name::ProxyAuthenticate
                | Name::ProxyAuthorization
                | Name::ProxyConnection
                | Name::Te
                | Name::TransferEncoding
                | Name::Upgrade
        )
    }

    /// Whether a trailer must not carry it, because it says how the message is read, routed or paid for (RFC 9110 section 6.5.1).
    pub(crate) fn is_forbidden_in_trailers(self, bytes: &[u8]) -> bool {
        const MORE: [&str; 8] = [
            "authorization",
            "cache-control",
            "content-encoding",
            "content-range",
            "content-type",
            "set-cookie",
            "trailer",
            "via",
        ];
        self != Name::Other || MORE.iter().any(|name| bytes.eq_ignore_ascii_case(name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        for (bytes, name) in [
            ("HOST", Name::Host),
            ("Content-length", Name::ContentLength),
            ("transfer-ENCODING", Name::TransferEncoding),
            ("X-Real-IP", Name::XRealIp),
            ("X-Forwarded-Host", Name::XForwardedHost),
            ("x-forwarded-PORT", Name::XForwardedPort),
            ("proxy-connection", Name::ProxyConnection),
            ("x-forwarded-past", Name::XForwarded),
            ("X-Forwarded-Prefix", Name::XForwarded),
            ("x-forwarded-", Name::Other),
            ("x-backwarded-for", Name::Other),
            ("hosts", Name::Other),
            ("hest", Name::Other),
            ("", Name::Other),
            ("x-kept", Name::Other),
        ] {
            assert_eq!(Name::of(bytes.as_bytes()), name, "{bytes}");
        }
    }
}
