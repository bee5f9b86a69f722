//! What the controller counts as it goes along, and the times between what it sees happen.
//!
//! Counting is all this does: no decision looks here. The table with help and buckets is the binary's
//! (`serve/metrics/families.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Histogram};
use ringmaster_core::desired::Desired;
use ringmaster_core::plan::{Plan, RemoveReason};
use ringmaster_core::probing::ProbeKind;
use ringmaster_core::{Ordinal, Reason, ReplicaName, ServiceName, Timestamp};

/// Seconds since 1970.
fn wall_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn result(good: bool) -> &'static str {
    if good { "success" } else { "error" }
}

/// A manifest was applied, or refused.
pub(crate) fn config_applied(good: bool) {
    metrics::counter!("ringmaster_config_applies_total", "result" => result(good)).increment(1);
    metrics::gauge!("ringmaster_config_last_apply_successful").set(if good { 1.0 } else { 0.0 });
    if good {
        metrics::gauge!("ringmaster_config_last_apply_success_timestamp_seconds").set(wall_seconds());
    }
}

/// No manifest has been refused yet.
pub(crate) fn config_loaded() {
    metrics::gauge!("ringmaster_config_last_apply_successful").set(1.0);
}

/// A change was saved, or could not be.
pub(crate) fn state_written(good: bool, took: Duration) {
    metrics::counter!("ringmaster_state_writes_total", "result" => result(good)).increment(1);
    metrics::histogram!("ringmaster_state_write_duration_seconds").record(took);
}

/// A ring has changed, and with it the owner of this share of all keys.
pub(crate) fn ring_changed(service: &ServiceName, moved: f64) {
    metrics::counter!("ringmaster_ring_changes_total", "service" => service.to_string()).increment(1);
    metrics::gauge!("ringmaster_ring_moved_ratio", "service" => service.to_string()).set(moved);
}

/// A whole list of replicas has arrived.
pub(crate) fn listed() {
    metrics::gauge!("ringmaster_engine_list_success_timestamp_seconds").set(wall_seconds());
}

/// An action on a replica has ended; the plan's reason for it is a label.
pub(crate) fn acted(action: &'static str, reason: impl std::fmt::Debug, good: bool) {
    let labels = [
        ("action", action.to_owned()),
        ("reason", format!("{reason:?}")),
        ("result", result(good).to_owned()),
    ];
    metrics::counter!("ringmaster_actions_total", &labels).increment(1);
}

/// A rollout has ended so: `complete` or `rolledBack`.
pub(crate) fn rollout_ended(service: &ServiceName, result: &'static str) {
    metrics::counter!("ringmaster_rollouts_total", "service" => service.to_string(), "result" => result)
        .increment(1);
}

/// The loop goes on because of this.
pub(crate) fn woken(cause: &'static str) {
    metrics::counter!("ringmaster_reconcile_wakes_total", "cause" => cause).increment(1);
}

/// The counter of a service's probes of one kind that ended in one way.
pub(crate) fn probes(service: &ServiceName, probe: ProbeKind, good: bool) -> Counter {
    let result = if good { "success" } else { "failure" };
    let (service, probe) = (service.to_string(), probe.as_str());
    metrics::counter!("ringmaster_probes_total", "service" => service, "probe" => probe, "result" => result)
}

/// How long a service's probes take.
pub(crate) fn probe_duration(service: &ServiceName) -> Histogram {
    metrics::histogram!("ringmaster_probe_duration_seconds", "service" => service.to_string())
}

/// A service is there: its series begin.
pub(crate) fn appeared(name: &ServiceName) {
    let service = name.to_string();
    // They begin at 0 with it, so that the first one is an increase.
    for reason in Reason::ALL.iter().filter(|reason| reason.is_of_services()) {
        metrics::counter!("ringmaster_events_total", "service" => service.clone(), "reason" => reason.as_str())
            .increment(0);
    }
    for (probe, good) in ProbeKind::ALL.into_iter().flat_map(|probe| [(probe, true), (probe, false)]) {
        probes(name, probe, good).increment(0);
    }
    for result in ["complete", "rolledBack"] {
        let labels = [("service", service.clone()), ("result", result.to_owned())];
        metrics::counter!("ringmaster_rollouts_total", &labels).increment(0);
    }
    let labels = [("service", service)];
    drop(probe_duration(name));
    drop(metrics::histogram!("ringmaster_replica_start_seconds", &labels));
    drop(metrics::histogram!("ringmaster_replica_recovery_seconds", &labels));
    drop(metrics::histogram!("ringmaster_drain_duration_seconds", &labels));
    metrics::counter!("ringmaster_ring_changes_total", &labels).increment(0);
    metrics::gauge!("ringmaster_ring_moved_ratio", &labels).increment(0.0);
}

/// When what began that has not ended.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    creating: BTreeMap<ReplicaName, Timestamp>,
    lost: BTreeMap<(ServiceName, Ordinal), Timestamp>,
    draining: BTreeMap<ReplicaName, Drain>,
}

