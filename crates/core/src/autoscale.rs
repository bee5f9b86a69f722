//! How many replicas a service gets by its load.
//!
//! The algorithm is that of Kubernetes' HorizontalPodAutoscaler: the count by which the mean of a replica meets its target,
//! of several targets the highest; within 10 % of the target nothing changes; of the recommendations of a window the
//! lowest counts upwards and the highest downwards; at most twice as many or four more in 15 s. It goes by totals over
//! all replicas, those that drain included, so that a replica that is not ready yet counts as one without load.
//!
//! Pure: what was measured comes as values with their time, and what is decided is a value. Deliberately absent: who
//! measures, and who sets the count.

mod recommend;
mod scaling;
mod window;

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::reason::Reason;
use crate::spec::Autoscale;
pub use scaling::{Decided, Scaling, SetCount};
use window::{Cpu, Load};
pub use window::{CpuSample, Sample};

/// A decision is due at least this often while there is something to decide on.
pub const DECIDE_EVERY: Duration = Duration::from_secs(1);
/// In this time the count grows to at most twice as many, or by [`ADDED_MAX`].
const UP_PERIOD: Duration = Duration::from_secs(15);
const ADDED_MAX: u32 = 4;

/// What is remembered of one service: the last figures, the recommendations of its windows, and its last changes.
#[derive(Debug, Clone, Default)]
pub struct Autoscaler {
    load: Load,
    cpu: Cpu,
    recommendations: VecDeque<Recommendation>,
    changes: VecDeque<(Timestamp, u32, u32)>,
}

/// What was called for, and when last.
#[derive(Debug, Clone, Copy)]
struct Recommendation {
    until: Timestamp,
    replicas: u32,
}

/// How a service stands when it is decided about.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// The time.
    pub now: Timestamp,
    /// How many replicas are desired.
    pub current: u32,
    /// How many get traffic.
    pub ready: u32,
    /// Replicas that an earlier step took out have not ended yet.
    pub draining: bool,
    /// A data plane is cut off: what it last said is not of now.
    pub stale: bool,
    /// Requests with one key go to one replica, whatever it has to do.
    pub has_affinity: bool,
}

/// What was decided, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoscaleStatus {
    /// How many replicas there should be now.
    pub wanted: u32,
    /// Why so many, or why not another number, in one word.
    pub reason: Reason,
    /// The same for people.
    pub message: String,
    /// What was measured, of each target that could be.
    pub metrics: Vec<MetricStatus>,
    /// One key has more than a replica should have: why more replicas do not help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hot_key: Option<String>,
}

/// One target, and how far it is met.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricStatus {
    /// What is measured.
    pub metric: Metric,
    /// Of a replica on average, in tenths.
    pub mean: f64,
    /// What it should be.
    pub target: f64,
}

/// What a target is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Metric {
    /// Requests in flight, and those that wait.
    InFlight,
    /// Requests per second.
    Rps,
    /// Thousandths of a core.
    Cpu,
}

impl Metric {
    /// As a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Metric::InFlight => "in_flight",
            Metric::Rps => "rps",
            Metric::Cpu => "cpu_millicores",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Metric::InFlight => "in flight",
            Metric::Rps => "requests/s",
            Metric::Cpu => "millicores",
        }
    }
}

type Choice = (u32, Reason, String);

impl Autoscaler {
    /// Takes note of what the data plane said.
    pub fn observe(&mut self, sample: Sample) {
        self.load.observe(sample);
    }

    /// Takes note of the processor time that replicas have used.
    pub fn observe_cpu(&mut self, sample: CpuSample) {
        self.cpu.observe(sample);
    }

    /// Takes note of a change of the count that was made.
    pub fn scaled(&mut self, now: Timestamp, from: u32, to: u32) {
        self.changes.push_back((now, from, to));
    }

    /// When to decide again if nothing is heard; none if only news can change anything.
    pub fn again_at(&self, spec: &Autoscale, facts: &Facts) -> Option<Timestamp> {
        let soon = facts.now.after(DECIDE_EVERY);
        let is_settled = facts.current == spec.min_replicas && !self.load.is_active(facts.now);
        match facts.current {
            0 => None,
            _ if !is_settled || facts.stale || facts.draining => Some(soon),
            _ if spec.scale_to_zero => {
                Some(self.load.idle_since(facts.now).after(spec.idle_after.0).max(soon))
            }
            _ => spec.target_cpu.map(|_| soon),
        }
    }

