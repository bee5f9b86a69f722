//! The choice of an endpoint for one try.
//!
//! With a key: the ring's candidates in their order, those over their bound or in their slow start left out. Without:
//! by the policy, or the less loaded of two random endpoints. Who is passed over is still tried, the least bad first,
//! when nobody else is left that this request has not tried: the last one standing is never refused.

use std::cmp::Ordering;
use std::rc::Rc;

use ringmaster_core::ring::KeyHash;
use ringmaster_core::ring::bounded::{self, is_taken_over};
use ringmaster_core::ring::explain::{SkipReason, choose};
use ringmaster_core::ring::select::{Load, least_request, power_of_two};
use ringmaster_core::spec::Policy;

use crate::key::{Key, Random};
use crate::routing::{Place, Service};
use crate::upstream::{Endpoint, InFlight};

/// How often a place is looked for anew, when another worker took it first.
const RESERVE_TRIES: u32 = 8;

/// Who asks for an endpoint.
#[derive(Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) key: Option<&'a Key>,
    /// Those that this request has been sent to.
    pub(crate) tried: &'a [Rc<Endpoint>],
    /// It could be sent elsewhere, should it fail.
    pub(crate) proves: bool,
    /// It is being tried already: only an endpoint that nothing speaks against is better than none.
    pub(crate) is_spare: bool,
}

/// What the wish gets.
pub(crate) enum Choice {
    /// A place at an endpoint.
    Place(InFlight),
    /// All have as many requests as they may.
    Full,
    /// All have been tried, or there are none.
    Nobody,
}

/// A place at the endpoint for the next try.
///
/// Under a limit the place is taken first and looked at then: two workers that saw the same last place both have it
/// then, and the one that finds it beyond the limit gives it back.
pub(crate) fn reserve(service: &Service, wish: &Wish<'_>, random: &Random) -> Choice {
    let most = service.spec.resilience.max_in_flight;
    let bound = service.spec.balancing.bounded_load.filter(|_| wish.key.is_some());
    let mut full = false;
    for round in 0..=RESERVE_TRIES {
        let Some(place) = pick(service, wish, random) else { break };
        let endpoint = &place.endpoint;
        if wish.is_spare && (!endpoint.health.is_usable(wish.proves) || endpoint.stats.in_flight() >= most) {
            break;
        }
        let last = round == RESERVE_TRIES;
        let Ok(proof) = endpoint.health.prove().or_else(|()| if last { Ok(None) } else { Err(()) }) else {
            continue;
        };
        let in_flight = endpoint.reserve(proof);
        let own = endpoint.stats.in_flight();
        if own > most {
            full = true;
            continue;
        }
        // One beyond the bound that was chosen as a last resort is chosen again, and stays.
        let cap = bound.map(|bound| {
            let total = service.in_flight().saturating_sub(1);
            bounded::cap(bound, total, place.weight, service.weights)
        });
        if last || cap.is_none_or(|cap| u64::from(own) <= cap) {
            return Choice::Place(in_flight);
        }
    }
    if full { Choice::Full } else { Choice::Nobody }
}

fn pick<'a>(service: &'a Service, wish: &Wish<'_>, random: &Random) -> Option<&'a Place> {
    match (service.spec.balancing.policy, wish.key) {
        (Policy::RoundRobin, _) => in_turn(service, wish, random),
        (Policy::LeastRequest, _) => {
            let mut choice = eligible(service, wish, random);
            let load = loads(service);
            // Among equals the first is taken: where nothing else tells them apart it has to be a random one.
            if service.has_new() {
                let first = random.below(choice.len().max(1));
                choice.rotate_left(first);
            }
            let chosen = least_request(choice.iter().map(|place| load(place))).map(|index| choice[index])?;
            Some(took_turn(chosen, choice))
        }
        (Policy::P2c, _) => less_loaded(service, wish, random, Load::compare),
        // Nothing to follow but evenness.
        (_, None) => less_loaded(service, wish, random, Load::compare_roughly),
        (_, Some(key)) => first_candidate(service, key, wish),
    }
}

fn first_candidate<'a>(service: &'a Service, key: &Key, wish: &Wish<'_>) -> Option<&'a Place> {
    let ring = &service.spec.ring;
    let hash: KeyHash = ring.hash(key.as_bytes());
    let bound = service.spec.balancing.bounded_load;
    let total = if bound.is_some() { service.in_flight() } else { 0 };
    let skip = |place: &&'a Place| {
        if let Some(reason) = unusable(service, place, wish) {
            return Some(reason);
        }
        if place.is_held_back(|age, duration| bounded::keeps(hash, age, duration)) {
            return Some(SkipReason::SlowStart);
        }
        let own = u64::from(place.endpoint.stats.in_flight());
        let has_room = |bound| bounded::has_room(bound, own, total, place.weight, service.weights);
        bound.is_some_and(|bound| !has_room(bound)).then_some(SkipReason::OverBound)
    };
    choose(ring.candidates_of_hash(hash).filter_map(|ordinal| service.place(ordinal)), skip)
}

