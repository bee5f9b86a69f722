//! The event timeline: bounded, deduplicated, logged as it grows, and kept on disk ([`keeper`]).

pub mod keeper;

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use ringmaster_core::event::{Event, Severity};
use ringmaster_core::{Reason, ServiceName};
use tokio::sync::watch;

use crate::clock::Clock;

/// How many entries are kept.
const EVENTS_MAX: usize = 1_000;
/// How far back a repetition is looked for.
const DEDUPLICATE_WITHIN: usize = 64;

/// What happened, newest last.
#[derive(Debug)]
pub struct Timeline {
    clock: Clock,
    events: Mutex<VecDeque<Event>>,
    newest: watch::Sender<u64>,
}

impl Timeline {
    /// An empty timeline.
    pub fn new(clock: Clock) -> Timeline {
        Timeline { clock, events: Mutex::default(), newest: watch::Sender::new(0) }
    }

    /// Adds an entry of the normal course.
    pub fn normal(
        &self,
        service: Option<&ServiceName>,
        object: &str,
        reason: Reason,
        message: impl Into<String>,
    ) {
        self.record(Severity::Normal, service, object, reason, message.into());
    }

    /// Adds an entry that a person should know of.
    pub fn warning(
        &self,
        service: Option<&ServiceName>,
        object: &str,
        reason: Reason,
        message: impl Into<String>,
    ) {
        self.record(Severity::Warning, service, object, reason, message.into());
    }

    /// One that goes on after events of earlier runs, oldest first.
    pub fn after(clock: Clock, events: Vec<Event>) -> Timeline {
        let newest = events.iter().map(|event| event.sequence).max().unwrap_or(0);
        let older = events.len().saturating_sub(EVENTS_MAX);
        let events = Mutex::new(events.into_iter().skip(older).collect());
        Timeline { clock, events, newest: watch::Sender::new(newest) }
    }

    fn record(
        &self,
        severity: Severity,
        service: Option<&ServiceName>,
        object: &str,
        reason: Reason,
        message: String,
    ) {
        match severity {
            Severity::Normal => tracing::info!(object, reason = reason.as_str(), "{message}"),
            Severity::Warning => tracing::warn!(object, reason = reason.as_str(), "{message}"),
        }
        let about = service.map_or(String::new(), ToString::to_string);
        metrics::counter!("ringmaster_events_total", "service" => about, "reason" => reason.as_str())
            .increment(1);
        let now = self.clock.now();
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = *self.newest.borrow() + 1;
        let same = |e: &Event| {
            e.service.as_ref() == service && e.object == object && e.reason == reason && e.message == message
        };
        let oldest = events.len().saturating_sub(DEDUPLICATE_WITHIN);
        let repeated = (oldest..events.len()).rev().find(|index| same(&events[*index]));
        let (first_at, count) = match repeated.and_then(|index| events.remove(index)) {
            Some(earlier) => (earlier.first_at, earlier.count.saturating_add(1)),
            None => (now, 1),
        };
        events.push_back(Event {
            sequence,
            at: now,
            first_at,
            count,
            severity,
            service: service.cloned(),
            object: object.to_owned(),
            reason,
            message,
        });
        if events.len() > EVENTS_MAX {
            events.pop_front();
        }
        self.newest.send_replace(sequence);
    }

    /// The entries after `sequence`, oldest first.
    pub fn since(&self, sequence: u64) -> Vec<Event> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().filter(|event| event.sequence > sequence).cloned().collect()
    }

    /// Follows the newest sequence number.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_counted_and_the_list_is_bounded() {
        let timeline = Timeline::new(Clock::start());
        for _ in 0..5 {
            timeline.normal(None, "web-0", Reason::Started, "it runs");
        }
        let events = timeline.since(0);
        assert_eq!((events.len(), events[0].count, events[0].sequence), (1, 5, 5));
        for i in 0..2 * EVENTS_MAX {
            timeline.normal(None, "web-0", Reason::Started, format!("{i}"));
        }
        assert_eq!(timeline.since(0).len(), EVENTS_MAX);
    }
}
