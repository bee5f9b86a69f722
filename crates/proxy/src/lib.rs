//! The data plane: an HTTP/1.1 proxy that follows the published [`Snapshot`] and reports back.
//!
//! Responsible for: listeners, routing by host and path, keys, the choice of an endpoint, forwarding with
//! replays, passive ejection, and the [`Report`] that the drain handshake rests on. Thread per core: each
//! worker has its own runtime, listeners (`listener`) and upstream pools (`upstream`), so a request takes
//! no lock and waits for no other thread. Only counters and verdicts about endpoints are process-wide
//! (`stats`, `outlier`).
//!
//! Deliberately absent: containers, the desired state, and any decision about replicas. HTTP/2 and TLS are
//! not here yet.

mod answer;
mod assignment;
mod attempt;
mod back;
mod budget;
mod claims;
mod client;
mod closing;
mod compare;
mod control;
mod crowd;
mod error;
mod exchange;
mod forward;
#[cfg(fuzzing)]
pub mod fuzzing;
mod h1;
mod hold;
mod io;
mod key;
mod latency;
mod listener;
mod metrics;
mod outlier;
mod own;
mod per_worker;
mod picker;
mod queue;
mod registry;
mod relay;
mod retry;
mod routing;
mod socket;
mod splice;
mod stats;
mod stream;
mod stripes;
mod ticks;
mod upgrade;
mod upload;
mod upstream;

mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ringmaster_core::ServiceName;
use ringmaster_core::ring::Ring;
use ringmaster_core::snapshot::{Report, Snapshot};
use ringmaster_core::traffic::TrafficMoved;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use error::ProxyError;
pub use listener::{ListenerState, ListenerStatus};

use registry::Shared;

/// How long requests in flight may take to end after a shutdown was asked for.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// What the data plane is started with; everything else arrives in snapshots.
#[derive(Clone)]
pub struct ProxyConfig {
    /// The address of all listeners, and the port of the one that is open while the
    /// snapshot names none; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// How many worker threads serve requests; at least one is started.
    pub workers: usize,
    /// Who answers the assignment's API, if the snapshot turns it on; without it those paths are forwarded.
    pub local: Option<Arc<dyn LocalApi>>,
    /// How long requests in flight may take to end after a shutdown was asked for.
    pub shutdown_grace: Duration,
}

impl ProxyConfig {
    /// A data plane on `listen`, with one worker per available core and nothing local.
    pub fn new(listen: SocketAddr) -> ProxyConfig {
        let workers = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        ProxyConfig { listen, workers, local: None, shutdown_grace: SHUTDOWN_GRACE }
    }
}

/// Who answers the assignment's `/rep`, `/add` and `/rm` on the data port: the controller.
pub trait LocalApi: Send + Sync {
    /// Answers one request. `path` is one of the exact paths, without a query; `body` has at most 64 KiB.
    ///
    /// The future is dropped when the client goes away.
    fn call(&self, method: http::Method, path: String, body: Bytes) -> BoxFuture<'static, LocalResponse>;
}

/// The answer of a [`LocalApi`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalResponse {
    /// The HTTP status, 200 to 599.
    pub status: u16,
    /// The JSON text.
    pub body: Bytes,
}

/// A running data plane.
pub struct Proxy {
    shared: Arc<Shared>,
    threads: Vec<thread::JoinHandle<()>>,
    ended: mpsc::Receiver<()>,
}

