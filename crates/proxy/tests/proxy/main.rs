//! The data plane over real loopback sockets, against origins that do exactly what a test tells them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers as well")]

mod assignment;
mod balancing;
mod client;
mod drain;
mod ejection;
mod framing;
mod keys;
mod listeners;
mod origin;
mod replay;
mod routing;
mod streaming;
mod told;
mod upgrade;
mod world;
