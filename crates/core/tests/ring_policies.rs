//! Every policy by the same promises, and each by its own reference.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use pingora_ketama::{Bucket, Continuum};
use proptest::prelude::*;
use ringmaster_core::Ordinal;
use ringmaster_core::quantity::Factor;
use ringmaster_core::ring::bounded::{cap, has_room};
use ringmaster_core::ring::explain::{Explanation, SkipReason, choose};
use ringmaster_core::ring::select::{Load, Turns, least_request, power_of_two};
use ringmaster_core::ring::state::{RestoreError, fresh};
use ringmaster_core::ring::stats::Spread;
use ringmaster_core::ring::{Ring, RingError, RingMember, RingState, rehash};
use ringmaster_core::spec::{AssignmentSpec, Balancing, Policy};

const HASHING: [Policy; 5] =
    [Policy::SlotTable, Policy::Maglev, Policy::Ring, Policy::Rendezvous, Policy::Assignment];

fn member(ordinal: u16, weight: u32) -> RingMember {
    RingMember { ordinal: Ordinal(ordinal), name: format!("web-{ordinal}:5000"), weight }
}

fn members(weights: &BTreeMap<u16, u32>) -> Vec<RingMember> {
    weights.iter().map(|(ordinal, weight)| member(*ordinal, *weight)).collect()
}

fn equal(count: u16) -> Vec<RingMember> {
    (0..count).map(|ordinal| member(ordinal, 1)).collect()
}

/// Settings under which 30 members fit onto every ring.
fn balancing(policy: Policy) -> Balancing {
    let assignment = (policy == Policy::Assignment).then(AssignmentSpec::default);
    Balancing { policy, assignment, ..Balancing::default() }
}

fn ring(policy: Policy, members: &[RingMember]) -> Ring {
    fresh(&balancing(policy), 7, members).expect("they make a ring")
}

fn owner(ring: &Ring, key: u32) -> Option<Ordinal> {
    ring.owner(ring.hash(key.to_string().as_bytes()))
}

#[test]
fn candidates_are_all_members_each_once_owner_first() {
    for policy in Policy::ALL {
        for count in [0, 1, 2, 10, 30] {
            let ring = ring(policy, &equal(count));
            assert_eq!(ring.policy(), policy);
            for key in 100_000..100_100_u32 {
                let order: Vec<Ordinal> = ring.candidates(key.to_string().as_bytes()).collect();
                let distinct: BTreeSet<Ordinal> = order.iter().copied().collect();
                assert_eq!(distinct.into_iter().collect::<Vec<_>>(), ring.members(), "{policy}");
                assert_eq!(order.len(), usize::from(count));
                if policy.hashes() {
                    assert_eq!(order.first().copied(), owner(&ring, key), "{policy}");
                } else {
                    assert_eq!(owner(&ring, key), None, "{policy}");
                }
            }
        }
    }
}

#[test]
fn a_thousand_members_have_candidates_too() {
    for policy in HASHING.into_iter().filter(|policy| *policy != Policy::Assignment) {
        let ring = ring(policy, &equal(1_000));
        assert_eq!(ring.candidates(b"key").collect::<BTreeSet<_>>().len(), 1_000, "{policy}");
    }
}

#[test]
fn shares_are_what_keys_see_and_add_up_to_one() {
    let weights = BTreeMap::from([(0, 1), (1, 2), (3, 5), (4, 0)]);
    for policy in HASHING {
        let ring = ring(policy, &members(&weights));
        let shares = ring.shares();
        assert_eq!(shares.iter().map(|share| share.ordinal.0).collect::<Vec<_>>(), [0, 1, 3], "{policy}");
        assert!((shares.iter().map(|share| share.share).sum::<f64>() - 1.0).abs() < 1e-9, "{policy}");
        let mut counts = BTreeMap::new();
        for key in 100_000..400_000_u32 {
            *counts.entry(owner(&ring, key).unwrap()).or_insert(0_u32) += 1;
        }
        for share in shares {
            let seen = f64::from(counts[&share.ordinal]) / 300_000.0;
            assert!(
                (seen - share.share).abs() < 0.005,
                "{policy} {}: {seen} for {}",
                share.ordinal,
                share.share
            );
        }
    }
}

