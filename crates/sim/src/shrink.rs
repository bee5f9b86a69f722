//! Makes a failing run small: takes faults away as long as the same promise stays broken.

use std::collections::BTreeSet;

use crate::fault::Site;
use crate::{Config, Outcome, run};

/// The smallest run that was found to break the same promise (delta debugging over the sites of faults), traced.
pub fn shrink(config: &Config, failed: &Outcome) -> Outcome {
    let Some(promise) = failed.broken.as_ref().map(|broken| broken.promise) else { return failed.clone() };
    let fails = |sites: &[Site]| {
        let only: BTreeSet<Site> = sites.iter().copied().collect();
        let outcome = run(config, failed.seed, Some(&only), false);
        outcome.broken.as_ref().is_some_and(|broken| broken.promise == promise)
    };
    let mut sites: Vec<Site> = failed.sites.iter().map(|(site, _)| *site).collect();
    let mut parts = 2;
    while sites.len() > 1 {
        let size = sites.len().div_ceil(parts);
        let without = |index: usize| -> Vec<Site> {
            let (from, to) = (index * size, ((index + 1) * size).min(sites.len()));
            sites.iter().enumerate().filter(|(n, _)| *n < from || *n >= to).map(|(_, site)| *site).collect()
        };
        match (0..sites.len().div_ceil(size)).map(without).find(|rest| fails(rest)) {
            Some(rest) => {
                sites = rest;
                parts = parts.saturating_sub(1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(sites.len()),
        }
    }
    if sites.len() == 1 && fails(&[]) {
        sites.clear();
    }
    run(config, failed.seed, Some(&sites.into_iter().collect()), true)
}
