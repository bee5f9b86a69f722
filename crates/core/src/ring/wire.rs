//! A published ring as bytes: what a data plane apart is sent, and keeps.
//!
//! Whole in itself: who reads it needs neither the manifest nor the members. Layout, little-endian: magic `RMRINGS1`, the
//! policy's place in [`Policy::ALL`] u8, what the policy's ring consists of, and the XXH3-64 of all before it. What is not
//! consistent is an error, as in [`super::codec`]: no look-up may ever meet a slot that belongs to nobody.

use std::sync::Arc;

use super::assignment::{Assignment, AssignmentRules};
use super::codec::{DecodeError, Reader, seal, unseal};
use super::ketama::Ketama;
use super::maglev::Maglev;
use super::rendezvous::Rendezvous;
use super::slot_table::{ORDINALS_MAX, SlotTable};
use super::{RestoreError, Ring, RingError, Unkeyed};
use crate::ids::Ordinal;
use crate::spec::{AssignmentSpec, Policy};

const MAGIC: &[u8; 8] = b"RMRINGS1";

impl Ring {
    /// Writes the ring.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let place = Policy::ALL.iter().position(|policy| *policy == self.policy());
        bytes.push(place.expect("ALL has every policy") as u8);
        match self {
            Ring::SlotTable(table) => table.write(&mut bytes),
            Ring::Maglev(table) => table.write(&mut bytes),
            Ring::Ketama(ring) => ring.write(&mut bytes),
            Ring::Rendezvous(drawing) => drawing.write(&mut bytes),
            Ring::Assignment(ring) => {
                let spec = serde_json::to_vec(ring.rules().spec()).expect("settings have only string keys");
                write_block(&mut bytes, &spec);
                write_block(&mut bytes, &ring.encode(0, 0));
            }
            Ring::Unkeyed(unkeyed) => {
                bytes.extend_from_slice(&(unkeyed.members.len() as u16).to_le_bytes());
                for (ordinal, weight) in &unkeyed.members {
                    write_weighted(&mut bytes, *ordinal, *weight);
                }
            }
        }
        seal(bytes)
    }

    /// Reads what [`Ring::encode`] wrote.
    ///
    /// # Errors
    /// [`RestoreError`] if the bytes are anything else.
    pub fn decode(bytes: &[u8]) -> Result<Ring, RestoreError> {
        let mut reader = unseal(bytes, MAGIC)?;
        let [place] = reader.take::<1>()?;
        let policy =
            *Policy::ALL.get(usize::from(place)).ok_or(DecodeError::Inconsistent("unknown policy"))?;
        let ring = match policy {
            Policy::SlotTable => Ring::SlotTable(Arc::new(SlotTable::read(&mut reader)?)),
            Policy::Maglev => Ring::Maglev(Arc::new(Maglev::read(&mut reader)?)),
            Policy::Ring => Ring::Ketama(Arc::new(Ketama::read(&mut reader)?)),
            Policy::Rendezvous => Ring::Rendezvous(Arc::new(Rendezvous::read(&mut reader)?)),
            Policy::Assignment => Ring::Assignment(Arc::new(assignment(&mut reader)?)),
            Policy::RoundRobin | Policy::LeastRequest | Policy::P2c => {
                Ring::Unkeyed(Arc::new(unkeyed(policy, &mut reader)?))
            }
        };
        reader.end()?;
        Ok(ring)
    }
}

fn assignment(reader: &mut Reader<'_>) -> Result<Assignment, RestoreError> {
    let spec: AssignmentSpec = serde_json::from_slice(read_block(reader)?)
        .map_err(|_| DecodeError::Inconsistent("settings that cannot be understood"))?;
    let rules = AssignmentRules::new(&spec).map_err(RingError::from)?;
    let (_, _, ring) = Assignment::decode(read_block(reader)?, Arc::new(rules))?;
    Ok(ring)
}

fn unkeyed(policy: Policy, reader: &mut Reader<'_>) -> Result<Unkeyed, DecodeError> {
    let count = u16::from_le_bytes(reader.take()?);
    let members = (0..count).map(|_| read_weighted(reader)).collect::<Result<Box<[_]>, _>>()?;
    in_order(members.iter().map(|(ordinal, _)| *ordinal))?;
    Ok(Unkeyed { policy, members })
}

pub(super) fn write_members(bytes: &mut Vec<u8>, members: &[Ordinal]) {
    bytes.extend_from_slice(&(members.len() as u16).to_le_bytes());
    for ordinal in members {
        bytes.extend_from_slice(&ordinal.0.to_le_bytes());
    }
}