#[test]
fn weights_are_followed_as_closely_as_each_policy_can() {
    let weights: BTreeMap<u16, u32> = (0..10).map(|ordinal| (ordinal, u32::from(ordinal % 4) + 1)).collect();
    let total: u32 = weights.values().sum();
    for (policy, tolerance) in
        [(Policy::SlotTable, 4e-4), (Policy::Maglev, 1e-3), (Policy::Rendezvous, 1e-12), (Policy::Ring, 0.25)]
    {
        for share in ring(policy, &members(&weights)).shares() {
            let ideal = f64::from(weights[&share.ordinal.0]) / f64::from(total);
            let off = (share.share / ideal - 1.0).abs();
            assert!(off < tolerance, "{policy} {}: {off}", share.ordinal);
        }
    }
}

#[test]
fn ketama_places_keys_where_pingora_does() {
    for weights in [vec![1, 1, 1], vec![1, 2, 3, 4, 5], vec![1; 100]] {
        let address =
            |n: usize| SocketAddr::from(([10, 0, (n / 200) as u8, (n % 200) as u8], 8_000 + n as u16));
        let buckets: Vec<Bucket> =
            weights.iter().enumerate().map(|(n, weight)| Bucket::new(address(n), *weight)).collect();
        let reference = Continuum::new(&buckets);
        let members: Vec<RingMember> = weights
            .iter()
            .enumerate()
            .map(|(n, weight)| RingMember {
                ordinal: Ordinal(n as u16),
                name: address(n).to_string(),
                weight: *weight,
            })
            .collect();
        let ring = ring(Policy::Ring, &members);
        for key in 0..50_000_u32 {
            let key = format!("session-{key}");
            let owner = ring.owner(ring.hash(key.as_bytes())).unwrap();
            assert_eq!(reference.node(key.as_bytes()), Some(address(owner.index())), "{key}");
        }
        for key in 0..200_u32 {
            let key = key.to_string();
            let mut order: Vec<SocketAddr> = Vec::new();
            for node in reference.node_iter(key.as_bytes()).take(160 * 100) {
                if !order.contains(node) {
                    order.push(*node);
                }
                if order.len() == weights.len() {
                    break;
                }
            }
            let own: Vec<SocketAddr> =
                ring.candidates(key.as_bytes()).map(|ordinal| address(ordinal.index())).collect();
            assert_eq!(own, order, "{key}");
        }
    }
}

#[test]
fn ketama_takes_names_as_nginx_does() {
    // A server without a port, and one whose name only looks as if it had one.
    let named = |name: &str| {
        let member = RingMember { ordinal: Ordinal(0), name: name.to_owned(), weight: 1 };
        ring(Policy::Ring, &[member]).slot(ring(Policy::Ring, &[]).hash(b"x")).unwrap()
    };
    let points = [named("web"), named("web:80"), named("web:http")];
    assert!(points.iter().all(|point| *point < 160));
}

#[test]
fn placement_never_changes_between_versions() {
    // Frozen: another value here moves keys of everybody who upgrades.
    let keys = ["", "a", "user-42", "123456", "session-1"];
    let mut found = Vec::new();
    for policy in HASHING {
        let weights = BTreeMap::from([(0, 1), (1, 2), (2, 1), (3, 3)]);
        let ring = ring(policy, &members(&weights));
        let orders = keys.map(|key| {
            ring.candidates(key.as_bytes()).map(|ordinal| ordinal.to_string()).collect::<String>()
        });
        found.push(format!("{policy} {}", orders.join(" ")));
    }
    assert_eq!(found, FROZEN);
}

const FROZEN: [&str; 5] = [
    "slot-table 2301 3120 0231 3210 3210",
    "maglev 1230 3102 1302 0312 3210",
    "ring 2130 3210 3012 2310 3210",
    "rendezvous 1302 0123 1320 3012 1302",
    "assignment 0312 0123 0123 0123 0123",
];

#[test]
fn a_member_that_leaves_takes_only_its_own_keys_along() {
    for policy in [Policy::SlotTable, Policy::Ring, Policy::Rendezvous, Policy::Assignment] {
        let mut state = RingState::new(&balancing(policy), 7).unwrap();
        state.update(&balancing(policy), &equal(10)).unwrap();
        let before = state.ring();
        let without: Vec<RingMember> = equal(10).into_iter().filter(|m| m.ordinal != Ordinal(4)).collect();
        let moved = state.update(&balancing(policy), &without).unwrap();
        let after = state.ring();
        let mut gone = 0_u32;
        for key in 100_000..200_000_u32 {
            let (old, new) = (owner(&before, key).unwrap(), owner(&after, key).unwrap());
            assert!(old == new || old == Ordinal(4), "{policy} {key}");
            gone += u32::from(old != new);
        }
        let seen = f64::from(gone) / 100_000.0;
        assert!((moved.share - seen).abs() < 0.01, "{policy}: {} moved, {seen} seen", moved.share);
        let share = before.shares().into_iter().find(|share| share.ordinal == Ordinal(4)).unwrap().share;
        assert!((moved.share - share).abs() < 0.004, "{policy}: {} moved of {share}", moved.share);
    }
}

