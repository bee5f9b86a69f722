//! The desired state: what should be, as the store holds it and the planner reads it.

mod change;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Generation, Ordinal, ServiceName};
use crate::ring::{Ring, RingMember};
use crate::rollout::Rollout;
use crate::spec::{Balancing, GatewaySpec, ServiceSpec};

pub use change::ChangeError;

/// Everything that should be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// Grows by one with every accepted change.
    pub generation: Generation,
    /// The services by name.
    pub services: BTreeMap<ServiceName, DesiredService>,
    /// Where the data plane listens.
    pub gateway: GatewaySpec,
}

/// One service as it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredService {
    /// What the manifest said; its `replicas` is what was last applied, the live count is `members.len()`.
    pub spec: ServiceSpec,
    /// The desired state's generation when this service last changed.
    pub generation: Generation,
    /// The places to fill, ascending by ordinal.
    pub members: Vec<Member>,
    /// Which member owns which keys; changes only with `members` and `spec.balancing`.
    pub ring: Ring,
    /// What was decided about its rollouts.
    pub rollout: Rollout,
    /// It was deleted: it has no members, and goes once its last replica is gone.
    pub deleting: bool,
}

/// A place in the desired set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Member {
    /// Which place; every replacement inherits it.
    pub ordinal: Ordinal,
    /// The host name it was asked for with, if any (the assignment's `/add`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

impl Member {
    /// The name by which the assignment's `/rep` lists it: its host name, or `Server <id>`.
    pub fn display_name(&self) -> String {
        match &self.host {
            Some(host) => host.clone(),
            None => format!("Server {}", self.ordinal.server_id()),
        }
    }
}

/// The members as their ring sees them: named for what outlives replacements.
pub fn ring_members(service: &ServiceName, balancing: &Balancing, members: &[Member]) -> Vec<RingMember> {
    let named = |member: &Member| RingMember {
        ordinal: member.ordinal,
        name: member.host.clone().unwrap_or_else(|| format!("{service}-{}", member.ordinal)),
        weight: balancing.weight(member.ordinal),
    };
    members.iter().map(named).collect()
}

impl DesiredService {
    /// Whether `ordinal` is to be filled.
    pub fn has_member(&self, ordinal: Ordinal) -> bool {
        self.members.iter().any(|member| member.ordinal == ordinal)
    }

    /// The spec as it lives: with the live replica count.
    pub fn live_spec(&self) -> ServiceSpec {
        ServiceSpec { replicas: Some(self.members.len() as u32), ..self.spec.clone() }
    }
}
