//! What every request counts of its service: durations, statuses and bytes, each worker in memory of its own.
//!
//! A reader adds the stripes up. Deliberately absent: what is counted of single servers (`stats`).

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::per_worker::PerWorker;

/// Upper bounds of the buckets of durations, in microseconds.
const BOUNDS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000,
];

/// Counters of one service, striped by worker.
#[derive(Debug)]
pub(crate) struct Stripes(PerWorker<Stripe>);

/// One worker's.
#[derive(Debug, Default)]
struct Stripe {
    buckets: [AtomicU64; BOUNDS_US.len()],
    beyond: AtomicU64,
    micros: AtomicU64,
    responses: [AtomicU64; 5],
    received: AtomicU64,
    sent: AtomicU64,
}

/// The stripes added up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Totals {
    /// Requests by bucket: its upper bound in seconds, and what fell between it and the one before.
    pub(crate) buckets: [(f64, u64); BOUNDS_US.len()],
    /// Requests that took longer than the last bound.
    pub(crate) beyond: u64,
    /// Of all requests' durations.
    pub(crate) seconds: f64,
    /// Responses of the classes 1xx to 5xx.
    pub(crate) responses: [u64; 5],
    /// Bytes of request bodies.
    pub(crate) received: u64,
    /// Bytes of response bodies.
    pub(crate) sent: u64,
}

impl Stripes {
    /// For so many workers.
    pub(crate) fn new(workers: usize) -> Stripes {
        Stripes(PerWorker::new(workers))
    }

    /// A request has ended: its response was handed over whole, or given up.
    pub(crate) fn end(&self, worker: usize, took: Duration, sent: u64) {
        let stripe = self.0.of(worker);
        let micros = took.as_micros() as u64;
        let bucket = BOUNDS_US.iter().position(|bound| micros <= *bound);
        bucket.map_or(&stripe.beyond, |index| &stripe.buckets[index]).fetch_add(1, Ordering::Relaxed);
        stripe.micros.fetch_add(micros, Ordering::Relaxed);
        if sent > 0 {
            stripe.sent.fetch_add(sent, Ordering::Relaxed);
        }
    }

    /// A response begins, whoever made it.
    pub(crate) fn respond(&self, worker: usize, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5);
        self.0.of(worker).responses[class - 1].fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of a request's body have come.
    pub(crate) fn receive(&self, worker: usize, bytes: u64) {
        if bytes > 0 {
            self.0.of(worker).received.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// How many responses have begun, on all workers.
    pub(crate) fn completed(&self) -> u64 {
        let of_stripe =
            |stripe: &Stripe| stripe.responses.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u64>();
        self.0.iter().map(of_stripe).sum()
    }

    /// All workers' together.
    pub(crate) fn totals(&self) -> Totals {
        let sum = |of: &dyn Fn(&Stripe) -> &AtomicU64| self.0.sum(of);
        Totals {
            buckets: array::from_fn(|index| {
                (BOUNDS_US[index] as f64 / 1e6, sum(&|stripe| &stripe.buckets[index]))
            }),
            beyond: sum(&|stripe| &stripe.beyond),
            seconds: sum(&|stripe| &stripe.micros) as f64 / 1e6,
            responses: array::from_fn(|class| sum(&|stripe| &stripe.responses[class])),
            received: sum(&|stripe| &stripe.received),
            sent: sum(&|stripe| &stripe.sent),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::Instant;

    use super::*;

    #[test]
    fn counts_of_all_workers_are_added_up_and_bounds_belong_to_their_bucket() {
        let stripes = Stripes::new(3);
        for request in 0..48 {
            stripes.end(request % 3, Duration::from_micros(100), 7);
            stripes.respond(request % 3, 200);
        }
        stripes.end(0, Duration::from_micros(101), 0);
        stripes.end(1, Duration::from_secs(60), 0);
        stripes.receive(2, 5);
        let totals = stripes.totals();
        assert_eq!(totals.buckets[0], (0.0001, 48));
        assert_eq!((totals.buckets[1].1, totals.beyond, totals.received), (1, 1, 5));
        assert_eq!((totals.responses, totals.sent), ([0, 48, 0, 0, 0], 48 * 7));
        assert!((totals.seconds - 60.004_901).abs() < 1e-9, "{}", totals.seconds);
    }

    /// The price that a request pays: two counts of what is done once per request, and their stripes are not shared.
    #[test]
    fn a_count_costs_nanoseconds() {
        const ROUNDS: u32 = 2_000_000;
        let stripes = Stripes::new(2);
        let best = |count: &dyn Fn(u32)| {
            let run = |_| {
                let started = Instant::now();
                (0..ROUNDS).for_each(count);
                started.elapsed().as_nanos() as f64 / f64::from(ROUNDS)
            };
            (0..5).map(run).fold(f64::INFINITY, f64::min)
        };
        let respond = best(&|_| stripes.respond(black_box(1), black_box(200)));
        let end =
            best(&|n| stripes.end(black_box(1), Duration::from_micros(u64::from(black_box(n) % 2_000)), 100));
        println!("a status {respond:.1} ns; a duration with its bucket, its sum and bytes {end:.1} ns");
        // Three additions in `end`; the bound is generous, because others use this machine too.
        assert!(respond < 50.0 && end < 150.0, "{respond:.1} ns, {end:.1} ns");
    }
}