#[test]
fn what_moves_is_counted_alike_by_rings_and_by_keys() {
    for policy in HASHING {
        let (before, after) = (ring(policy, &equal(5)), ring(policy, &equal(7)));
        let moved = before.moved_to(&after);
        let seen = (100_000..200_000_u32).filter(|key| owner(&before, *key) != owner(&after, *key)).count();
        assert!((moved.share - seen as f64 / 100_000.0).abs() < 0.01, "{policy}: {moved:?} for {seen}");
        assert_eq!(before.moved_to(&before).share, 0.0);
        let other = ring(if policy == Policy::Maglev { Policy::Ring } else { Policy::Maglev }, &equal(5));
        let switched = before.moved_to(&other);
        assert!(!switched.is_exact && switched.share > 0.5, "{policy}: {switched:?}");
    }
}

#[test]
fn states_survive_a_restart() {
    for policy in Policy::ALL {
        let settings = balancing(policy);
        let mut state = RingState::new(&settings, 0xabc).unwrap();
        for count in [3, 7, 5] {
            state.update(&settings, &equal(count)).unwrap();
        }
        let restored = RingState::decode(&state.encode(), &settings, &equal(5)).unwrap();
        assert_eq!(restored, state, "{policy}");
        assert_eq!(restored.id(), state.id());
        assert_eq!(restored.ring(), state.ring());
        let bytes = state.encode();
        for position in (0..bytes.len()).step_by(bytes.len() / 50 + 1) {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1;
            assert!(RingState::decode(&damaged, &settings, &equal(5)).is_err(), "{policy}");
            assert!(RingState::decode(&bytes[..position], &settings, &equal(5)).is_err(), "{policy}");
        }
    }
    // A state of other settings is not guessed at.
    let mut state = RingState::new(&balancing(Policy::Assignment), 1).unwrap();
    state.update(&balancing(Policy::Assignment), &equal(3)).unwrap();
    let other = AssignmentSpec { slots: 1_024, ..AssignmentSpec::default() };
    let other = Balancing { assignment: Some(other), ..balancing(Policy::Assignment) };
    let refused = RingState::decode(&state.encode(), &other, &equal(3));
    assert!(matches!(refused, Err(RestoreError::Bytes(_))), "{refused:?}");
    assert!(RingState::decode(&state.encode(), &balancing(Policy::SlotTable), &equal(3)).is_err());
}

#[test]
fn every_change_has_a_name_of_its_own() {
    let mut names = BTreeSet::new();
    let mut state = RingState::new(&balancing(Policy::SlotTable), 1).unwrap();
    for (policy, count) in [
        (Policy::SlotTable, 3),
        (Policy::Maglev, 3),
        (Policy::Assignment, 0),
        (Policy::Assignment, 3),
        (Policy::SlotTable, 3),
        (Policy::SlotTable, 4),
        (Policy::RoundRobin, 4),
        (Policy::SlotTable, 3),
    ] {
        state.update(&balancing(policy), &equal(count)).unwrap();
        assert_eq!(state.ring().policy(), policy);
        assert!(names.insert(state.id()), "{policy} {count}: {}", state.id());
        let id = state.id();
        state.update(&balancing(policy), &equal(count)).unwrap();
        assert_eq!(state.id(), id, "nothing changed");
        if let Ring::SlotTable(table) = state.ring() {
            assert_eq!(table.id(), id);
        }
    }
}

