//! `spec.balancing`: which replica a request goes to.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer, StrDeserializer};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::defaults;
use crate::ids::Ordinal;
use crate::quantity::{Factor, Span};

/// The name under which a deserializer is asked for a value or a list of values.
pub(crate) const ONE_OR_MANY: &str = "HashKeys";

/// H(i) of the assignment.
pub const REQUEST_HASH_DEFAULT: &str = "i^2 + 2*i + 17";

/// Φ(i, j) of the assignment.
pub const VIRTUAL_SERVER_HASH_DEFAULT: &str = "i^2 + j^2 + 2*j + 25";

/// Which replica a request goes to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Balancing {
    /// The policy.
    #[serde(default)]
    pub policy: Policy,
    /// What is hashed: one value, or a list of which the first that a request has counts. Left out, requests
    /// have no affinity and go to the less loaded of two replicas; `assignment` hashes the `requestId`.
    #[serde(default, skip_serializing_if = "HashKeys::is_empty")]
    pub hash_on: HashKeys,
    /// How many times the average a replica may have in flight, such as `1.25`; a request beyond it goes to the
    /// next replica of its key. Only for policies that hash. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounded_load: Option<Factor>,
    /// How long the share of a replica that is new to the set grows until it is whole; the rest of its keys goes
    /// where they would go without it. A replacement takes over at once. Default: no slow start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Span>,
    /// The weights of the replicas by ordinal, such as `[2, 1, 1]`: shares of keys or of turns by that of the
    /// others. Those beyond the list weigh 1; 0 gets nothing. Default: all weigh 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<u32>,
    /// The ring of the policy `assignment`. Default: the assignment's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment: Option<AssignmentSpec>,
}

impl Balancing {
    /// The weight of a replica.
    pub fn weight(&self, ordinal: Ordinal) -> u32 {
        self.weights.get(ordinal.index()).copied().unwrap_or(1)
    }
}

/// How a key, or the load, becomes a replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// 2^16 slots, seeded XXH3-64, the fewest possible slots move on every change.
    #[default]
    SlotTable,
    /// The table of Maglev with 65537 slots: needs no state, moves somewhat more than the fewest possible.
    Maglev,
    /// A ketama ring with 160 points per weight, as nginx's `hash … consistent`.
    Ring,
    /// Highest random weight: needs no state, moves the fewest possible, looks at every replica.
    Rendezvous,
    /// In turns, by weight; nothing is hashed.
    RoundRobin,
    /// The replica with the fewest requests in flight; nothing is hashed.
    LeastRequest,
    /// The less loaded of two random replicas; nothing is hashed.
    P2c,
    /// Slots and virtual servers placed by two formulas, as in the assignment.
    Assignment,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Policy; 8] = [
        Policy::SlotTable,
        Policy::Maglev,
        Policy::Ring,
        Policy::Rendezvous,
        Policy::RoundRobin,
        Policy::LeastRequest,
        Policy::P2c,
        Policy::Assignment,
    ];

    /// Whether a key decides.
    pub fn hashes(self) -> bool {
        !matches!(self, Policy::RoundRobin | Policy::LeastRequest | Policy::P2c)
    }

    /// The name as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Policy::SlotTable => "slot-table",
            Policy::Maglev => "maglev",
            Policy::Ring => "ring",
            Policy::Rendezvous => "rendezvous",
            Policy::RoundRobin => "round-robin",
            Policy::LeastRequest => "least-request",
            Policy::P2c => "p2c",
            Policy::Assignment => "assignment",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What of a request is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum HashOn {
    /// `X-Request-Id` if sent, else six random digits.
    RequestId,
    /// The path, without the query.
    Path,
    /// The client's address.
    ClientIp,
    /// The value of a header field.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
    /// The value of a cookie that the proxy sets, to a random value, where the client has none.
    SetCookie(String),
    /// The value of a query parameter.
    Query(String),
}

impl HashOn {
    /// Whether every request has this value.
    pub fn is_always_there(&self) -> bool {
        matches!(self, HashOn::RequestId | HashOn::Path | HashOn::ClientIp | HashOn::SetCookie(_))
    }
}

/// What is hashed, tried in order; written as one value or as a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HashKeys(pub Vec<HashOn>);

impl HashKeys {
    /// Whether nothing is hashed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What to try, in order, under a policy: `assignment` hashes the request id unless told otherwise.
    pub fn under(&self, policy: Policy) -> &[HashOn] {
        match policy {
            Policy::Assignment if self.0.is_empty() => &[HashOn::RequestId],
            _ => &self.0,
        }
    }
}

