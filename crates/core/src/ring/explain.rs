//! Who serves a key, who was passed over, and why: the same walk for the proxy, for `explain` and for a bound.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{KeyHash, Ring};
use crate::Timestamp;
use crate::ids::Ordinal;
use crate::snapshot::Circuit;

/// Why a member is passed over for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SkipReason {
    /// It has no ready endpoint.
    NotReady,
    /// It is being taken out of service.
    Draining,
    /// The proxy has stopped choosing it after failures.
    Ejected,
    /// It has as many requests in flight as the bound allows.
    OverBound,
    /// It is new to the set, and has not taken over this key yet.
    SlowStart,
    /// This request has failed there already.
    Tried,
}

impl SkipReason {
    /// How gladly it serves after all when every other member is passed over too, 0 first: the last one standing is
    /// better than a refusal. None for one that cannot serve.
    pub fn last_resort(self) -> Option<u8> {
        match self {
            SkipReason::SlowStart => Some(0),
            SkipReason::OverBound => Some(1),
            SkipReason::Ejected => Some(2),
            SkipReason::NotReady | SkipReason::Draining | SkipReason::Tried => None,
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SkipReason::NotReady => "not ready",
            SkipReason::Draining => "draining",
            SkipReason::Ejected => "ejected",
            SkipReason::OverBound => "over its bound",
            SkipReason::SlowStart => "new, and has not taken over this key yet",
            SkipReason::Tried => "tried already",
        })
    }
}

/// The first candidate that nothing speaks against, or else the one that serves most gladly as a last resort.
pub fn choose<T>(
    candidates: impl Iterator<Item = T>,
    mut skip: impl FnMut(&T) -> Option<SkipReason>,
) -> Option<T> {
    let mut last_resort: Option<(u8, T)> = None;
    for candidate in candidates {
        let Some(reason) = skip(&candidate) else { return Some(candidate) };
        let Some(rank) = reason.last_resort() else { continue };
        if last_resort.as_ref().is_none_or(|(best, _)| rank < *best) {
            last_resort = Some((rank, candidate));
        }
    }
    last_resort.map(|(_, candidate)| candidate)
}

/// How a key becomes a replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The key.
    pub key: String,
    /// Its hash: XXH3-64 or CRC-32 in hexadecimal digits; for `assignment` the value of H, in decimal ones for a
    /// formula. None where nothing is hashed.
    pub hash: Option<String>,
    /// The slot, or the point of a ketama ring, that the hash falls into. None where the policy has neither.
    pub slot: Option<u64>,
    /// The member whose slot it is, there or not.
    pub owner: Option<Ordinal>,
    /// Those that may serve, in the order in which the request tries them: the first one serves.
    pub candidates: Vec<Ordinal>,
    /// Those that are passed over, in the key's order.
    pub skipped: Vec<Skipped>,
    /// Those that the data plane has ejected, or has on probation, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub circuits: BTreeMap<Ordinal, Circuit>,
    /// When this is so; none for a ring that only a file describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// A member that is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Which one.
    pub ordinal: Ordinal,
    /// Why.
    pub reason: SkipReason,
}

impl Explanation {
    /// Walks along the candidates of a key, and asks of each whether something speaks against it.
    pub fn of(ring: &Ring, key: &[u8], mut skip: impl FnMut(Ordinal) -> Option<SkipReason>) -> Explanation {
        let hash: KeyHash = ring.hash(key);
        let mut explanation = Explanation {
            key: String::from_utf8_lossy(key).into_owned(),
            hash: ring.hash_text(key),
            slot: ring.slot(hash),
            owner: None,
            candidates: Vec::new(),
            skipped: Vec::new(),
            circuits: BTreeMap::new(),
            at: None,
        };
        for ordinal in ring.candidates_of_hash(hash) {
            explanation.owner = explanation.owner.or(Some(ordinal));
            match skip(ordinal) {
                None => explanation.candidates.push(ordinal),
                Some(reason) => explanation.skipped.push(Skipped { ordinal, reason }),
            }
        }
        // Without a key nobody owns it.
        explanation.owner = explanation.owner.filter(|_| ring.policy().hashes());
        explanation
    }

    /// The member that serves: the first candidate, or the best last resort among those passed over.
    pub fn serves(&self) -> Option<Ordinal> {
        let ranked = self.skipped.iter().filter_map(|s| Some((s.reason.last_resort()?, s.ordinal)));
        // The first of equals, as in [`choose`].
        let last_resort = ranked.min_by_key(|(rank, _)| *rank).map(|(_, ordinal)| ordinal);
        self.candidates.first().copied().or(last_resort)
    }
}
