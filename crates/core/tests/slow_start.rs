//! Slow start: whose keys wait, where they go meanwhile, and who is new at all.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers as well")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::debut::Debuts;
use ringmaster_core::desired::{Desired, DesiredService, Member, ring_members};
use ringmaster_core::ring::bounded::keeps;
use ringmaster_core::ring::explain::{SkipReason, choose};
use ringmaster_core::ring::{Ring, fresh};
use ringmaster_core::snapshot::{Endpoint, Report, ServiceRouting, Snapshot};
use ringmaster_core::spec::{Balancing, Policy, ServiceSpec};
use ringmaster_core::{Attempt, Generation, Ordinal, ReplicaName, ServiceName, Timestamp};

const RAMP: Duration = Duration::from_secs(30);

fn web() -> ServiceName {
    ServiceName::new("web").unwrap()
}

fn members(count: u16) -> Vec<Member> {
    (0..count).map(|ordinal| Member { ordinal: Ordinal(ordinal), host: None }).collect()
}

fn ring(policy: Policy, count: u16) -> Ring {
    let balancing = Balancing { policy, ..Balancing::default() };
    fresh(&balancing, 7, &ring_members(&web(), &balancing, &members(count))).unwrap()
}

/// Who serves a key while `new` has served for `age`.
fn serves(ring: &Ring, key: u32, new: Ordinal, age: Duration) -> Ordinal {
    let key = key.to_string();
    let hash = ring.hash(key.as_bytes());
    let skip =
        |ordinal: &Ordinal| (*ordinal == new && !keeps(hash, age, RAMP)).then_some(SkipReason::SlowStart);
    choose(ring.candidates(key.as_bytes()), skip).unwrap()
}

#[test]
fn a_new_members_share_grows_evenly_and_what_it_has_it_keeps() {
    for policy in [Policy::SlotTable, Policy::Maglev, Policy::Ring, Policy::Rendezvous] {
        let (ring, new) = (ring(policy, 4), Ordinal(3));
        let own: Vec<u32> = (0..40_000).filter(|k| serves(&ring, *k, new, RAMP) == new).collect();
        let mut before: Vec<u32> = Vec::new();
        for tenth in 0..=10_u32 {
            let age = RAMP * tenth / 10;
            let has: Vec<u32> = own.iter().copied().filter(|k| serves(&ring, *k, new, age) == new).collect();
            assert!(before.iter().all(|key| has.binary_search(key).is_ok()), "{policy}: it gave a key back");
            let (share, due) = (has.len() as f64 / own.len() as f64, f64::from(tenth) / 10.0);
            assert!((share - due).abs() < 0.03, "{policy}: {share} of its keys after {due} of the time");
            before = has;
        }
        assert_eq!(before.len(), own.len(), "{policy}");
    }
}

#[test]
fn keys_that_wait_are_spread_over_all_others_and_no_other_key_moves() {
    let (ring, new) = (ring(Policy::SlotTable, 4), Ordinal(3));
    let mut meanwhile: BTreeMap<Ordinal, u32> = BTreeMap::new();
    for key in 0..40_000 {
        let settled = serves(&ring, key, new, RAMP);
        let early = serves(&ring, key, new, Duration::ZERO);
        if settled == new {
            *meanwhile.entry(early).or_default() += 1;
        } else {
            assert_eq!(early, settled);
        }
    }
    assert_eq!(meanwhile.len(), 3, "{meanwhile:?}");
    assert!(meanwhile.values().all(|count| (2_900..3_800).contains(count)), "{meanwhile:?}");
}

#[test]
fn a_new_member_that_is_alone_serves_everything() {
    let alone = ring(Policy::SlotTable, 1);
    assert_eq!(serves(&alone, 1, Ordinal(0), Duration::ZERO), Ordinal(0));
}

#[test]
fn the_least_bad_of_those_passed_over_serves() {
    use SkipReason::{Ejected, NotReady, OverBound, SlowStart, Tried};
    let chosen = |reasons: &[SkipReason]| choose(0..reasons.len(), |index| Some(reasons[*index]));
    assert_eq!(chosen(&[Ejected, OverBound, SlowStart, SlowStart]), Some(2));
    assert_eq!(chosen(&[NotReady, Ejected, OverBound, Tried]), Some(2));
    assert_eq!(chosen(&[Ejected, Ejected]), Some(0));
    assert_eq!(chosen(&[NotReady, Tried]), None);
}

