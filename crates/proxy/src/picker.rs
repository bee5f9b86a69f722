//! The choice of an endpoint for one try.
//!
//! With a key: the ring's candidates in their order. Without: the less loaded of two random endpoints. Ejected
//! and suspect endpoints are skipped as long as another one is left that this request has not tried; when none
//! is, they are tried in the same order, so the last one standing is never refused.

use std::rc::Rc;

use crate::key::{Key, Random};
use crate::routing::Service;
use crate::upstream::Endpoint;

/// The endpoint for the next try; none if all have been tried, or there are none.
pub(crate) fn pick<'a>(
    service: &'a Service,
    key: Option<&Key>,
    tried: &[Rc<Endpoint>],
    random: &Random,
) -> Option<&'a Rc<Endpoint>> {
    let by_key = key.and_then(|key| first_candidate(service, key, tried));
    by_key.or_else(|| less_loaded(service, tried, random))
}

fn first_candidate<'a>(service: &'a Service, key: &Key, tried: &[Rc<Endpoint>]) -> Option<&'a Rc<Endpoint>> {
    let mut fallback = None;
    let candidates = service.spec.table.candidates(key.as_bytes());
    for endpoint in candidates.filter_map(|ordinal| service.endpoint(ordinal)) {
        if is_tried(tried, endpoint) {
            continue;
        }
        if endpoint.health.is_usable() {
            return Some(endpoint);
        }
        fallback = fallback.or(Some(endpoint));
    }
    fallback
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
            return Some(lighter(a, b));
        }
    }
    let left: Vec<&Rc<Endpoint>> = all.iter().filter(|endpoint| !is_tried(tried, endpoint)).collect();
    let usable: Vec<&Rc<Endpoint>> =
        left.iter().copied().filter(|endpoint| endpoint.health.is_usable()).collect();
    let choice = if usable.is_empty() { left } else { usable };
    match choice.len() {
        0 => None,
        1 => Some(choice[0]),
        count => {
            let first = random.below(count);
            let second = (first + 1 + random.below(count - 1)) % count;
            Some(lighter(choice[first], choice[second]))
        }
    }
}

/// The one with fewer requests in flight, or with fewer ever.
fn lighter<'a>(a: &'a Rc<Endpoint>, b: &'a Rc<Endpoint>) -> &'a Rc<Endpoint> {
    let load = |endpoint: &Rc<Endpoint>| (endpoint.stats.in_flight(), endpoint.stats.requests());
    if load(b) < load(a) { b } else { a }
}

fn is_tried(tried: &[Rc<Endpoint>], endpoint: &Rc<Endpoint>) -> bool {
    tried.iter().any(|other| Rc::ptr_eq(other, endpoint))
}