    /// Decides.
    pub fn decide(&mut self, spec: &Autoscale, facts: &Facts) -> AutoscaleStatus {
        let now = facts.now;
        let longest = spec.scale_up_window.0.max(spec.scale_down_window.0);
        // The last one stays, however old: only who has none begins anew.
        while self.recommendations.len() > 1 && now.since(self.recommendations[0].until) > longest {
            self.recommendations.pop_front();
        }
        self.changes.retain(|(at, ..)| now.since(*at) < UP_PERIOD);
        let totals = self.totals(spec, now);
        let metrics = totals.iter().filter_map(|total| total.status(facts.current)).collect();
        let (wanted, reason, message) = self.choose(spec, facts, &totals);
        let hot_key = self.hot_key(facts, &totals);
        AutoscaleStatus { wanted, reason, message, metrics, hot_key }
    }

    fn choose(&mut self, spec: &Autoscale, facts: &Facts, totals: &[recommend::Total]) -> Choice {
        let (now, current) = (facts.now, facts.current);
        let waiting = self.load.waiting();
        if current == 0 && spec.scale_to_zero {
            return match waiting {
                0 => (0, Reason::ScaledToZero, "the next request starts a replica".to_owned()),
                _ => (spec.min_replicas, Reason::Woken, format!("{waiting} requests wait")),
            };
        }
        if !spec.allows(current) {
            let (min, max) = (spec.min_replicas, spec.max_replicas);
            let reason = if current < min { Reason::TooFewReplicas } else { Reason::TooManyReplicas };
            return (spec.nearest(current), reason, format!("from {min} to {max} replicas are allowed"));
        }
        if facts.stale {
            let why = "a data plane is cut off, so its figures are not of now: the count stays";
            return (current, Reason::FailedGetMetrics, why.to_owned());
        }
        let idle = now.since(self.load.idle_since(now));
        if spec.scale_to_zero && self.load.is_known() && idle >= spec.idle_after.0 {
            return match facts.draining {
                true => draining(current),
                false => (0, Reason::ScaledToZero, format!("no requests for {}", spec.idle_after)),
            };
        }
        if facts.ready == 0 {
            return (current, Reason::FailedGetMetrics, "no replica is ready: the count stays".to_owned());
        }
        self.by_targets(spec, facts, totals)
    }

    /// The count that the targets call for, as far as windows and limits let it.
    fn by_targets(&mut self, spec: &Autoscale, facts: &Facts, totals: &[recommend::Total]) -> Choice {
        let current = facts.current;
        let Some(called_for) = recommend::called_for(totals, current) else {
            return match totals.is_empty() {
                true => (current, Reason::DesiredWithinRange, "there is no target".to_owned()),
                false => (current, Reason::FailedGetMetrics, "no figures yet: the count stays".to_owned()),
            };
        };
        let replicas = called_for.replicas.clamp(spec.min_replicas, spec.max_replicas);
        self.recommend(facts.now, current, replicas);
        let within = |window: Duration| {
            self.recommendations
                .iter()
                .filter(move |r| facts.now.since(r.until) <= window)
                .map(|r| r.replicas)
        };
        let up = within(spec.scale_up_window.0).min().unwrap_or(replicas);
        let down = within(spec.scale_down_window.0).max().unwrap_or(replicas);
        let why = called_for.why;
        if up > current {
            let most = self.most(current).max(spec.min_replicas);
            return match up > most {
                true => {
                    let added = most.max(current);
                    (added, Reason::ScaleUpLimit, format!("{why}; {most} are the most within 15 s"))
                }
                false => (up, Reason::SuccessfulRescale, why),
            };
        }
        if down < current {
            return match facts.draining {
                true => draining(current),
                false => (down, Reason::SuccessfulRescale, why),
            };
        }
        let reason = match replicas {
            _ if called_for.replicas > spec.max_replicas && current == spec.max_replicas => {
                Reason::TooManyReplicas
            }
            more if more > current => Reason::ScaleUpStabilized,
            less if less < current => Reason::ScaleDownStabilized,
            _ if called_for.replicas < spec.min_replicas => Reason::TooFewReplicas,
            _ => Reason::DesiredWithinRange,
        };
        (current, reason, why)
    }

    fn recommend(&mut self, now: Timestamp, current: u32, replicas: u32) {
        if self.recommendations.is_empty() {
            // Whoever has only just begun to look takes the count for what was right until now.
            self.recommendations.push_back(Recommendation { until: now, replicas: current });
        }
        match self.recommendations.back_mut() {
            Some(last) if last.replicas == replicas => last.until = now,
            _ => self.recommendations.push_back(Recommendation { until: now, replicas }),
        }
    }

    /// Most replicas that there may be now.
    fn most(&self, current: u32) -> u32 {
        let added: u32 = self.changes.iter().map(|(_, from, to)| to.saturating_sub(*from)).sum();
        let removed: u32 = self.changes.iter().map(|(_, from, to)| from.saturating_sub(*to)).sum();
        let before = (current + removed).saturating_sub(added);
        (2 * before).max(before + ADDED_MAX)
    }
}

fn draining(current: u32) -> Choice {
    let why = "replicas that were taken out before still have requests: the next step waits for them";
    (current, Reason::ScaleDownDraining, why.to_owned())
}
