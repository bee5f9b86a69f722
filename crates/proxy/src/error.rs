//! Errors: of starting the data plane, and the one table from what went wrong with a request to its answer.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use thiserror::Error;

use crate::body::ResponseBody;

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
    /// No Host field, more than one, or one that is not a host (RFC 9112 section 3.2).
    BadHost,
    /// CONNECT asks for a tunnel, which a reverse proxy does not dig.
    Tunnel,
    /// The client ended before its body did.
    ClientBodyBroken,
    /// The client stopped sending its body.
    ClientBodyStalled,
    /// No service has this host and path.
    NoRoute,
    /// The service has no endpoint at all.
    NoEndpoint,
    /// No endpoint could be reached, or each broke the connection without an answer.
    Unreachable,
    /// What came back is not HTTP.
    InvalidResponse,
    /// No response began in time.
    ResponseTimeout,
}

impl Refusal {
    /// All, in their order, with the metric's label and whether the request's service was known.
    pub(crate) const ALL: [(Refusal, &'static str, bool); 9] = [
        (Refusal::BadHost, "bad_host", false),
        (Refusal::Tunnel, "tunnel", false),
        (Refusal::ClientBodyBroken, "client_body_broken", true),
        (Refusal::ClientBodyStalled, "client_body_stalled", true),
        (Refusal::NoRoute, "no_route", false),
        (Refusal::NoEndpoint, "no_endpoint", true),
        (Refusal::Unreachable, "unreachable", true),
        (Refusal::InvalidResponse, "invalid_response", true),
        (Refusal::ResponseTimeout, "response_timeout", true),
    ];

    /// The table: one status and one text for each.
    fn answer(self) -> (StatusCode, &'static str) {
        match self {
            Refusal::BadHost => (StatusCode::BAD_REQUEST, "exactly one valid Host header is required"),
            Refusal::Tunnel => (StatusCode::NOT_IMPLEMENTED, "CONNECT is not supported"),
            Refusal::ClientBodyBroken => (StatusCode::BAD_REQUEST, "the request body ended early"),
            Refusal::ClientBodyStalled => {
                (StatusCode::REQUEST_TIMEOUT, "the request body did not arrive in time")
            }
            Refusal::NoRoute => (StatusCode::NOT_FOUND, "no service has a route for this host and path"),
            Refusal::NoEndpoint => (StatusCode::SERVICE_UNAVAILABLE, "no replica is ready"),
            Refusal::Unreachable => (StatusCode::BAD_GATEWAY, "no replica answered"),
            Refusal::InvalidResponse => (StatusCode::BAD_GATEWAY, "the replica's answer is not valid HTTP"),
            Refusal::ResponseTimeout => (StatusCode::GATEWAY_TIMEOUT, "the replica did not answer in time"),
        }
    }

    /// The answer for the client.
    pub(crate) fn response(self) -> Response<ResponseBody> {
        let (status, message) = self.answer();
        let mut response = failure(status, message);
        if self == Refusal::NoEndpoint {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The one form of our error bodies; it is that of the assignment.
pub(crate) fn failure(status: StatusCode, message: &str) -> Response<ResponseBody> {
    // A JSON string escapes whatever a client put into a path.
    let quoted = serde_json::Value::from(message).to_string();
    json(status, Bytes::from(format!(r#"{{"message":{quoted},"status":"failure"}}"#)))
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_the_status_of_the_table() {
        let table = [
            (Refusal::BadHost, 400),
            (Refusal::Tunnel, 501),
            (Refusal::ClientBodyBroken, 400),
            (Refusal::ClientBodyStalled, 408),
            (Refusal::NoRoute, 404),
            (Refusal::NoEndpoint, 503),
            (Refusal::Unreachable, 502),
            (Refusal::InvalidResponse, 502),
            (Refusal::ResponseTimeout, 504),
        ];
        for (refusal, status) in table {
            assert_eq!(refusal.response().status().as_u16(), status, "{refusal:?}");
            assert_eq!(Refusal::ALL[refusal as usize].0, refusal);
        }
    }

    #[test]
    fn only_a_missing_endpoint_asks_to_come_back() {
        assert_eq!(Refusal::NoEndpoint.response().headers()[RETRY_AFTER], "1");
        assert!(!Refusal::Unreachable.response().headers().contains_key(RETRY_AFTER));
    }
}
