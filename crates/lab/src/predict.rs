//! What should come out, said before it is measured: from the ring itself, for the very policy and the very ids.
//!
//! The daemon tells a ring's shares, but not its table. The table is made again here with the code that makes it
//! there, and believed only if the daemon's `explain` agrees with it on a sample of keys.

use ringmaster_client::Client;
use ringmaster_core::api::{RingView, ServiceView};
use ringmaster_core::desired::{Member, ring_members};
use ringmaster_core::ring::{Ring, RingState, fresh};
use ringmaster_core::spec::{Balancing, HashOn, Policy};
use ringmaster_core::{Ordinal, ServiceName, members};

use crate::error::LabError;
use crate::load::Target;

/// How many keys the daemon is asked about.
const SAMPLE: usize = 48;
/// From how many replicas a ring may have come to its size.
const GROWN_FROM_MAX: usize = 8;

/// What a service's requests should do.
#[derive(Debug, Clone)]
pub struct Prediction {
    /// The policy, and what is hashed.
    pub balancing: Balancing,
    /// Each replica's share of all keys, ascending by ordinal; each the same where nothing is hashed.
    pub shares: Vec<(Ordinal, f64)>,
    /// How the policy places keys, in one line.
    pub description: String,
    /// The table, where it is known exactly and a request's id is its key.
    ring: Option<Ring>,
}

impl Prediction {
    /// Of a service as it is now.
    ///
    /// # Errors
    /// [`LabError::Client`] if the daemon does not answer.
    pub async fn of(
        client: &Client,
        view: &ServiceView,
        target: &Target,
        ids: &[u32],
    ) -> Result<Prediction, LabError> {
        let shown = client.ring(&view.name, None).await?;
        let balancing = view.spec.balancing.clone();
        let members = members_of(view);
        let mut prediction = Prediction {
            shares: shown.replicas.iter().map(|replica| (replica.ordinal, replica.share)).collect(),
            description: shown.description.clone(),
            balancing,
            ring: None,
        };
        if !prediction.has_keys() {
            prediction.shares = by_weight(&prediction.balancing, &prediction.shares);
            return Ok(prediction);
        }
        if let Some(key) = prediction.one_key(target) {
            let owner = client.explain(&view.name, &key, None).await?.owner;
            let all = |ordinal: Ordinal| if Some(ordinal) == owner { 1.0 } else { 0.0 };
            prediction.shares.iter_mut().for_each(|(ordinal, share)| *share = all(*ordinal));
            return Ok(prediction);
        }
        let sample: Vec<String> = ids.iter().take(SAMPLE).map(ToString::to_string).collect();
        let mut owners = Vec::with_capacity(sample.len());
        for key in &sample {
            owners.push(client.explain(&view.name, key, None).await?.owner);
        }
        let agrees = |ring: &Ring| {
            shares_agree(ring, &shown)
                && sample
                    .iter()
                    .zip(&owners)
                    .all(|(key, owner)| ring.owner(ring.hash(key.as_bytes())) == *owner)
        };
        let ring = rings(&prediction.balancing, &view.name, &members, seed_of(&shown)).find(agrees);
        prediction.ring = ring;
        Ok(prediction)
    }

    /// Of a balancer whose ring is not ours: every replica is meant to get as much as any other.
    pub fn even(ordinals: &[Ordinal], description: &str) -> Prediction {
        let share = 1.0 / ordinals.len().max(1) as f64;
        Prediction {
            balancing: Balancing::default(),
            shares: ordinals.iter().map(|ordinal| (*ordinal, share)).collect(),
            description: description.to_owned(),
            ring: None,
        }
    }

    /// Of a ring that nobody serves: for the report, and for tests.
    ///
    /// # Errors
    /// [`LabError::Input`] if the settings make no ring.
    pub fn fresh(
        balancing: &Balancing,
        service: &ServiceName,
        replicas: usize,
    ) -> Result<Prediction, LabError> {
        let wrong = |error: &dyn std::fmt::Display| LabError::Input(error.to_string());
        let members = members::resize(&[], replicas).map_err(|error| wrong(&error))?;
        let ring = fresh(balancing, 0, &ring_members(service, balancing, &members))
            .map_err(|error| wrong(&error))?;
        let shares = ring.shares().into_iter().map(|share| (share.ordinal, share.share)).collect();
        Ok(Prediction {
            balancing: balancing.clone(),
            shares,
            description: ring.describe(),
            ring: Some(ring),
        })
    }

