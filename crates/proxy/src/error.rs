//! Errors: of starting the data plane, and the one table from what went wrong with a request to its answer.

use std::io;
use std::net::SocketAddr;

use http::StatusCode;
use thiserror::Error;

use crate::answer::Answer;
use crate::h1::framing::FramingError;
use crate::h1::head::HeadError;
use crate::h1::request::RequestError;

/// Why the data plane could not start, or how it ended.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// Another process listens there.
    #[error(
        "listen on {address}: the port is in use by another process; stop that process (`ss -ltnp` names it) \
         or choose another port"
    )]
    PortInUse {
        /// The address that is taken.
        address: SocketAddr,
    },
    /// The address cannot be listened on: not of this host, a privileged port, no descriptors left.
    #[error("listen on {address}: choose an address of this host and a port that this user may open")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system refused a thread.
    #[error("start thread {thread}: raise the limit on threads (`ulimit -u`)")]
    Thread {
        /// Its name.
        thread: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system refused an event queue.
    #[error("start the runtime of a worker: raise the limit on open files (`ulimit -n`)")]
    Runtime {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A defect: a thread of the data plane panicked, and the others were ended.
    #[error("thread {thread} panicked: its message is in the log; restart the data plane")]
    Panicked {
        /// Its name.
        thread: String,
    },
}

/// Why a request got an answer of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The head is not that of a request (RFC 9112 sections 2 to 5).
    BadRequest,
    /// No Host field, more than one, or one that is not a host (RFC 9112 section 3.2).
    BadHost,
    /// Where the body ends is not for sure (RFC 9112 section 6.3).
    BadFraming,
    /// A transfer coding that is not known (RFC 9112 section 6.1).
    UnknownCoding,
    /// The request line is too long (RFC 9110 section 15.5.15).
    UriTooLong,
    /// Too many fields, or too long ones (RFC 6585 section 5).
    FieldsTooLarge,
    /// The head did not come in time.
    HeadTimeout,
    /// The version is none of HTTP/1 (RFC 9110 section 15.6.6).
    Version,
    /// The client expects what is not known (RFC 9110 section 10.1.1).
    Expectation,
    /// CONNECT asks for a tunnel, which a reverse proxy does not dig.
    Tunnel,
    /// The client ended before its body did, or its chunks are none.
    ClientBodyBroken,
    /// The client stopped sending its body.
    ClientBodyStalled,
    /// The client's body is larger than the gateway's limit.
    BodyTooLarge,
    /// No service has this host and path.
    NoRoute,
    /// The service has no endpoint at all.
    NoEndpoint,
    /// All endpoints have as many requests as they may, and none became free in time.
    Overloaded,
    /// No endpoint could be reached, or each broke the connection without an answer.
    Unreachable,
    /// What came back is not HTTP.
    InvalidResponse,
    /// No response began in time.
    ResponseTimeout,
    /// The service has no endpoint, and as many requests wait for one as may.
    HoldFull,
    /// The service had no endpoint for as long as a request may wait for one.
    HoldTimeout,
}

