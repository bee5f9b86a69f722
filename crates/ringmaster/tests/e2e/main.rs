//! End to end: the real binary, real sockets, real containers and processes.
//!
//! Tests on a real engine are skipped with a line that says so where none answers. The figures
//! (`figures.rs`) have the machine to themselves: every other test holds [`common::shared`] meanwhile.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod apart;
mod assignment;
mod autoscale;
mod chromium;
mod cli;
mod common;
mod controller_figures;
mod controller_kills;
mod dashboards;
mod data_plane_faults;
mod engine_faults;
mod engine_killed;
mod engine_proxy;
mod figures;
mod hands;
mod images;
mod input;
mod lab;
mod left_out;
mod lifecycle;
mod load;
mod logs;
mod page;
mod policies;
mod private_engine;
mod probes;
mod restart;
mod ring_changes;
mod rollback;
mod rollout;
mod rollout_figures;
mod scale;
mod scrapers;
mod slow_followers;
mod straight_line;
mod top;
#[cfg(feature = "otel")]
mod traces;
mod watching;
