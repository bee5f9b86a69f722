//! What somebody did to a replica by hand, as far as a list does not show it, and repairs that cannot be done.

use std::time::Duration;

use super::World;
use crate::Timestamp;
use crate::ids::ReplicaName;
use crate::observed::{Drift, Pending, ReplicaState, RuntimeId};

/// The longest wait between two tries of a repair that fails: who has to do something about it was told.
const REPAIR_WAIT_MAX: Duration = Duration::from_secs(600);

impl World {
    /// The engine hints that somebody has changed the limits of a replica.
    pub fn changed_limits(&mut self, id: &RuntimeId, how: String) {
        let is_ours = self.listed.as_ref().is_some_and(|listed| listed.contains_key(id));
        if is_ours {
            self.limits.insert(id.clone(), how);
        }
    }

    /// How the limits of a replica were changed, if they were.
    pub fn limits_of(&self, id: &RuntimeId) -> Option<&str> {
        self.limits.get(id).map(String::as_str)
    }

    /// Whether the last repair of a replica has failed.
    pub fn is_unrepaired(&self, name: &ReplicaName) -> bool {
        self.unrepaired.contains_key(name)
    }

    /// A repair has failed: it is tried again after a wait that grows to ten minutes, because what is in the way is for
    /// somebody else to take away. Returns whether the reason is news.
    pub fn repair_failed(&mut self, name: &ReplicaName, why: String, now: Timestamp) -> bool {
        let failures = self.failures.entry(name.clone()).or_default();
        *failures = failures.saturating_add(1);
        let wait = Duration::from_secs(1 << failures.saturating_sub(1).min(10)).min(REPAIR_WAIT_MAX);
        self.failed(name, now.after(wait));
        self.listing.want();
        let before = self.unrepaired.insert(name.clone(), why.clone());
        before.as_ref() != Some(&why)
    }

    /// A repair has worked.
    pub(super) fn mended(&mut self, name: &ReplicaName) {
        self.failures.remove(name);
        self.unrepaired.remove(name);
        let ids = self.listed.iter().flatten().filter(|(_, replica)| replica.name == *name);
        for id in ids.map(|(id, _)| id) {
            self.limits.remove(id);
        }
    }

    /// What is known of a replica, and the action on it that counts: a repair that only waits holds up nothing else.
    pub(super) fn drift(&self, id: &RuntimeId, name: &ReplicaName) -> (Drift, Option<Pending>) {
        let action = self.pending.get(name);
        let waits = action.is_some_and(|action| action.kind == Pending::Repair && action.retry_at.is_some());
        let why = || self.unrepaired.get(name).cloned().unwrap_or_default();
        let drift = Drift { limits: self.limits.contains_key(id), unrepaired: waits.then(why) };
        (drift, action.filter(|_| !waits).map(|action| action.kind))
    }

    /// Forgets what is no longer so, by a list that has just been taken up.
    pub(super) fn forget_drift(&mut self) {
        let listed = self.listed.iter().flatten();
        let alive: std::collections::BTreeMap<_, _> = listed
            .filter(|(_, replica)| matches!(replica.state, ReplicaState::Running | ReplicaState::Paused))
            .collect();
        self.limits.retain(|id, _| alive.contains_key(id));
        let limits = &self.limits;
        self.unrepaired.retain(|name, _| {
            alive.iter().any(|(id, replica)| {
                replica.name == *name && (!super::ends::is_whole(replica) || limits.contains_key(*id))
            })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Desired;
    use crate::observed::{Replica, RuntimeReplica};
    use crate::world::tests::replica;

    fn listed(world: &mut World, engine_name: &str) {
        let list = world.begin_list();
        let replica = RuntimeReplica { engine_name: engine_name.to_owned(), ..replica("web-0-0") };
        world.listed(list, vec![replica], Duration::ZERO, Timestamp(0));
    }

    fn seen(world: &mut World, now: u64) -> Replica {
        let (observed, _) = world.observe(&Desired::default(), Timestamp(now));
        observed.replicas.into_iter().next().unwrap()
    }

    #[test]
    fn a_repair_that_fails_is_told_once_waits_longer_each_time_and_holds_up_no_removal() {
        let (mut world, name) = (World::default(), replica("web-0-0").name);
        listed(&mut world, "other");
        let (mut now, mut waits) = (0, Vec::new());
        for round in 0..12 {
            world.begin_action(&name, Pending::Repair, Timestamp(now));
            assert_eq!(seen(&mut world, now).pending, Some(Pending::Repair));
            let is_news = world.repair_failed(&name, "the name is taken".to_owned(), Timestamp(now));
            assert_eq!(is_news, round == 0);
            listed(&mut world, "other");
            let waiting = seen(&mut world, now);
            assert_eq!(
                (waiting.pending, waiting.drift.unrepaired.as_deref()),
                (None, Some("the name is taken"))
            );
            let retry_at = world.retry_at().unwrap().0;
            waits.push((retry_at - now) / 1_000);
            now = retry_at;
            assert_eq!(seen(&mut world, now).drift, Drift::default(), "its time has come");
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
        assert!(world.repair_failed(&name, "another reason".to_owned(), Timestamp(now)));
        listed(&mut world, "web-0-0");
        assert!(!world.is_unrepaired(&name), "somebody else has mended it");
    }

    #[test]
    fn changed_limits_are_known_until_they_are_set_back_or_it_has_ended() {
        let (mut world, RuntimeReplica { id, name, .. }) = (World::default(), replica("web-0-0"));
        world.changed_limits(&id, "nobody knows it".to_owned());
        assert_eq!(world.limits_of(&id), None);
        listed(&mut world, "web-0-0");
        world.changed_limits(&id, "memory 2Mi instead of 1Mi".to_owned());
        listed(&mut world, "web-0-0");
        assert!(seen(&mut world, 0).drift.limits);
        world.begin_action(&name, Pending::Repair, Timestamp(0));
        world.repaired(&name, Timestamp(0));
        assert_eq!(world.limits_of(&id), None);
    }
}
