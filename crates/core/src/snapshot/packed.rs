//! A snapshot as it travels between processes: everything but the rings, and each ring's bytes by their digest.
//!
//! Rings are large and change rarely. So they travel beside the snapshot, each once: who has a ring of a digest needs its
//! bytes no more. Deliberately absent: the stream itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::{Demand, Endpoint, Front, ServiceRouting, Snapshot};
use crate::ids::{Generation, Ordinal, ServiceName};
use crate::ring::{RestoreError, Ring};
use crate::spec::{Balancing, ListenerSpec, Resilience, RouteSpec};

/// Names a ring by its content: XXH3-64 of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RingDigest(pub u64);

/// A ring's bytes, shared.
pub type RingBytes = Arc<[u8]>;

/// A snapshot without the content of its rings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PackedSnapshot {
    /// Its generation.
    pub generation: Generation,
    /// Ports to listen on.
    pub listeners: Vec<ListenerSpec>,
    /// The services by name.
    pub services: BTreeMap<ServiceName, PackedService>,
    /// The service that the assignment's API edits, if it is on.
    pub assignment_api: Option<ServiceName>,
    /// How clients are met.
    #[serde(default)]
    pub front: Front,
}

/// A service's routing without the content of its ring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PackedService {
    /// Which requests are its own.
    pub route: RouteSpec,
    /// The policy and what it hashes.
    pub balancing: Balancing,
    /// Replay and timeouts.
    pub resilience: Resilience,
    /// Its ring.
    pub ring: RingDigest,
    /// The replicas that get traffic.
    pub endpoints: BTreeMap<Ordinal, Endpoint>,
    /// What is to be told of its requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demand: Option<Demand>,
}

/// Packs one snapshot after another; a ring that stays is written once.
#[derive(Debug, Default)]
pub struct Packer {
    rings: BTreeMap<ServiceName, (Ring, RingDigest, RingBytes)>,
}

/// Unpacks one snapshot after another; a ring that stays is read once.
#[derive(Debug, Default)]
pub struct Unpacker {
    rings: BTreeMap<RingDigest, (Ring, RingBytes)>,
}

/// A snapshot or a ring that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnpackError {
    /// It names a ring that has not come.
    #[error("the ring of service {0} has not come")]
    RingMissing(ServiceName),
    /// A ring's bytes are not those of its digest, or make no ring.
    #[error("a ring cannot be read: {0}")]
    Ring(#[from] RestoreError),
    /// A ring's bytes are not those of its digest.
    #[error("a ring's bytes are not those that its digest names")]
    Digest,
    /// A service's ring is of another policy, or an endpoint is not of its service and ordinal.
    #[error("service {0} contradicts itself")]
    Contradiction(ServiceName),
}

impl RingDigest {
    /// The digest of a ring's bytes.
    pub fn of(bytes: &[u8]) -> RingDigest {
        RingDigest(xxh3_64(bytes))
    }
}

impl Packer {
    /// Packs a snapshot; its rings are those that [`Packer::rings`] tells then.
    pub fn pack(&mut self, snapshot: &Snapshot) -> PackedSnapshot {
        self.rings.retain(|name, _| snapshot.services.contains_key(name));
        let mut services = BTreeMap::new();
        for (name, routing) in &snapshot.services {
            if self.rings.get(name).is_none_or(|(ring, _, _)| *ring != routing.ring) {
                let bytes: RingBytes = routing.ring.encode().into();
                self.rings.insert(name.clone(), (routing.ring.clone(), RingDigest::of(&bytes), bytes));
            }
            let packed = PackedService {
                route: routing.route.clone(),
                balancing: routing.balancing.clone(),
                resilience: routing.resilience.clone(),
                ring: self.rings[name].1,
                endpoints: routing.endpoints.clone(),
                demand: routing.demand,
            };
            services.insert(name.clone(), packed);
        }
        PackedSnapshot {
            generation: snapshot.generation,
            listeners: snapshot.listeners.clone(),
            services,
            assignment_api: snapshot.assignment_api.clone(),
            front: snapshot.front.clone(),
        }
    }

    /// The rings of the snapshot that was packed last.
    pub fn rings(&self) -> BTreeMap<RingDigest, RingBytes> {
        self.rings.values().map(|(_, digest, bytes)| (*digest, Arc::clone(bytes))).collect()
    }
}

impl Unpacker {
    /// Takes a ring that a snapshot to come will name.
    ///
    /// # Errors
    /// [`UnpackError`] if the bytes are not those of the digest, or make no ring.
    pub fn take(&mut self, digest: RingDigest, bytes: RingBytes) -> Result<(), UnpackError> {
        if RingDigest::of(&bytes) != digest {
            return Err(UnpackError::Digest);
        }
        let ring = Ring::decode(&bytes)?;
        self.rings.insert(digest, (ring, bytes));
        Ok(())
    }

