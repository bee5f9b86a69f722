//! When requests are to be sent: a thread that sleeps until each moment and hands it over.
//!
//! A thread, because the timers of tokio have a resolution of a millisecond, which is as long as an answer takes.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::random::Random;

/// A request to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) id: u32,
    /// Since the load began.
    pub(super) intended: Duration,
}

/// What to send.
pub(super) struct Arrivals {
    pub(super) ids: Random,
    pub(super) gaps: Random,
    pub(super) per_second: f64,
    pub(super) at_least: usize,
    pub(super) stop: CancellationToken,
    pub(super) cancel: CancellationToken,
}

impl Arrivals {
    /// Hands over arrivals at their times until enough have been sent and it is stopped. It never waits for
    /// anything but the clock: after a pause of the machine it catches up at once.
    pub(super) fn run(mut self, began: Instant, sender: &UnboundedSender<Arrival>) {
        let (mut due, mut sent) = (0.0_f64, 0_usize);
        loop {
            let over = sent >= self.at_least && self.stop.is_cancelled();
            if over || self.cancel.is_cancelled() {
                return;
            }
            due += self.gaps.exponential() / self.per_second;
            let intended = Duration::from_secs_f64(due);
            if let Some(wait) = (began + intended).checked_duration_since(Instant::now()) {
                std::thread::sleep(wait);
            }
            if sender.send(Arrival { id: self.ids.request_id(), intended }).is_err() {
                return;
            }
            sent += 1;
        }
    }
}
