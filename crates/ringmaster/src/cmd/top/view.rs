//! What `top` shows, as values and as lines: pure, so that every line can be tested.

use ringmaster_core::Timestamp;
use ringmaster_core::event::{Event, Severity};
use ringmaster_core::snapshot::Circuit;
use ringmaster_core::status::{ConditionKind, Phase, ReplicaStatus};
use serde::Serialize;

use super::counted::Requests;
use super::{Look, Rings};
use crate::output::{age, millis as short_millis};

/// Events that are shown where there is room.
const EVENTS_SHOWN: usize = 8;
/// The columns of replicas: head, width, and whether figures stand in them. 80 in all, with the spaces between.
const COLUMNS: [(&str, usize, bool); 9] = [
    ("  REPLICA", 15, false),
    ("STATE", 16, false),
    ("REQ/S", 6, true),
    ("REPLY", 5, true),
    ("FLIGHT", 6, true),
    ("SHARE", 6, true),
    ("EXPECT", 6, true),
    ("EJECT", 5, true),
    ("RESTART", 7, true),
];

/// How much fits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) width: usize,
    /// None where lines may go on forever.
    pub(super) height: Option<usize>,
}

/// Everything that is shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    /// The daemon, in one line.
    pub(super) daemon: String,
    /// Why nothing new is known.
    pub(super) away: Option<String>,
    /// Why the engine cannot be reached.
    pub(super) engine_error: Option<String>,
    /// The daemon's time.
    pub(super) now: Timestamp,
    pub(super) total: Traffic,
    pub(super) services: Vec<Service>,
    /// Newest first.
    pub(super) events: Vec<Event>,
}

/// What goes through the data plane.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Traffic {
    pub(super) requests_per_second: f64,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) failed_per_second: f64,
    /// Since the daemon started.
    pub(super) failed: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) ready: u32,
    pub(super) desired: u32,
    /// What is wrong, or under way.
    pub(super) note: Option<String>,
    pub(super) traffic: Traffic,
    pub(super) replicas: Vec<Replica>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Replica {
    pub(super) name: String,
    pub(super) phase: Phase,
    pub(super) ejected: bool,
    /// Why the data plane has ejected it, or has it on probation.
    pub(super) circuit: Option<Circuit>,
    /// How long its responses take to begin, as the data plane has learnt.
    pub(super) latency_ms: Option<f64>,
    pub(super) requests_per_second: f64,
    pub(super) in_flight: u32,
    /// Of the service's requests; none without any.
    pub(super) share: Option<f64>,
    /// Of the keys that it owns.
    pub(super) expected: Option<f64>,
    pub(super) ejections: u64,
    pub(super) restarts: u32,
}

impl Size {
    /// What is printed and not looked at on a screen.
    pub(super) const PAPER: Size = Size { width: 80, height: None };
}

