//! The ring: which member owns which key, and who comes next when it is not there.

pub mod allocation;
pub mod codec;
pub mod slot_table;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Hashes a key for the ring: XXH3-64 with the table's seed (its output is frozen on every platform).
pub fn hash_key(seed: u64, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, seed)
}

/// The `k`-th hash of a key, from its first: `k` = 0 is the hash itself. A full-avalanche mix (the finaliser
/// of SplitMix64, Steele et al., OOPSLA 2014), so that the keys of one slot scatter over all others.
pub fn rehash(hash: u64, k: u32) -> u64 {
    if k == 0 {
        return hash;
    }
    let mut z = hash.wrapping_add(u64::from(k).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
