//! The verbs that need no replicas, and what a person sees of the others.

use crate::common::{Daemon, On, cli, free_address, shared};

#[tokio::test(flavor = "multi_thread")]
async fn verbs_without_a_daemon_work_without_one() {
    let _shared = shared().await;
    let nobody = free_address();
    let (code, out, _) = cli(nobody, &["schema"]).await;
    let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(code == Some(0) && schema["$schema"].is_string(), "{out}");
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = cli(nobody, &["completions", shell]).await;
        assert!(code == Some(0) && out.contains("describe"), "{shell}");
    }
    let (code, out, _) = cli(nobody, &["version"]).await;
    assert!(
        code == Some(0) && out.contains("ringmaster 0.") && out.contains("none: no ringmaster daemon"),
        "{out}"
    );
    for verb in [
        "apply",
        "diff",
        "get",
        "describe",
        "scale",
        "delete",
        "logs",
        "events",
        "kill",
        "validate",
        "simulate",
        "serve",
        "top",
        "log-level",
    ] {
        let (code, out, _) = cli(nobody, &[verb, "--help"]).await;
        assert!(code == Some(0) && out.contains("Example"), "{verb}: {out}");
    }
    let (code, _, err) = cli(nobody, &["aply"]).await;
    assert!(code == Some(2) && err.contains("apply"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_simulated_without_a_daemon() {
    let _shared = shared().await;
    let nobody = free_address();
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/replicas.yaml");
    let (code, out, err) = cli(nobody, &["simulate", "-f", manifest, "--seeds", "5"]).await;
    assert!(code == Some(0) && out.contains("S6 drain") && out.contains("these promises hold"), "{out}{err}");
    let (code, out, _) = cli(nobody, &["simulate", "--seed", "7", "--faults", "killed"]).await;
    assert!(code == Some(0) && out.starts_with("SEED=7 ") && out.contains("FAULT killed"), "{out}");
    let (code, _, err) = cli(nobody, &["simulate", "--faults", "kiled"]).await;
    assert!(code == Some(2) && err.contains("is no fault"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_for_people_and_for_scripts() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 2, "")).await;
    let get = |arguments: &'static [&'static str]| async { daemon.cli(arguments).await.1 };
    assert!(
        get(&["get", "services"])
            .await
            .starts_with("NAME   READY   UPDATED   STATUS   REVISION\nweb    2/2     2         Ready")
    );
    assert_eq!(get(&["get", "services", "-o", "name"]).await, "service/web\n");
    assert_eq!(get(&["get", "replicas", "-o", "name"]).await, "replica/web-0\nreplica/web-1\n");
    assert_eq!(get(&["get", "replicas", "replica/web-1", "-o", "name"]).await, "replica/web-1\n");
    let json: serde_json::Value =
        serde_json::from_str(&get(&["get", "replicas", "-o", "json"]).await).unwrap();
    assert_eq!(json[1]["name"], "web-1");
    // What `get -o yaml` prints is a manifest that changes nothing.
    let yaml = get(&["get", "services", "web", "-o", "yaml"]).await;
    assert!(!daemon.apply(&yaml).await.changes(), "{yaml}");
    let (code, _, err) = daemon.cli(&["get", "services", "nothing"]).await;
    assert!(code == Some(1) && err.contains("no service `nothing`"), "{err}");
    assert!(get(&["logs", "web-0"]).await.ends_with('\n'));
    let (code, _, err) = daemon.cli(&["delete", "nothing", "web"]).await;
    assert!(code == Some(1) && err.contains("no service `nothing`"), "{err}");
    assert_eq!(daemon.status("web").await, None, "one wrong name does not keep the others");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_owns_the_listeners() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let other = free_address();
    let gateway = |listeners: &str| {
        format!(
            "apiVersion: ringmaster/v1\nkind: Gateway\nmetadata: {{ name: default }}\nspec: {{ listeners: [{listeners}] }}\n"
        )
    };
    let web = daemon.manifest("web", 1, "");
    let named = gateway(&format!("{{ name: http, port: {} }}", other.port()));
    daemon.apply_and_converge("web", &format!("{named}---\n{web}")).await;
    let moved = || async {
        let listeners = daemon.client.version().await.unwrap().listeners;
        (listeners == [other.to_string()]).then_some(())
    };
    crate::common::eventually("the port moves", moved).await;
    assert_eq!(reqwest::get(format!("http://{other}/home")).await.unwrap().status(), 200);
    assert!(tokio::net::TcpStream::connect(daemon.setup.listen).await.is_err());
}
