//! The published table: `2^bits` slots, each owned by an ordinal, indexed by the top bits of a key's hash.
//!
//! Responsible for look-up and for the order of candidates. Deliberately absent: how the table changes
//! ([`super::allocation`]), and who is ready: the table knows desired ordinals only, and a caller skips those
//! without an endpoint.

use std::fmt;

use super::codec::{DecodeError, Reader};
use super::{Seen, hash_key, rehash, wire};
use crate::ids::Ordinal;

/// The smallest and usual size: 2^16 slots keep every share within 1 % of ideal up to 640 members.
pub const BITS_MIN: u8 = 16;
/// The largest size.
pub const BITS_MAX: u8 = 20;
/// Highest ordinal that a table can hold, plus one.
pub const ORDINALS_MAX: usize = 1_024;

/// Which ordinal owns which slot.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotTable {
    bits: u8,
    seed: u64,
    epoch: u64,
    slots: Box<[u16]>,
    members: Box<[Ordinal]>,
}

impl SlotTable {
    /// A table over no members: it owns nothing and yields no candidate.
    pub fn empty(seed: u64) -> SlotTable {
        SlotTable { bits: BITS_MIN, seed, epoch: 0, slots: Box::default(), members: Box::default() }
    }

    /// A table of `2^bits` slots; `slots` is empty exactly if `members` is.
    pub(super) fn new(
        bits: u8,
        seed: u64,
        epoch: u64,
        slots: Box<[u16]>,
        members: Box<[Ordinal]>,
    ) -> SlotTable {
        debug_assert!(slots.len() == if members.is_empty() { 0 } else { 1 << bits });
        SlotTable { bits, seed, epoch, slots, members }
    }

    /// Appends the table: bits, seed, epoch, members, slots.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.bits);
        bytes.extend_from_slice(&self.seed.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        wire::write_members(bytes, &self.members);
        wire::write_slots(bytes, &self.slots);
    }

    /// Reads what [`SlotTable::write`] wrote.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<SlotTable, DecodeError> {
        let [bits] = reader.take::<1>()?;
        if !(BITS_MIN..=BITS_MAX).contains(&bits) {
            return Err(DecodeError::Inconsistent("table size out of range"));
        }
        let seed = u64::from_le_bytes(reader.take()?);
        let epoch = reader.epoch()?;
        let members = wire::read_members(reader)?;
        let count = if members.is_empty() { 0 } else { 1 << bits };
        let slots = wire::read_slots(reader, count, &members)?;
        Ok(SlotTable { bits, seed, epoch, slots, members })
    }

    /// The seed of the hash.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Grows with every change of the table.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Names this very table among all: seed and epoch.
    pub fn id(&self) -> String {
        format!("{:016x}-{}", self.seed, self.epoch)
    }

    /// The members that own slots, ascending.
    pub fn members(&self) -> &[Ordinal] {
        &self.members
    }

    /// How many slots there are; 0 without members.
    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// The hash of a key under this table's seed.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        hash_key(self.seed, key)
    }

    /// The slot of a hash: its top bits.
    #[inline]
    pub fn slot(&self, hash: u64) -> usize {
        (hash >> (64 - u32::from(self.bits))) as usize
    }

    /// The owner of the slot that a hash falls into.
    #[inline]
    pub fn owner(&self, hash: u64) -> Option<Ordinal> {
        self.slots.get(self.slot(hash)).map(|&owner| Ordinal(owner))
    }

    /// How many slots each member owns, by ordinal.
    pub fn shares(&self) -> Vec<(Ordinal, usize)> {
        let mut counts = vec![0_usize; ORDINALS_MAX];
        for &owner in &self.slots {
            counts[usize::from(owner)] += 1;
        }
        self.members.iter().map(|&ordinal| (ordinal, counts[ordinal.index()])).collect()
    }

    /// How many slots of the larger table have another owner in the other one: keys that move, in slots.
    pub fn moved_to(&self, other: &SlotTable) -> usize {
        let (small, large) =
            if self.slots.len() <= other.slots.len() { (self, other) } else { (other, self) };
        if small.slots.is_empty() {
            return large.slots.len();
        }
        // The index is the hash's top bits: a slot of the larger table lies within one of the smaller.
        let finer = large.bits - small.bits;
        large.slots.iter().enumerate().filter(|(slot, owner)| small.slots[slot >> finer] != **owner).count()
    }

    /// All members, each once, in the order in which `key` tries them: its owner first, then by re-hashing.
    pub fn candidates(&self, key: &[u8]) -> Candidates<'_> {
        self.candidates_of_hash(self.hash(key))
    }

    /// As [`SlotTable::candidates`], for a hash that is known already.
    pub fn candidates_of_hash(&self, hash: u64) -> Candidates<'_> {
        Candidates { table: self, hash, k: 0, seen: Seen::default(), left: self.members.len(), scan: None }
    }
}

impl fmt::Debug for SlotTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SlotTable {{ 2^{} slots, epoch {}, {} members }}",
            self.bits,
            self.epoch,
            self.members.len()
        )
    }
}

/// The members in the order in which one key tries them; see [`SlotTable::candidates`].
#[derive(Debug, Clone)]
pub struct Candidates<'a> {
    table: &'a SlotTable,
    hash: u64,
    k: u32,
    seen: Seen,
    left: usize,
    scan: Option<usize>,
}

impl Candidates<'_> {
    /// Whether `ordinal` is new; marks it as yielded.
    fn take(&mut self, ordinal: Ordinal) -> bool {
        let fresh = self.seen.take(ordinal);
        self.left -= usize::from(fresh);
        fresh
    }
}

impl Iterator for Candidates<'_> {
    type Item = Ordinal;

    fn next(&mut self) -> Option<Ordinal> {
        if self.left == 0 {
            return None;
        }
        // Re-hashing finds most members quickly, but the last of many only after about N·ln N tries; beyond
        // 4·N a scan from a place that depends on the key ends the search, so a walk costs O(N) at worst.
        let probes_max = 4 * self.table.members.len() as u32;
        while self.k < probes_max {
            let owner = self.table.owner(rehash(self.hash, self.k))?;
            self.k += 1;
            if self.take(owner) {
                return Some(owner);
            }
        }
        let members = &self.table.members;
        let start = (rehash(self.hash, u32::MAX) % members.len() as u64) as usize;
        let mut position = self.scan.unwrap_or(0);
        while position < members.len() {
            let ordinal = members[(start + position) % members.len()];
            position += 1;
            self.scan = Some(position);
            if self.take(ordinal) {
                return Some(ordinal);
            }
        }
        None
    }
}
