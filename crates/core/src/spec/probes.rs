//! Probes: when a replica has started, when it gets traffic, when it is replaced.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::defaults;
use crate::quantity::{Percent, Span};

/// When a replica has started, when it gets traffic, and when it is replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probes {
    /// Until it succeeds once, the other two wait; a replica that keeps failing it is replaced. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
    /// Gates traffic. Default: a TCP connection to the port.
    #[serde(default = "Probe::default_readiness")]
    pub readiness: Probe,
    /// Replaces a replica that keeps failing it after having been ready, or after its startup probe. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Probe>,
}

/// One probe: at most one of `httpGet`, `tcpSocket` and `exec`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    /// A GET that must answer 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGet>,
    /// A connection that must be accepted. The default where neither of the others is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<TcpSocket>,
    /// A command inside the replica that must end with exit code 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    /// Time between two probes. Default 1s. A replica that was never ready is asked every 20 ms at first, less often
    /// the longer it takes, but not less often than this; commands always at this period.
    #[serde(default = "defaults::default_probe_period")]
    pub period: Span,
    /// Each probe is put off by up to this share of the period, differently for each replica. Default 0%: all
    /// replicas are asked at once, which costs the daemon least.
    #[serde(default = "defaults::default_probe_jitter", skip_serializing_if = "Percent::is_zero")]
    pub jitter: Percent,
    /// Time after which one probe has failed. Default 1s.
    #[serde(default = "defaults::default_probe_timeout")]
    pub timeout: Span,
    /// How many failures in a row make it fail. Default 3.
    #[serde(default = "defaults::default_failure_threshold")]
    #[schemars(range(min = 1, max = 1000))]
    pub failure_threshold: u32,
    /// How many successes in a row make it good again. Default 1; more than that for `readiness` alone.
    #[serde(default = "defaults::default_success_threshold")]
    #[schemars(range(min = 1, max = 1000))]
    pub success_threshold: u32,
}

/// An HTTP GET.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpGet {
    /// The path, starting with `/`.
    pub path: String,
    /// Header fields to send. `Host` replaces the replica's address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The status codes of success: `204`, or `200-299`. Default 200-399.
    #[serde(default, skip_serializing_if = "StatusRange::is_default")]
    pub status: StatusRange,
    /// A text that must stand in the first 64 KiB of the answer's body. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_contains: Option<String>,
}

/// A TCP probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpSocket {}

/// A command inside the replica; with the process runtime on the host, in the replica's folder and environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exec {
    /// The program and its arguments; no shell is involved.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
}

/// The status codes from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    /// The lowest, from 100.
    pub first: u16,
    /// The highest, up to 599.
    pub last: u16,
}

impl StatusRange {
    /// Whether a status code is one of them.
    pub fn contains(&self, code: u16) -> bool {
        (self.first..=self.last).contains(&code)
    }

    fn is_default(&self) -> bool {
        *self == StatusRange::default()
    }
}

impl Default for StatusRange {
    fn default() -> Self {
        Self { first: 200, last: 399 }
    }
}

impl FromStr for StatusRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let code = |text: &str| {
            let code: u16 = text.parse().ok()?;
            (text.len() == 3 && (100..=599).contains(&code)).then_some(code)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (code(first.trim()), code(last.trim())) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!("`{text}` is not a range of status codes: write one such as 204, or 200-399")),
        }
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.first == self.last { Ok(()) } else { write!(f, "-{}", self.last) }
    }
}

impl Serialize for StatusRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StatusRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for StatusRange {
    fn schema_name() -> Cow<'static, str> {
        "StatusRange".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number"], "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$", "examples": ["200-399"]
        })
    }
}

impl Probe {
    pub(super) fn default_readiness() -> Probe {
        Probe {
            http_get: None,
            tcp_socket: None,
            exec: None,
            period: defaults::default_probe_period(),
            jitter: defaults::default_probe_jitter(),
            timeout: defaults::default_probe_timeout(),
            failure_threshold: defaults::default_failure_threshold(),
            success_threshold: defaults::default_success_threshold(),
        }
    }

    /// Whether the answer to one is the answer to the other.
    pub fn asks_the_same(&self, other: &Probe) -> bool {
        (&self.http_get, &self.exec, self.timeout) == (&other.http_get, &other.exec, other.timeout)
    }
}

impl Default for Probes {
    fn default() -> Self {
        Self { startup: None, readiness: Probe::default_readiness(), liveness: None }
    }
}
