//! Sieve's three patterns, enumerated: one fault at every place where it can strike (Sun et al., OSDI 2022).

use crate::fault::{Boundary, Fault, Faults, Site};
use crate::report::Tally;
use crate::{Config, run_with};

/// A clean run, and then one for each of its places: the controller is killed after every action and its every step
/// (intermediate states), a list answers what the one before did (stale states), a hint is lost (unobserved states).
/// The run follows a script of changes, so that there is something to do. Stops at the first that fails.
pub fn sieve(config: &Config, seed: u64) -> Tally {
    let mut tally = Tally::default();
    let clean = run_with(config, seed, Faults::told(seed, None), false);
    let reached = clean.reached;
    tally.add(clean);
    for (boundary, fault) in patterns() {
        for number in 0..reached[boundary as usize] {
            if !tally.failed().is_empty() {
                return tally;
            }
            let told = Some((Site { boundary, number }, fault));
            tally.add(run_with(config, seed, Faults::told(seed, told), false));
        }
    }
    tally
}

fn patterns() -> impl Iterator<Item = (Boundary, Fault)> {
    let killed = Boundary::ALL.iter().filter(|boundary| Fault::ControllerKilled.fits(**boundary));
    let killed = killed.map(|boundary| (*boundary, Fault::ControllerKilled));
    killed.chain([(Boundary::List, Fault::StaleList), (Boundary::Event, Fault::EventLost)])
}
