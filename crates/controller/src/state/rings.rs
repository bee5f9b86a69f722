//! Ring tables that are lost or damaged: made again from what is left of them.
//!
//! A ring follows from its seed and from every change of its members since, so the revisions that are kept tell it:
//! they are replayed from the newest table that can be read, or from the ring's beginning. Only where that does not
//! lead to the very ring that is lost is a new one made, under the old seed, and the event says what that costs.

use std::collections::BTreeMap;
use std::fs;

use ringmaster_core::desired::ring_members;
use ringmaster_core::ring::{RingError, RingState};
use ringmaster_core::spec::Policy;
use ringmaster_core::{Generation, ServiceName};

use super::{StateDir, StateError, StoredRevision, StoredService, read_whole};

/// The rings of a revision.
#[derive(Debug, Default)]
pub(super) struct Rings {
    /// Of every service.
    pub(super) rings: BTreeMap<ServiceName, RingState>,
    /// What was lost and what that means, for the timeline.
    pub(super) damage: Vec<String>,
}

impl StateDir {
    /// Reads the rings of a revision, and mends those that are lost.
    pub(super) fn load_rings(&self, revision: &StoredRevision) -> Result<Rings, StateError> {
        let mut loaded = Rings::default();
        for (name, service) in &revision.services {
            let why = match self.read_ring(name, service) {
                Ok(ring) => {
                    loaded.rings.insert(name.clone(), ring);
                    continue;
                }
                Err(why) => why,
            };
            let (ring, outcome) = match self.replay(name, revision.generation)? {
                Some(ring) => (ring, "made again from its history: no key moves".to_owned()),
                None => begin_anew(name, service).map_err(|error| StateError::Unreadable {
                    root: self.root.clone(),
                    why: format!("service {name} has no ring ({why}), and none can be made: {error}"),
                })?,
            };
            loaded.damage.push(format!("ring table of {name} is lost ({why}): {outcome}"));
            loaded.rings.insert(name.clone(), ring);
        }
        Ok(loaded)
    }

    fn read_ring(&self, name: &ServiceName, service: &StoredService) -> Result<RingState, String> {
        let bytes = fs::read(self.ring_path(name, &service.ring)).map_err(|error| error.to_string())?;
        let balancing = &service.spec.balancing;
        let members = ring_members(name, balancing, &service.members);
        let ring = RingState::decode(&bytes, balancing, &members).map_err(|error| error.to_string())?;
        if ring.id() == service.ring { Ok(ring) } else { Err("it is another one's".to_owned()) }
    }

    /// The ring of a service at `current`, from its history; none if that does not lead there exactly.
    fn replay(&self, name: &ServiceName, current: Generation) -> Result<Option<RingState>, StateError> {
        let mut generations = self.generations()?;
        generations.retain(|generation| *generation <= current);
        generations.sort_unstable();
        let mut ring: Option<RingState> = None;
        for generation in generations {
            let revision: Option<StoredRevision> = read_whole(&self.revision_path(generation)).ok().flatten();
            let service = revision.as_ref().and_then(|revision| revision.services.get(name));
            ring = service.and_then(|service| self.step(name, service, ring.take()));
        }
        Ok(ring)
    }

    /// The ring of one revision: as it can be read, or as it follows from the one before.
    fn step(
        &self,
        name: &ServiceName,
        service: &StoredService,
        before: Option<RingState>,
    ) -> Option<RingState> {
        if let Ok(ring) = self.read_ring(name, service) {
            return Some(ring);
        }
        let balancing = &service.spec.balancing;
        let mut ring = match before {
            Some(ring) => ring,
            None => RingState::new(balancing, seed(&service.ring)?).ok()?,
        };
        ring.update(balancing, &ring_members(name, balancing, &service.members)).ok()?;
        // The name counts every change: only the very same changes lead to it.
        (ring.id() == service.ring).then_some(ring)
    }
}

