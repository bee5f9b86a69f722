//! Choices by load and by turn, for requests without a key and for policies that do not hash.
//!
//! Pure: the loads come as values, the turns' state and the random numbers belong to the caller.

use std::cmp::Ordering;

/// By how many times the requests in flight must differ to outweigh the turn.
const CLEARLY: u128 = 2;

/// What is known of one endpoint when a request is to be given to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Requests in flight.
    pub in_flight: u64,
    /// How often it was chosen by load or turn.
    pub served: u64,
    /// Its weight; 0 is never chosen while there is another.
    pub weight: u32,
}

impl Load {
    /// Less loaded first: fewer in flight for its weight, counting the request to come; ties go to the one that
    /// served fewer for its weight.
    pub fn compare(&self, other: &Load) -> Ordering {
        let scaled = |count: u64, weight: u32| u128::from(count) * u128::from(weight);
        match (self.weight, other.weight) {
            (0, 0) => self.in_flight.cmp(&other.in_flight).then(self.served.cmp(&other.served)),
            (0, _) => Ordering::Greater,
            (_, 0) => Ordering::Less,
            (own, others) => scaled(self.in_flight.saturating_add(1), others)
                .cmp(&scaled(other.in_flight.saturating_add(1), own))
                .then(scaled(self.served, others).cmp(&scaled(other.served, own))),
        }
    }

    /// As [`Load::compare`], but only an endpoint with less than half of the requests in flight counts as less
    /// loaded; all others are equal, and the turn decides. Two draws that go by every single request follow the noise
    /// of the scheduler and leave counts uneven by several percent; a replica that really lags still gets no more than
    /// twice the others' load. Who wants to go by load alone has `p2c` and `least-request`.
    pub fn compare_roughly(&self, other: &Load) -> Ordering {
        if self.weight == 0 || other.weight == 0 {
            return self.compare(other);
        }
        let scaled = |count: u64, weight: u32| u128::from(count) * u128::from(weight);
        let (own, others) = (scaled(self.in_flight, other.weight), scaled(other.in_flight, self.weight));
        let (own_turns, other_turns) = (scaled(self.served, other.weight), scaled(other.served, self.weight));
        match (own > CLEARLY * others, others > CLEARLY * own) {
            (true, _) => Ordering::Greater,
            (_, true) => Ordering::Less,
            _ => own_turns.cmp(&other_turns).then(own.cmp(&others)),
        }
    }
}

/// `least-request`: the index of the least loaded, the first of equals.
pub fn least_request(loads: impl IntoIterator<Item = Load>) -> Option<usize> {
    let least = loads.into_iter().enumerate().min_by(|(_, a), (_, b)| a.compare(b))?;
    Some(least.0)
}

/// `p2c`: the less loaded of two different indices below `count`, drawn from two random numbers (Mitzenmacher,
/// 2001), by `compare`. None if `count` is 0.
pub fn power_of_two(
    count: usize,
    random: [u32; 2],
    load: impl Fn(usize) -> Load,
    compare: impl Fn(&Load, &Load) -> Ordering,
) -> Option<usize> {
    let below = |random: u32, end: usize| ((u64::from(random) * end as u64) >> 32) as usize;
    match count {
        0 => None,
        1 => Some(0),
        _ => {
            let first = below(random[0], count);
            let second = (first + 1 + below(random[1], count - 1)) % count;
            Some(if compare(&load(second), &load(first)).is_lt() { second } else { first })
        }
    }
}

/// `round-robin`: the turns of weighted members, spread evenly (nginx's smooth weighted round-robin): in every
/// round of `Σ w` turns each gets exactly `w`, and a heavy one does not get them in a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turns {
    credits: Vec<i64>,
}

impl Turns {
    /// The index of the next one among members of these weights, in a fixed order. None if there is none, or
    /// all weights are 0. When the number of members changes the turns begin anew.
    pub fn next(&mut self, weights: &[u32]) -> Option<usize> {
        if self.credits.len() != weights.len() {
            self.credits = vec![0; weights.len()];
        }
        let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
        let mut chosen: Option<usize> = None;
        for (index, weight) in weights.iter().enumerate() {
            self.credits[index] += i64::from(*weight);
            let is_ahead = chosen.is_none_or(|best| self.credits[index] > self.credits[best]);
            if *weight > 0 && is_ahead {
                chosen = Some(index);
            }
        }
        self.credits[chosen?] -= total;
        chosen
    }
}
