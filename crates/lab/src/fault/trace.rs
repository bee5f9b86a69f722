//! What a fault looked like, made out of the load's samples, the daemon's events and the looks at its status.

use std::collections::BTreeMap;

use ringmaster_core::event::Event;
use ringmaster_core::status::{Phase, ServiceStatus};
use ringmaster_core::{Reason, Timestamp};
use serde::{Deserialize, Serialize};

use super::Fault;
use crate::load::{Failure, Latency, Outcome};

/// The width of the timeline's bins.
const BIN_SECONDS: f64 = 0.05;
/// Failures that are kept in full; all are counted.
const FAILURES_KEPT: usize = 200;

/// What a fault did. Times are milliseconds after it was injected, unless they say otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultReport {
    /// Such as `kill -9 of one replica`.
    pub name: String,
    /// The signal.
    pub signal: String,
    /// Whether some replica lived on.
    pub survivable: bool,
    /// The load, requests per second.
    pub rate: f64,
    /// Requests sent.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
    /// Each cause, and how often.
    pub causes: BTreeMap<String, u64>,
    /// The first failures.
    pub failures: Vec<Failure>,
    /// Latencies of the others.
    pub latency: Latency,
    /// When the fault was injected, in seconds since the load began.
    pub injected_seconds: f64,
    /// How long the load went on, in seconds.
    pub seconds: f64,
    /// Each victim.
    pub victims: Vec<Victim>,
    /// The last victim's replacement was ready.
    pub recovered_ms: Option<f64>,
    /// The timeline, in bins of 50 ms by when requests were to be sent: seconds, requests per second, and how many
    /// of a second's requests failed.
    pub bins: Vec<(f64, f64, f64)>,
    /// Who was ready and who could be chosen, whenever that changed.
    pub looks: Vec<Look>,
    /// The generator may have set the figures: why.
    pub bottleneck: Option<String>,
}

/// One victim. Times are milliseconds after the fault was injected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Victim {
    /// `<service>-<ordinal>`.
    pub name: String,
    /// Its last answer: it lived until then at least.
    pub last_answer_ms: Option<f64>,
    /// The daemon's first event about it.
    pub detected_ms: Option<f64>,
    /// It gets no new requests from then on.
    pub out_of_ring_ms: Option<f64>,
    /// From its last answer until it got no new requests.
    pub chosen_after_death_ms: Option<f64>,
    /// The daemon began to make its replacement.
    pub creating_ms: Option<f64>,
    /// The replacement ran.
    pub started_ms: Option<f64>,
    /// The replacement was ready.
    pub ready_ms: Option<f64>,
    /// From when it was missed until the replacement was ready.
    pub replacement_ms: Option<f64>,
}

/// A look at the status.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Look {
    /// Seconds since the load began.
    pub at_seconds: f64,
    /// Replicas that are ready.
    pub ready: u32,
    /// Replicas that may be chosen: ready and not ejected.
    pub in_ring: u32,
}

/// How long a start takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    /// The median, from the decision to create until it gets traffic.
    pub milliseconds: f64,
    /// Each one.
    pub each_ms: Vec<f64>,
    /// Requests meanwhile.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
}

impl Look {
    pub(super) fn of(at_ms: f64, status: &ServiceStatus) -> Look {
        let ready = status.members.iter().filter(|member| member.phase == Phase::Ready);
        let in_ring = ready.filter(|member| !member.ejected).count() as u32;
        Look { at_seconds: at_ms / 1e3, ready: status.ready, in_ring }
    }
}

/// Everything that was seen of a fault.
pub(super) struct Seen<'a> {
    /// When it was injected, in milliseconds since the load began.
    pub(super) injected_ms: f64,
    pub(super) outcome: &'a Outcome,
    pub(super) events: &'a [Event],
    /// A time of the daemon's, in milliseconds since the load began.
    pub(super) daemon_ms: &'a dyn Fn(Timestamp) -> f64,
    pub(super) looks: Vec<Look>,
}

