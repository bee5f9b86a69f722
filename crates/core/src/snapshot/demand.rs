//! What the data plane does and tells for a service whose count follows its load.

use serde::{Deserialize, Serialize};

use crate::quantity::Span;
use crate::spec::Autoscale;

/// What is to be told of a service's requests ([`ServiceReport`]), and what becomes of them while it has no replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Demand {
    /// Requests without a replica wait; none if they are refused at once.
    pub hold: Option<Hold>,
}

/// How requests wait for the first replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hold {
    /// Most of them.
    pub max: u32,
    /// For how long each.
    pub timeout: Span,
}

/// What the data plane knows of a service's requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceReport {
    /// Requests that wait: for the first replica, or for a place at one.
    pub waiting: u32,
    /// Responses that have begun so far, whoever made them.
    pub responses: u64,
    /// The share of recent requests with a key that have the most frequent one, in thousandths; none if there were few.
    pub hottest_permille: Option<u16>,
}

impl Demand {
    /// What an autoscaler asks for.
    pub fn of(spec: &Autoscale) -> Demand {
        let hold = spec.scale_to_zero.then_some(Hold { max: spec.max_held, timeout: spec.hold_timeout });
        Demand { hold }
    }
}

impl ServiceReport {
    /// What another data plane says of the same service, too. Keys are spread over data planes alike.
    pub(super) fn add(&mut self, more: &ServiceReport) {
        self.waiting = self.waiting.saturating_add(more.waiting);
        self.responses = self.responses.saturating_add(more.responses);
        self.hottest_permille = self.hottest_permille.max(more.hottest_permille);
    }
}
