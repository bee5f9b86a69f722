//! One member's place: who serves it, who should fill it, and what has to go.

use super::{Action, CreateReason, Plan, RemoveReason, RepairReason};
use crate::desired::{DesiredService, Member};
use crate::handshake::{ACKNOWLEDGE_TIMEOUT, DrainState};
use crate::history::STABLE_AFTER;
use crate::ids::{ReplicaName, Revision, ServiceName};
use crate::observed::{Observed, Pending, Replica, ReplicaState};
use crate::rollout::{Fill, PlaceView, Turn};
use crate::spec::Strategy;

/// A member's place and the replicas that fill it, or did.
pub(super) struct Place<'a> {
    service: &'a ServiceName,
    member: &'a Member,
    replicas: &'a [&'a Replica],
    /// Gets the member's traffic.
    pub(super) serving: Option<&'a Replica>,
    /// Runs the desired revision and is ready or becoming so.
    target: Option<&'a Replica>,
    /// While nothing serves: runs another revision, and is the place's best chance until the target is ready.
    holder: Option<&'a Replica>,
    /// Served before the target, and would again, until the target has been ready for `minReady`.
    pub(super) standby: Option<&'a Replica>,
    /// How far the target is.
    fill: Fill,
}

impl<'a> Place<'a> {
    pub(super) fn of(
        service: &'a ServiceName,
        member: &'a Member,
        replicas: &'a [&'a Replica],
        revision: Option<&Revision>,
        strategy: &Strategy,
        observed: &Observed,
    ) -> Place<'a> {
        // While the desired revision is unknown (its image is missing), whatever runs is good enough.
        let current = |r: &Replica| revision.is_none_or(|revision| r.revision == *revision);
        let usable = || replicas.iter().copied().filter(|r| fills(r, member));
        // Of two replicas that could serve, the one of the desired revision, then the one that serves already:
        // traffic moves once, and never back.
        let serving = usable()
            .filter(|r| r.is_ready())
            .min_by_key(|r| (!current(r), !observed.handshake.is_published(&r.name), r.name.attempt));
        let target = match serving {
            Some(serving) if current(serving) => Some(serving),
            _ => usable().filter(|r| current(r)).max_by_key(|r| r.name.attempt),
        };
        let others = || usable().filter(|r| !current(r));
        let holder = match serving {
            Some(_) => None,
            None => others()
                .max_by_key(|r| (r.state == ReplicaState::Running, r.health.was_ready, r.name.attempt)),
        };
        let available_at = target.and_then(|t| t.health.ready_since).map(|at| at.after(strategy.min_ready.0));
        let fill = match (target, serving, holder) {
            (Some(t), Some(s), _)
                if t.name == s.name && available_at.is_some_and(|at| at <= observed.now) =>
            {
                Fill::Available
            }
            (Some(_), _, _) => Fill::Starting,
            (None, Some(_), _) => Fill::Old,
            (None, None, Some(holder)) if !is_judged(holder) => Fill::Unjudged,
            (None, None, _) => Fill::Broken,
        };
        let waits = fill == Fill::Starting && serving.is_some_and(current);
        let standby = others().filter(|r| waits && r.is_ready()).max_by_key(|r| r.name.attempt);
        Place { service, member, replicas, serving, target, holder, standby, fill }
    }

    /// What a rollout has to know of it.
    pub(super) fn view(&self, revision: Option<&Revision>, observed: &Observed) -> PlaceView {
        let live = || self.replicas.iter().filter(|replica| replica.is_live());
        let is_old = |replica: &&&Replica| revision.is_some_and(|revision| replica.revision != *revision);
        let withdrawn = |replica: &Replica| observed.handshake.is_withdrawn(&replica.name);
        PlaceView {
            ordinal: self.member.ordinal,
            live: live().count() as u32,
            old: live().filter(is_old).count() as u32,
            fill: self.fill,
            withdrawn: self.serving.is_some_and(withdrawn),
        }
    }

    /// Whether nothing is there that fills it or could come to.
    fn is_empty(&self) -> bool {
        [self.serving, self.target, self.holder].iter().all(Option::is_none)
    }
}

