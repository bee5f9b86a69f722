//! The slot table: its hash bit for bit, and its promises in random sequences of changes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ringmaster_core::Ordinal;
use ringmaster_core::ring::allocation::Allocation;
use ringmaster_core::ring::codec::DecodeError;
use ringmaster_core::ring::slot_table::SlotTable;
use ringmaster_core::ring::{codec, hash_key};

fn members(count: u16) -> BTreeMap<Ordinal, u32> {
    (0..count).map(|ordinal| (Ordinal(ordinal), 1)).collect()
}

fn table(count: u16) -> SlotTable {
    let mut allocation = Allocation::new(7);
    allocation.rebalance(&members(count));
    allocation.table()
}

/// Σ max(0, current − quota): the fewest slots that any table with these shares must move.
fn fewest_moves(before: &SlotTable, after: &SlotTable) -> usize {
    let after: BTreeMap<Ordinal, usize> = after.shares().into_iter().collect();
    let surplus = |(ordinal, held): (Ordinal, usize)| held.saturating_sub(*after.get(&ordinal).unwrap_or(&0));
    before.shares().into_iter().map(surplus).sum()
}

#[test]
fn the_hash_is_xxh3_bit_for_bit() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("xxh3-golden.json")).unwrap();
    let seed = u64::from_str_radix(golden["seed"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
    let vectors = golden["vectors"].as_array().unwrap();
    assert!(vectors.len() >= 10);
    for vector in vectors {
        let hash = hash_key(seed, vector["key"].as_str().unwrap().as_bytes());
        assert_eq!(format!("{hash:016x}"), vector["seeded"].as_str().unwrap(), "{vector}");
        assert_eq!(hash >> 48, vector["slot16"].as_u64().unwrap(), "{vector}");
    }
}

#[test]
fn every_share_is_within_one_slot_of_ideal() {
    for count in [1, 2, 3, 7, 100, 640] {
        let table = table(count);
        let ideal = table.slot_count() / usize::from(count);
        for (ordinal, held) in table.shares() {
            assert!(held == ideal || held == ideal + 1, "{ordinal} of {count} holds {held}, ideal {ideal}");
        }
    }
}

#[test]
fn removing_the_newest_and_adding_it_again_restores_the_table() {
    for count in 2..20 {
        let mut allocation = Allocation::new(7);
        allocation.rebalance(&members(count));
        let before = allocation.table();
        allocation.rebalance(&members(count - 1));
        allocation.rebalance(&members(count));
        assert!(before.moved_to(&allocation.table()) <= usize::from(count), "{count} members");
    }
}

#[test]
fn doubling_moves_only_what_the_finer_quotas_ask_for() {
    let mut allocation = Allocation::new(7);
    allocation.rebalance(&members(640));
    let small = allocation.table();
    allocation.rebalance(&members(641));
    let large = allocation.table();
    assert_eq!(large.slot_count(), 2 * small.slot_count());
    let moved = (0..large.slot_count()).filter(|slot| {
        let hash = (*slot as u64) << 47;
        small.owner(hash) != large.owner(hash)
    });
    // The index is the hash's top bits: beyond what the finer quotas ask for, nothing has moved.
    let quotas: BTreeMap<Ordinal, usize> = large.shares().into_iter().collect();
    let fewest =
        small.shares().into_iter().map(|(o, held)| (2 * held).saturating_sub(quotas[&o])).sum::<usize>();
    assert_eq!(moved.count(), fewest);
}

#[test]
fn candidates_are_all_members_each_once_owner_first() {
    for count in [1, 3, 10, 200] {
        let table = table(count);
        for key in 0..200_u32 {
            let key = key.to_string();
            let order: Vec<Ordinal> = table.candidates(key.as_bytes()).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, table.members());
            assert_eq!(Some(order[0]), table.owner(table.hash(key.as_bytes())));
        }
    }
}

