//! The ring of the assignment: M slots, K virtual servers for each server, placed by two hash functions.
//!
//! A request with the number `i` belongs to the first virtual server at or after slot `H(i) mod M`, wrapping at
//! the end; the virtual server `j` of server `i` takes slot `Φ(i, j) mod M`, or the next free one by the probing
//! rule. Servers are numbered from 1: a server's number is its ordinal plus 1.
//!
//! The ring is state. Members are added one completely before the next, in ascending order, and removed in
//! place, so which slots a member got depends on who was there before it: the same members can lie differently
//! after another history. That is the assignment's rule, not a choice of ours; the ring's
//! state is persisted, so a restart keeps it.
//!
//! A key that is a decimal number is its own `i`. Any other key, and a number for which H has no value because
//! it is beyond six digits, takes six digits of its XXH3-64 (seed 0): `100000 + hash mod 900000`.

mod rules;
mod state;

use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

pub use rules::{AssignmentRules, SLOTS_MAX, VIRTUAL_SERVERS_MAX};

use super::formula::FormulaError;
use super::{Seen, Share};
use crate::ids::Ordinal;
use crate::spec::Successor;

/// The requests over which shares are counted: every number of six digits.
pub const REQUESTS: std::ops::RangeInclusive<u32> = 100_000..=999_999;

/// How many requests there are in [`REQUESTS`].
pub const REQUEST_COUNT: u32 = 900_000;

/// A slot that no virtual server has taken.
const FREE: u16 = u16::MAX;

/// Settings that make no ring, or members that do not fit on it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AssignmentError {
    /// M out of range.
    #[error("`slots` is a number from 1 to {SLOTS_MAX}, got {0}")]
    Slots(u32),
    /// K out of range.
    #[error("`virtualServers` is a number from 1 to {VIRTUAL_SERVERS_MAX}, got {0}")]
    VirtualServers(u32),
    /// More virtual servers for one server than there are slots.
    #[error("{virtual_servers} virtual servers do not fit into {slots} slots")]
    VirtualServersBeyondSlots {
        /// K.
        virtual_servers: u32,
        /// M.
        slots: u32,
    },
    /// The first virtual server is number 0 or 1.
    #[error("`firstVirtual` is 0 or 1, got {0}")]
    FirstVirtual(u32),
    /// H cannot be used.
    #[error("requestHash: {0}")]
    RequestHash(FormulaError),
    /// Φ cannot be used.
    #[error("virtualServerHash: {0}")]
    VirtualServerHash(FormulaError),
    /// A formula beside a hash that does not use it.
    #[error("`{0}` is not used with `hash: sha256`")]
    UnusedFormula(&'static str),
    /// Every virtual server needs a slot.
    #[error(
        "{servers} replicas with {virtual_servers} virtual servers each do not fit into {slots} slots: have fewer \
         of them, more slots, or `onCollision: drop`"
    )]
    Full {
        /// N.
        servers: usize,
        /// K.
        virtual_servers: u32,
        /// M.
        slots: u32,
    },
    /// An ordinal beyond those that a ring can hold.
    #[error("ordinal {0} is beyond the highest that a ring can hold")]
    Ordinal(Ordinal),
}

/// Which server has which slot.
#[derive(Clone, PartialEq)]
pub struct Assignment {
    rules: Arc<AssignmentRules>,
    /// Ascending.
    members: Box<[Ordinal]>,
    /// Each slot's server, or [`FREE`].
    slots: Box<[u16]>,
    /// For each slot the first taken one at or after it; empty if all are free.
    next_taken: Box<[u16]>,
}

impl Assignment {
    /// A ring without servers.
    pub fn new(rules: Arc<AssignmentRules>) -> Assignment {
        let slots = vec![FREE; rules.slots() as usize].into();
        Assignment { rules, members: Box::default(), slots, next_taken: Box::default() }
    }

    /// The ring with exactly these members: those that left give up their slots in place, then new ones take
    /// theirs in ascending order.
    ///
    /// # Errors
    /// [`AssignmentError::Full`] if they do not fit, [`AssignmentError::Ordinal`] for one out of range.
    pub fn with_members(&self, members: &[Ordinal]) -> Result<Assignment, AssignmentError> {
        let mut wanted = members.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        self.rules.check_servers(wanted.len())?;
        if let Some(beyond) = wanted.iter().find(|ordinal| ordinal.index() >= super::slot_table::ORDINALS_MAX)
        {
            return Err(AssignmentError::Ordinal(*beyond));
        }
        if wanted[..] == self.members[..] {
            return Ok(self.clone());
        }
        let mut slots = self.slots.clone();
        for slot in &mut slots {
            if *slot != FREE && wanted.binary_search(&Ordinal(*slot)).is_err() {
                *slot = FREE;
            }
        }
        for ordinal in wanted.iter().filter(|ordinal| self.members.binary_search(ordinal).is_err()) {
            self.rules.place(*ordinal, &mut slots);
        }
        Ok(Assignment::from_slots(Arc::clone(&self.rules), wanted.into(), slots))
    }

    fn from_slots(rules: Arc<AssignmentRules>, members: Box<[Ordinal]>, slots: Box<[u16]>) -> Assignment {
        let mut next_taken = Vec::new();
        if let Some(first) = slots.iter().position(|slot| *slot != FREE) {
            // From the end: beyond the last taken slot the first one follows.
            let mut next = first as u16;
            next_taken = vec![0_u16; slots.len()];
            for (slot, server) in slots.iter().enumerate().rev() {
                if *server != FREE {
                    next = slot as u16;
                }
                next_taken[slot] = next;
            }
        }
        Assignment { rules, members, slots, next_taken: next_taken.into() }
    }