impl From<HashOn> for HashKeys {
    fn from(one: HashOn) -> HashKeys {
        HashKeys(vec![one])
    }
}

impl Serialize for HashKeys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for HashKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(ONE_OR_MANY, OneOrMany)
    }
}

impl JsonSchema for HashKeys {
    fn schema_name() -> Cow<'static, str> {
        "HashKeys".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<HashOn>();
        json_schema!({
            "description": "One value, or a list of which the first that a request has counts.",
            "anyOf": [one, { "type": "array", "items": one, "minItems": 1, "maxItems": 8 }],
        })
    }
}

/// Takes a list, or one value without the brackets.
struct OneOrMany;

impl<'de> Visitor<'de> for OneOrMany {
    type Value = HashKeys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one value or a list")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<HashKeys, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HashKeys, E> {
        HashOn::deserialize(StrDeserializer::new(text)).map(HashKeys::from)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HashKeys, A::Error> {
        HashOn::deserialize(MapAccessDeserializer::new(map)).map(HashKeys::from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<HashKeys, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items)).map(HashKeys)
    }
}

/// The ring of the policy `assignment`: M slots, K virtual servers for each replica, placed by formulas.
///
/// Formulas know `i`, `j`, `M`, `K`, whole numbers and the operators `+ - * / % ^ ( ) xor >> << & |`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AssignmentSpec {
    /// How many slots the ring has, M. Default 512.
    #[serde(default = "defaults::default_slots")]
    #[schemars(range(min = 1, max = 65536))]
    pub slots: u32,
    /// How many virtual servers each replica has, K. Default 9.
    #[serde(default = "defaults::default_virtual_servers")]
    #[schemars(range(min = 1, max = 1024))]
    pub virtual_servers: u32,
    /// What places requests and virtual servers. Default `formula`.
    #[serde(default)]
    pub hash: AssignmentHash,
    /// H(i), the slot of the request with the number i, before it is taken modulo M. Default `i^2 + 2*i + 17`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_hash: Option<String>,
    /// Φ(i, j), the slot of the virtual server j of the server i, counted from 1, before it is taken modulo M.
    /// Default `i^2 + j^2 + 2*j + 25`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_server_hash: Option<String>,
    /// Where a virtual server goes whose slot is taken. Default `linear`.
    #[serde(default)]
    pub probing: Probing,
    /// The number of the first virtual server, 0 or 1. Default 0.
    #[serde(default)]
    #[schemars(range(max = 1))]
    pub first_virtual: u32,
    /// Which virtual server serves a slot. Default `inclusive`.
    #[serde(default)]
    pub successor: Successor,
    /// What happens to a virtual server whose slot is taken. Default `probe`.
    #[serde(default)]
    pub on_collision: OnCollision,
}

impl Default for AssignmentSpec {
    fn default() -> Self {
        Self {
            slots: defaults::default_slots(),
            virtual_servers: defaults::default_virtual_servers(),
            hash: AssignmentHash::default(),
            request_hash: None,
            virtual_server_hash: None,
            probing: Probing::default(),
            first_virtual: 0,
            successor: Successor::default(),
            on_collision: OnCollision::default(),
        }
    }
}

impl AssignmentSpec {
    /// The text of H(i).
    pub fn request_hash(&self) -> &str {
        self.request_hash.as_deref().unwrap_or(REQUEST_HASH_DEFAULT)
    }

    /// The text of Φ(i, j).
    pub fn virtual_server_hash(&self) -> &str {
        self.virtual_server_hash.as_deref().unwrap_or(VIRTUAL_SERVER_HASH_DEFAULT)
    }
}

/// What places requests and virtual servers on the ring of the policy `assignment`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AssignmentHash {
    /// `requestHash` and `virtualServerHash`.
    #[default]
    Formula,
    /// SHA-256 of the decimal number i, and of `i-j`, read as a number.
    Sha256,
}

/// Where a virtual server goes whose slot is taken; k counts the tries from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Probing {
    /// To the next free slot.
    #[default]
    Linear,
    /// k² slots after its own; after M tries as `linear`.
    Quadratic,
    /// k² slots after the last try; after M tries as `linear`.
    QuadraticCumulative,
}

/// Which virtual server serves a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Successor {
    /// The one in the slot, or the next one.
    #[default]
    Inclusive,
    /// The next one after the slot.
    Strict,
}

/// What happens to a virtual server whose slot is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnCollision {
    /// It goes where `probing` says.
    #[default]
    Probe,
    /// It is left out.
    Drop,
}
