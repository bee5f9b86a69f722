//! The seam between controller and data plane when they are two processes: snapshots one way, reports the other, over a
//! unix socket, or TCP with a token.
//!
//! Responsible for: the frames, resuming after a cut, the snapshot that is kept on disk, and what else has to cross (metrics,
//! the state of listeners, recent traffic, the assignment's API). Each side sees only its `watch` channels and a few
//! closures: a [`Hub`] stands beside the controller, a [`Follower`] beside the data plane.
//!
//! An acknowledgement is for a generation of one run of one controller. A data plane numbers what it swaps in by itself,
//! never downwards, and translates (`numbering`); what it says of another run counts as nothing. A data plane that
//! has been cut off counts as before, for it may be serving: removals wait for it. One that ends in order says so and
//! is waited for no longer; one that stays away is forgotten after [`FORGOTTEN_AFTER`].
//!
//! Deliberately absent: what a snapshot means, HTTP, and who supervises whom.

mod address;
mod follower;
mod frame;
mod hub;
mod kept;
mod local;
mod message;
mod numbering;
mod planes;
mod session;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use address::{Address, Listener};
pub use follower::{Ends, Faces, Follower, FollowerConfig, Traffic};
pub use hub::{Hub, HubConfig};
pub use local::LocalCaller;
pub use planes::Note;

/// A data plane that has been away for so long is no longer waited for.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// The metric that says of every data plane whether it is there: its name and its help.
pub const CONNECTED_METRIC: (&str, &str) =
    ("ringmaster_data_plane_connected", "1 while the data plane is there, 0 while it is cut off.");

/// Each side says something at least this often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Who has said nothing for so long is gone; so is who does not take what it is sent.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Calls of the assignment's API that wait for their answer at most.
const CALLS_MAX: usize = 64;

/// Answers a call of the assignment's API: method, path and body; then status and body.
pub type LocalHandler = dyn Fn(String, String, Bytes) -> BoxFuture<'static, (u16, Bytes)> + Send + Sync;

/// A random number, for what must not be confused with what was before.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
