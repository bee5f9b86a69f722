//! HTTP/1.1 on the wire: one reader of heads, one set of framing rules and one writer for both directions.
//!
//! Strict where leniency is how requests are smuggled (RFC 9112 section 11.2): a message that another recipient could
//! read otherwise is refused. Nothing here does I/O: bytes go in, and what they mean comes out, whatever the pieces
//! in which they arrive.
//!
//! Deliberately absent: routing, retries, and what to do about a refusal.

pub(crate) mod body;
pub(crate) mod bytes;
pub(crate) mod chunked;
pub(crate) mod emit;
pub(crate) mod field;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod request;
pub(crate) mod response;
