//! The first list of a run: an engine that has only just started may still be restoring its containers, and lists few.
//!
//! Without a list before it there is nothing to compare it with but what earlier runs knew: how many replicas of each
//! service were ready. While fewer are listed, in whatever state, nothing is created beside those that may still come; who
//! is listed serves. It is waited for them, not for ever: what is gone is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::Timestamp;
use crate::ids::ServiceName;
use crate::observed::RuntimeReplica;

/// So long after nothing more has been listed, what is missing counts as gone.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// And at the latest so long after the first list.
const PATIENCE_MAX: Duration = Duration::from_secs(30);

/// What is expected of the first lists.
#[derive(Debug, Clone, Default)]
pub(super) struct Doubt {
    /// How many replicas of each service were ready before; empty once the lists are believed.
    expected: BTreeMap<ServiceName, u32>,
    /// When the first list was, when one last showed more than any before, and how many that were.
    seen: Option<(Timestamp, Timestamp, usize)>,
}

impl Doubt {
    pub(super) fn expect(&mut self, expected: BTreeMap<ServiceName, u32>) {
        self.expected = expected;
    }

    /// Whether something that was listed may not be all that there is.
    pub(super) fn is_open(&self) -> bool {
        !self.expected.is_empty()
    }

    /// Why a list is not believed to be whole, if so. Once one is believed, all are.
    pub(super) fn of(&mut self, list: &[RuntimeReplica], now: Timestamp) -> Option<String> {
        let mut places: BTreeMap<&ServiceName, BTreeSet<_>> = BTreeMap::new();
        for name in list.iter().map(|replica| &replica.name) {
            places.entry(&name.service).or_default().insert(name.ordinal);
        }
        let listed = |service: &ServiceName| places.get(service).map_or(0, BTreeSet::len);
        let lacks = self.expected.iter().find(|(service, expected)| listed(service) < **expected as usize);
        let count = list.len();
        let (first, mut grown, most) = self.seen.unwrap_or((now, now, count));
        if count > most {
            grown = now;
        }
        self.seen = Some((first, grown, most.max(count)));
        let is_patient = now.since(grown) < PATIENCE && now.since(first) < PATIENCE_MAX;
        let Some((service, expected)) = lacks.filter(|_| is_patient) else {
            self.expected.clear();
            return None;
        };
        Some(format!(
            "the engine lists {} of {expected} replicas of `{service}` that were ready when this daemon last ran: it may \
             still be restoring them, and nothing is made in their place for {} s",
            listed(service),
            PATIENCE.as_secs()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;
    use crate::world::tests::replica;

    fn web() -> ServiceName {
        ServiceName::new("web").unwrap()
    }

    fn list(count: u32) -> Vec<RuntimeReplica> {
        (0..count).map(|ordinal| replica(&format!("web-{ordinal}-0"))).collect()
    }

    /// Lists so many at these seconds; returns whether each list was believed.
    fn believed(expected: u32, lists: &[(u64, u32)]) -> Vec<bool> {
        let mut world = World::default();
        world.expect(BTreeMap::from([(web(), expected)]));
        let take = |(at, count): &(u64, u32)| {
            let number = world.begin_list();
            world.listed(number, list(*count), Duration::ZERO, Timestamp(at * 1_000));
            world.list_error().is_none()
        };
        lists.iter().map(take).collect()
    }

    #[test]
    fn a_first_list_with_all_who_were_ready_is_believed_at_once() {
        assert_eq!(believed(3, &[(0, 3)]), [true]);
        assert_eq!(believed(3, &[(0, 4), (1, 0)]), [true, true], "later ones are the runtime's to doubt");
        assert_eq!(believed(0, &[(0, 0)]), [true]);
    }

    #[test]
    fn who_is_missing_is_waited_for_but_not_for_ever() {
        assert_eq!(believed(3, &[(0, 1), (1, 3)]), [false, true]);
        assert_eq!(believed(3, &[(0, 2), (4, 2), (5, 2), (6, 0)]), [false, false, true, true]);
        // As long as more come, it goes on.
        assert_eq!(
            believed(9, &[(0, 1), (4, 2), (8, 3), (12, 3), (13, 3)]),
            [false, false, false, false, true]
        );
        let slow: Vec<(u64, u32)> = (0..=30).step_by(3).map(|at| (at, at as u32)).collect();
        let mut all = vec![false; slow.len()];
        *all.last_mut().unwrap() = true;
        assert_eq!(believed(99, &slow), all, "half a minute at most");
    }
}
