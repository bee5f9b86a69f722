//! A sample of the keys of the last minutes, to tell what a change of the ring would mean for the traffic there is.
//!
//! Pure: times and random numbers come from the caller. Keys are kept in memory alone and never shown; longer ones
//! than 256 bytes are left out of account.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::ring::Ring;

/// Over how many minutes the sample reaches.
pub const MINUTES: u64 = 5;
/// Keys that are kept of each minute.
const KEYS_PER_MINUTE: usize = 512;
/// Of fewer requests the most frequent key says nothing.
const HOTTEST_OF_MIN: u64 = 100;
/// Longer keys are not kept.
const KEY_BYTES_MAX: usize = 256;

/// An even sample of the keys of each of the last minutes (reservoir sampling: Vitter, TOMS 1985, algorithm R).
#[derive(Debug, Clone, Default)]
pub struct KeySample {
    windows: Vec<Window>,
}

#[derive(Debug, Clone)]
struct Window {
    minute: u64,
    /// Requests with a key that were offered.
    offered: u64,
    keys: Vec<Box<[u8]>>,
}

/// What a change means for recent traffic.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficMoved {
    /// Requests with a key that were seen.
    pub requests: u64,
    /// The share of them whose key would get another owner, from 0 to 1, estimated from the sample.
    pub share: f64,
}

impl KeySample {
    /// Takes note of a request in a minute, counted from any start. `random` is even over 32 bits.
    pub fn offer(&mut self, minute: u64, key: &[u8], random: u32) {
        if self.windows.last().is_none_or(|window| window.minute < minute) {
            self.windows.retain(|window| window.minute + MINUTES > minute);
            self.windows.push(Window { minute, offered: 0, keys: Vec::new() });
        }
        let Some(window) = self.windows.last_mut().filter(|_| key.len() <= KEY_BYTES_MAX) else { return };
        window.offered += 1;
        if window.keys.len() < KEYS_PER_MINUTE {
            window.keys.push(key.into());
            return;
        }
        let place = (u128::from(random) * u128::from(window.offered)) >> 32;
        if let Some(kept) = window.keys.get_mut(place as usize) {
            *kept = key.into();
        }
    }
}

/// The share of the keyed requests of this and the last minute that have the most frequent key, in thousandths,
/// estimated from samples of different requests; none of fewer than 100 requests.
pub fn hottest_permille<'a>(samples: impl IntoIterator<Item = &'a KeySample>, minute: u64) -> Option<u16> {
    let mut counts: HashMap<&[u8], f64> = HashMap::new();
    let mut total = 0;
    let windows = samples.into_iter().flat_map(|sample| &sample.windows);
    for window in windows.filter(|window| window.minute + 1 >= minute) {
        total += window.offered;
        // Each key that is kept stands for as many requests.
        let stands_for = window.offered as f64 / window.keys.len().max(1) as f64;
        for key in &window.keys {
            *counts.entry(key).or_default() += stands_for;
        }
    }
    let most = counts.into_values().fold(0.0, f64::max);
    (total >= HOTTEST_OF_MIN).then(|| (1_000.0 * most / total as f64).round() as u16)
}

