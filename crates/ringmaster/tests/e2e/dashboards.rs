//! Metrics, rules and dashboards on a real Prometheus that scrapes a real daemon with load and an injected fault.
//!
//! Every panel's query returns figures, every metric that is named exists, and every one that is exported is used or
//! listed in `grafana/unused-metrics.txt`. Grafana itself is not run. Without Prometheus the tests are skipped, and say
//! so; with `RINGMASTER_REQUIRE_PROMETHEUS=1` they fail instead.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringmaster_core::status::{Phase, ReplicaStatus};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::common::{Daemon, On, SOON, Setup, eventually, free_address, shared};
use crate::load::Load;

/// What replaces Grafana's own variables.
const VARIABLES: [(&str, &str); 6] = [
    ("$__rate_interval", "10s"),
    ("$__interval", "5s"),
    ("$__range", "1m"),
    ("${service}", ".+"),
    ("$service", ".+"),
    ("${datasource}", "prometheus"),
];
/// How long panels may take until all of them have figures.
const PANELS_WITHIN: Duration = Duration::from_secs(20);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where a program of Debian's `prometheus` is; none, said on standard error, if it is not there and need not be.
fn tool_or_skip(name: &str, test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let binary = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|binary| binary.is_file());
    if binary.is_none() {
        let required = std::env::var("RINGMASTER_REQUIRE_PROMETHEUS").is_ok_and(|value| value == "1");
        assert!(!required, "{test} needs {name}: run `make deps`");
        // Straight to the stream: the test harness hides what `eprintln!` writes.
        let line = format!("SKIPPED (no prometheus): {test}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    binary
}

/// Runs promtool; panics with what it says unless it is content.
fn promtool(promtool: &Path, arguments: &[&str], folder: &Path, input: &str) {
    let mut child = Command::new(promtool)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !out.contains("FAILED"), "promtool {arguments:?}: {out}{err}");
}

/// A Prometheus with a data folder of its own; it ends with this.
struct Prometheus {
    process: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("--- prometheus:\n{log}");
        }
    }
}

impl Prometheus {
    /// Starts it with the configuration of the repository, made quick, for the daemon at `admin`.
    async fn start(binary: &Path, admin: SocketAddr) -> Prometheus {
        let folder = tempfile::tempdir().unwrap();
        let source = root().join("deploy/prometheus");
        let config = fs::read_to_string(source.join("prometheus.yml")).unwrap();
        let quick = config
            .replace("127.0.0.1:5001", &admin.to_string())
            .replace("interval: 5s", "interval: 500ms")
            .replace("refresh_interval: 10s", "refresh_interval: 1s");
        assert_ne!(config, quick);
        fs::write(folder.path().join("prometheus.yml"), quick).unwrap();
        fs::copy(source.join("rules.yml"), folder.path().join("rules.yml")).unwrap();
        let address = free_address();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(binary)
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let prometheus = Prometheus { process, address, folder };
        eventually("prometheus scrapes the daemon", || async {
            let up = prometheus.query("up{job=\"ringmaster\"} == 1").await.ok()?;
            (!up.is_empty()).then_some(())
        })
        .await;
        prometheus
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, String> {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let response =
            reqwest::Client::new().get(url).query(query).send().await.map_err(|e| e.to_string())?;
        let answer: Value = response.json().await.map_err(|error| error.to_string())?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].clone()),
            _ => Err(answer["error"].to_string()),
        }
    }

    /// The samples that a query has now: labels and value.
    async fn query(&self, expr: &str) -> Result<Vec<(Value, f64)>, String> {
        let data = self.get("query", &[("query", expr)]).await?;
        let sample = |sample: &Value| {
            let value = sample["value"][1].as_str().and_then(|value| value.parse().ok());
            (sample["metric"].clone(), value.unwrap_or(f64::NAN))
        };
        Ok(data["result"].as_array().map(|all| all.iter().map(sample).collect()).unwrap_or_default())
    }
}

/// One query of a panel or an annotation.
#[derive(Debug)]
struct Query {
    at: String,
    expr: String,
    legend: String,
    /// May find nothing at times: an annotation.
    is_rare: bool,
}

