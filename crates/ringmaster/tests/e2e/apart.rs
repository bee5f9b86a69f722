//! The data plane apart: over fixed upstreams, as the daemon's child, and as two programs with a socket between them.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringmaster_core::status::{ConditionKind, ServiceStatus};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::common::{Daemon, On, SOON, Setup, data_plane, docker_or_skip, eventually, free_address, shared};
use crate::load::Load;

/// A data plane that was started by hand.
struct Plane {
    child: Child,
    log: PathBuf,
    listen: SocketAddr,
}

impl Plane {
    fn start(log: PathBuf, listen: SocketAddr, arguments: &[&str]) -> Plane {
        let output = File::options().create(true).append(true).open(&log).unwrap();
        let errors = output.try_clone().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_ringmaster"))
            .args(["proxy", "--threads", "2", "--log-format", "json", "--listen", &listen.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap();
        Plane { child, log, listen }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn get(&self, path: &str) -> Option<(u16, String)> {
        get(self.listen, path).await
    }

    /// Its exit code, once it has ended.
    async fn ended(&mut self) -> Option<i32> {
        eventually("the data plane ends", || {
            let status = self.child.try_wait().unwrap();
            async move { status }
        })
        .await
        .code()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // In order where it lives: the daemon's last removals would wait for one that was killed.
        let lives = matches!(self.child.try_wait(), Ok(None));
        let deadline = Instant::now() + Duration::from_secs(3);
        if lives && kill_process(self.pid(), Signal::TERM).is_ok() {
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::yield_now();
            }
        }
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- the data plane's log:\n{}", self.log());
        }
    }
}

/// Over a connection of its own.
async fn get(listen: SocketAddr, path: &str) -> Option<(u16, String)> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
    let response = client.get(format!("http://{listen}{path}")).send().await.ok()?;
    Some((response.status().as_u16(), response.text().await.ok()?))
}

async fn answers(listen: SocketAddr, code: u16) -> String {
    eventually("it answers", || async {
        get(listen, "/home").await.filter(|(status, _)| *status == code).map(|(_, body)| body)
    })
    .await
}

fn signal(pid: Pid, signal: Signal) {
    kill_process(pid, signal).unwrap();
}

fn assignment_api(service: &str) -> String {
    format!(
        "---\napiVersion: ringmaster/v1\nkind: Gateway\nmetadata: {{ name: default }}\n\
         spec: {{ assignmentApi: {{ service: {service} }} }}\n"
    )
}

