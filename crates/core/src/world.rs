//! What the loop knows of the world between passes: the last list, what has happened since it began, what is
//! under way, and what the probes say. `World::observe` makes the planner's input out of it.
//!
//! What an action's end means for the next pass is in `ends`, a whole pass in `pass`. Deliberately absent: effects. The
//! controller carries out what is decided here, and the simulation does so in a modelled world.
//!
//! The point of this file is that lists are stale: an action that ended while a list was under way may or may
//! not be in it. Each list and each ended action carries a sequence number, and a list never overrules
//! an action that ended after the list began.

mod doubt;
mod drift;
mod ends;
mod failure;
mod listing;
mod pass;
mod releases;
mod removal;
mod resolution;
mod stopping;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::Timestamp;
use crate::debut::Debuts;
use crate::desired::Desired;
use crate::handshake::Handshake;
use crate::history::History;
use crate::ids::{Generation, ReplicaName, Revision, ServiceName};
use crate::observed::{Drift, Health, Observed, Pending, Replica, ReplicaState, RuntimeId, RuntimeReplica};
use crate::rollout::Release;

use doubt::Doubt;
pub use ends::News;
pub use failure::{ErrorKind, retry_delay};
pub use listing::{Listing, RESYNC_PERIOD};
pub use pass::{Outlook, Pass};
pub use releases::Noted;
pub use removal::Removal;
pub use resolution::{Resolutions, Resolved};

/// What is known between passes.
#[derive(Debug, Clone, Default)]
pub struct World {
    sequence: u64,
    /// `None` until the first list has succeeded: until then nothing is planned.
    listed: Option<BTreeMap<RuntimeId, RuntimeReplica>>,
    list_error: Option<String>,
    /// What the first lists are measured by.
    doubt: Doubt,
    /// Listed besides a replica of the same name: somebody has copied its labels. They are left alone, and do not count.
    copies: BTreeMap<RuntimeId, RuntimeReplica>,
    /// Created since a list began that may not show it.
    fresh: BTreeMap<RuntimeId, u64>,
    /// Removed since a list began that may still show it.
    gone: BTreeMap<RuntimeId, u64>,
    pending: BTreeMap<ReplicaName, PendingAction>,
    health: BTreeMap<ReplicaName, Health>,
    /// Running replicas that somebody is stopping, and since when.
    stopping: BTreeMap<RuntimeId, Timestamp>,
    /// Running replicas whose limits somebody has changed, and how.
    limits: BTreeMap<RuntimeId, String>,
    /// Why the last repair of a replica has failed.
    unrepaired: BTreeMap<ReplicaName, String>,
    /// What each service's template resolves to, as the planner is told.
    revisions: BTreeMap<ServiceName, Result<Revision, String>>,
    /// The last release of each service that was ready as a whole, and the life of the service that it belongs to.
    pub stable: BTreeMap<ServiceName, (Generation, Release)>,
    /// Past failures.
    pub history: History,
    /// What was published and acknowledged.
    pub handshake: Handshake,
    /// Who is new to its service's set.
    pub debuts: Debuts,
    /// When to list next.
    pub listing: Listing,
    /// What each service's template resolves to, and when to ask again.
    pub resolutions: Resolutions,
    /// How many replicas of a service may be created at once, since the engine has refused one.
    creates_max: BTreeMap<ServiceName, usize>,
    /// Actions that failed in a row, for their backoff.
    failures: BTreeMap<ReplicaName, u32>,
    /// Repairs of one replica, until a list shows it whole.
    repairs: BTreeMap<ReplicaName, u32>,
    /// When the first pass was that could have published.
    settling_since: Option<Timestamp>,
}

#[derive(Debug, Clone)]
struct PendingAction {
    kind: Pending,
    /// The place is kept for a replica that is being created at this revision, under this host name.
    creating: Option<Revision>,
    host: Option<String>,
    since: Timestamp,
    /// It has failed, and may be tried again then.
    retry_at: Option<Timestamp>,
    /// It has ended; a list that began after this number shows its effect.
    confirm_from: Option<u64>,
}

