//! How the table changes: minimal-move rebalancing of slots among weighted members.
//!
//! The allocation is the controller's state from which the published [`SlotTable`] is made. Each member keeps
//! its slots as a stack: what it gave up last comes back first, so removing members and adding them again
//! restores the table. With integer quotas, no allocation can move fewer slots than
//! `Σ max(0, current − quota)`, and this one moves exactly as many.

use std::collections::BTreeMap;
use std::iter::Peekable;

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

/// What a member holds and should hold.
#[derive(Debug, Clone, Copy)]
struct Quota {
    ordinal: Ordinal,
    /// None if it was no member.
    held: Option<usize>,
    /// The floor of its share, and one more for those that get a ceiling.
    slots: usize,
    /// What the floor leaves of its share.
    remainder: u64,
}

impl Quota {
    /// Who gets a ceiling before whom.
    fn rank(&self) -> (bool, bool, u64, Ordinal) {
        let held = self.held.unwrap_or(0);
        (self.remainder == 0, held <= self.slots, u64::MAX - self.remainder, self.ordinal)
    }
}

/// The members that own something, ascending.
fn owning(members: &BTreeMap<Ordinal, u32>) -> impl Iterator<Item = (Ordinal, u32)> {
    members.iter().map(|(o, w)| (*o, *w)).filter(|(o, w)| *w > 0 && o.index() < ORDINALS_MAX)
}

/// The quota of this member, if it has one. `quotas` are passed in their order while members are.
fn next_quota<'a>(
    quotas: &mut Peekable<impl Iterator<Item = &'a Quota>>,
    is_before: impl Fn(Ordinal) -> bool,
    ordinal: Ordinal,
) -> Option<&'a Quota> {
    while quotas.next_if(|quota| is_before(quota.ordinal)).is_some() {}
    quotas.next_if(|quota| quota.ordinal == ordinal)
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
        let count = owning(members).count();
        while count > MEMBERS_PER_TABLE_MAX << (self.bits - BITS_MIN) && self.bits < BITS_MAX {
            self.double();
        }
        // All that follows passes members and quotas side by side: with a thousand of them, searching would cost
        // more than the change itself.
        let quotas = self.quotas(members);
        if self.stacks.len() == quotas.len() && quotas.iter().all(|quota| quota.held == Some(quota.slots)) {
            return 0;
        }
        self.epoch += 1;
        let first = self.stacks.is_empty();
        let mut free =
            if first { (0..1_u32 << self.bits).rev().collect() } else { self.take_surplus(&quotas) };
        let moved = if first { 0 } else { free.len() };
        for quota in quotas.iter().filter(|quota| quota.held.is_none()) {
            self.stacks.insert(quota.ordinal, Vec::new());
        }
        if self.stacks.len() > quotas.len() {
            let mut wanted = quotas.iter().peekable();
            self.stacks.retain(|ordinal, _| next_quota(&mut wanted, |o| o < *ordinal, *ordinal).is_some());
        }
        for (stack, quota) in self.stacks.values_mut().zip(&quotas) {
            let missing = quota.slots.saturating_sub(stack.len());
            stack.extend(free.drain(free.len() - missing..).rev());
        }
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
    fn quotas(&self, members: &BTreeMap<Ordinal, u32>) -> Vec<Quota> {
        // At most 2^20 slots, 2^32 for a weight, and 2^10 members: all of it fits into 64 bits.
        let total: u64 = owning(members).map(|(_, weight)| u64::from(weight)).sum();
        let slots = 1_u64 << self.bits;
        let mut stacks = self.stacks.iter().peekable();
        let mut quotas: Vec<Quota> = owning(members)
            .map(|(ordinal, weight)| {
                while stacks.next_if(|(known, _)| **known < ordinal).is_some() {}
                let held = stacks.next_if(|(known, _)| **known == ordinal).map(|(_, stack)| stack.len());
                let exact = slots * u64::from(weight);
                Quota { ordinal, held, slots: (exact / total) as usize, remainder: exact % total }
            })
            .collect();
        let spare = (1_usize << self.bits).saturating_sub(quotas.iter().map(|q| q.slots).sum());
        let mut ranks: Vec<_> = quotas.iter().map(Quota::rank).collect();
        // The last rank that gets a ceiling; no two are equal. Without members all slots are spare.
        if let Some(last) = spare.checked_sub(1).filter(|last| *last < ranks.len()) {
            let last = *ranks.select_nth_unstable(last).1;
            for quota in quotas.iter_mut().filter(|quota| quota.rank() <= last) {
                quota.slots += 1;
            }
        }
        quotas
    }

    /// Pops what members hold beyond their quota; a member without a quota gives up all. The slots of members
    /// are popped from the highest ordinal to the lowest, so that the last one gone is the first one back.
    fn take_surplus(&mut self, quotas: &[Quota]) -> Vec<u32> {
        let mut free = Vec::new();
        let mut quotas = quotas.iter().rev().peekable();
        for (ordinal, stack) in self.stacks.iter_mut().rev() {
            let quota = next_quota(&mut quotas, |o| o > *ordinal, *ordinal);
            let slots = quota.map_or(0, |quota| quota.slots);
            if stack.len() > slots {
                free.extend(stack.drain(slots..).rev());
            }
        }
        free
    }
}
