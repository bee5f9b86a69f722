//! What keeps a key from its owner for a while: a bound on the load. It is a question about one member, asked along
//! the key's candidates: the first one that says yes serves.

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
