//! Maglev's table (Eisenbud et al., NSDI 2016, section 3.4): 65,537 slots that the members take in turns.
//!
//! A function of the members' names and weights alone, so balancers that share nothing agree. Its price against
//! the slot table: a change of the members moves somewhat more keys than it must. Weights are turns: a member
//! of half the largest weight sits out every second round.
//!
//! A member that is not there is skipped by re-hashing the key, as in the slot table.

use std::fmt;

use super::codec::{DecodeError, Reader};
use super::{Seen, Share, hash_key, rehash, wire};
use crate::ids::Ordinal;
use crate::ring::state::{RingMember, weighted};

/// How many slots there are: a prime, so that every member's steps reach all of them.
pub const SLOTS: usize = 65_537;

/// Seeds of a member's first slot, of its steps, and of keys.
const OFFSET_SEED: u64 = 1;
const SKIP_SEED: u64 = 2;
const KEY_SEED: u64 = 0;

const FREE: u16 = u16::MAX;

/// Which member owns which slot.
#[derive(Clone, PartialEq, Eq)]
pub struct Maglev {
    slots: Box<[u16]>,
    members: Box<[Ordinal]>,
}

/// A member while the table is filled.
struct Turn {
    ordinal: Ordinal,
    weight: u64,
    /// Grows by its weight every round; a turn costs the largest weight.
    credit: u64,
    next: usize,
    skip: usize,
}

impl Maglev {
    /// Appends the table: members, slots.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        wire::write_members(bytes, &self.members);
        wire::write_slots(bytes, &self.slots);
    }

    /// Reads what [`Maglev::write`] wrote.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Maglev, DecodeError> {
        let members = wire::read_members(reader)?;
        let count = if members.is_empty() { 0 } else { SLOTS };
        let slots = wire::read_slots(reader, count, &members)?;
        Ok(Maglev { slots, members })
    }

    /// The table of these members, those of weight 0 left out. Their order does not matter.
    pub fn new(members: &[RingMember]) -> Maglev {
        let mut turns: Vec<Turn> = weighted(members).into_iter().map(Turn::new).collect();
        let ordinals: Box<[Ordinal]> = turns.iter().map(|turn| turn.ordinal).collect();
        let Some(largest) = turns.iter().map(|turn| turn.weight).max() else {
            return Maglev { slots: Box::default(), members: ordinals };
        };
        let mut slots = vec![FREE; SLOTS];
        let mut left = SLOTS;
        'rounds: loop {
            for turn in &mut turns {
                turn.credit += turn.weight;
                if turn.credit < largest {
                    continue;
                }
                turn.credit -= largest;
                while slots[turn.next] != FREE {
                    turn.next = (turn.next + turn.skip) % SLOTS;
                }
                slots[turn.next] = turn.ordinal.0;
                left -= 1;
                if left == 0 {
                    break 'rounds;
                }
            }
        }
        Maglev { slots: slots.into(), members: ordinals }
    }

    /// The members that own slots, ascending.
    pub fn members(&self) -> &[Ordinal] {
        &self.members
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(key: &[u8]) -> u64 {
        hash_key(KEY_SEED, key)
    }

    /// The slot of a hash.
    #[inline]
    pub fn slot(hash: u64) -> usize {
        (hash % SLOTS as u64) as usize
    }

    /// The owner of the slot that a hash falls into.
    #[inline]
    pub fn owner(&self, hash: u64) -> Option<Ordinal> {
        self.slots.get(Maglev::slot(hash)).map(|owner| Ordinal(*owner))
    }

    /// All members, each once: the owner, then by re-hashing.
    pub fn candidates(&self, hash: u64) -> Walk<'_> {
        Walk { table: self, hash, k: 0, seen: Seen::default(), members: self.members.iter() }
    }

    /// What each member owns.
    pub fn shares(&self) -> Vec<Share> {
        let mut counts = vec![0_u64; super::slot_table::ORDINALS_MAX];
        for owner in &self.slots {
            counts[usize::from(*owner)] += 1;
        }
        let share = |ordinal: &Ordinal| {
            let slots = counts[ordinal.index()];
            Share { ordinal: *ordinal, slots, share: slots as f64 / SLOTS as f64 }
        };
        self.members.iter().map(share).collect()
    }

    /// How many slots have another owner in the other table.
    pub fn moved_to(&self, other: &Maglev) -> usize {
        if self.slots.is_empty() != other.slots.is_empty() {
            return SLOTS;
        }
        self.slots.iter().zip(&other.slots).filter(|(before, after)| before != after).count()
    }
}

impl Turn {
    fn new(member: &RingMember) -> Turn {
        let name = member.name.as_bytes();
        Turn {
            ordinal: member.ordinal,
            weight: u64::from(member.weight),
            credit: 0,
            next: (hash_key(OFFSET_SEED, name) % SLOTS as u64) as usize,
            skip: (hash_key(SKIP_SEED, name) % (SLOTS as u64 - 1)) as usize + 1,
        }
    }
}

impl fmt::Debug for Maglev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Maglev {{ {} members }}", self.members.len())
    }
}

/// The members in the order in which one key tries them; see [`Maglev::candidates`].
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    table: &'a Maglev,
    hash: u64,
    k: u32,
    seen: Seen,
    members: std::slice::Iter<'a, Ordinal>,
}

impl Iterator for Walk<'_> {
    type Item = Ordinal;

    fn next(&mut self) -> Option<Ordinal> {
        // As in the slot table: re-hashing finds most members, a scan the last of many.
        let probes_max = 4 * self.table.members.len() as u32;
        while self.k < probes_max {
            let owner = self.table.owner(rehash(self.hash, self.k))?;
            self.k += 1;
            if self.seen.take(owner) {
                return Some(owner);
            }
        }
        let seen = &mut self.seen;
        self.members.find(|ordinal| seen.take(**ordinal)).copied()
    }
}
