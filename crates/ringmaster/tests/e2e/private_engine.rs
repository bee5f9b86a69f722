//! A Docker engine of a test's own, to be killed: its own containerd, folders, socket and address pool. The machine's engine and
//! `/etc/docker` stay untouched.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptions, RemoveContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use ringmaster_docker::testing::REQUIRE_ENGINE;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::common::SOON;

/// The engine; all of it ends with this value.
pub(crate) struct PrivateEngine {
    pub(crate) socket: PathBuf,
    folder: TempDir,
    flags: Vec<String>,
    namespace: Namespace,
    containerd: Child,
    dockerd: Child,
}

impl PrivateEngine {
    /// An engine with these flags more, and networks in `10.<pool>.0.0/17`. None where this machine cannot run one: then the
    /// test is to return at once, and a line says that it was skipped.
    pub(crate) async fn start(test: &str, pool: u8, flags: &[&str]) -> Option<PrivateEngine> {
        let is_there = |program: &&str| Command::new(program).arg("--version").output().is_ok();
        if !rustix::process::getuid().is_root()
            || !["dockerd", "containerd", "nsenter", "ip"].iter().all(is_there)
        {
            let required = std::env::var(REQUIRE_ENGINE).is_ok_and(|value| value == "1");
            assert!(!required, "{test} needs root, dockerd, containerd, nsenter and ip");
            let line = format!("SKIPPED (no root, dockerd, containerd, nsenter or ip): {test}\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return None;
        }
        let namespace = Namespace::new(pool);
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("daemon.json"), "{}").unwrap();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = {:?}\n",
            path("containerd-root"),
            path("containerd-state"),
            path("containerd.sock"),
        );
        std::fs::write(path("containerd.toml"), config).unwrap();
        let log = File::create(path("containerd.log")).unwrap();
        let containerd = Command::new("containerd")
            .arg("--config")
            .arg(path("containerd.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        flags.push(format!("--default-address-pool=base=10.{pool}.0.0/17,size=24"));
        let dockerd = dockerd(folder.path(), &namespace, &flags);
        let mut engine =
            PrivateEngine { socket: path("docker.sock"), folder, flags, namespace, containerd, dockerd };
        engine.answers().await;
        Some(engine)
    }

    pub(crate) fn docker(&self) -> Docker {
        Docker::connect_with_unix(self.socket.to_str().unwrap(), 30, API_DEFAULT_VERSION).unwrap()
    }

    /// `kill -9`: containers go on.
    pub(crate) fn kill(&mut self) {
        self.dockerd.kill().unwrap();
        self.dockerd.wait().unwrap();
    }

    /// Starts it again after its end, and waits until it answers.
    pub(crate) async fn restart(&mut self) {
        self.dockerd = dockerd(self.folder.path(), &self.namespace, &self.flags);
        self.answers().await;
    }

    async fn answers(&mut self) {
        let deadline = Instant::now() + SOON;
        while !self.socket.exists() || self.docker().ping().await.is_err() {
            let ended = self.dockerd.try_wait().unwrap();
            let log = || std::fs::read_to_string(self.folder.path().join("dockerd.log")).unwrap_or_default();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the private engine does not answer: {}",
                log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A network namespace that this host is connected to. An engine that shares the host's deletes its `docker0`, which is another
/// engine's, whatever bridge it is told to use itself.
struct Namespace {
    name: String,
}

impl Namespace {
    fn new(pool: u8) -> Namespace {
        let namespace = Namespace { name: format!("ringmaster-test-{pool}") };
        let (name, outside, inside) = (namespace.name.as_str(), format!("rm{pool}o"), format!("rm{pool}i"));
        // What a run left behind that was itself killed.
        drop(Command::new("ip").args(["netns", "delete", name]).output());
        ip(&["netns", "add", name]);
        ip(&["link", "add", &outside, "type", "veth", "peer", "name", &inside, "netns", name]);
        ip(&["address", "add", &format!("10.{pool}.255.1/30"), "dev", &outside]);
        ip(&["link", "set", &outside, "up"]);
        ip(&["-n", name, "address", "add", &format!("10.{pool}.255.2/30"), "dev", &inside]);
        ip(&["-n", name, "link", "set", &inside, "up"]);
        ip(&["-n", name, "link", "set", "lo", "up"]);
        ip(&["netns", "exec", name, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]);
        ip(&["-n", name, "route", "add", "default", "via", &format!("10.{pool}.255.1")]);
        ip(&["route", "add", &format!("10.{pool}.0.0/17"), "via", &format!("10.{pool}.255.2")]);
        namespace
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Its links and their routes go with it.
        drop(Command::new("ip").args(["netns", "delete", &self.name]).output());
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn dockerd(folder: &Path, namespace: &Namespace, flags: &[String]) -> Child {
    let path = |name: &str| folder.join(name);
    // One that was killed leaves it behind, and the next would not start.
    drop(std::fs::remove_file(path("pid")));
    let log = File::options().create(true).append(true).open(path("dockerd.log")).unwrap();
    Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", namespace.name))
        .arg("dockerd")
        .arg(format!("--host=unix://{}", path("docker.sock").display()))
        .arg("--containerd")
        .arg(path("containerd.sock"))
        .arg("--data-root")
        .arg(path("data"))
        .arg("--exec-root")
        .arg(path("exec"))
        .arg("--pidfile")
        .arg(path("pid"))
        .arg("--config-file")
        .arg(path("daemon.json"))
        .args(["--bridge=none", "--iptables=false", "--ip-masq=false", "--storage-driver=vfs"])
        .args(flags)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Removes all that it runs and its networks: they outlive it.
async fn clear(docker: &Docker) -> Result<(), bollard::errors::Error> {
    let all = ListContainersOptionsBuilder::new().all(true).build();
    for container in docker.list_containers(Some(all)).await? {
        let force = RemoveContainerOptionsBuilder::new().force(true).build();
        docker.remove_container(&container.id.unwrap_or_default(), Some(force)).await?;
    }
    for network in docker.list_networks(None::<ListNetworksOptions>).await? {
        let is_its_own = network.name.as_deref() == Some("bridge");
        if network.driver.as_deref() == Some("bridge") && !is_its_own {
            docker.remove_network(&network.id.unwrap_or_default()).await?;
        }
    }
    Ok(())
}

fn terminate(child: &mut Child) {
    let deadline = std::time::Instant::now() + Duration::from_secs(15);
    if matches!(child.try_wait(), Ok(None)) && kill_process(Pid::from_child(child), Signal::TERM).is_ok() {
        while matches!(child.try_wait(), Ok(None)) && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    drop(child.kill());
    drop(child.wait());
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        if !matches!(self.dockerd.try_wait(), Ok(None)) {
            self.dockerd = dockerd(self.folder.path(), &self.namespace, &self.flags);
        }
        let docker = self.docker();
        // A thread of its own: the test's runtime may be this very thread.
        let cleared = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async {
                let deadline = Instant::now() + SOON;
                while docker.ping().await.is_err() && Instant::now() < deadline {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                clear(&docker).await.ok()
            })
        });
        if !matches!(cleared.join(), Ok(Some(()))) {
            eprintln!("the private engine's containers or networks stay: {}", self.folder.path().display());
        }
        terminate(&mut self.dockerd);
        terminate(&mut self.containerd);
        // The storage driver mounts its folder onto itself, once for each start.
        while Command::new("umount")
            .arg(self.folder.path().join("data"))
            .output()
            .is_ok_and(|o| o.status.success())
        {}
    }
}
