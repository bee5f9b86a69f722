//! The drain handshake: what has been unpublished, whether the data plane knows it, and what is in flight.
//!
//! A replica may be stopped only when the snapshot that leaves it out has been acknowledged by every worker
//! of the data plane, and its requests have ended or its drain time is over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::Timestamp;
use crate::ids::{Generation, ReplicaName};
use crate::snapshot::{EndpointReport, Report, Snapshot};

/// Without an acknowledgement for this long the service is degraded and says so.
pub const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(5);

/// What was published, what was taken back, and what the data plane says of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Handshake {
    published: BTreeSet<ReplicaName>,
    withdrawn: BTreeMap<ReplicaName, Withdrawal>,
    /// The first publication of this run, by which whoever an earlier run may have published is withdrawn.
    first: Option<Withdrawal>,
    /// Made by this run, so that no earlier one has published them. Needed until that publication is acknowledged.
    made: BTreeSet<ReplicaName>,
    newest: Generation,
    newest_at: Timestamp,
    report: Report,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Withdrawal {
    generation: Generation,
    at: Timestamp,
    acknowledged_at: Option<Timestamp>,
}

/// How far a replica's withdrawal from traffic has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainState {
    /// It is in the published snapshot.
    Published,
    /// The snapshot without it has not been acknowledged yet, for this long.
    Unacknowledged(Duration),
    /// Nothing new is sent to it; requests are in flight.
    Draining {
        /// How many.
        in_flight: u32,
        /// For how long it has been draining.
        since: Timestamp,
    },
    /// It has no requests, or never had any.
    Drained,
}

impl Handshake {
    /// Takes note, before the first publication, of the replicas that lived when the controller started. A data plane
    /// that has served through its absence may send requests to any of them: what the first snapshot leaves out
    /// is withdrawn by it, as if it had been published before.
    pub fn adopt(&mut self, alive: impl IntoIterator<Item = ReplicaName>) {
        self.published.extend(alive);
    }

    /// Takes note of a replica that this run makes. Whoever comes to life and is not one of them may have been published
    /// by an earlier run: somebody may start it again just after the first list has shown it dead.
    pub fn make(&mut self, name: ReplicaName) {
        if self.first.is_none_or(|first| first.acknowledged_at.is_none()) {
            self.made.insert(name);
        }
    }

    /// Takes note of a newly published snapshot.
    pub fn publish(&mut self, snapshot: &Snapshot, now: Timestamp) {
        let next: BTreeSet<ReplicaName> = snapshot.endpoints().map(|e| e.replica.clone()).collect();
        let withdrawal = Withdrawal { generation: snapshot.generation, at: now, acknowledged_at: None };
        self.first.get_or_insert(withdrawal);
        for gone in self.published.difference(&next) {
            self.withdrawn.insert(gone.clone(), withdrawal);
        }
        self.withdrawn.retain(|name, _| !next.contains(name));
        self.published = next;
        (self.newest, self.newest_at) = (snapshot.generation, now);
    }

    /// Takes note of what the data plane reports.
    pub fn report(&mut self, report: Report, now: Timestamp) {
        for withdrawal in self.withdrawn.values_mut().chain(&mut self.first) {
            if withdrawal.acknowledged_at.is_none() && report.acknowledged >= withdrawal.generation {
                withdrawal.acknowledged_at = Some(now);
            }
        }
        if self.first.is_some_and(|first| first.acknowledged_at.is_some()) {
            self.made.clear();
        }
        self.report = report;
    }

    /// Forgets replicas that no longer exist. One that may still get requests, or still has some, is remembered: a list
    /// that leaves it out may be stale.
    pub fn retain(&mut self, exists: impl Fn(&ReplicaName) -> bool) {
        let endpoints = &self.report.endpoints;
        let is_busy = |name: &ReplicaName| endpoints.get(name).is_some_and(|endpoint| endpoint.in_flight > 0);
        self.withdrawn
            .retain(|name, withdrawal| exists(name) || withdrawal.acknowledged_at.is_none() || is_busy(name));
        self.made.retain(exists);
    }

    /// How far the withdrawal of a replica has come.
    pub fn drain_state(&self, name: &ReplicaName, now: Timestamp) -> DrainState {
        if self.published.contains(name) {
            return DrainState::Published;
        }
        let by_first = || self.first.as_ref().filter(|_| !self.made.contains(name));
        let Some(withdrawal) = self.withdrawn.get(name).or_else(by_first) else { return DrainState::Drained };
        let Some(acknowledged_at) = withdrawal.acknowledged_at else {
            return DrainState::Unacknowledged(now.since(withdrawal.at));
        };
        match self.endpoint(name).in_flight {
            0 => DrainState::Drained,
            in_flight => DrainState::Draining { in_flight, since: acknowledged_at },
        }
    }

    /// What the data plane last reported of a replica; zeroes if it does not know it.
    pub fn endpoint(&self, name: &ReplicaName) -> EndpointReport {
        self.report.endpoints.get(name).copied().unwrap_or_default()
    }

