//! The rules of `spec.balancing`: names of keys, what fits to which policy, and formulas.

use std::time::Duration;

use super::check::{Rules, Step};
use super::probes::is_token;
use crate::quantity::Span;
use crate::ring::assignment::{AssignmentError, AssignmentRules};
use crate::ring::formula::{FormulaError, FormulaErrorKind};
use crate::spec::{Balancing, HashOn, Policy, REPLICAS_MAX};

/// The heaviest that a replica may be.
const WEIGHT_MAX: u32 = 100;
/// Most values that `hashOn` may try.
const HASH_KEYS_MAX: usize = 8;

/// A formula whose H reaches less than this part of the slots is worth a warning.
const REACH_WARNING: usize = 2;

/// Longer than this a replica is not new.
const SLOW_START_MAX: Span = Span(Duration::from_secs(24 * 60 * 60));

pub(super) fn balancing(rules: &mut Rules, balancing: &Balancing, replicas: Option<u32>) {
    hash_on(rules, balancing);
    weights(rules, balancing, replicas);
    if let Some(span) = balancing.slow_start {
        rules.not_zero("slowStart", span);
        rules.require("slowStart", span <= SLOW_START_MAX, || {
            format!("`{span}` is longer than the longest of {SLOW_START_MAX}")
        });
    }
    let policy = balancing.policy;
    if balancing.bounded_load.is_some() && !policy.hashes() {
        rules.within("boundedLoad", |rules| {
            rules.broken(
                format!("`{policy}` hashes nothing, so nothing overflows"),
                Some("remove `boundedLoad`, or choose a policy that hashes"),
            );
        });
    }
    match (&balancing.assignment, policy) {
        (None, Policy::Assignment) | (Some(_), Policy::Assignment) => {
            let spec = balancing.assignment.clone().unwrap_or_default();
            let checked = AssignmentRules::new(&spec)
                .and_then(|ring| ring.check_servers(replicas.unwrap_or(0) as usize));
            if let Err(error) = checked {
                rules.within("assignment", |rules| assignment_error(rules, &error));
            }
        }
        (Some(_), _) => rules.within("assignment", |rules| {
            rules.broken(
                format!("`{policy}` has no use for the assignment's ring"),
                Some("write `policy: assignment`, or remove `assignment`"),
            );
        }),
        (None, _) => {}
    }
}

/// What is allowed and yet surely not meant: the formula H of a service that reaches few slots.
pub fn balancing_warnings(balancing: &Balancing) -> Vec<String> {
    if balancing.policy != Policy::Assignment {
        return Vec::new();
    }
    let spec = balancing.assignment.clone().unwrap_or_default();
    let Ok(ring) = AssignmentRules::new(&spec) else { return Vec::new() };
    let (reached, slots) = (ring.slots_reached(), ring.slots() as usize);
    if reached * REACH_WARNING >= slots {
        return Vec::new();
    }
    let worth = ring.effective_slots();
    vec![format!(
        "H reaches {reached} of {slots} slots, which spread requests as {worth:.0} equal ones would"
    )]
}

fn weights(rules: &mut Rules, balancing: &Balancing, replicas: Option<u32>) {
    let weights = &balancing.weights;
    rules.within("weights", |rules| {
        if weights.len() > REPLICAS_MAX as usize {
            rules.broken(format!("{} weights are more than the most of {REPLICAS_MAX}", weights.len()), None);
        }
        for (index, weight) in weights.iter().enumerate() {
            rules.require(index, *weight <= WEIGHT_MAX, || {
                format!("the weight {weight} is more than the most of {WEIGHT_MAX}")
            });
        }
        // Replicas beyond the list weigh 1, so only a list that covers them all can leave nobody.
        let covered = replicas.is_some_and(|count| count > 0 && weights.len() >= count as usize);
        if covered && weights.iter().take(replicas.unwrap_or(0) as usize).all(|weight| *weight == 0) {
            rules.broken(
                "all weights are 0: no replica would get a request",
                Some("give one of them a weight"),
            );
        }
        if balancing.policy == Policy::Assignment && weights.iter().any(|weight| *weight > 1) {
            rules.broken(
                "`assignment` gives every server K virtual servers: a weight is 0 or 1",
                Some("choose another policy, or remove `weights`"),
            );
        }
    });
}

fn hash_on(rules: &mut Rules, balancing: &Balancing) {
    let (keys, policy) = (&balancing.hash_on.0, balancing.policy);
    rules.within("hashOn", |rules| {
        if !keys.is_empty() && !policy.hashes() {
            rules.broken(
                format!("`{policy}` hashes nothing"),
                Some("remove `hashOn`, or choose a policy that hashes"),
            );
        }
        if keys.len() > HASH_KEYS_MAX {
            rules.broken(format!("{} values are more than the most of {HASH_KEYS_MAX}", keys.len()), None);
        }
        for (index, key) in keys.iter().enumerate() {
            // A value without brackets is not an item of a list.
            let step = (keys.len() > 1).then_some(Step::Item(index));
            rules.within_if(step, |rules| {
                key_name(rules, key);
                if key.is_always_there() && index + 1 < keys.len() {
                    rules.broken("every request has this value: those after it are never tried", None);
                }
            });
        }
    });
}

fn key_name(rules: &mut Rules, key: &HashOn) {
    let (step, what, name, valid) = match key {
        HashOn::Header(name) => ("header", "header field", name, is_token(name)),
        HashOn::Cookie(name) => ("cookie", "cookie", name, is_token(name)),
        HashOn::SetCookie(name) => ("setCookie", "cookie", name, is_token(name)),
        HashOn::Query(name) => {
            ("query", "query parameter", name, !name.is_empty() && !name.contains(char::is_control))
        }
        HashOn::RequestId | HashOn::Path | HashOn::ClientIp => return,
    };
    rules.require(step, valid, || format!("`{name}` is not the name of a {what}"));
}

fn assignment_error(rules: &mut Rules, error: &AssignmentError) {
    let field = match error {
        AssignmentError::RequestHash(error) => return formula_error(rules, "requestHash", error),
        AssignmentError::VirtualServerHash(error) => return formula_error(rules, "virtualServerHash", error),
        AssignmentError::Slots(_) => "slots",
        AssignmentError::VirtualServers(_)
        | AssignmentError::VirtualServersBeyondSlots { .. }
        | AssignmentError::Full { .. } => "virtualServers",
        AssignmentError::FirstVirtual(_) => "firstVirtual",
        AssignmentError::UnusedFormula(field) => field,
        // The manifest has no ordinals.
        AssignmentError::Ordinal(_) => return,
    };
    rules.within(field, |rules| rules.broken(error.to_string(), None));
}

fn formula_error(rules: &mut Rules, field: &'static str, error: &FormulaError) {
    rules.within(field, |rules| {
        rules.broken(error.to_string(), error.kind.suggestion());
        if !matches!(error.kind, FormulaErrorKind::TooLong(_)) {
            rules.point_into(error.offset);
        }
    });
}