/// Puts together what was seen. `old` are the victims with the names that they had on the engine.
pub(super) fn report(
    service: &str,
    fault: &Fault,
    rate: f64,
    old: &[(u16, Option<String>)],
    seen: Seen<'_>,
) -> FaultReport {
    let victims: Vec<Victim> = old
        .iter()
        .map(|(ordinal, old)| victim(service, *ordinal, old.as_deref().unwrap_or_default(), fault, &seen))
        .collect();
    let Seen { injected_ms, outcome, events, daemon_ms, looks } = seen;
    let mut causes = BTreeMap::new();
    for failure in &outcome.failures {
        *causes.entry(failure.cause.clone()).or_default() += 1;
    }
    let all_ready = victims.iter().all(|victim| victim.ready_ms.is_some());
    let last = victims.iter().filter_map(|victim| victim.ready_ms).fold(0.0, f64::max);
    FaultReport {
        name: fault.name.clone(),
        signal: fault.signal.to_owned(),
        survivable: fault.survivable,
        rate,
        requests: outcome.samples.len() as u64,
        failed: outcome.samples.iter().filter(|sample| sample.failed).count() as u64,
        causes,
        failures: outcome.failures.iter().take(FAILURES_KEPT).cloned().collect(),
        latency: outcome.latency,
        injected_seconds: injected_ms / 1e3,
        seconds: outcome.elapsed.as_secs_f64(),
        recovered_ms: all_ready.then_some(last),
        victims,
        bins: bins(outcome),
        looks: changes(looks, &turns(events, daemon_ms)),
        bottleneck: outcome.bottleneck(),
    }
}

