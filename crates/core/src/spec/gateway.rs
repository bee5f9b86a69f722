//! Where the data plane listens, whom it believes, and what it bears.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::resilience::is_default;
use crate::ids::ServiceName;
use crate::quantity::{Memory, Percent, Span};

/// Where the data plane listens, and what it answers itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewaySpec {
    /// Listeners. Default: one on `serve --listen`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerSpec>,
    /// Serves `/rep`, `/add` and `/rm` of the assignment on the data port. Default: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment_api: Option<AssignmentApiSpec>,
    /// Addresses and networks of proxies in front of this one. Only what they say about a client in Forwarded,
    /// X-Forwarded-* and X-Real-IP goes on, and who they name in X-Forwarded-For, else in X-Real-IP, is the client, for
    /// `clientIp` too. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<Network>,
    /// What a client may take.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: ClientLimits,
    /// Writes a line for each request to the log. Default: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
}

/// One listener of the data plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerSpec {
    /// A name for logs and metrics.
    pub name: ServiceName,
    /// The port; the address is that of `serve --listen`.
    #[schemars(range(min = 1))]
    pub port: u16,
}

/// The assignment's API on the data port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AssignmentApiSpec {
    /// The service whose members `/add` and `/rm` edit.
    pub service: ServiceName,
}

/// What a client may take. A request line may have 8 KiB, the fields 64 KiB and 100 of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClientLimits {
    /// How long a request's head may take, from its first byte; then 408. Default 10s.
    pub header_timeout: Span,
    /// How long a connection may idle before its first request and between two. Default 75s.
    pub idle_timeout: Span,
    /// How long a client may stop sending a body, or taking a response. Default 30s.
    pub stall_timeout: Span,
    /// How much of a body a client has to send per second, over 10 s. Default 100 bytes.
    pub min_body_rate: Memory,
    /// Largest request body; a larger one gets 413. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body: Option<Memory>,
    /// Most connections of one client address that is no trusted proxy; more are closed at once. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub connections_per_client: Option<u32>,
}

/// A line for each request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AccessLog {
    /// Of so many of the requests, drawn at random. Default 100%.
    pub sample: Percent,
}

/// An address, or a network in CIDR notation (RFC 4632).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether an address belongs to it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (address, whole) = (self.0.addr(), self.0.max_prefix_len());
        if self.0.prefix_len() == whole {
            serializer.collect_str(&address)
        } else {
            serializer.collect_str(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let address = text.parse::<IpAddr>().map(IpNet::from);
        let network = address.or_else(|_| text.parse::<IpNet>()).map(|network| Network(network.trunc()));
        network.map_err(|_| {
            serde::de::Error::custom(format!(
                "`{text}` is not an address or network such as 10.0.0.7 or 10.0.0.0/8"
            ))
        })
    }
}

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$", "examples": ["10.0.0.0/8"] })
    }
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            header_timeout: Span::from_millis(10_000),
            idle_timeout: Span::from_millis(75_000),
            stall_timeout: Span::from_millis(30_000),
            min_body_rate: Memory { bytes: 100 },
            max_body: None,
            connections_per_client: None,
        }
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { sample: Percent(100) }
    }
}
