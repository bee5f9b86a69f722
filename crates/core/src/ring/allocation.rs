//! How the table changes: minimal-move rebalancing of slots among weighted members.
//!
//! The allocation is the controller's state from which the published [`SlotTable`] is made. Each member keeps
//! its slots as a stack: what it gave up last comes back first, so removing members and adding them again
//! restores the table. With integer quotas, no allocation can move fewer slots than
//! `Σ max(0, current − quota)`, and this one moves exactly as many.

use std::collections::BTreeMap;

use super::slot_table::{BITS_MAX, BITS_MIN, ORDINALS_MAX, SlotTable};
use crate::ids::Ordinal;

/// Above this many members per 2^16 slots the table doubles: shares stay within 1 % of ideal.
const MEMBERS_PER_TABLE_MAX: usize = 640;

/// Which member holds which slots, in the order in which it got them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    pub(super) bits: u8,
    pub(super) seed: u64,
    pub(super) epoch: u64,
    pub(super) stacks: BTreeMap<Ordinal, Vec<u32>>,
}

/// What a member should hold.
#[derive(Debug, Clone, Copy)]
struct Quota {
    ordinal: Ordinal,
    current: usize,
    floor: usize,
    remainder: u128,
}

impl Quota {
    /// Who gets a ceiling before whom.
    fn rank(&self) -> (bool, bool, u128, Ordinal) {
        (self.remainder == 0, self.current <= self.floor, u128::MAX - self.remainder, self.ordinal)
    }
}

impl Allocation {
    /// An allocation over no members.
    pub fn new(seed: u64) -> Allocation {
        Allocation::at_epoch(seed, 0)
    }

    pub(super) fn at_epoch(seed: u64, epoch: u64) -> Allocation {
        Allocation { bits: BITS_MIN, seed, epoch, stacks: BTreeMap::new() }
    }

    /// The seed of the hash.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How many slots there are.
    pub fn slot_count(&self) -> usize {
        1 << self.bits
    }

    /// Grows with every change.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Moves as few slots as possible so that every member holds its weight's share within one slot.
    /// Members of weight 0 hold nothing. Returns how many slots changed hands (slots that had no owner
    /// before do not count).
    pub fn rebalance(&mut self, members: &BTreeMap<Ordinal, u32>) -> usize {
        let weighted: BTreeMap<Ordinal, u32> = members
            .iter()
            .filter(|(o, w)| **w > 0 && o.index() < ORDINALS_MAX)
            .map(|(o, w)| (*o, *w))
            .collect();
        while weighted.len() > MEMBERS_PER_TABLE_MAX << (self.bits - BITS_MIN) && self.bits < BITS_MAX {
            self.double();
        }
        let quotas = self.quotas(&weighted);
        if quotas.iter().all(|(ordinal, quota)| self.held(*ordinal) == *quota)
            && self.stacks.len() == quotas.len()
        {
            return 0;
        }
        self.epoch += 1;
        let first = self.stacks.is_empty();
        let mut free =
            if first { (0..1_u32 << self.bits).rev().collect() } else { self.take_surplus(&quotas) };
        let moved = if first { 0 } else { free.len() };
        for (ordinal, quota) in &quotas {
            let stack = self.stacks.entry(*ordinal).or_default();
            let missing = quota.saturating_sub(stack.len());
            stack.extend(free.drain(free.len() - missing..).rev());
        }
        self.stacks.retain(|ordinal, _| quotas.contains_key(ordinal));
        debug_assert!(quotas.is_empty() || free.is_empty());
        moved
    }

    /// The table to publish.
    pub fn table(&self) -> SlotTable {
        if self.stacks.is_empty() {
            return SlotTable::new(self.bits, self.seed, self.epoch, Box::default(), Box::default());
        }
        let mut slots = vec![0_u16; 1 << self.bits];
        for (ordinal, stack) in &self.stacks {
            for &slot in stack {
                slots[slot as usize] = ordinal.0;
            }
        }
        let members = self.stacks.keys().copied().collect();
        SlotTable::new(self.bits, self.seed, self.epoch, slots.into(), members)
    }

    fn held(&self, ordinal: Ordinal) -> usize {
        self.stacks.get(&ordinal).map_or(0, Vec::len)
    }

    /// Twice the slots, every key where it was: the index is the hash's top bits, so slot `s` becomes `2s`
    /// and `2s + 1`.
    fn double(&mut self) {
        self.bits += 1;
        for stack in self.stacks.values_mut() {
            *stack = stack.iter().flat_map(|slot| [2 * slot, 2 * slot + 1]).collect();
        }
    }

    /// Floor or ceiling of each weight's share, summing to all slots. The ceilings go to those that hold more
    /// than their floor already (nothing moves for them), then by largest remainder, then by ordinal.
    fn quotas(&self, weights: &BTreeMap<Ordinal, u32>) -> BTreeMap<Ordinal, usize> {
        let total: u128 = weights.values().map(|w| u128::from(*w)).sum();
        let slots = 1_u128 << self.bits;
        let quotas: Vec<Quota> = weights
            .iter()
            .map(|(ordinal, weight)| {
                let exact = slots * u128::from(*weight);
                Quota {
                    ordinal: *ordinal,
                    current: self.held(*ordinal),
                    floor: (exact / total) as usize,
                    remainder: exact % total,
                }
            })
            .collect();
        let spare = (1_usize << self.bits).saturating_sub(quotas.iter().map(|q| q.floor).sum());
        let mut ranks: Vec<_> = quotas.iter().map(Quota::rank).collect();
        // The last rank that gets a ceiling; no two are equal. Without members all slots are spare.
        let last = spare.checked_sub(1).filter(|last| *last < ranks.len());
        let last = last.map(|last| *ranks.select_nth_unstable(last).1);
        let ceiling = |q: &Quota| usize::from(last.is_some_and(|last| q.rank() <= last));
        quotas.iter().map(|q| (q.ordinal, q.floor + ceiling(q))).collect()
    }

    /// Pops what members hold beyond their quota; a member without a quota gives up all. The slots of members
    /// are popped from the highest ordinal to the lowest, so that the last one gone is the first one back.
    fn take_surplus(&mut self, quotas: &BTreeMap<Ordinal, usize>) -> Vec<u32> {
        let mut free = Vec::new();
        for (ordinal, stack) in self.stacks.iter_mut().rev() {
            let quota = quotas.get(ordinal).copied().unwrap_or(0);
            if stack.len() > quota {
                free.extend(stack.drain(quota..).rev());
            }
        }
        free
    }
}