#[test]
fn members_that_make_no_ring_are_refused() {
    for policy in Policy::ALL {
        let settings = balancing(policy);
        let refused = |members: &[RingMember]| fresh(&settings, 1, members).unwrap_err();
        assert_eq!(refused(&[member(1, 1), member(1, 2)]), RingError::Twice(Ordinal(1)));
        assert_eq!(refused(&[member(1_024, 1)]), RingError::Ordinal(Ordinal(1_024)));
        assert_eq!(refused(&[member(0, 0), member(1, 0)]), RingError::Weightless);
        let nobody = fresh(&settings, 1, &[]).unwrap();
        assert_eq!((nobody.shares().len(), nobody.candidates(b"x").count()), (0, 0), "{policy}");
        assert_eq!(Spread::of(&nobody.shares()), Spread::default());
        let heaviest = [member(0, u32::MAX), member(1, 1)];
        match fresh(&settings, 1, &heaviest) {
            Ok(ring) => assert_eq!(ring.candidates(b"x").count(), 2, "{policy}"),
            Err(error) => assert_eq!((policy, error), (Policy::Ring, RingError::TooHeavy(1 << 32))),
        }
    }
    assert!(matches!(fresh(&balancing(Policy::Assignment), 1, &equal(57)), Err(RingError::Assignment(_))));
    let mut state = RingState::new(&balancing(Policy::Assignment), 1).unwrap();
    state.update(&balancing(Policy::Assignment), &equal(3)).unwrap();
    let before = state.clone();
    state.update(&balancing(Policy::Assignment), &equal(57)).unwrap_err();
    assert_eq!(state, before, "a refused change changes nothing");
}

#[test]
fn an_explanation_is_the_walk_of_the_proxy() {
    for policy in Policy::ALL {
        let ring = ring(policy, &equal(6));
        for key in 100_000..101_000_u32 {
            let key = key.to_string();
            let skip =
                |ordinal: Ordinal| match (ordinal.0 + key.len() as u16 + u16::from(key.as_bytes()[5])) % 5 {
                    0 => Some(SkipReason::NotReady),
                    1 => Some(SkipReason::Ejected),
                    2 => Some(SkipReason::OverBound),
                    _ => None,
                };
            let told = Explanation::of(&ring, key.as_bytes(), skip);
            let chosen = choose(ring.candidates(key.as_bytes()), |ordinal| skip(*ordinal));
            assert_eq!(told.serves(), chosen);
            assert_eq!(told.candidates.len() + told.skipped.len(), 6);
            assert_eq!(told.owner, policy.hashes().then(|| ring.candidates(key.as_bytes()).next().unwrap()));
            assert_eq!(told.slot, ring.slot(ring.hash(key.as_bytes())));
            assert_eq!(told.hash.is_some(), policy.hashes());
        }
        let last = Explanation::of(&ring, b"x", |_| Some(SkipReason::Ejected));
        assert_eq!(last.serves(), Some(last.skipped[0].ordinal), "the last one standing is not refused");
        let none = Explanation::of(&ring, b"x", |_| Some(SkipReason::NotReady));
        assert_eq!(none.serves(), None);
    }
    let assignment = Explanation::of(&ring(Policy::Assignment, &equal(3)), b"100000", |_| None);
    let json = serde_json::to_value(&assignment).unwrap();
    assert_eq!(json["hash"], "10000200017");
    assert_eq!(json["slot"], 10_000_200_017_u64 % 512);
    let fields: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["candidates", "hash", "key", "owner", "skipped", "slot"]);
}

#[test]
fn turns_are_even_and_spread() {
    let mut turns = Turns::default();
    let order: Vec<usize> = (0..7).map(|_| turns.next(&[5, 1, 1]).unwrap()).collect();
    assert_eq!(order, [0, 0, 1, 0, 2, 0, 0], "as nginx spreads 5, 1, 1");
    let mut counts = [0; 3];
    for _ in 0..10_000 {
        counts[turns.next(&[1, 1, 1]).unwrap()] += 1;
    }
    assert!(counts.iter().all(|count| (3_333..=3_334).contains(count)), "{counts:?}");
    assert_eq!(turns.next(&[0, 0]), None);
    assert_eq!(turns.next(&[]), None);
    assert_eq!(turns.next(&[0, 1]), Some(1));
}

