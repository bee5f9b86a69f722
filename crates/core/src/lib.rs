//! Every decision of Ringmaster, and nothing but decisions.
//!
//! Responsible for: the manifest and its limits ([`manifest`], [`spec`]), the desired state and its members
//! ([`desired`]), the plan that leads from observed to desired ([`plan`]), the routing state that the data
//! plane follows ([`snapshot`]), the drain handshake ([`handshake`]), backoff ([`history`]), rollouts ([`rollout`]),
//! how many replicas ([`autoscale`]), what probes say in a row ([`probing`]), who is new ([`debut`]), what is known
//! between passes ([`world`]), status ([`status`]), recent keys ([`traffic`]) and the ring ([`ring`]).
//!
//! Deliberately absent: clocks, random numbers, sockets, files, tasks. Time arrives as a value
//! ([`Timestamp`]), the world arrives as [`observed::Observed`], and effects leave as [`plan::Action`]s.

pub mod api;
pub mod autoscale;
pub mod debut;
pub mod desired;
pub mod event;
pub mod exposition;
pub mod handshake;
pub mod history;
pub mod ids;
pub mod manifest;
pub mod members;
pub mod observed;
pub mod palette;
pub mod plan;
pub mod probing;
pub mod quantity;
pub mod reason;
pub mod ring;
pub mod rollout;
pub mod snapshot;
pub mod spec;
pub mod status;
mod time;
pub mod traffic;
pub mod world;

pub use ids::{Attempt, Generation, Ordinal, ReplicaName, Revision, ServiceName};
pub use reason::Reason;
pub use time::Timestamp;