impl Proxy {
    /// Opens the listeners and starts the workers. Returns when the default port accepts connections.
    ///
    /// Cancelling `token` stops accepting, lets requests in flight end within the grace, and ends all threads.
    /// A listener of the snapshot that cannot be opened is reported by [`Proxy::listeners`] and tried again.
    ///
    /// # Errors
    /// [`ProxyError::PortInUse`] or [`ProxyError::Listen`] if the default port cannot be opened,
    /// [`ProxyError::Thread`] and [`ProxyError::Runtime`] if the system refuses threads or descriptors.
    pub fn start(
        config: ProxyConfig,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        reports: watch::Sender<Report>,
        token: CancellationToken,
    ) -> Result<Proxy, ProxyError> {
        let count = config.workers.max(1);
        let (address, sockets) = listener::open(config.listen, count)?;
        let (shared, tasks) = Shared::new(snapshots, count, config.local.clone());
        // A panic ends our own threads through this child; the caller's token stays the caller's.
        let token = token.child_token();
        let (ended_tx, ended) = mpsc::channel(1);
        let (workers_ended_tx, workers_ended) = mpsc::channel(1);
        let mut threads = Vec::with_capacity(count + 1);
        let mut commands = Vec::with_capacity(count);
        for (index, socket) in sockets.into_iter().enumerate() {
            let (command_tx, command_rx) = mpsc::unbounded_channel();
            worker::send(&command_tx, worker::Command::Open { address, socket });
            commands.push(command_tx);
            let setup = worker::Setup {
                index,
                shared: Arc::clone(&shared),
                commands: command_rx,
                token: token.child_token(),
                grace: config.shutdown_grace,
            };
            let guards = (workers_ended_tx.clone(), ended_tx.clone());
            let thread =
                spawn(format!("proxy-worker-{index}"), &token, guards, |ready| worker::run(setup, ready))?;
            threads.push(thread);
        }
        drop(workers_ended_tx);
        let listeners = control::Listeners::new(config.listen.ip(), address, commands, Arc::clone(&shared));
        let setup = control::Setup { shared: Arc::clone(&shared), reports, tasks, listeners, workers_ended };
        let control = spawn("proxy-control".to_owned(), &token, ended_tx, |ready| control::run(setup, ready));
        threads.push(control?);
        Ok(Proxy { shared, threads, ended })
    }

    /// The addresses that accept connections now.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        let open = |status: &ListenerStatus| status.state == ListenerState::Open;
        self.shared.listeners().iter().filter(|status| open(status)).map(|status| status.address).collect()
    }

    /// All listeners that should be open, and why one is not.
    pub fn listeners(&self) -> Vec<ListenerStatus> {
        self.shared.listeners().clone()
    }

    /// A handle that tells the listeners after the proxy has been moved into [`Proxy::join`].
    pub fn listeners_reader(&self) -> impl Fn() -> Vec<ListenerStatus> + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.listeners().clone()
    }

    /// The counters in the Prometheus text format, version 0.0.4.
    pub fn render_metrics(&self) -> String {
        metrics::render(&self.shared)
    }

    /// A handle that renders the counters after the proxy has been moved into [`Proxy::join`].
    pub fn metrics_renderer(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || metrics::render(&shared)
    }

    /// A handle that tells what a change of a service's ring, from the first to the second, would mean for the
    /// requests of the last minutes; none where there were none with a key.
    pub fn traffic_reader(
        &self,
    ) -> impl Fn(&ServiceName, &Ring, &Ring) -> Option<TrafficMoved> + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move |service, before, after| shared.service_stats(service)?.moved(before, after)
    }

    /// Waits until all threads have ended, which happens after the token was cancelled or a thread panicked.
    ///
    /// # Errors
    /// [`ProxyError::Panicked`] if a thread ended by a panic.
    pub async fn join(mut self) -> Result<(), ProxyError> {
        // Nothing is ever sent: the channel closes when the last thread drops its sender.
        while self.ended.recv().await.is_some() {}
        for thread in self.threads {
            let name = thread.thread().name().unwrap_or("proxy").to_owned();
            thread.join().map_err(|_| ProxyError::Panicked { thread: name })?;
        }
        Ok(())
    }
}

/// Starts a thread and waits until it says that its runtime stands. However it ends, the others are told:
/// a data plane with a missing worker would look healthy and lose a share of the connections.
fn spawn<G: Send + 'static>(
    name: String,
    token: &CancellationToken,
    guards: G,
    run: impl FnOnce(&SyncSender<Result<(), ProxyError>>) + Send + 'static,
) -> Result<thread::JoinHandle<()>, ProxyError> {
    let (ready_tx, ready_rx) = sync_channel(1);
    let stop = token.clone().drop_guard();
    let body = move || {
        let _held_until_the_end = (guards, stop);
        run(&ready_tx);
    };
    let spawned = thread::Builder::new().name(name.clone()).spawn(body);
    let thread = spawned.map_err(|source| ProxyError::Thread { thread: name.clone(), source })?;
    match ready_rx.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ProxyError::Panicked { thread: name }),
    }
}
