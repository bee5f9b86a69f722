//! What is published: one ring of any policy, with one way to ask it.

use std::sync::Arc;

use super::assignment::{self, Assignment};
use super::ketama::{self, Ketama};
use super::maglev::{self, Maglev};
use super::rendezvous::{self, Rendezvous};
use super::slot_table::{self, SlotTable};
use super::{RingMember, Share, state};
use crate::ids::Ordinal;
use crate::spec::Policy;

/// A ring of some policy. A clone shares it.
#[derive(Debug, Clone, PartialEq)]
pub enum Ring {
    /// `slot-table`.
    SlotTable(Arc<SlotTable>),
    /// `assignment`.
    Assignment(Arc<Assignment>),
    /// `maglev`.
    Maglev(Arc<Maglev>),
    /// `ring`.
    Ketama(Arc<Ketama>),
    /// `rendezvous`.
    Rendezvous(Arc<Rendezvous>),
    /// A policy that does not hash.
    Unkeyed(Arc<Unkeyed>),
}

/// The members of a policy that does not hash: they are chosen by turn or by load, with [`super::select`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unkeyed {
    pub(super) policy: Policy,
    pub(super) members: Box<[(Ordinal, u32)]>,
}

/// Where a key lies on the ring that hashed it; another ring's is meaningless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(u64);

/// How much of all keys another ring gives to other members.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moved {
    /// From 0 to 1.
    pub share: f64,
    /// Counted over the whole ring; otherwise over 90,000 six-digit numbers as keys.
    pub is_exact: bool,
}

/// Every tenth of the six-digit numbers is a key where no exact count exists.
const SAMPLE_STEP: usize = 10;

impl KeyHash {
    /// The hash as a number: XXH3-64, CRC-32 (`ring`), the slot (`assignment`), or 0 where nothing is hashed.
    pub fn value(self) -> u64 {
        self.0
    }
}

impl Unkeyed {
    /// The members of a policy, those of weight 0 left out.
    pub fn new(policy: Policy, members: &[RingMember]) -> Unkeyed {
        let members = state::weighted(members).into_iter().map(|member| (member.ordinal, member.weight));
        Unkeyed { policy, members: members.collect() }
    }

    /// The members with their weights, ascending.
    pub fn members(&self) -> &[(Ordinal, u32)] {
        &self.members
    }
}

impl Ring {
    /// The policy.
    pub fn policy(&self) -> Policy {
        match self {
            Ring::SlotTable(_) => Policy::SlotTable,
            Ring::Assignment(_) => Policy::Assignment,
            Ring::Maglev(_) => Policy::Maglev,
            Ring::Ketama(_) => Policy::Ring,
            Ring::Rendezvous(_) => Policy::Rendezvous,
            Ring::Unkeyed(unkeyed) => unkeyed.policy,
        }
    }

    /// The members that may own keys, ascending.
    pub fn members(&self) -> Vec<Ordinal> {
        match self {
            Ring::SlotTable(table) => table.members().to_vec(),
            Ring::Assignment(ring) => ring.members().to_vec(),
            Ring::Maglev(table) => table.members().to_vec(),
            Ring::Ketama(ring) => ring.members().to_vec(),
            Ring::Rendezvous(drawing) => drawing.members().collect(),
            Ring::Unkeyed(unkeyed) => unkeyed.members.iter().map(|(ordinal, _)| *ordinal).collect(),
        }
    }

