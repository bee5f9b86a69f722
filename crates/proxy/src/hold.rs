//! Requests of a service that has no replica now, and wait for the first one.
//!
//! Touched only where there is nobody to send a request to, and by each swap of the routing.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::time::{Instant, timeout};

use crate::error::Refusal;
use crate::routing::Service;
use crate::stats::Signals;

/// One that waits, until it is dropped.
struct Held<'a> {
    all: &'a AtomicU32,
    signals: &'a Signals,
}

impl<'a> Held<'a> {
    /// A place among those that wait, on all workers, if there are fewer than `most`. The first one is told at once: it
    /// is what a service without replicas is started by.
    fn enter(all: &'a AtomicU32, most: u32, signals: &'a Signals) -> Option<Held<'a>> {
        let before = all.fetch_add(1, Ordering::SeqCst);
        let held = Held { all, signals };
        if before >= most {
            return None;
        }
        if before == 0 {
            signals.hurry()
        } else {
            signals.touch()
        }
        Some(held)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::SeqCst);
        self.signals.touch();
    }
}

/// Waits until it is worth looking for an endpoint again; `began` is when the request first had none. Cancel-safe.
pub(crate) async fn wait(service: &Service, signals: &Signals, began: Instant) -> Result<(), Refusal> {
    let hold = service.spec.demand.and_then(|demand| demand.hold).filter(|_| service.places.is_empty());
    let hold = hold.ok_or(Refusal::NoEndpoint)?;
    let _held = Held::enter(&service.stats.held, hold.max, signals).ok_or(Refusal::HoldFull)?;
    let left = hold.timeout.0.saturating_sub(began.elapsed());
    timeout(left, service.waiting.swapped()).await.map_err(|_| Refusal::HoldTimeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_wait_and_who_leaves_makes_room() {
        let (all, (signals, _tasks)) = (AtomicU32::new(0), Signals::new());
        let first = Held::enter(&all, 2, &signals).unwrap();
        let _second = Held::enter(&all, 2, &signals).unwrap();
        assert!(Held::enter(&all, 2, &signals).is_none());
        assert_eq!(all.load(Ordering::SeqCst), 2, "who was refused is not counted");
        drop(first);
        assert!(Held::enter(&all, 2, &signals).is_some());
    }
}
