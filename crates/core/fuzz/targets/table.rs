//! Any bytes are a ring's state, or an error; what is read is written as the same bytes again.
//!
//! A whole table has a quarter of a million bytes, which no fuzzer writes. So an input either is the bytes, or says what
//! to change in those of a real table. It may ask for the digest to be made right, so that the content is read.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use ringmaster_core::Ordinal;
use ringmaster_core::ring::assignment::{Assignment, AssignmentRules};
use ringmaster_core::ring::{RingMember, RingState, codec};
use ringmaster_core::spec::{AssignmentSpec, Balancing, Policy};

const DIGEST_BYTES: usize = 8;

/// What is read: every layout that there is. `ring` stands for all policies that follow from their members alone, because it
/// is made quickly.
const POLICIES: [Policy; 3] = [Policy::SlotTable, Policy::Assignment, Policy::Ring];

/// Made once: a formula is tried on a million numbers.
static RULES: LazyLock<Arc<AssignmentRules>> = LazyLock::new(|| {
    let spec = AssignmentSpec { slots: 64, virtual_servers: 3, ..AssignmentSpec::default() };
    Arc::new(AssignmentRules::new(&spec).expect("the settings can be used"))
});

/// The bytes of a real ring of each policy.
static REAL: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| POLICIES.map(real));

fuzz_target!(|input: &[u8]| {
    let Some((&[policy, how], rest)) = input.split_first_chunk() else { return };
    let index = usize::from(policy) % POLICIES.len();
    let mut bytes = if how & 1 == 0 { rest.to_vec() } else { changed(&REAL[index], rest) };
    if how & 2 == 0 {
        bytes.truncate(bytes.len().saturating_sub(if how & 1 == 0 { 0 } else { DIGEST_BYTES }));
        let digest = xxhash_rust::xxh3::xxh3_64(&bytes);
        bytes.extend_from_slice(&digest.to_le_bytes());
    }
    match POLICIES[index] {
        Policy::Assignment => read_assignment(&bytes),
        policy => read_state(policy, &bytes),
    }
});

fn read_assignment(bytes: &[u8]) {
    let Ok((seed, epoch, ring)) = Assignment::decode(bytes, Arc::clone(&RULES)) else { return };
    assert_eq!(ring.encode(seed, epoch), bytes);
    for slot in 0..RULES.slots() as usize {
        assert_eq!(ring.candidates(slot).count(), ring.members().len());
    }
    let three: Vec<Ordinal> = (0..3).map(Ordinal).collect();
    let next = ring.with_members(&three).expect("they fit");
    assert_eq!(next.members(), three);
}

fn read_state(policy: Policy, bytes: &[u8]) {
    let settings = Balancing { policy, ..Balancing::default() };
    if policy == Policy::SlotTable
        && let Ok(allocation) = codec::decode(bytes)
    {
        assert_eq!(codec::encode(&allocation), bytes);
    }
    // The ring follows the members, which need not be those that the bytes name.
    let members = members(3);
    let Ok(state) = RingState::decode(bytes, &settings, &members) else { return };
    let written = state.encode();
    if policy != Policy::SlotTable {
        assert_eq!(written, bytes);
    }
    let again = RingState::decode(&written, &settings, &members).expect("it has just been written");
    assert_eq!((again.encode(), again.id()), (written, state.id()));
    assert_eq!(state.ring().candidates(b"user-42").count(), members.len());
}

fn members(count: u16) -> Vec<RingMember> {
    let member = |n| RingMember { ordinal: Ordinal(n), name: format!("web-{n}:5000"), weight: 1 };
    (0..count).map(member).collect()
}

fn real(policy: Policy) -> Vec<u8> {
    if policy == Policy::Assignment {
        let ring = Assignment::new(Arc::clone(&RULES));
        return ring.with_members(&[Ordinal(0), Ordinal(1), Ordinal(2)]).expect("they fit").encode(7, 1);
    }
    let settings = Balancing { policy, ..Balancing::default() };
    let mut state = RingState::new(&settings, 7).expect("the settings can be used");
    state.update(&settings, &members(3)).expect("they fit");
    state.encode()
}

/// Bytes with changes: each is six bytes, of which three are a place, one says how, and two are values.
fn changed(real: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut bytes = real.to_vec();
    for [a, b, c, kind, low, high] in changes.as_chunks::<6>().0 {
        // Changes tell more at the front, where numbers and ordinals stand.
        let place = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
        let place = if kind & 1 == 0 { place % 64 } else { place };
        let place = place % bytes.len().max(1);
        match kind >> 1 & 3 {
            0 => bytes.truncate(place),
            1 => bytes.insert(place, *low),
            2 => bytes[place] = *low,
            _ => {
                let end = (place + 2).min(bytes.len());
                bytes[place..end].copy_from_slice(&[*low, *high][..end - place]);
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}