    /// Where a key lies.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(match self {
            Ring::SlotTable(table) => table.hash(key),
            Ring::Assignment(ring) => ring.locate(key).1 as u64,
            Ring::Maglev(_) => Maglev::hash(key),
            Ring::Ketama(_) => u64::from(Ketama::hash(key)),
            Ring::Rendezvous(_) => Rendezvous::hash(key),
            Ring::Unkeyed(_) => 0,
        })
    }

    /// The slot of a hash, or the index of its point on a ketama ring; none where the policy has neither.
    pub fn slot(&self, hash: KeyHash) -> Option<u64> {
        match self {
            Ring::SlotTable(table) => Some(table.slot(hash.0) as u64),
            Ring::Assignment(_) => Some(hash.0),
            Ring::Maglev(_) => Some(Maglev::slot(hash.0) as u64),
            Ring::Ketama(ring) => Some(ring.point(hash.0 as u32) as u64),
            Ring::Rendezvous(_) | Ring::Unkeyed(_) => None,
        }
    }

    /// The member that a hash belongs to, ready or not; none without members or without hashing.
    #[inline]
    pub fn owner(&self, hash: KeyHash) -> Option<Ordinal> {
        match self {
            Ring::SlotTable(table) => table.owner(hash.0),
            Ring::Assignment(ring) => ring.owner(hash.0 as usize),
            Ring::Maglev(table) => table.owner(hash.0),
            Ring::Ketama(ring) => ring.owner(hash.0 as u32),
            Ring::Rendezvous(drawing) => drawing.owner(hash.0),
            Ring::Unkeyed(_) => None,
        }
    }

    /// All members, each once, in the order in which a key tries them: its owner, then by the policy's own rule.
    /// Without hashing, ascending.
    pub fn candidates(&self, key: &[u8]) -> Candidates<'_> {
        self.candidates_of_hash(self.hash(key))
    }

    /// As [`Ring::candidates`], for a hash of this ring.
    pub fn candidates_of_hash(&self, hash: KeyHash) -> Candidates<'_> {
        match self {
            Ring::SlotTable(table) => Candidates::SlotTable(table.candidates_of_hash(hash.0)),
            Ring::Assignment(ring) => Candidates::Assignment(ring.candidates(hash.0 as usize)),
            Ring::Maglev(table) => Candidates::Maglev(table.candidates(hash.0)),
            Ring::Ketama(ring) => Candidates::Ketama(ring.candidates(hash.0 as u32)),
            Ring::Rendezvous(drawing) => Candidates::Rendezvous(drawing.candidates(hash.0)),
            Ring::Unkeyed(unkeyed) => Candidates::Unkeyed(unkeyed.members.iter()),
        }
    }

    /// What each member owns, ascending: counted for slots and points; for `assignment` over all 900,000 six-digit
    /// requests (milliseconds for the first time with `hash: sha256`); by weight for the others.
    pub fn shares(&self) -> Vec<Share> {
        match self {
            Ring::SlotTable(table) => {
                let total = table.slot_count() as f64;
                let share = |(ordinal, slots): (Ordinal, usize)| Share {
                    ordinal,
                    slots: slots as u64,
                    share: slots as f64 / total,
                };
                table.shares().into_iter().map(share).collect()
            }
            Ring::Assignment(ring) => ring.shares(),
            Ring::Maglev(table) => table.shares(),
            Ring::Ketama(ring) => ring.shares(),
            Ring::Rendezvous(drawing) => drawing.shares(),
            Ring::Unkeyed(unkeyed) => {
                let total: u64 = unkeyed.members.iter().map(|(_, weight)| u64::from(*weight)).sum();
                let share = |(ordinal, weight): &(Ordinal, u32)| Share {
                    ordinal: *ordinal,
                    slots: 0,
                    share: f64::from(*weight) / total as f64,
                };
                unkeyed.members.iter().map(share).collect()
            }
        }
    }

    /// How much of all keys belongs to another member in the other ring.
    pub fn moved_to(&self, other: &Ring) -> Moved {
        let exact = |share| Moved { share, is_exact: true };
        match (self, other) {
            (Ring::SlotTable(before), Ring::SlotTable(after)) if before.seed() == after.seed() => {
                let slots = before.slot_count().max(after.slot_count()).max(1);
                exact(before.moved_to(after) as f64 / slots as f64)
            }
            (Ring::Assignment(before), Ring::Assignment(after)) if before.rules() == after.rules() => {
                exact(before.moved_to(after))
            }
            (Ring::Maglev(before), Ring::Maglev(after)) => {
                exact(before.moved_to(after) as f64 / maglev::SLOTS as f64)
            }
            (Ring::Ketama(before), Ring::Ketama(after)) => exact(before.moved_to(after)),
            _ => self.moved_of_sample(other),
        }
    }

    fn moved_of_sample(&self, other: &Ring) -> Moved {
        let (mut keys, mut moved) = (0_u32, 0_u32);
        for number in assignment::REQUESTS.step_by(SAMPLE_STEP) {
            let key = number.to_string();
            let owner = |ring: &Ring| ring.owner(ring.hash(key.as_bytes()));
            keys += 1;
            moved += u32::from(owner(self) != owner(other));
        }
        Moved { share: f64::from(moved) / f64::from(keys), is_exact: false }
    }

    /// The hash of a key as people read it: hexadecimal digits, or the value of H for `assignment`. None where
    /// nothing is hashed.
    pub fn hash_text(&self, key: &[u8]) -> Option<String> {
        match self {
            Ring::Assignment(ring) => Some(ring.rules().request_hash_text(ring.locate(key).0)),
            Ring::Ketama(_) => Some(format!("{:08x}", self.hash(key).0)),
            Ring::Unkeyed(_) => None,
            _ => Some(format!("{:016x}", self.hash(key).0)),
        }
    }

    /// One line on how it places keys.
    pub fn describe(&self) -> String {
        match self {
            Ring::SlotTable(table) => {
                format!("{} slots by the top bits of XXH3-64, table {}", table.slot_count(), table.id())
            }
            Ring::Assignment(ring) => {
                let (rules, spec) = (ring.rules(), ring.rules().spec());
                let hashes = match spec.hash {
                    crate::spec::AssignmentHash::Sha256 => "SHA-256".to_owned(),
                    crate::spec::AssignmentHash::Formula => {
                        format!("H(i) = {}, Φ(i, j) = {}", spec.request_hash(), spec.virtual_server_hash())
                    }
                };
                format!(
                    "{} slots, {} virtual servers each, {hashes}; H reaches {} of {} slots",
                    spec.slots,
                    spec.virtual_servers,
                    rules.slots_reached(),
                    spec.slots
                )
            }
            Ring::Maglev(_) => format!("{} slots by XXH3-64, filled in turns", maglev::SLOTS),
            Ring::Ketama(ring) => format!(
                "{} points by CRC-32, {} for each unit of weight",
                ring.point_count(),
                ketama::POINTS_PER_WEIGHT
            ),
            Ring::Rendezvous(_) => "the highest draw by XXH3-64 of key and replica".to_owned(),
            Ring::Unkeyed(_) => "nothing is hashed".to_owned(),
        }
    }
}

/// The members in the order in which one key tries them; see [`Ring::candidates`].
#[derive(Debug, Clone)]
pub enum Candidates<'a> {
    /// Of a slot table.
    SlotTable(slot_table::Candidates<'a>),
    /// Of the assignment's ring.
    Assignment(assignment::Walk<'a>),
    /// Of Maglev's table.
    Maglev(maglev::Walk<'a>),
    /// Of a ketama ring.
    Ketama(ketama::Walk<'a>),
    /// Of a drawing.
    Rendezvous(rendezvous::Walk<'a>),
    /// Of a policy that does not hash.
    Unkeyed(std::slice::Iter<'a, (Ordinal, u32)>),
}

impl Iterator for Candidates<'_> {
    type Item = Ordinal;

    #[inline]
    fn next(&mut self) -> Option<Ordinal> {
        match self {
            Candidates::SlotTable(walk) => walk.next(),
            Candidates::Assignment(walk) => walk.next(),
            Candidates::Maglev(walk) => walk.next(),
            Candidates::Ketama(walk) => walk.next(),
            Candidates::Rendezvous(walk) => walk.next(),
            Candidates::Unkeyed(members) => members.next().map(|(ordinal, _)| *ordinal),
        }
    }
}
