//! What the controller keeps of a ring: it follows the desired members, and it is persisted before it is published.

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use super::allocation::Allocation;
use super::assignment::{Assignment, AssignmentError, AssignmentRules};
use super::codec::{self, DecodeError, seal, unseal};
use super::ketama::{Ketama, POINTS_MAX, POINTS_PER_WEIGHT};
use super::maglev::Maglev;
use super::rendezvous::Rendezvous;
use super::slot_table::ORDINALS_MAX;
use super::{Moved, Ring, Unkeyed};
use crate::ids::Ordinal;
use crate::spec::{Balancing, Policy};

/// The magic of the bytes of a policy that follows from its members alone.
const STATELESS_MAGIC: &[u8; 8] = b"RMPLAIN1";

/// A member as a ring sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingMember {
    /// Its place in the desired set.
    pub ordinal: Ordinal,
    /// A name that outlives replacements, as `host:port`: what `ring`, `maglev` and `rendezvous` hash.
    pub name: String,
    /// Its share by that of the others. 0 owns nothing. `assignment` knows only 0 and not 0.
    pub weight: u32,
}

/// Members or settings that make no ring.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RingError {
    /// The policy `assignment` refuses its settings or its members.
    #[error(transparent)]
    Assignment(#[from] AssignmentError),
    /// Weights that need too many points.
    #[error("weights of {0} in all need more points than a ring may have: use smaller ones")]
    TooHeavy(u64),
    /// Members of which none may get anything.
    #[error("all weights are 0: no replica would get a request")]
    Weightless,
    /// Two members of one ordinal.
    #[error("ordinal {0} is given twice")]
    Twice(Ordinal),
    /// An ordinal that no ring can hold.
    #[error("ordinal {0} is beyond the highest that a ring can hold")]
    Ordinal(Ordinal),
}

/// The ring of one service with all that its next change depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct RingState {
    seed: u64,
    epoch: u64,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    SlotTable(Allocation),
    Assignment(Arc<Assignment>),
    /// Follows from the members alone.
    Stateless(Ring),
}

impl RingState {
    /// The ring of a policy over no members yet. `seed` hashes the keys of `slot-table`, and sets this ring apart
    /// from any other of its service.
    ///
    /// # Errors
    /// [`RingError::Assignment`] if the settings cannot be used.
    pub fn new(balancing: &Balancing, seed: u64) -> Result<RingState, RingError> {
        RingState::at_epoch(balancing, seed, 0)
    }

    fn at_epoch(balancing: &Balancing, seed: u64, epoch: u64) -> Result<RingState, RingError> {
        let kind = match balancing.policy {
            Policy::SlotTable => Kind::SlotTable(Allocation::at_epoch(seed, epoch)),
            Policy::Assignment => Kind::Assignment(Arc::new(Assignment::new(rules(balancing)?))),
            policy => Kind::Stateless(stateless(policy, &[])?),
        };
        Ok(RingState { seed, epoch, kind })
    }

    /// Follows the members and the settings: with another policy, or other settings of `assignment`, the ring is
    /// made anew. Returns how much of all keys belongs to another member than before; what belonged to nobody
    /// does not count. On an error nothing changes.
    ///
    /// # Errors
    /// [`RingError`] says which member or setting.
    pub fn update(&mut self, balancing: &Balancing, members: &[RingMember]) -> Result<Moved, RingError> {
        check(members)?;
        if self.is_under(balancing) {
            return self.follow(balancing.policy, members);
        }
        let mut next = RingState::at_epoch(balancing, self.seed, self.epoch + 1)?;
        next.follow(balancing.policy, members)?;
        let moved = moved(&self.ring(), &next.ring());
        *self = next;
        Ok(moved)
    }

    /// Whether the ring was made under these settings.
    fn is_under(&self, balancing: &Balancing) -> bool {
        match &self.kind {
            Kind::SlotTable(_) => balancing.policy == Policy::SlotTable,
            Kind::Assignment(ring) => {
                let spec = || balancing.assignment.clone().unwrap_or_default();
                balancing.policy == Policy::Assignment && spec() == *ring.rules().spec()
            }
            Kind::Stateless(ring) => balancing.policy == ring.policy(),
        }
    }

    fn follow(&mut self, policy: Policy, members: &[RingMember]) -> Result<Moved, RingError> {
        let before = match &mut self.kind {
            Kind::SlotTable(allocation) => {
                let weights: BTreeMap<Ordinal, u32> =
                    members.iter().map(|member| (member.ordinal, member.weight)).collect();
                let slots = allocation.rebalance(&weights);
                // Its table names itself, with an epoch of its own.
                self.epoch = allocation.epoch();
                let share = slots as f64 / allocation.slot_count() as f64;
                return Ok(Moved { share, is_exact: true });
            }
            Kind::Assignment(ring) => {
                let ordinals: Vec<Ordinal> =
                    weighted(members).into_iter().map(|member| member.ordinal).collect();
                let next = Arc::new(ring.with_members(&ordinals)?);
                Ring::Assignment(std::mem::replace(ring, next))
            }
            Kind::Stateless(ring) => {
                let next = stateless(policy, members)?;
                std::mem::replace(ring, next)
            }
        };
        let after = self.ring();
        if before == after {
            return Ok(Moved { share: 0.0, is_exact: true });
        }
        self.epoch += 1;
        Ok(moved(&before, &after))
    }

