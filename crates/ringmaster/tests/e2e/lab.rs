//! The experiments with the real binary: what they write, what they promise, and that they leave the service as it was.

use std::path::Path;
use std::time::Duration;

use ringmaster_core::spec::ServiceSpec;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::common::{Daemon, On, cli, eventually, free_address, name, shared};

const HASHED: &str = "  balancing: { hashOn: requestId }\n";

async fn daemon() -> Daemon {
    let daemon = Daemon::start(On::Process).await;
    let gateway = "apiVersion: ringmaster/v1\nkind: Gateway\nmetadata: { name: default }\nspec:\n  \
                   assignmentApi: { service: web }\n";
    // Frozen replicas are replaced soon.
    let liveness = "    liveness: { httpGet: { path: /heartbeat }, period: 200ms, timeout: 200ms, failureThreshold: 3 }\n";
    let quick = "  strategy: { drain: 1s, terminationGrace: 1s }\n";
    let web = daemon.manifest("web", 3, &format!("{liveness}{quick}{HASHED}"));
    daemon.apply_and_converge("web", &format!("{gateway}---\n{web}")).await;
    daemon
}

async fn spec(daemon: &Daemon) -> ServiceSpec {
    daemon.client.service(&name("web")).await.unwrap().spec
}

fn result(folder: &Path, file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join(file)).unwrap()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_counts_what_was_predicted_and_restores_the_spec() {
    let _shared = shared().await;
    let daemon = daemon().await;
    let before = spec(&daemon).await;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    let (code, shown, err) =
        daemon.cli(&["lab", "a1", "--requests", "2000", "--runs", "3", "--out", text(out)]).await;
    // Chance, or a busy machine, may miss a promise about balance: then the exit code says so.
    assert!(matches!(code, Some(0 | 4)), "{code:?} {shown}{err}");
    assert!(shown.contains("web-2") && shown.contains("failed requests, as it is: 0 of 6000"), "{shown}");

    let a1 = result(out, "a1.json");
    assert_eq!((a1["policy"].as_str(), a1["requests"].as_u64()), (Some("slot-table"), Some(2_000)), "{a1:#}");
    assert_eq!((a1["failed"].as_u64(), a1["asPredicted"].as_u64()), (Some(0), Some(2_000)), "{a1:#}");
    assert_eq!(a1["seed"].as_u64(), Some(132_574));
    for field in ["maxOverMean", "chiSquare", "p"] {
        assert!(a1[field].is_number(), "{field}: {a1:#}");
    }
    assert!(matches!(a1["verdict"].as_str(), Some("pass" | "fail")), "{a1:#}");
    let replicas = a1["replicas"].as_array().unwrap();
    let names: Vec<&str> = replicas.iter().map(|replica| replica["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["web-0", "web-1", "web-2"]);
    for (ordinal, replica) in replicas.iter().enumerate() {
        assert_eq!(replica["ordinal"].as_u64(), Some(ordinal as u64));
        assert_eq!(replica["count"], replica["predicted"], "{replica}");
        assert!((replica["expected"].as_f64().unwrap() - 2_000.0 / 3.0).abs() < 1.0, "{replica}");
    }
    assert_eq!(a1["runs"].as_array().unwrap().len(), 3);
    let assignment = &a1["assignment"];
    assert_eq!((assignment["asPredicted"].as_u64(), assignment["failed"].as_u64()), (Some(2_000), Some(0)));
    assert!(assignment["p"].as_f64().unwrap() > 1e-4, "the golden shares: {assignment:#}");
    assert_eq!(a1["withoutHashOn"]["hashOn"], "nothing");

    for file in ["a1.csv", "a1.svg", "a1.png", "a1-runs.svg", "report.html"] {
        assert!(out.join(file).metadata().unwrap().len() > 500, "{file}");
    }
    let report = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(report.contains("<svg") && report.contains("a1: distribution"));
    assert!(
        !report.contains("src=\"http") && !report.contains("href=\"http"),
        "it asks nothing of the network"
    );
    assert_eq!(spec(&daemon).await, before, "the spec is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_loses_no_request_while_a_replica_lives() {
    let _shared = shared().await;
    let daemon = daemon().await;
    let before = spec(&daemon).await;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    let (code, shown, err) =
        daemon.cli(&["lab", "a3", "--requests", "400", "--rate", "200", "--out", text(out)]).await;
    assert!(matches!(code, Some(0 | 4)), "{code:?} {shown}{err}");
    let a3 = result(out, "a3.json");
    let endpoints = a3["endpoints"].as_array().unwrap();
    assert!(
        endpoints.len() == 8 && endpoints.iter().all(|endpoint| endpoint["pass"] == true),
        "{endpoints:#?}"
    );
    let faults = a3["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 5, "{shown}{err}");
    for fault in faults {
        assert!(fault["requests"].as_u64() >= Some(400) && fault["recoveredMs"].is_number(), "{fault:#}");
        if fault["survivable"] == true {
            assert_eq!(fault["failed"].as_u64(), Some(0), "{fault:#}");
        }
        for victim in fault["victims"].as_array().unwrap() {
            assert!(victim["outOfRingMs"].is_number() && victim["readyMs"].is_number(), "{fault:#}");
        }
    }
    assert!(a3["start"]["milliseconds"].as_f64() > Some(0.0), "{a3:#}");
    assert!(out.join("a3.png").exists() && out.join("report.html").exists());
    assert_eq!(spec(&daemon).await, before, "the spec is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_experiment_keeps_what_it_has_and_restores_the_spec() {
    let _shared = shared().await;
    let daemon = daemon().await;
    let before = spec(&daemon).await;
    let folder = tempfile::tempdir().unwrap();
    let mut lab = tokio::process::Command::new(env!("CARGO_BIN_EXE_ringmaster"))
        .args(["lab", "a2", "--requests", "500", "--rate", "300", "--out", text(folder.path())])
        .env("RINGMASTER_ADMIN", format!("http://{}", daemon.setup.admin))
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // In the middle of it: not with as many replicas as it found.
    eventually("it scales", || async { (spec(&daemon).await.replicas == Some(4)).then_some(()) }).await;
    let pid = rustix::process::Pid::from_raw(lab.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut lines = BufReader::new(lab.stderr.take().unwrap()).lines();
    let mut last = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        last = line;
    }
    let status = tokio::time::timeout(Duration::from_secs(30), lab.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(130), "{last}");
    assert!(last.starts_with("interrupted: the service is as it was"), "{last}");
    let a2 = result(folder.path(), "a2.json");
    assert_eq!(a2["verdict"], "incomplete", "{a2:#}");
    assert!(!a2["steps"].as_array().unwrap().is_empty());
    assert_eq!(spec(&daemon).await, before, "the spec is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_is_one_clear_line_and_changes_nothing() {
    let _shared = shared().await;
    let daemon = daemon().await;
    let before = daemon.client.overview().await.unwrap().generation;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (good, bad) = (text(folder.path()).to_owned(), text(&file).to_owned() + "/results");
    let cases: [(&[&str], i32, &str); 8] = [
        (&["a1", "--requests", "0"], 2, "--requests 0: give a number from 1"),
        (&["a1", "--rate", "0"], 2, "--rate 0: give requests per second"),
        (&["a1", "--runs", "0"], 2, "--runs 0"),
        (&["a4", "--request-hash", "i +"], 2, "--request-hash: "),
        (&["a4", "--server-hash", "i / (j - j)"], 2, "--server-hash: "),
        (&["a1", "--service", "nobody"], 1, "nobody"),
        (&["a1", "--target", "nowhere"], 2, "--target nowhere: not an address"),
        (&["a1", "--out", &bad], 2, "cannot write there"),
    ];
    for (arguments, expected, says) in cases {
        let mut all = vec!["lab"];
        all.extend(arguments);
        if !arguments.contains(&"--out") {
            all.extend(["--out", &good]);
        }
        let (code, out, err) = daemon.cli(&all).await;
        let line = err.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(code == Some(expected) && line.contains(says), "{arguments:?}: {code:?} {out}{err}");
    }
    let nobody = free_address();
    let (code, _, err) = cli(nobody, &["lab", "a1", "--out", &good]).await;
    assert!(code == Some(3) && err.contains("no ringmaster daemon answers"), "{code:?} {err}");
    assert_eq!(daemon.client.overview().await.unwrap().generation, before, "nothing was changed");
}