#[test]
fn loads_are_compared_by_weight_and_ties_by_what_was_served() {
    let load = |in_flight, served, weight| Load { in_flight, served, weight };
    assert_eq!(least_request([load(3, 0, 1), load(1, 9, 1), load(1, 5, 1)]), Some(2));
    assert_eq!(least_request([load(3, 0, 1), load(6, 0, 2)]), Some(1), "7 for 2 is less than 4 for 1");
    assert_eq!(least_request([load(0, 0, 0), load(100, 0, 1)]), Some(1));
    assert_eq!(least_request([load(u64::MAX, u64::MAX, u32::MAX), load(2, 0, 0)]), Some(0));
    assert_eq!(least_request([]), None);
    let loads = [load(5, 0, 1), load(1, 0, 1), load(9, 0, 1)];
    let mut chosen = [0; 3];
    let mut random = 1_u64;
    for k in 0..30_000 {
        random = rehash(random, k + 1);
        let drawn = [(random >> 32) as u32, random as u32];
        chosen[power_of_two(3, drawn, |index| loads[index], Load::compare).unwrap()] += 1;
    }
    assert_eq!(chosen[2], 0, "the most loaded of three is never the less loaded of two");
    assert!((19_500..20_500).contains(&chosen[1]), "{chosen:?}");
    assert_eq!(power_of_two(0, [0, 0], |_| loads[0], Load::compare), None);
    assert_eq!(power_of_two(1, [0, 0], |_| loads[0], Load::compare), Some(0));
}

/// 10,000 requests on three members, 100 in flight, of which one that is drawn ends at a time: a member with as many
/// times the weight ends as much more often. Returns how many each served, and had in flight on average.
fn keyless(speeds: [u64; 3]) -> ([u64; 3], [f64; 3]) {
    let (mut in_flight, mut served, mut sums) = ([0_u64; 3], [0_u64; 3], [0_u64; 3]);
    let mut random = 11_u64;
    for step in 0..10_000 {
        if step >= 100 {
            let total: u64 = (0..3).map(|m| speeds[m] * in_flight[m]).sum();
            random = rehash(random, 1);
            let mut ticket = (random >> 20) % total;
            let ends = (0..3).find(|m| match ticket.checked_sub(speeds[*m] * in_flight[*m]) {
                Some(rest) => {
                    ticket = rest;
                    false
                }
                None => true,
            });
            in_flight[ends.expect("somebody has a request")] -= 1;
        }
        random = rehash(random, 2);
        let load = |m: usize| Load { in_flight: in_flight[m], served: served[m], weight: 1 };
        let drawn = [(random >> 32) as u32, random as u32];
        let chosen = power_of_two(3, drawn, load, Load::compare_roughly).expect("there are three");
        in_flight[chosen] += 1;
        served[chosen] += 1;
        (0..3).for_each(|m| sums[m] += in_flight[m]);
    }
    (served, sums.map(|sum| sum as f64 / 10_000.0))
}

#[test]
fn without_a_key_counts_are_even_and_a_slow_member_is_spared() {
    let (served, _) = keyless([10, 10, 10]);
    let mean = 10_000.0 / 3.0;
    assert!(served.iter().all(|count| *count as f64 / mean < 1.005), "{served:?}");
    let (served, in_flight) = keyless([10, 10, 1]);
    assert!(served[2] < served[0] / 4, "a tenth of the speed: {served:?}");
    assert!(in_flight[2] < 60.0, "{in_flight:?}");
}

