//! What the autoscaler goes by, and where it stands.

use ringmaster_core::desired::Desired;
use ringmaster_core::exposition::{Exposition, Kind};

use crate::reconcile::Board;

pub(super) fn scale(out: &mut Exposition, desired: &Desired, board: &Board) {
    out.family(
        "ringmaster_autoscale_limit_replicas",
        Kind::Gauge,
        "Fewest and most replicas that the autoscaler may set.",
    );
    for (name, service) in &desired.services {
        let Some(spec) = &service.spec.autoscale else { continue };
        for (bound, count) in [("min", spec.min_replicas), ("max", spec.max_replicas)] {
            out.sample(&[("service", name.as_str()), ("bound", bound)], count);
        }
    }
    let statuses = || board.statuses.iter().filter_map(|(name, s)| Some((name, s.autoscale.as_ref()?)));
    out.family("ringmaster_autoscale_wanted_replicas", Kind::Gauge, "Replicas that the autoscaler wants.");
    for (name, status) in statuses() {
        out.sample(&[("service", name.as_str())], status.wanted);
    }
    out.family(
        "ringmaster_autoscale_reason",
        Kind::Gauge,
        "1 for the reason why the autoscaler wants so many replicas.",
    );
    for (name, status) in statuses() {
        out.sample(&[("service", name.as_str()), ("reason", status.reason.as_str())], 1);
    }
    out.family(
        "ringmaster_autoscale_target_ratio",
        Kind::Gauge,
        "What a replica has on average, by what it should have.",
    );
    for (name, status) in statuses() {
        for metric in &status.metrics {
            let labels = [("service", name.as_str()), ("metric", metric.metric.label())];
            out.sample(&labels, metric.mean / metric.target);
        }
    }
    out.family(
        "ringmaster_autoscale_hot_key",
        Kind::Gauge,
        "1 while one key has more than a replica should have: more replicas do not help.",
    );
    for (name, status) in statuses() {
        out.sample(&[("service", name.as_str())], u8::from(status.hot_key.is_some()));
    }
}
