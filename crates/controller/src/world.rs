//! What the loop knows of the world between passes: the last list, what has happened since it began, what is
//! under way, and what the probes say. [`World::observe`] makes the planner's input out of it.
//!
//! The point of this file is that lists are stale: an action that ended while a list was under way may or may
//! not be in it. Each list and each ended action carries a sequence number, and a list never overrules
//! an action that ended after the list began.

use std::collections::{BTreeMap, BTreeSet};

use ringmaster_core::debut::Debuts;
use ringmaster_core::desired::Desired;
use ringmaster_core::handshake::Handshake;
use ringmaster_core::history::History;
use ringmaster_core::observed::{
    Health, Observed, Pending, Replica, ReplicaState, RuntimeId, RuntimeReplica,
};
use ringmaster_core::{ReplicaName, Revision, ServiceName, Timestamp};
use ringmaster_runtime::CreateRequest;

/// What is known between passes.
#[derive(Debug, Default)]
pub(crate) struct World {
    sequence: u64,
    /// `None` until the first list has succeeded: until then nothing is planned.
    listed: Option<BTreeMap<RuntimeId, RuntimeReplica>>,
    list_error: Option<String>,
    /// Created since a list began that may not show it.
    fresh: BTreeMap<RuntimeId, u64>,
    /// Removed since a list began that may still show it.
    gone: BTreeMap<RuntimeId, u64>,
    pending: BTreeMap<ReplicaName, PendingAction>,
    health: BTreeMap<ReplicaName, Health>,
    /// What each service's template resolves to.
    pub(crate) revisions: BTreeMap<ServiceName, Result<Revision, String>>,
    /// Past failures.
    pub(crate) history: History,
    /// What was published and acknowledged.
    pub(crate) handshake: Handshake,
    pub(crate) debuts: Debuts,
}

