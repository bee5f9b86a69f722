//! What many runs have shown, added up, and its text.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::Outcome;
use crate::fault::{Boundary, Fault};
use crate::promise::Promise;

/// What many runs have shown.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// How many runs.
    pub runs: u64,
    /// How many events they had.
    pub steps: u64,
    premises: BTreeMap<Promise, u64>,
    struck: BTreeMap<(Fault, Boundary), u64>,
    failed: Vec<Outcome>,
}

impl Tally {
    /// Adds a run.
    pub fn add(&mut self, outcome: Outcome) {
        self.runs += 1;
        self.steps += outcome.steps;
        for (promise, count) in Promise::ALL.iter().zip(outcome.premises) {
            *self.premises.entry(*promise).or_default() += count;
        }
        for (cell, count) in &outcome.struck {
            *self.struck.entry(*cell).or_default() += count;
        }
        if outcome.broken.is_some() {
            self.failed.push(outcome);
        }
    }

    /// Adds what others have seen.
    pub fn merge(&mut self, other: Tally) {
        self.runs += other.runs;
        self.steps += other.steps;
        for (promise, count) in other.premises {
            *self.premises.entry(promise).or_default() += count;
        }
        for (cell, count) in other.struck {
            *self.struck.entry(cell).or_default() += count;
        }
        self.failed.extend(other.failed);
        self.failed.sort_by_key(|outcome| outcome.seed);
    }

    /// The runs that broke a promise, by their seeds.
    pub fn failed(&self) -> &[Outcome] {
        &self.failed
    }

    /// How often a promise had something to say.
    pub fn premise(&self, promise: Promise) -> u64 {
        self.premises.get(&promise).copied().unwrap_or_default()
    }

    /// How often a fault struck at a boundary.
    pub fn struck(&self, fault: Fault, boundary: Boundary) -> u64 {
        self.struck.get(&(fault, boundary)).copied().unwrap_or_default()
    }

    /// How often a fault struck.
    pub fn strikes(&self, fault: Fault) -> u64 {
        Boundary::ALL.iter().map(|boundary| self.struck(fault, *boundary)).sum()
    }

    /// The promises, each with how often it was put to the test.
    pub fn promises(&self) -> String {
        let mut text = String::new();
        for promise in Promise::ALL {
            let mut broken = self.failed.iter().filter_map(|outcome| outcome.broken.as_ref());
            let is_broken = broken.any(|broken| broken.promise == *promise);
            let verdict = match (is_broken, self.premise(*promise)) {
                (true, _) => "BROKEN",
                (false, 0) => "not tested",
                (false, _) => "held",
            };
            let count = self.premise(*promise);
            // Writing to a string cannot fail.
            _ = writeln!(text, "{verdict:<10} {count:>12}  {promise}");
        }
        text
    }

    /// Every fault at every boundary, and how often it struck there; a dot where it cannot.
    pub fn matrix(&self) -> String {
        let mut text = format!("{:<18}", "");
        for boundary in Boundary::ALL {
            _ = write!(text, "{boundary:>9}");
        }
        text.push('\n');
        for fault in Fault::ALL {
            _ = write!(text, "{fault:<18}");
            for boundary in Boundary::ALL {
                match fault.fits(*boundary) {
                    true => _ = write!(text, "{:>9}", self.struck(*fault, *boundary)),
                    false => _ = write!(text, "{:>9}", "."),
                }
            }
            text.push('\n');
        }
        text
    }
}

impl Outcome {
    /// What happened: the seed and the sites that make it happen again, what broke, and the trace if there is one.
    /// `commit` tells which program it was.
    pub fn story(&self, commit: &str) -> String {
        let sites: Vec<String> = self.sites.iter().map(|(site, fault)| format!("{site}:{fault}")).collect();
        let mut text = format!("SEED={} COMMIT={commit} SITES={}\n", self.seed, sites.join(","));
        match &self.broken {
            Some(broken) => _ = writeln!(text, "{broken}"),
            None => text.push_str("every promise held\n"),
        }
        for line in &self.trace {
            _ = writeln!(text, "  {line}");
        }
        text
    }
}