    /// Whether a key decides which replica answers.
    pub fn has_keys(&self) -> bool {
        self.balancing.policy.hashes() && !self.keys().is_empty()
    }

    /// What is hashed, in words; empty where nothing is.
    pub fn keys(&self) -> &[HashOn] {
        self.balancing.hash_on.under(self.balancing.policy)
    }

    /// The key of all requests, where it is not their id: one path from one address.
    fn one_key(&self, target: &Target) -> Option<String> {
        match self.keys().first()? {
            HashOn::Path => Some(target.path.clone()),
            HashOn::ClientIp => Some(target.address.ip().to_string()),
            HashOn::RequestId
            | HashOn::Header(_)
            | HashOn::Cookie(_)
            | HashOn::SetCookie(_)
            | HashOn::Query(_) => None,
        }
    }

    /// Each replica's expected count of so many requests, by its share of all keys.
    pub fn expected(&self, requests: u64) -> Vec<f64> {
        self.shares.iter().map(|(_, share)| share * requests as f64).collect()
    }

    /// Whose each of these very ids is; none where that cannot be known beforehand.
    pub fn owners(&self, ids: &[u32]) -> Option<Vec<Option<Ordinal>>> {
        let ring = self.ring.as_ref()?;
        let balancing = &self.balancing;
        if !self.has_keys() || balancing.bounded_load.is_some() || balancing.slow_start.is_some() {
            return None;
        }
        let owner = |id: &u32| ring.owner(ring.hash(id.to_string().as_bytes()));
        Some(ids.iter().map(owner).collect())
    }

    /// The share of all keys that have another owner in the other ring; none where no key decides.
    pub fn moved_to(&self, other: &Prediction) -> Option<f64> {
        let (before, after) = (self.ring.as_ref()?, other.ring.as_ref()?);
        (self.has_keys() && other.has_keys()).then(|| before.moved_to(after).share)
    }

    /// Why it comes out as it does, for people.
    pub fn reason(&self) -> String {
        let even = self.shares.iter().all(|(_, share)| (share * self.shares.len() as f64 - 1.0).abs() < 1e-3);
        match (&self.ring, self.balancing.policy) {
            (_, policy) if !self.has_keys() => match policy {
                Policy::RoundRobin => "in turns: every replica gets every N-th request".to_owned(),
                Policy::LeastRequest => {
                    "to the one with the fewest requests in flight; ties to the one that served fewer"
                        .to_owned()
                }
                _ => "to the less loaded of two random replicas".to_owned(),
            },
            (Some(Ring::Assignment(ring)), _) => {
                let (rules, total) = (ring.rules(), f64::from(ring.rules().slots()));
                let most = ring.shares().into_iter().max_by_key(|share| share.slots);
                let most = most.map_or(String::new(), |share| {
                    let part = 100.0 * share.slots as f64 / total;
                    format!("; server {} lies before {part:.0} % of the slots", share.ordinal.server_id())
                });
                let (reached, slots) = (rules.slots_reached(), rules.slots());
                format!(
                    "H reaches {reached} of {slots} slots, as even as {:.0}{most}",
                    rules.effective_slots()
                )
            }
            _ if even => format!("equal shares: {}", self.description),
            _ => self.description.clone(),
        }
    }
}

