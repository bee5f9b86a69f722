//! The status of one replica: its phase, why it is in it, and what the data plane knows of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::failed;
use crate::Timestamp;
use crate::desired::DesiredService;
use crate::handshake::DrainState;
use crate::ids::{Ordinal, ServiceName};
use crate::observed::{Observed, Pending, Replica, ReplicaState};
use crate::plan::Plan;
use crate::snapshot::{Circuit, EndpointReport, Latency};

/// One replica, or a member without one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// The name that people use: `<service>-<ordinal>`.
    pub name: String,
    /// The name on the engine; none while there is no replica.
    pub engine_name: Option<String>,
    /// The member's place.
    pub ordinal: Ordinal,
    /// The name by which the assignment lists it.
    pub display_name: String,
    /// Its phase.
    pub phase: Phase,
    /// Why it is in that phase, for people; empty where there is nothing to say.
    pub message: String,
    /// What it runs.
    pub revision: Option<String>,
    /// Whether that is what it should run.
    pub updated: bool,
    /// Where it answers.
    pub address: Option<String>,
    /// The runtime's id of it.
    pub id: Option<String>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// How often its place has been refilled after a failure since the daemon started.
    pub restarts: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// How many of these are streams: upgraded connections and server-sent events.
    #[serde(default)]
    pub streams: u32,
    /// Requests since it was first published.
    pub requests: u64,
    /// The data plane has stopped choosing it for now.
    pub ejected: bool,
    /// Why and since when that is so, or it is on probation after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit: Option<Circuit>,
    /// How long it takes until its responses begin; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// When it is stopped at the latest, while requests or streams are in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_until: Option<Timestamp>,
    /// When its place is filled again, while that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// The last failure in its place; none once a replica has proven stable there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureStatus>,
}

/// How a member's place failed last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureStatus {
    /// Failures in a row.
    pub in_a_row: u32,
    /// When the last one was.
    pub at: Timestamp,
    /// Why, for people.
    pub why: String,
    /// The exit code, if one is known: 128 + n after signal n.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The last lines that the failed replica wrote; empty if there are none.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub output: Arc<str>,
}

/// Where a replica is on its way, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// No replica yet.
    Pending,
    /// Being created, or running and not ready yet.
    Starting,
    /// Gets traffic.
    Ready,
    /// Was ready, and its readiness probe fails.
    NotReady,
    /// Frozen by somebody.
    Paused,
    /// Gets no new requests, finishes those in flight.
    Draining,
    /// Being stopped and removed.
    Terminating,
    /// Has ended; kept for its output.
    Exited,
    /// Fails again and again; the next try waits.
    CrashLoopBackOff,
}

pub(super) fn replica_statuses(
    name: &ServiceName,
    service: &DesiredService,
    observed: &Observed,
    plan: &Plan,
) -> Vec<ReplicaStatus> {
    let mut all = Vec::new();
    let mut replicas: Vec<&Replica> = observed.replicas.iter().filter(|r| r.name.service == *name).collect();
    replicas.sort_by(|a, b| a.name.cmp(&b.name));
    for member in &service.members {
        let fills = |r: &&Replica| {
            r.name.ordinal == member.ordinal && r.is_live() && r.pending != Some(Pending::Remove)
        };
        // A member whose next try waits is shown beside whatever still serves it.
        let waits = plan.backing_off.contains_key(&(name.clone(), member.ordinal));
        if waits || !replicas.iter().any(fills) {
            all.push(empty_place(name, member.ordinal, member.display_name(), observed, plan));
        }
    }
    let wanted = observed.revisions.get(name).and_then(|revision| revision.as_ref().ok());
    for replica in replicas {
        let member = service.members.iter().find(|member| member.ordinal == replica.name.ordinal);
        let display_name = member.map_or_else(|| replica.name.short(), |member| member.display_name());
        let (phase, message) = phase(replica, observed, plan);
        let endpoint = observed.handshake.endpoint(&replica.name);
        all.push(ReplicaStatus {
            name: replica.name.short(),
            engine_name: Some(replica.engine_name.clone()),
            ordinal: replica.name.ordinal,
            display_name,
            phase,
            message,
            revision: Some(replica.revision.to_string()),
            updated: wanted.is_none_or(|wanted| *wanted == replica.revision),
            address: replica.address.map(|address| address.to_string()),
            id: replica.id.as_ref().map(|id| id.0.clone()),
            created_at: Some(replica.created_at),
            restarts: restarts(name, replica.name.ordinal, observed),
            in_flight: endpoint.in_flight,
            streams: endpoint.streams,
            requests: endpoint.requests,
            ejected: endpoint.ejected,
            circuit: endpoint.circuit,
            latency: endpoint.latency,
            drain_until: drain_until(replica, service, observed, plan),
            retry_at: None,
            failure: None,
        });
    }
    all.sort_by(|a, b| (a.ordinal, &a.created_at).cmp(&(b.ordinal, &b.created_at)));
    tell_failures(name, &mut all, observed);
    all
}

