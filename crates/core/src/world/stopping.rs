//! Who is being stopped by somebody: known from the signal on, before the end shows in a list.

use super::World;
use crate::Timestamp;
use crate::ids::ReplicaName;
use crate::observed::{Pending, ReplicaState, RuntimeId, RuntimeReplica};

impl World {
    /// The engine hints that somebody is stopping a replica. Returns which one, if it is news: what we stop ourselves
    /// is none, nor what has ended.
    pub fn stopping(&mut self, id: &RuntimeId, now: Timestamp) -> Option<ReplicaName> {
        let replica = self.listed.as_ref()?.get(id).filter(|replica| may_be(replica))?;
        let name = replica.name.clone();
        let is_ours = self.pending.get(&name).is_some_and(|action| action.kind == Pending::Remove);
        if is_ours || self.stopping.contains_key(id) {
            return None;
        }
        self.stopping.insert(id.clone(), now);
        self.listing.want();
        Some(name)
    }
}

/// Whether a signal that ends it still matters.
pub(super) fn may_be(replica: &RuntimeReplica) -> bool {
    matches!(replica.state, ReplicaState::Running | ReplicaState::Paused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Desired;
    use crate::observed::{ExitInfo, Health};
    use crate::world::tests::replica;

    fn stopping_since(world: &mut World) -> Option<Timestamp> {
        let (observed, _) = world.observe(&Desired::default(), Timestamp(9));
        observed.replicas.first().and_then(|replica| replica.health.stopping_since)
    }

    #[test]
    fn the_hint_is_news_once_and_outlives_lists_and_probes_until_the_end() {
        let (mut world, running) = (World::default(), replica("web-0-0"));
        let id = running.id.clone();
        assert_eq!(world.stopping(&id, Timestamp(5)), None, "nobody of that name is known");
        world.created(running.clone());
        assert_eq!(world.stopping(&id, Timestamp(5)), Some(running.name.clone()));
        assert_eq!(world.stopping(&id, Timestamp(6)), None, "a second signal is no news");
        world.set_health(running.name.clone(), Health { was_ready: true, ..Health::default() });
        let list = world.begin_list();
        world.end_list(list, vec![running.clone()]);
        assert_eq!(stopping_since(&mut world), Some(Timestamp(5)));
        let list = world.begin_list();
        let exited = RuntimeReplica { state: ReplicaState::Exited(ExitInfo::default()), ..running };
        world.end_list(list, vec![exited]);
        assert_eq!(stopping_since(&mut world), None, "started again it is another story");
        assert_eq!(world.stopping(&id, Timestamp(7)), None, "what has ended is not being stopped");
    }

    #[test]
    fn what_we_stop_ourselves_is_no_news() {
        let (mut world, running) = (World::default(), replica("web-0-0"));
        world.created(running.clone());
        world.begin_action(&running.name, Pending::Remove, Timestamp(1));
        assert_eq!(world.stopping(&running.id, Timestamp(2)), None);
    }
}