/// The share of all keys that get another owner when a service whose ring was made with one replica fewer grows to
/// so many; none where no key decides.
///
/// # Errors
/// [`LabError::Input`] if the settings make no ring.
pub fn moved_by_step(
    balancing: &Balancing,
    service: &ServiceName,
    replicas: usize,
) -> Result<Option<f64>, LabError> {
    if !balancing.policy.hashes() || balancing.hash_on.under(balancing.policy).is_empty() {
        return Ok(None);
    }
    let wrong = |error: &dyn std::fmt::Display| LabError::Input(error.to_string());
    let sized = |count: usize| {
        let members = members::resize(&[], count).map_err(|error| wrong(&error))?;
        Ok::<_, LabError>(ring_members(service, balancing, &members))
    };
    let mut state = RingState::new(balancing, 0).map_err(|error| wrong(&error))?;
    state.update(balancing, &sized(replicas.saturating_sub(1))?).map_err(|error| wrong(&error))?;
    let moved = state.update(balancing, &sized(replicas)?).map_err(|error| wrong(&error))?;
    Ok(Some(moved.share))
}

/// Rings that the daemon's may be: made at once with these members, grown or shrunk from another number, or shrunk
/// and then grown one by one, as a2 does it.
fn rings(
    balancing: &Balancing,
    service: &ServiceName,
    members: &[Member],
    seed: u64,
) -> impl Iterator<Item = Ring> {
    let wanted = ring_members(service, balancing, members);
    let count = members.len();
    let sized = |count: usize| Some(ring_members(service, balancing, &members::resize(&[], count).ok()?));
    let along = move |path: Vec<usize>| {
        let mut state = RingState::new(balancing, seed).ok()?;
        for count in path {
            state.update(balancing, &sized(count)?).ok()?;
        }
        state.update(balancing, &wanted).ok()?;
        Some(state.ring())
    };
    let direct = (0..=GROWN_FROM_MAX).map(|from| vec![from]);
    let step_by_step = (0..=GROWN_FROM_MAX).flat_map(move |from| {
        (1..count).rev().map(move |low| std::iter::once(from).chain(low..count).collect())
    });
    direct.chain(step_by_step).filter_map(along)
}

/// Without a key, each gets as much as its weight.
fn by_weight(balancing: &Balancing, shares: &[(Ordinal, f64)]) -> Vec<(Ordinal, f64)> {
    let weight = |ordinal: Ordinal| f64::from(balancing.weight(ordinal));
    let total: f64 = shares.iter().map(|(ordinal, _)| weight(*ordinal)).sum();
    shares.iter().map(|(ordinal, _)| (*ordinal, weight(*ordinal) / total.max(1.0))).collect()
}

fn shares_agree(ring: &Ring, shown: &RingView) -> bool {
    let own = ring.shares();
    own.len() == shown.replicas.len()
        && own.iter().zip(&shown.replicas).all(|(own, shown)| {
            own.ordinal == shown.ordinal && own.slots == shown.slots && (own.share - shown.share).abs() < 1e-9
        })
}

/// The seed that a slot table's description names: `… table <seed>-<epoch>`.
fn seed_of(shown: &RingView) -> u64 {
    let id = shown.description.rsplit_once("table ").map_or("", |(_, id)| id);
    let seed = id.split_once('-').map_or("", |(seed, _)| seed);
    u64::from_str_radix(seed, 16).unwrap_or_default()
}

/// The members that a service has, as its status tells them.
fn members_of(view: &ServiceView) -> Vec<Member> {
    let statuses = view.status.iter().flat_map(|status| &status.members);
    let mut members: Vec<Member> = statuses
        .map(|member| {
            let unnamed = Member { ordinal: member.ordinal, host: None };
            let named = member.display_name != unnamed.display_name();
            Member { host: named.then(|| member.display_name.clone()), ..unnamed }
        })
        .collect();
    members.sort_by_key(|member| member.ordinal);
    members.dedup_by_key(|member| member.ordinal);
    members
}

#[cfg(test)]
mod tests {
    use ringmaster_core::spec::HashKeys;

    use super::*;

    fn web() -> ServiceName {
        ServiceName::new("web").unwrap()
    }