    /// The ring to publish. For `slot-table` it is made from the allocation (a copy of the table); for all others
    /// it is there.
    pub fn ring(&self) -> Ring {
        match &self.kind {
            Kind::SlotTable(allocation) => Ring::SlotTable(Arc::new(allocation.table())),
            Kind::Assignment(ring) => Ring::Assignment(Arc::clone(ring)),
            Kind::Stateless(ring) => ring.clone(),
        }
    }

    /// Names this very ring among all of its service: seed and epoch.
    pub fn id(&self) -> String {
        format!("{:016x}-{}", self.seed, self.epoch)
    }

    /// Grows with every change of the ring.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Writes the state. For policies that follow from their members alone it holds only the name.
    pub fn encode(&self) -> Vec<u8> {
        match &self.kind {
            Kind::SlotTable(allocation) => codec::encode(allocation),
            Kind::Assignment(ring) => ring.encode(self.seed, self.epoch),
            Kind::Stateless(_) => {
                let mut bytes = STATELESS_MAGIC.to_vec();
                bytes.extend_from_slice(&self.seed.to_le_bytes());
                bytes.extend_from_slice(&self.epoch.to_le_bytes());
                seal(bytes)
            }
        }
    }

    /// Reads a state that was written under these settings over these members. Should the members differ, the ring
    /// follows them as in [`RingState::update`].
    ///
    /// # Errors
    /// [`RestoreError`] if the bytes are not exactly what [`RingState::encode`] wrote, or the settings differ.
    pub fn decode(
        bytes: &[u8],
        balancing: &Balancing,
        members: &[RingMember],
    ) -> Result<RingState, RestoreError> {
        let (seed, epoch, kind) = match balancing.policy {
            Policy::SlotTable => {
                let allocation = codec::decode(bytes)?;
                (allocation.seed(), allocation.epoch(), Kind::SlotTable(allocation))
            }
            Policy::Assignment => {
                let (seed, epoch, ring) = Assignment::decode(bytes, rules(balancing)?)?;
                (seed, epoch, Kind::Assignment(Arc::new(ring)))
            }
            policy => {
                let mut reader = unseal(bytes, STATELESS_MAGIC)?;
                let (seed, epoch) = (u64::from_le_bytes(reader.take()?), reader.epoch()?);
                reader.end()?;
                check(members)?;
                (seed, epoch, Kind::Stateless(stateless(policy, members)?))
            }
        };
        let mut state = RingState { seed, epoch, kind };
        state.update(balancing, members)?;
        Ok(state)
    }
}

/// A state that cannot be read back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// The bytes.
    #[error(transparent)]
    Bytes(#[from] DecodeError),
    /// The settings.
    #[error(transparent)]
    Settings(#[from] RingError),
}

/// The ring of a policy over members that have no history: what `-f FILE` shows without a daemon.
///
/// # Errors
/// [`RingError`] says which member or setting.
pub fn fresh(balancing: &Balancing, seed: u64, members: &[RingMember]) -> Result<Ring, RingError> {
    let mut state = RingState::new(balancing, seed)?;
    state.update(balancing, members)?;
    Ok(state.ring())
}

/// How much of all keys belongs to another member; what belonged to nobody does not count.
fn moved(before: &Ring, after: &Ring) -> Moved {
    if before.members().is_empty() { Moved { share: 0.0, is_exact: true } } else { before.moved_to(after) }
}

fn rules(balancing: &Balancing) -> Result<Arc<AssignmentRules>, RingError> {
    let spec = balancing.assignment.clone().unwrap_or_default();
    Ok(Arc::new(AssignmentRules::new(&spec)?))
}

fn stateless(policy: Policy, members: &[RingMember]) -> Result<Ring, RingError> {
    Ok(match policy {
        Policy::Maglev => Ring::Maglev(Arc::new(Maglev::new(members))),
        Policy::Ring => {
            let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
            if total > POINTS_MAX / u64::from(POINTS_PER_WEIGHT) {
                return Err(RingError::TooHeavy(total));
            }
            Ring::Ketama(Arc::new(Ketama::new(members)))
        }
        Policy::Rendezvous => Ring::Rendezvous(Arc::new(Rendezvous::new(members))),
        other => Ring::Unkeyed(Arc::new(Unkeyed::new(other, members))),
    })
}

fn check(members: &[RingMember]) -> Result<(), RingError> {
    if !members.is_empty() && members.iter().all(|member| member.weight == 0) {
        return Err(RingError::Weightless);
    }
    let mut ordinals: Vec<Ordinal> = members.iter().map(|member| member.ordinal).collect();
    ordinals.sort_unstable();
    if let Some(pair) = ordinals.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(RingError::Twice(pair[0]));
    }
    match ordinals.last() {
        Some(last) if last.index() >= ORDINALS_MAX => Err(RingError::Ordinal(*last)),
        _ => Ok(()),
    }
}

/// The members that own something, ascending, each once; those that no ring can hold are left out, as those of
/// weight 0 are.
pub(super) fn weighted(members: &[RingMember]) -> Vec<&RingMember> {
    let mut weighted: Vec<&RingMember> =
        members.iter().filter(|member| member.weight > 0 && member.ordinal.index() < ORDINALS_MAX).collect();
    weighted.sort_by_key(|member| member.ordinal);
    weighted.dedup_by_key(|member| member.ordinal);
    weighted
}
