//! When to list: soon after something has happened, never more than half of the time, and now and then anyway,
//! because engines lose events silently.

use std::time::Duration;

use crate::Timestamp;

/// Lists again at least this often.
pub const RESYNC_PERIOD: Duration = Duration::from_secs(10);
/// Shortest pause between two lists.
const LIST_PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest pause between two lists that somebody waits for, and the pause after one that failed.
const LIST_PAUSE_MAX: Duration = Duration::from_secs(1);

/// When to list next. The default is at once.
#[derive(Debug, Clone)]
pub struct Listing {
    wanted: bool,
    running: bool,
    not_before: Timestamp,
    resync_at: Timestamp,
}

impl Default for Listing {
    fn default() -> Self {
        Listing { wanted: true, running: false, not_before: Timestamp(0), resync_at: Timestamp(0) }
    }
}

impl Listing {
    /// Something changed: list soon.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// When the next list is due; none while one runs.
    pub fn due_at(&self) -> Option<Timestamp> {
        (!self.running).then_some(if self.wanted { self.not_before } else { self.resync_at })
    }

    /// A list begins.
    pub(super) fn begin(&mut self) {
        self.wanted = false;
        self.running = true;
    }

    /// The list has ended after `took`, with an answer or without.
    pub(super) fn end(&mut self, took: Duration, good: bool, now: Timestamp) {
        self.running = false;
        // Lists take at most half of the time, however slow the engine is or however much happens.
        let pause = if good { took.clamp(LIST_PAUSE_MIN, LIST_PAUSE_MAX) } else { LIST_PAUSE_MAX };
        self.not_before = now.after(pause);
        self.resync_at = now.after(if good { RESYNC_PERIOD } else { LIST_PAUSE_MAX });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_take_at_most_half_of_the_time_and_one_comes_anyway() {
        let mut listing = Listing::default();
        assert_eq!(listing.due_at(), Some(Timestamp(0)), "the first is due at once");
        listing.begin();
        listing.want();
        assert_eq!(listing.due_at(), None, "one at a time");
        listing.end(Duration::from_millis(300), true, Timestamp(300));
        assert_eq!(listing.due_at(), Some(Timestamp(600)), "wanted meanwhile");
        listing.begin();
        listing.end(Duration::ZERO, true, Timestamp(1_000));
        assert_eq!(listing.due_at(), Some(Timestamp(11_000)), "nobody waits for it");
        listing.begin();
        listing.end(Duration::ZERO, false, Timestamp(2_000));
        assert_eq!(listing.due_at(), Some(Timestamp(3_000)), "what failed is tried again");
    }
}