/// Whether enough is known of a replica that does not serve: after a restart of the daemon nothing is known to be ready
/// yet, and a replica of another release is judged before it is replaced.
fn is_judged(replica: &Replica) -> bool {
    replica.health.last_failure.is_some() || replica.state == ReplicaState::Paused
}

/// Whether a replica fills a member's place: it runs or is being created under the member's name, and nothing is
/// known against it.
fn fills(replica: &Replica, member: &Member) -> bool {
    let live = match replica.state {
        ReplicaState::Running | ReplicaState::Paused => replica.pending != Some(Pending::Remove),
        ReplicaState::Created => replica.pending == Some(Pending::Create),
        ReplicaState::Exited(_) | ReplicaState::Removing => false,
    };
    let health = &replica.health;
    live && health.dead_since.is_none() && health.stopping_since.is_none() && replica.host == member.host
}

/// What a place may be filled with.
#[derive(Clone, Copy)]
pub(super) struct Releases<'a> {
    /// The wanted revision; none while it is unknown.
    pub(super) wanted: Option<&'a Revision>,
    /// The revision of the stable release.
    pub(super) stable: Option<&'a Revision>,
}

/// Plans one place: fill it, mend what fills it, remove what has had its time.
pub(super) fn plan_place(
    place: &Place<'_>,
    service: &DesiredService,
    releases: Releases<'_>,
    turn: Turn,
    observed: &Observed,
    plan: &mut Plan,
) {
    let revision = releases.wanted;
    match turn {
        Turn::Update if place.target.is_none() => create(place, revision, releases, observed, plan),
        Turn::Keep if place.is_empty() => create(place, releases.stable, releases, observed, plan),
        Turn::Update | Turn::Keep | Turn::StopFirst | Turn::Wait => {}
    }
    let makes_room = turn == Turn::StopFirst;
    if let (Fill::Starting, Some(since)) = (place.fill, place.target.and_then(|t| t.health.ready_since)) {
        let available_at = since.after(service.spec.strategy.min_ready.0);
        if available_at > observed.now {
            plan.wake(available_at);
        }
    }
    let newest_ended = place.replicas.iter().filter(|r| !r.is_live()).map(|r| r.name.attempt).max();
    for replica in place.replicas {
        let keepers = [place.serving, place.target, place.holder, place.standby];
        // Without a known revision there is nothing to judge by: what lives stays.
        let undecided = revision.is_none() && fills(replica, place.member);
        let kept = undecided || keepers.into_iter().flatten().any(|keeper| keeper.name == replica.name);
        let kept = kept && !(makes_room && replica.is_live());
        if kept {
            repair(replica, plan);
        } else if matches!(replica.state, ReplicaState::Exited(_)) {
            // The newest ended one is kept for its output until its successor has proven stable.
            let proven_at = place.target.and_then(|t| t.health.ready_since).map(|at| at.after(STABLE_AFTER));
            match proven_at {
                _ if newest_ended > Some(replica.name.attempt) => {
                    drop_replica(replica, RemoveReason::Ended, service, observed, plan);
                }
                Some(at) if at <= observed.now => {
                    drop_replica(replica, RemoveReason::Ended, service, observed, plan);
                }
                Some(at) => plan.wake(at),
                None => {}
            }
        } else if replica.state != ReplicaState::Removing {
            let reason = match replica {
                r if r.state == ReplicaState::Created => RemoveReason::NeverStarted,
                r if r.health.stopping_since.is_some() => RemoveReason::Stopping,
                r if r.health.dead_since.is_some() => RemoveReason::NotAlive,
                r if r.host != place.member.host => RemoveReason::OtherHost,
                _ if makes_room => RemoveReason::MakesRoom,
                r if revision.is_some_and(|revision| r.revision != *revision) => RemoveReason::Superseded,
                _ => RemoveReason::Duplicate,
            };
            drop_replica(replica, reason, service, observed, plan);
        }
    }
}

