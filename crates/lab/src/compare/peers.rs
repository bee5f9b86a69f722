//! haproxy and nginx, each with a configuration of its own in a temporary folder, ended with it.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringmaster_core::Ordinal;
use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::error::LabError;

/// How long a peer may take until it listens, and until it ends.
const START_DEADLINE: Duration = Duration::from_secs(10);
const END_DEADLINE: Duration = Duration::from_secs(5);

/// A balancer that may be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Haproxy,
    Nginx,
}

/// A replica as peers know it.
#[derive(Debug, Clone)]
pub(super) struct Backend {
    pub(super) ordinal: Ordinal,
    pub(super) address: String,
}

/// A peer that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Peer {
    pub(super) const ALL: [Peer; 2] = [Peer::Haproxy, Peer::Nginx];

    pub(super) fn name(self) -> &'static str {
        match self {
            Peer::Haproxy => "haproxy",
            Peer::Nginx => "nginx",
        }
    }

    /// What it says of itself; none if it is not installed.
    pub(super) fn version(self) -> Option<String> {
        let output = Command::new(self.name()).arg("-v").output().ok()?;
        // nginx prints it on standard error.
        let text = [output.stdout, output.stderr].concat();
        let line = String::from_utf8_lossy(&text).lines().next()?.to_owned();
        let version = line.trim_start_matches("nginx version: ");
        Some(version.split(" - ").next().unwrap_or(version).to_owned())
    }

    /// Starts it over these replicas, and waits until it listens.
    pub(super) async fn start(self, backends: &[Backend]) -> Result<Running, LabError> {
        let what = format!("start {}", self.name());
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .map_err(LabError::io(what.clone()))?;
        let folder = TempDir::with_prefix("ringmaster-lab-").map_err(LabError::io(what.clone()))?;
        let config = folder.path().join("config");
        fs::write(&config, self.config(address, backends)).map_err(LabError::io(what.clone()))?;
        let mut command = Command::new(self.name());
        match self {
            Peer::Haproxy => command.arg("-db").arg("-f").arg(&config),
            Peer::Nginx => command.arg("-p").arg(folder.path()).arg("-c").arg(&config),
        };
        let errors = fs::File::create(folder.path().join("errors")).map_err(LabError::io(what.clone()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .map_err(LabError::io(what.clone()))?;
        let mut running = Running { address, child, _folder: folder };
        let deadline = Instant::now() + START_DEADLINE;
        while TcpStream::connect(address).await.is_err() {
            let ended = !matches!(running.child.try_wait(), Ok(None));
            if ended || Instant::now() > deadline {
                let errors = fs::read_to_string(running._folder.path().join("errors")).unwrap_or_default();
                let last = errors.lines().last().unwrap_or_default().to_owned();
                running.end().await;
                return Err(LabError::Failed(format!("{what}: it does not listen: {last}")));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(running)
    }

    /// The usual settings of a careful operator: a consistent hash on the same key, kept-alive connections, another
    /// try on another server.
    fn config(self, listen: SocketAddr, backends: &[Backend]) -> String {
        match self {
            Peer::Haproxy => {
                let servers: String = backends
                    .iter()
                    .map(|b| format!("    server s{} {} check inter 500ms fall 2\n", b.ordinal, b.address))
                    .collect();
                format!(
                    "global\n    maxconn 8192\ndefaults\n    mode http\n    timeout connect 250ms\n    \
                     timeout client 30s\n    timeout server 30s\n    retries 2\n    option redispatch 1\n    \
                     retry-on all-retryable-errors\nfrontend front\n    bind {listen}\n    \
                     default_backend replicas\nbackend replicas\n    balance hdr(X-Request-Id)\n    \
                     hash-type consistent\n    http-reuse always\n    option httpchk GET /heartbeat\n{servers}"
                )
            }
            Peer::Nginx => {
                let servers: String =
                    backends.iter().map(|b| format!("        server {};\n", b.address)).collect();
                let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
                let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|kind| format!("    {kind}_temp_path tmp_{kind};\n"))
                    .concat();
                format!(
                    "{user}daemon off;\npid nginx.pid;\nerror_log stderr warn;\nworker_processes auto;\n\
                     events {{ worker_connections 4096; }}\nhttp {{\n    access_log off;\n{temporary}    \
                     upstream replicas {{\n        hash $http_x_request_id consistent;\n{servers}        \
                     keepalive 128;\n    }}\n    server {{\n        listen {listen};\n        \
                     keepalive_requests 1000000;\n        location / {{\n            proxy_http_version 1.1;\n            \
                     proxy_set_header Connection \"\";\n            proxy_connect_timeout 250ms;\n            \
                     proxy_next_upstream error timeout;\n            proxy_pass http://replicas;\n        }}\n    \
                     }}\n}}\n"
                )
            }
        }
    }
}

impl Running {
    /// Asks it to end, and sees to it.
    pub(super) async fn end(mut self) {
        let deadline = Instant::now() + END_DEADLINE;
        // One that has ended by itself needs no signal.
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap_or_default();
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hash_the_same_key_consistently_over_all_replicas() {
        let backends: Vec<Backend> = (0..3)
            .map(|ordinal| Backend { ordinal: Ordinal(ordinal), address: format!("10.0.0.{ordinal}:5000") })
            .collect();
        let listen = "127.0.0.1:9".parse().unwrap();
        let haproxy = Peer::Haproxy.config(listen, &backends);
        assert!(haproxy.contains("balance hdr(X-Request-Id)") && haproxy.contains("hash-type consistent"));
        let nginx = Peer::Nginx.config(listen, &backends);
        assert!(nginx.contains("hash $http_x_request_id consistent;"));
        for backend in backends {
            assert!(haproxy.contains(&backend.address) && nginx.contains(&backend.address));
        }
    }
}
