//! How long an endpoint usually takes until its response begins, from what live traffic shows.
//!
//! The smoothed mean and deviation of RFC 6298 section 2, kept without a lock: two workers that learn at the same moment
//! may lose one sample, which changes nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringmaster_core::snapshot;

/// A second try is never made sooner: the scheduler of a busy host takes that long at times.
const HEDGE_MIN: Duration = Duration::from_millis(100);
/// The same, as long as nothing is known of any endpoint.
pub(crate) const HEDGE_UNKNOWN: Duration = Duration::from_millis(250);

/// What is known; all zero before the first sample.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    mean_us: AtomicU64,
    deviation_us: AtomicU64,
}

impl Latency {
    /// A response took this long to begin.
    pub(crate) fn learn(&self, took: Duration) {
        let sample = (took.as_micros() as u64).max(1);
        let mean = self.mean_us.load(Ordering::Relaxed);
        if mean == 0 {
            self.mean_us.store(sample, Ordering::Relaxed);
            self.deviation_us.store(sample / 2, Ordering::Relaxed);
            return;
        }
        let deviation = self.deviation_us.load(Ordering::Relaxed);
        // One request that hung must not raise the estimate for all that follow.
        let sample = sample.min(2 * (mean + 4 * deviation).max(HEDGE_MIN.as_micros() as u64));
        let distance = mean.abs_diff(sample);
        self.deviation_us.store(deviation - deviation / 4 + distance / 4, Ordering::Relaxed);
        let step = distance / 8;
        let mean = if sample > mean { mean + step } else { mean - step };
        self.mean_us.store(mean.max(1), Ordering::Relaxed);
    }

    /// After how long it is later than usual, if that is known.
    pub(crate) fn hedge_delay(&self) -> Option<Duration> {
        let known = self.known()?;
        Some(Duration::from_micros(2 * (known.mean_us + 4 * known.deviation_us)).max(HEDGE_MIN))
    }

    /// What is known, if anything is.
    pub(crate) fn known(&self) -> Option<snapshot::Latency> {
        let mean_us = self.mean_us.load(Ordering::Relaxed);
        (mean_us > 0)
            .then(|| snapshot::Latency { mean_us, deviation_us: self.deviation_us.load(Ordering::Relaxed) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(samples_ms: impl IntoIterator<Item = u64>) -> Latency {
        let latency = Latency::default();
        samples_ms.into_iter().for_each(|ms| latency.learn(Duration::from_millis(ms)));
        latency
    }

    #[test]
    fn what_takes_long_is_given_long() {
        assert_eq!(after([]).hedge_delay(), None);
        assert_eq!(after(vec![1; 100]).hedge_delay(), Some(HEDGE_MIN));
        let slow = after(vec![2_000; 100]).hedge_delay().unwrap().as_millis();
        assert!((4_000..5_000).contains(&slow), "{slow}");
        let uneven = after([10, 50].repeat(100)).hedge_delay().unwrap().as_millis();
        assert!(uneven > 100, "{uneven}");
    }

    #[test]
    fn one_that_hangs_teaches_little() {
        let latency = after(vec![1; 100]);
        latency.learn(Duration::from_secs(5));
        let delay = latency.hedge_delay().unwrap();
        assert!(delay < Duration::from_millis(600), "{delay:?}");
        (0..20).for_each(|_| latency.learn(Duration::from_millis(1)));
        assert!(latency.hedge_delay().unwrap() < Duration::from_millis(200));
    }
}
