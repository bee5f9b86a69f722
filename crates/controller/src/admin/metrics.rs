//! What is, as metrics: services, replicas and rings as they stand, added to what was counted; and where Prometheus
//! finds it all.
//!
//! Written down from the state when asked for, so that what is gone has no series.

mod scale;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ringmaster_core::desired::Desired;
use ringmaster_core::exposition::{Exposition, Kind};
use ringmaster_core::ring::{Ring, Share};
use ringmaster_core::rollout::Stage;
use ringmaster_core::status::{Condition, ConditionKind, Phase, ServiceStatus};
use ringmaster_core::{Ordinal, ServiceName};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::AdminState;
use crate::reconcile::Board;

const PHASES: [Phase; 9] = [
    Phase::Pending,
    Phase::Starting,
    Phase::Ready,
    Phase::NotReady,
    Phase::Paused,
    Phase::Draining,
    Phase::Terminating,
    Phase::Exited,
    Phase::CrashLoopBackOff,
];

/// The shares of each service's ring, counted once for each ring.
#[derive(Debug, Default)]
pub(crate) struct Shares(Mutex<BTreeMap<ServiceName, (Ring, Vec<Share>)>>);

/// Serves `/metrics` alone, without a token: for a scraper that should reach nothing else.
///
/// # Errors
/// If the listener fails.
pub async fn serve_metrics(
    listener: TcpListener,
    state: AdminState,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let app = Router::new().route("/metrics", get(metrics)).with_state(state);
    super::serve_router(listener, app, shutdown).await
}

pub(super) async fn metrics(State(state): State<AdminState>) -> Response {
    let data_plane = (state.daemon.data_plane)().await;
    let (desired, board) = (state.store.desired(), state.board.borrow().clone());
    let live: BTreeSet<&str> = desired.services.keys().map(ServiceName::as_str).collect();
    let is_live = |name: &str| live.contains(name);
    let counted = (state.daemon.metrics)(&is_live) + &data_plane;
    let snapshot = state.snapshots.borrow().generation.0;
    exposed(counted + &render(&desired, &board, snapshot, &state.shares))
}

/// An answer in the Prometheus text format.
pub(super) fn exposed(text: String) -> Response {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, text).into_response()
}

/// HTTP service discovery of Prometheus: this daemon, at the address where it is scraped.
pub(super) async fn targets(State(state): State<AdminState>, headers: HeaderMap) -> Json<Value> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let target = state.daemon.metrics_listen.map_or(host.to_owned(), |address| reached(host, address));
    let info = &state.daemon.info;
    let labels = json!({
        "__meta_ringmaster_instance": info.instance,
        "__meta_ringmaster_runtime": info.runtime,
        "__meta_ringmaster_version": info.version,
    });
    Json(json!([{ "targets": [target], "labels": labels }]))
}

/// A listener's address as whoever reached `host` reaches it.
fn reached(host: &str, listener: SocketAddr) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    match listener.ip().is_unspecified() && !name.is_empty() {
        true => format!("{name}:{}", listener.port()),
        false => listener.to_string(),
    }
}

fn render(desired: &Desired, board: &Board, snapshot: u64, shares: &Shares) -> String {
    let mut out = Exposition::new();
    services(&mut out, board);
    replicas(&mut out, board);
    rings(&mut out, desired, shares);
    scale::scale(&mut out, desired, board);
    out.family("ringmaster_engine_reachable", Kind::Gauge, "1 unless the engine does not answer.");
    out.sample(&[], u8::from(board.engine_error.is_none()));
    out.family("ringmaster_config_generation", Kind::Gauge, "The generation of the desired state.");
    out.sample(&[], desired.generation.0);
    out.family("ringmaster_snapshot_generation", Kind::Gauge, "The generation of the published routing.");
    out.sample(&[], snapshot);
    out.finish()
}