    #[test]
    fn the_assignment_is_predicted_as_the_golden_shares_say() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../core/tests/ring-golden.json")).unwrap();
        let balancing = Balancing { policy: Policy::Assignment, ..Balancing::default() };
        for count in 2..=6_usize {
            let prediction = Prediction::fresh(&balancing, &web(), count).unwrap();
            let golden = &golden["assignment-linear-j0"]["shares"][format!("N={count} ids 1..{count}")];
            for (ordinal, expected) in
                prediction.shares.iter().map(|(o, _)| o).zip(prediction.expected(900_000))
            {
                let counted = golden["counts"][ordinal.server_id().to_string()].as_f64().unwrap();
                assert!((expected - counted).abs() < 1e-3, "N={count} {ordinal}: {expected} for {counted}");
            }
        }
        let three = Prediction::fresh(&balancing, &web(), 3).unwrap();
        let rounded: Vec<u64> = three.expected(10_000).iter().map(|count| count.round() as u64).collect();
        assert_eq!(rounded, [8_437, 469, 1_094]);
        assert!(three.reason().starts_with("H reaches 87 of 512 slots"), "{}", three.reason());
    }

    #[test]
    fn owners_of_all_ids_are_the_shares() {
        let balancing = Balancing { policy: Policy::Assignment, ..Balancing::default() };
        let prediction = Prediction::fresh(&balancing, &web(), 3).unwrap();
        let all: Vec<u32> = (100_000..=999_999).collect();
        let owners = prediction.owners(&all).unwrap();
        for (ordinal, share) in &prediction.shares {
            let owned = owners.iter().filter(|owner| **owner == Some(*ordinal)).count();
            assert_eq!(owned, (share * 900_000.0).round() as usize, "{ordinal}");
        }
    }

    #[test]
    fn without_a_key_shares_are_even_and_nothing_is_known_beforehand() {
        let prediction = Prediction::fresh(&Balancing::default(), &web(), 4).unwrap();
        assert!(!prediction.has_keys());
        assert_eq!(prediction.owners(&[123_456]), None);
        let hashed = Balancing { hash_on: HashKeys::from(HashOn::RequestId), ..Balancing::default() };
        let hashed = Prediction::fresh(&hashed, &web(), 4).unwrap();
        assert!(hashed.has_keys() && hashed.owners(&[123_456]).unwrap()[0].is_some());
        let five = Prediction::fresh(&hashed.balancing, &web(), 5).unwrap();
        assert!(hashed.moved_to(&five).unwrap() > 0.19);
    }

    #[test]
    fn a_table_that_grew_step_by_step_is_among_those_that_are_tried() {
        let balancing = Balancing { hash_on: HashKeys::from(HashOn::RequestId), ..Balancing::default() };
        let sized = |count| members::resize(&[], count).unwrap();
        let mut state = RingState::new(&balancing, 9).unwrap();
        for count in [3, 2, 3, 4, 5, 6] {
            state.update(&balancing, &ring_members(&web(), &balancing, &sized(count))).unwrap();
        }
        let grown = state.ring();
        let owns_alike = |ring: &Ring| {
            (100_000_u32..110_000).all(|id| {
                let key = id.to_string();
                ring.owner(ring.hash(key.as_bytes())) == grown.owner(grown.hash(key.as_bytes()))
            })
        };
        assert!(rings(&balancing, &web(), &sized(6), 9).any(|ring| owns_alike(&ring)));
        assert!(!rings(&balancing, &web(), &sized(6), 10).any(|ring| owns_alike(&ring)), "another seed");
    }

    #[test]
    fn a_step_of_the_default_policy_moves_the_fewest_keys() {
        let hashed =
            |policy| Balancing { policy, hash_on: HashKeys::from(HashOn::RequestId), ..Balancing::default() };
        for replicas in 3..=6 {
            let moved = moved_by_step(&hashed(Policy::SlotTable), &web(), replicas).unwrap().unwrap();
            assert!((moved * replicas as f64 - 1.0).abs() < 1e-3, "{replicas}: {moved}");
        }
        assert_eq!(moved_by_step(&hashed(Policy::P2c), &web(), 3).unwrap(), None);
    }

    #[test]
    fn a_table_names_its_seed() {
        let balancing = Balancing { hash_on: HashKeys::from(HashOn::RequestId), ..Balancing::default() };
        let members = members::resize(&[], 3).unwrap();
        let ring = fresh(&balancing, 0xfeed_beef, &ring_members(&web(), &balancing, &members));
        assert_eq!(seed_of(&RingView::of(&web(), &ring.unwrap())), 0xfeed_beef);
    }
}