    /// Whether a replica is in the published snapshot.
    pub fn is_published(&self, name: &ReplicaName) -> bool {
        self.published.contains(name)
    }

    /// Whether a replica was published once, and has been taken out since.
    pub fn is_withdrawn(&self, name: &ReplicaName) -> bool {
        self.withdrawn.contains_key(name)
    }

    /// Whether requests go by what was published last, as far as is known: it is acknowledged, or has been waited for
    /// in vain.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.report.acknowledged >= self.newest || now.since(self.newest_at) >= ACKNOWLEDGE_TIMEOUT
    }

    /// The generation that the data plane has acknowledged.
    pub fn acknowledged(&self) -> Generation {
        self.report.acknowledged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(generation: u64) -> Report {
        Report { acknowledged: Generation(generation), ..Report::default() }
    }

    #[test]
    fn what_lived_before_the_start_is_drained_like_what_was_published() {
        let name: ReplicaName = "web-2-0".parse().unwrap();
        let first = Snapshot { generation: Generation(7), ..Snapshot::default() };
        let mut handshake = Handshake::default();
        assert_eq!(handshake.drain_state(&name, Timestamp(0)), DrainState::Drained, "nobody knows of it");
        handshake.adopt([name.clone()]);
        assert_eq!(handshake.drain_state(&name, Timestamp(0)), DrainState::Published);
        handshake.publish(&first, Timestamp(10));
        handshake.report(acknowledged(6), Timestamp(20));
        let waiting = DrainState::Unacknowledged(Duration::from_millis(20));
        assert_eq!(handshake.drain_state(&name, Timestamp(30)), waiting);
        handshake.report(acknowledged(7), Timestamp(40));
        assert_eq!(handshake.drain_state(&name, Timestamp(50)), DrainState::Drained);
    }

    #[test]
    fn who_comes_to_life_after_the_first_snapshot_may_have_been_published_before_it() {
        // Found by the simulation: dead in the first list of a run, and started again by somebody before the data plane
        // had heard of that run.
        let (name, own): (ReplicaName, ReplicaName) =
            ("web-2-0".parse().unwrap(), "web-2-1".parse().unwrap());
        let mut handshake = Handshake::default();
        handshake.publish(&Snapshot { generation: Generation(7), ..Snapshot::default() }, Timestamp(10));
        handshake.make(own.clone());
        handshake.retain(|_| true);
        let waiting = DrainState::Unacknowledged(Duration::from_millis(20));
        assert_eq!(handshake.drain_state(&name, Timestamp(30)), waiting);
        assert_eq!(handshake.drain_state(&own, Timestamp(30)), DrainState::Drained, "nobody knows of it");
        let mut busy = acknowledged(7);
        busy.endpoints.insert(name.clone(), EndpointReport { in_flight: 1, ..EndpointReport::default() });
        handshake.report(busy, Timestamp(40));
        let draining = DrainState::Draining { in_flight: 1, since: Timestamp(40) };
        assert_eq!(handshake.drain_state(&name, Timestamp(50)), draining);
        handshake.publish(&Snapshot { generation: Generation(8), ..Snapshot::default() }, Timestamp(60));
        handshake.report(acknowledged(7), Timestamp(70));
        assert_eq!(
            handshake.drain_state(&name, Timestamp(80)),
            DrainState::Drained,
            "later ones change nothing"
        );
    }

    #[test]
    fn what_a_list_leaves_out_is_remembered_while_it_may_get_requests_or_has_some() {
        // Found by the simulation: a stale list while the data plane was slow.
        let name: ReplicaName = "web-2-0".parse().unwrap();
        let mut handshake = Handshake::default();
        handshake.adopt([name.clone()]);
        handshake.publish(&Snapshot { generation: Generation(7), ..Snapshot::default() }, Timestamp(10));
        handshake.retain(|_| false);
        assert!(matches!(handshake.drain_state(&name, Timestamp(20)), DrainState::Unacknowledged(_)));
        let mut busy = acknowledged(7);
        busy.endpoints.insert(name.clone(), EndpointReport { in_flight: 1, ..EndpointReport::default() });
        handshake.report(busy, Timestamp(30));
        handshake.retain(|_| false);
        assert!(matches!(handshake.drain_state(&name, Timestamp(40)), DrainState::Draining { .. }));
        handshake.report(acknowledged(7), Timestamp(50));
        handshake.retain(|_| false);
        assert!(!handshake.is_withdrawn(&name), "nothing is kept for ever");
    }

    #[test]
    fn what_is_published_is_in_force_once_it_is_acknowledged_or_waited_for_in_vain() {
        let mut handshake = Handshake::default();
        handshake.publish(&Snapshot { generation: Generation(7), ..Snapshot::default() }, Timestamp(10));
        handshake.report(acknowledged(6), Timestamp(20));
        assert!(!handshake.is_in_force(Timestamp(5_009)));
        assert!(handshake.is_in_force(Timestamp(5_010)));
        handshake.report(acknowledged(7), Timestamp(30));
        assert!(handshake.is_in_force(Timestamp(30)));
    }
}
