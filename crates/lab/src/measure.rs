//! One counted load: who answered how often, beside what was predicted, and how likely that is.

use ringmaster_core::Ordinal;
use ringmaster_core::api::ServiceView;
use ringmaster_core::ring::stats::Spread;
use ringmaster_core::spec::HashOn;
use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::load::{Failure, Latency, Outcome};
use crate::predict::Prediction;
use crate::session::Session;
use crate::stats::{Ideal, P_MIN, chi_square};

/// Failures that a result keeps in full; all are counted.
const FAILURES_KEPT: usize = 200;

/// What came of one load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// The policy's name.
    pub policy: String,
    /// What was hashed; `nothing` without affinity.
    pub hash_on: String,
    /// How the policy places keys.
    pub description: String,
    /// Why it comes out as it does.
    pub reason: String,
    /// Requests sent.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
    /// Each replica's part, by ordinal.
    pub replicas: Vec<ReplicaCount>,
    /// Answers per replica.
    pub mean: f64,
    /// The largest count by the mean one.
    pub max_over_mean: f64,
    /// The smallest count by the mean one.
    pub min_over_mean: f64,
    /// The standard deviation of the counts, in requests.
    pub stddev: f64,
    /// χ² of the counts against `expected`.
    pub chi_square: f64,
    /// Its degrees of freedom.
    pub degrees: u32,
    /// The probability of a χ² at least so large.
    pub p: f64,
    /// Answers that came from the very replica that the ring names for the request's id; none where nothing is
    /// hashed or the table is not known.
    pub as_predicted: Option<u64>,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Answers per second.
    pub per_second: f64,
    /// Answer times.
    pub latency: Latency,
    /// The generator may have set the figures: why.
    pub bottleneck: Option<String>,
    /// The first failures, each with its cause.
    pub failures: Vec<Failure>,
}

/// One replica's part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaCount {
    /// `<service>-<ordinal>`.
    pub name: String,
    /// Its place.
    pub ordinal: u16,
    /// Requests that it answered.
    pub count: u64,
    /// What its share of all keys makes of as many requests.
    pub expected: f64,
    /// How many of these very ids the ring gives to it; none where that cannot be known.
    pub predicted: Option<u64>,
}

/// A promise, and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What is promised.
    pub what: String,
    /// What was measured.
    pub measured: String,
    /// What it must not exceed, or must reach.
    pub limit: String,
    /// Whether it held.
    pub pass: bool,
}

/// How an experiment ended, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Every promise held.
    Pass,
    /// One did not.
    Fail,
    /// It was interrupted.
    Incomplete,
}

impl Verdict {
    /// Of these promises.
    pub fn of(checks: &[Check], complete: bool) -> Verdict {
        match (complete, checks.iter().all(|check| check.pass)) {
            (_, false) => Verdict::Fail,
            (true, true) => Verdict::Pass,
            (false, true) => Verdict::Incomplete,
        }
    }
}

impl Check {
    /// A value that must not be above a limit.
    pub fn at_most(what: impl Into<String>, measured: f64, limit: f64, digits: usize, unit: &str) -> Check {
        Check {
            what: what.into(),
            measured: format!("{measured:.digits$}{unit}"),
            limit: format!("≤ {limit:.digits$}{unit}"),
            pass: measured <= limit,
        }
    }

    /// A probability that must be above [`P_MIN`].
    pub fn likely(what: impl Into<String>, p: f64) -> Check {
        Check { what: what.into(), measured: probability(p), limit: format!("> {P_MIN}"), pass: p > P_MIN }
    }

    /// Nothing may have failed.
    pub fn none_failed(what: impl Into<String>, failed: u64, requests: u64) -> Check {
        Check {
            what: what.into(),
            measured: format!("{failed} of {requests}"),
            limit: "0".to_owned(),
            pass: failed == 0 && requests > 0,
        }
    }
}

/// A probability as people read it.
pub(crate) fn probability(p: f64) -> String {
    if p < 1e-4 { format!("{p:.1e}") } else { format!("{p:.4}") }
}

/// A load with everything that is known about it.
pub(crate) struct Measured {
    pub(crate) counted: Counted,
    pub(crate) prediction: Prediction,
    pub(crate) outcome: Outcome,
}

impl Session {
    /// Predicts, sends the load that the options ask for, and counts.
    pub(crate) async fn measure(
        &self,
        what: &str,
        view: &ServiceView,
        seed: u64,
    ) -> Result<Measured, LabError> {
        let (requests, pace) = (self.options.requests, self.pace());
        let ids = crate::random::request_ids(seed, requests);
        let target = self.target(view)?;
        let prediction = Prediction::of(&self.client, view, &target, &ids);
        let prediction = self.unless_cancelled(prediction).await?;
        let outcome = self.load(what, target, seed, requests, pace).await?;
        let counted = count(self.service().as_str(), &prediction, &outcome);
        Ok(Measured { counted, prediction, outcome })
    }
}