/// The queries of all dashboards; everything about a dashboard that needs no Prometheus is checked on the way.
fn dashboards() -> Vec<Query> {
    let mut queries = Vec::new();
    let mut uids = BTreeSet::new();
    let folder = root().join("grafana/dashboards");
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let board: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let uid = board["uid"].as_str().unwrap_or_default().to_owned();
        assert!(!uid.is_empty() && uids.insert(uid), "{file}: its uid is missing or taken");
        let mut ids = BTreeSet::new();
        let mut cells: BTreeMap<(u64, u64), String> = BTreeMap::new();
        for panel in board["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap_or_default();
            let at = format!("{file}: {title}");
            assert!(!title.is_empty() && ids.insert(panel["id"].as_u64().unwrap()), "{at}: title or id");
            let position = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            let (x, y, w, h) = (position("x"), position("y"), position("w"), position("h"));
            assert!(x + w <= 24 && w > 0 && h > 0, "{at}: outside of the grid");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                let other = cells.insert(cell, at.clone());
                assert!(other.is_none(), "{at} overlaps {other:?}");
            }
            if panel["type"] == "row" {
                continue;
            }
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{at}: no unit");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{at}: no query");
            queries.extend(targets.iter().map(|target| query(&at, target, "legendFormat", false)));
        }
        for annotation in board["annotations"]["list"].as_array().unwrap() {
            let at = format!("{file}: annotation {}", annotation["name"]);
            queries.push(query(&at, annotation, "titleFormat", true));
        }
        let variables = board["templating"]["list"].as_array().unwrap();
        assert!(
            variables.iter().any(|variable| variable["name"] == "service"),
            "{file}: no variable by service"
        );
    }
    assert!(uids.len() >= 6, "{uids:?}");
    queries
}

fn query(at: &str, target: &Value, legend: &str, is_rare: bool) -> Query {
    assert_eq!(target["datasource"]["uid"], "${datasource}", "{at}");
    let text = |key: &str| target[key].as_str().unwrap_or_default().to_owned();
    let mut expr = text("expr");
    for (variable, value) in VARIABLES {
        expr = expr.replace(variable, value);
    }
    assert!(!expr.is_empty() && !expr.contains('$'), "{at}: {expr}");
    Query { at: at.to_owned(), expr, legend: text(legend), is_rare }
}

/// The metrics that a text of PromQL names.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c| !word(c));
    let ours = |word: &&str| {
        ["ringmaster_", "ringmaster:", "process_"].iter().any(|p| word.starts_with(p) && word.len() > p.len())
    };
    words.filter(ours).map(str::to_owned).collect()
}

/// The name of a series' family.
fn family(name: &str, families: &BTreeSet<String>) -> String {
    let suffixes = ["_bucket", "_sum", "_count"];
    let base = suffixes.iter().find_map(|s| name.strip_suffix(s)).filter(|base| families.contains(*base));
    base.unwrap_or(name).to_owned()
}

/// The families of a text of metrics.
fn families(metrics: &str) -> BTreeSet<String> {
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    types.map(str::to_owned).collect()
}

/// What is wrong with a query's answer, if anything.
async fn judge(prometheus: &Prometheus, query: &Query) -> Option<String> {
    let samples = match prometheus.query(&query.expr).await {
        Ok(samples) => samples,
        Err(error) => return Some(format!("{}: {}: {error}", query.at, query.expr)),
    };
    if samples.is_empty() && !query.is_rare {
        return Some(format!("{}: no data: {}", query.at, query.expr));
    }
    for (labels, value) in &samples {
        let labelled = query.legend.split("{{").skip(1).filter_map(|part| part.split("}}").next());
        let missing: Vec<&str> = labelled.filter(|label| !labels[*label].is_string()).collect();
        if value.is_nan() || !missing.is_empty() {
            return Some(format!("{}: {value}, without {missing:?}: {labels} of {}", query.at, query.expr));
        }
    }
    None
}

