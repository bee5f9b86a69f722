//! The choice of an endpoint for one try.
//!
//! With a key: the ring's candidates in their order, those over their bound left out. Without: by the policy, or the
//! less loaded of two random endpoints. Ejected endpoints, and those over their bound, are skipped as long as another
//! one is left that this request has not tried; when none is, they are tried in the same order, so the last one
//! standing is never refused.

use std::rc::Rc;

use ringmaster_core::ring::bounded;
use ringmaster_core::ring::explain::{SkipReason, choose};
use ringmaster_core::ring::select::{Load, least_request, power_of_two};
use ringmaster_core::spec::Policy;

use crate::key::{Key, Random};
use crate::routing::Service;
use crate::upstream::Endpoint;

/// The weight of every endpoint: members are alike.
const WEIGHT: u32 = 1;

/// The endpoint for the next try; none if all have been tried, or there are none.
pub(crate) fn pick<'a>(
    service: &'a Service,
    key: Option<&Key>,
    tried: &[Rc<Endpoint>],
    random: &Random,
) -> Option<&'a Rc<Endpoint>> {
    match (service.spec.balancing.policy, key) {
        (Policy::RoundRobin, _) => in_turn(service, tried),
        (Policy::LeastRequest, _) => {
            let choice = eligible(service, tried);
            least_request(choice.iter().map(|endpoint| load(endpoint))).map(|index| choice[index])
        }
        (Policy::P2c, _) | (_, None) => less_loaded(service, tried, random),
        (_, Some(key)) => first_candidate(service, key, tried),
    }
}

fn first_candidate<'a>(service: &'a Service, key: &Key, tried: &[Rc<Endpoint>]) -> Option<&'a Rc<Endpoint>> {
    let bound = service.spec.balancing.bounded_load;
    let in_flight = || service.endpoints.iter().map(|e| u64::from(e.stats.in_flight())).sum();
    let total: u64 = if bound.is_some() { in_flight() } else { 0 };
    let skip = |endpoint: &&'a Rc<Endpoint>| {
        if is_tried(tried, endpoint) {
            return Some(SkipReason::Tried);
        }
        if !endpoint.health.is_usable() {
            return Some(SkipReason::Ejected);
        }
        let own = u64::from(endpoint.stats.in_flight());
        let members = service.endpoints.len() as u64;
        let is_full = bound.is_some_and(|bound| !bounded::has_room(bound, own, total, WEIGHT, members));
        is_full.then_some(SkipReason::OverBound)
    };
    let candidates = service.spec.ring.candidates(key.as_bytes());
    choose(candidates.filter_map(|ordinal| service.endpoint(ordinal)), skip)
}

/// The next one in turn on this worker. One that cannot be chosen loses its turn to the next.
fn in_turn<'a>(service: &'a Service, tried: &[Rc<Endpoint>]) -> Option<&'a Rc<Endpoint>> {
    let weights = vec![WEIGHT; service.endpoints.len()];
    let mut turns = service.turns.borrow_mut();
    let in_order = weights.iter().filter_map(|_| turns.next(&weights)).map(|index| &service.endpoints[index]);
    choose(in_order, |endpoint| match endpoint {
        endpoint if is_tried(tried, endpoint) => Some(SkipReason::Tried),
        endpoint if !endpoint.health.is_usable() => Some(SkipReason::Ejected),
        _ => None,
    })
}

fn less_loaded<'a>(
    service: &'a Service,
    tried: &[Rc<Endpoint>],
    random: &Random,
) -> Option<&'a Rc<Endpoint>> {
    let all = &service.endpoints;
    // Usually two draws hit two different endpoints that are both in service; only otherwise sort them out.
    if all.len() > 1 && tried.is_empty() {
        let (a, b) = (&all[random.below(all.len())], &all[random.below(all.len())]);
        if !Rc::ptr_eq(a, b) && a.health.is_usable() && b.health.is_usable() {
            return Some(if load(b).compare(&load(a)).is_lt() { b } else { a });
        }
    }
    let choice = eligible(service, tried);
    let drawn = [random.bits(), random.bits()];
    power_of_two(choice.len(), drawn, |index| load(choice[index])).map(|index| choice[index])
}

/// Those that this request has not tried and that are in service; if there are none, those not tried.
fn eligible<'a>(service: &'a Service, tried: &[Rc<Endpoint>]) -> Vec<&'a Rc<Endpoint>> {
    let left: Vec<&Rc<Endpoint>> =
        service.endpoints.iter().filter(|endpoint| !is_tried(tried, endpoint)).collect();
    let usable: Vec<&Rc<Endpoint>> =
        left.iter().copied().filter(|endpoint| endpoint.health.is_usable()).collect();
    if usable.is_empty() { left } else { usable }
}

fn load(endpoint: &Rc<Endpoint>) -> Load {
    let (in_flight, served) = (u64::from(endpoint.stats.in_flight()), endpoint.stats.requests());
    Load { in_flight, served, weight: WEIGHT }
}

fn is_tried(tried: &[Rc<Endpoint>], endpoint: &Rc<Endpoint>) -> bool {
    tried.iter().any(|other| Rc::ptr_eq(other, endpoint))
}
