//! The fields that a proxy has to understand, by their names.

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
    XForwardedFor,
    XForwardedHost,
    XForwardedPort,
    XForwardedProto,
    XRealIp,
}

impl Name {
    /// The name of a field, in whatever case it came.
    pub(crate) fn of(bytes: &[u8]) -> Name {
        let candidates: &[(&str, Name)] = match bytes.len() {
            2 => &[("te", Name::Te)],
            4 => &[("host", Name::Host), ("date", Name::Date)],
            6 => &[("cookie", Name::Cookie), ("expect", Name::Expect)],
            7 => &[("upgrade", Name::Upgrade)],
            9 => &[("forwarded", Name::Forwarded), ("x-real-ip", Name::XRealIp)],
            10 => &[("connection", Name::Connection), ("keep-alive", Name::KeepAlive)],
            12 => &[("max-forwards", Name::MaxForwards)],
            14 => &[("content-length", Name::ContentLength)],
            15 => &[("x-forwarded-for", Name::XForwardedFor), ("idempotency-key", Name::IdempotencyKey)],
            16 => &[
                ("x-forwarded-host", Name::XForwardedHost),
                ("x-forwarded-port", Name::XForwardedPort),
                ("proxy-connection", Name::ProxyConnection),
            ],
            17 => {
                &[("transfer-encoding", Name::TransferEncoding), ("x-forwarded-proto", Name::XForwardedProto)]
            }
            18 => &[("proxy-authenticate", Name::ProxyAuthenticate)],
            19 => &[("proxy-authorization", Name::ProxyAuthorization)],
            _ => &[],
        };
        let found = candidates.iter().find(|(name, _)| bytes.eq_ignore_ascii_case(name.as_bytes()));
        found.map_or(Name::Other, |(_, name)| *name)
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
            ("hosts", Name::Other),
            ("x-kept", Name::Other),
        ] {
            assert_eq!(Name::of(bytes.as_bytes()), name, "{bytes}");
        }
    }
}