/// A ring without a history, and what that costs.
fn begin_anew(name: &ServiceName, service: &StoredService) -> Result<(RingState, String), RingError> {
    let balancing = &service.spec.balancing;
    let mut ring = RingState::new(balancing, seed(&service.ring).unwrap_or_default())?;
    ring.update(balancing, &ring_members(name, balancing, &service.members))?;
    let outcome = match balancing.policy {
        Policy::SlotTable | Policy::Assignment => {
            // Two rings that know nothing of each other give a key to the same member with the sum of the squares.
            let stays: f64 = ring.ring().shares().iter().map(|share| share.share * share.share).sum();
            let moves = 100.0 * (1.0 - stays);
            format!("made anew, up to {moves:.0} % of the keys go to another replica")
        }
        _ => "it follows from the members alone: no key moves".to_owned(),
    };
    Ok((ring, outcome))
}

/// The seed in a ring's name.
fn seed(id: &str) -> Option<u64> {
    let (seed, _) = id.split_once('-')?;
    u64::from_str_radix(seed, 16).ok()
}

#[cfg(test)]
mod tests {
    use ringmaster_core::members;
    use ringmaster_core::spec::ServiceSpec;

    use super::*;

    /// A service that was scaled through these counts, one generation each, and its last ring.
    fn scaled(state: &StateDir, policy: &str, counts: &[usize]) -> (ServiceName, StoredRevision, RingState) {
        let web = ServiceName::new("web").unwrap();
        let spec = serde_json::json!({ "template": { "image": "x" }, "balancing": { "policy": policy } });
        let spec: ServiceSpec = serde_json::from_value(spec).unwrap();
        let mut ring = RingState::new(&spec.balancing, 0xfeed).unwrap();
        let (mut live, mut revision) = (Vec::new(), StoredRevision::default());
        for (count, generation) in counts.iter().zip(1..) {
            live = members::resize(&live, *count).unwrap();
            ring.update(&spec.balancing, &ring_members(&web, &spec.balancing, &live)).unwrap();
            let generation = Generation(generation);
            let service = StoredService {
                spec: spec.clone(),
                generation,
                members: live.clone(),
                ring: ring.id(),
                rollout: None,
                deleting: false,
            };
            let services = BTreeMap::from([(web.clone(), service)]);
            revision = StoredRevision { generation, services, ..StoredRevision::default() };
            state.save(&revision, &BTreeMap::from([(web.clone(), ring.clone())])).unwrap();
        }
        (web, revision, ring)
    }

    fn lose(state: &StateDir, revision: &StoredRevision, web: &ServiceName) {
        fs::write(state.ring_path(web, &revision.services[web].ring), b"damaged").unwrap();
    }

    #[test]
    fn a_lost_table_is_made_again_from_the_one_before() {
        for policy in ["slot-table", "assignment", "ring"] {
            let dir = tempfile::tempdir().unwrap();
            let state = StateDir::open(dir.path()).unwrap();
            let (web, revision, ring) = scaled(&state, policy, &[3, 7, 2, 5]);
            lose(&state, &revision, &web);
            let loaded = state.load_rings(&revision).unwrap();
            assert_eq!(loaded.rings[&web], ring, "{policy}");
            assert!(loaded.damage[0].ends_with("no key moves"), "{:?}", loaded.damage);
        }
    }

    #[test]
    fn lost_tables_are_made_again_from_their_seed_alone() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let (web, revision, ring) = scaled(&state, "slot-table", &[4, 2, 9]);
        fs::remove_dir_all(dir.path().join("rings")).unwrap();
        let loaded = state.load_rings(&revision).unwrap();
        assert_eq!(loaded.rings[&web], ring);
        assert!(loaded.damage[0].ends_with("no key moves"), "{:?}", loaded.damage);
    }

    #[test]
    fn a_table_without_a_history_is_made_anew_and_says_what_moves() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let (web, revision, ring) = scaled(&state, "slot-table", &[5, 2, 4]);
        fs::remove_dir_all(dir.path().join("rings")).unwrap();
        fs::remove_file(dir.path().join("revisions/rev-2")).unwrap();
        let loaded = state.load_rings(&revision).unwrap();
        assert_ne!(loaded.rings[&web], ring);
        assert!(
            loaded.damage[0].ends_with("up to 75 % of the keys go to another replica"),
            "{:?}",
            loaded.damage
        );
    }
}