impl World {
    /// Before the first list: how many replicas of each service were ready when the daemon last ran.
    pub fn expect(&mut self, ready: BTreeMap<ServiceName, u32>) {
        self.doubt.expect(ready);
    }

    /// A list begins: returns its number.
    pub fn begin_list(&mut self) -> u64 {
        self.listing.begin();
        self.sequence += 1;
        self.sequence
    }

    /// A list that began as number `begun` has ended. Returns replicas that somebody else has removed.
    fn end_list(&mut self, begun: u64, list: Vec<RuntimeReplica>) -> Vec<RuntimeReplica> {
        self.list_error = None;
        let mut next: BTreeMap<RuntimeId, RuntimeReplica> =
            list.into_iter().map(|r| (r.id.clone(), r)).collect();
        next.retain(|id, _| self.gone.get(id).is_none_or(|ended| *ended < begun));
        self.pending.retain(|_, action| action.confirm_from.is_none_or(|from| from >= begun));
        let before = self.listed.take().unwrap_or_default();
        for (id, replica) in before.iter().filter(|(id, _)| self.fresh.get(id).is_some_and(|at| *at >= begun))
        {
            // The list may have seen it half made, or not at all: what its creation returned is newer.
            next.insert(id.clone(), replica.clone());
        }
        self.copies = take_copies(&mut next, &before);
        for replica in next.values().filter(|replica| !before.contains_key(&replica.id)) {
            // Whatever was known of the name was known of another.
            self.health.remove(&replica.name);
        }
        let mut vanished = Vec::new();
        for (id, replica) in before {
            if let Some(now) = next.get(&id) {
                // Whoever was away, or answers elsewhere now, is judged anew before it gets traffic.
                let resumed = now.state == ReplicaState::Running && replica.state != ReplicaState::Running;
                if resumed || (now.address.is_some() && now.address != replica.address) {
                    self.health.remove(&replica.name);
                }
            }
            let is_there = next.contains_key(&id) || self.copies.contains_key(&id);
            if !is_there
                && self.pending.get(&replica.name).is_none_or(|p| p.kind != Pending::Remove)
                && matches!(
                    replica.state,
                    // Whoever is faster than a list leaves it the removal at most.
                    ReplicaState::Running | ReplicaState::Paused | ReplicaState::Removing
                )
            {
                vanished.push(replica);
            }
        }
        self.fresh.retain(|_, ended| *ended >= begun);
        self.gone.retain(|_, ended| *ended >= begun);
        let names: BTreeSet<&ReplicaName> = next.values().map(|r| &r.name).collect();
        self.health.retain(|name, _| names.contains(name));
        self.handshake.retain(|name| names.contains(name) || self.pending.contains_key(name));
        self.stopping.retain(|id, _| next.get(id).is_some_and(stopping::may_be));
        self.listed = Some(next);
        self.forget_drift();
        vanished
    }

    /// The engine does not answer: what was known stays known.
    pub fn unreachable(&mut self, error: String) {
        self.list_error = Some(error);
        self.listing.want();
    }

    /// Why the last list failed.
    pub fn list_error(&self) -> Option<&str> {
        self.list_error.as_deref()
    }

    /// Whether enough is known to plan.
    pub fn is_known(&self) -> bool {
        self.listed.is_some()
    }

    /// A removal or a repair begins.
    pub fn begin_action(&mut self, name: &ReplicaName, kind: Pending, now: Timestamp) {
        let action = PendingAction {
            kind,
            creating: None,
            host: None,
            since: now,
            retry_at: None,
            confirm_from: None,
        };
        self.pending.insert(name.clone(), action);
    }

    /// A creation begins: the replica counts from now on, and its attempt is used up.
    pub fn begin_create(
        &mut self,
        name: &ReplicaName,
        revision: &Revision,
        host: Option<String>,
        now: Timestamp,
    ) {
        self.history.record_attempt(name);
        self.handshake.make(name.clone());
        self.begin_action(name, Pending::Create, now);
        if let Some(action) = self.pending.get_mut(name) {
            action.creating = Some(revision.clone());
            action.host = host;
        }
    }

