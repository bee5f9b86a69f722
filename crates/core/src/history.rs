//! Past failures of each member, and the backoff that follows from them.
//!
//! The first failure is answered at once; each further one in a row doubles the wait, from one second to five
//! minutes. A replica that was ready for a whole minute, or a new revision, starts afresh.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::Timestamp;
use crate::ids::{Attempt, Ordinal, ReplicaName, Revision, ServiceName};
use crate::observed::{Replica, ReplicaState};

/// Wait before the second retry in a row; the first has none.
pub const BACKOFF_BASE: Duration = Duration::from_secs(1);
/// The longest wait.
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A replica that has been ready for this long has proven its revision.
pub const STABLE_AFTER: Duration = Duration::from_secs(60);

/// What is known of every member's past.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    members: BTreeMap<(ServiceName, Ordinal), MemberHistory>,
}

/// What is known of one member's past.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberHistory {
    /// The highest attempt that was ever made: names are never used twice.
    pub last_attempt: Attempt,
    /// The highest attempt whose failure has been counted.
    failed_attempt: Option<Attempt>,
    /// The revision that failed.
    revision: Option<Revision>,
    /// Failures in a row.
    pub failures: u32,
    /// Failures in a row of the other revision that the place was filled with, and when the last was: during a rollout
    /// the new and the stable release may fail by turns, and each waits on its own.
    other: Option<(Revision, u32, Timestamp)>,
    /// All failures since the daemon started.
    pub restarts: u32,
    /// When the last failure happened.
    pub failed_at: Timestamp,
    /// Why it failed, for people.
    pub last_failure: Option<String>,
    /// The exit code of the last replica that ended, if it is known: 128 + n after signal n.
    pub last_exit: Option<i32>,
    /// The last lines of output of the replica that failed last.
    pub last_output: Option<Arc<str>>,
}

impl History {
    /// Takes note of a replica that exists or is about to: its attempt is used up.
    pub fn record_attempt(&mut self, name: &ReplicaName) {
        let member = self.entry(name);
        member.last_attempt = member.last_attempt.max(name.attempt);
    }

    /// Takes note of a failure. Each attempt fails once, however often it is reported.
    pub fn record_failure(
        &mut self,
        name: &ReplicaName,
        revision: &Revision,
        why: String,
        now: Timestamp,
    ) -> bool {
        let member = self.entry(name);
        if member.failed_attempt.is_some_and(|failed| failed >= name.attempt) {
            return false;
        }
        member.failed_attempt = Some(name.attempt);
        member.last_attempt = member.last_attempt.max(name.attempt);
        if member.revision.as_ref() != Some(revision) {
            let other = member.other.take().filter(|(other, ..)| other == revision);
            let before = member.revision.replace(revision.clone());
            member.other = before.map(|before| (before, member.failures, member.failed_at));
            member.failures = other.map_or(0, |(_, failures, _)| failures);
        }
        member.failures = member.failures.saturating_add(1);
        member.restarts = member.restarts.saturating_add(1);
        member.failed_at = now;
        member.last_failure = Some(why);
        // What is known of an earlier failure says nothing about this one.
        (member.last_exit, member.last_output) = (None, None);
        true
    }

    /// Another release of a service is wanted, or the same again: failures in a row count from now on. Otherwise what
    /// failed before, and was mended or is insisted upon, would be given up before it is tried.
    pub fn forgive(&mut self, service: &ServiceName) {
        for (_, member) in self.members.iter_mut().filter(|((of, _), _)| of == service) {
            (member.failures, member.other) = (0, None);
        }
    }

    /// Takes note of the last lines that a failed replica wrote, unless another has failed meanwhile.
    pub fn record_output(&mut self, name: &ReplicaName, output: &str) {
        let member = self.entry(name);
        if member.failed_attempt == Some(name.attempt) {
            member.last_output = Some(output.into());
        }
    }

