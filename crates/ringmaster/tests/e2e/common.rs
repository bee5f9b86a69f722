//! A daemon of one's own: its ports, its state folder, its instance, and everything removed at the end.

use std::fmt::Write;
use std::fs::File;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use ringmaster_client::Client;
use ringmaster_core::api::{ApplyRequest, ApplyResponse, ManifestFile};
use ringmaster_core::status::{Phase, ReplicaStatus, ServiceStatus};
use ringmaster_core::{Generation, ServiceName};
use ringmaster_docker::testing::{Cleanup, engine_or_skip, replica_image, unique_name};
use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::time::Instant;

/// Long enough for a loaded machine; a condition that holds is seen at once.
pub(crate) const SOON: Duration = Duration::from_secs(30);

static MACHINE: RwLock<()> = RwLock::const_new(());

/// Held by tests that may share the machine.
pub(crate) async fn shared() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().await
}

/// Held by tests that measure.
pub(crate) async fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().await
}

/// Which runtime a test runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum On {
    /// Processes.
    Process,
    /// Docker, with this image.
    Docker(String),
}

/// Docker with the test image; none if no engine answers.
pub(crate) async fn docker_or_skip(test: &str) -> Option<On> {
    let docker = engine_or_skip(test).await?;
    Some(On::Docker(replica_image(&docker).await))
}

/// How to start a daemon.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) on: On,
    pub(crate) runtime: &'static str,
    pub(crate) instance: String,
    pub(crate) state: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) extra: Vec<String>,
    pub(crate) log_level: &'static str,
    pub(crate) faults: bool,
    /// A command that runs the daemon in its own place, such as `setpriv`.
    pub(crate) through: &'static [&'static str],
}

/// A running daemon.
pub(crate) struct Daemon {
    pub(crate) setup: Setup,
    pub(crate) client: Client,
    /// The name of its service. On Docker one of its own: names on the engine are shared with whatever else runs.
    pub(crate) web: String,
    child: Child,
    // Dropped last: the containers and the network that it made, and its folder.
    _cleanup: Option<Cleanup>,
    folder: Option<TempDir>,
}

/// A loopback address with a port that was free a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("loopback has free ports")
}

pub(crate) fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

/// Awaits a condition under a deadline.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Setup {
    /// A folder, an instance and ports of its own.
    pub(crate) fn new(on: On) -> (Setup, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let runtime = if on == On::Process { "process" } else { "docker" };
        let setup = Setup {
            on,
            runtime,
            instance: unique_name(),
            state: folder.path().join("state"),
            listen: free_address(),
            admin: free_address(),
            extra: Vec::new(),
            log_level: "info",
            faults: true,
            through: &[],
        };
        (setup, folder)
    }

    pub(crate) fn with(mut self, extra: &[&str]) -> Setup {
        self.extra.extend(extra.iter().map(ToString::to_string));
        self
    }

    /// The command line of `serve`.
    pub(crate) fn command(&self) -> Command {
        let mut words = self.through.iter().copied().chain([env!("CARGO_BIN_EXE_ringmaster")]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .env("RUST_LOG", self.log_level)
            .env_remove("RINGMASTER_ADMIN")
            .args([
                "serve",
                "--runtime",
                self.runtime,
                "--instance",
                &self.instance,
                "--network",
                &self.instance,
            ])
            .args(["--listen", &self.listen.to_string(), "--admin", &self.admin.to_string()])
            .args(["--log-format", "json", "--workers", "2", "--state-dir"])
            .arg(&self.state)
            .args(self.faults.then_some("--allow-faults"))
            .args(&self.extra);
        command
    }

    /// Runs `serve` where it is expected to refuse: its exit code and what it said.
    pub(crate) fn refused(&self) -> (Option<i32>, String) {
        let Output { status, stderr, .. } = self.command().output().unwrap();
        (status.code(), String::from_utf8_lossy(&stderr).into_owned())
    }
}

