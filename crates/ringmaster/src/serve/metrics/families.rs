//! The table of what the `metrics` macros count. What the data plane and the controller's state tell is written down
//! by them.

use ringmaster_core::exposition::Kind;

use super::recorder::Family;

/// Of work that takes microseconds to milliseconds.
const SHORT: &[f64] =
    &[0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0];
/// Of what engines, disks and probes take.
const CALLS: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Of what people wait for.
const WAITS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0];

const RESULTS: (&str, &[&str]) = ("result", &["success", "error"]);
const OPERATIONS: (&str, &[&str]) =
    ("operation", &["resolve", "list", "inspect", "create", "stop", "remove", "repair", "signal", "logs"]);
const ALONE: Option<&[(&str, &[&str])]> = Some(&[]);

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, help, buckets: &[], known: ALONE }
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, help, buckets: &[], known: ALONE }
}

const fn histogram(name: &'static str, buckets: &'static [f64], help: &'static str) -> Family {
    Family { name, kind: Kind::Histogram, help, buckets, known: ALONE }
}

impl Family {
    /// Its series have these labels, and all of them are known.
    const fn by(self, known: &'static [(&'static str, &'static [&'static str])]) -> Family {
        Family { known: Some(known), ..self }
    }

    /// Its series come with what they are about.
    const fn when_they_come(self) -> Family {
        Family { known: None, ..self }
    }
}

/// All families, in the order in which they are written down.
pub(super) static FAMILIES: [Family; 25] = [
    counter("ringmaster_reconcile_total", "Passes of the control loop."),
    histogram("ringmaster_reconcile_duration_seconds", SHORT, "Time that a pass of the control loop takes."),
    counter("ringmaster_reconcile_wakes_total", "What woke the control loop.")
        .by(&[("cause", &["desired", "report", "event", "health", "task", "command", "timer"])]),
    gauge("ringmaster_workqueue_depth", "Actions that are planned and wait for others to end."),
    gauge("ringmaster_workqueue_active", "Tasks beside the control loop: lists, resolutions, actions."),
    counter(
        "ringmaster_actions_total",
        "Actions on replicas that have ended, by the plan's reason and by result.",
    )
    .by(&[("action", &["create", "remove", "repair"]), RESULTS]),
    counter("ringmaster_events_total", "Entries of the event timeline, by reason.").by(&[(
        "reason",
        &[
            "DataPlaneAway",
            "DataPlaneConnected",
            "DataPlaneEnded",
            "DataPlaneForgotten",
            "DataPlaneRefused",
            "EngineReachable",
            "EngineUnreachable",
            "ManifestApplied",
            "ManifestRefused",
            "ManifestUnchanged",
            "ManifestUnreadable",
            "Orphaned",
            "StateNotWritten",
            "StateRecovered",
        ],
    )]),
    histogram(
        "ringmaster_engine_call_duration_seconds",
        CALLS,
        "Time that an operation of the runtime takes; a stop waits for its replica.",
    )
    .by(&[OPERATIONS]),
    counter("ringmaster_engine_call_errors_total", "Operations of the runtime that failed, by kind.").by(&[
        OPERATIONS,
        ("kind", &["not_found", "conflict", "image_missing", "invalid", "unreachable", "engine"]),
    ]),
    counter("ringmaster_engine_events_total", "Hints from the runtime's event stream.")
        .by(&[("kind", &["changed", "reconnected", "disconnected"])]),
    histogram(
        "ringmaster_engine_event_lag_seconds",
        CALLS,
        "Time from an event on the engine until it arrives; of Docker only.",
    ),
    gauge(
        "ringmaster_engine_list_success_timestamp_seconds",
        "When the last whole list of replicas arrived, in seconds since 1970.",
    ),
    counter("ringmaster_probes_total", "Probes that have ended, by result.").when_they_come(),
    histogram("ringmaster_probe_duration_seconds", CALLS, "Time that a probe takes.").when_they_come(),
    histogram(
        "ringmaster_replica_start_seconds",
        WAITS,
        "Time from the beginning of a replica's creation until it gets traffic.",
    )
    .when_they_come(),
    histogram(
        "ringmaster_replica_recovery_seconds",
        WAITS,
        "Time from a replica's loss (it ended or its probes failed) until its place gets traffic again.",
    )
    .when_they_come(),
    histogram(
        "ringmaster_drain_duration_seconds",
        WAITS,
        "Time from the decision to take a live replica away until it is gone.",
    )
    .when_they_come(),
    counter(
        "ringmaster_rollouts_total",
        "Rollouts that have ended: complete, or rolledBack because they failed.",
    )
    .when_they_come(),
    counter("ringmaster_config_applies_total", "Manifests that were applied or refused.").by(&[RESULTS]),
    gauge("ringmaster_config_last_apply_successful", "1 unless the last manifest was refused."),
    gauge(
        "ringmaster_config_last_apply_success_timestamp_seconds",
        "When a manifest was last applied by this process, in seconds since 1970; 0 if never.",
    ),
    counter("ringmaster_state_writes_total", "Changes of the desired state that were to be saved.")
        .by(&[RESULTS]),
    histogram("ringmaster_state_write_duration_seconds", CALLS, "Time that saving a change takes."),
    counter("ringmaster_ring_changes_total", "Changes of the ring.").when_they_come(),
    gauge("ringmaster_ring_moved_ratio", "Share of all keys that the last change of the ring moved.")
        .when_they_come(),
];
