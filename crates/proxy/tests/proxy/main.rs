//! The data plane over real loopback sockets, against origins that do exactly what a test tells them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers as well")]

mod access_log;
mod answers;
mod assignment;
mod balancing;
mod budget;
mod client;
mod drain;
mod ejection;
mod framing;
mod hedging;
mod hold;
mod keys;
mod limits;
mod listeners;
mod origin;
mod overload;
mod replay;
mod routing;
mod scale;
mod streaming;
mod told;
mod upgrade;
mod world;