#[test]
fn keys_of_a_member_that_is_away_scatter_over_all_others() {
    let table = table(4);
    let mut second = BTreeMap::new();
    for key in 0..40_000_u32 {
        let mut order = table.candidates(key.to_string().as_bytes());
        if order.next() == Some(Ordinal(0)) {
            *second.entry(order.next().unwrap()).or_insert(0_u32) += 1;
        }
    }
    let total: u32 = second.values().sum();
    for (ordinal, count) in second {
        let share = f64::from(count) / f64::from(total);
        assert!((share - 1.0 / 3.0).abs() < 0.03, "{ordinal} takes {share:.3} instead of a third");
    }
}

#[test]
fn a_table_without_members_owns_nothing() {
    let empty = SlotTable::empty(1);
    assert_eq!(empty.owner(u64::MAX), None);
    assert_eq!(empty.candidates(b"key").next(), None);
    let mut allocation = Allocation::new(7);
    allocation.rebalance(&members(3));
    allocation.rebalance(&BTreeMap::new());
    assert_eq!(allocation.table().candidates(b"key").count(), 0);
}

#[test]
fn sealed_bytes_that_were_never_written_are_not_a_table() {
    // Found by fuzzing: members out of order were read, and written in order; the highest epoch could not grow.
    let mut allocation = Allocation::new(3);
    allocation.rebalance(&members(3));
    let written = codec::encode(&allocation);
    let sealed = |place: usize, value: &[u8]| {
        let mut bytes = written[..written.len() - 8].to_vec();
        bytes[place..place + value.len()].copy_from_slice(value);
        let digest = xxhash_rust::xxh3::xxh3_64(&bytes);
        bytes.extend_from_slice(&digest.to_le_bytes());
        codec::decode(&bytes)
    };
    let (epoch, first_ordinal) = (17, 27);
    assert_eq!(sealed(first_ordinal, &0_u16.to_le_bytes()), Ok(allocation.clone()));
    for ordinal in [1_u16, 2, 86] {
        let refused = Err(DecodeError::Inconsistent("ordinals out of order"));
        assert_eq!(sealed(first_ordinal, &ordinal.to_le_bytes()), refused);
    }
    let refused = Err(DecodeError::Inconsistent("epoch out of range"));
    assert_eq!(sealed(epoch, &u64::MAX.to_le_bytes()), refused);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_change_moves_the_fewest_slots_possible(
        steps in prop::collection::vec(prop::collection::btree_map((0_u16..40).prop_map(Ordinal), 0_u32..9, 1..30), 1..8)
    ) {
        let mut allocation = Allocation::new(11);
        let mut before: Option<SlotTable> = None;
        for weights in steps {
            if weights.values().all(|weight| *weight == 0) {
                continue;
            }
            allocation.rebalance(&weights);
            let after = allocation.table();
            let total: u64 = weights.values().map(|weight| u64::from(*weight)).sum();
            for (ordinal, held) in after.shares() {
                let exact = after.slot_count() as f64 * f64::from(weights[&ordinal]) / total as f64;
                prop_assert!((held as f64 - exact).abs() < 1.0, "{ordinal}: {held} of {exact}");
            }
            if let Some(before) = &before {
                prop_assert_eq!(before.moved_to(&after), fewest_moves(before, &after));
            }
            prop_assert_eq!(codec::decode(&codec::encode(&allocation)).unwrap(), allocation.clone());
            before = Some(after);
        }
    }

    #[test]
    fn damaged_bytes_are_never_a_table(position in 0_usize..10_000, flip in 1_u8..=255) {
        let mut allocation = Allocation::new(3);
        allocation.rebalance(&members(3));
        let mut bytes = codec::encode(&allocation);
        let position = position % bytes.len();
        bytes[position] ^= flip;
        prop_assert!(codec::decode(&bytes).is_err());
        prop_assert!(codec::decode(&bytes[..position]).is_err());
    }
}
