//! What is looked at once a second: how many requests were completed, for the retry budgets, and whether one endpoint
//! answers with more errors than the others.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;

use ringmaster_core::ReplicaName;
use ringmaster_core::quantity::Percent;
use ringmaster_core::snapshot::EjectReason;
use tokio::time::sleep;

use crate::budget::NOTE_INTERVAL;
use crate::outlier::Health;
use crate::registry::Shared;

/// How many seconds of answers are compared.
const WINDOW: usize = 10;
/// An endpoint with fewer answers than this in the window is not judged.
const ANSWERS_MIN: u64 = 50;

/// An endpoint's counts at the beginning of each second of the window, the newest last.
#[derive(Default)]
struct Counts {
    seconds: VecDeque<(u64, u64)>,
    /// How often it had been ejected then.
    ejections: u64,
}

/// Watches until it is dropped.
pub(crate) async fn run(shared: &Shared) -> Infallible {
    let mut known: BTreeMap<ReplicaName, Counts> = BTreeMap::new();
    loop {
        sleep(NOTE_INTERVAL).await;
        let services = shared.with_latest(|registry, snapshot| {
            let stats = registry.services.values().map(|entry| Arc::clone(&entry.stats)).collect::<Vec<_>>();
            let endpoints = snapshot.services.values().map(|routing| {
                let health = |replica| registry.endpoints.get(replica).map(|entry| Arc::clone(&entry.health));
                let healths =
                    routing.endpoints.values().filter_map(|e| Some((e.replica.clone(), health(&e.replica)?)));
                (routing.resilience.ejection.error_rate, healths.collect::<Vec<_>>())
            });
            (stats, endpoints.collect::<Vec<_>>())
        });
        let (stats, endpoints) = services;
        for service in stats {
            service.budget.note(service.stripes.completed());
        }
        known.retain(|replica, _| {
            endpoints.iter().any(|(_, all)| all.iter().any(|(name, _)| name == replica))
        });
        for (limit, healths) in endpoints {
            judge(limit, &healths, &mut known);
        }
    }
}

fn judge(limit: Percent, healths: &[(ReplicaName, Arc<Health>)], known: &mut BTreeMap<ReplicaName, Counts>) {
    let recent: Vec<(u64, u64)> = healths
        .iter()
        .map(|(replica, health)| {
            let now = health.answers();
            let counts = known.entry(replica.clone()).or_default();
            // What it answered before it was put out, or at another address, is no news.
            let restarted = counts.seconds.back().is_some_and(|last| now.0 < last.0 || now.1 < last.1);
            let ejections = health.ejections();
            if restarted || counts.ejections != ejections {
                counts.seconds.clear();
            }
            counts.ejections = ejections;
            counts.seconds.push_back(now);
            while counts.seconds.len() > WINDOW + 1 {
                counts.seconds.pop_front();
            }
            let then = counts.seconds.front().copied().unwrap_or_default();
            (now.0 - then.0, now.1 - then.1)
        })
        .collect();
    for (index, excess) in excesses(&recent).into_iter().enumerate() {
        if limit < Percent(100) && excess > f64::from(limit.0) {
            healths[index].1.eject(EjectReason::ErrorRate);
        }
    }
}

/// By how many hundredths the share of errors of each is above that of all others together.
fn excesses(recent: &[(u64, u64)]) -> Vec<f64> {
    let sum = |of: fn(&(u64, u64)) -> u64| recent.iter().map(of).sum::<u64>();
    let (answers, errors) = (sum(|count| count.0), sum(|count| count.1));
    let share =
        |errors: u64, answers: u64| if answers == 0 { 0.0 } else { 100.0 * errors as f64 / answers as f64 };
    let excess = |&(own_answers, own_errors): &(u64, u64)| {
        let others = answers - own_answers;
        // Without others to compare with nobody stands out.
        if own_answers < ANSWERS_MIN || others < ANSWERS_MIN {
            return 0.0;
        }
        share(own_errors, own_answers) - share(errors - own_errors, others)
    };
    recent.iter().map(excess).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stands_out_only_beside_others_and_with_enough_answers() {
        assert_eq!(excesses(&[(100, 40), (100, 0), (100, 0)]), [40.0, -20.0, -20.0]);
        assert_eq!(excesses(&[(100, 100)]), [0.0]);
        assert_eq!(excesses(&[(49, 49), (100, 0)]), [0.0, 0.0]);
        assert_eq!(excesses(&[(100, 50), (100, 50)]), [0.0, 0.0]);
        assert_eq!(excesses(&[]), [0.0; 0]);
    }
}
