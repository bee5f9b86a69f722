//! What places requests and virtual servers: the manifest's settings, checked and made ready.

use std::fmt::Write as _;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::{AssignmentError, FREE, REQUEST_COUNT, REQUESTS};
use crate::ids::Ordinal;
use crate::ring::formula::{Formula, FormulaError, Names};
use crate::ring::slot_table::ORDINALS_MAX;
use crate::spec::{AssignmentHash, AssignmentSpec, OnCollision, Probing};

/// Most slots of a ring.
pub const SLOTS_MAX: u32 = 1 << 16;

/// Most virtual servers of one server.
pub const VIRTUAL_SERVERS_MAX: u32 = 1 << 10;

/// H has been tried for every number up to this one.
const TRIED_MAX: u32 = *REQUESTS.end();

/// The rules of one ring. Two are equal if they were made from equal settings.
#[derive(Debug)]
pub struct AssignmentRules {
    spec: AssignmentSpec,
    hashing: Hashing,
    requests_by_slot: OnceLock<Box<[u32]>>,
}

#[derive(Debug)]
enum Hashing {
    Formulas(Box<Formulas>),
    Sha256,
}

#[derive(Debug)]
struct Formulas {
    request: Formula,
    /// H(i) mod M by i mod M, if that is all it depends on, as for every polynomial. Found by trying all requests.
    request_by_residue: Option<Box<[u16]>>,
    virtual_server: Formula,
}

impl Formulas {
    fn request_slot(&self, i: u64, slots: u32) -> Option<usize> {
        if let (Ok(i @ ..=TRIED_MAX), Some(slot_of)) = (u32::try_from(i), &self.request_by_residue) {
            let residue = if slots.is_power_of_two() { i & (slots - 1) } else { i % slots };
            return Some(usize::from(slot_of[residue as usize]));
        }
        self.request.modulo(i, 0, slots).map(|slot| slot as usize)
    }
}

impl PartialEq for AssignmentRules {
    fn eq(&self, other: &AssignmentRules) -> bool {
        self.spec == other.spec
    }
}

impl AssignmentRules {
    /// Checks settings and makes them ready. A formula is evaluated for every number up to six digits (some
    /// ten milliseconds), or for every virtual server of every ordinal, so that it has a value wherever it is asked.
    ///
    /// # Errors
    /// [`AssignmentError`] names the first setting that cannot be used.
    pub fn new(spec: &AssignmentSpec) -> Result<AssignmentRules, AssignmentError> {
        let (slots, virtual_servers) = (spec.slots, spec.virtual_servers);
        if !(1..=SLOTS_MAX).contains(&slots) {
            return Err(AssignmentError::Slots(slots));
        }
        if !(1..=VIRTUAL_SERVERS_MAX).contains(&virtual_servers) {
            return Err(AssignmentError::VirtualServers(virtual_servers));
        }
        if virtual_servers > slots {
            return Err(AssignmentError::VirtualServersBeyondSlots { virtual_servers, slots });
        }
        if spec.first_virtual > 1 {
            return Err(AssignmentError::FirstVirtual(spec.first_virtual));
        }
        let (hashing, requests_by_slot) = match spec.hash {
            AssignmentHash::Formula => {
                let (hashing, counts) = formulas(spec)?;
                (hashing, OnceLock::from(counts))
            }
            AssignmentHash::Sha256 => {
                let unused =
                    [("requestHash", &spec.request_hash), ("virtualServerHash", &spec.virtual_server_hash)];
                if let Some((name, _)) = unused.iter().find(|(_, formula)| formula.is_some()) {
                    return Err(AssignmentError::UnusedFormula(name));
                }
                (Hashing::Sha256, OnceLock::new())
            }
        };
        Ok(AssignmentRules { spec: spec.clone(), hashing, requests_by_slot })
    }

    /// The settings.
    pub fn spec(&self) -> &AssignmentSpec {
        &self.spec
    }

    /// M.
    pub fn slots(&self) -> u32 {
        self.spec.slots
    }

