//! Identities as newtypes: a service, a member's ordinal, an attempt to fill it, a revision, a generation.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Longest service name: leaves room for `-<ordinal>-<attempt>` within a DNS label of 63 bytes (RFC 1035).
pub const SERVICE_NAME_LEN_MAX: usize = 40;

/// A name that is not a DNS label, or not of the form `<service>-<ordinal>-<attempt>`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Not a service name.
    #[error(
        "`{0}` is not a valid name: use 1 to {SERVICE_NAME_LEN_MAX} lower-case letters, digits and '-', \
         starting with a letter and not ending with '-'"
    )]
    Service(String),
    /// Not the name of a replica.
    #[error("`{0}` is not a replica name of the form <service>-<ordinal> or <service>-<ordinal>-<attempt>")]
    Replica(String),
    /// Not a host name.
    #[error(
        "`{0}` is not a valid host name: use 1 to 63 letters, digits, '-', '_' and '.', starting with a letter or digit"
    )]
    Host(String),
}

/// The name of a service: a DNS label (RFC 1035) of at most [`SERVICE_NAME_LEN_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(String);

impl ServiceName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`NameError::Service`] says which rule it breaks.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        let bytes = name.as_bytes();
        let valid = (1..=SERVICE_NAME_LEN_MAX).contains(&bytes.len())
            && bytes[0].is_ascii_lowercase()
            && bytes[bytes.len() - 1] != b'-'
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
        if valid { Ok(Self(name)) } else { Err(NameError::Service(name)) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ServiceName {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        Self::new(s)
    }
}

impl Serialize for ServiceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ServiceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for ServiceName {
    fn schema_name() -> Cow<'static, str> {
        "ServiceName".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": SERVICE_NAME_LEN_MAX,
            "pattern": "^[a-z]([a-z0-9-]*[a-z0-9])?$",
        })
    }
}

/// A member's place in the desired set, counted from 0 and inherited by every replacement.
///
/// The assignment's server ids are `ordinal + 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Ordinal(pub u16);

impl Ordinal {
    /// The number the assignment calls this server by.
    pub fn server_id(self) -> u32 {
        u32::from(self.0) + 1
    }

    /// The ordinal as an index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Ordinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The how-manieth replica that fills a member's place, counted from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The attempt after this one.
    pub fn next(self) -> Attempt {
        Attempt(self.0.saturating_add(1))
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The hash of a template and of the image it resolved to: what runs, in ten hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub String);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A number that grows with every change of what it counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation after this one.
    pub fn next(self) -> Generation {
        Generation(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One replica's name: `<service>-<ordinal>-<attempt>` on the engine, shown to people without the attempt.
///
/// The name is deterministic, so the engine's own uniqueness of names is the lock against duplicates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaName {
    /// The service it belongs to.
    pub service: ServiceName,
    /// The member's place that it fills.
    pub ordinal: Ordinal,
    /// The how-manieth try to fill that place.
    pub attempt: Attempt,
}

impl ReplicaName {
    /// The name that people see: `<service>-<ordinal>`.
    pub fn short(&self) -> String {
        format!("{}-{}", self.service, self.ordinal)
    }
}

impl fmt::Display for ReplicaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.service, self.ordinal, self.attempt)
    }
}

impl FromStr for ReplicaName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let parse = || {
            let (rest, attempt) = text.rsplit_once('-')?;
            let (service, ordinal) = rest.rsplit_once('-')?;
            Some(ReplicaName {
                service: ServiceName::new(service).ok()?,
                ordinal: Ordinal(canonical(ordinal)?),
                attempt: Attempt(canonical(attempt)?),
            })
        };
        parse().ok_or_else(|| NameError::Replica(text.to_owned()))
    }
}

impl Serialize for ReplicaName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReplicaName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Splits `<service>-<ordinal>`, the name that people use, as in `ringmaster kill web-1`.
///
/// # Errors
/// [`NameError::Replica`] if it is not of that form.
pub fn parse_short(text: &str) -> Result<(ServiceName, Ordinal), NameError> {
    let parse = || {
        let (service, ordinal) = text.rsplit_once('-')?;
        Some((ServiceName::new(service).ok()?, Ordinal(canonical(ordinal)?)))
    };
    parse().ok_or_else(|| NameError::Replica(text.to_owned()))
}

/// A number in its only spelling: `07` and `+7` would be second names for one replica.
fn canonical<T: FromStr + ToString>(text: &str) -> Option<T> {
    let number: T = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Checks a member's host name: it becomes a container's host name and network alias.
///
/// # Errors
/// [`NameError::Host`] says which rule it breaks.
pub fn check_host_name(name: &str) -> Result<(), NameError> {
    let valid = (1..=63).contains(&name.len())
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if valid { Ok(()) } else { Err(NameError::Host(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_are_dns_labels() {
        for good in ["w", "web", "web-2", "a1-b2"] {
            assert!(ServiceName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "Web", "2web", "web-", "-web", "we b", "we_b", &"a".repeat(41)] {
            assert!(ServiceName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn replica_names_round_trip_even_when_the_service_ends_in_a_number() {
        let name: ReplicaName = "web-2-10-3".parse().unwrap();
        assert_eq!(name.service.as_str(), "web-2");
        assert_eq!((name.ordinal, name.attempt), (Ordinal(10), Attempt(3)));
        assert_eq!(name.to_string(), "web-2-10-3");
        assert_eq!(name.short(), "web-2-10");
    }

    #[test]
    fn a_replica_has_one_spelling() {
        for bad in ["web", "web-1", "web-01-0", "web-+1-0", "web-1-", "web-99999-0"] {
            assert!(bad.parse::<ReplicaName>().is_err(), "{bad}");
        }
    }
}
