//! What happens to requests when replicas fail, are slow, or are too few.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::defaults;
use crate::quantity::{Percent, QuantityError, Span};

/// What happens to a request whose replica fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resilience {
    /// How often a request is replayed on the next candidate: one that could not be sent, or an idempotent
    /// one (RFC 9110 section 9.2.2) that failed before the first response byte. Default 2.
    #[serde(default = "defaults::default_retries")]
    #[schemars(range(max = 10))]
    pub retries: u32,
    /// How long a connection to a replica may take. Default 250ms: replicas are on this host.
    #[serde(default = "defaults::default_connect_timeout")]
    pub connect_timeout: Span,
    /// How long a replica may take until its response starts, and between two pieces of one whose length is known. Default
    /// 60s.
    #[serde(default = "defaults::default_response_timeout")]
    pub response_timeout: Span,
    /// When a GET, HEAD or OPTIONS that has no answer yet is also tried at the next candidate: `auto` learns from how
    /// long the replica usually takes, a duration fixes it, `off` never does. Default auto.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hedge_after: HedgeAfter,
    /// How many requests may be tried again or beside the first try, as a share of those of the last 10 s, and 10 per
    /// second more; what was never sent is free. So an outage is not multiplied. Default 20%.
    #[serde(default = "defaults::default_retry_budget", skip_serializing_if = "is_default_retry_budget")]
    pub retry_budget: Percent,
    /// Most requests that are in flight at one replica; more go to the next candidate, or wait. Default 1024.
    #[serde(default = "defaults::default_max_in_flight", skip_serializing_if = "is_default_max_in_flight")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_in_flight: u32,
    /// Most requests that wait, on each worker, while all replicas have as many as they may; more get 503. Default 128.
    #[serde(default = "defaults::default_max_queued", skip_serializing_if = "is_default_max_queued")]
    #[schemars(range(max = 100_000))]
    pub max_queued: u32,
    /// How long a request may wait for a place. Default 1s.
    #[serde(default = "defaults::default_queue_timeout", skip_serializing_if = "is_default_queue_timeout")]
    pub queue_timeout: Span,
    /// When a replica is left out for a while because of how it answers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ejection: Ejection,
}

/// When the data plane leaves a replica out for a while (passive health checking).
///
/// One that cannot be connected to, or that breaks connections, is left out at once whatever stands here, as long as
/// there is another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ejection {
    /// After so many answers of the class 5xx in a row; 0 is never. Default 5.
    #[schemars(range(max = 1_000))]
    pub consecutive_errors: u32,
    /// After so many requests in a row that another replica answered sooner although it was asked later; 0 is never.
    /// Default 3.
    #[schemars(range(max = 1_000))]
    pub hedge_losses: u32,
    /// If so much more of its answers than of the others' are of the class 5xx, over 10 s with at least 50 of them;
    /// 100% is never. Default 30%.
    pub error_rate: Percent,
    /// For so long; twice as long each next time. Default 1s.
    pub time: Span,
    /// For at most so long. Default 10s.
    pub max_time: Span,
    /// At most so much of the replicas at once; the last one that serves never. Default 50%.
    pub max_ejected: Percent,
}

/// When a second try is made beside the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HedgeAfter {
    /// After longer than the replica usually takes.
    #[default]
    Auto,
    /// Never.
    Off,
    /// After this long.
    After(Span),
}

impl FromStr for HedgeAfter {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        match text {
            "auto" => Ok(HedgeAfter::Auto),
            "off" => Ok(HedgeAfter::Off),
            span => span.parse().map(HedgeAfter::After),
        }
    }
}

impl fmt::Display for HedgeAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HedgeAfter::Auto => f.write_str("auto"),
            HedgeAfter::Off => f.write_str("off"),
            HedgeAfter::After(span) => span.fmt(f),
        }
    }
}

impl Serialize for HedgeAfter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HedgeAfter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| {
            serde::de::Error::custom(format!("`{text}` is not auto, off, or a duration such as 200ms"))
        })
    }
}

impl JsonSchema for HedgeAfter {
    fn schema_name() -> Cow<'static, str> {
        "HedgeAfter".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(auto|off|[0-9]+(ms|s|m|h))$", "examples": ["auto"] })
    }
}

impl Default for Resilience {
    fn default() -> Self {
        Self {
            retries: defaults::default_retries(),
            connect_timeout: defaults::default_connect_timeout(),
            response_timeout: defaults::default_response_timeout(),
            hedge_after: HedgeAfter::default(),
            retry_budget: defaults::default_retry_budget(),
            max_in_flight: defaults::default_max_in_flight(),
            max_queued: defaults::default_max_queued(),
            queue_timeout: defaults::default_queue_timeout(),
            ejection: Ejection::default(),
        }
    }
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            consecutive_errors: 5,
            hedge_losses: 3,
            error_rate: Percent(30),
            time: Span::from_millis(1_000),
            max_time: Span::from_millis(10_000),
            max_ejected: Percent(50),
        }
    }
}

/// Whether a field says nothing that is not so without it.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
fn is_default_retry_budget(value: &Percent) -> bool {
    *value == defaults::default_retry_budget()
}
fn is_default_max_in_flight(value: &u32) -> bool {
    *value == defaults::default_max_in_flight()
}
fn is_default_max_queued(value: &u32) -> bool {
    *value == defaults::default_max_queued()
}
fn is_default_queue_timeout(value: &Span) -> bool {
    *value == defaults::default_queue_timeout()
}
