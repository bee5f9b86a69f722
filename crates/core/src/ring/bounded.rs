//! What keeps a key from its owner for a while: a bound on the load, and a slow start. Each is a question about one
//! member, asked along the key's candidates: the first one that says yes serves.

use std::time::Duration;

use super::{KeyHash, rehash};
use crate::quantity::Factor;

/// The most requests that a member may have in flight under `boundedLoad: c`: `⌈c · (F + 1) · w / W⌉`, with `F`
/// in flight over all members that may be chosen, its weight `w`, and their weights' sum `W` (Mirrokni, Thorup and
/// Zadimoghaddam, SODA 2018). Over all those members the caps add up to more than `F`, so one of them has room.
pub fn cap(bound: Factor, in_flight_total: u64, weight: u32, weight_total: u64) -> u64 {
    if weight_total == 0 {
        return 0;
    }
    let load = u128::from(bound.thousandths) * (u128::from(in_flight_total) + 1) * u128::from(weight);
    u64::try_from(load.div_ceil(1_000 * u128::from(weight_total))).unwrap_or(u64::MAX)
}

/// Whether a member may take one more request under [`cap`].
pub fn has_room(bound: Factor, in_flight: u64, in_flight_total: u64, weight: u32, weight_total: u64) -> bool {
    in_flight < cap(bound, in_flight_total, weight, weight_total)
}

/// Whether a member that has served for `age` has taken over this key in a slow start of `duration`: its share of its
/// own keys grows evenly with time, and what it has taken over it keeps.
pub fn keeps(key: KeyHash, age: Duration, duration: Duration) -> bool {
    // Another hash than those of the candidates', so that the keys that stay away are spread over all others.
    let place = rehash(key.value(), u32::MAX - 1) >> 32;
    is_taken_over(place as u32, age, duration)
}

/// Whether a place among 2^32 evenly spread ones belongs to the share that a slow start has reached.
pub fn is_taken_over(place: u32, age: Duration, duration: Duration) -> bool {
    u128::from(place) * duration.as_nanos() < age.as_nanos() << 32
}