    /// A replica has been created and runs.
    pub fn created(&mut self, replica: RuntimeReplica) {
        let service = &replica.name.service;
        if let Some(most) = self.creates_max.get_mut(service) {
            *most *= 2;
            if *most >= ends::CREATES_MAX {
                self.creates_max.remove(service);
            }
        }
        self.sequence += 1;
        self.pending.remove(&replica.name);
        self.fresh.insert(replica.id.clone(), self.sequence);
        let listed = self.listed.get_or_insert_default();
        let count = listed.len();
        // Whatever was taken for it while it was being made is another: the next list tells.
        listed.retain(|id, other| other.name != replica.name || *id == replica.id);
        if listed.len() < count {
            self.health.remove(&replica.name);
        }
        listed.insert(replica.id.clone(), replica);
    }

    /// A replica has been removed.
    pub fn removed(&mut self, name: &ReplicaName, id: &RuntimeId) {
        self.failures.remove(name);
        self.sequence += 1;
        self.pending.remove(name);
        self.gone.insert(id.clone(), self.sequence);
        if let Some(listed) = &mut self.listed {
            listed.remove(id);
        }
        if !self.listed.iter().flatten().any(|(_, replica)| replica.name == *name) {
            self.health.remove(name);
        }
    }

    /// An action has ended whose effect is not known: a repair, or a creation without an answer. It counts as
    /// under way until a list that began later shows what has become of it.
    fn ended(&mut self, name: &ReplicaName) {
        self.sequence += 1;
        if let Some(action) = self.pending.get_mut(name) {
            action.confirm_from = Some(self.sequence);
        }
    }

    /// An action has failed; it may be tried again at `retry_at`.
    fn failed(&mut self, name: &ReplicaName, retry_at: Timestamp) {
        if let Some(action) = self.pending.get_mut(name) {
            action.retry_at = Some(retry_at);
        }
    }

    /// When the first failed action may be tried again.
    fn retry_at(&self) -> Option<Timestamp> {
        self.pending.values().filter_map(|action| action.retry_at).min()
    }

    /// What the probes say of a replica.
    pub fn health(&self, name: &ReplicaName) -> Health {
        self.health.get(name).cloned().unwrap_or_default()
    }

    /// The probes say something new. One that is no longer ready may have been detached or frozen: a list tells.
    pub fn set_health(&mut self, name: ReplicaName, health: Health) {
        let is_lost = health.ready_since.is_none();
        let before = self.health.insert(name, health);
        if is_lost && before.is_some_and(|before| before.ready_since.is_some()) {
            self.listing.want();
        }
    }

    /// The replicas that run and answer somewhere: those to probe.
    pub fn running(&self) -> impl Iterator<Item = &RuntimeReplica> {
        let all = self.listed.iter().flat_map(BTreeMap::values);
        all.filter(|replica| replica.state == ReplicaState::Running && replica.address.is_some())
    }

    /// Whatever wears the name of a replica and is not it, as it was listed last.
    pub fn copies(&self) -> impl Iterator<Item = &RuntimeReplica> {
        self.copies.values()
    }

    /// All listed replicas.
    pub fn replicas(&self) -> impl Iterator<Item = &RuntimeReplica> {
        self.listed.iter().flat_map(BTreeMap::values)
    }

    /// How many replicas of a service are being created.
    pub fn creating(&self, service: &ServiceName) -> usize {
        let creates = |(name, action): &(&ReplicaName, &PendingAction)| {
            action.kind == Pending::Create && name.service == *service
        };
        self.pending.iter().filter(creates).count()
    }

    /// Whether one more of a service may be created now: after the engine has refused one of it, few are tried at a
    /// time. Others are not held up by that.
    pub fn may_create(&self, service: &ServiceName) -> bool {
        let most = self.creates_max.get(service).copied().unwrap_or(ends::CREATES_MAX);
        self.creating(service) < most
    }

    /// Everything that lives may be getting requests from a data plane that has served through the controller's absence.
    fn adopt(&mut self) {
        let lives = |state: &ReplicaState| matches!(state, ReplicaState::Running | ReplicaState::Paused);
        let alive: Vec<ReplicaName> = self
            .replicas()
            .filter(|replica| lives(&replica.state))
            .map(|replica| replica.name.clone())
            .collect();
        self.handshake.adopt(alive);
    }

