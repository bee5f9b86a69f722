//! The ring: which member owns which key, and who comes next when it is not there.
//!
//! [`RingState`] is what the controller keeps and persists; [`Ring`] is what it publishes. A ring knows desired
//! members only. Who is ready, and what else takes a member out of its turn, is asked by [`explain`] and by the data
//! plane while they walk along [`Ring::candidates`].
//!
//! Policies and where they are: `slot-table` in [`slot_table`], [`allocation`] and [`codec`]; `assignment` in
//! [`assignment`] and [`formula`]; `ring` in [`ketama`]; [`maglev`]; [`rendezvous`]; what does not hash in
//! [`select`]. Modifiers: [`bounded`]. Figures: [`stats`]. A published ring as bytes: `wire`.
//!
//! `maglev`, `ring`, `rendezvous` and `assignment` use no secret seed: the same members place a key alike in every
//! daemon, and offline. Who must not be able to choose a replica by choosing keys wants `slot-table`, or a bound.

pub mod allocation;
pub mod assignment;
pub mod bounded;
pub mod codec;
pub mod explain;
pub mod formula;
pub mod ketama;
pub mod maglev;
mod published;
pub mod rendezvous;
pub mod select;
pub mod slot_table;
pub mod state;
pub mod stats;
mod wire;

use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use published::{Candidates, KeyHash, Moved, Ring, Unkeyed};
pub use state::{RestoreError, RingError, RingMember, RingState, fresh};

use crate::ids::Ordinal;
use slot_table::ORDINALS_MAX;

/// What one member owns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// The member.
    pub ordinal: Ordinal,
    /// Its slots, or its points on a ketama ring; 0 where the policy has neither.
    pub slots: u64,
    /// Which share of all keys is its own, from 0 to 1.
    pub share: f64,
}

/// Hashes a key for the ring: XXH3-64 with the table's seed (its output is frozen on every platform).
#[inline]
pub fn hash_key(seed: u64, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, seed)
}

/// The `k`-th hash of a key, from its first: `k` = 0 is the hash itself. A full-avalanche mix (the finaliser
/// of SplitMix64, Steele et al., OOPSLA 2014), so that the keys of one slot scatter over all others.
pub fn rehash(hash: u64, k: u32) -> u64 {
    if k == 0 {
        return hash;
    }
    mix(hash.wrapping_add(u64::from(k).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The members that a walk has yielded already.
#[derive(Debug, Clone, Default)]
struct Seen([u64; ORDINALS_MAX / 64]);

impl Seen {
    /// Whether `ordinal` is new; marks it as yielded.
    fn take(&mut self, ordinal: Ordinal) -> bool {
        let (word, bit) = (ordinal.index() / 64, 1_u64 << (ordinal.index() % 64));
        let fresh = self.0[word] & bit == 0;
        self.0[word] |= bit;
        fresh
    }
}