    /// Takes note of what a list shows: attempts in use, ended replicas, members that have proven stable.
    /// Returns the replicas whose end is news, with the reason.
    pub fn observe(&mut self, replicas: &[Replica], now: Timestamp) -> Vec<(ReplicaName, String)> {
        let mut news = Vec::new();
        for replica in replicas {
            self.record_attempt(&replica.name);
            if replica.pending == Some(crate::observed::Pending::Remove) {
                continue;
            }
            let failure = match &replica.state {
                ReplicaState::Exited(exit) => Some(exit.to_string()),
                _ if replica.health.dead_since.is_some() => {
                    let why = replica.health.last_failure.as_deref().unwrap_or("no answer");
                    let has_lived = replica.health.was_ready || replica.health.started;
                    let probe = if has_lived { "liveness" } else { "startup" };
                    Some(format!("{probe} probe failed: {why}"))
                }
                _ => None,
            };
            if let Some(why) = failure
                && self.record_failure(&replica.name, &replica.revision, why.clone(), now)
            {
                news.push((replica.name.clone(), why));
            }
            let stable = replica.health.ready_since.is_some_and(|at| now.since(at) >= STABLE_AFTER);
            let member = self.entry(&replica.name);
            if let ReplicaState::Exited(exit) = &replica.state
                && member.failed_attempt == Some(replica.name.attempt)
            {
                member.last_exit = exit.code;
            }
            if stable && replica.is_ready() && member.failed_attempt.is_none_or(|f| f < replica.name.attempt)
            {
                (member.failures, member.other) = (0, None);
            }
        }
        news
    }

    /// Forgets members of services that no longer exist.
    pub fn retain_services(&mut self, exists: impl Fn(&ServiceName) -> bool) {
        self.members.retain(|(service, _), _| exists(service));
    }

    /// What is known of a member.
    pub fn member(&self, service: &ServiceName, ordinal: Ordinal) -> Option<&MemberHistory> {
        self.members.get(&(service.clone(), ordinal))
    }

    /// The member of a service that has failed most often in a row with `revision`.
    pub fn failing(&self, service: &ServiceName, revision: &Revision) -> Option<(Ordinal, &MemberHistory)> {
        let of_it = self.members.iter().filter(|((of, _), past)| {
            of == service && past.revision.as_ref() == Some(revision) && past.failures > 0
        });
        of_it.map(|((_, ordinal), past)| (*ordinal, past)).max_by_key(|(_, past)| past.failures)
    }

    /// The attempt that comes next for a member.
    pub fn next_attempt(&self, service: &ServiceName, ordinal: Ordinal) -> Attempt {
        self.member(service, ordinal).map_or(Attempt(0), |member| member.last_attempt.next())
    }

    /// When a member may be filled with `revision` again; none if at once.
    pub fn retry_at(
        &self,
        service: &ServiceName,
        ordinal: Ordinal,
        revision: &Revision,
    ) -> Option<Timestamp> {
        let member = self.member(service, ordinal)?;
        let own = (member.revision.as_ref() == Some(revision)).then_some((member.failures, member.failed_at));
        let other = member.other.as_ref().filter(|(other, ..)| other == revision);
        let (failures, failed_at) = own.or(other.map(|(_, failures, at)| (*failures, *at)))?;
        let delay = backoff(failures);
        (!delay.is_zero()).then(|| failed_at.after(delay))
    }

    fn entry(&mut self, name: &ReplicaName) -> &mut MemberHistory {
        let key = (name.service.clone(), name.ordinal);
        self.members.entry(key).or_insert_with(|| MemberHistory {
            last_attempt: name.attempt,
            failed_attempt: None,
            revision: None,
            failures: 0,
            other: None,
            restarts: 0,
            failed_at: Timestamp(0),
            last_failure: None,
            last_exit: None,
            last_output: None,
        })
    }
}

