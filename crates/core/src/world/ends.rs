//! What the end of something that ran beside the loop means for the passes after it.

use std::time::Duration;

use super::failure::{ErrorKind, retry_delay};
use super::resolution::Resolved;
use super::{World, failure};
use crate::Timestamp;
use crate::desired::Desired;
use crate::ids::{ReplicaName, Revision, ServiceName};
use crate::observed::{ReplicaState, RuntimeId, RuntimeReplica};
use crate::reason::Reason;
use crate::spec::Template;

/// Most replicas of one service that are created at once.
pub(super) const CREATES_MAX: usize = 64;

/// Something that a list shows and that people should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The replica.
    pub name: ReplicaName,
    /// What is with it, in one word.
    pub reason: Reason,
    /// And in a sentence.
    pub why: String,
}

impl World {
    /// A list that began as number `begun` has ended after `took`. Returns what is news.
    pub fn listed(
        &mut self,
        begun: u64,
        list: Vec<RuntimeReplica>,
        took: Duration,
        now: Timestamp,
    ) -> Vec<News> {
        self.listing.end(took, true, now);
        self.failures.retain(|name, _| list.iter().any(|r| r.name == *name));
        self.repairs.retain(|name, _| list.iter().any(|r| r.name == *name && !is_whole(r)));
        let doubt = self.doubt.of(&list, now);
        let known: Vec<RuntimeId> = self.copies.keys().cloned().collect();
        let mut news = Vec::new();
        for replica in self.end_list(begun, list) {
            let why = format!("{} was removed by somebody", replica.name);
            if self.history.record_failure(&replica.name, &replica.revision, why.clone(), now) {
                news.push(News { name: replica.name, reason: Reason::Vanished, why });
            }
        }
        for copy in self.copies.values().filter(|copy| !known.contains(&copy.id)) {
            let why = format!(
                "`{}` wears the labels of {} and is not it: it is left alone while that one lives; remove it by \
                 hand, or run it without labels that are not its own",
                copy.engine_name, copy.name
            );
            news.push(News { name: copy.name.clone(), reason: Reason::Orphaned, why });
        }
        if let Some(why) = doubt {
            // Who is listed is known, and serves; what is not is not acted upon.
            self.not_listed(why, took, now);
        }
        news
    }

    /// A list has ended without an answer.
    pub fn not_listed(&mut self, error: String, took: Duration, now: Timestamp) {
        self.listing.end(took, false, now);
        self.unreachable(error);
    }

    /// A creation has failed: it counts as under way until a list shows what has become of it.
    pub fn create_failed(
        &mut self,
        name: &ReplicaName,
        revision: &Revision,
        why: String,
        kind: ErrorKind,
        now: Timestamp,
    ) {
        self.ended(name);
        self.listing.want();
        // A name that is taken by ours shows in the list; if it is foreign, the next attempt has another.
        // The first failure in a row costs no wait, so that neither delays anything.
        self.history.record_failure(name, revision, why, now);
        match kind {
            ErrorKind::Engine | ErrorKind::Unreachable => {
                self.creates_max.insert(name.service.clone(), 1);
            }
            ErrorKind::Conflict | ErrorKind::ImageMissing => self.resolutions.doubt(&name.service, now),
            ErrorKind::NotFound | ErrorKind::Invalid => {}
        }
    }

    /// A repair has ended. One that worked is confirmed by the next list; one that has to be done again and again
    /// waits longer each time.
    pub fn repaired(&mut self, name: &ReplicaName, now: Timestamp) {
        self.mended(name);
        let repairs = self.repairs.entry(name.clone()).or_default();
        *repairs = repairs.saturating_add(1);
        match *repairs {
            1 => self.ended(name),
            again => self.failed(name, now.after(retry_delay(again - 1))),
        }
        self.listing.want();
    }

    /// A removal or a repair has failed: it is tried again after a wait that grows.
    pub fn action_failed(&mut self, name: &ReplicaName, now: Timestamp) {
        let failures = self.failures.entry(name.clone()).or_default();
        *failures = failures.saturating_add(1);
        let retry_at = now.after(failure::retry_delay(*failures));
        self.failed(name, retry_at);
        self.listing.want();
    }

    /// The templates that are to be resolved now; they count as under way.
    pub fn begin_resolutions(&mut self, desired: &Desired, now: Timestamp) -> Vec<(ServiceName, Template)> {
        let due = self.resolutions.begin_due(desired, now);
        for (service, _, _) in due.iter().filter(|(_, _, changed)| *changed) {
            // Until it is known, whatever runs is good enough, and nothing new is created.
            self.revisions.remove(service);
            self.history.forgive(service);
        }
        due.into_iter().map(|(service, template, _)| (service, template)).collect()
    }

    /// The engine has answered for a template: with the identity of its content, or why not.
    pub fn resolved(
        &mut self,
        service: &ServiceName,
        template: &Template,
        result: Result<String, String>,
        now: Timestamp,
    ) -> Resolved {
        let (content, error) = match result {
            Ok(content) => (Some(content), None),
            Err(error) => (None, Some(error)),
        };
        let resolved = self.resolutions.end(service, template, content, now);
        match (&resolved, error) {
            (Resolved::First(revision) | Resolved::Rebuilt(revision), _) => {
                self.revisions.insert(service.clone(), Ok(revision.clone()));
            }
            (Resolved::Unknown, Some(error)) => drop(self.revisions.insert(service.clone(), Err(error))),
            _ => {}
        }
        resolved
    }
}

/// Whether nobody has to mend it.
pub(super) fn is_whole(replica: &RuntimeReplica) -> bool {
    replica.state == ReplicaState::Running
        && replica.address.is_some()
        && replica.engine_name == replica.name.to_string()
}
