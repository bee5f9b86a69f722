//! Rendezvous hashing, or highest random weight (Thaler and Ravishankar, 1998), with weights.
//!
//! Each member draws a number for a key, and the members rank by it; a change moves no key but those of the
//! members that changed. With `u` in (0, 1) from the hash of key and member, a member of weight `w` arrives at
//! the time `-ln(u) / w` and the first one owns the key, so its share is exactly `w / W` in expectation.
//!
//! Where a key goes must not depend on the platform, and `ln` of the standard library may. This one uses only
//! additions, multiplications and divisions, of which IEEE 754 defines every bit. Equal weights need no logarithm:
//! the larger hash arrives first.

use std::fmt;

use super::codec::{DecodeError, Reader};
use super::{Share, hash_key, mix, wire};
use crate::ids::Ordinal;
use crate::ring::state::{RingMember, weighted};

/// Seeds of names and of keys.
const NAME_SEED: u64 = 3;
const KEY_SEED: u64 = 0;

/// The members that draw.
#[derive(Clone, PartialEq)]
pub struct Rendezvous {
    members: Box<[Drawing]>,
    equal_weights: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Drawing {
    ordinal: Ordinal,
    weight: u32,
    hash: u64,
}

/// When a member arrives for a key; the least is first.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
struct Arrival(f64, u64, Ordinal);

impl Rendezvous {
    /// The drawing of these members, those of weight 0 left out.
    pub fn new(members: &[RingMember]) -> Rendezvous {
        let drawing = |member: &RingMember| Drawing {
            ordinal: member.ordinal,
            weight: member.weight,
            hash: hash_key(NAME_SEED, member.name.as_bytes()),
        };
        Rendezvous::of(weighted(members).into_iter().map(drawing).collect())
    }

    fn of(members: Box<[Drawing]>) -> Rendezvous {
        let equal_weights = members.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        Rendezvous { members, equal_weights }
    }

    /// Appends the drawing: each member's ordinal, weight and hash.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&(self.members.len() as u16).to_le_bytes());
        for member in &self.members {
            wire::write_weighted(bytes, member.ordinal, member.weight);
            bytes.extend_from_slice(&member.hash.to_le_bytes());
        }
    }

    /// Reads what [`Rendezvous::write`] wrote.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Rendezvous, DecodeError> {
        let mut members: Vec<Drawing> = Vec::new();
        for _ in 0..u16::from_le_bytes(reader.take()?) {
            let (ordinal, weight) = wire::read_weighted(reader)?;
            members.push(Drawing { ordinal, weight, hash: u64::from_le_bytes(reader.take()?) });
        }
        wire::in_order(members.iter().map(|member| member.ordinal))?;
        Ok(Rendezvous::of(members.into()))
    }

    /// The members that draw, ascending.
    pub fn members(&self) -> impl Iterator<Item = Ordinal> {
        self.members.iter().map(|member| member.ordinal)
    }

    /// The hash of a key.
    pub fn hash(key: &[u8]) -> u64 {
        hash_key(KEY_SEED, key)
    }

    /// The member that arrives first.
    pub fn owner(&self, hash: u64) -> Option<Ordinal> {
        self.candidates(hash).next()
    }

    /// All members in the order of their arrival. Each step looks at every member.
    pub fn candidates(&self, hash: u64) -> Walk<'_> {
        Walk { drawing: self, hash, last: None }
    }

    /// What each member owns in expectation: its weight's share.
    pub fn shares(&self) -> Vec<Share> {
        let total: u64 = self.members.iter().map(|member| u64::from(member.weight)).sum();
        let share = |member: &Drawing| Share {
            ordinal: member.ordinal,
            slots: 0,
            share: f64::from(member.weight) / total as f64,
        };
        self.members.iter().map(share).collect()
    }

    fn arrival(&self, member: &Drawing, hash: u64) -> Arrival {
        let drawn = mix(hash ^ member.hash);
        let time = if self.equal_weights { 0.0 } else { waiting_time(drawn) / f64::from(member.weight) };
        Arrival(time, !drawn, member.ordinal)
    }
}

/// `-ln(u)` for `u = (drawn + ½) / 2^52` of the top 52 bits, which is exact and within (0, 1).
///
/// With `u = m · 2^-e` and `m` near 1, `ln m = 2 artanh((m - 1) / (m + 1))` by its series, whose terms fall
/// below the precision of `f64` at the tenth.
fn waiting_time(drawn: u64) -> f64 {
    let u = ((drawn >> 12) as f64 + 0.5) / 4_503_599_627_370_496.0;
    let bits = u.to_bits();
    let mut exponent = (bits >> 52) as i32 - 1_023;
    let mut mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series = (0..10_u8).rev().fold(0.0, |sum, k| sum * square + 1.0 / f64::from(2 * k + 1));
    -(f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * s * series)
}

impl fmt::Debug for Rendezvous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rendezvous {{ {} members }}", self.members.len())
    }
}

/// The members in the order in which one key tries them; see [`Rendezvous::candidates`].
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    drawing: &'a Rendezvous,
    hash: u64,
    last: Option<Arrival>,
}

impl Iterator for Walk<'_> {
    type Item = Ordinal;

    fn next(&mut self) -> Option<Ordinal> {
        let arrivals = self.drawing.members.iter().map(|member| self.drawing.arrival(member, self.hash));
        let mut first: Option<Arrival> = None;
        for arrival in arrivals {
            if self.last.is_none_or(|last| last < arrival) && first.is_none_or(|first| arrival < first) {
                first = Some(arrival);
            }
        }
        self.last = first.or(self.last);
        first.map(|arrival| arrival.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waiting_time_is_the_negative_logarithm_to_the_last_bits() {
        for k in 0..200_000_u64 {
            let drawn = mix(k);
            let u = ((drawn >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
            let (time, exact) = (waiting_time(drawn), -u.ln());
            assert!((time - exact).abs() <= 1e-14 * exact, "{drawn}: {time} for {exact}");
        }
        // Frozen: a platform that computes otherwise would place keys otherwise.
        assert_eq!(waiting_time(1 << 63).to_bits(), 0x3fe6_2e42_fefa_39ed);
        assert!(waiting_time(0) > 36.0 && waiting_time(u64::MAX) > 0.0);
    }
}