impl Daemon {
    /// Starts a daemon and waits until it answers.
    pub(crate) async fn start(on: On) -> Daemon {
        let (setup, folder) = Setup::new(on);
        let mut daemon = Daemon::with(setup).await;
        daemon.folder = Some(folder);
        daemon
    }

    /// Starts a daemon as set up; the folder is the caller's.
    pub(crate) async fn with(setup: Setup) -> Daemon {
        let cleanup = (setup.on != On::Process).then(|| Cleanup::of(&setup.instance));
        let child = spawn(&setup);
        let client = Client::new(&format!("http://{}", setup.admin), None).unwrap();
        let web = match &setup.on {
            On::Process => "web".to_owned(),
            On::Docker(_) => format!("s{}", setup.listen.port()),
        };
        let mut daemon = Daemon { setup, client, web, child, _cleanup: cleanup, folder: None };
        daemon.answers().await;
        daemon
    }

    async fn answers(&mut self) {
        let deadline = Instant::now() + SOON;
        while self.client.overview().await.is_err() {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the daemon does not answer: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(log_path(&self.setup)).unwrap_or_default()
    }

    /// Ends the daemon by a signal, waits for its end, and returns its exit code.
    pub(crate) async fn end(&mut self, signal: rustix::process::Signal) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the daemon does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts it again after its end.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(&self.setup);
        self.answers().await;
    }

    /// A service manifest for this daemon's runtime; `more` is YAML under `spec`, indented by two.
    pub(crate) fn manifest(&self, service: &str, replicas: u32, more: &str) -> String {
        let run = match &self.setup.on {
            On::Process => "process: { command: [ringmaster, replica] }".to_owned(),
            On::Docker(image) => format!("image: {image}"),
        };
        service_yaml(service, replicas, &run, more)
    }

    pub(crate) async fn apply(&self, text: &str) -> ApplyResponse {
        self.try_apply(text).await.unwrap_or_else(|error| panic!("apply: {error}\n{text}"))
    }

    pub(crate) async fn try_apply(
        &self,
        text: &str,
    ) -> Result<ApplyResponse, ringmaster_client::ClientError> {
        let files = vec![ManifestFile { file: "test.yaml".to_owned(), text: text.to_owned() }];
        self.client.apply(&ApplyRequest { files, ..ApplyRequest::default() }).await
    }

    /// Applies and waits until it is so.
    pub(crate) async fn apply_and_converge(&self, service: &str, text: &str) -> ServiceStatus {
        let response = self.apply(text).await;
        self.converged(service, response.generation).await
    }

    pub(crate) async fn status(&self, service: &str) -> Option<ServiceStatus> {
        self.client.service(&name(service)).await.ok()?.status
    }

    pub(crate) async fn converged(&self, service: &str, generation: Generation) -> ServiceStatus {
        self.until(service, "converged", |status| {
            status.observed_generation >= generation && status.is_converged()
        })
        .await
    }

