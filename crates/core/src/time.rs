//! Time as a value: `core` has no clock, every decision is given its `now`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch.
///
/// The controller anchors the wall clock once and advances it with the monotonic clock, so a jump of the
/// wall clock never shortens a backoff or a drain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time that has passed since `earlier`; zero if `earlier` lies in the future.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This time plus `delay`, rounded up to whole milliseconds so that a wait is never cut short.
    pub fn after(self, delay: Duration) -> Timestamp {
        let millis = delay.as_nanos().div_ceil(1_000_000);
        Timestamp(self.0.saturating_add(u64::try_from(millis).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_never_cut_short_by_rounding() {
        assert_eq!(Timestamp(10).after(Duration::from_micros(1)), Timestamp(11));
        assert_eq!(Timestamp(10).after(Duration::MAX), Timestamp(u64::MAX));
    }

    #[test]
    fn the_future_is_zero_time_ago() {
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
    }
}
