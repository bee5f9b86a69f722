//! Which members are new to their service's set, and since when they serve: what `slowStart` follows.
//!
//! A member that joins others is new from its first published endpoint on; a replacement, a return after a failure
//! and the first members of a service are not. Deliberately absent: a memory beyond the daemon's life. After a
//! restart everybody counts as settled, which ends a slow start early and never begins one.

use std::collections::BTreeMap;

use crate::Timestamp;
use crate::desired::Desired;
use crate::ids::{Ordinal, ServiceName};
use crate::snapshot::Snapshot;

/// The debut of every desired member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Debuts {
    services: BTreeMap<ServiceName, BTreeMap<Ordinal, Debut>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Debut {
    /// It was there from the start, or when nobody else was.
    Settled,
    /// It has joined others and has not served yet. Becomes `Serves`.
    Awaited,
    /// Since its first endpoint was published.
    Serves(Timestamp),
}

impl Debuts {
    /// Takes note of who is desired.
    pub fn follow(&mut self, desired: &Desired) {
        self.services.retain(|name, _| desired.services.contains_key(name));
        for (name, service) in &desired.services {
            let known = self.services.entry(name.clone()).or_default();
            let joins = if known.is_empty() { Debut::Settled } else { Debut::Awaited };
            known.retain(|ordinal, _| service.has_member(*ordinal));
            for member in &service.members {
                known.entry(member.ordinal).or_insert(joins);
            }
        }
    }

    /// Takes note of what was published at `now`.
    pub fn publish(&mut self, snapshot: &Snapshot, now: Timestamp) {
        for (name, routing) in &snapshot.services {
            let Some(known) = self.services.get_mut(name) else { continue };
            for ordinal in routing.endpoints.keys() {
                if let Some(debut @ Debut::Awaited) = known.get_mut(ordinal) {
                    *debut = Debut::Serves(now);
                }
            }
        }
    }

    /// Since when a member that is new serves, or would if its first endpoint were published `now`. None for one
    /// that is not new.
    pub fn new_since(&self, service: &ServiceName, ordinal: Ordinal, now: Timestamp) -> Option<Timestamp> {
        match self.services.get(service)?.get(&ordinal)? {
            Debut::Settled => None,
            Debut::Awaited => Some(now),
            Debut::Serves(since) => Some(*since),
        }
    }
}
