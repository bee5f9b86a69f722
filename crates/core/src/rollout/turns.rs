//! Which places of a service may change now, and how.
//!
//! In order: the places whose old replica has been taken out already, those where nothing serves, the others by ordinal.
//! The first replica of a release that has not been seen ready is replaced alone, whatever the strategy allows: a
//! release that does not become ready stops at the first.

use std::collections::BTreeMap;

use super::Rollout;
use crate::ids::{Ordinal, Revision};
use crate::spec::{Strategy, StrategyKind};

/// One place of a service, as far as a rollout is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceView {
    /// Which place.
    pub ordinal: Ordinal,
    /// How many replicas live there, those on their way out included.
    pub live: u32,
    /// How many of them are of another release than the wanted one.
    pub old: u32,
    /// What fills it.
    pub fill: Fill,
    /// What served it has been taken out of the published snapshot.
    pub withdrawn: bool,
}

/// What fills a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// A replica of the wanted release that is not ready, or not for long enough.
    Starting,
    /// A replica of the wanted release that has been ready for long enough.
    Available,
    /// A ready replica of another release.
    Old,
    /// A replica of another release of which nothing is known yet: a daemon that has just started judges before it acts.
    Unjudged,
    /// Nothing that is ready, or could become so for all that is known.
    Broken,
}

/// What may happen to a place now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is filled with the wanted release, beside what is there.
    Update,
    /// What is there is drained and stopped; then it is filled with the wanted release.
    StopFirst,
    /// It stays as it is; if nothing fills it, the stable release does.
    Keep,
    /// It stays empty until every old replica of the service has been stopped.
    Wait,
}

/// A service in the middle of a rollout, or at rest.
#[derive(Debug, Clone, Copy)]
pub struct Rolling<'a> {
    /// How replicas are replaced.
    pub strategy: &'a Strategy,
    /// What was decided.
    pub rollout: &'a Rollout,
    /// The revision of the wanted release, where it is known.
    pub wanted: Option<&'a Revision>,
    /// Whether there is a stable release, and whether it is another than the wanted one.
    pub stable_differs: Option<bool>,
}

/// How many places are how far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// All places.
    pub places: u32,
    /// Those that the wanted release has been given to.
    pub updated: u32,
    /// Those of them where it has been ready for long enough.
    pub available: u32,
    /// How many it may be given to; less than all while a canary waits.
    pub limit: u32,
}

impl Rolling<'_> {
    /// Whether another release is stable than the wanted one.
    fn differs(&self) -> bool {
        self.stable_differs == Some(true)
    }

    /// How far these places are.
    pub fn progress(&self, places: &[PlaceView]) -> Progress {
        let count = |fits: fn(&Fill) -> bool| places.iter().filter(|place| fits(&place.fill)).count() as u32;
        let total = places.len() as u32;
        let waits = self.differs() && self.rollout.promoted.as_ref() != self.wanted;
        Progress {
            places: total,
            updated: count(|fill| matches!(fill, Fill::Starting | Fill::Available)),
            available: count(|fill| *fill == Fill::Available),
            limit: if waits { self.strategy.canaries(total) } else { total },
        }
    }
}

/// What may happen to each place now. Deterministic, and stable from pass to pass: what has begun comes first.
pub fn turns(rolling: &Rolling<'_>, places: &[PlaceView]) -> BTreeMap<Ordinal, Turn> {
    if rolling.wanted.is_none() {
        return places.iter().map(|place| (place.ordinal, Turn::Keep)).collect();
    }
    match rolling.strategy.kind {
        StrategyKind::Recreate => recreate(rolling, places),
        StrategyKind::RollingUpdate => rolling_update(rolling, places),
    }
}

/// Stop all that is old, then start.
fn recreate(rolling: &Rolling<'_>, places: &[PlaceView]) -> BTreeMap<Ordinal, Turn> {
    let old_lives = places.iter().any(|place| place.old > 0);
    let held = rolling.rollout.paused && rolling.differs();
    let turn = |place: &PlaceView| match place.fill {
        Fill::Starting | Fill::Available => Turn::Update,
        Fill::Unjudged => Turn::Keep,
        _ if held => Turn::Keep,
        _ if place.live > 0 => Turn::StopFirst,
        _ if old_lives => Turn::Wait,
        _ => Turn::Update,
    };
    places.iter().map(|place| (place.ordinal, turn(place))).collect()
}