fn services(out: &mut Exposition, board: &Board) {
    let mut family = |name: &str, help: &str, value: &dyn Fn(&ServiceStatus) -> u32| {
        out.family(name, Kind::Gauge, help);
        for (service, status) in &board.statuses {
            out.sample(&[("service", service.as_str())], value(status));
        }
    };
    family("ringmaster_service_replicas_desired", "Replicas that are desired.", &|status| status.replicas);
    family("ringmaster_service_replicas_ready", "Replicas that get traffic.", &|status| status.ready);
    family("ringmaster_service_replicas_updated", "Ready replicas of the desired revision.", &|status| {
        status.updated
    });
    out.family(
        "ringmaster_service_rollout_stage",
        Kind::Gauge,
        "1 for the stage of the service's rollout: complete, progressing, paused, awaitingPromotion.",
    );
    for (service, status) in &board.statuses {
        for stage in Stage::ALL {
            let labels = [("service", service.as_str()), ("stage", stage.as_str())];
            out.sample(&labels, u8::from(status.rollout.stage == stage));
        }
    }
    out.family(
        "ringmaster_service_condition",
        Kind::Gauge,
        "1 while the condition holds: Available, Progressing, Degraded.",
    );
    for (service, status) in &board.statuses {
        for Condition { kind, status, .. } in &status.conditions {
            let kind = match kind {
                ConditionKind::Available => "Available",
                ConditionKind::Progressing => "Progressing",
                ConditionKind::Degraded => "Degraded",
            };
            out.sample(&[("service", service.as_str()), ("condition", kind)], u8::from(*status));
        }
    }
}

fn replicas(out: &mut Exposition, board: &Board) {
    out.family("ringmaster_replicas", Kind::Gauge, "Replicas by phase.");
    for (service, status) in &board.statuses {
        for phase in PHASES {
            let count = status.members.iter().filter(|member| member.phase == phase).count();
            out.sample(&[("service", service.as_str()), ("phase", &format!("{phase:?}"))], count);
        }
    }
    out.family(
        "ringmaster_replica_restarts_total",
        Kind::Counter,
        "How often a server's place was refilled after a failure.",
    );
    for (service, status) in &board.statuses {
        let mut restarts: BTreeMap<Ordinal, u32> = BTreeMap::new();
        for member in &status.members {
            let most = restarts.entry(member.ordinal).or_default();
            *most = member.restarts.max(*most);
        }
        for (ordinal, restarts) in restarts {
            out.sample(&[("service", service.as_str()), ("server", &ordinal.to_string())], restarts);
        }
    }
    out.family("ringmaster_replica_info", Kind::Gauge, "1 for each replica; its labels say which it is.");
    for (service, status) in &board.statuses {
        for member in &status.members {
            let Some(name) = &member.engine_name else { continue };
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let labels = [
                ("service", service.as_str()),
                ("server", &member.ordinal.to_string()),
                ("replica", name),
                ("phase", &format!("{:?}", member.phase)),
                ("id", &text(&member.id)),
                ("address", &text(&member.address)),
                ("revision", &text(&member.revision)),
            ];
            out.sample(&labels, 1);
        }
    }
}

