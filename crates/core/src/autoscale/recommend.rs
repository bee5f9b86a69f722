//! What each target calls for.

use super::{Autoscaler, Facts, Metric, MetricStatus};
use crate::Timestamp;
use crate::spec::Autoscale;

/// So near to its target the mean is what it should be.
const TOLERANCE: f64 = 0.1;

/// One target, and what all replicas have of it together; none while that is not known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Total {
    metric: Metric,
    target: f64,
    total: Option<f64>,
}

/// The count that the targets call for, and the target that calls for it.
pub(super) struct CalledFor {
    pub(super) replicas: u32,
    pub(super) why: String,
}

impl Total {
    /// What is shown; none while nothing is known.
    pub(super) fn status(&self, current: u32) -> Option<MetricStatus> {
        let mean = self.total? / f64::from(current.max(1));
        Some(MetricStatus { metric: self.metric, mean: (mean * 10.0).round() / 10.0, target: self.target })
    }

    fn replicas(&self, current: u32) -> Option<u32> {
        let total = self.total?;
        let ratio = total / (f64::from(current.max(1)) * self.target);
        let is_near = current > 0 && (ratio - 1.0).abs() <= TOLERANCE;
        Some(if is_near { current } else { (total / self.target).ceil() as u32 })
    }

    fn why(&self, current: u32) -> String {
        let mean = self.total.unwrap_or_default() / f64::from(current.max(1));
        format!("{mean:.1} {} per replica on average, target {}", self.metric.words(), self.target)
    }
}

/// The highest of what the targets call for; none if no total is known, or one that is not might call for as many as
/// there are.
pub(super) fn called_for(totals: &[Total], current: u32) -> Option<CalledFor> {
    let known = totals.iter().filter_map(|total| Some((total.replicas(current)?, total)));
    let (replicas, total) = known.max_by_key(|(replicas, _)| *replicas)?;
    let is_partial = totals.iter().any(|total| total.total.is_none());
    (!is_partial || replicas >= current).then(|| CalledFor { replicas, why: total.why(current) })
}

impl Autoscaler {
    pub(super) fn totals(&self, spec: &Autoscale, now: Timestamp) -> Vec<Total> {
        let of = |metric, target: Option<u32>, total: Option<f64>| {
            target.map(|target| Total { metric, target: f64::from(target), total })
        };
        let in_flight = of(Metric::InFlight, spec.target_in_flight, self.load.mean(now));
        let rps = of(Metric::Rps, spec.target_rps, self.load.rate(now));
        let target_cpu = spec.target_cpu.map(|cpu| cpu.millicores);
        let cpu = of(Metric::Cpu, target_cpu, self.cpu.millicores(now));
        [in_flight, rps, cpu].into_iter().flatten().collect()
    }

    /// Why one key cannot be scaled away, if it alone has more than a replica should have.
    pub(super) fn hot_key(&self, facts: &Facts, totals: &[Total]) -> Option<String> {
        let permille = self.load.hottest_permille().filter(|_| facts.has_affinity)?;
        let of_requests = totals.iter().filter(|total| total.metric != Metric::Cpu);
        of_requests.into_iter().find_map(|total| {
            let hot = total.total? * f64::from(permille) / 1_000.0;
            (hot > total.target * (1.0 + TOLERANCE)).then(|| {
                format!(
                    "one key has {:.0} % of the requests, {hot:.1} {} where a replica should have {}: more replicas take \
                     none of it; `boundedLoad` lets it overflow, another `hashOn` divides it",
                    f64::from(permille) / 10.0,
                    total.metric.words(),
                    total.target
                )
            })
        })
    }
}