    /// What each service's template stands for: content that has failed stands for what was stable before it.
    fn revisions_in_force(&self, desired: &Desired) -> BTreeMap<ServiceName, Result<Revision, String>> {
        let of = |(name, resolved): (&ServiceName, &Result<Revision, String>)| {
            let rollout = desired.services.get(name).map(|service| &service.rollout);
            let stable = self.stable.get(name).map(|(_, release)| release);
            let in_force = |revision: Revision| match rollout {
                Some(rollout) => rollout.in_force(revision, stable),
                None => revision,
            };
            (name.clone(), resolved.clone().map(in_force))
        };
        self.revisions.iter().map(of).collect()
    }

    /// The planner's input, and the failures that are news. `desired` bounds what is remembered.
    fn observe(&mut self, desired: &Desired, now: Timestamp) -> (Observed, Vec<(ReplicaName, String)>) {
        self.pending.retain(|_, action| action.retry_at.is_none_or(|at| at > now));
        self.revisions.retain(|service, _| desired.services.contains_key(service));
        self.stable.retain(|name, (life, _)| {
            desired.services.get(name).is_some_and(|service| service.rollout.noted_from == *life)
        });
        let mut replicas: Vec<Replica> = Vec::new();
        for replica in self.listed.iter().flat_map(BTreeMap::values) {
            let (drift, pending) = self.drift(&replica.id, &replica.name);
            let stopping_since = self.stopping.get(&replica.id).copied();
            replicas.push(Replica {
                id: Some(replica.id.clone()),
                name: replica.name.clone(),
                engine_name: replica.engine_name.clone(),
                revision: replica.revision.clone(),
                state: replica.state.clone(),
                address: replica.address,
                created_at: replica.created_at,
                host: replica.host.clone(),
                health: Health { stopping_since, ..self.health(&replica.name) },
                pending,
                drift,
            });
        }
        for (name, action) in &self.pending {
            let (Some(revision), false) = (&action.creating, replicas.iter().any(|r| r.name == *name)) else {
                continue;
            };
            replicas.push(Replica {
                id: None,
                name: name.clone(),
                engine_name: name.to_string(),
                revision: revision.clone(),
                state: ReplicaState::Created,
                address: None,
                created_at: action.since,
                host: action.host.clone(),
                health: Health::default(),
                pending: Some(Pending::Create),
                drift: Drift::default(),
            });
        }
        self.debuts.follow(desired);
        let mut news = self.history.observe(&replicas, now);
        news.retain(|(name, _)| desired.services.contains_key(&name.service));
        self.history.retain_services(|service| desired.services.contains_key(service));
        self.creates_max.retain(|service, _| desired.services.contains_key(service));
        let observed = Observed {
            now,
            list_error: self.list_error.clone(),
            replicas,
            revisions: self.revisions_in_force(desired),
            stable: self.stable.iter().map(|(name, (_, release))| (name.clone(), release.clone())).collect(),
            history: self.history.clone(),
            handshake: self.handshake.clone(),
            debuts: self.debuts.clone(),
        };
        (observed, news)
    }
}

/// Takes out what wears the name of another: of those that wear one name, the one that was known before counts, else
/// the one that has the name on the engine, else the first.
fn take_copies(
    next: &mut BTreeMap<RuntimeId, RuntimeReplica>,
    before: &BTreeMap<RuntimeId, RuntimeReplica>,
) -> BTreeMap<RuntimeId, RuntimeReplica> {
    let mut originals: BTreeMap<&ReplicaName, (bool, bool, &RuntimeId)> = BTreeMap::new();
    for (id, replica) in next.iter() {
        let is_other = replica.engine_name != replica.name.to_string();
        let rank = (!before.contains_key(id), is_other, id);
        originals.entry(&replica.name).and_modify(|best| *best = rank.min(*best)).or_insert(rank);
    }
    if originals.len() == next.len() {
        return BTreeMap::new();
    }
    let ids: BTreeSet<RuntimeId> = originals.into_values().map(|(_, _, id)| id.clone()).collect();
    let (kept, copies) = std::mem::take(next).into_iter().partition(|(id, _)| ids.contains(id));
    *next = kept;
    copies
}