    /// Whether that many servers fit onto the ring.
    ///
    /// # Errors
    /// [`AssignmentError::Full`] if not.
    pub fn check_servers(&self, servers: usize) -> Result<(), AssignmentError> {
        let (virtual_servers, slots) = (self.spec.virtual_servers, self.spec.slots);
        let fits = servers as u64 * u64::from(virtual_servers) <= u64::from(slots);
        if fits || self.spec.on_collision == OnCollision::Drop {
            return Ok(());
        }
        Err(AssignmentError::Full { servers, virtual_servers, slots })
    }

    /// `H(i) mod M`; none where H has no value, which only happens beyond six digits.
    pub fn request_slot(&self, i: u64) -> Option<usize> {
        match &self.hashing {
            Hashing::Formulas(formulas) => formulas.request_slot(i, self.spec.slots),
            Hashing::Sha256 => Some(sha256_modulo(self.spec.slots, format_args!("{i}"))),
        }
    }

    /// H(i) as text: the value of the formula, or the digest in hexadecimal.
    pub fn request_hash_text(&self, i: u64) -> String {
        match &self.hashing {
            Hashing::Formulas(formulas) => formulas
                .request
                .value(i, None)
                .map_or_else(|error| error.to_string(), |value| value.to_string()),
            Hashing::Sha256 => {
                let digest = Sha256::digest(i.to_string());
                digest.iter().fold(String::with_capacity(64), |mut text, byte| {
                    write!(text, "{byte:02x}").expect("a string takes all");
                    text
                })
            }
        }
    }

    /// How many of the 900,000 six-digit requests fall into each slot. With `hash: sha256` the first call
    /// takes a tenth of a second.
    pub fn requests_by_slot(&self) -> &[u32] {
        self.requests_by_slot.get_or_init(|| {
            let mut counts = vec![0_u32; self.spec.slots as usize];
            for i in REQUESTS {
                counts[sha256_modulo(self.spec.slots, format_args!("{i}"))] += 1;
            }
            counts.into()
        })
    }

    /// How many slots any six-digit request reaches.
    pub fn slots_reached(&self) -> usize {
        self.requests_by_slot().iter().filter(|count| **count > 0).count()
    }

    /// How many equally loaded slots would spread requests as well as H does: `(Σ c)² / Σ c²`.
    pub fn effective_slots(&self) -> f64 {
        let squares: f64 = self.requests_by_slot().iter().map(|count| f64::from(*count).powi(2)).sum();
        f64::from(REQUEST_COUNT).powi(2) / squares
    }

    /// Puts all virtual servers of a server onto the ring.
    pub(super) fn place(&self, server: Ordinal, slots: &mut [u16]) {
        let first = self.spec.first_virtual;
        for j in first..first + self.spec.virtual_servers {
            let own = self.virtual_server_slot(server, j);
            let slot = match self.spec.on_collision {
                OnCollision::Drop => Some(own).filter(|slot| slots[*slot] == FREE),
                OnCollision::Probe => self.probe(own, slots),
            };
            if let Some(slot) = slot {
                slots[slot] = server.0;
            }
        }
    }

    /// `Φ(i, j) mod M`.
    fn virtual_server_slot(&self, server: Ordinal, j: u32) -> usize {
        let i = server.server_id();
        match &self.hashing {
            Hashing::Formulas(formulas) => {
                let slot = formulas.virtual_server.modulo(u64::from(i), j, self.spec.slots);
                slot.expect("every virtual server has a slot: the rules have checked it") as usize
            }
            Hashing::Sha256 => sha256_modulo(self.spec.slots, format_args!("{i}-{j}")),
        }
    }

    /// The first free slot by the probing rule; none if all are taken.
    fn probe(&self, own: usize, slots: &[u16]) -> Option<usize> {
        let size = slots.len();
        let is_free = |slot: &usize| slots[*slot] == FREE;
        // Squares do not reach every slot, so after M tries the linear rule, which does, finds what is free.
        let mut sum = 0;
        let squares = (0..=size).map(|k| match self.spec.probing {
            Probing::Linear => own,
            Probing::Quadratic => (own + k * k) % size,
            Probing::QuadraticCumulative => {
                sum = (sum + k * k) % size;
                (own + sum) % size
            }
        });
        let tries = if self.spec.probing == Probing::Linear { 1 } else { size + 1 };
        let found = squares.take(tries).find(is_free);
        found.or_else(|| (1..size).map(|k| (own + k) % size).find(is_free))
    }
}

