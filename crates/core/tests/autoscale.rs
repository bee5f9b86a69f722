//! The autoscaler as a caller sees it: figures in, counts out, over simulated time.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use ringmaster_core::autoscale::{AutoscaleStatus, Autoscaler, CpuSample, Facts, Sample};
use ringmaster_core::spec::Autoscale;
use ringmaster_core::{Reason, ReplicaName, Timestamp};

fn spec(fields: &str) -> Autoscale {
    serde_json::from_str(&format!("{{\"maxReplicas\": 10, {fields}}}")).expect("a spec")
}

/// A service whose count is set as decided, and whose load is what a test says.
struct World {
    spec: Autoscale,
    scaler: Autoscaler,
    now: Timestamp,
    facts: Facts,
    sample: Sample,
    /// Counts as they were set, with the time.
    history: Vec<(u64, u32)>,
}

impl World {
    fn new(fields: &str, current: u32) -> World {
        let now = Timestamp(1_000_000);
        let facts = Facts { now, current, ready: current, draining: false, stale: false, has_affinity: true };
        let spec = spec(fields);
        World {
            spec,
            scaler: Autoscaler::default(),
            now,
            facts,
            sample: Sample::default(),
            history: Vec::new(),
        }
    }

    fn decide(&mut self) -> AutoscaleStatus {
        self.facts.now = self.now;
        self.scaler.decide(&self.spec, &self.facts)
    }

    /// Goes on for so many seconds under a load: requests in flight, and per second.
    fn run(&mut self, seconds: u64, in_flight: u32, rps: u64) -> AutoscaleStatus {
        for _ in 0..4 * seconds {
            self.now = Timestamp(self.now.0 + 250);
            self.sample =
                Sample { at: self.now, in_flight, responses: self.sample.responses + rps / 4, ..self.sample };
            self.scaler.observe(self.sample);
            let decision = self.decide();
            if decision.wanted != self.facts.current {
                self.scaler.scaled(self.now, self.facts.current, decision.wanted);
                (self.facts.current, self.facts.ready) = (decision.wanted, decision.wanted);
                self.history.push((self.now.0, decision.wanted));
            }
        }
        self.decide()
    }
}

#[test]
fn the_count_follows_the_load_up_at_once_and_down_after_the_window() {
    let mut world = World::new("\"targetInFlight\": 10, \"scaleDownWindow\": \"30s\"", 1);
    world.run(3, 5, 40);
    assert_eq!(world.facts.current, 1);
    world.run(6, 45, 40);
    assert_eq!(world.facts.current, 5, "{:?}", world.history);
    world.run(20, 12, 40);
    assert_eq!(world.facts.current, 5, "the window is not over: {:?}", world.history);
    assert_eq!(world.decide().reason, Reason::ScaleDownStabilized);
    let steady = world.run(60, 12, 40);
    assert_eq!((world.facts.current, steady.reason), (2, Reason::DesiredWithinRange));
    assert_eq!(steady.metrics[0].mean, 6.0);
    assert_eq!(steady.message, "6.0 in flight per replica on average, target 10");
}

#[test]
fn it_grows_at_most_twofold_or_by_four_in_fifteen_seconds() {
    let mut world = World::new("\"targetRps\": 1", 1);
    let limited = world.run(12, 1, 1_000);
    assert_eq!((world.facts.current, limited.reason), (5, Reason::ScaleUpLimit), "{:?}", world.history);
    let most = world.run(20, 1, 1_000);
    assert_eq!((world.facts.current, most.reason), (10, Reason::TooManyReplicas), "{:?}", world.history);
    let steps: Vec<u32> = world.history.iter().map(|(_, count)| *count).collect();
    assert_eq!(steps, [5, 10]);
}

#[test]
fn more_are_added_only_after_the_window_upwards() {
    let mut world = World::new("\"targetInFlight\": 10, \"scaleUpWindow\": \"20s\"", 1);
    world.run(2, 0, 0);
    let waits = world.run(10, 30, 10);
    assert_eq!((world.facts.current, waits.reason), (1, Reason::ScaleUpStabilized));
    world.run(20, 30, 10);
    assert_eq!(world.facts.current, 3);
}

#[test]
fn without_figures_of_now_the_count_stays() {
    let mut world = World::new("\"targetInFlight\": 10, \"scaleDownWindow\": \"0s\"", 4);
    assert_eq!(world.decide().reason, Reason::FailedGetMetrics, "nothing has been heard");
    assert_eq!(world.decide().wanted, 4);
    world.facts.stale = true;
    let stale = world.run(60, 100, 10);
    assert_eq!((stale.wanted, stale.reason), (4, Reason::FailedGetMetrics));
    world.facts.stale = false;
    world.facts.ready = 0;
    assert_eq!(world.decide().wanted, 4, "what does not serve says nothing");
}

#[test]
fn the_next_step_down_waits_for_the_drain_of_the_last() {
    let mut world = World::new(
        "\"targetInFlight\": 10, \"scaleDownWindow\": \"0s\", \"scaleToZero\": true, \"idleAfter\": \"5s\"",
        4,
    );
    world.facts.draining = true;
    let waits = world.run(20, 1, 1);
    assert_eq!((waits.wanted, waits.reason), (4, Reason::ScaleDownDraining));
    assert_eq!(world.run(20, 0, 0).reason, Reason::ScaleDownDraining, "nor does it go to zero");
    world.facts.draining = false;
    world.run(3, 1, 1);
    assert_eq!(world.facts.current, 1);
}

