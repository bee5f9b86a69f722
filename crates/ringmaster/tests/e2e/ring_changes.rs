//! What a change of the ring costs: told before, refused beyond a limit, softened by a slow start, and nothing when
//! its table is lost.

use ringmaster_core::Ordinal;
use ringmaster_core::api::RingView;
use ringmaster_core::ring::explain::SkipReason;
use ringmaster_core::status::{Phase, ReplicaStatus};

use crate::common::{Daemon, On, name, shared};

const HASHED: &str = "  balancing: { hashOn: requestId }\n";

async fn shares(daemon: &Daemon) -> Vec<(Ordinal, u64)> {
    let view: RingView = daemon.client.ring(&name("web"), None).await.unwrap();
    view.replicas.iter().map(|replica| (replica.ordinal, replica.slots)).collect()
}

async fn owner(daemon: &Daemon, key: u32, replicas: Option<u32>) -> Option<Ordinal> {
    daemon.client.explain(&name("web"), &key.to_string(), replicas).await.unwrap().owner
}

/// Sends requests that all have one key.
async fn ask(daemon: &Daemon, key: &str, times: u32) {
    let client = reqwest::Client::new();
    for _ in 0..times {
        let request = client.get(format!("http://{}/home", daemon.setup.listen)).header("x-request-id", key);
        assert!(request.send().await.unwrap().status().is_success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_tells_what_it_moves_and_is_refused_beyond_a_limit() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 3, HASHED)).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yaml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, daemon.manifest("web", 4, HASHED)).unwrap();
    let (code, out, _) = daemon.cli(&["diff", "-f", path]).await;
    assert!(
        code == Some(1) && out.contains("# web: 25.0 % of the keys move, max/mean 1.0000 → 1.0000"),
        "{out}"
    );
    assert!(!out.contains("requests of the last"), "nothing has been asked yet: {out}");

    // The one key that is asked for moves: to the traffic there is, the change is all or nothing.
    let mut key = 0;
    while owner(&daemon, key, None).await == owner(&daemon, key, Some(4)).await {
        key += 1;
    }
    ask(&daemon, &key.to_string(), 40).await;
    let (_, out, _) = daemon.cli(&["diff", "-f", path]).await;
    let told = "# web: of the 40 requests of the last 5 minutes about 100.0 % would go elsewhere";
    assert!(out.contains(told), "{out}");

    let before = shares(&daemon).await;
    for limit in ["24.9%", "0.2"] {
        let (code, _, err) = daemon.cli(&["apply", "-f", path, "--max-move", limit]).await;
        assert!(code == Some(1) && err.contains("25.0 % of the keys would move"), "{code:?} {err}");
    }
    assert_eq!(shares(&daemon).await, before, "a refusal leaves everything as it was");
    let (code, _, err) = daemon.cli(&["apply", "-f", path, "--max-move", "120%"]).await;
    assert!(code == Some(2) && err.contains("from 0% to 100%"), "{code:?} {err}");
    let (code, _, err) = daemon.cli(&["apply", "-f", path, "--max-move", "25%"]).await;
    assert_eq!(code, Some(0), "{err}");

    let (_, out, _) = daemon.cli(&["ring", "web", "--replicas", "8"]).await;
    assert!(out.contains("web-7") && out.contains("12.5000 %"), "{out}");
    assert!(out.contains("\n50.0 % of the keys would move\n"), "{out}");
    assert_eq!(shares(&daemon).await.len(), 4, "a look changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_applied_without_replacing_anybody() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let before = daemon.apply_and_converge("web", &daemon.manifest("web", 3, HASHED)).await;
    let weighted = "  balancing: { hashOn: requestId, weights: [2, 1] }\n";
    let after = daemon.apply_and_converge("web", &daemon.manifest("web", 3, weighted)).await;
    let names = |status: &ringmaster_core::status::ServiceStatus| {
        status.members.iter().map(|member| member.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&before), names(&after));
    let slots: Vec<u64> = shares(&daemon).await.into_iter().map(|(_, slots)| slots).collect();
    assert_eq!(slots, [32_768, 16_384, 16_384]);
    let nobody = daemon.manifest("web", 2, "  balancing: { weights: [0, 0] }\n");
    let refused = daemon.try_apply(&nobody).await.unwrap_err().to_string();
    assert!(refused.contains("all weights are 0"), "{refused}");
    // Scaling down to those of weight 0 is refused as well.
    let last = daemon.manifest("web", 3, "  balancing: { weights: [0, 0] }\n");
    daemon.apply_and_converge("web", &last).await;
    let (code, _, err) = daemon.cli(&["scale", "web", "--replicas", "2"]).await;
    assert!(code != Some(0) && err.contains("all weights are 0"), "{code:?} {err}");
    assert_eq!(daemon.status("web").await.unwrap().replicas, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_replica_starts_slowly_and_its_replacement_does_not_begin_again() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let slow = |count| daemon.manifest("web", count, "  balancing: { hashOn: requestId, slowStart: 10h }\n");
    daemon.apply_and_converge("web", &slow(3)).await;
    daemon.apply_and_converge("web", &slow(4)).await;
    let mut waiting = Vec::new();
    for key in 0..60_u32 {
        let explained = daemon.client.explain(&name("web"), &key.to_string(), None).await.unwrap();
        let skipped = explained.skipped.iter().find(|skipped| skipped.reason == SkipReason::SlowStart);
        if explained.owner == Some(Ordinal(3)) {
            assert_eq!(skipped.map(|skipped| skipped.ordinal), Some(Ordinal(3)), "{explained:?}");
            waiting.push((key, explained.serves().unwrap()));
        }
    }
    assert!(waiting.len() > 5, "{waiting:?}");
    for (key, serves) in &waiting {
        let request = reqwest::Client::new().get(format!("http://{}/home", daemon.setup.listen));
        let body = request.header("x-request-id", *key).send().await.unwrap().text().await.unwrap();
        assert!(body.contains(&format!("Server: {}\"", serves.server_id())), "{key} to {serves}: {body}");
    }
    // A replaced member takes over at once; the new one goes on where it was.
    for ordinal in [1, 3] {
        let replica = daemon.replica("web", ordinal).await;
        daemon.client.fault(&format!("web-{ordinal}"), "KILL").await.unwrap();
        daemon
            .until("web", "replaced", |status| {
                let is_new = |member: &ReplicaStatus| {
                    member.ordinal == replica.ordinal
                        && member.engine_name != replica.engine_name
                        && member.phase == Phase::Ready
                };
                status.is_converged() && status.members.iter().any(is_new)
            })
            .await;
    }
    let mut of_one = 0;
    for key in 0..60_u32 {
        let explained = daemon.client.explain(&name("web"), &key.to_string(), None).await.unwrap();
        assert!(explained.skipped.iter().all(|skipped| skipped.ordinal == Ordinal(3)), "{explained:?}");
        of_one += u32::from(explained.owner == Some(Ordinal(1)) && explained.serves() == Some(Ordinal(1)));
    }
    assert!(of_one > 5, "{of_one} keys went to the replacement at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ring_table_costs_no_key() {
    let _shared = shared().await;
    let mut daemon = Daemon::start(On::Process).await;
    for count in [2, 5, 3] {
        daemon.apply_and_converge("web", &daemon.manifest("web", count, HASHED)).await;
    }
    let mut owners = Vec::new();
    for key in 0..200_u32 {
        owners.push(daemon.client.explain(&name("web"), &key.to_string(), None).await.unwrap().owner);
    }
    daemon.end(rustix::process::Signal::KILL).await;
    for entry in std::fs::read_dir(daemon.setup.state.join("rings")).unwrap() {
        std::fs::write(entry.unwrap().path(), b"not a ring").unwrap();
    }
    daemon.restart().await;
    daemon.event("StateRecovered", "no key moves").await;
    for (key, owner) in owners.iter().enumerate() {
        let now = daemon.client.explain(&name("web"), &key.to_string(), None).await.unwrap().owner;
        assert_eq!(now, *owner, "key {key}");
    }
}