pub(super) fn read_members(reader: &mut Reader<'_>) -> Result<Box<[Ordinal]>, DecodeError> {
    let count = u16::from_le_bytes(reader.take()?);
    let ordinal = |_| reader.take().map(|bytes| Ordinal(u16::from_le_bytes(bytes)));
    let members = (0..count).map(ordinal).collect::<Result<Box<[Ordinal]>, DecodeError>>()?;
    in_order(members.iter().copied())?;
    Ok(members)
}

pub(super) fn write_slots(bytes: &mut Vec<u8>, slots: &[u16]) {
    bytes.reserve(2 * slots.len());
    for owner in slots {
        bytes.extend_from_slice(&owner.to_le_bytes());
    }
}

/// So many slots, each owned by one of the members.
pub(super) fn read_slots(
    reader: &mut Reader<'_>,
    count: usize,
    members: &[Ordinal],
) -> Result<Box<[u16]>, DecodeError> {
    let mut known = [false; ORDINALS_MAX];
    for member in members {
        known[member.index()] = true;
    }
    let slot = |_| {
        let owner = u16::from_le_bytes(reader.take()?);
        let is_known = known.get(usize::from(owner)).copied().unwrap_or_default();
        if is_known { Ok(owner) } else { Err(DecodeError::Inconsistent("slot owned by no member")) }
    };
    (0..count).map(slot).collect()
}

pub(super) fn write_weighted(bytes: &mut Vec<u8>, ordinal: Ordinal, weight: u32) {
    bytes.extend_from_slice(&ordinal.0.to_le_bytes());
    bytes.extend_from_slice(&weight.to_le_bytes());
}

pub(super) fn read_weighted(reader: &mut Reader<'_>) -> Result<(Ordinal, u32), DecodeError> {
    let ordinal = Ordinal(u16::from_le_bytes(reader.take()?));
    match u32::from_le_bytes(reader.take()?) {
        0 => Err(DecodeError::Inconsistent("member without weight")),
        weight => Ok((ordinal, weight)),
    }
}

/// Members ascend, each once, and a ring can hold them.
pub(super) fn in_order(ordinals: impl Iterator<Item = Ordinal> + Clone) -> Result<(), DecodeError> {
    let in_range = ordinals.clone().all(|ordinal| ordinal.index() < ORDINALS_MAX);
    if in_range && ordinals.is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    Err(DecodeError::Inconsistent("ordinals out of order or range"))
}

fn write_block(bytes: &mut Vec<u8>, block: &[u8]) {
    bytes.extend_from_slice(&(block.len() as u32).to_le_bytes());
    bytes.extend_from_slice(block);
}

fn read_block<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let length = u32::from_le_bytes(reader.take()?);
    reader.slice(length as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{RingMember, fresh};
    use crate::spec::Balancing;

    fn ring(policy: Policy, weights: &[u32]) -> Ring {
        let balancing = Balancing { policy, ..Balancing::default() };
        let member = |(n, weight): (u16, &u32)| RingMember {
            ordinal: Ordinal(3 * n),
            name: format!("web-{n}"),
            weight: *weight,
        };
        fresh(&balancing, 9, &(0..).zip(weights).map(member).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn every_policys_ring_comes_back_as_it_was() {
        for policy in Policy::ALL {
            for weights in [&[][..], &[1], &[2, 1, 1, 0, 5]] {
                let ring = ring(policy, weights);
                assert_eq!(Ring::decode(&ring.encode()).unwrap(), ring, "{policy} {weights:?}");
            }
        }
    }

    #[test]
    fn no_damaged_byte_and_no_cut_goes_unnoticed() {
        for policy in Policy::ALL {
            let bytes = ring(policy, &[1, 2]).encode();
            for at in (0..bytes.len()).step_by(bytes.len() / 50 + 1) {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x40;
                assert!(Ring::decode(&damaged).is_err(), "{policy}: byte {at}");
                assert!(Ring::decode(&bytes[..at]).is_err(), "{policy}: cut at {at}");
            }
        }
    }

    #[test]
    fn bytes_with_a_right_digest_are_looked_at_all_the_same() {
        let whole = ring(Policy::SlotTable, &[1, 1]).encode();
        let mut content = whole[..whole.len() - 8].to_vec();
        // The last slot's owner becomes an ordinal that is no member.
        let last = content.len() - 2;
        content[last..].copy_from_slice(&7_u16.to_le_bytes());
        let error = Ring::decode(&seal(content)).unwrap_err();
        assert_eq!(error.to_string(), "inconsistent: slot owned by no member");
        let mut policy = MAGIC.to_vec();
        policy.push(200);
        assert!(Ring::decode(&seal(policy)).is_err());
    }
}
