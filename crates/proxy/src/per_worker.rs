//! What every worker keeps for itself of something they share, for others to add up.
//!
//! Two cores that write to one cache line wait for each other, some ten nanoseconds each time and several times per
//! request; a count in memory of one's own costs one addition that nobody contends for.

use std::sync::atomic::{AtomicU64, Ordering};

/// One value per worker, no two of which share a cache line.
#[derive(Debug)]
pub(crate) struct PerWorker<T>(Box<[Own<T>]>);

/// Processors fetch lines of 64 bytes in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Own<T>(T);

impl<T: Default> PerWorker<T> {
    /// For so many workers.
    pub(crate) fn new(workers: usize) -> PerWorker<T> {
        PerWorker((0..workers).map(|_| Own::default()).collect())
    }
}

impl<T> PerWorker<T> {
    /// The worker's own.
    ///
    /// # Panics
    /// A worker beyond those it was made for.
    pub(crate) fn of(&self, worker: usize) -> &T {
        &self.0[worker].0
    }

    /// All of them, by worker.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|own| &own.0)
    }

    /// One count of all workers. Not of one moment: each is read for itself.
    pub(crate) fn sum(&self, count: impl Fn(&T) -> &AtomicU64) -> u64 {
        self.iter().map(|own| count(own).load(Ordering::Relaxed)).sum()
    }
}
