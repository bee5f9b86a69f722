//! What the daemon logs: as JSON unless a person looks, as much as asked for while it runs, and for whom it did it.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::{Daemon, On, Setup, eventually, shared};

/// The lines of the log, each of which must be one JSON object.
fn lines(daemon: &Daemon) -> Vec<Value> {
    let log = daemon.log();
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

/// Whether a line was written for a request.
fn is_for(line: &Value, id: &str) -> bool {
    line["spans"].as_array().into_iter().flatten().any(|span| span["request_id"] == id)
}

fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_logged_changes_while_it_runs() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let looks = || lines(&daemon).iter().filter(|line| message(line) == "GET /api/v1/overview").count();
    assert_eq!(daemon.cli(&["log-level"]).await.1.trim(), "info");
    daemon.client.overview().await.unwrap();
    assert_eq!(looks(), 0, "looks change nothing");
    let (code, out, err) = daemon.cli(&["log-level", "info,ringmaster_controller=debug"]).await;
    assert_eq!((code, out.trim()), (Some(0), "ringmaster_controller=debug,info"), "{err}");
    daemon.event("LogFilterSet", "it was `info`").await;
    daemon.client.overview().await.unwrap();
    eventually("a line of the look", || async { (looks() > 0).then_some(()) }).await;

    for (bad, told) in [("debgu", "`debgu` is neither"), ("ringmaster=loud", "level filter"), (" ", "empty")]
    {
        let (code, _, err) = daemon.cli(&["log-level", bad]).await;
        assert!(
            code == Some(2) && err.contains(told) && err.contains("stays in force"),
            "{bad}: {code:?} {err}"
        );
        assert_eq!(daemon.client.log_filter().await.unwrap().filter, "ringmaster_controller=debug,info");
    }
    let url = format!("http://{}/api/v1/log", daemon.setup.admin);
    let put = || reqwest::Client::new().put(&url).body("trace");
    let foreign = put().header("origin", "http://evil.example").send().await.unwrap();
    let rebound = put().header("host", "evil.example").send().await.unwrap();
    assert_eq!((foreign.status().as_u16(), rebound.status().as_u16()), (403, 403));
    assert_eq!(daemon.client.log_filter().await.unwrap().filter, "ringmaster_controller=debug,info");
    let (code, ..) = daemon.cli(&["log-level", "off"]).await;
    assert_eq!(code, Some(0));
    let before = lines(&daemon).len();
    daemon.apply_and_converge("web", &daemon.manifest("web", 1, "")).await;
    assert_eq!(lines(&daemon).len(), before, "off is off");
    daemon.client.set_log_filter("info").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_does_is_logged_with_its_id() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let http = reqwest::Client::new();
    let body = json!({ "files": [{ "file": "-", "text": daemon.manifest("web", 2, "") }] });
    let url = |path: &str| format!("http://{}/api/v1/{path}", daemon.setup.admin);
    let id = "4bf92f35/77b3:me";
    let answer = http.post(url("apply")).header("x-request-id", id).json(&body).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["x-request-id"].to_str().unwrap()), (200, id));
    daemon.until("web", "ready", |status| status.ready == 2).await;
    let of_it: Vec<Value> = lines(&daemon).into_iter().filter(|line| is_for(line, id)).collect();
    let has = |field: &str, value: &str| of_it.iter().any(|line| line[field] == value);
    assert!(has("reason", "ManifestApplied") && has("message", "POST /api/v1/apply"), "{of_it:#?}");
    assert!(has("reason", "Creating"), "what the loop does for it is its own, too: {of_it:#?}");

    let refused = http.delete(url("services/nothing")).header("x-request-id", "a b").send().await.unwrap();
    let made = refused.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert!(refused.status() == 404 && made.len() == 16 && !made.contains(' '), "{made}");
    let line = lines(&daemon).into_iter().find(|line| is_for(line, &made));
    let line = line.unwrap_or_else(|| panic!("no line of {made}:\n{}", daemon.log()));
    assert_eq!(line["level"], "WARN");
    assert!(message(&line).contains("refused: there is no service `nothing`"), "{line}");
    let foreign =
        http.delete(url("services/web")).header("origin", "http://evil.example").send().await.unwrap();
    assert!(foreign.status() == 403 && foreign.headers().contains_key("x-request-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_json_where_nobody_looks_and_a_bad_rust_log_is_told() {
    let _shared = shared().await;
    let (setup, _folder) = Setup::new(On::Process);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmaster"));
    let addresses = [setup.listen.to_string(), setup.admin.to_string()];
    command
        .args([
            "serve",
            "--runtime",
            "process",
            "--listen",
            &addresses[0],
            "--admin",
            &addresses[1],
            "--state-dir",
        ])
        .arg(&setup.state)
        .env("RUST_LOG", "inof")
        .env_remove("RINGMASTER_LOG_FORMAT")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let client = ringmaster_client::Client::new(&format!("http://{}", setup.admin), None).unwrap();
    eventually("it answers", || async { client.overview().await.ok() }).await;
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let log = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(message(&lines[0]).contains("`inof` is neither"), "{log}");
    assert!(lines.iter().any(|line| message(line).contains("serves") && line["level"] == "INFO"), "{log}");
}
