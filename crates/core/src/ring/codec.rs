//! The allocation as bytes: what is persisted before a table is published.
//!
//! Layout, little-endian: magic `RMSLOTS1`, bits u8, seed u64, epoch u64, member count u16, then per member
//! ordinal u16, length u32 and its slots u32 each; last the XXH3-64 of all before it. A digest that does not
//! match, a slot that is owned twice or by nobody, or a byte too many is an error: a table is never guessed.

use std::collections::BTreeMap;

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::allocation::Allocation;
use super::slot_table::{BITS_MAX, BITS_MIN, ORDINALS_MAX};
use crate::ids::Ordinal;

const MAGIC: &[u8; 8] = b"RMSLOTS1";

/// An epoch grows by one with a change, so no table is ever this old.
const EPOCH_END: u64 = 1 << 63;

/// Bytes that are not a whole and consistent allocation.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Cut short or too long.
    #[error("truncated or overlong")]
    Length,
    /// Not written by this version.
    #[error("not a slot table of this version")]
    Magic,
    /// Changed since it was written.
    #[error("digest does not match the content")]
    Digest,
    /// A size, an ordinal or a slot out of range, or a slot owned twice or by nobody.
    #[error("inconsistent: {0}")]
    Inconsistent(&'static str),
}

/// Writes an allocation.
pub fn encode(allocation: &Allocation) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + (4 << allocation.bits));
    bytes.extend_from_slice(MAGIC);
    bytes.push(allocation.bits);
    bytes.extend_from_slice(&allocation.seed.to_le_bytes());
    bytes.extend_from_slice(&allocation.epoch.to_le_bytes());
    bytes.extend_from_slice(&(allocation.stacks.len() as u16).to_le_bytes());
    for (ordinal, stack) in &allocation.stacks {
        bytes.extend_from_slice(&ordinal.0.to_le_bytes());
        bytes.extend_from_slice(&(stack.len() as u32).to_le_bytes());
        for slot in stack {
            bytes.extend_from_slice(&slot.to_le_bytes());
        }
    }
    seal(bytes)
}

/// Reads an allocation.
///
/// # Errors
/// [`DecodeError`] if the bytes are not exactly what [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> Result<Allocation, DecodeError> {
    let mut reader = unseal(bytes, MAGIC)?;
    let [bits] = reader.take::<1>()?;
    if !(BITS_MIN..=BITS_MAX).contains(&bits) {
        return Err(DecodeError::Inconsistent("table size out of range"));
    }
    let seed = u64::from_le_bytes(reader.take()?);
    let epoch = reader.epoch()?;
    let members = u16::from_le_bytes(reader.take()?);
    let mut owned = vec![false; 1 << bits];
    let mut stacks: BTreeMap<Ordinal, Vec<u32>> = BTreeMap::new();
    for _ in 0..members {
        let ordinal = Ordinal(u16::from_le_bytes(reader.take()?));
        if ordinal.index() >= ORDINALS_MAX {
            return Err(DecodeError::Inconsistent("ordinal out of range"));
        }
        if stacks.last_key_value().is_some_and(|(last, _)| *last >= ordinal) {
            return Err(DecodeError::Inconsistent("ordinals out of order"));
        }
        let length = u32::from_le_bytes(reader.take()?) as usize;
        let mut stack = Vec::with_capacity(length.min(owned.len()));
        for _ in 0..length {
            let slot = u32::from_le_bytes(reader.take()?);
            let taken = owned.get_mut(slot as usize).ok_or(DecodeError::Inconsistent("slot out of range"))?;
            if std::mem::replace(taken, true) {
                return Err(DecodeError::Inconsistent("slot owned twice"));
            }
            stack.push(slot);
        }
        stacks.insert(ordinal, stack);
    }
    reader.end()?;
    if !stacks.is_empty() && owned.contains(&false) {
        return Err(DecodeError::Inconsistent("slot owned by nobody"));
    }
    Ok(Allocation { bits, seed, epoch, stacks })
}

/// Appends the digest of all bytes.
pub(super) fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
    bytes
}

/// What stands between a magic and a digest that are right.
pub(super) fn unseal<'a>(bytes: &'a [u8], magic: &[u8; 8]) -> Result<Reader<'a>, DecodeError> {
    let (content, digest) = bytes.split_last_chunk::<8>().ok_or(DecodeError::Length)?;
    let mut reader = Reader(content);
    if reader.take::<8>()? != *magic {
        return Err(DecodeError::Magic);
    }
    if xxh3_64(content).to_le_bytes() != *digest {
        return Err(DecodeError::Digest);
    }
    Ok(reader)
}

/// Takes bytes from the front.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// So many bytes.
    pub(super) fn slice(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Length)?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Length)?;
        self.0 = rest;
        Ok(*head)
    }

    /// An epoch that can still grow.
    pub(super) fn epoch(&mut self) -> Result<u64, DecodeError> {
        match u64::from_le_bytes(self.take()?) {
            epoch @ ..EPOCH_END => Ok(epoch),
            _ => Err(DecodeError::Inconsistent("epoch out of range")),
        }
    }

    /// Nothing is left.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Length) }
    }
}
