//! The promises: what must hold after every step (S), and what must come true once the faults stop (L).

use std::fmt;

use crate::fault::named;

named! {
    /// A promise. The numbers are those of the design.
    Promise {
        /// Replacements beside ready replicas are begun within the strategy's surge, those that still drain counted.
        S1 => "S1 surge: beside what serves no more than the strategy allows",
        /// A ready replica is taken out of traffic only for another, or because it is no longer desired.
        S2 => "S2 availability: what is ready keeps its traffic",
        /// Nothing of others is touched.
        S3 => "S3 ownership: objects of others are never touched",
        /// A name is used once in a run.
        S4 => "S4 names: no name is used twice",
        /// Whoever gets traffic was ready by the last verdict.
        S5 => "S5 readiness: only what is ready gets traffic",
        /// Nothing is stopped that the data plane may still send requests to, or within its drain time.
        S6 => "S6 drain: nothing is stopped under its requests",
        /// Generations of snapshots grow.
        S7 => "S7 snapshots: generations grow",
        /// An engine that does not answer costs no endpoint.
        S8 => "S8 unknown is not gone: an engine away costs no traffic",
        /// A status never claims what is not.
        S9 => "S9 status: claims only what is",
        /// Nothing is removed that the saved state still wants.
        S10 => "S10 intent: what the saved state wants stays",
        /// Without a good list nothing is done.
        S11 => "S11 sight: without a good list nothing is done",
        /// What is as desired is left alone.
        S13 => "S13 rest: nothing is done when all is as desired",
        /// Failures are answered by waits that grow.
        S14 => "S14 backoff: retries are bounded",
        /// What counts as ready as a whole was so, and only to that does a service go back.
        S15 => "S15 rollback: only to what was ready as a whole",
        /// A plan depends on nothing but what is observed, in whatever order.
        S16 => "S16 determinism: same input, same plan",
        /// No secret in a status.
        S17 => "S17 secrets: none in a status",
        /// What is acted on is what was meant, even if its id was given to another.
        S18 => "S18 identity: acts on what was meant",
        /// A count that follows the load stays within its bounds, and the next step down waits for the drain of the last.
        S19 => "S19 autoscaling: within its bounds, one drain after the other",
        /// A count that went up goes down by load only one window later.
        S20 => "S20 steadiness: no count goes up and down within its window",
        /// What is desired comes true.
        L1 => "L1 convergence: what is desired comes true",
        /// Then it stays so.
        L2 => "L2 fixpoint: and stays so",
        /// After a crash anywhere too.
        L3 => "L3 crash: after a crash anywhere too",
        /// Every container that wears our labels is used, removed or reported.
        L4 => "L4 no strays: every replica is used, removed or reported",
        /// Every drain ends.
        L5 => "L5 drains end",
        /// One replica that is bad for good does not keep the others from being as desired, and is reported. A release that
        /// is bad for good is given up.
        L6 => "L6 what is bad: the others come true, a bad release is given up",
        /// A request to a service at zero is answered within its deadline.
        L9 => "L9 waking: a request to a service at zero is answered",
        /// There and back again is as if nothing had been.
        L8 => "L8 there and back: A, B, A is A",
    }
}

impl Promise {
    /// Its number alone.
    pub fn number(self) -> &'static str {
        self.name().split(' ').next().unwrap_or_default()
    }
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which one.
    pub promise: Promise,
    /// What was seen.
    pub what: String,
    /// When, in milliseconds of the run.
    pub at: u64,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: at {} ms {}", self.promise, self.at, self.what)
    }
}

/// How often each promise had something to say, and the first that was broken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checks {
    pub(crate) premises: [u64; Promise::ALL.len()],
    pub(crate) broken: Option<Broken>,
    pub(crate) now: u64,
}

impl Checks {
    /// A promise whose premise is true, and whether it holds. `what` is only asked for when it does not.
    pub(crate) fn expect(&mut self, promise: Promise, holds: bool, what: impl FnOnce() -> String) {
        self.premises[promise as usize] += 1;
        if !holds && self.broken.is_none() {
            self.broken = Some(Broken { promise, what: what(), at: self.now });
        }
    }
}
