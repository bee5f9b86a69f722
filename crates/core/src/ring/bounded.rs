//! What keeps a key from its owner for a while: a bound on the load, and slow start.
//!
//! Both are questions about one member, asked along the key's candidates: the first one that says yes serves.

use std::time::Duration;

use super::rehash;
use crate::quantity::Factor;

/// Which of a key's hashes decides over slow start: one that no search for a slot gets to.
const SLOW_START_HASH: u32 = u32::MAX - 1;

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

/// Whether a member that was added `elapsed` ago keeps a key whose hash is `hash` while it starts slowly. The
/// share of its keys that it keeps grows evenly from none to all within `duration`; a key that it has, it keeps.
pub fn keeps(hash: u64, elapsed: Duration, duration: Duration) -> bool {
    if elapsed >= duration {
        return true;
    }
    // In nanoseconds and with the hash's top bits: exact, and both fit into 128 bits.
    let place = u128::from(rehash(hash, SLOW_START_HASH) >> 32);
    place * duration.as_nanos() < elapsed.as_nanos() << 32
}
