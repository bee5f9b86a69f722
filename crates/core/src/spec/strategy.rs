//! `spec.strategy`: how a new revision takes the place of the one before.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults;
use super::resilience::is_default;
use crate::quantity::{Amount, Percent, Span};

/// How replicas are replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Strategy {
    /// Whether the new replicas start beside the old ones or after them. Default rollingUpdate.
    #[serde(rename = "type", default, skip_serializing_if = "is_default")]
    pub kind: StrategyKind,
    /// How many replicas may run at once beyond the desired number, as a count or a share of it that is rounded up. The
    /// first replica of a new revision is always replaced alone. Default 25%.
    #[serde(default = "defaults::default_max_surge", skip_serializing_if = "is_default_max_surge")]
    pub max_surge: Amount,
    /// How many replicas fewer than desired may be ready because of a rollout, as a count or a share that is rounded
    /// down: so many are stopped before their successors start. Default 0.
    #[serde(
        default = "defaults::default_max_unavailable",
        skip_serializing_if = "is_default_max_unavailable"
    )]
    pub max_unavailable: Amount,
    /// How long a new replica has to be ready without interruption until it counts as done; the one before it is kept so
    /// long. Default 0s.
    #[serde(default = "defaults::default_min_ready", skip_serializing_if = "is_default_min_ready")]
    pub min_ready: Span,
    /// The share of replicas, rounded down but at least one, that gets a new revision first; the others wait for `ringmaster rollout
    /// promote`. Default: none waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Percent>,
    /// What happens to a revision that fails three times in a row or makes no progress for `progressDeadline`. Default
    /// auto.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rollback: Rollback,
    /// How long a replica that no longer gets requests may finish those in flight. Default 30s.
    #[serde(default = "defaults::default_drain")]
    pub drain: Span,
    /// How long a change may make no progress before the service is reported as stuck, and goes back. Default 2m.
    #[serde(default = "defaults::default_progress_deadline")]
    pub progress_deadline: Span,
    /// How long a replica may take to end before it is killed, from the end of its drain: `preStop`, then its stop
    /// signal. Default 10s.
    #[serde(default = "defaults::default_termination_grace")]
    pub termination_grace: Span,
}

/// Whether new replicas start beside the old ones or after them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StrategyKind {
    /// A few at a time; the old ones serve until then.
    #[default]
    RollingUpdate,
    /// All old ones are drained and stopped before a new one starts: for what cannot run twice at once.
    Recreate,
}

/// What happens to a revision that fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Rollback {
    /// The service goes back to the last revision of which every replica was ready.
    #[default]
    Auto,
    /// It stays as it is until somebody decides.
    Never,
}

impl Strategy {
    /// How many of `replicas` may run beyond them, and how many may be missing. Never both none: what is rounded to
    /// nothing on both sides lets one be missing, or nothing could ever be replaced.
    pub fn limits(&self, replicas: u32) -> (u32, u32) {
        let surge = match self.max_surge {
            Amount::Count(count) => count,
            Amount::Share(share) => share.of_rounded_up(replicas),
        };
        let missing = match self.max_unavailable {
            Amount::Count(count) => count.min(replicas),
            Amount::Share(share) => share.of(replicas),
        };
        if (surge, missing) == (0, 0) { (0, 1) } else { (surge, missing) }
    }

    /// How many of `replicas` get a new revision before it is promoted; all of them without a canary.
    pub fn canaries(&self, replicas: u32) -> u32 {
        self.canary.map_or(replicas, |share| share.of(replicas).max(1))
    }
}

impl Default for Strategy {
    fn default() -> Self {
        Self {
            kind: StrategyKind::default(),
            max_surge: defaults::default_max_surge(),
            max_unavailable: defaults::default_max_unavailable(),
            min_ready: defaults::default_min_ready(),
            canary: None,
            rollback: Rollback::default(),
            drain: defaults::default_drain(),
            progress_deadline: defaults::default_progress_deadline(),
            termination_grace: defaults::default_termination_grace(),
        }
    }
}

fn is_default_max_surge(value: &Amount) -> bool {
    *value == defaults::default_max_surge()
}
fn is_default_max_unavailable(value: &Amount) -> bool {
    *value == defaults::default_max_unavailable()
}
fn is_default_min_ready(value: &Span) -> bool {
    *value == defaults::default_min_ready()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(surge: Amount, missing: Amount, replicas: u32) -> (u32, u32) {
        Strategy { max_surge: surge, max_unavailable: missing, ..Strategy::default() }.limits(replicas)
    }

    #[test]
    fn surge_is_rounded_up_what_may_be_missing_down_and_something_may_always_go_on() {
        let share = |percent| Amount::Share(Percent(percent));
        assert_eq!(Strategy::default().limits(6), (2, 0));
        assert_eq!(Strategy::default().limits(1), (1, 0));
        assert_eq!(limits(Amount::Count(0), share(25), 3), (0, 1), "25 % of 3 is rounded to nothing");
        assert_eq!(limits(Amount::Count(0), share(50), 4), (0, 2));
        assert_eq!(limits(Amount::Count(3), Amount::Count(9), 4), (3, 4));
    }

    #[test]
    fn a_canary_is_at_least_one_replica() {
        let canary = |percent| Strategy { canary: Some(Percent(percent)), ..Strategy::default() };
        assert_eq!((canary(10).canaries(6), canary(10).canaries(29), canary(50).canaries(5)), (1, 2, 2));
        assert_eq!(Strategy::default().canaries(6), 6);
    }
}
