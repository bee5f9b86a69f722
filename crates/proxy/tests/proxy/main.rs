//! The data plane over real loopback sockets, against origins that do exactly what a test tells them.

mod assignment;
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
mod upgrade;
mod world;
