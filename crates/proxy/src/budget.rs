//! How many requests of a service may be tried again or beside their first try, so that an outage is not multiplied.
//!
//! A share of the requests of the last ten seconds, and some more per second for services with few (as Finagle's and
//! linkerd's retry budgets). What was never sent needs no budget.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringmaster_core::quantity::Percent;

/// Seconds that count.
const WINDOW_S: u64 = 10;
/// What is allowed per second whatever the number of requests.
const PER_SECOND: u64 = 10;

/// One service's budget, of all workers.
#[derive(Debug)]
pub(crate) struct Budget {
    start: Instant,
    window: Mutex<Window>,
}

/// What happened in the seconds that count.
#[derive(Debug, Default)]
struct Window {
    /// How many requests had been completed at the beginning of a second.
    completed: VecDeque<(u64, u64)>,
    /// How many tries were granted in a second.
    granted: VecDeque<(u64, u64)>,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { start: Instant::now(), window: Mutex::default() }
    }
}

impl Budget {
    /// Asks for one more try; `completed` is how many requests have been completed so far.
    pub(crate) fn withdraw(&self, share: Percent, completed: u64) -> bool {
        self.window().withdraw(self.second(), share, completed)
    }

    /// Notes how many requests have been completed; called about once a second.
    pub(crate) fn note(&self, completed: u64) {
        self.window().note(self.second(), completed);
    }

    fn second(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    fn note(&mut self, second: u64, completed: u64) {
        if self.completed.back().is_none_or(|(last, _)| *last < second) {
            self.completed.push_back((second, completed));
        }
        while self.completed.len() > 1 && self.completed[1].0 + WINDOW_S <= second {
            self.completed.pop_front();
        }
    }

    fn withdraw(&mut self, second: u64, share: Percent, completed: u64) -> bool {
        self.note(second, completed);
        while self.granted.front().is_some_and(|(at, _)| at + WINDOW_S <= second) {
            self.granted.pop_front();
        }
        let recent = completed.saturating_sub(self.completed.front().map_or(0, |(_, count)| *count));
        let allowed = recent * u64::from(share.0) / 100 + PER_SECOND * WINDOW_S;
        let granted: u64 = self.granted.iter().map(|(_, count)| count).sum();
        if granted >= allowed || share == Percent(0) {
            return false;
        }
        match self.granted.back_mut() {
            Some((at, count)) if *at == second => *count += 1,
            _ => self.granted.push_back((second, 1)),
        }
        true
    }
}

/// How often [`Budget::note`] is called.
pub(crate) const NOTE_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `asked` tries are granted in this second.
    fn granted(window: &mut Window, second: u64, completed: u64, asked: u32) -> u32 {
        (0..asked).map(|_| u32::from(window.withdraw(second, Percent(20), completed))).sum()
    }

    #[test]
    fn an_outage_is_not_multiplied() {
        let mut window = Window::default();
        assert_eq!(granted(&mut window, 0, 0, 1_000), 100, "10 per second");
        for second in 1..=9 {
            window.note(second, second * 500);
        }
        assert_eq!(granted(&mut window, 9, 4_500, 10_000), 900, "and 20 % of 4,500 requests");
        assert_eq!(granted(&mut window, 9, 4_500, 10), 0);
    }

    #[test]
    fn what_was_spent_comes_back_after_ten_seconds() {
        let mut window = Window::default();
        assert_eq!(granted(&mut window, 3, 0, 200), 100);
        assert_eq!(granted(&mut window, 12, 0, 200), 0);
        assert_eq!(granted(&mut window, 13, 0, 200), 100);
    }

    #[test]
    fn only_recent_requests_count() {
        let mut window = Window::default();
        for second in 0..=30 {
            window.note(second, if second < 10 { second * 1_000 } else { 10_000 });
        }
        assert_eq!(granted(&mut window, 30, 10_000, 5_000), 100);
    }

    #[test]
    fn without_a_share_there_is_none() {
        assert!(!Window::default().withdraw(0, Percent(0), 1_000));
    }
}