/// Parses both formulas and evaluates them wherever they may be asked for a value; counts the requests by slot.
fn formulas(spec: &AssignmentSpec) -> Result<(Hashing, Box<[u32]>), AssignmentError> {
    let names = Names { slots: spec.slots, virtual_servers: spec.virtual_servers, with_j: false };
    let request = Formula::parse(spec.request_hash(), names).map_err(AssignmentError::RequestHash)?;
    let virtual_server = Formula::parse(spec.virtual_server_hash(), Names { with_j: true, ..names })
        .map_err(AssignmentError::VirtualServerHash)?;
    check_virtual_servers(&virtual_server, spec)?;
    let Tried { counts, by_residue } =
        try_requests(&request, spec.slots).map_err(AssignmentError::RequestHash)?;
    let formulas = Formulas { request, request_by_residue: by_residue, virtual_server };
    Ok((Hashing::Formulas(Box::new(formulas)), counts))
}

/// What came of trying H.
struct Tried {
    /// How many requests fall into each slot.
    counts: Box<[u32]>,
    /// The slot of each residue, if it depends on nothing else.
    by_residue: Option<Box<[u16]>>,
}

/// Evaluates H for every number that may need it: the requests, and smaller ones that people type.
fn try_requests(request: &Formula, slots: u32) -> Result<Tried, FormulaError> {
    let mut counts = vec![0_u32; slots as usize];
    let mut slot_of = Vec::with_capacity(slots as usize);
    let (mut residue, mut depends_on_nothing_else) = (0, true);
    for i in 0..=TRIED_MAX {
        let Some(slot) = request.modulo(u64::from(i), 0, slots) else {
            return Err(no_value(request, u64::from(i), None));
        };
        counts[slot as usize] += u32::from(REQUESTS.contains(&i));
        match slot_of.get(residue) {
            Some(first) => depends_on_nothing_else &= u32::from(*first) == slot,
            // Below `SLOTS_MAX`.
            None => slot_of.push(slot as u16),
        }
        residue = if residue + 1 == slots as usize { 0 } else { residue + 1 };
    }
    let by_residue = depends_on_nothing_else.then(|| slot_of.into());
    Ok(Tried { counts: counts.into(), by_residue })
}

fn check_virtual_servers(formula: &Formula, spec: &AssignmentSpec) -> Result<(), AssignmentError> {
    let first = spec.first_virtual;
    for i in 1..=ORDINALS_MAX as u64 {
        for j in first..first + spec.virtual_servers {
            if formula.modulo(i, j, spec.slots).is_none() {
                return Err(AssignmentError::VirtualServerHash(no_value(formula, i, Some(j))));
            }
        }
    }
    Ok(())
}

/// Why there is no value.
fn no_value(formula: &Formula, i: u64, j: Option<u32>) -> FormulaError {
    formula.value(i, j).expect_err("a formula without a remainder has no value")
}

/// The SHA-256 of a short text as a big-endian number, modulo `modulus`.
fn sha256_modulo(modulus: u32, text: std::fmt::Arguments<'_>) -> usize {
    let mut short = Short { bytes: [0; 40], length: 0 };
    short.write_fmt(text).expect("two numbers fit into 40 bytes");
    let digest = Sha256::digest(&short.bytes[..short.length]);
    let (words, _) = digest.as_chunks::<4>();
    let rest = words
        .iter()
        .fold(0_u64, |rest, word| ((rest << 32) | u64::from(u32::from_be_bytes(*word))) % u64::from(modulus));
    rest as usize
}

/// A short text on the stack.
struct Short {
    bytes: [u8; 40],
    length: usize,
}

impl std::fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
