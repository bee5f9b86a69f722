//! Every balancing policy on real replicas: requests go where `explain` says, and the ring survives a restart.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use ringmaster_core::api::RingView;

use crate::common::{Daemon, On, cli, free_address, shared};

const HASHING: [&str; 5] = ["slot-table", "maglev", "ring", "rendezvous", "assignment"];

/// Keys that are explained and asked for under each policy: 100,000 in all.
const KEYS: u32 = 20_000;
/// Keys under way at once.
const AT_ONCE: usize = 32;

async fn answer(daemon: &Daemon, client: &reqwest::Client, key: u32) -> String {
    let request = client.get(format!("http://{}/home", daemon.setup.listen)).header("x-request-id", key);
    request.send().await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_where_explain_says_under_every_policy_that_hashes() {
    let _shared = shared().await;
    let mut daemon = Daemon::start(On::Process).await;
    let client = reqwest::Client::new();
    for policy in HASHING {
        let balancing =
            // A hedge would ask another one when this machine is slow.
            format!(
                "  balancing: {{ policy: {policy}, hashOn: [{{ header: X-Absent }}, requestId] }}\n  resilience: {{ hedgeAfter: off }}\n"
            );
        daemon.apply_and_converge("web", &daemon.manifest("web", 4, &balancing)).await;
        let web = daemon.web.parse().unwrap();
        let (daemon, client, web) = (&daemon, &client, &web);
        let keys = (0..KEYS).map(|n| 100_000 + n * 45);
        let mut checks = stream::iter(keys)
            .map(|key| async move {
                let explained = daemon.client.explain(web, &key.to_string(), None).await.unwrap();
                (key, explained, answer(daemon, client, key).await)
            })
            .buffer_unordered(AT_ONCE);
        let mut owners = BTreeMap::new();
        while let Some((key, explained, body)) = checks.next().await {
            let owner = explained.owner.unwrap();
            let server = format!("Server: {}\"", owner.server_id());
            assert!(body.contains(&server), "{policy}: {key} of {owner}: {body}");
            assert_eq!(explained.candidates.len(), 4, "{policy}: {explained:?}");
            *owners.entry(owner).or_insert(0) += 1;
        }
        assert_eq!(owners.len(), 4, "{policy}: {owners:?}");
        assert_eq!(owners.values().sum::<u32>(), KEYS);
    }
    // The assignment's ring depends on how it came to be: it is kept, not made anew.
    daemon
        .apply_and_converge("web", &daemon.manifest("web", 2, "  balancing: { policy: assignment }\n"))
        .await;
    daemon
        .apply_and_converge("web", &daemon.manifest("web", 5, "  balancing: { policy: assignment }\n"))
        .await;
    let ring = |view: RingView| view.replicas.iter().map(|r| (r.ordinal, r.slots)).collect::<Vec<_>>();
    let before = ring(daemon.client.ring(&daemon.web.parse().unwrap(), None).await.unwrap());
    daemon.end(rustix::process::Signal::KILL).await;
    daemon.restart().await;
    assert_eq!(ring(daemon.client.ring(&daemon.web.parse().unwrap(), None).await.unwrap()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_do_not_hash_spread_requests_evenly() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    for (policy, tolerance) in [("round-robin", 1), ("least-request", 1), ("p2c", 30)] {
        // A new template gives new replicas, whose counts begin at nothing.
        let changed = format!("  balancing: {{ policy: {policy} }}\n");
        let manifest = daemon
            .manifest("web", 3, &changed)
            .replace("    resources:", &format!("    env: {{ ROUND: {policy} }}\n    resources:"));
        daemon.apply_and_converge("web", &manifest).await;
        let mut counts: BTreeMap<String, i32> = BTreeMap::new();
        let client = reqwest::Client::new();
        for key in 0..300 {
            *counts.entry(answer(&daemon, &client, key).await).or_default() += 1;
        }
        assert!(
            counts.len() == 3 && counts.values().all(|count| (count - 100).abs() <= tolerance),
            "{policy}: {counts:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_assignment_can_be_looked_at_without_a_daemon() {
    let _shared = shared().await;
    let nobody = free_address();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/assignment.yaml");
    let (code, out, err) = cli(nobody, &["ring", "-f", file, "-o", "json"]).await;
    assert_eq!(code, Some(0), "{err}");
    let view: RingView = serde_json::from_str(&out).unwrap();
    let shares: Vec<String> = view.replicas.iter().map(|r| format!("{:.2}", 100.0 * r.share)).collect();
    assert_eq!(shares, ["84.37", "4.69", "10.94"], "the golden shares of N = 3");
    assert!((view.max_over_mean - 2.5312).abs() < 1e-4, "{view:?}");
    let (_, out, _) = cli(nobody, &["ring", "-f", file]).await;
    assert!(out.contains("H reaches 87 of 512 slots") && out.contains("max/mean 2.5312"), "{out}");
    let (code, out, err) = cli(nobody, &["explain", "-f", file, "--key", "132574"]).await;
    assert!(code == Some(0) && out.contains("owner") && out.contains("then"), "{out}{err}");
    let (code, out, _) = cli(nobody, &["validate", "-f", file]).await;
    assert!(code == Some(0) && out.contains("warning") && out.contains("87 of 512"), "{out}");
    assert!(
        out.contains("expected shares web-0 84.37 %, web-1 4.69 %, web-2 10.94 %, max/mean 2.5312"),
        "{out}"
    );
    // A changed formula changes the ring.
    let folder = tempfile::tempdir().unwrap();
    let edited = folder.path().join("edited.yaml");
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(&edited, text.replace("i^2 + 2*i + 17", "11*i + 5")).unwrap();
    let (_, out, _) = cli(nobody, &["ring", "-f", edited.to_str().unwrap()]).await;
    assert!(out.contains("H reaches 512 of 512 slots"), "{out}");
    std::fs::write(&edited, text.replace("i^2 + 2*i + 17", "i / (i - i)")).unwrap();
    let (code, _, err) = cli(nobody, &["ring", "-f", edited.to_str().unwrap()]).await;
    assert!(code == Some(2) && err.contains("requestHash") && err.contains("edited.yaml:"), "{err}");
}