fn desired(count: u16) -> Desired {
    let spec = serde_json::json!({ "template": { "image": "x" }, "balancing": { "slowStart": "30s" } });
    let spec: ServiceSpec = serde_json::from_value(spec).unwrap();
    let service = DesiredService {
        ring: ring(Policy::SlotTable, count),
        spec,
        generation: Generation(1),
        members: members(count),
        deleting: false,
        rollout: Default::default(),
    };
    Desired { services: BTreeMap::from([(web(), service)]), ..Desired::default() }
}

/// A snapshot in which these ordinals serve with these attempts.
fn snapshot(desired: &Desired, debuts: &Debuts, now: Timestamp, serving: &[(u16, u32)]) -> Snapshot {
    let service = &desired.services[&web()];
    let endpoint = |(ordinal, attempt): &(u16, u32)| {
        let (ordinal, attempt) = (Ordinal(*ordinal), Attempt(*attempt));
        let endpoint = Endpoint {
            replica: ReplicaName { service: web(), ordinal, attempt },
            address: ([10, 0, 0, 1], 5_000).into(),
            weight: 1,
            new_since: debuts.new_since(&web(), ordinal, now),
        };
        (ordinal, endpoint)
    };
    let routing = ServiceRouting {
        name: web(),
        route: service.spec.route.clone(),
        balancing: service.spec.balancing.clone(),
        resilience: service.spec.resilience.clone(),
        ring: service.ring.clone(),
        endpoints: serving.iter().map(endpoint).collect(),
        demand: None,
    };
    Snapshot { services: BTreeMap::from([(web(), Arc::new(routing))]), ..Snapshot::default() }
}

#[test]
fn who_joins_others_is_new_and_a_replacement_is_not() {
    let mut debuts = Debuts::default();
    let since = |debuts: &Debuts, ordinal, now| debuts.new_since(&web(), Ordinal(ordinal), Timestamp(now));
    let three = desired(3);
    debuts.follow(&three);
    debuts.publish(&snapshot(&three, &debuts, Timestamp(10), &[(0, 0), (1, 0), (2, 0)]), Timestamp(10));
    assert_eq!(since(&debuts, 2, 20), None, "the first ones have nobody to take keys from slowly");
    let four = desired(4);
    debuts.follow(&four);
    assert_eq!(since(&debuts, 3, 30), Some(Timestamp(30)), "its time begins when it serves");
    debuts
        .publish(&snapshot(&four, &debuts, Timestamp(40), &[(0, 0), (1, 0), (2, 0), (3, 0)]), Timestamp(40));
    assert_eq!(since(&debuts, 3, 50), Some(Timestamp(40)));
    // It dies and is replaced; member 1 too.
    debuts.follow(&four);
    debuts
        .publish(&snapshot(&four, &debuts, Timestamp(60), &[(0, 0), (1, 1), (2, 0), (3, 1)]), Timestamp(60));
    assert_eq!((since(&debuts, 1, 70), since(&debuts, 3, 70)), (None, Some(Timestamp(40))));
    // It leaves the set and comes again.
    debuts.follow(&three);
    debuts.follow(&four);
    assert_eq!(since(&debuts, 3, 90), Some(Timestamp(90)));
}

#[test]
fn scaling_from_nothing_makes_nobody_new() {
    let mut debuts = Debuts::default();
    for count in [2, 0, 3] {
        debuts.follow(&desired(count));
    }
    assert_eq!(debuts.new_since(&web(), Ordinal(2), Timestamp(1)), None);
}

#[test]
fn an_explanation_names_the_slow_start() {
    let mut debuts = Debuts::default();
    let (three, four) = (desired(3), desired(4));
    debuts.follow(&three);
    debuts.follow(&four);
    let all = snapshot(&four, &debuts, Timestamp(1_000), &[(0, 0), (1, 0), (2, 0), (3, 0)]);
    let routing = &all.services[&web()];
    let key = (0..)
        .map(|n: u32| n.to_string())
        .find(|k| routing.ring.owner(routing.ring.hash(k.as_bytes())) == Some(Ordinal(3)));
    let key = key.unwrap();
    let at = |now| routing.explain(key.as_bytes(), &Report::default(), Timestamp(now));
    let early = at(1_000);
    assert_eq!((early.skipped[0].ordinal, early.skipped[0].reason), (Ordinal(3), SkipReason::SlowStart));
    assert_eq!(early.serves(), early.candidates.first().copied());
    assert_eq!(at(31_000).serves(), Some(Ordinal(3)));
}