fn victim(service: &str, ordinal: u16, old: &str, fault: &Fault, seen: &Seen<'_>) -> Victim {
    let name = format!("{service}-{ordinal}");
    let (injected_ms, outcome) = (seen.injected_ms, seen.outcome);
    let after = |at: Timestamp| (seen.daemon_ms)(at) - injected_ms;
    // Times are whole milliseconds: one of the moment of the fault may lie before it.
    let own = || seen.events.iter().filter(|event| event.object == name && after(event.at) > -1.0);
    let is_old = |event: &Event| {
        // `web-1-1` is not `web-1-10`.
        event.message.strip_prefix(old).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let of_old =
        |reason: Reason| own().find(|event| event.reason == reason && is_old(event)).map(|e| after(e.at));
    let of_new =
        |reason: Reason| own().find(|event| event.reason == reason && !is_old(event)).map(|e| after(e.at));
    let ready_ms = of_new(Reason::Ready);
    // Ejections do not tell of whom, and are counted when they repeat: the first one after the fault counts.
    let ejected = own().find(|event| event.reason == Reason::Ejected && after(event.first_at) > -1.0);
    let ejected =
        ejected.map(|event| after(event.first_at)).filter(|at| ready_ms.is_none_or(|ready| *at < ready));
    let first = |times: [Option<f64>; 3]| times.into_iter().flatten().reduce(f64::min);
    let detected_ms = first([of_old(Reason::Failed), of_old(Reason::Withdrawn), ejected]);
    let out_of_ring_ms = first([of_old(Reason::Withdrawn), ejected, None]);
    // The replacement answers under the same name, but not before it is ready.
    let until = injected_ms + ready_ms.unwrap_or(f64::INFINITY);
    let of_it = outcome.samples.iter().filter(|s| s.replica.is_some_and(|replica| replica.0 == ordinal));
    let ended = of_it.map(|sample| sample.ended.as_secs_f64() * 1e3).filter(|at| *at < until);
    let last = ended.fold(f64::NEG_INFINITY, f64::max) - injected_ms;
    let last_answer_ms = last.is_finite().then_some(last);
    let between = |from: Option<f64>, to: Option<f64>| Some((to? - from?).max(0.0));
    Victim {
        name: name.clone(),
        last_answer_ms,
        detected_ms,
        out_of_ring_ms,
        chosen_after_death_ms: between(last_answer_ms, out_of_ring_ms).filter(|_| fault.kills),
        creating_ms: of_new(Reason::Creating),
        started_ms: of_new(Reason::Started),
        ready_ms,
        replacement_ms: between(detected_ms, ready_ms),
    }
}

/// Requests and failures per second, by when they were to be sent.
fn bins(outcome: &Outcome) -> Vec<(f64, f64, f64)> {
    let mut bins: Vec<(f64, f64)> = Vec::new();
    for sample in &outcome.samples {
        let index = (sample.intended.as_secs_f64() / BIN_SECONDS) as usize;
        if bins.len() <= index {
            bins.resize(index + 1, (0.0, 0.0));
        }
        bins[index].0 += 1.0 / BIN_SECONDS;
        bins[index].1 += f64::from(u8::from(sample.failed)) / BIN_SECONDS;
    }
    // The last bin is cut off.
    bins.pop();
    let at = |(index, (sent, failed)): (usize, (f64, f64))| (index as f64 * BIN_SECONDS, sent, failed);
    bins.into_iter().enumerate().map(at).collect()
}

/// When a replica came into the ring or left it: seconds since the load began, and by how many the ring changed.
fn turns(events: &[Event], daemon_ms: &dyn Fn(Timestamp) -> f64) -> Vec<(f64, i64)> {
    let turn = |event: &Event| match event.reason {
        Reason::Ready => Some((daemon_ms(event.at) / 1e3, 1)),
        Reason::Withdrawn => Some((daemon_ms(event.at) / 1e3, -1)),
        _ => None,
    };
    events.iter().filter_map(turn).collect()
}

/// What changed, and when: looks say what was so, events say what happened between two of them.
fn changes(looks: Vec<Look>, turns: &[(f64, i64)]) -> Vec<Look> {
    let mut kept: Vec<Look> = Vec::new();
    let mut note = |look: Look| {
        if kept.last().is_none_or(|last| (last.ready, last.in_ring) != (look.ready, look.in_ring)) {
            kept.push(look);
        }
    };
    let mut turns = turns.iter().peekable();
    let mut now: Option<Look> = None;
    for look in looks {
        while let Some((at_seconds, by)) = turns.next_if(|(at, _)| *at <= look.at_seconds) {
            if let Some(before) = now {
                let ready = u32::try_from(i64::from(before.ready) + by).unwrap_or_default();
                // Who leaves was most likely ejected already, if anybody was.
                let grown = u32::try_from(i64::from(before.in_ring) + (*by).max(0)).unwrap_or_default();
                let in_ring = grown.min(ready);
                now = Some(Look { at_seconds: *at_seconds, ready, in_ring });
                note(Look { at_seconds: *at_seconds, ready, in_ring });
            }
        }
        now = Some(look);
        note(look);
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringmaster_core::Ordinal;
    use ringmaster_core::event::Severity;

    use super::*;
    use crate::load::Sample;

    fn event(at: u64, reason: Reason, message: &str) -> Event {
        Event {
            sequence: at,
            at: Timestamp(at),
            first_at: Timestamp(at),
            count: 1,
            severity: Severity::Normal,
            service: None,
            object: "web-1".to_owned(),
            reason,
            message: message.to_owned(),
        }
    }

    #[test]
    fn what_happened_between_two_looks_is_seen() {
        let look = |at_seconds, ready| Look { at_seconds, ready, in_ring: ready };
        let seen = changes(vec![look(0.0, 3), look(1.0, 3), look(2.0, 3)], &[(1.2, -1), (1.3, 1)]);
        assert_eq!(seen, [look(0.0, 3), look(1.2, 2), look(1.3, 3)]);
    }

    #[test]
    fn moments_are_counted_from_the_fault_and_the_replacement_is_another() {
        let sample = |at: u64, ordinal: u16, failed: bool| Sample {
            id: 100_000,
            intended: Duration::from_millis(at),
            ended: Duration::from_millis(at + 1),
            replica: (!failed).then_some(Ordinal(ordinal)),
            failed,
        };
        let outcome = Outcome {
            // Its last answer is 4 ms after the fault; the replacement answers at 600 ms after it.
            samples: vec![
                sample(990, 1, false),
                sample(1_003, 1, false),
                sample(1_020, 0, true),
                sample(1_600, 1, false),
            ],
            failures: vec![Failure { at_seconds: 1.02, id: 100_000, cause: "reset".to_owned() }],
            unnamed: 0,
            elapsed: Duration::from_secs(2),
            began_ms: 0.0,
            latency: Latency::default(),
            late_p99: Duration::ZERO,
            generator_share: 0.1,
        };
        let events = [
            event(500, Reason::Ready, "web-1-1 gets traffic"),
            event(1_001, Reason::Ready, "web-1-1 gets traffic"),
            event(1_030, Reason::Failed, "web-1-1: exit code 137"),
            event(1_031, Reason::Withdrawn, "web-1-1 gets no new requests"),
            event(1_032, Reason::Creating, "web-1-10 at revision x"),
            event(1_400, Reason::Started, "web-1-10 runs"),
            event(1_500, Reason::Ready, "web-1-10 gets traffic"),
        ];
        let fault = Fault {
            name: "kill".to_owned(),
            signal: "KILL",
            victims: vec![1],
            survivable: true,
            kills: true,
        };
        let seen = Seen {
            injected_ms: 1_000.0,
            outcome: &outcome,
            events: &events,
            daemon_ms: &|at| at.0 as f64,
            looks: Vec::new(),
        };
        let report = report("web", &fault, 10.0, &[(1, Some("web-1-1".to_owned()))], seen);
        let victim = &report.victims[0];
        assert_eq!(victim.last_answer_ms, Some(4.0));
        assert_eq!((victim.detected_ms, victim.out_of_ring_ms), (Some(30.0), Some(31.0)));
        assert_eq!((victim.chosen_after_death_ms, victim.ready_ms), (Some(27.0), Some(500.0)));
        assert_eq!((victim.replacement_ms, report.recovered_ms), (Some(470.0), Some(500.0)));
        assert_eq!((report.failed, report.causes["reset"]), (1, 1));
        let sent: f64 = report.bins.iter().map(|bin| bin.1 * BIN_SECONDS).sum();
        assert!((sent - 3.0).abs() < 1e-9, "{:?}", report.bins);
    }
}