impl View {
    /// What two looks say together, and a third long enough before for shares.
    pub(super) fn of(first: &Look, before: &Look, now: &Look, rings: &Rings, events: Vec<Event>) -> View {
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        let daemon = &now.overview.daemon;
        let service = |service: &ringmaster_core::api::ServiceView| {
            let name = service.name.as_str();
            let counted = now.counted.0.get(name).cloned().unwrap_or_default();
            let earlier = before.counted.0.get(name).cloned().unwrap_or_default();
            let members = service.status.iter().flat_map(|status| &status.members);
            let total: u64 = members.clone().map(|member| requests_since(first, member)).sum();
            let ring = rings.get(&service.name).map(|(_, ring)| ring);
            let replica = |member: &ReplicaStatus| {
                let gone = matches!(member.phase, Phase::Draining | Phase::Terminating | Phase::Exited);
                let owned = ring.and_then(|ring| ring.replicas.iter().find(|r| r.ordinal == member.ordinal));
                Replica {
                    name: member.name.clone(),
                    phase: member.phase,
                    ejected: member.ejected,
                    circuit: member.circuit,
                    latency_ms: member.latency.map(|latency| latency.mean_us as f64 / 1e3),
                    requests_per_second: per_second(requests_since(before, member), seconds),
                    in_flight: member.in_flight,
                    share: (total > 0).then(|| requests_since(first, member) as f64 / total as f64),
                    expected: owned.filter(|_| !gone).map(|owned| owned.share),
                    ejections: counted.ejections.get(&member.ordinal.to_string()).copied().unwrap_or(0),
                    restarts: member.restarts,
                }
            };
            Service {
                name: name.to_owned(),
                ready: service.status.as_ref().map_or(0, |status| status.ready),
                desired: service.spec.replicas.unwrap_or_default(),
                note: note(service),
                replicas: members.map(replica).collect(),
                traffic: Traffic::of(&earlier, &counted, seconds),
            }
        };
        View {
            daemon: format!(
                "ringmaster {}, {}, instance {}",
                daemon.version, daemon.runtime, daemon.instance
            ),
            away: None,
            engine_error: daemon.engine_error.clone(),
            now: now.overview.now,
            total: Traffic::of(&before.counted.sum(), &now.counted.sum(), seconds),
            services: now.overview.services.iter().map(service).collect(),
            events: events.into_iter().rev().take(EVENTS_SHOWN).collect(),
        }
    }

    /// The names of the replicas.
    pub(super) fn names(&self) -> Vec<String> {
        let all = self.services.iter().flat_map(|service| &service.replicas);
        all.map(|replica| format!("replica/{}", replica.name)).collect()
    }
}

impl Traffic {
    fn of(before: &Requests, now: &Requests, seconds: f64) -> Traffic {
        let grown = now.since(before);
        let millis = |share| grown.quantile(share).map(|seconds| seconds * 1e3);
        Traffic {
            requests_per_second: per_second(grown.answered, seconds),
            p50_ms: millis(0.5),
            p99_ms: millis(0.99),
            failed_per_second: per_second(grown.failed, seconds),
            failed: now.failed,
        }
    }
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// Requests of a replica since a look in which it was, or since it came.
fn requests_since(look: &Look, replica: &ReplicaStatus) -> u64 {
    let services = look.overview.services.iter().filter_map(|service| service.status.as_ref());
    let same = |one: &&ReplicaStatus| one.name == replica.name && one.id == replica.id;
    let before = services.flat_map(|status| &status.members).find(same).map_or(0, |one| one.requests);
    // A daemon that starts again counts from 0.
    replica.requests.checked_sub(before).unwrap_or(replica.requests)
}

/// A service's trouble, if any, before its progress.
fn note(service: &ringmaster_core::api::ServiceView) -> Option<String> {
    let status = service.status.as_ref()?;
    let degraded = status.condition(ConditionKind::Degraded).filter(|condition| condition.status);
    match degraded {
        _ if service.deleting => Some("being deleted".to_owned()),
        Some(degraded) => Some(format!("{}: {}", degraded.reason, degraded.message)),
        None if status.is_converged() => None,
        None => Some(format!("{} updated", status.updated)),
    }
}

/// The lines of a screen, none wider or more than fit.
pub(super) fn render(view: &View, size: Size) -> Vec<String> {
    let mut head = vec![view.daemon.clone()];
    let ready: u32 = view.services.iter().map(|service| service.ready).sum();
    let desired: u32 = view.services.iter().map(|service| service.desired).sum();
    head.push(format!("{ready} of {desired} ready   {}", traffic(&view.total)));
    head.extend(view.engine_error.iter().map(|why| format!("! the engine does not answer: {why}")));
    head.extend(view.away.iter().map(|why| format!("! these are the last figures: {why}")));
    let events = events(view);
    let services = services(view, size.height.map(|height| height.saturating_sub(head.len() + events.len())));
    let lines = head.into_iter().chain(services).chain(events);
    let lines = lines.map(|line| cut(&line, size.width).trim_end().to_owned());
    lines.take(size.height.unwrap_or(usize::MAX)).collect()
}

/// Every service, in so many lines.
fn services(view: &View, room: Option<usize>) -> Vec<String> {
    if view.services.is_empty() {
        return vec![String::new(), "no services: ringmaster apply -f manifests/replicas.yaml".to_owned()];
    }
    // What each has beside its replicas: an empty line, its own, the columns' heads.
    let each = room.map(|room| (room / view.services.len()).saturating_sub(3).max(1));
    view.services.iter().flat_map(|service| service_lines(service, each.unwrap_or(usize::MAX))).collect()
}

fn service_lines(service: &Service, room: usize) -> Vec<String> {
    let note = service.note.as_ref().map_or(String::new(), |note| format!("   {note}"));
    let state = format!("{} of {} ready", service.ready, service.desired);
    let mut lines =
        vec![String::new(), format!("{}   {state}   {}{note}", service.name, traffic(&service.traffic))];
    lines.push(row(&COLUMNS.map(|(head, ..)| head.to_owned())));
    let mut replicas: Vec<&Replica> = service.replicas.iter().collect();
    let left_out = if replicas.len() > room { replicas.len() - room.saturating_sub(1) } else { 0 };
    if left_out > 0 {
        // Where not all can be seen, those in trouble come first.
        replicas.sort_by_key(|replica| replica.phase == Phase::Ready && replica.circuit.is_none());
        replicas.truncate(room.saturating_sub(1));
    }
    lines.extend(replicas.into_iter().map(|replica| row(&cells(replica))));
    lines.extend((left_out > 0).then(|| format!("  and {left_out} more")));
    lines
}

fn cells(replica: &Replica) -> [String; 9] {
    let share = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.1}%", 100.0 * share));
    let state = match (replica.phase, replica.ejected, replica.circuit) {
        (phase, true, _) => format!("{phase:?}, ejected"),
        (phase, false, Some(_)) => format!("{phase:?}, probation"),
        (phase, false, None) => format!("{phase:?}"),
    };
    [
        format!("  {}", replica.name),
        state,
        rate(replica.requests_per_second),
        replica.latency_ms.map_or("-".to_owned(), short_millis),
        replica.in_flight.to_string(),
        share(replica.share),
        share(replica.expected),
        replica.ejections.to_string(),
        replica.restarts.to_string(),
    ]
}