/// The failure of a place is told by its waiting row, or by its newest replica. The rows are in order.
fn tell_failures(name: &ServiceName, all: &mut [ReplicaStatus], observed: &Observed) {
    for place in all.chunk_by_mut(|a, b| a.ordinal == b.ordinal) {
        let Some(first) = place.first() else { continue };
        let past = observed.history.member(name, first.ordinal).filter(|past| past.failures > 0);
        let Some(past) = past else { continue };
        let teller = place.iter().position(|row| row.id.is_none()).unwrap_or(place.len() - 1);
        place[teller].failure = Some(FailureStatus {
            in_a_row: past.failures,
            at: past.failed_at,
            why: past.last_failure.clone().unwrap_or_default(),
            exit_code: past.last_exit,
            output: past.last_output.clone().unwrap_or_default(),
        });
    }
}

fn drain_until(
    replica: &Replica,
    service: &DesiredService,
    observed: &Observed,
    plan: &Plan,
) -> Option<Timestamp> {
    plan.draining.get(&replica.name)?;
    match observed.handshake.drain_state(&replica.name, observed.now) {
        DrainState::Draining { since, .. } if replica.pending.is_none() => {
            Some(since.after(service.spec.strategy.drain.0))
        }
        _ => None,
    }
}

fn restarts(name: &ServiceName, ordinal: Ordinal, observed: &Observed) -> u32 {
    observed.history.member(name, ordinal).map_or(0, |member| member.restarts)
}

fn empty_place(
    name: &ServiceName,
    ordinal: Ordinal,
    display_name: String,
    observed: &Observed,
    plan: &Plan,
) -> ReplicaStatus {
    let past = observed.history.member(name, ordinal);
    let last = past.and_then(|past| past.last_failure.as_deref());
    let retry_at = plan.backing_off.get(&(name.clone(), ordinal)).copied();
    let (phase, message) = match retry_at {
        Some(_) => (Phase::CrashLoopBackOff, past.map(failed).unwrap_or_default()),
        None => match observed.revisions.get(name) {
            Some(Err(error)) => (Phase::Pending, error.clone()),
            _ => (Phase::Pending, last.map_or(String::new(), |last| format!("last failure: {last}"))),
        },
    };
    ReplicaStatus {
        name: format!("{name}-{ordinal}"),
        engine_name: None,
        ordinal,
        display_name,
        phase,
        message,
        revision: None,
        updated: false,
        address: None,
        id: None,
        created_at: None,
        restarts: restarts(name, ordinal, observed),
        in_flight: 0,
        streams: 0,
        requests: 0,
        ejected: false,
        circuit: None,
        latency: None,
        drain_until: None,
        retry_at,
        failure: None,
    }
}

/// What an endpoint is busy with: requests end soon, streams when somebody ends them.
fn in_flight(endpoint: EndpointReport) -> String {
    let streams = endpoint.streams.min(endpoint.in_flight);
    let plural = |count: u32| if count == 1 { "" } else { "s" };
    match (endpoint.in_flight - streams, streams) {
        (requests, 0) => format!("{requests} in flight"),
        (0, streams) => format!("{streams} stream{}", plural(streams)),
        (requests, streams) => {
            format!("{requests} request{}, {streams} stream{}", plural(requests), plural(streams))
        }
    }
}

fn phase(replica: &Replica, observed: &Observed, plan: &Plan) -> (Phase, String) {
    if replica.pending == Some(Pending::Remove) || replica.state == ReplicaState::Removing {
        let why = plan.draining.get(&replica.name).map_or(String::new(), ToString::to_string);
        return (Phase::Terminating, why);
    }
    if let ReplicaState::Exited(exit) = &replica.state {
        return (Phase::Exited, exit.to_string());
    }
    if let Some(reason) = plan.draining.get(&replica.name) {
        let busy = in_flight(observed.handshake.endpoint(&replica.name));
        return (Phase::Draining, format!("{reason}: {busy}"));
    }
    let failure = || replica.health.last_failure.clone().unwrap_or_default();
    match replica.state {
        ReplicaState::Paused => (Phase::Paused, "somebody paused it".to_owned()),
        ReplicaState::Created => (Phase::Starting, String::new()),
        _ if plan.standby.contains(&replica.name) => {
            (Phase::Ready, "stands by until its successor has proven itself".to_owned())
        }
        _ if replica.is_ready() && replica.drift.unrepaired.is_some() => {
            let why = replica.drift.unrepaired.as_deref().unwrap_or_default();
            (Phase::Ready, format!("what somebody did to it could not be undone: {why}"))
        }
        _ if replica.is_ready() => {
            let circuit = observed.handshake.endpoint(&replica.name).circuit;
            (Phase::Ready, circuit.map_or(String::new(), |circuit| circuit.to_string()))
        }
        _ if replica.health.was_ready => (Phase::NotReady, failure()),
        _ => (Phase::Starting, failure()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_told_apart_from_requests() {
        for (all, streams, text) in [
            (0, 0, "0 in flight"),
            (2, 0, "2 in flight"),
            (1, 1, "1 stream"),
            (3, 3, "3 streams"),
            (4, 3, "1 request, 3 streams"),
            (3, 1, "2 requests, 1 stream"),
            // A report may be taken between the two counts.
            (1, 2, "1 stream"),
        ] {
            let endpoint = EndpointReport { in_flight: all, streams, ..EndpointReport::default() };
            assert_eq!(in_flight(endpoint), text);
        }
    }
}
