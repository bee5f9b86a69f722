//! The proxies: how each is configured, started on its core, and ended.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::machine::Cores;

const START_DEADLINE: Duration = Duration::from_secs(15);
const END_DEADLINE: Duration = Duration::from_secs(5);

/// A proxy as it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The measure of the others.
    Haproxy,
    /// With bodies passed on inside the kernel.
    HaproxySplice,
    /// With buffers of 64 KiB instead of 16.
    Haproxy64k,
    Nginx,
    Ours,
}

/// What every proxy is started with.
#[derive(Debug)]
pub(crate) struct Starter {
    pub(crate) binary: PathBuf,
    pub(crate) cores: Cores,
    pub(crate) origins: Vec<SocketAddr>,
}

/// A proxy that runs.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    /// Where ours tells what it sent twice.
    metrics: Option<SocketAddr>,
    child: Child,
    folder: TempDir,
}

impl Kind {
    /// In the order of the rounds; ours is not next to what it is compared with by chance of the order alone.
    pub(crate) const ALL: [Kind; 5] =
        [Kind::Haproxy, Kind::Ours, Kind::Nginx, Kind::HaproxySplice, Kind::Haproxy64k];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Haproxy => "haproxy",
            Kind::HaproxySplice => "haproxy, splice",
            Kind::Haproxy64k => "haproxy, 64 KiB buffers",
            Kind::Nginx => "nginx",
            Kind::Ours => "ringmaster",
        }
    }

    /// Tuned for long bodies, and compared where there are some.
    pub(crate) fn is_for_long_bodies(self) -> bool {
        matches!(self, Kind::HaproxySplice | Kind::Haproxy64k)
    }

    pub(crate) fn is_installed(self) -> bool {
        self == Kind::Ours || self.version().is_some()
    }

    /// What a peer says of itself; none if it is not installed.
    pub(crate) fn version(self) -> Option<String> {
        let output = Command::new(self.program()?).arg("-v").output().ok()?;
        // nginx prints it on standard error.
        let text = [output.stdout, output.stderr].concat();
        let line = String::from_utf8_lossy(&text).lines().next()?.replace("nginx version: ", "");
        Some(line.split(" - ").next().unwrap_or_default().replace("HAProxy version", "haproxy"))
    }

    /// Debian keeps both where only root looks.
    fn program(self) -> Option<PathBuf> {
        let name = match self {
            Kind::Haproxy | Kind::HaproxySplice | Kind::Haproxy64k => "haproxy",
            Kind::Nginx => "nginx",
            Kind::Ours => return None,
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
        folders.map(|folder| folder.join(name)).find(|program| program.is_file())
    }

    fn config(self, listen: SocketAddr, threads: usize, origins: &[SocketAddr]) -> Option<String> {
        match self {
            Kind::Haproxy => Some(haproxy("", "", listen, threads, origins)),
            Kind::HaproxySplice => Some(haproxy(
                "",
                "    option splice-response\n    option splice-request\n",
                listen,
                threads,
                origins,
            )),
            Kind::Haproxy64k => Some(haproxy("    tune.bufsize 65536\n", "", listen, threads, origins)),
            Kind::Nginx => Some(nginx(listen, threads, origins)),
            Kind::Ours => None,
        }
    }
}

/// A consistent hash of the whole URI, kept connections on both sides, no log.
fn haproxy(
    global: &str,
    defaults: &str,
    listen: SocketAddr,
    threads: usize,
    origins: &[SocketAddr],
) -> String {
    let servers: String =
        (0..).zip(origins).map(|(index, origin)| format!("    server s{index} {origin}\n")).collect();
    format!(
        "global\n    nbthread {threads}\n    maxconn 8000\n    maxpipes 500\n{global}defaults\n    mode http\n    no log\n    \
         option http-keep-alive\n    option forwardfor\n    http-reuse always\n    timeout connect 5s\n    \
         timeout client 300s\n    timeout server 60s\n    timeout http-keep-alive 300s\n{defaults}frontend front\n    \
         bind {listen} backlog 4096\n    default_backend origins\nbackend origins\n    balance uri whole\n    \
         hash-type consistent\n{servers}"
    )
}

/// The same, as nginx says it.
fn nginx(listen: SocketAddr, threads: usize, origins: &[SocketAddr]) -> String {
    let servers: String = origins.iter().map(|origin| format!("        server {origin};\n")).collect();
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path tmp_{kind};\n"))
        .concat();
    let reuse = if threads > 1 { " reuseport" } else { "" };
    format!(
        "{user}daemon off;\npid nginx.pid;\nerror_log stderr crit;\nworker_processes {threads};\n\
         worker_rlimit_nofile 20000;\nevents {{ worker_connections 16384; }}\nhttp {{\n    access_log off;\n    \
         tcp_nodelay on;\n    keepalive_timeout 300s;\n    keepalive_requests 100000000;\n{temporary}    \
         upstream origins {{\n        hash $request_uri consistent;\n{servers}        keepalive 256;\n        \
         keepalive_requests 100000000;\n        keepalive_timeout 300s;\n    }}\n    server {{\n        \
         listen {listen} backlog=4096{reuse};\n        location / {{\n            proxy_pass http://origins;\n            \
         proxy_http_version 1.1;\n            proxy_set_header Connection \"\";\n            \
         proxy_set_header Host $host;\n            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n            \
         proxy_max_temp_file_size 0;\n        }}\n    }}\n}}\n"
    )
}