impl Refusal {
    /// All, in their order, with the metric's label and whether the request's service was known.
    pub(crate) const ALL: [(Refusal, &'static str, bool); 21] = [
        (Refusal::BadRequest, "bad_request", false),
        (Refusal::BadHost, "bad_host", false),
        (Refusal::BadFraming, "bad_framing", false),
        (Refusal::UnknownCoding, "unknown_coding", false),
        (Refusal::UriTooLong, "uri_too_long", false),
        (Refusal::FieldsTooLarge, "fields_too_large", false),
        (Refusal::HeadTimeout, "head_timeout", false),
        (Refusal::Version, "version", false),
        (Refusal::Expectation, "expectation", false),
        (Refusal::Tunnel, "tunnel", false),
        (Refusal::ClientBodyBroken, "client_body_broken", true),
        (Refusal::ClientBodyStalled, "client_body_stalled", true),
        (Refusal::BodyTooLarge, "body_too_large", true),
        (Refusal::NoRoute, "no_route", false),
        (Refusal::NoEndpoint, "no_endpoint", true),
        (Refusal::Overloaded, "overloaded", true),
        (Refusal::Unreachable, "unreachable", true),
        (Refusal::InvalidResponse, "invalid_response", true),
        (Refusal::ResponseTimeout, "response_timeout", true),
        (Refusal::HoldFull, "hold_full", true),
        (Refusal::HoldTimeout, "hold_timeout", true),
    ];

    /// The table: one status and one text for each.
    fn text(self) -> (StatusCode, &'static str) {
        match self {
            Refusal::BadRequest => (StatusCode::BAD_REQUEST, "the request is not valid HTTP/1.1"),
            Refusal::BadHost => (StatusCode::BAD_REQUEST, "exactly one valid Host header is required"),
            Refusal::BadFraming => (StatusCode::BAD_REQUEST, "the end of the request body is ambiguous"),
            Refusal::UnknownCoding => (StatusCode::NOT_IMPLEMENTED, "the transfer coding is not supported"),
            Refusal::UriTooLong => (StatusCode::URI_TOO_LONG, "the request line is longer than 8 KiB"),
            Refusal::FieldsTooLarge => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the header has more than 100 fields or 64 KiB")
            }
            Refusal::HeadTimeout => (StatusCode::REQUEST_TIMEOUT, "the request head did not arrive in time"),
            Refusal::Version => {
                (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.1 and HTTP/1.0 are supported")
            }
            Refusal::Expectation => {
                (StatusCode::EXPECTATION_FAILED, "the only known expectation is 100-continue")
            }
            Refusal::Tunnel => (StatusCode::NOT_IMPLEMENTED, "CONNECT is not supported"),
            Refusal::ClientBodyBroken => (StatusCode::BAD_REQUEST, "the request body ended early"),
            Refusal::ClientBodyStalled => {
                (StatusCode::REQUEST_TIMEOUT, "the request body did not arrive in time")
            }
            Refusal::BodyTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "the request body is larger than is allowed")
            }
            Refusal::NoRoute => (StatusCode::NOT_FOUND, "no service has a route for this host and path"),
            Refusal::NoEndpoint => (StatusCode::SERVICE_UNAVAILABLE, "no replica is ready"),
            Refusal::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "all replicas are busy"),
            Refusal::Unreachable => (StatusCode::BAD_GATEWAY, "no replica answered"),
            Refusal::InvalidResponse => (StatusCode::BAD_GATEWAY, "the replica's answer is not valid HTTP"),
            Refusal::ResponseTimeout => (StatusCode::GATEWAY_TIMEOUT, "the replica did not answer in time"),
            Refusal::HoldFull => {
                (StatusCode::SERVICE_UNAVAILABLE, "too many requests wait for a replica to start")
            }
            Refusal::HoldTimeout => (StatusCode::SERVICE_UNAVAILABLE, "no replica was ready in time"),
        }
    }

    /// The answer for the client.
    pub(crate) fn answer(self) -> Answer {
        let (status, message) = self.text();
        let fields = if status == StatusCode::SERVICE_UNAVAILABLE { "Retry-After: 1\r\n" } else { "" };
        Answer { fields, ..Answer::failure(status, message) }
    }
}

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Refusal {
        match error {
            HeadError::Malformed(_) => Refusal::BadRequest,
            HeadError::LineTooLong => Refusal::UriTooLong,
            HeadError::FieldsTooLarge => Refusal::FieldsTooLarge,
        }
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Refusal {
        match error {
            RequestError::Line | RequestError::Target | RequestError::TraceBody => Refusal::BadRequest,
            RequestError::Version => Refusal::Version,
            RequestError::Host => Refusal::BadHost,
            RequestError::Framing(FramingError::UnknownCoding) => Refusal::UnknownCoding,
            RequestError::Framing(_) => Refusal::BadFraming,
            RequestError::Expectation => Refusal::Expectation,
            RequestError::Connect => Refusal::Tunnel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_the_status_of_the_table() {
        let statuses = [
            400, 400, 400, 501, 414, 431, 408, 505, 417, 501, 400, 408, 413, 404, 503, 503, 502, 502, 504,
            503, 503,
        ];
        assert_eq!(Refusal::ALL.len(), statuses.len());
        for ((refusal, ..), status) in Refusal::ALL.into_iter().zip(statuses) {
            assert_eq!(refusal.answer().status.as_u16(), status, "{refusal:?}");
            assert_eq!(Refusal::ALL[refusal as usize].0, refusal);
        }
    }

    #[test]
    fn only_a_missing_endpoint_asks_to_come_back() {
        assert_eq!(Refusal::Overloaded.answer().fields, "Retry-After: 1\r\n");
        assert_eq!(Refusal::NoEndpoint.answer().fields, "Retry-After: 1\r\n");
        assert_eq!(Refusal::Unreachable.answer().fields, "");
    }
}