    /// Awaits a state of a service; says how far it came if it does not.
    pub(crate) async fn until(
        &self,
        service: &str,
        what: &str,
        holds: impl Fn(&ServiceStatus) -> bool,
    ) -> ServiceStatus {
        let deadline = Instant::now() + SOON;
        loop {
            let status = self.status(service).await;
            if let Some(status) = status.clone().filter(|status| holds(status)) {
                return status;
            }
            if Instant::now() >= deadline {
                panic!("{service}: not {what}: {status:#?}\n{}", self.events_text().await);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The one live replica of an ordinal.
    pub(crate) async fn replica(&self, service: &str, ordinal: u16) -> ReplicaStatus {
        let status = self.status(service).await.expect("the service is there");
        let live = |m: &&ReplicaStatus| m.ordinal.0 == ordinal && m.phase == Phase::Ready;
        status.members.iter().find(live).unwrap_or_else(|| panic!("{service}-{ordinal}: {status:#?}")).clone()
    }

    pub(crate) async fn until_gone(&self, service: &str) {
        eventually("the service is gone", || async { self.status(service).await.is_none().then_some(()) })
            .await;
    }

    /// Awaits an event with this reason whose message contains a text.
    pub(crate) async fn event(&self, reason: &str, contains: &str) {
        self.event_within(reason, contains, SOON).await;
    }

    /// As [`Daemon::event`], within another time.
    pub(crate) async fn event_within(&self, reason: &str, contains: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            let events = self.client.events(0).await.map(|list| list.events).unwrap_or_default();
            if events.iter().any(|e| e.reason.as_str() == reason && e.message.contains(contains)) {
                return;
            }
            if Instant::now() >= deadline {
                panic!("no event {reason} with `{contains}` in:\n{}", self.events_text().await);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn events_text(&self) -> String {
        let mut text = String::new();
        for event in self.client.events(0).await.map(|list| list.events).unwrap_or_default() {
            writeln!(
                text,
                "{} {} x{} {} {}",
                event.at, event.reason, event.count, event.object, event.message
            )
            .unwrap();
        }
        text
    }

    /// Gets a path from the data plane: status code and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("http://{}{path}", self.setup.listen)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Runs a verb of the CLI against this daemon: exit code, standard output, standard error.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        cli(self.setup.admin, arguments).await
    }
}

/// The process of a daemon's data plane, if it has one of its own that lives.
pub(crate) fn data_plane(state: &Path) -> Option<rustix::process::Pid> {
    let lock = File::open(state.join("data-plane/lock")).ok()?;
    let is_held = rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared).is_err();
    let text = std::fs::read_to_string(state.join("data-plane/lock")).ok().filter(|_| is_held)?;
    let holder: serde_json::Value = serde_json::from_str(&text).ok()?;
    rustix::process::Pid::from_raw(holder["pid"].as_i64()? as i32)
}

/// Runs a verb of the CLI.
pub(crate) async fn cli(admin: SocketAddr, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_ringmaster"))
        .args(arguments)
        .env("RINGMASTER_ADMIN", format!("http://{admin}"))
        .output()
        .await
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A service manifest.
pub(crate) fn service_yaml(service: &str, replicas: u32, run: &str, more: &str) -> String {
    format!(
        "apiVersion: ringmaster/v1\nkind: Service\nmetadata: {{ name: {service} }}\nspec:\n  replicas: {replicas}\n  \
         template:\n    {run}\n    resources: {{ memory: 64Mi, pids: 64 }}\n    \
         securityContext: {{ profile: restricted }}\n  probes:\n    readiness: {{ httpGet: {{ path: /heartbeat }}, \
         period: 500ms, timeout: 250ms, failureThreshold: 2 }}\n{more}"
    )
}

fn log_path(setup: &Setup) -> PathBuf {
    setup.state.parent().unwrap_or(Path::new("/tmp")).join(format!("{}.log", setup.instance))
}

fn spawn(setup: &Setup) -> Child {
    let log = File::options().create(true).append(true).open(log_path(setup)).unwrap();
    let errors = log.try_clone().unwrap();
    setup.command().stdin(Stdio::null()).stdout(log).stderr(errors).spawn().unwrap()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The process runtime's replicas outlive the daemon: they are removed through it, while it lives.
        if self.setup.on == On::Process && matches!(self.child.try_wait(), Ok(None)) {
            let delete = Command::new(env!("CARGO_BIN_EXE_ringmaster"))
                .args([
                    "delete",
                    "--all",
                    "--timeout",
                    "20s",
                    "--admin",
                    &format!("http://{}", self.setup.admin),
                ])
                .output();
            drop(delete);
        }
        drop(self.child.kill());
        drop(self.child.wait());
        // A data plane of its own outlives a daemon that is killed.
        if let Some(pid) = data_plane(&self.setup.state)
            && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::KILL)
        {
            eprintln!("the data plane stays: {error}");
        }
        if std::thread::panicking() {
            eprintln!("--- the daemon's log:\n{}", self.log());
        }
    }
}
