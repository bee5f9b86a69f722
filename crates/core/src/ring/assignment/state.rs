//! The ring as bytes: what is persisted before it is published.
//!
//! Layout, little-endian: magic `RMASSIG1`, seed u64, epoch u64, slot count u32, member count u16, the members' ordinals u16
//! each, then every slot's server u16 (65535: free); last the XXH3-64 of all before it. The rules are not in it:
//! they are in the manifest that is kept beside it, and bytes of another slot count are refused.

use std::sync::Arc;

use super::{Assignment, AssignmentRules, FREE};
use crate::ids::Ordinal;
use crate::ring::codec::{DecodeError, Reader, seal, unseal};
use crate::ring::slot_table::ORDINALS_MAX;

const MAGIC: &[u8; 8] = b"RMASSIG1";

impl Assignment {
    /// Writes the ring, with the seed and the epoch that name it.
    pub fn encode(&self, seed: u64, epoch: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + 2 * self.slots.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&seed.to_le_bytes());
        bytes.extend_from_slice(&epoch.to_le_bytes());
        bytes.extend_from_slice(&(self.slots.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.members.len() as u16).to_le_bytes());
        for ordinal in self.members.iter().map(|ordinal| ordinal.0).chain(self.slots.iter().copied()) {
            bytes.extend_from_slice(&ordinal.to_le_bytes());
        }
        seal(bytes)
    }

    /// Reads a ring that was written under these rules, with its seed and epoch.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not exactly what [`Assignment::encode`] wrote, or have another number of
    /// slots than the rules.
    pub fn decode(bytes: &[u8], rules: Arc<AssignmentRules>) -> Result<(u64, u64, Assignment), DecodeError> {
        let mut reader = unseal(bytes, MAGIC)?;
        let (seed, epoch) = (u64::from_le_bytes(reader.take()?), reader.epoch()?);
        if u32::from_le_bytes(reader.take()?) != rules.slots() {
            return Err(DecodeError::Inconsistent("another number of slots"));
        }
        let count = u16::from_le_bytes(reader.take()?);
        let members = ordinals(&mut reader, usize::from(count))?;
        let ascending = members.is_sorted_by(|a, b| a < b);
        if !ascending || members.iter().any(|ordinal| usize::from(*ordinal) >= ORDINALS_MAX) {
            return Err(DecodeError::Inconsistent("ordinals out of order or range"));
        }
        let slots = ordinals(&mut reader, rules.slots() as usize)?;
        if slots.iter().any(|server| *server != FREE && members.binary_search(server).is_err()) {
            return Err(DecodeError::Inconsistent("slot owned by no member"));
        }
        reader.end()?;
        let members = members.into_iter().map(Ordinal).collect();
        Ok((seed, epoch, Assignment::from_slots(rules, members, slots.into())))
    }
}

fn ordinals(reader: &mut Reader<'_>, count: usize) -> Result<Vec<u16>, DecodeError> {
    (0..count).map(|_| reader.take().map(u16::from_le_bytes)).collect()
}