#[test]
fn the_bound_holds_under_skew_and_keeps_affinity() {
    // Zipf 1.1 over 10,000 keys on 10 members with 1,000 requests in flight, each leaving at random.
    let ring = ring(Policy::SlotTable, &equal(10));
    let bound: Factor = "1.25".parse().unwrap();
    let sums: Vec<f64> = (1..=10_000_u32)
        .scan(0.0, |sum, rank| {
            *sum += f64::from(rank).powf(-1.1);
            Some(*sum)
        })
        .collect();
    let mut random = 7_u64;
    let mut draw = || {
        random = rehash(random, 1);
        (random >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut in_flight = [0_u64; 10];
    let mut running: Vec<usize> = Vec::new();
    let (mut probes, mut at_home, mut requests) = (0_u32, 0_u32, 0_u32);
    for step in 0..60_000 {
        if running.len() >= 1_000 {
            let index = (draw() * running.len() as f64) as usize;
            in_flight[running.swap_remove(index)] -= 1;
        }
        let place = draw() * sums[9_999];
        let key = sums.partition_point(|sum| *sum < place).to_string();
        let total = running.len() as u64;
        let mut tried = 0;
        let chosen = choose(ring.candidates(key.as_bytes()), |ordinal| {
            tried += 1;
            let room = has_room(bound, in_flight[ordinal.index()], total, 1, 10);
            (!room).then_some(SkipReason::OverBound)
        })
        .unwrap();
        in_flight[chosen.index()] += 1;
        running.push(chosen.index());
        assert!(in_flight[chosen.index()] <= cap(bound, total, 1, 10), "the bound is broken at {step}");
        if step >= 10_000 {
            requests += 1;
            probes += tried;
            at_home += u32::from(tried == 1);
        }
    }
    let (probes, affinity) =
        (f64::from(probes) / f64::from(requests), f64::from(at_home) / f64::from(requests));
    println!("boundedLoad 1.25, Zipf 1.1: {probes:.3} probes, affinity {affinity:.3}");
    assert!(probes <= 1.35 && affinity >= 0.78, "{probes:.3} probes, affinity {affinity:.3}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Any sequence of adding, removing and re-weighting, on every policy.
    #[test]
    fn any_sequence_of_changes_keeps_the_promises(
        policy in prop::sample::select(Policy::ALL.to_vec()),
        steps in prop::collection::vec(prop::collection::btree_map(0_u16..30, 0_u32..6, 0..20), 1..8),
    ) {
        let settings = balancing(policy);
        let mut state = RingState::new(&settings, 5).unwrap();
        for weights in steps {
            let before = state.ring();
            if !weights.is_empty() && weights.values().all(|weight| *weight == 0) {
                prop_assert_eq!(state.update(&settings, &members(&weights)), Err(RingError::Weightless));
                prop_assert_eq!(state.ring(), before);
                continue;
            }
            let moved = state.update(&settings, &members(&weights)).unwrap();
            let after = state.ring();
            let alive: Vec<Ordinal> =
                weights.iter().filter(|(_, weight)| **weight > 0).map(|(ordinal, _)| Ordinal(*ordinal)).collect();
            prop_assert_eq!(after.members(), alive.clone());
            prop_assert!((0.0..=1.0).contains(&moved.share));
            let mut order: Vec<Ordinal> = after.candidates(b"some key").collect();
            prop_assert_eq!(after.owner(after.hash(b"some key")), order.first().copied().filter(|_| policy.hashes()));
            order.sort_unstable();
            prop_assert_eq!(order, alive);
            let total: f64 = after.shares().iter().map(|share| share.share).sum();
            prop_assert!(after.members().is_empty() || (total - 1.0).abs() < 1e-9);
            if before == after {
                prop_assert_eq!(moved.share, 0.0);
            }
            prop_assert_eq!(RingState::decode(&state.encode(), &settings, &members(&weights)).unwrap(), state.clone());
        }
    }

    /// Whoever takes a request, the bound leaves room for it somewhere, and is never above what it says.
    #[test]
    fn the_bound_always_leaves_room(
        weights in prop::collection::vec(1_u32..9, 1..20),
        bound in 1_000_u32..=10_000,
        picks in prop::collection::vec(0_usize..20, 0..300),
    ) {
        let bound = Factor { thousandths: bound };
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut in_flight = vec![0_u64; weights.len()];
        for (requests, pick) in picks.into_iter().enumerate() {
            let order = (0..weights.len()).map(|k| (pick + k) % weights.len());
            let room = |index: &usize| has_room(bound, in_flight[*index], requests as u64, weights[*index], total);
            let taker = order.into_iter().find(room);
            prop_assert!(taker.is_some());
            let index = taker.unwrap();
            in_flight[index] += 1;
            let exact = f64::from(bound.thousandths) / 1_000.0 * (requests + 1) as f64 * f64::from(weights[index]);
            prop_assert!((in_flight[index] as f64) < exact / total as f64 + 1.0 + 1e-9);
        }
    }

    #[test]
    fn any_bytes_are_a_state_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300), start in 0_usize..4) {
        let magic: [&[u8]; 4] = [b"", b"RMSLOTS1", b"RMASSIG1", b"RMPLAIN1"];
        let mut text = magic[start].to_vec();
        text.extend(bytes);
        // With a right digest, so that the content is read.
        let sealed = [&text[..], &xxhash_rust::xxh3::xxh3_64(&text).to_le_bytes()].concat();
        for policy in [Policy::SlotTable, Policy::Assignment, Policy::Maglev] {
            for bytes in [&text, &sealed] {
                if let Ok(state) = RingState::decode(bytes, &balancing(policy), &equal(3)) {
                    prop_assert_eq!(state.ring().candidates(b"x").count(), 3);
                }
            }
        }
    }
}
