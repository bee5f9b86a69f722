//! Requests that wait while all endpoints of their service have as many as they may.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// After this long a waiting request looks for itself: other workers' places are told by nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Those who wait on one worker.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    count: Cell<u32>,
    freed: Notify,
    /// Those who wait on all workers.
    everywhere: Arc<AtomicU32>,
    /// The routing has changed.
    swapped: Notify,
}

/// One who waits, until it is dropped.
#[derive(Debug)]
pub(crate) struct Waiter<'a>(&'a Waiting);

impl Waiting {
    /// Nobody yet; who comes is counted in `everywhere` too.
    pub(crate) fn counted_in(everywhere: &Arc<AtomicU32>) -> Waiting {
        Waiting { everywhere: Arc::clone(everywhere), ..Waiting::default() }
    }

    /// A place in the queue, if there are fewer than `most` in it.
    pub(crate) fn enter(&self, most: u32) -> Option<Waiter<'_>> {
        let count = self.count.get();
        (count < most).then(|| {
            self.count.set(count + 1);
            self.everywhere.fetch_add(1, Ordering::Relaxed);
            Waiter(self)
        })
    }

    /// A request has ended: the next one may look.
    pub(crate) fn freed(&self) {
        if self.count.get() > 0 {
            self.freed.notify_one();
        }
    }

    /// The routing has changed: whoever waits for an endpoint looks.
    pub(crate) fn swap(&self) {
        self.swapped.notify_waiters();
    }

    /// Resolves with the next change of the routing. Cancel-safe.
    pub(crate) async fn swapped(&self) {
        self.swapped.notified().await;
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> u32 {
        self.count.get()
    }
}

impl Waiter<'_> {
    /// Resolves when it is worth looking for a place. Cancel-safe.
    pub(crate) async fn turn(&self) {
        // Whichever ends it, what follows is the same.
        drop(timeout(LOOK_AGAIN, self.0.freed.notified()).await);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        // A turn that it was given and did not take is the next one's, which `Notified` sees to. To pass on one that it
        // took would have those who wait wake each other without end.
        self.0.count.set(self.0.count.get() - 1);
        self.0.everywhere.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_so_many_wait_and_each_is_told() {
        let everywhere = Arc::new(AtomicU32::new(5));
        let waiting = Waiting::counted_in(&everywhere);
        let first = waiting.enter(2).unwrap();
        let second = waiting.enter(2).unwrap();
        assert!(waiting.enter(2).is_none());
        assert_eq!(everywhere.load(Ordering::Relaxed), 7, "beside the five of other workers");
        drop(second);
        assert_eq!(waiting.len(), 1);
        waiting.freed();
        first.turn().await;
        drop(first);
        assert_eq!((waiting.len(), everywhere.load(Ordering::Relaxed)), (0, 5));
    }

    #[tokio::test]
    async fn those_who_wait_do_not_wake_each_other() {
        let waiting = Waiting::default();
        let turns = Cell::new(0);
        let wait = async || loop {
            waiting.enter(2).unwrap().turn().await;
            turns.set(turns.get() + 1);
        };
        waiting.freed();
        let both = futures_util::future::join(wait(), wait());
        assert!(timeout(10 * LOOK_AGAIN, both).await.is_err());
        assert!(turns.get() <= 22, "{} turns in ten times {LOOK_AGAIN:?}", turns.get());
    }

    #[tokio::test]
    async fn a_turn_that_is_not_taken_is_the_next_ones() {
        let waiting = Waiting::default();
        let (first, second) = (waiting.enter(2).unwrap(), waiting.enter(2).unwrap());
        let mut waits = Box::pin(waiting.freed.notified());
        waits.as_mut().enable();
        let next = second.0.freed.notified();
        let mut next = std::pin::pin!(next);
        next.as_mut().enable();
        waiting.freed();
        drop((waits, first));
        assert!(timeout(Duration::ZERO, next).await.is_ok());
    }
}