fn rings(out: &mut Exposition, desired: &Desired, shares: &Shares) {
    let mut known = shares.0.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|name, _| desired.services.contains_key(name));
    for (name, service) in &desired.services {
        if known.get(name).is_none_or(|(ring, _)| *ring != service.ring) {
            known.insert(name.clone(), (service.ring.clone(), service.ring.shares()));
        }
    }
    out.family(
        "ringmaster_ring_share_ratio",
        Kind::Gauge,
        "Share of all keys that a server owns, or of turns where nothing is hashed.",
    );
    for (service, (_, shares)) in &*known {
        for share in shares {
            let labels = [("service", service.as_str()), ("server", &share.ordinal.to_string())];
            out.sample(&labels, share.share);
        }
    }
    out.family(
        "ringmaster_ring_expected_share_ratio",
        Kind::Gauge,
        "Share that a server should have by its weight.",
    );
    for (name, (_, shares)) in &*known {
        let Some(service) = desired.services.get(name) else { continue };
        let weight = |share: &Share| f64::from(service.spec.balancing.weight(share.ordinal));
        let total: f64 = shares.iter().map(weight).sum();
        for share in shares.iter().filter(|_| total > 0.0) {
            let labels = [("service", name.as_str()), ("server", &share.ordinal.to_string())];
            out.sample(&labels, weight(share) / total);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use ringmaster_core::Generation;
    use ringmaster_core::desired::{DesiredService, Member, ring_members};
    use ringmaster_core::ring::fresh;
    use ringmaster_core::spec::ServiceSpec;
    use ringmaster_core::status::ReplicaStatus;

    use super::*;

    const REPLICAS: u16 = 1_000;

    fn spec() -> ServiceSpec {
        let text = "apiVersion: ringmaster/v1\nkind: Service\nmetadata: { name: web }\n\
            spec: { template: { image: x } }\n";
        let source = ringmaster_core::manifest::Source { file: "test", text };
        let manifest = ringmaster_core::manifest::parse(&[source]).unwrap();
        manifest.services.into_values().next().unwrap().spec
    }

    fn world(replicas: u16) -> (Desired, Board) {
        let (name, spec) = (ServiceName::new("web").unwrap(), spec());
        let member = |n| Member { ordinal: Ordinal(n), host: None };
        let members: Vec<Member> = (0..replicas).map(member).collect();
        let ring = fresh(&spec.balancing, 1, &ring_members(&name, &spec.balancing, &members)).unwrap();
        let replica = |n| ReplicaStatus {
            name: format!("web-{n}"),
            engine_name: Some(format!("web-{n}-0")),
            ordinal: Ordinal(n),
            display_name: format!("web-{n}"),
            phase: Phase::Ready,
            message: String::new(),
            revision: Some("0123456789".to_owned()),
            updated: true,
            address: Some("127.0.0.1:1".to_owned()),
            id: Some("f".repeat(64)),
            created_at: None,
            restarts: 2,
            in_flight: 0,
            streams: 0,
            requests: 0,
            ejected: false,
            circuit: None,
            latency: None,
            drain_until: None,
            retry_at: None,
            failure: None,
        };
        let status = ServiceStatus {
            observed_generation: Generation(1),
            replicas: replicas.into(),
            ready: replicas.into(),
            updated: replicas.into(),
            revision: None,
            conditions: Vec::new(),
            members: (0..replicas).map(replica).collect(),
            rollout: Default::default(),
            progressed_at: ringmaster_core::Timestamp(0),
            autoscale: None,
        };
        let (generation, rollout) = (Generation(1), Default::default());
        let service = DesiredService { spec, generation, members, ring, rollout, deleting: false };
        let services = BTreeMap::from([(name.clone(), service)]);
        let desired = Desired { generation: Generation(1), services, ..Desired::default() };
        let statuses = BTreeMap::from([(name, status)]);
        (desired.clone(), Board { desired: Arc::new(desired), statuses, ..Board::default() })
    }

    #[test]
    fn a_thousand_replicas_are_rendered_within_a_tenth_of_a_second() {
        let ((desired, board), shares) = (world(REPLICAS), Shares::default());
        let timed = || {
            let started = Instant::now();
            (render(&desired, &board, 1, &shares), started.elapsed())
        };
        let ((text, first), (again, next)) = (timed(), timed());
        println!(
            "{} lines, {} KB in {first:.1?}, again in {next:.1?}",
            text.lines().count(),
            text.len() / 1024
        );
        assert_eq!(text, again);
        assert!(first.max(next) < Duration::from_millis(100), "{first:?} {next:?}");
        assert_eq!(text.matches("ringmaster_ring_share_ratio{").count(), usize::from(REPLICAS));
    }

    #[test]
    fn services_replicas_and_shares_are_told_as_they_stand() {
        let ((desired, board), shares) = (world(4), Shares::default());
        let text = render(&desired, &board, 7, &shares);
        for line in [
            "ringmaster_service_replicas_ready{service=\"web\"} 4",
            "ringmaster_replicas{service=\"web\",phase=\"Ready\"} 4",
            "ringmaster_service_rollout_stage{service=\"web\",stage=\"complete\"} 1",
            "ringmaster_service_rollout_stage{service=\"web\",stage=\"paused\"} 0",
            "ringmaster_replicas{service=\"web\",phase=\"CrashLoopBackOff\"} 0",
            "ringmaster_replica_restarts_total{service=\"web\",server=\"3\"} 2",
            "ringmaster_ring_share_ratio{service=\"web\",server=\"0\"} 0.25",
            "ringmaster_ring_expected_share_ratio{service=\"web\",server=\"3\"} 0.25",
            "ringmaster_engine_reachable 1",
            "ringmaster_snapshot_generation 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in:\n{text}");
        }
        let gone = render(&Desired::default(), &Board::default(), 8, &shares);
        assert!(!gone.contains("web"), "{gone}");
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_where_the_asker_reached_us() {
        let any: SocketAddr = "0.0.0.0:9464".parse().unwrap();
        assert_eq!(reached("127.0.0.1:5001", any), "127.0.0.1:9464");
        assert_eq!(reached("[::1]:5001", any), "[::1]:9464");
        assert_eq!(reached("[::1]", any), "[::1]:9464");
        assert_eq!(reached("daemon", any), "daemon:9464");
        assert_eq!(reached("daemon:1", "10.0.0.1:9".parse().unwrap()), "10.0.0.1:9");
    }
}