fn events(view: &View) -> Vec<String> {
    let line = |event: &Event| {
        let mark = if event.severity == Severity::Warning { '!' } else { ' ' };
        let count = if event.count > 1 { format!(" (x{})", event.count) } else { String::new() };
        let at = age(event.at, view.now);
        let message = event.message.replace(|letter: char| letter.is_control(), " ");
        format!("{at:>6} {mark} {} {}{count}: {message}", event.object, event.reason)
    };
    let lines: Vec<String> = view.events.iter().map(line).collect();
    if lines.is_empty() { lines } else { [String::new()].into_iter().chain(lines).collect() }
}

fn traffic(traffic: &Traffic) -> String {
    let millis = |millis: Option<f64>| match millis {
        None => "-".to_owned(),
        Some(millis) if millis < 10.0 => format!("{millis:.1} ms"),
        Some(millis) => format!("{millis:.0} ms"),
    };
    format!(
        "{}/s   p50 {}   p99 {}   failed {}/s, {} in all",
        rate(traffic.requests_per_second),
        millis(traffic.p50_ms),
        millis(traffic.p99_ms),
        rate(traffic.failed_per_second),
        traffic.failed
    )
}

fn rate(rate: f64) -> String {
    if rate < 100.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

fn row(cells: &[String; 9]) -> String {
    let cell = |(text, (_, width, numeric)): (&String, (&str, usize, bool))| match numeric {
        true => format!("{:>width$}", cut(text, width)),
        false => format!("{:<width$}", cut(text, width)),
    };
    cells.iter().zip(COLUMNS).map(cell).collect::<Vec<_>>().join(" ")
}

/// A text of at most so many letters.
fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
