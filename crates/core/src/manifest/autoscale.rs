//! The rules of `spec.autoscale`.

use std::time::Duration;

use super::check::Rules;
use crate::quantity::Span;
use crate::spec::{Autoscale, REPLICAS_MAX};

/// Longer windows would need a memory beyond the daemon's.
const WINDOW_MAX: Span = Span(Duration::from_secs(3_600));
/// Clients give up before.
const HOLD_MAX: Span = Span(Duration::from_secs(600));
const TARGET_MAX: u32 = 1_000_000;
const HELD_MAX: u32 = 100_000;

/// Those of the autoscaler itself, and of the count that stands beside it.
pub(super) fn autoscale(rules: &mut Rules, spec: &Autoscale, replicas: Option<u32>) {
    rules.within("autoscale", |rules| own(rules, spec));
    if let Some(replicas) = replicas.filter(|replicas| !spec.allows(*replicas)) {
        let (min, max) = (spec.min_replicas, spec.max_replicas);
        rules.within("replicas", |rules| {
            rules.broken(
                format!("{replicas} replicas are not between `minReplicas` {min} and `maxReplicas` {max}"),
                Some("remove `replicas`: `autoscale` sets the count"),
            );
        });
    }
}

fn own(rules: &mut Rules, spec: &Autoscale) {
    let (min, max) = (spec.min_replicas, spec.max_replicas);
    rules.within("minReplicas", |rules| match min {
        0 => rules.broken("`minReplicas` must be at least 1", Some("write `scaleToZero: true`")),
        _ if min > max => rules.broken(
            format!("`minReplicas` of {min} is more than `maxReplicas` of {max}"),
            Some("swap them?"),
        ),
        _ => {}
    });
    rules.require("maxReplicas", (1..=REPLICAS_MAX).contains(&max), || {
        format!("{max} is not between 1 and {REPLICAS_MAX}")
    });
    for (field, target) in [("targetInFlight", spec.target_in_flight), ("targetRps", spec.target_rps)] {
        rules.require(field, target.is_none_or(|target| (1..=TARGET_MAX).contains(&target)), || {
            format!("{} is not between 1 and {TARGET_MAX}", target.unwrap_or_default())
        });
    }
    if spec.target_in_flight.is_none() && spec.target_rps.is_none() && spec.target_cpu.is_none() && min < max
    {
        rules.broken(
            "nothing says when there are too few replicas",
            Some("write `targetInFlight`, `targetRps` or `targetCpu`"),
        );
    }
    let windows = [("scaleUpWindow", spec.scale_up_window), ("scaleDownWindow", spec.scale_down_window)];
    for (field, window) in windows {
        rules.require(field, window <= WINDOW_MAX, || {
            format!("`{window}` is longer than the longest of {WINDOW_MAX}")
        });
    }
    rules.not_zero("idleAfter", spec.idle_after);
    rules.require("maxHeld", (1..=HELD_MAX).contains(&spec.max_held), || {
        format!("{} is not between 1 and {HELD_MAX}", spec.max_held)
    });
    rules.not_zero("holdTimeout", spec.hold_timeout);
    rules.require("holdTimeout", spec.hold_timeout <= HOLD_MAX, || {
        format!("`{}` is longer than the longest of {HOLD_MAX}", spec.hold_timeout)
    });
}
