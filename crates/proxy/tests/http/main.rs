//! HTTP/1.1 to the letter, in both directions, from outside: a raw client, the data plane, a raw origin. Each case
//! names the section of the RFC that it holds the proxy to.
//!
//! Where the RFC leaves a choice a case lists every outcome that is right; where it leaves none, or a choice would let
//! two readers disagree about where a message ends, it is refusal (400 towards the client, 502 for an origin).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers as well")]

mod case;
mod check;
mod client;
mod message;
mod origin;
mod world;

mod chunks;
mod expect;
mod fields;
mod forwarding;
mod interim;
mod limits;
mod memory;
mod pipelining;
mod pooling;
mod request_framing;
mod request_lines;
mod response_framing;
mod response_malformed;
mod targets;
mod versions;
