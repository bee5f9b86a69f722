//! The assignment's ring against the golden vectors, bit for bit, and the rest of what it promises.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use ringmaster_core::Ordinal;
use ringmaster_core::ring::assignment::{
    Assignment, AssignmentError, AssignmentRules, REQUEST_COUNT, REQUESTS,
};
use ringmaster_core::ring::stats::Spread;
use ringmaster_core::spec::{AssignmentHash, AssignmentSpec, OnCollision, Probing, Successor};
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("ring-golden.json")).expect("the golden file is JSON")
}

/// A 32-bit avalanche: twice `x = ((x >> 16) ^ x) · 0x45d9f3b`, then `(x >> 16) ^ x`, in 32 bits.
fn mix32(x: &str) -> String {
    let once = |x: String| format!("((({x}) >> 16 xor ({x})) * 0x45d9f3b & 0xffffffff)");
    let twice = once(once(format!("({x} & 0xffffffff)")));
    format!("({twice} >> 16 xor {twice})")
}

/// The settings of a golden configuration.
fn spec(name: &str) -> AssignmentSpec {
    let assignment = AssignmentSpec::default();
    let avalanche = || AssignmentSpec {
        request_hash: Some(mix32("i")),
        virtual_server_hash: Some(mix32(&format!("(i + {})", mix32("j")))),
        ..AssignmentSpec::default()
    };
    match name {
        "assignment-linear-j0" => assignment,
        "assignment-quadratic-j1" => {
            AssignmentSpec { probing: Probing::Quadratic, first_virtual: 1, ..assignment }
        }
        "assignment-quadcum-j0" => AssignmentSpec { probing: Probing::QuadraticCumulative, ..assignment },
        "seed-sha256-1024x100" => AssignmentSpec {
            slots: 1_024,
            virtual_servers: 100,
            hash: AssignmentHash::Sha256,
            successor: Successor::Strict,
            on_collision: OnCollision::Drop,
            ..assignment
        },
        "a4-yatindra7" => avalanche(),
        other => panic!("no settings for {other}"),
    }
}

