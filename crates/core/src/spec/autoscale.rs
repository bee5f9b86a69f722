//! How many replicas a service gets by its load: between which bounds, by what, and how steadily.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults;
use crate::quantity::{Cpu, Span};

/// How many replicas a service gets by its load, as a HorizontalPodAutoscaler decides it: the count is that by which the
/// mean of a replica meets its target, of several targets the highest. It then owns the count: `replicas` is only where
/// a new service begins, and `scale` is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Autoscale {
    /// Fewest replicas while the service is in use. Default 1.
    #[serde(default = "defaults::default_min_replicas")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: u32,
    /// Most replicas.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: u32,
    /// Requests in flight at a replica on average, those that wait for one included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub target_in_flight: Option<u32>,
    /// Requests per second of a replica on average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub target_rps: Option<u32>,
    /// Processor time that a replica uses on average, such as `500m` (half a core).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_cpu: Option<Cpu>,
    /// For so long more replicas must have been called for before any is added. Default 0s: at once.
    #[serde(default = "defaults::default_scale_up_window")]
    pub scale_up_window: Span,
    /// For so long fewer replicas must have been enough before any is taken away. Default 5m.
    #[serde(default = "defaults::default_scale_down_window")]
    pub scale_down_window: Span,
    /// Without requests for `idleAfter` there are no replicas; the next request starts one, and waits for it. Default
    /// false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scale_to_zero: bool,
    /// After so long without requests a service that may scales to zero. Default 5m.
    #[serde(default = "defaults::default_idle_after")]
    pub idle_after: Span,
    /// Most requests that wait for the first replica; more get 503. Default 1000.
    #[serde(default = "defaults::default_max_held")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_held: u32,
    /// How long a request may wait for the first replica; then it gets 503. Default 30s.
    #[serde(default = "defaults::default_hold_timeout")]
    pub hold_timeout: Span,
}

impl Autoscale {
    /// Whether it may run so many replicas.
    pub fn allows(&self, replicas: u32) -> bool {
        (self.min_replicas..=self.max_replicas).contains(&replicas) || self.scale_to_zero && replicas == 0
    }

    /// The count that is nearest to this one and allowed.
    pub fn nearest(&self, replicas: u32) -> u32 {
        if self.allows(replicas) { replicas } else { replicas.clamp(self.min_replicas, self.max_replicas) }
    }
}