/// The wait after `failures` failures in a row: 0, 1 s, 2 s, 4 s … 5 min.
pub fn backoff(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        n => BACKOFF_BASE.saturating_mul(1_u32.checked_shl(n - 2).unwrap_or(u32::MAX)).min(BACKOFF_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(attempt: u32) -> ReplicaName {
        format!("web-0-{attempt}").parse().unwrap()
    }

    fn revision(text: &str) -> Revision {
        Revision(text.to_owned())
    }

    #[test]
    fn the_wait_doubles_from_nothing_to_five_minutes() {
        let seconds: Vec<u64> = (0..12).map(|n| backoff(n).as_secs()).collect();
        assert_eq!(seconds, [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }

    #[test]
    fn one_attempt_fails_once_and_a_new_revision_starts_afresh() {
        let mut history = History::default();
        let web = ServiceName::new("web").unwrap();
        for attempt in [0, 1, 1, 1] {
            history.record_failure(&name(attempt), &revision("a"), "x".to_owned(), Timestamp(100));
        }
        assert_eq!(history.retry_at(&web, Ordinal(0), &revision("a")), Some(Timestamp(1_100)));
        assert_eq!(history.retry_at(&web, Ordinal(0), &revision("b")), None);
        assert_eq!(history.next_attempt(&web, Ordinal(0)), Attempt(2));
        history.record_failure(&name(2), &revision("b"), "x".to_owned(), Timestamp(200));
        assert_eq!(history.retry_at(&web, Ordinal(0), &revision("b")), None, "the first is answered at once");
    }

    #[test]
    fn whoever_asks_for_something_else_has_it_tried_at_once_and_as_often_as_ever() {
        let mut history = History::default();
        let (web, bad) = (ServiceName::new("web").unwrap(), revision("bad"));
        for attempt in 0..3 {
            history.record_failure(&name(attempt), &bad, "x".to_owned(), Timestamp(100));
        }
        assert_eq!(history.failing(&web, &bad).map(|(_, past)| past.failures), Some(3));
        history.forgive(&web);
        assert_eq!(history.failing(&web, &bad), None);
        assert_eq!(history.retry_at(&web, Ordinal(0), &bad), None);
        assert_eq!(history.next_attempt(&web, Ordinal(0)), Attempt(3), "no name is used twice");
        history.record_failure(&name(3), &bad, "x".to_owned(), Timestamp(200));
        assert_eq!(history.failing(&web, &bad).map(|(_, past)| past.failures), Some(1));
    }

    #[test]
    fn two_revisions_that_fail_by_turns_wait_each_on_its_own() {
        let mut history = History::default();
        let web = ServiceName::new("web").unwrap();
        for attempt in 0..6 {
            let revision = revision(if attempt % 2 == 0 { "a" } else { "b" });
            let at = Timestamp(1_000 * u64::from(attempt));
            history.record_failure(&name(attempt), &revision, "x".to_owned(), at);
        }
        let retry_at = |text| history.retry_at(&web, Ordinal(0), &revision(text));
        assert_eq!((retry_at("a"), retry_at("b")), (Some(Timestamp(6_000)), Some(Timestamp(7_000))));
        assert_eq!(retry_at("c"), None, "a third one is tried at once");
        assert_eq!(history.failing(&web, &revision("b")).map(|(_, past)| past.failures), Some(3));
    }

    #[test]
    fn output_and_exit_belong_to_the_failure_that_was_counted_last() {
        use crate::observed::{ExitInfo, Health, RuntimeId};
        let mut history = History::default();
        let exited = |attempt: u32, code: i32| Replica {
            id: Some(RuntimeId("x".to_owned())),
            name: name(attempt),
            engine_name: String::new(),
            revision: revision("a"),
            state: ReplicaState::Exited(ExitInfo { code: Some(code), ..ExitInfo::default() }),
            address: None,
            created_at: Timestamp(0),
            host: None,
            health: Health::default(),
            pending: None,
            drift: Default::default(),
        };
        assert_eq!(history.observe(&[exited(0, 3)], Timestamp(1)).len(), 1);
        history.record_output(&name(0), "why");
        let told = |history: &History| {
            let member = history.member(&ServiceName::new("web").unwrap(), Ordinal(0)).unwrap();
            (member.last_exit, member.last_output.as_deref().unwrap_or("").to_owned())
        };
        assert_eq!(told(&history), (Some(3), "why".to_owned()));
        assert_eq!(
            history.observe(&[exited(0, 3), exited(1, 4)], Timestamp(2)).len(),
            1,
            "the older is no news"
        );
        assert_eq!(told(&history), (Some(4), String::new()));
        history.record_output(&name(0), "too late");
        assert_eq!(told(&history), (Some(4), String::new()));
    }
}