#[tokio::test]
async fn every_panel_shows_figures_and_every_metric_is_used() {
    const TEST: &str = "every_panel_shows_figures_and_every_metric_is_used";
    let (Some(binary), Some(tool)) = (tool_or_skip("prometheus", TEST), tool_or_skip("promtool", TEST))
    else {
        return;
    };
    let _machine = shared().await;
    let queries = dashboards();
    let started = Instant::now();
    let daemon = Daemon::start(On::Process).await;
    let more = "  balancing: { policy: slot-table, hashOn: requestId }\n";
    daemon.apply_and_converge("web", &daemon.manifest("web", 3, more)).await;
    // Its count follows its load.
    let scaled = "  route: { pathPrefix: /scaled }\n  autoscale: { maxReplicas: 3, targetInFlight: 20, targetRps: 50 }\n";
    daemon.apply_and_converge("scaled", &daemon.manifest("scaled", 1, scaled)).await;
    let prometheus = Prometheus::start(&binary, daemon.setup.admin).await;
    let mut load = Load::start(daemon.setup.listen, 100);
    load.more(200).await;
    let url = format!("http://{}/scaled/heartbeat", daemon.setup.listen);
    let asking = tokio::spawn(async move {
        let client = reqwest::Client::new();
        // That it is answered is what its panels tell.
        while client.get(&url).send().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    // A replica dies, one is added, one is taken away: what panels show has happened.
    let before = daemon.replica("web", 1).await;
    daemon.client.fault("web-1", "KILL").await.unwrap();
    daemon
        .until("web", "replaced", |status| {
            let replaced = |m: &ReplicaStatus| {
                m.ordinal == before.ordinal && m.phase == Phase::Ready && m.id != before.id
            };
            status.is_converged() && status.members.iter().any(replaced)
        })
        .await;
    for replicas in ["4", "3"] {
        let (code, out, err) = daemon.cli(&["scale", "web", "--replicas", replicas]).await;
        assert_eq!(code, Some(0), "{out}{err}");
    }
    let deadline = Instant::now() + PANELS_WITHIN;
    let mut lost = false;
    loop {
        let mut wrong = Vec::new();
        for query in &queries {
            wrong.extend(judge(&prometheus, query).await);
        }
        let seen = queries.iter().find(|query| query.at.contains("\"Lost\"")).expect("annotations of losses");
        lost |= prometheus.query(&seen.expr).await.is_ok_and(|samples| !samples.is_empty());
        if wrong.is_empty() && lost {
            break;
        }
        assert!(Instant::now() < deadline, "a loss was annotated: {lost}\n{}", wrong.join("\n"));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let outcome = load.stop().await;
    assert_eq!(outcome.failed, [], "of {} requests", outcome.total);
    assert!(!asking.is_finished(), "a request failed");
    asking.abort();

    let alerts = prometheus.query("ALERTS{alertstate=\"firing\"}").await.unwrap();
    assert_eq!(alerts, [], "one kill is no alert");
    let metrics =
        reqwest::get(format!("http://{}/metrics", daemon.setup.admin)).await.unwrap().text().await.unwrap();
    promtool(&tool, &["check", "metrics"], &root(), &metrics);
    uses(&families(&metrics), &queries, &prometheus).await;
    println!(
        "{} queries, {} families, {} requests, none failed, in {:.1?}",
        queries.len(),
        families(&metrics).len(),
        outcome.total,
        started.elapsed()
    );
}

/// Every metric that is named exists, and every one that is exported is used or listed as unused.
async fn uses(families: &BTreeSet<String>, queries: &[Query], prometheus: &Prometheus) {
    let rules = fs::read_to_string(root().join("deploy/prometheus/rules.yml")).unwrap();
    let recorded: BTreeSet<String> = rules
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("record: "))
        .map(str::to_owned)
        .collect();
    // Comments and texts for people name dashboards, not metrics.
    let mut used = named(&rules);
    queries.iter().for_each(|query| used.extend(named(&query.expr)));
    let used: BTreeSet<String> = used.iter().map(|name| family(name, families)).collect();
    let mut wrong = String::new();
    for name in used.iter().filter(|name| !families.contains(*name) && !recorded.contains(*name)) {
        writeln!(wrong, "{name} is named and does not exist").unwrap();
    }
    let unused = fs::read_to_string(root().join("grafana/unused-metrics.txt")).unwrap();
    let unused: BTreeSet<&str> =
        unused.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_whitespace().next()).collect();
    for name in families.iter().filter(|name| !used.contains(*name) && !unused.contains(name.as_str())) {
        writeln!(wrong, "{name} is exported, and neither used nor in grafana/unused-metrics.txt").unwrap();
    }
    for name in unused.iter().filter(|name| used.contains(**name) || !families.contains(**name)) {
        writeln!(wrong, "{name} stands in grafana/unused-metrics.txt, and is used or does not exist")
            .unwrap();
    }
    assert!(wrong.is_empty(), "{wrong}");
    // What is scraped is what is exported, and rules are evaluated without an error.
    let rules = prometheus.get("rules", &[]).await.unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let all: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(all.len() > 20 && all.iter().all(|rule| rule["health"] == "ok"), "{all:#?}");
}

#[test]
fn rules_and_their_tests_are_what_promtool_takes() {
    let Some(tool) = tool_or_skip("promtool", "rules_and_their_tests_are_what_promtool_takes") else {
        return;
    };
    let folder = root().join("deploy/prometheus");
    promtool(&tool, &["check", "config", "prometheus.yml"], &folder, "");
    promtool(&tool, &["check", "rules", "rules.yml"], &folder, "");
    promtool(&tool, &["test", "rules", "rules_test.yml"], &folder, "");
    let (rules, tests) = (
        fs::read_to_string(folder.join("rules.yml")).unwrap(),
        fs::read_to_string(folder.join("rules_test.yml")).unwrap(),
    );
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} has no test that it fires");
    }
}