#[test]
fn an_idle_service_goes_to_zero_and_a_request_wakes_it() {
    let mut world = World::new(
        "\"minReplicas\": 2, \"targetInFlight\": 10, \"scaleToZero\": true, \"idleAfter\": \"30s\"",
        3,
    );
    world.run(10, 3, 10);
    world.run(29, 0, 0);
    assert_eq!(world.facts.current, 3, "not idle for long enough");
    let asleep = world.run(3, 0, 0);
    assert_eq!((world.facts.current, asleep.reason), (0, Reason::ScaledToZero));
    assert_eq!(
        world.scaler.again_at(&world.spec, &Facts { current: 0, ..world.facts }),
        None,
        "only news wake it"
    );
    world.sample.waiting = 3;
    let woken = world.run(1, 0, 0);
    assert_eq!(world.facts.current, 2, "{woken:?}");
    // One request that goes on for long keeps it awake.
    world.sample.waiting = 0;
    world.run(100, 1, 0);
    assert!(world.facts.current > 0);
}

#[test]
fn a_count_that_is_not_allowed_is_corrected_whatever_is_known() {
    assert_eq!(World::new("\"targetRps\": 10", 15).decide().wanted, 10);
    assert_eq!(World::new("\"targetRps\": 10, \"minReplicas\": 3", 1).decide().wanted, 3);
    assert_eq!(World::new("\"targetRps\": 10, \"minReplicas\": 3", 0).decide().wanted, 3);
}

#[test]
fn of_several_targets_the_highest_counts_and_an_unknown_one_holds_back() {
    let mut world =
        World::new("\"targetInFlight\": 10, \"targetCpu\": \"500m\", \"scaleDownWindow\": \"0s\"", 3);
    world.run(10, 5, 10);
    assert_eq!(world.facts.current, 3, "processor time is not known");
    let name: ReplicaName = "web-0-0".parse().expect("a name");
    for second in 0..20 {
        let used = BTreeMap::from([(name.clone(), Duration::from_millis(900 * second))]);
        world.scaler.observe_cpu(CpuSample { at: world.now, used });
        world.run(1, 5, 10);
    }
    assert_eq!(world.facts.current, 2, "900m of 500m each");
    world.run(30, 5, 10);
    assert_eq!(world.facts.current, 2, "processor time that was known is not known any more");
}

#[test]
fn one_hot_key_is_told_and_an_even_load_is_not() {
    let mut world = World::new("\"targetInFlight\": 10", 4);
    world.sample.hottest_permille = Some(600);
    let hot = world.run(10, 36, 100).hot_key.expect("one key has 21.6");
    assert!(hot.contains("60 %") && hot.contains("21.6 in flight"), "{hot}");
    world.facts.has_affinity = false;
    assert_eq!(world.decide().hot_key, None);
    world.facts.has_affinity = true;
    world.sample.hottest_permille = Some(250);
    assert_eq!(world.run(1, 36, 100).hot_key, None);
}

#[test]
fn counters_of_another_epoch_are_not_compared() {
    let mut world = World::new("\"targetRps\": 10", 1);
    world.run(10, 1, 8);
    world.sample.epoch += 1;
    world.sample.responses += 1_000_000;
    world.run(10, 1, 8);
    assert_eq!(world.facts.current, 1, "a data plane that has served before has joined");
}

proptest! {
    #[test]
    fn it_stays_within_its_bounds_and_constant_load_changes_nothing_for_long(
        min in 1_u32..10, more in 0_u32..20, target in 1_u32..50, load in 0_u32..500, start in 0_u32..40,
    ) {
        let fields = format!("\"targetInFlight\": {target}, \"minReplicas\": {min}, \"scaleDownWindow\": \"2s\"");
        let mut world = World::new(&fields, start);
        world.spec.max_replicas = min + more;
        world.run(120, load, 10);
        for (_, count) in &world.history {
            prop_assert!((min..=min + more).contains(count));
        }
        let settled = world.history.len();
        world.run(120, load, 10);
        prop_assert_eq!(world.history.len(), settled, "it flaps: {:?}", world.history);
        let rises = world.history.windows(2).filter(|pair| pair[1].1 > pair[0].1).count();
        let falls = world.history.windows(2).filter(|pair| pair[1].1 < pair[0].1).count();
        prop_assert!(rises == 0 || falls == 0, "constant load leads one way: {:?}", world.history);
    }

    #[test]
    fn more_load_never_leads_to_fewer(target in 1_u32..50, load in 0_u32..300, more in 0_u32..300, start in 1_u32..10) {
        let wanted = |load| {
            let mut world = World::new(&format!("\"targetInFlight\": {target}, \"scaleDownWindow\": \"0s\""), start);
            world.run(3, load, 10);
            world.history.first().map_or(start, |(_, count)| *count)
        };
        prop_assert!(wanted(load) <= wanted(load + more));
    }
}