fn rules(name: &str) -> Arc<AssignmentRules> {
    Arc::new(AssignmentRules::new(&spec(name)).unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// The same settings with servers numbered from 0.
fn from_zero(name: &str) -> Arc<AssignmentRules> {
    let spec = spec(name);
    let shifted = spec.virtual_server_hash().replace('i', "(i - 1)");
    let spec = AssignmentSpec { virtual_server_hash: Some(shifted), ..spec };
    Arc::new(AssignmentRules::new(&spec).unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// A ring of the servers with these numbers, added one after the other.
fn ring(rules: &Arc<AssignmentRules>, servers: impl IntoIterator<Item = u16>) -> Assignment {
    let mut members = Vec::new();
    servers.into_iter().fold(Assignment::new(Arc::clone(rules)), |ring, server| {
        members.push(Ordinal(server - 1));
        ring.with_members(&members).expect("they fit")
    })
}

fn pairs(value: &Value) -> Vec<(usize, u16)> {
    let number = |value: &Value| value.as_u64().expect("a number");
    let pair = |pair: &Value| (number(&pair[0]) as usize, number(&pair[1]) as u16);
    value.as_array().expect("a list").iter().map(pair).collect()
}

#[test]
fn every_golden_vector_holds_bit_for_bit() {
    let golden = golden();
    let configs = golden.as_object().unwrap();
    assert_eq!(configs.len(), 5);
    let mut checked = 0;
    for (name, config) in configs {
        let rules = rules(name);
        assert_eq!(u64::from(rules.slots()), config["M"].as_u64().unwrap(), "{name}");
        assert_eq!(rules.slots_reached() as u64, config["H_distinct_slots"].as_u64().unwrap(), "{name}");
        let effective = config["H_effective_slots"].as_f64().unwrap();
        assert!((rules.effective_slots() - effective).abs() < 0.005, "{name}: {}", rules.effective_slots());
        for (case, golden) in config["shares"].as_object().unwrap() {
            // Servers are numbered from 1 here. Rings that number them from 0 are those of Φ(i - 1, j).
            let first = u32::from(case.contains("ids 1.."));
            let rules = match first {
                1 => Arc::clone(&rules),
                _ if spec(name).hash == AssignmentHash::Sha256 => continue,
                _ => from_zero(name),
            };
            let count: u16 = case[2..].split(' ').next().unwrap().parse().unwrap();
            let shares = ring(&rules, 1..=count).shares();
            assert_eq!(shares.len(), usize::from(count));
            for share in &shares {
                let server = (u32::from(share.ordinal.0) + first).to_string();
                let requests = (share.share * f64::from(REQUEST_COUNT)).round() as u64;
                assert_eq!(requests, golden["counts"][&server].as_u64().unwrap(), "{name} {case} {server}");
                assert_eq!(share.slots, golden["slots_owned"][&server].as_u64().unwrap(), "{name} {case}");
            }
            let spread = Spread::of(&shares);
            let close = |value: f64, field: &str| {
                let golden = golden[field].as_f64().unwrap();
                assert!((value - golden).abs() < 1e-6, "{name} {case} {field}: {value} for {golden}");
            };
            close(spread.max_over_mean, "max_over_mean");
            close(spread.min_over_mean, "min_over_mean");
            close(spread.stddev_over_mean(shares.len()), "stddev_over_mean");
            checked += 1;
        }
        let three = ring(&rules, 1..=3);
        let taken: Vec<(usize, u16)> =
            three.virtual_servers().map(|(slot, server)| (slot, server.0 + 1)).collect();
        assert_eq!(taken, pairs(&config["ring_N3_ids_1_3"]), "{name}");
        for (request, server) in pairs(&config["sample_lookups_N3_ids_1_3"]) {
            let (id, slot) = three.locate(request.to_string().as_bytes());
            assert_eq!(id, request as u64);
            assert_eq!(three.owner(slot), Some(Ordinal(server - 1)), "{name} {request}");
            assert_eq!(three.candidates(slot).next(), three.owner(slot));
            checked += 1;
        }
        history(name, &three, &config["history_dependence"]);
    }
    println!("{checked} golden values checked");
}

/// Whether other ways to the same members lead to the same ring.
fn history(name: &str, three: &Assignment, golden: &Value) {
    let slots = |ring: &Assignment| ring.virtual_servers().collect::<Vec<_>>();
    let again = three.with_members(&[Ordinal(1), Ordinal(2)]).expect("they fit");
    let again = again.with_members(&[Ordinal(0), Ordinal(1), Ordinal(2)]).expect("they fit");
    let same = slots(three) == slots(&again);
    assert_eq!(Some(same), golden["remove1_add1_same_table"].as_bool(), "{name}");
    let reversed = ring(three.rules(), [3, 2, 1]);
    let same = slots(three) == slots(&reversed);
    assert_eq!(Some(same), golden["insert_order_3_2_1_same_table"].as_bool(), "{name}");
}

#[test]
fn lookups_of_all_requests_agree_with_the_counted_shares() {
    let three = ring(&rules("assignment-linear-j0"), 1..=3);
    let mut counts = BTreeMap::new();
    for request in REQUESTS {
        let (_, slot) = three.locate(request.to_string().as_bytes());
        *counts.entry(three.owner(slot).unwrap()).or_insert(0_u32) += 1;
    }
    for share in three.shares() {
        assert_eq!(f64::from(counts[&share.ordinal]) / f64::from(REQUEST_COUNT), share.share);
    }
}

#[test]
fn keys_that_are_no_numbers_take_six_digits() {
    let three = ring(&rules("assignment-linear-j0"), 1..=3);
    for key in ["", "abc", "-1", "+1", "1.5", "99999999999999999999", "0x10", "é"] {
        let (id, _) = three.locate(key.as_bytes());
        assert!((100_000..=999_999).contains(&id), "{key}: {id}");
    }
    for (key, number) in [("0", 0), ("007", 7), ("1234567", 1_234_567), ("9999999999", 9_999_999_999)] {
        assert_eq!(three.locate(key.as_bytes()).0, number);
    }
    // (i + 1)^2 + 16 has no value in 128 bits for the largest numbers of 64.
    let (id, _) = three.locate(b"18446744073709551615");
    assert!((100_000..=999_999).contains(&id), "{id}");
}

#[test]
fn candidates_go_clockwise_over_all_members() {
    for name in golden().as_object().unwrap().keys() {
        let ring = ring(&rules(name), 1..=5);
        let taken: BTreeMap<usize, Ordinal> = ring.virtual_servers().collect();
        let strict = ring.rules().spec().successor == Successor::Strict;
        for slot in 0..ring.rules().slots() as usize {
            let from = if strict { slot + 1 } else { slot };
            let mut clockwise = Vec::new();
            for (_, server) in taken.range(from..).chain(taken.range(..from)) {
                if !clockwise.contains(server) {
                    clockwise.push(*server);
                }
            }
            assert_eq!(ring.candidates(slot).collect::<Vec<_>>(), clockwise, "{name} {slot}");
        }
    }
}

#[test]
fn a_server_whose_virtual_servers_were_all_dropped_is_still_a_last_candidate() {
    let spec = AssignmentSpec {
        slots: 2,
        virtual_servers: 1,
        on_collision: OnCollision::Drop,
        virtual_server_hash: Some("0".to_owned()),
        ..AssignmentSpec::default()
    };
    let ring = ring(&Arc::new(AssignmentRules::new(&spec).unwrap()), 1..=3);
    assert_eq!(ring.candidates(1).collect::<Vec<_>>(), [Ordinal(0), Ordinal(1), Ordinal(2)]);
    assert_eq!(ring.shares()[2].share, 0.0);
}

#[test]
fn settings_that_make_no_ring_are_refused() {
    let default = AssignmentSpec::default();
    let error = |spec: AssignmentSpec| AssignmentRules::new(&spec).unwrap_err();
    assert_eq!(error(AssignmentSpec { slots: 0, ..default.clone() }), AssignmentError::Slots(0));
    assert_eq!(error(AssignmentSpec { slots: 65_537, ..default.clone() }), AssignmentError::Slots(65_537));
    let none = AssignmentSpec { virtual_servers: 0, ..default.clone() };
    assert_eq!(error(none), AssignmentError::VirtualServers(0));
    let beyond = AssignmentSpec { slots: 8, ..default.clone() };
    assert!(matches!(error(beyond), AssignmentError::VirtualServersBeyondSlots { .. }));
    assert_eq!(
        error(AssignmentSpec { first_virtual: 2, ..default.clone() }),
        AssignmentError::FirstVirtual(2)
    );
    let unused =
        AssignmentSpec { hash: AssignmentHash::Sha256, request_hash: Some("i".to_owned()), ..default };
    assert_eq!(error(unused), AssignmentError::UnusedFormula("requestHash"));
}

#[test]
fn a_full_ring_takes_no_more_servers() {
    let rules = rules("assignment-linear-j0");
    let most = ring(&rules, 1..=56);
    assert_eq!(most.virtual_servers().count(), 504);
    let members: Vec<Ordinal> = (0..57).map(Ordinal).collect();
    let refused = most.with_members(&members).unwrap_err();
    assert_eq!(refused, AssignmentError::Full { servers: 57, virtual_servers: 9, slots: 512 });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever leaves gives up its slots and nothing else moves; whatever comes takes K free ones.
    #[test]
    fn servers_come_and_go_without_moving_others(
        steps in prop::collection::vec(prop::collection::btree_set(0_u16..12, 0..12), 1..12),
        probing in prop::sample::select(vec![Probing::Linear, Probing::Quadratic, Probing::QuadraticCumulative]),
        slots in prop::sample::select(vec![108_u32, 128, 509, 512]),
    ) {
        let spec = AssignmentSpec { slots, probing, ..AssignmentSpec::default() };
        let mut ring = Assignment::new(Arc::new(AssignmentRules::new(&spec).unwrap()));
        for step in steps {
            let members: Vec<Ordinal> = step.into_iter().map(Ordinal).collect();
            let next = ring.with_members(&members).unwrap();
            let before: BTreeMap<usize, Ordinal> = ring.virtual_servers().collect();
            let after: BTreeMap<usize, Ordinal> = next.virtual_servers().collect();
            for (slot, server) in &before {
                if members.contains(server) {
                    prop_assert_eq!(after.get(slot), Some(server));
                }
            }
            prop_assert_eq!(next.members(), &members[..]);
            for member in &members {
                prop_assert_eq!(after.values().filter(|server| *server == member).count(), 9);
            }
            let total: f64 = next.shares().iter().map(|share| share.share).sum();
            prop_assert!(members.is_empty() || (total - 1.0).abs() < 1e-12);
            ring = next;
        }
    }
}
