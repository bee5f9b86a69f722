//! A ketama ring: 160 points per weight on a circle of 2^32, a key belongs to the next point.
//!
//! The placement is that of nginx's `hash … consistent` (module `ngx_http_upstream_hash_module`, after
//! Cache::Memcached::Fast) for servers of the same names, weights and keys: the points of a server are the CRC-32
//! of its host, a zero byte, its port and the point before (4 bytes little-endian, 0 for the first), and a key's place
//! is its CRC-32. Of two points in one place the one of the lower ordinal stays.
//!
//! A member that is not there is skipped clockwise, as there: with 160 points each, its keys scatter too.

use std::fmt;

use super::codec::{DecodeError, Reader};
use super::{Seen, Share, wire};
use crate::ids::Ordinal;
use crate::ring::state::{RingMember, weighted};

/// Points of one unit of weight.
pub const POINTS_PER_WEIGHT: u32 = 160;

/// Most points of a ring: heavier weights are refused by [`super::RingState`] before memory is.
pub const POINTS_MAX: u64 = 1 << 22;

/// The points of all members.
#[derive(Clone, PartialEq, Eq)]
pub struct Ketama {
    /// Ascending, each once.
    places: Box<[u32]>,
    /// Whose point it is, for each place.
    owners: Box<[u16]>,
    members: Box<[Ordinal]>,
}

impl Ketama {
    /// Appends the ring: members, the number of points, places, owners.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        wire::write_members(bytes, &self.members);
        bytes.extend_from_slice(&(self.places.len() as u32).to_le_bytes());
        for place in &self.places {
            bytes.extend_from_slice(&place.to_le_bytes());
        }
        wire::write_slots(bytes, &self.owners);
    }

    /// Reads what [`Ketama::write`] wrote.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Ketama, DecodeError> {
        let members = wire::read_members(reader)?;
        let count = u32::from_le_bytes(reader.take()?);
        if u64::from(count) > POINTS_MAX || (count == 0) != members.is_empty() {
            return Err(DecodeError::Inconsistent("number of points out of range"));
        }
        let place = |_| reader.take().map(u32::from_le_bytes);
        let places = (0..count).map(place).collect::<Result<Box<[u32]>, DecodeError>>()?;
        if !places.is_sorted_by(|a, b| a < b) {
            return Err(DecodeError::Inconsistent("points out of order"));
        }
        let owners = wire::read_slots(reader, places.len(), &members)?;
        Ok(Ketama { places, owners, members })
    }

    /// The ring of these members, those of weight 0 left out. Names are `host:port`, or a host alone.
    pub fn new(members: &[RingMember]) -> Ketama {
        let weighted = weighted(members);
        let mut points: Vec<(u32, u16)> = Vec::new();
        for member in &weighted {
            let (host, port) = host_and_port(&member.name);
            let mut name = crc32fast::Hasher::new();
            name.update(host.as_bytes());
            name.update(b"\0");
            name.update(port.as_bytes());
            let mut place = 0_u32;
            for _ in 0..u64::from(member.weight) * u64::from(POINTS_PER_WEIGHT) {
                let mut point = name.clone();
                point.update(&place.to_le_bytes());
                place = point.finalize();
                points.push((place, member.ordinal.0));
            }
        }
        points.sort_unstable();
        points.dedup_by_key(|point| point.0);
        Ketama {
            places: points.iter().map(|point| point.0).collect(),
            owners: points.iter().map(|point| point.1).collect(),
            members: weighted.iter().map(|member| member.ordinal).collect(),
        }
    }

    /// The members that have points, ascending.
    pub fn members(&self) -> &[Ordinal] {
        &self.members
    }

    /// How many points there are.
    pub fn point_count(&self) -> usize {
        self.places.len()
    }

    /// The hash of a key, its place on the circle.
    pub fn hash(key: &[u8]) -> u32 {
        crc32fast::hash(key)
    }

    /// The point that a hash belongs to: the first one at or after it, wrapping at the end. 0 without points.
    pub fn point(&self, hash: u32) -> usize {
        let after = self.places.partition_point(|place| *place < hash);
        if after == self.places.len() { 0 } else { after }
    }

    /// The owner of the point that a hash belongs to.
    pub fn owner(&self, hash: u32) -> Option<Ordinal> {
        self.owners.get(self.point(hash)).map(|owner| Ordinal(*owner))
    }

    /// All members, each once: clockwise from the point that the hash belongs to.
    pub fn candidates(&self, hash: u32) -> Walk<'_> {
        let steps_left = self.places.len();
        Walk { ring: self, at: self.point(hash), steps_left, seen: Seen::default(), left: self.members.len() }
    }

    /// What each member owns: its points, and the exact share of the circle that leads to them.
    pub fn shares(&self) -> Vec<Share> {
        let mut points = vec![(0_u64, 0_u64); super::slot_table::ORDINALS_MAX];
        let mut before = self.places.last().copied().unwrap_or(0);
        for (place, owner) in self.places.iter().zip(&self.owners) {
            let arc = arc(before, *place);
            before = *place;
            let entry = &mut points[usize::from(*owner)];
            *entry = (entry.0 + 1, entry.1 + arc);
        }
        let share = |ordinal: &Ordinal| {
            let (slots, arc) = points[ordinal.index()];
            Share { ordinal: *ordinal, slots, share: arc as f64 / CIRCLE }
        };
        self.members.iter().map(share).collect()
    }

    /// Which share of the circle has another owner in the other ring.
    pub fn moved_to(&self, other: &Ketama) -> f64 {
        if self.places.is_empty() || other.places.is_empty() {
            return f64::from(u8::from(self.places.is_empty() != other.places.is_empty()));
        }
        let mut cuts: Vec<u32> = self.places.iter().chain(&other.places).copied().collect();
        cuts.sort_unstable();
        cuts.dedup();
        // Between two cuts all hashes belong to the later one; those beyond the last wrap to the first.
        let mut moved = 0_u64;
        let mut before = cuts[cuts.len() - 1];
        for cut in cuts {
            if self.owner(cut) != other.owner(cut) {
                moved += arc(before, cut);
            }
            before = cut;
        }
        moved as f64 / CIRCLE
    }
}

const CIRCLE: f64 = 4_294_967_296.0;

/// How many hashes lie after one place up to another; all of them if it is the only place.
fn arc(before: u32, place: u32) -> u64 {
    match place.wrapping_sub(before) {
        0 => 1 << 32,
        hashes => u64::from(hashes),
    }
}

/// The parts of a name around the colon before its port, as nginx finds them.
fn host_and_port(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, port),
        _ => (name, ""),
    }
}

impl fmt::Debug for Ketama {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ketama {{ {} points, {} members }}", self.places.len(), self.members.len())
    }
}

/// The members in the order in which one key tries them; see [`Ketama::candidates`].
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    ring: &'a Ketama,
    at: usize,
    steps_left: usize,
    seen: Seen,
    left: usize,
}

impl Iterator for Walk<'_> {
    type Item = Ordinal;

    fn next(&mut self) -> Option<Ordinal> {
        while self.left > 0 && self.steps_left > 0 {
            let owner = Ordinal(self.ring.owners[self.at]);
            self.at = (self.at + 1) % self.ring.owners.len();
            self.steps_left -= 1;
            if self.seen.take(owner) {
                self.left -= 1;
                return Some(owner);
            }
        }
        None
    }
}