/// Why an endpoint cannot be chosen, or should not be, whatever the key.
fn unusable(service: &Service, place: &Place, wish: &Wish<'_>) -> Option<SkipReason> {
    if is_tried(wish.tried, &place.endpoint) {
        return Some(SkipReason::Tried);
    }
    if !place.endpoint.health.is_usable(wish.proves) {
        return Some(SkipReason::Ejected);
    }
    is_full(service, place).then_some(SkipReason::OverBound)
}

/// Whether an endpoint has as many requests as it may.
fn is_full(service: &Service, place: &Place) -> bool {
    place.endpoint.stats.in_flight() >= service.spec.resilience.max_in_flight
}

/// Without a key the share of a new endpoint is drawn.
fn is_held_back(place: &Place, random: &Random) -> bool {
    place.is_held_back(|age, duration| is_taken_over(random.bits(), age, duration))
}

/// The next one in turn on this worker. One that cannot be chosen loses its turn to the next.
fn in_turn<'a>(service: &'a Service, wish: &Wish<'_>, random: &Random) -> Option<&'a Place> {
    let weights: Vec<u32> = service.places.iter().map(|place| place.weight).collect();
    let mut turns = service.turns.borrow_mut();
    let next = |_: &Place| turns.next(&weights).map(|index| &service.places[index]);
    // A heavy one comes several times within as many turns as there are endpoints: then the others follow.
    let in_order = service.places.iter().filter_map(next).chain(&service.places);
    choose(in_order.filter(|place| place.weight > 0), |place| {
        unusable(service, place, wish)
            .or_else(|| is_held_back(place, random).then_some(SkipReason::SlowStart))
    })
}

fn less_loaded<'a>(
    service: &'a Service,
    wish: &Wish<'_>,
    random: &Random,
    compare: impl Fn(&Load, &Load) -> Ordering,
) -> Option<&'a Place> {
    let (all, load) = (&service.places, loads(service));
    // Usually two draws hit two different endpoints that are both in service; only otherwise sort them out.
    if all.len() > 1 && wish.tried.is_empty() {
        let (a, b) = (&all[random.below(all.len())], &all[random.below(all.len())]);
        let fits = |place: &Place| {
            let usable = place.endpoint.health.is_usable(wish.proves) && !is_full(service, place);
            place.weight > 0 && usable && !is_held_back(place, random)
        };
        if !Rc::ptr_eq(&a.endpoint, &b.endpoint) && fits(a) && fits(b) {
            let chosen = if compare(&load(b), &load(a)).is_lt() { b } else { a };
            return Some(took_turn(chosen, [a, b]));
        }
    }
    let choice = eligible(service, wish, random);
    let drawn = [random.bits(), random.bits()];
    let chosen = power_of_two(choice.len(), drawn, |index| load(choice[index]), compare)?;
    Some(took_turn(choice[chosen], choice))
}

/// Those that this request has not tried and that nothing speaks against; if there are none, the least bad ones.
fn eligible<'a>(service: &'a Service, wish: &Wish<'_>, random: &Random) -> Vec<&'a Place> {
    let weighted = service.places.iter().filter(|place| place.weight > 0);
    let left: Vec<&Place> = weighted.filter(|place| !is_tried(wish.tried, &place.endpoint)).collect();
    let fit = |place: &&Place| place.endpoint.health.is_usable(wish.proves);
    let usable: Vec<&Place> = left.iter().copied().filter(fit).collect();
    let free: Vec<&Place> = usable.iter().copied().filter(|place| !is_full(service, place)).collect();
    let settled: Vec<&Place> = free.iter().copied().filter(|place| !is_held_back(place, random)).collect();
    [settled, free, usable].into_iter().find(|places| !places.is_empty()).unwrap_or(left)
}

/// Notes that one of these has had its turn.
fn took_turn<'a>(chosen: &'a Place, among: impl IntoIterator<Item = &'a Place>) -> &'a Place {
    let turns = among.into_iter().map(|place| place.endpoint.stats.turns());
    chosen.endpoint.stats.take_turn(turns.max().unwrap_or(0));
    chosen
}

/// How to weigh the endpoints of a service. In a slow start the number of requests served says nothing: the new one
/// would win every tie and so make up for what is held back.
fn loads(service: &Service) -> impl Fn(&Place) -> Load + use<> {
    let counts_turns = !service.has_new();
    move |place| {
        let stats = &place.endpoint.stats;
        let served = if counts_turns { stats.turns() } else { 0 };
        Load { in_flight: u64::from(stats.in_flight()), served, weight: place.weight }
    }
}

fn is_tried(tried: &[Rc<Endpoint>], endpoint: &Rc<Endpoint>) -> bool {
    tried.iter().any(|other| Rc::ptr_eq(other, endpoint))
}