impl Starter {
    /// Starts a proxy with so many workers, and waits until it listens.
    pub(crate) async fn start(&self, kind: Kind, threads: usize) -> anyhow::Result<Peer> {
        let address = free_address()?;
        let metrics = (kind == Kind::Ours).then(free_address).transpose()?;
        let folder = TempDir::with_prefix("ringmaster-bench-")?;
        let errors = File::create(folder.path().join("errors"))?;
        let mut command = match kind.program() {
            None => Command::new(&self.binary),
            Some(program) => Command::new(program),
        };
        if let Some(text) = kind.config(address, threads, &self.origins) {
            fs::write(folder.path().join("config"), text)?;
        }
        let config = folder.path().join("config");
        match kind {
            Kind::Haproxy | Kind::HaproxySplice | Kind::Haproxy64k => {
                command.args(["-db", "-f"]).arg(&config)
            }
            Kind::Nginx => command.arg("-p").arg(folder.path()).arg("-c").arg(&config),
            // Everything else is as it is by default.
            Kind::Ours => {
                let origins: Vec<String> = self.origins.iter().map(ToString::to_string).collect();
                command
                    .env_clear()
                    .args(["proxy", "--listen", &address.to_string(), "--threads", &threads.to_string()])
                    .args(["--hash-on", "path", "--upstream", &origins.join(",")]);
                if let Some(metrics) = metrics {
                    command.args(["--metrics-listen", &metrics.to_string()]);
                }
                &mut command
            }
        };
        command.stdin(Stdio::null()).stdout(errors.try_clone()?).stderr(errors);
        // A child stays on the cores that its parent's thread was on.
        self.cores.pin_to_proxy(threads)?;
        let child = command.spawn();
        self.cores.pin_to_load()?;
        let child = child.with_context(|| format!("cannot start {}", kind.name()))?;
        let mut peer = Peer { kind, address, metrics, child, folder };
        peer.listens().await?;
        Ok(peer)
    }
}

impl Peer {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    async fn listens(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        while TcpStream::connect(self.address).await.is_err() {
            if !matches!(self.child.try_wait(), Ok(None)) || Instant::now() > deadline {
                let said = fs::read_to_string(self.folder.path().join("errors")).unwrap_or_default();
                bail!("{} does not listen on {}: {}", self.kind.name(), self.address, said.trim());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// How many tries after the first, or beside it, it says it has made; a peer makes none.
    pub(crate) async fn repeats(&self) -> anyhow::Result<u64> {
        let Some(address) = self.metrics else { return Ok(0) };
        let mut stream = TcpStream::connect(address).await.context("no metrics")?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.context("no metrics")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.context("no metrics")?;
        counted_repeats(&text).with_context(|| format!("no count of replays and hedges on {address}"))
    }

    /// Asks it to end, and sees to it.
    pub(crate) async fn end(mut self) {
        // One that has ended by itself needs no signal.
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap_or_default();
        let deadline = Instant::now() + END_DEADLINE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // nginx' workers end with their master's connection to them.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A loopback address with a port that was free a moment ago.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn counted_repeats(text: &str) -> Option<u64> {
    let count = |name: &str| -> Option<u64> {
        let series =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')))?;
        series.rsplit_once(' ')?.1.parse().ok()
    };
    Some(count("ringmaster_proxy_replays_total")? + count("ringmaster_proxy_hedges_total")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_hash_the_same_key_over_all_origins() {
        let origins: Vec<SocketAddr> = (1..4).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let listen = SocketAddr::from(([127, 0, 0, 1], 9));
        for kind in [Kind::Haproxy, Kind::HaproxySplice, Kind::Haproxy64k, Kind::Nginx] {
            let text = kind.config(listen, 1, &origins).unwrap();
            assert!(text.contains("consistent") && text.contains("uri"), "{text}");
            assert!(origins.iter().all(|origin| text.contains(&origin.to_string())), "{text}");
        }
        assert_eq!(Kind::Ours.config(listen, 1, &origins), None);
    }

    #[test]
    fn repeats_are_replays_and_hedges() {
        let text = "# TYPE ringmaster_proxy_replays_total counter\nringmaster_proxy_replays_total{service=\"static\"} 2\n\
                    ringmaster_proxy_hedges_total{service=\"static\"} 40\nringmaster_proxy_hedges_won_total{service=\"static\"} 7\n";
        assert_eq!(counted_repeats(text), Some(42));
        assert_eq!(counted_repeats("ringmaster_proxy_replays_total{service=\"static\"} 2\n"), None);
    }
}