/// What may still be begun in this pass.
struct Budget {
    /// Replicas beyond the desired ones.
    surge: u32,
    /// Whether the strategy allows any of them.
    surges: bool,
    /// Places that may be left without a ready replica.
    missing: u32,
    /// Places that may be given the wanted release.
    updates: u32,
}

fn rolling_update(rolling: &Rolling<'_>, places: &[PlaceView]) -> BTreeMap<Ordinal, Turn> {
    let (surge, missing) = rolling.strategy.limits(places.len() as u32);
    let progress = rolling.progress(places);
    let extra: u32 = places.iter().map(|place| place.live.saturating_sub(1)).sum();
    let absent = places.iter().filter(|place| !matches!(place.fill, Fill::Available | Fill::Old)).count();
    let updates = match progress {
        _ if rolling.rollout.paused => 0,
        // Not one of its replicas has been seen ready: the first is tried alone.
        Progress { available: 0, updated, limit, .. } if rolling.stable_differs != Some(false) => {
            1_u32.min(limit).saturating_sub(updated)
        }
        Progress { updated, limit, .. } => limit.saturating_sub(updated),
    };
    let mut budget = Budget {
        surge: surge.saturating_sub(extra),
        surges: surge > 0,
        missing: missing.saturating_sub(absent as u32),
        updates,
    };
    let mut order: Vec<&PlaceView> = places.iter().collect();
    order.sort_by_key(|place| {
        let begun = place.fill == Fill::Old && place.withdrawn;
        (!begun, place.fill != Fill::Broken, place.ordinal)
    });
    order.into_iter().map(|place| (place.ordinal, turn(rolling, place, &mut budget))).collect()
}