/// A daemon with a data plane in a child, and its service with so many replicas. Its folder comes first: it is dropped last.
async fn with_child(on: On, replicas: u32) -> (tempfile::TempDir, Daemon) {
    let (setup, folder) = Setup::new(on);
    let daemon = Daemon::with(setup.with(&["--data-plane", "child"])).await;
    let text = daemon.manifest(&daemon.web, replicas, "") + &assignment_api(&daemon.web);
    daemon.apply_and_converge(&daemon.web, &text).await;
    (folder, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn fixed_upstreams_are_served_and_a_request_in_flight_ends_after_sigterm() {
    let _shared = shared().await;
    let folder = tempfile::tempdir().unwrap();
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap().to_string();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut plane = Plane::start(folder.path().join("log"), any, &["--upstream", &address]);
    let (arrived, has_arrived) = oneshot::channel();
    let (go_on, may_go_on) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = upstream.accept().await.unwrap();
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        arrived.send(()).unwrap();
        may_go_on.await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").await.unwrap();
        stream
    });
    let serves = || {
        let log = plane.log();
        let listen =
            log.split_once(r#""listen":"["#).and_then(|(_, rest)| rest.split_once(']')?.0.parse().ok());
        async move { listen }
    };
    let listen: SocketAddr = eventually("it says where it listens", serves).await;
    let request = tokio::spawn(async move { get(listen, "/").await });
    tokio::time::timeout(SOON, has_arrived).await.unwrap().unwrap();
    signal(plane.pid(), Signal::TERM);
    eventually("it no longer accepts", || async {
        tokio::net::TcpStream::connect(listen).await.is_err().then_some(())
    })
    .await;
    go_on.send(()).unwrap();
    assert_eq!(request.await.unwrap(), Some((200, "late".to_owned())));
    assert_eq!(plane.ended().await, Some(0), "{}", plane.log());
    drop(serving.await.unwrap());
}

async fn controller_killed(on: On) {
    let (_folder, mut daemon) = with_child(on, 3).await;
    let service = daemon.web.clone();
    let plane = data_plane(&daemon.setup.state).unwrap();
    let mut load = Load::start(daemon.setup.listen, 200);
    load.more(100).await;
    signal(plane, Signal::HUP);
    daemon.end(Signal::KILL).await;
    load.more(200).await;
    let (code, body) = daemon.get("/rep").await;
    assert!(code == 503 && body.contains("the controller is away"), "{code} {body}");
    daemon.restart().await;
    let (code, _, err) = daemon.cli(&["scale", &service, "--replicas", "4"]).await;
    assert_eq!(code, Some(0), "{err}");
    load.more(100).await;
    let (code, _, err) = daemon.cli(&["scale", &service, "--replicas", "2"]).await;
    assert_eq!(code, Some(0), "{err}");
    load.more(100).await;
    assert_eq!(data_plane(&daemon.setup.state), Some(plane), "it is adopted");
    assert_eq!(daemon.get("/rep").await.0, 200);
    let outcome = load.stop().await;
    println!("controller killed: {} requests, slowest {:?}", outcome.total, outcome.slowest);
    assert_eq!(outcome.failed, [], "of {} requests", outcome.total);
    let fourth = outcome.answers.keys().any(|body| body.contains("Server: 4"));
    assert!(fourth, "an edit after the return is served: {:?}", outcome.answers);
    assert_eq!(daemon.end(Signal::TERM).await, Some(0), "{}", daemon.log());
    assert_eq!(data_plane(&daemon.setup.state), None, "it ends with the daemon");
    let remembered = std::fs::read_to_string(daemon.setup.state.join("data-plane/planes")).unwrap();
    assert_eq!(remembered, "[]", "nobody waits for it");
    daemon.restart().await;
    eventually("there is another", || async { data_plane(&daemon.setup.state) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_of_the_controller_costs_no_request_with_processes() {
    let _shared = shared().await;
    controller_killed(On::Process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_of_the_controller_costs_no_request_with_docker() {
    let _shared = shared().await;
    let test = "kill_of_the_controller_costs_no_request_with_docker";
    let Some(on) = docker_or_skip(test).await else { return };
    controller_killed(on).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_data_plane_is_back_at_once() {
    let _shared = shared().await;
    let (_folder, daemon) = with_child(On::Process, 2).await;
    let mut took = Vec::new();
    for _ in 0..5 {
        let plane = data_plane(&daemon.setup.state).unwrap();
        let killed = Instant::now();
        signal(plane, Signal::KILL);
        let back = async || {
            let new = data_plane(&daemon.setup.state).filter(|new| *new != plane)?;
            get(daemon.setup.listen, "/home").await.filter(|(code, _)| *code == 200).map(|_| new)
        };
        eventually("another serves", back).await;
        took.push(killed.elapsed());
        // One that ends within its first second is started again after a pause.
        daemon.event("DataPlaneConnected", "child").await;
        let since = Instant::now();
        eventually("it has lived for a second", || async {
            (since.elapsed() > Duration::from_secs(1)).then_some(())
        })
        .await;
    }
    took.sort();
    println!("kill -9 of the data plane: it answers again after {took:?}");
    assert!(took[2] <= Duration::from_millis(300), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_plane_alone_serves_by_what_it_kept_and_a_damaged_file_is_left_aside() {
    let _shared = shared().await;
    let (setup, folder) = Setup::new(On::Process);
    let mut daemon = Daemon::with(setup.with(&["--data-plane", "none"])).await;
    let listen = free_address();
    let link = format!("unix:{}", daemon.setup.state.join("data-plane/link.sock").display());
    let kept = folder.path().join("kept");
    let arguments = ["--controller", &link, "--state-dir", kept.to_str().unwrap()];
    let start = |log: &str| Plane::start(folder.path().join(log), listen, &arguments);
    let mut plane = start("first");
    let text = daemon.manifest("web", 2, "") + &assignment_api("web");
    daemon.apply_and_converge("web", &text).await;
    answers(listen, 200).await;
    daemon.end(Signal::KILL).await;
    plane.kill();
    let mut plane = start("second");
    answers(listen, 200).await;
    assert_eq!(plane.get("/rep").await.unwrap().0, 503);
    plane.kill();
    let file = kept.join("snapshot");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let plane = start("third");
    answers(listen, 404).await;
    assert!(plane.log().contains("the kept snapshot is damaged"), "{}", plane.log());
    daemon.restart().await;
    answers(listen, 200).await;
    assert_eq!(plane.get("/rep").await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_scrape_covers_the_controller_and_all_its_data_planes() {
    let _shared = shared().await;
    let (setup, folder) = Setup::new(On::Process);
    let token = folder.path().join("token");
    std::fs::write(&token, "a-token-of-this-test-0123456789\n").unwrap();
    let link = free_address().to_string();
    let flags =
        ["--data-plane", "none", "--link-listen", &link, "--link-token-file", token.to_str().unwrap()];
    let daemon = Daemon::with(setup.with(&flags)).await;
    let start = |name: &str, token: &std::path::Path| {
        let arguments = ["--controller", &link, "--name", name, "--link-token-file", token.to_str().unwrap()];
        Plane::start(folder.path().join(name), free_address(), &arguments)
    };
    let (one, mut other) = (start("one", &token), start("other", &token));
    let text =
        daemon.manifest("web", 2, "  balancing: { hashOn: { header: X-Key } }\n") + &assignment_api("web");
    daemon.apply_and_converge("web", &text).await;
    for plane in [&one, &other] {
        answers(plane.listen, 200).await;
    }
    let mut names = BTreeSet::new();
    for _ in 0..20 {
        names.insert(one.get("/home").await.unwrap());
        names.insert(other.get("/home").await.unwrap());
    }
    assert_eq!(names.len(), 2, "{names:?}");
    let scrape = async || {
        reqwest::get(format!("http://{}/metrics", daemon.setup.admin)).await.unwrap().text().await.unwrap()
    };
    let text = scrape().await;
    let value = |series: &str| -> f64 {
        let line = text
            .lines()
            .find(|line| line.starts_with(series))
            .unwrap_or_else(|| panic!("{series} in\n{text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    let served: f64 = text
        .lines()
        .filter(|line| line.starts_with("ringmaster_proxy_requests_total{"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum();
    assert!(served >= 42.0, "{served}");
    for series in [
        "ringmaster_data_plane_connected{data_plane=\"one\"}",
        "ringmaster_data_plane_connected{data_plane=\"other\"}",
    ] {
        assert!((value(series) - 1.0).abs() < f64::EPSILON, "{series}");
    }
    assert!(value("ringmaster_reconcile_total") > 0.0);
    let generations =
        (value("ringmaster_snapshot_generation"), value("ringmaster_proxy_acknowledged_generation"));
    assert!((generations.0 - generations.1).abs() < f64::EPSILON, "{generations:?}");
    let families: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    assert_eq!(families.len(), families.iter().collect::<BTreeSet<_>>().len(), "a family is told twice");
    let listeners = daemon.client.version().await.unwrap().listeners;
    for plane in [&one, &other] {
        assert!(listeners.contains(&plane.listen.to_string()), "{listeners:?}");
    }
    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, "another-token-of-this-test-01234\n").unwrap();
    let (_stranger, _namesake) = (start("stranger", &wrong), start("other", &token));
    daemon.event("DataPlaneRefused", "token").await;
    daemon.event("DataPlaneRefused", "named `other` is connected already").await;
    signal(other.pid(), Signal::TERM);
    assert_eq!(other.ended().await, Some(0));
    daemon.event("DataPlaneEnded", "other").await;
}

async fn drained(on: On) {
    let (_folder, daemon) = with_child(on, 3).await;
    let mut load = Load::start(daemon.setup.listen, 200);
    load.more(50).await;
    for replicas in ["1", "3", "1"] {
        let (code, _, err) = daemon.cli(&["scale", &daemon.web, "--replicas", replicas]).await;
        assert_eq!(code, Some(0), "{err}");
        load.more(50).await;
    }
    let outcome = load.stop().await;
    assert_eq!(outcome.failed, [], "of {} requests", outcome.total);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_drained_across_the_link_with_processes() {
    let _shared = shared().await;
    drained(On::Process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_drained_across_the_link_with_docker() {
    let _shared = shared().await;
    let Some(on) = docker_or_skip("replicas_are_drained_across_the_link_with_docker").await else { return };
    drained(on).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_waits_for_a_data_plane_that_does_not_answer() {
    let _shared = shared().await;
    let (setup, folder) = Setup::new(On::Process);
    let mut daemon = Daemon::with(setup.with(&["--data-plane", "none"])).await;
    let link = format!("unix:{}", daemon.setup.state.join("data-plane/link.sock").display());
    let plane = Plane::start(folder.path().join("plane"), free_address(), &["--controller", &link]);
    daemon.event("DataPlaneConnected", "proxy-").await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 2, "")).await;
    assert_eq!(plane.get("/home").await.unwrap().0, 200, "converged means that it routes");
    signal(plane.pid(), Signal::STOP);
    let (code, _, err) = daemon.cli(&["scale", "web", "--replicas", "1", "--no-wait"]).await;
    assert_eq!(code, Some(0), "{err}");
    let is_silent = |status: &ServiceStatus| {
        status
            .condition(ConditionKind::Degraded)
            .is_some_and(|c| c.status && c.reason == ringmaster_core::Reason::DataPlaneSilent)
    };
    daemon.until("web", "degraded", is_silent).await;
    // Nor does a controller that starts anew remove what the one before had withdrawn.
    daemon.end(Signal::KILL).await;
    daemon.restart().await;
    let status = daemon.until("web", "degraded again", is_silent).await;
    assert_eq!(status.members.len(), 2, "{status:#?}");
    signal(plane.pid(), Signal::CONT);
    daemon.until("web", "as scaled", |status| status.is_converged() && status.members.len() == 1).await;
    assert_eq!(plane.get("/home").await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_data_plane_is_gone_for_good_is_deleted_by_force_alone() {
    let _shared = shared().await;
    let (setup, folder) = Setup::new(On::Process);
    let mut daemon = Daemon::with(setup.with(&["--data-plane", "none"])).await;
    let link = format!("unix:{}", daemon.setup.state.join("data-plane/link.sock").display());
    let mut plane = Plane::start(folder.path().join("plane"), free_address(), &["--controller", &link]);
    daemon.event("DataPlaneConnected", "proxy-").await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 2, "")).await;
    plane.kill();
    daemon.event("DataPlaneAway", "").await;
    let (code, _, err) = daemon.cli(&["delete", "web", "--timeout", "7s"]).await;
    assert!(code == Some(1) && err.contains("`ringmaster delete --force web`"), "{code:?} {err}");
    let status = daemon.status("web").await.unwrap();
    let degraded = status.condition(ConditionKind::Degraded).unwrap();
    assert!(degraded.message.contains("`ringmaster delete --force web`"), "{degraded:?}");
    assert_eq!(status.members.len(), 2, "{status:#?}");
    // It is not forgotten if the daemon ends at once.
    let (code, _, err) = daemon.cli(&["delete", "--force", "web", "--no-wait"]).await;
    assert_eq!(code, Some(0), "{err}");
    daemon.event("DeletedByForce", "without waiting for the data plane").await;
    daemon.end(Signal::KILL).await;
    daemon.restart().await;
    daemon.until_gone("web").await;
    let (code, _, err) = daemon.cli(&["delete", "--force", "web"]).await;
    assert!(code == Some(1) && err.contains("web"), "{code:?} {err}");
}