    /// What places requests and virtual servers.
    pub fn rules(&self) -> &Arc<AssignmentRules> {
        &self.rules
    }

    /// The members, ascending.
    pub fn members(&self) -> &[Ordinal] {
        &self.members
    }

    /// The taken slots with their servers, ascending by slot.
    pub fn virtual_servers(&self) -> impl Iterator<Item = (usize, Ordinal)> {
        let taken = self.slots.iter().enumerate().filter(|(_, server)| **server != FREE);
        taken.map(|(slot, server)| (slot, Ordinal(*server)))
    }

    /// The number of a request with this key, and its slot, `H(i) mod M`.
    pub fn locate(&self, key: &[u8]) -> (u64, usize) {
        if let Some(id) = decimal(key)
            && let Some(slot) = self.rules.request_slot(id)
        {
            return (id, slot);
        }
        let id = u64::from(*REQUESTS.start()) + xxh3_64(key) % u64::from(REQUEST_COUNT);
        (
            id,
            self.rules
                .request_slot(id)
                .expect("every six-digit number has a slot: the rules have checked it"),
        )
    }

    /// The server of a slot: the first one at or after it, or after it where the rules say so.
    pub fn owner(&self, slot: usize) -> Option<Ordinal> {
        let taken = *self.next_taken.get(self.first_slot(slot))?;
        Some(Ordinal(self.slots[usize::from(taken)]))
    }

    /// The servers of a slot, each once: clockwise from it, then those without any virtual server.
    pub fn candidates(&self, slot: usize) -> Walk<'_> {
        Walk {
            ring: self,
            seen: Seen::default(),
            at: self.first_slot(slot),
            steps_left: self.next_taken.len(),
            members: self.members.iter(),
        }
    }

    /// What each member owns: its slots (the empty ones before its virtual servers count as its own) and its
    /// exact share of all six-digit requests.
    pub fn shares(&self) -> Vec<Share> {
        let mut slots = vec![0_u64; super::slot_table::ORDINALS_MAX];
        let mut requests = slots.clone();
        for (slot, count) in self.rules.requests_by_slot().iter().enumerate() {
            if let Some(owner) = self.owner(slot) {
                slots[owner.index()] += 1;
                requests[owner.index()] += u64::from(*count);
            }
        }
        let share = |ordinal: &Ordinal| Share {
            ordinal: *ordinal,
            slots: slots[ordinal.index()],
            share: requests[ordinal.index()] as f64 / f64::from(REQUEST_COUNT),
        };
        self.members.iter().map(share).collect()
    }

    /// Which share of all six-digit requests has another server in the other ring, which has the same rules.
    pub fn moved_to(&self, other: &Assignment) -> f64 {
        let by_slot = self.rules.requests_by_slot().iter().enumerate();
        let moved = by_slot.filter(|(slot, _)| self.owner(*slot) != other.owner(*slot));
        moved.map(|(_, count)| f64::from(*count)).sum::<f64>() / f64::from(REQUEST_COUNT)
    }

    /// Where the search for a slot's server begins.
    fn first_slot(&self, slot: usize) -> usize {
        match self.rules.spec().successor {
            Successor::Inclusive => slot,
            Successor::Strict => (slot + 1) % self.slots.len(),
        }
    }
}

impl fmt::Debug for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (slots, members) = (self.slots.len(), self.members.len());
        write!(f, "Assignment {{ {slots} slots, {members} members }}")
    }
}

/// The servers of a slot in the order in which it tries them; see [`Assignment::candidates`].
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    ring: &'a Assignment,
    seen: Seen,
    at: usize,
    steps_left: usize,
    members: std::slice::Iter<'a, Ordinal>,
}

impl Iterator for Walk<'_> {
    type Item = Ordinal;

    fn next(&mut self) -> Option<Ordinal> {
        let ring = self.ring;
        while self.steps_left > 0 {
            let taken = usize::from(ring.next_taken[self.at]);
            let size = ring.slots.len();
            self.steps_left = self.steps_left.saturating_sub((taken + size - self.at) % size + 1);
            self.at = (taken + 1) % size;
            let server = Ordinal(ring.slots[taken]);
            if self.seen.take(server) {
                return Some(server);
            }
        }
        let seen = &mut self.seen;
        self.members.find(|ordinal| seen.take(**ordinal)).copied()
    }
}

/// The number that a key spells in decimal digits, of at most 64 bits.
fn decimal(key: &[u8]) -> Option<u64> {
    // Of a known length, the usual one, the loop costs a third.
    if let Ok(six) = <&[u8; 6]>::try_from(key) {
        let number = six.iter().fold(0, |number, byte| number * 10 + u64::from(byte.wrapping_sub(b'0')));
        return six.iter().all(u8::is_ascii_digit).then_some(number);
    }
    let digits = key.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        // Wraps for long keys only, which are parsed again.
        (digit <= 9).then(|| number.wrapping_mul(10).wrapping_add(u64::from(digit)))
    });
    match key.len() {
        0 => None,
        1..=19 => digits,
        20 => std::str::from_utf8(key).ok().filter(|_| digits.is_some())?.parse().ok(),
        _ => None,
    }
}