/// A drain under way.
#[derive(Debug)]
struct Drain {
    since: Timestamp,
    /// It ends when this is dropped.
    _span: tracing::Span,
}

impl Spans {
    /// The creation of a replica begins.
    pub(crate) fn creating(&mut self, name: &ReplicaName, now: Timestamp) {
        self.creating.insert(name.clone(), now);
    }

    /// It has failed.
    pub(crate) fn not_created(&mut self, name: &ReplicaName) {
        self.creating.remove(name);
    }

    /// The replicas that get traffic have changed.
    pub(crate) fn published(
        &mut self,
        before: &BTreeSet<ReplicaName>,
        after: &BTreeSet<ReplicaName>,
        plan: &Plan,
        now: Timestamp,
    ) {
        let place = |name: &ReplicaName| (name.service.clone(), name.ordinal);
        for name in before.difference(after) {
            let planned = plan.draining.get(name).is_some_and(|reason| *reason != RemoveReason::NotAlive);
            if !planned && !after.iter().any(|other| place(other) == place(name)) {
                self.lost.insert(place(name), now);
            }
        }
        for name in after.difference(before) {
            let labels = [("service", name.service.to_string())];
            if let Some(since) = self.creating.remove(name) {
                metrics::histogram!("ringmaster_replica_start_seconds", &labels).record(now.since(since));
            }
            if let Some(since) = self.lost.remove(&place(name)) {
                metrics::histogram!("ringmaster_replica_recovery_seconds", &labels).record(now.since(since));
            }
        }
    }

    /// Whether a plan drains replicas that did not drain before.
    pub(crate) fn drains_begin(&self, plan: &Plan) -> bool {
        plan.draining.keys().any(|name| !self.draining.contains_key(name))
    }

    /// A pass has decided who is on its way out, and what is desired.
    pub(crate) fn planned(&mut self, desired: &Desired, plan: &Plan, now: Timestamp) {
        let member = |service: &ServiceName, ordinal: Ordinal| {
            desired.services.get(service).is_some_and(|service| service.has_member(ordinal))
        };
        self.lost.retain(|(service, ordinal), _| member(service, *ordinal));
        self.creating.retain(|name, _| member(&name.service, name.ordinal));
        for (name, reason) in &plan.draining {
            self.draining.entry(name.clone()).or_insert_with(|| Drain {
                since: now,
                _span: tracing::debug_span!("drain", replica = %name, %reason),
            });
        }
        self.draining.retain(|name, drain| {
            let still = plan.draining.contains_key(name);
            if !still {
                let labels = [("service", name.service.to_string())];
                metrics::histogram!("ringmaster_drain_duration_seconds", &labels)
                    .record(now.since(drain.since));
            }
            still
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<ReplicaName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn lost(spans: &Spans) -> Vec<(String, u16, u64)> {
        spans.lost.iter().map(|((service, ordinal), at)| (service.to_string(), ordinal.0, at.0)).collect()
    }

    #[test]
    fn a_loss_lasts_until_its_place_gets_traffic_again() {
        let (mut spans, plan) = (Spans::default(), Plan::default());
        let (all, rest) = (names(&["web-0-0", "web-1-0"]), names(&["web-0-0"]));
        spans.published(&all, &rest, &plan, Timestamp(100));
        assert_eq!(lost(&spans), [("web".to_owned(), 1, 100)]);
        spans.published(&rest, &names(&["web-0-0", "web-1-1"]), &plan, Timestamp(300));
        assert_eq!(lost(&spans), []);
    }

    #[test]
    fn what_is_drained_or_replaced_in_one_step_is_not_lost() {
        let mut spans = Spans::default();
        let (all, rest) = (names(&["web-0-0", "web-1-0"]), names(&["web-0-0"]));
        let name: ReplicaName = "web-1-0".parse().unwrap();
        let plan =
            Plan { draining: BTreeMap::from([(name.clone(), RemoveReason::ScaledDown)]), ..Plan::default() };
        spans.published(&all, &rest, &plan, Timestamp(1));
        spans.published(&all, &names(&["web-0-0", "web-1-1"]), &Plan::default(), Timestamp(2));
        assert_eq!(lost(&spans), []);
        let plan = Plan { draining: BTreeMap::from([(name, RemoveReason::NotAlive)]), ..Plan::default() };
        spans.published(&all, &rest, &plan, Timestamp(3));
        assert_eq!(lost(&spans), [("web".to_owned(), 1, 3)], "a replica that hangs is a loss");
    }

    #[test]
    fn a_place_that_is_no_longer_desired_is_forgotten() {
        let mut spans = Spans::default();
        spans.published(&names(&["web-0-0"]), &names(&[]), &Plan::default(), Timestamp(1));
        spans.creating(&"web-0-1".parse().unwrap(), Timestamp(2));
        spans.planned(&Desired::default(), &Plan::default(), Timestamp(3));
        assert!(spans.lost.is_empty() && spans.creating.is_empty());
    }
}