    /// Unpacks a snapshot, and forgets the rings that it does not name.
    ///
    /// # Errors
    /// [`UnpackError`] if one of its rings has not come, or it contradicts itself. Then nothing is forgotten.
    pub fn unpack(&mut self, packed: &PackedSnapshot) -> Result<Snapshot, UnpackError> {
        let mut services = BTreeMap::new();
        for (name, service) in &packed.services {
            let ring = self.rings.get(&service.ring).map(|(ring, _)| ring.clone());
            let ring = ring.ok_or_else(|| UnpackError::RingMissing(name.clone()))?;
            let in_place = |(ordinal, endpoint): (&Ordinal, &Endpoint)| {
                endpoint.replica.service == *name && endpoint.replica.ordinal == *ordinal
            };
            if ring.policy() != service.balancing.policy || !service.endpoints.iter().all(in_place) {
                return Err(UnpackError::Contradiction(name.clone()));
            }
            let routing = ServiceRouting {
                name: name.clone(),
                route: service.route.clone(),
                balancing: service.balancing.clone(),
                resilience: service.resilience.clone(),
                ring,
                endpoints: service.endpoints.clone(),
                demand: service.demand,
            };
            services.insert(name.clone(), Arc::new(routing));
        }
        self.rings.retain(|digest, _| packed.services.values().any(|service| service.ring == *digest));
        Ok(Snapshot {
            generation: packed.generation,
            listeners: packed.listeners.clone(),
            services,
            assignment_api: packed.assignment_api.clone(),
            front: packed.front.clone(),
        })
    }

    /// The rings that are known.
    pub fn rings(&self) -> BTreeMap<RingDigest, RingBytes> {
        self.rings.iter().map(|(digest, (_, bytes))| (*digest, Arc::clone(bytes))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Attempt;
    use crate::ring::{RingMember, fresh};
    use crate::snapshot::{EndpointReport, Report, ServiceReport};

    fn snapshot(names: &[&str], members: u16) -> Snapshot {
        let balancing = Balancing::default();
        let member = |n: u16| RingMember { ordinal: Ordinal(n), name: format!("m-{n}"), weight: 1 };
        let members: Vec<RingMember> = (0..members).map(member).collect();
        let service = |name: &&str| {
            let name = ServiceName::new(*name).unwrap();
            let replica =
                crate::ReplicaName { service: name.clone(), ordinal: Ordinal(1), attempt: Attempt(4) };
            let endpoint = Endpoint {
                replica,
                address: ([127, 0, 0, 1], 80).into(),
                weight: 1,
                new_since: Some(crate::Timestamp(5)),
            };
            let routing = ServiceRouting {
                name: name.clone(),
                route: RouteSpec::default(),
                balancing: balancing.clone(),
                resilience: Resilience::default(),
                ring: fresh(&balancing, 3, &members).unwrap(),
                endpoints: BTreeMap::from([(Ordinal(1), endpoint)]),
                demand: Some(Demand { hold: None }),
            };
            (name, Arc::new(routing))
        };
        Snapshot {
            generation: Generation(9),
            services: names.iter().map(service).collect(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn a_snapshot_comes_back_as_it_was_and_a_ring_travels_once() {
        let (mut packer, mut unpacker) = (Packer::default(), Unpacker::default());
        let before = snapshot(&["api", "web"], 3);
        let text = serde_json::to_string(&packer.pack(&before)).unwrap();
        assert_eq!(packer.rings().len(), 1, "both services have the same ring");
        let packed: PackedSnapshot = serde_json::from_str(&text).unwrap();
        assert_eq!(unpacker.unpack(&packed), Err(UnpackError::RingMissing(ServiceName::new("api").unwrap())));
        for (digest, bytes) in packer.rings() {
            unpacker.take(digest, bytes).unwrap();
        }
        assert_eq!(unpacker.unpack(&packed).unwrap(), before);
        let after = snapshot(&["web"], 4);
        let packed = packer.pack(&after);
        let known = unpacker.rings();
        for (digest, bytes) in packer.rings().into_iter().filter(|(digest, _)| !known.contains_key(digest)) {
            unpacker.take(digest, bytes).unwrap();
        }
        assert_eq!(unpacker.unpack(&packed).unwrap(), after);
        assert_eq!(unpacker.rings().len(), 1, "the old ring is forgotten");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let (mut packer, mut unpacker) = (Packer::default(), Unpacker::default());
        let mut packed = packer.pack(&snapshot(&["web"], 3));
        let (digest, bytes) = packer.rings().pop_first().unwrap();
        assert_eq!(unpacker.take(RingDigest(1), Arc::clone(&bytes)), Err(UnpackError::Digest));
        unpacker.take(digest, bytes).unwrap();
        let web = packed.services.first_entry().unwrap().into_mut();
        let endpoint = web.endpoints.remove(&Ordinal(1)).unwrap();
        web.endpoints.insert(Ordinal(2), endpoint);
        assert!(matches!(unpacker.unpack(&packed), Err(UnpackError::Contradiction(_))));
    }

    #[test]
    fn several_reports_say_what_the_slowest_and_the_sum_is() {
        let name: crate::ReplicaName = "web-1-0".parse().unwrap();
        let report = |acknowledged, in_flight, ejected| Report {
            acknowledged: Generation(acknowledged),
            endpoints: BTreeMap::from([(
                name.clone(),
                EndpointReport {
                    in_flight,
                    streams: in_flight / 2,
                    requests: 10,
                    failures: 1,
                    ejected,
                    ..EndpointReport::default()
                },
            )]),
            services: BTreeMap::from([(
                name.service.clone(),
                ServiceReport { waiting: in_flight, responses: 10, hottest_permille: Some(100) },
            )]),
            ..Report::default()
        };
        let all =
            Report::together([&report(7, 1, false), &report(5, 2, true), &report(9, 0, false)]).unwrap();
        assert_eq!(all.acknowledged, Generation(5));
        let told = ServiceReport { waiting: 3, responses: 30, hottest_permille: Some(100) };
        assert_eq!(all.services[&name.service], told);
        let sum = EndpointReport {
            in_flight: 3,
            streams: 1,
            requests: 30,
            failures: 3,
            ejected: true,
            ..EndpointReport::default()
        };
        assert_eq!(all.endpoints[&name], sum);
        assert_eq!(Report::together([]), None);
    }
}
