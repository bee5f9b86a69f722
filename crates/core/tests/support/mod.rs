//! What the small worlds of the planner's tests are made of: one service, and its replicas.

use std::collections::BTreeMap;

use proptest::prelude::ProptestConfig;
use ringmaster_core::desired::{Desired, DesiredService};
use ringmaster_core::members::resize;
use ringmaster_core::observed::{ExitInfo, Health, Replica, ReplicaState, RuntimeId};
use ringmaster_core::ring::fresh;
use ringmaster_core::spec::{Balancing, ServiceSpec, Strategy};
use ringmaster_core::{Generation, ReplicaName, Revision, ServiceName, Timestamp};

/// The service.
pub(crate) fn web() -> ServiceName {
    ServiceName::new("web").unwrap()
}

/// The service alone, with so many replicas.
pub(crate) fn desired(replicas: usize, strategy: Strategy) -> Desired {
    let spec = serde_json::json!({ "replicas": replicas, "template": { "image": "x" } });
    let spec = ServiceSpec { strategy, ..serde_json::from_value(spec).unwrap() };
    let service = DesiredService {
        spec,
        generation: Generation(1),
        members: resize(&[], replicas).unwrap(),
        ring: fresh(&Balancing::default(), 1, &[]).unwrap(),
        rollout: Default::default(),
        deleting: false,
    };
    let services = BTreeMap::from([(web(), service)]);
    Desired { generation: Generation(1), services, gateway: Default::default() }
}

/// A replica as the engine has just made it.
pub(crate) fn made(name: ReplicaName, revision: Revision, id: u64, now: Timestamp) -> Replica {
    Replica {
        id: Some(RuntimeId(format!("id{id}"))),
        engine_name: name.to_string(),
        name,
        revision,
        state: ReplicaState::Running,
        address: Some(([127, 0, 0, 1], 1000).into()),
        created_at: now,
        host: None,
        health: Health::default(),
        pending: None,
        drift: Default::default(),
    }
}

/// It ends.
pub(crate) fn end(replica: &mut Replica, code: i32) {
    replica.state = ReplicaState::Exited(ExitInfo { code: Some(code), ..ExitInfo::default() });
    replica.address = None;
}

/// So many sequences of steps, or as many as PROPTEST_CASES says.
pub(crate) fn sequences(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { cases };
    ProptestConfig { cases, failure_persistence: None, ..default }
}
