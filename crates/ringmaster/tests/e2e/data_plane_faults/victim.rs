//! Endpoints that go bad when told to: real processes for what only a process can suffer, scripted ones for the rest.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Fault;
use crate::common::free_address;

/// The endpoint that goes bad, and the way to make it so.
pub(super) enum Victim {
    Process { child: Child, address: SocketAddr },
    Scripted { manners: watch::Sender<Manners>, serving: JoinHandle<()> },
}

/// How a scripted endpoint behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manners {
    Good,
    Answers503,
    NeverAnswers,
    Resets,
}

/// Packets to a port vanish until this is dropped.
pub(super) struct Swallowed(SocketAddr);

/// `ringmaster replica` on this address.
fn replica(address: SocketAddr) -> Child {
    Command::new(env!("CARGO_BIN_EXE_ringmaster"))
        .arg("replica")
        .env("HOST", address.ip().to_string())
        .env("PORT", address.port().to_string())
        .env("SERVER_ID", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// An endpoint in this process: well as long as it is told so.
pub(super) async fn scripted() -> (SocketAddr, watch::Sender<Manners>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (manners, told) = watch::channel(Manners::Good);
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let told = told.clone();
            // A connection may end as it likes: the load says whether anybody noticed.
            tokio::spawn(async move { drop(serve(stream, told).await) });
        }
    });
    (address, manners, serving)
}

async fn serve(mut stream: TcpStream, told: watch::Receiver<Manners>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    loop {
        if *told.borrow() == Manners::Resets {
            // Closing with nothing to wait for sends a reset.
            return stream.set_zero_linger();
        }
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        request.clear();
        let manners = *told.borrow();
        let answer: &[u8] = match manners {
            Manners::Good => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood",
            Manners::Answers503 => b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nbad",
            Manners::NeverAnswers => continue,
            Manners::Resets => return stream.set_zero_linger(),
        };
        stream.write_all(answer).await?;
    }
}

impl Victim {
    pub(super) async fn start(fault: Fault) -> (SocketAddr, Victim) {
        if matches!(fault, Fault::Killed | Fault::Stopped) {
            let address = free_address();
            (address, Victim::Process { child: replica(address), address })
        } else {
            let (address, manners, serving) = scripted().await;
            (address, Victim::Scripted { manners, serving })
        }
    }

    /// Makes it bad; what is returned ends with the fault.
    pub(super) fn spoil(&mut self, fault: Fault, address: SocketAddr) -> Option<Swallowed> {
        match (self, fault) {
            (Victim::Process { child, .. }, Fault::Killed) => child.kill().unwrap(),
            (Victim::Process { child, .. }, _) => signal(child, Signal::STOP),
            (_, Fault::Vanishes) => return Some(Swallowed::begin(address)),
            (Victim::Scripted { manners, .. }, _) => drop(manners.send_replace(match fault {
                Fault::Answers503 => Manners::Answers503,
                Fault::NeverAnswers => Manners::NeverAnswers,
                _ => Manners::Resets,
            })),
        }
        None
    }

    pub(super) fn heal(&mut self, fault: Fault) {
        match self {
            Victim::Process { child, address } if fault == Fault::Killed => {
                child.wait().unwrap();
                *child = replica(*address);
            }
            Victim::Process { child, .. } => signal(child, Signal::CONT),
            Victim::Scripted { manners, .. } => drop(manners.send_replace(Manners::Good)),
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        match self {
            Victim::Process { child, .. } => {
                drop(child.kill());
                drop(child.wait());
            }
            Victim::Scripted { serving, .. } => serving.abort(),
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

impl Swallowed {
    fn begin(address: SocketAddr) -> Swallowed {
        assert!(Swallowed::iptables("-I", address), "the rule was there a moment ago");
        Swallowed(address)
    }

    /// Whether this process may say what becomes of packets.
    pub(super) fn is_possible() -> bool {
        let address = free_address();
        Swallowed::iptables("-I", address) && Swallowed::iptables("-D", address)
    }

    fn iptables(verb: &str, address: SocketAddr) -> bool {
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let rule = ["INPUT", "-p", "tcp", "-d", &host, "--dport", &port, "-j", "DROP"];
        let run = Command::new("iptables").arg("-w").arg(verb).args(rule).stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    }
}

impl Drop for Swallowed {
    fn drop(&mut self) {
        if !Swallowed::iptables("-D", self.0) {
            eprintln!(
                "a rule is left behind: iptables -D INPUT -p tcp -d {} --dport {} -j DROP",
                self.0.ip(),
                self.0.port()
            );
        }
    }
}