#[derive(Debug)]
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
    /// A list begins: returns its number.
    pub(crate) fn begin_list(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// A list that began as number `begun` has ended. Returns running replicas that have vanished.
    pub(crate) fn end_list(&mut self, begun: u64, list: Vec<RuntimeReplica>) -> Vec<RuntimeReplica> {
        self.list_error = None;
        let mut next: BTreeMap<RuntimeId, RuntimeReplica> =
            list.into_iter().map(|r| (r.id.clone(), r)).collect();
        next.retain(|id, _| self.gone.get(id).is_none_or(|ended| *ended < begun));
        self.pending.retain(|_, action| action.confirm_from.is_none_or(|from| from >= begun));
        let before = self.listed.take().unwrap_or_default();
        let mut vanished = Vec::new();
        for (id, replica) in before {
            if self.fresh.get(&id).is_some_and(|ended| *ended >= begun) {
                // The list may have seen it half made: what its creation returned is newer.
                next.insert(id, replica);
            } else if next.contains_key(&id) {
                continue;
            } else if self.pending.get(&replica.name).is_none_or(|p| p.kind != Pending::Remove)
                && matches!(replica.state, ReplicaState::Running | ReplicaState::Paused)
            {
                vanished.push(replica);
            }
        }
        self.fresh.retain(|_, ended| *ended >= begun);
        self.gone.retain(|_, ended| *ended >= begun);
        let names: BTreeSet<&ReplicaName> = next.values().map(|r| &r.name).collect();
        self.health.retain(|name, _| names.contains(name));
        self.handshake.retain(|name| names.contains(name));
        self.listed = Some(next);
        vanished
    }

    /// A list has failed: what was known stays known.
    pub(crate) fn fail_list(&mut self, error: String) {
        self.list_error = Some(error);
    }

    /// Why the last list failed.
    pub(crate) fn list_error(&self) -> Option<&str> {
        self.list_error.as_deref()
    }

    /// Whether enough is known to plan.
    pub(crate) fn is_known(&self) -> bool {
        self.listed.is_some()
    }

    /// An action begins.
    pub(crate) fn begin_action(&mut self, name: &ReplicaName, kind: Pending, now: Timestamp) {
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

    /// A creation begins: the replica counts from now on.
    pub(crate) fn begin_create(&mut self, request: &CreateRequest, now: Timestamp) {
        self.begin_action(&request.name, Pending::Create, now);
        if let Some(action) = self.pending.get_mut(&request.name) {
            action.creating = Some(request.revision.clone());
            action.host.clone_from(&request.host);
        }
    }

    /// A replica has been created and runs.
    pub(crate) fn created(&mut self, replica: RuntimeReplica) {
        self.sequence += 1;
        self.pending.remove(&replica.name);
        self.fresh.insert(replica.id.clone(), self.sequence);
        self.listed.get_or_insert_default().insert(replica.id.clone(), replica);
    }

    /// A replica has been removed.
    pub(crate) fn removed(&mut self, name: &ReplicaName, id: &RuntimeId) {
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
    pub(crate) fn ended(&mut self, name: &ReplicaName) {
        self.sequence += 1;
        if let Some(action) = self.pending.get_mut(name) {
            action.confirm_from = Some(self.sequence);
        }
    }

    /// An action has failed; it may be tried again at `retry_at`.
    pub(crate) fn failed(&mut self, name: &ReplicaName, retry_at: Timestamp) {
        if let Some(action) = self.pending.get_mut(name) {
            action.retry_at = Some(retry_at);
        }
    }

    /// When the first failed action may be tried again.
    pub(crate) fn retry_at(&self) -> Option<Timestamp> {
        self.pending.values().filter_map(|action| action.retry_at).min()
    }

    /// What the probes say of a replica.
    pub(crate) fn health(&self, name: &ReplicaName) -> Health {
        self.health.get(name).cloned().unwrap_or_default()
    }

    /// The probes say something new.
    pub(crate) fn set_health(&mut self, name: ReplicaName, health: Health) {
        self.health.insert(name, health);
    }

    /// The replicas that run and answer somewhere: those to probe.
    pub(crate) fn running(&self) -> impl Iterator<Item = &RuntimeReplica> {
        let all = self.listed.iter().flat_map(BTreeMap::values);
        all.filter(|replica| replica.state == ReplicaState::Running && replica.address.is_some())
    }

    /// All listed replicas.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = &RuntimeReplica> {
        self.listed.iter().flat_map(BTreeMap::values)
    }

    /// How many replicas are being created.
    pub(crate) fn creating(&self) -> usize {
        self.pending.values().filter(|action| action.kind == Pending::Create).count()
    }

    /// Everything that lives may be getting requests from a data plane that has served through the controller's absence.
    pub(crate) fn adopt(&mut self) {
        let lives = |state: &ReplicaState| matches!(state, ReplicaState::Running | ReplicaState::Paused);
        let alive: Vec<ReplicaName> = self
            .replicas()
            .filter(|replica| lives(&replica.state))
            .map(|replica| replica.name.clone())
            .collect();
        self.handshake.adopt(alive);
    }

    /// The planner's input, and the failures that are news. `desired` bounds what is remembered.
    pub(crate) fn observe(
        &mut self,
        desired: &Desired,
        now: Timestamp,
    ) -> (Observed, Vec<(ReplicaName, String)>) {
        self.pending.retain(|_, action| action.retry_at.is_none_or(|at| at > now));
        self.revisions.retain(|service, _| desired.services.contains_key(service));
        let mut replicas: Vec<Replica> = Vec::new();
        for replica in self.listed.iter().flat_map(BTreeMap::values) {
            let pending = self.pending.get(&replica.name).map(|action| action.kind);
            replicas.push(Replica {
                id: Some(replica.id.clone()),
                name: replica.name.clone(),
                engine_name: replica.engine_name.clone(),
                revision: replica.revision.clone(),
                state: replica.state.clone(),
                address: replica.address,
                created_at: replica.created_at,
                host: replica.host.clone(),
                health: self.health(&replica.name),
                pending,
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
            });
        }
        self.debuts.follow(desired);
        let mut news = self.history.observe(&replicas, now);
        news.retain(|(name, _)| desired.services.contains_key(&name.service));
        self.history.retain_services(|service| desired.services.contains_key(service));
        let observed = Observed {
            now,
            list_error: self.list_error.clone(),
            replicas,
            revisions: self.revisions.clone(),
            history: self.history.clone(),
            handshake: self.handshake.clone(),
            debuts: self.debuts.clone(),
        };
        (observed, news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(name: &str) -> RuntimeReplica {
        RuntimeReplica {
            id: RuntimeId(format!("id-{name}")),
            name: name.parse().unwrap(),
            engine_name: name.to_owned(),
            revision: Revision("r".to_owned()),
            state: ReplicaState::Running,
            address: Some(([127, 0, 0, 1], 1).into()),
            created_at: Timestamp(0),
            host: None,
        }
    }

    fn half_made(name: &str) -> RuntimeReplica {
        RuntimeReplica { state: ReplicaState::Created, address: None, ..replica(name) }
    }

    fn states(world: &World) -> Vec<(String, ReplicaState)> {
        world.replicas().map(|r| (r.name.to_string(), r.state.clone())).collect()
    }

    #[test]
    fn a_list_that_began_before_a_creation_ended_does_not_undo_it() {
        for seen in [vec![], vec![half_made("web-0-0")]] {
            let mut world = World::default();
            let list = world.begin_list();
            world.created(replica("web-0-0"));
            assert_eq!(world.end_list(list, seen).len(), 0, "nothing has vanished");
            assert_eq!(states(&world), [("web-0-0".to_owned(), ReplicaState::Running)]);
        }
    }

    #[test]
    fn a_list_that_began_before_a_removal_ended_does_not_bring_it_back() {
        let mut world = World::default();
        let first = world.begin_list();
        world.end_list(first, vec![replica("web-0-0")]);
        let list = world.begin_list();
        let gone = replica("web-0-0");
        world.removed(&gone.name, &gone.id);
        world.end_list(list, vec![gone]);
        assert_eq!(states(&world), []);
    }

    #[test]
    fn what_a_later_list_does_not_show_has_vanished() {
        let mut world = World::default();
        world.created(replica("web-0-0"));
        let list = world.begin_list();
        assert_eq!(world.end_list(list, vec![]), [replica("web-0-0")]);
        assert_eq!(states(&world), []);
    }

    #[test]
    fn what_we_remove_ourselves_has_not_vanished() {
        let mut world = World::default();
        world.created(replica("web-0-0"));
        world.begin_action(&replica("web-0-0").name, Pending::Remove, Timestamp(0));
        let list = world.begin_list();
        assert_eq!(world.end_list(list, vec![]), []);
    }

    #[test]
    fn an_action_of_unknown_effect_counts_until_a_list_that_began_later() {
        let mut world = World::default();
        let name = replica("web-0-0").name;
        let early = world.begin_list();
        world.begin_action(&name, Pending::Create, Timestamp(0));
        world.ended(&name);
        world.end_list(early, vec![]);
        assert_eq!(world.creating(), 1, "that list may have missed it");
        let later = world.begin_list();
        world.end_list(later, vec![]);
        assert_eq!(world.creating(), 0);
    }
}
