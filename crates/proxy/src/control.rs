//! The control thread: reports to the controller, opens and closes listeners, and connects to endpoints that
//! are in doubt. It is never on a request's way.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use ringmaster_core::ServiceName;
use ringmaster_core::snapshot::Report;
use ringmaster_core::spec::ListenerSpec;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::error::ProxyError;
use crate::listener::{self, ListenerState, ListenerStatus};
use crate::outlier::{self, Task};
use crate::registry::Shared;
use crate::worker::{self, Command};

/// Shortest time between two reports of which nothing is urgent.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// Pause before a listener that could not be opened is tried again.
const LISTENER_RETRY: Duration = Duration::from_secs(1);

/// What the control thread is started with.
pub(crate) struct Setup {
    pub(crate) shared: Arc<Shared>,
    pub(crate) reports: watch::Sender<Report>,
    pub(crate) tasks: mpsc::UnboundedReceiver<Task>,
    pub(crate) listeners: Listeners,
    /// Closes when the last worker has ended.
    pub(crate) workers_ended: mpsc::Receiver<()>,
}

/// The listeners of all workers.
pub(crate) struct Listeners {
    ip: IpAddr,
    default: SocketAddr,
    workers: Vec<mpsc::UnboundedSender<Command>>,
    shared: Arc<Shared>,
}

/// Runs until the last worker has ended, so that even the last request's end is reported.
pub(crate) fn run(setup: Setup, ready: &SyncSender<Result<(), ProxyError>>) {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (result, runtime) = match built {
        Ok(runtime) => (Ok(()), Some(runtime)),
        Err(source) => (Err(ProxyError::Runtime { source }), None),
    };
    if ready.send(result).is_err() {
        tracing::debug!("nobody waits for the control thread any more");
    }
    if let Some(runtime) = runtime {
        runtime.block_on(control(setup));
    }
}

async fn control(setup: Setup) {
    let Setup { shared, reports, tasks, listeners, mut workers_ended } = setup;
    // All arms but the last run for ever; dropping them then loses nothing that anybody waits for.
    tokio::select! {
        never = report(&shared, &reports) => match never {},
        never = listeners.follow() => match never {},
        () = run_tasks(tasks) => {}
        never = crate::compare::run(&shared) => match never {},
        _ = workers_ended.recv() => {}
    }
    publish(&shared, &reports);
}

/// Reports at once what the controller waits for, and anything else at most every [`REPORT_INTERVAL`]. While
/// nothing changes it only waits.
async fn report(shared: &Shared, reports: &watch::Sender<Report>) -> std::convert::Infallible {
    let mut snapshots = shared.snapshots();
    let mut last: Option<Instant> = None;
    loop {
        // Cancel-safe: whichever arm wins, the report that follows covers what the others would have told.
        tokio::select! {
            () = shared.signals.urgent() => {}
            () = changed(&mut snapshots) => {}
            () = async {
                shared.signals.changed().await;
                if let Some(last) = last {
                    sleep_until(last + REPORT_INTERVAL).await;
                }
            } => {}
        }
        publish(shared, reports);
        last = Some(Instant::now());
    }
}

fn publish(shared: &Shared, reports: &watch::Sender<Report>) {
    shared.signals.settle();
    let report = shared.report();
    reports.send_if_modified(|current| {
        let modified = *current != report;
        *current = report;
        modified
    });
}

/// Resolves with the next snapshot; never once the controller is gone.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Runs the checks side by side; each endpoint has at most two.
async fn run_tasks(mut tasks: mpsc::UnboundedReceiver<Task>) {
    while let Some(task) = tasks.recv().await {
        tokio::spawn(outlier::run(task));
    }
}

impl Listeners {
    /// Listeners of which the default one is already open.
    pub(crate) fn new(
        ip: IpAddr,
        default: SocketAddr,
        workers: Vec<mpsc::UnboundedSender<Command>>,
        shared: Arc<Shared>,
    ) -> Listeners {
        shared.listeners().push(ListenerStatus { name: None, address: default, state: ListenerState::Open });
        Listeners { ip, default, workers, shared }
    }

    async fn follow(&self) -> std::convert::Infallible {
        let mut snapshots = self.shared.snapshots();
        loop {
            let wanted = snapshots.borrow_and_update().listeners.clone();
            let all_open = self.apply(&wanted);
            let retry =
                async { if all_open { std::future::pending().await } else { sleep(LISTENER_RETRY).await } };
            // Cancel-safe: both arms only wait.
            tokio::select! {
                () = changed(&mut snapshots) => {}
                () = retry => {}
            }
        }
    }

    /// Opens what is wanted, closes what is not; returns whether all are open. Without listeners of its own a
    /// gateway has the default one.
    fn apply(&self, specs: &[ListenerSpec]) -> bool {
        let mut wanted: Vec<(Option<&ServiceName>, SocketAddr)> =
            specs.iter().map(|spec| (Some(&spec.name), SocketAddr::new(self.ip, spec.port))).collect();
        if wanted.is_empty() {
            wanted.push((None, self.default));
        }
        let before = self.shared.listeners().clone();
        let mut now: Vec<ListenerStatus> = Vec::new();
        for (name, address) in wanted {
            let known = before.iter().find(|listener| listener.address == address);
            let state = match known {
                Some(ListenerStatus { state: ListenerState::Open, .. }) => ListenerState::Open,
                _ => self.open(name, address, known),
            };
            now.push(ListenerStatus { name: name.cloned(), address, state });
        }
        let all_open = now.iter().all(|listener| listener.state == ListenerState::Open);
        let any_open = now.iter().any(|listener| listener.state == ListenerState::Open);
        for gone in before.into_iter().filter(|listener| listener.state == ListenerState::Open) {
            if now.iter().any(|listener| listener.address == gone.address) {
                continue;
            }
            if !any_open {
                // Whoever mistyped a port keeps the one that works.
                now.push(gone);
                continue;
            }
            tracing::info!(address = %gone.address, "listener closed");
            for worker in &self.workers {
                worker::send(worker, Command::Close { address: gone.address });
            }
        }
        *self.shared.listeners() = now;
        all_open
    }

    fn open(
        &self,
        name: Option<&ServiceName>,
        address: SocketAddr,
        known: Option<&ListenerStatus>,
    ) -> ListenerState {
        match listener::open(address, self.workers.len()) {
            Ok((address, sockets)) => {
                for (worker, socket) in self.workers.iter().zip(sockets) {
                    worker::send(worker, Command::Open { address, socket });
                }
                tracing::info!(name = name.map_or("default", ServiceName::as_str), %address, "listener opened");
                ListenerState::Open
            }
            Err(error) => {
                let state = ListenerState::Failed(chain(&error));
                // Said once, not with every try.
                if known.is_none_or(|known| known.state != state) {
                    let name = name.map_or("default", ServiceName::as_str);
                    tracing::error!(name, error = chain(&error), "listener not opened");
                }
                state
            }
        }
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