/// What a change of the ring would mean for the requests of the last [`MINUTES`] before and in `minute`, estimated from
/// samples of different requests. None if there were none, or nobody owned their keys.
pub fn moved<'a>(
    samples: impl IntoIterator<Item = &'a KeySample>,
    minute: u64,
    before: &Ring,
    after: &Ring,
) -> Option<TrafficMoved> {
    let (mut requests, mut moved) = (0_u64, 0.0);
    let windows = samples.into_iter().flat_map(|sample| &sample.windows);
    for window in windows.filter(|window| window.minute + MINUTES > minute) {
        let owner = |ring: &Ring, key: &[u8]| ring.owner(ring.hash(key));
        let moves = |key: &[u8]| {
            owner(before, key).is_some_and(|owner_before| Some(owner_before) != owner(after, key))
        };
        let moving = window.keys.iter().filter(|key| moves(key)).count();
        let share = moving as f64 / window.keys.len().max(1) as f64;
        requests += window.offered;
        moved += share * window.offered as f64;
    }
    let is_keyed = before.policy().hashes() && !before.members().is_empty();
    (requests > 0 && is_keyed).then(|| TrafficMoved { requests, share: moved / requests as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_key_has_the_share_that_it_has_of_requests() {
        let mut sample = KeySample::default();
        let mut random = 7_u32;
        for request in 0..20_000_u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = if request % 4 == 0 { 0 } else { request };
            sample.offer(u64::from(request / 10_000), &key.to_le_bytes(), random);
        }
        let found = hottest_permille([&sample], 1).unwrap();
        assert!((200..=300).contains(&found), "{found} of 250");
        assert_eq!(hottest_permille([&sample], 3), None, "those minutes are over");
        let mut few = KeySample::default();
        few.offer(0, b"only", 0);
        assert_eq!(hottest_permille([&few], 0), None);
    }
    use crate::ids::Ordinal;
    use crate::ring::{RingMember, fresh, rehash};
    use crate::spec::Balancing;

    fn ring(count: u16) -> Ring {
        let member = |n: u16| RingMember { ordinal: Ordinal(n), name: format!("web-{n}"), weight: 1 };
        fresh(&Balancing::default(), 7, &(0..count).map(member).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn what_moves_is_weighted_by_who_asks() {
        let (before, after) = (ring(3), ring(4));
        let moves = |key: &String| {
            let key = key.as_bytes();
            before.owner(before.hash(key)) != after.owner(after.hash(key))
        };
        let hot = (0..).map(|n| format!("user-{n}")).find(moves).unwrap();
        let mut sample = KeySample::default();
        for n in 0..10_000_u64 {
            // Half of all requests are of the one key that moves, the others are spread.
            let key = if n % 2 == 0 { hot.clone() } else { format!("user-{n}") };
            sample.offer(n / 2_500, key.as_bytes(), rehash(n, 1) as u32);
        }
        let told = moved([&sample], 3, &before, &after).unwrap();
        assert_eq!(told.requests, 10_000);
        let exact = 0.5 + 0.5 * before.moved_to(&after).share;
        assert!((told.share - exact).abs() < 0.05, "{} instead of {exact}", told.share);
    }

    /// Two workers of which one has four times the requests, and none of the hot key's.
    #[test]
    fn samples_of_several_workers_count_for_the_requests_that_each_saw() {
        let (mut busy, mut other) = (KeySample::default(), KeySample::default());
        for n in 0..20_000_u64 {
            busy.offer(0, &n.to_le_bytes(), rehash(n, 1) as u32);
        }
        for n in 0..5_000_u64 {
            other.offer(0, b"hot", rehash(n, 2) as u32);
        }
        other.offer(1, b"late", 0);
        let both = [busy, other];
        assert_eq!(hottest_permille(&both, 0), Some(200), "5,000 of 25,000");
        assert_eq!(moved(&both, 1, &ring(1), &ring(2)).unwrap().requests, 25_001);
    }

    #[test]
    fn what_is_older_than_the_last_minutes_is_forgotten() {
        let mut sample = KeySample::default();
        sample.offer(1, b"a", 0);
        assert!(moved([&sample], 5, &ring(1), &ring(2)).is_some());
        assert_eq!(moved([&sample], 6, &ring(1), &ring(2)), None);
        sample.offer(9, b"b", 0);
        assert_eq!(sample.windows.len(), 1);
    }

    #[test]
    fn a_sample_keeps_late_keys_as_likely_as_early_ones() {
        let mut sample = KeySample::default();
        let total = 20 * KEYS_PER_MINUTE as u64;
        for n in 0..total {
            sample.offer(0, &n.to_le_bytes(), (rehash(n, 1) >> 32) as u32);
        }
        let number = |key: &[u8]| u64::from_le_bytes(key.try_into().unwrap());
        let late = sample.windows[0].keys.iter().filter(|key| number(key) >= total / 2).count();
        assert!((200..312).contains(&late), "{late} of 512 are of the second half");
    }
}