#[tokio::test]
async fn metrics_alone_are_served_for_a_scraper_elsewhere() {
    let _machine = shared().await;
    let metrics = free_address();
    let (setup, _folder) = Setup::new(On::Process);
    let mut daemon = Daemon::with(setup.with(&["--metrics-listen", &metrics.to_string()])).await;
    let get = |path: &'static str| async move {
        let response = reqwest::get(format!("http://{metrics}{path}")).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let (status, text) = get("/metrics").await;
    assert!(status == 200 && text.contains("\nringmaster_build_info{"), "{status} {text}");
    assert_eq!(get("/api/v1/overview").await.0, 404, "nothing else is there");
    let targets = reqwest::get(format!("http://{}/api/v1/prometheus/targets", daemon.setup.admin)).await;
    let targets: Value = targets.unwrap().json().await.unwrap();
    assert_eq!(targets[0]["targets"][0], metrics.to_string());
    let (other, _other_folder) = Setup::new(On::Process);
    let (code, said) = other.with(&["--metrics-listen", &metrics.to_string()]).refused();
    assert_eq!(code, Some(1));
    assert!(said.contains("--metrics-listen") && said.contains(&metrics.to_string()), "{said}");
    assert_eq!(daemon.end(Signal::TERM).await, Some(0));
}

#[tokio::test]
async fn series_of_what_is_gone_disappear() {
    let _machine = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let text = || async {
        reqwest::get(format!("http://{}/metrics", daemon.setup.admin)).await.unwrap().text().await.unwrap()
    };
    daemon.apply_and_converge("web", &daemon.manifest("web", 2, "")).await;
    daemon.apply_and_converge("api", &daemon.manifest("api", 1, "  route: { pathPrefix: /api }\n")).await;
    let before = text().await;
    for series in [
        "ringmaster_service_replicas_ready{service=\"api\"} 1",
        "ringmaster_probes_total{service=\"api\"",
        "ringmaster_proxy_requests_total{service=\"web\",server=\"1\"} 0",
        "ringmaster_replica_restarts_total{service=\"web\",server=\"1\"} 0",
    ] {
        assert!(before.contains(series), "{series} in:\n{before}");
    }
    let info = before.lines().filter(|line| line.starts_with("ringmaster_replica_info{")).count();
    assert_eq!(info, 3, "{before}");
    let (code, out, err) = daemon.cli(&["delete", "api"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let (code, out, err) = daemon.cli(&["scale", "web", "--replicas", "1"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let deadline = Instant::now() + SOON;
    loop {
        let after = text().await;
        let left = after.lines().find(|line| {
            !line.starts_with('#') && (line.contains("\"api\"") || line.contains("server=\"1\""))
        });
        let Some(left) = left else { break };
        assert!(Instant::now() < deadline, "{left} is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