fn turn(rolling: &Rolling<'_>, place: &PlaceView, budget: &mut Budget) -> Turn {
    match place.fill {
        Fill::Starting | Fill::Available => return Turn::Update,
        Fill::Unjudged => return Turn::Keep,
        // There is nothing else that it could be filled with: no rule holds up healing.
        Fill::Broken if !rolling.differs() => return Turn::Update,
        _ if budget.updates == 0 => return Turn::Keep,
        Fill::Broken | Fill::Old => {}
    }
    let turn = match place.fill {
        Fill::Broken if place.live == 0 => Turn::Update,
        _ if budget.surge > 0 => {
            budget.surge -= 1;
            Turn::Update
        }
        // It serves nothing: to stop it costs nothing. But it may recover, so where a slot becomes free that is waited for.
        Fill::Broken if !budget.surges => Turn::StopFirst,
        Fill::Broken => return Turn::Keep,
        _ if budget.missing > 0 => {
            budget.missing -= 1;
            Turn::StopFirst
        }
        _ => return Turn::Keep,
    };
    budget.updates -= 1;
    turn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantity::{Amount, Percent};

    fn view(ordinal: u16, fill: Fill) -> PlaceView {
        let old = u32::from(matches!(fill, Fill::Old | Fill::Unjudged));
        let live = u32::from(fill != Fill::Broken) + u32::from(fill == Fill::Starting);
        PlaceView { ordinal: Ordinal(ordinal), live, old, fill, withdrawn: false }
    }

    fn views(fills: &[Fill]) -> Vec<PlaceView> {
        (0..).zip(fills).map(|(ordinal, fill)| view(ordinal, *fill)).collect()
    }

    /// The ordinals that get each turn, as `Update`, `StopFirst`.
    fn given(strategy: &Strategy, rollout: &Rollout, places: &[PlaceView]) -> (Vec<u16>, Vec<u16>) {
        let wanted = Revision("new".to_owned());
        let rolling = Rolling { strategy, rollout, wanted: Some(&wanted), stable_differs: Some(true) };
        let made = turns(&rolling, places);
        let of = |wanted: Turn| {
            let changes = |place: &&PlaceView| {
                matches!(place.fill, Fill::Old | Fill::Broken) && made[&place.ordinal] == wanted
            };
            places.iter().filter(changes).map(|place| place.ordinal.0).collect()
        };
        (of(Turn::Update), of(Turn::StopFirst))
    }

    fn strategy(surge: u32, missing: u32) -> Strategy {
        let (max_surge, max_unavailable) = (Amount::Count(surge), Amount::Count(missing));
        Strategy { max_surge, max_unavailable, ..Strategy::default() }
    }

    const OLD: Fill = Fill::Old;
    const NEW: Fill = Fill::Available;

    #[test]
    fn the_first_goes_alone_and_then_as_many_as_the_strategy_allows() {
        let go = Rollout::default();
        let six = strategy(3, 0);
        assert_eq!(given(&six, &go, &views(&[OLD; 6])), (vec![0], vec![]));
        assert_eq!(given(&six, &go, &views(&[Fill::Starting, OLD, OLD])), (vec![], vec![]));
        assert_eq!(given(&six, &go, &views(&[NEW, OLD, OLD, OLD, OLD])), (vec![1, 2, 3], vec![]));
        let mut draining = views(&[NEW, OLD, OLD, OLD, OLD]);
        draining[0].live = 2;
        assert_eq!(given(&six, &go, &draining), (vec![1, 2], vec![]), "what drains counts");
    }

    #[test]
    fn what_may_be_missing_is_stopped_before_its_successor_starts() {
        let go = Rollout::default();
        assert_eq!(given(&strategy(0, 2), &go, &views(&[NEW, OLD, OLD, OLD])), (vec![], vec![1, 2]));
        assert_eq!(given(&strategy(1, 1), &go, &views(&[NEW, OLD, OLD, OLD])), (vec![1], vec![2]));
        let absent = views(&[NEW, OLD, OLD, Fill::Unjudged]);
        assert_eq!(given(&strategy(0, 1), &go, &absent), (vec![], vec![]), "one is missing already");
        let mut begun = views(&[NEW, OLD, OLD, OLD]);
        begun[2].withdrawn = true;
        assert_eq!(given(&strategy(0, 1), &go, &begun), (vec![], vec![2]), "what has begun comes first");
    }

    #[test]
    fn where_nothing_serves_the_new_release_comes_first() {
        let places = views(&[OLD, OLD, Fill::Broken]);
        assert_eq!(given(&strategy(1, 0), &Rollout::default(), &places), (vec![2], vec![]));
        let held = Rollout { paused: true, ..Rollout::default() };
        assert_eq!(given(&strategy(1, 0), &held, &places), (vec![], vec![]));
    }

    #[test]
    fn healing_waits_for_nothing_where_there_is_one_release_only() {
        let (strategy, rollout) = (strategy(1, 0), Rollout { paused: true, ..Rollout::default() });
        for stable_differs in [None, Some(false)] {
            let wanted = Revision("new".to_owned());
            let wanted = Some(&wanted);
            let rolling = Rolling { strategy: &strategy, rollout: &rollout, wanted, stable_differs };
            let made = turns(&rolling, &views(&[Fill::Broken; 3]));
            assert!(made.values().all(|turn| *turn == Turn::Update), "{made:?}");
        }
    }

    #[test]
    fn a_canary_is_given_its_share_until_it_is_promoted() {
        let canary = Strategy { canary: Some(Percent(40)), ..strategy(5, 0) };
        let waiting = views(&[NEW, NEW, OLD, OLD, OLD]);
        assert_eq!(given(&canary, &Rollout::default(), &views(&[NEW, OLD, OLD, OLD, OLD])).0, [1]);
        assert_eq!(given(&canary, &Rollout::default(), &waiting), (vec![], vec![]));
        let promoted =
            |text: &str| Rollout { promoted: Some(Revision(text.to_owned())), ..Rollout::default() };
        assert_eq!(given(&canary, &promoted("another"), &waiting), (vec![], vec![]));
        assert_eq!(given(&canary, &promoted("new"), &waiting).0, [2, 3, 4]);
    }

    #[test]
    fn recreate_stops_everything_and_only_then_starts() {
        let recreate = Strategy { kind: StrategyKind::Recreate, ..Strategy::default() };
        let rollout = Rollout::default();
        assert_eq!(given(&recreate, &rollout, &views(&[OLD, OLD, Fill::Broken])), (vec![], vec![0, 1]));
        assert_eq!(given(&recreate, &rollout, &views(&[Fill::Broken; 3])), (vec![0, 1, 2], vec![]));
        let held = Rollout { paused: true, ..Rollout::default() };
        assert_eq!(given(&recreate, &held, &views(&[OLD, OLD])), (vec![], vec![]));
    }
}