fn create(
    place: &Place<'_>,
    revision: Option<&Revision>,
    releases: Releases<'_>,
    observed: &Observed,
    plan: &mut Plan,
) {
    let Some(revision) = revision else { return };
    let ordinal = place.member.ordinal;
    let service = place.service.clone();
    if let Some(at) = observed.history.retry_at(&service, ordinal, revision)
        && at > observed.now
    {
        plan.backing_off.insert((service, ordinal), at);
        plan.wake(at);
        return;
    }
    let replaces = releases.stable.is_some_and(|stable| stable != revision);
    let reason = match (place.serving, observed.history.member(&service, ordinal)) {
        (Some(_), _) => CreateReason::Outdated,
        (None, None) if replaces => CreateReason::Outdated,
        (None, Some(past)) if replaces && past.failures == 0 => CreateReason::Outdated,
        (None, Some(past)) if past.restarts > 0 => CreateReason::Replace,
        _ if place.replicas.is_empty() => CreateReason::ScaledUp,
        _ => CreateReason::Replace,
    };
    let seen = place.replicas.iter().map(|r| r.name.attempt.next()).max();
    let attempt = observed.history.next_attempt(&service, ordinal).max(seen.unwrap_or_default());
    let name = ReplicaName { service, ordinal, attempt };
    let host = place.member.host.clone();
    plan.actions.push(Action::Create { name, host, revision: revision.clone(), reason });
}

fn repair(replica: &Replica, plan: &mut Plan) {
    let (None, Some(id)) = (replica.pending, &replica.id) else { return };
    if replica.drift.unrepaired.is_some() {
        return; // The world asks for another pass when it may be tried again.
    }
    let reason = match replica.state {
        ReplicaState::Paused => RepairReason::Paused,
        _ if replica.engine_name != replica.name.to_string() => RepairReason::Renamed,
        ReplicaState::Running if replica.address.is_none() => RepairReason::Detached,
        _ if replica.drift.limits => RepairReason::Limits,
        _ => return,
    };
    plan.actions.push(Action::Repair { id: id.clone(), name: replica.name.clone(), reason });
}

/// Takes a replica out: at once if it has ended, else after the drain handshake.
pub(super) fn drop_replica(
    replica: &Replica,
    reason: RemoveReason,
    service: &DesiredService,
    observed: &Observed,
    plan: &mut Plan,
) {
    let Some(id) = &replica.id else { return };
    let running = matches!(replica.state, ReplicaState::Running | ReplicaState::Paused);
    if running {
        plan.draining.insert(replica.name.clone(), reason);
    }
    if replica.pending.is_some() || replica.state == ReplicaState::Removing {
        return;
    }
    let strategy = &service.spec.strategy;
    if let (true, Some(since)) = (running, replica.health.stopping_since) {
        // Whoever stops it has the first word; what does not end by that is ended as any other.
        let overdue_at = since.after(strategy.drain.0 + strategy.termination_grace.0);
        if overdue_at > observed.now {
            return plan.wake(overdue_at);
        }
    }
    let is_forced = service.deleting && service.rollout.forced_out;
    if running && !is_forced {
        match observed.handshake.drain_state(&replica.name, observed.now) {
            DrainState::Drained => {}
            DrainState::Draining { since, .. } if since.after(strategy.drain.0) <= observed.now => {}
            DrainState::Draining { since, .. } => return plan.wake(since.after(strategy.drain.0)),
            DrainState::Unacknowledged(waited) => {
                if waited < ACKNOWLEDGE_TIMEOUT {
                    plan.wake(observed.now.after(ACKNOWLEDGE_TIMEOUT - waited));
                }
                return;
            }
            DrainState::Published => return,
        }
    }
    let grace = running.then_some(strategy.termination_grace.0);
    plan.actions.push(Action::Remove { id: id.clone(), name: replica.name.clone(), grace, reason });
}
