//! The one clock: wall time read once, then advanced by the monotonic clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ringmaster_core::Timestamp;

/// Tells the time so that it never jumps while the daemon runs.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    anchor: Instant,
    anchor_ms: u64,
}

impl Clock {
    /// Starts at the wall clock's time.
    pub fn start() -> Clock {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { anchor: Instant::now(), anchor_ms: wall.as_millis() as u64 }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.anchor_ms + self.anchor.elapsed().as_millis() as u64)
    }

    /// How long from now until `at`; zero if it has passed.
    pub fn until(&self, at: Timestamp) -> std::time::Duration {
        at.since(self.now())
    }
}