/// Counts an outcome beside its prediction.
pub(crate) fn count(service: &str, prediction: &Prediction, outcome: &Outcome) -> Counted {
    let counts = outcome.counts();
    let answered: u64 = counts.values().sum();
    let ids: Vec<u32> = outcome.samples.iter().map(|sample| sample.id).collect();
    let owners = prediction.owners(&ids);
    // Who answers without being a member of the ring is counted, too: nothing was expected of it.
    let mut ordinals: Vec<Ordinal> = prediction.shares.iter().map(|(ordinal, _)| *ordinal).collect();
    ordinals.extend(counts.keys().filter(|ordinal| !ordinals.contains(ordinal)).copied().collect::<Vec<_>>());
    let replica = |ordinal: &Ordinal| {
        let share =
            prediction.shares.iter().find(|(known, _)| known == ordinal).map_or(0.0, |(_, share)| *share);
        let owned = |owners: &Vec<Option<Ordinal>>| {
            owners.iter().filter(|owner| **owner == Some(*ordinal)).count() as u64
        };
        ReplicaCount {
            name: format!("{service}-{ordinal}"),
            ordinal: ordinal.0,
            count: counts.get(ordinal).copied().unwrap_or_default(),
            expected: share * answered as f64,
            predicted: owners.as_ref().map(owned),
        }
    };
    let replicas: Vec<ReplicaCount> = ordinals.iter().map(replica).collect();
    let spread = Spread::of_values(replicas.iter().map(|replica| replica.count as f64));
    let observed: Vec<u64> = replicas.iter().map(|replica| replica.count).collect();
    let expected: Vec<f64> = replicas.iter().map(|replica| replica.expected).collect();
    let test = chi_square(&observed, &expected);
    let hits = |owners: Vec<Option<Ordinal>>| {
        let pairs = outcome.samples.iter().zip(&owners);
        pairs.filter(|(sample, owner)| sample.replica.is_some() && sample.replica == **owner).count() as u64
    };
    let failed = outcome.samples.iter().filter(|sample| sample.failed).count() as u64;
    Counted {
        policy: prediction.balancing.policy.name().to_owned(),
        hash_on: keys_text(prediction),
        description: prediction.description.clone(),
        reason: prediction.reason(),
        requests: outcome.samples.len() as u64,
        failed,
        mean: answered as f64 / replicas.len().max(1) as f64,
        replicas,
        max_over_mean: spread.max_over_mean,
        min_over_mean: spread.min_over_mean,
        stddev: spread.stddev,
        chi_square: test.statistic,
        degrees: test.degrees,
        p: test.p,
        as_predicted: owners.map(hits),
        seconds: outcome.elapsed.as_secs_f64(),
        per_second: outcome.per_second(),
        latency: outcome.latency,
        bottleneck: outcome.bottleneck(),
        failures: outcome.failures.iter().take(FAILURES_KEPT).cloned().collect(),
    }
}

fn keys_text(prediction: &Prediction) -> String {
    if !prediction.has_keys() {
        return "nothing".to_owned();
    }
    let word = |key: &HashOn| match key {
        HashOn::RequestId => "requestId".to_owned(),
        HashOn::Path => "path".to_owned(),
        HashOn::ClientIp => "clientIp".to_owned(),
        HashOn::Header(name) => format!("header {name}"),
        HashOn::Cookie(name) | HashOn::SetCookie(name) => format!("cookie {name}"),
        HashOn::Query(name) => format!("query {name}"),
    };
    prediction.keys().iter().map(word).collect::<Vec<_>>().join(", ")
}

impl Counted {
    /// What ideal hashing does to as many requests on as many replicas.
    pub fn ideal(&self) -> Ideal {
        Ideal::of(self.requests as usize, self.replicas.len())
    }

    /// Whether the ring gives every replica the same share.
    pub fn is_even(&self) -> bool {
        self.replicas.iter().all(|replica| (replica.expected - self.mean).abs() <= 0.002 * self.mean)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringmaster_core::ServiceName;
    use ringmaster_core::spec::{Balancing, Policy};

    use super::*;
    use crate::load::Sample;

    fn outcome(owners: &[Option<Ordinal>], ids: &[u32]) -> Outcome {
        let sample = |(owner, id): (&Option<Ordinal>, &u32)| Sample {
            id: *id,
            intended: Duration::ZERO,
            ended: Duration::from_millis(1),
            replica: *owner,
            failed: owner.is_none(),
        };
        Outcome {
            samples: owners.iter().zip(ids).map(sample).collect(),
            failures: Vec::new(),
            unnamed: 0,
            elapsed: Duration::from_secs(1),
            began_ms: 0.0,
            latency: Latency::default(),
            late_p99: Duration::ZERO,
            generator_share: 0.1,
        }
    }

    #[test]
    fn answers_of_the_right_replica_agree_with_the_golden_shares_and_others_do_not() {
        let web = ServiceName::new("web").unwrap();
        let balancing = Balancing { policy: Policy::Assignment, ..Balancing::default() };
        let prediction = Prediction::fresh(&balancing, &web, 3).unwrap();
        let ids = crate::random::request_ids(1, 10_000);
        let owners = prediction.owners(&ids).unwrap();
        let right = count("web", &prediction, &outcome(&owners, &ids));
        assert_eq!((right.as_predicted, right.failed), (Some(10_000), 0));
        assert!(right.p > P_MIN && !right.is_even(), "{right:?}");
        assert!(right.replicas.iter().all(|replica| Some(replica.count) == replica.predicted));

        let turns: Vec<Option<Ordinal>> = (0..10_000_u16).map(|turn| Some(Ordinal(turn % 3))).collect();
        let wrong = count("web", &prediction, &outcome(&turns, &ids));
        assert!(wrong.p < 1e-300 && wrong.as_predicted.unwrap() < 5_000, "{wrong:?}");

        let mut one_failed = owners;
        one_failed[0] = None;
        assert_eq!(count("web", &prediction, &outcome(&one_failed, &ids)).failed, 1);
        let foreign = vec![Some(Ordinal(7)); 10_000];
        assert_eq!(count("web", &prediction, &outcome(&foreign, &ids)).p, 0.0, "nobody knows web-7");
    }
}
