//! The controller: the store of the desired state, the loop that makes it so, and the admin API.
//!
//! Deliberately absent: the data plane (it is told by a `watch` channel of snapshots and answers by one of
//! reports), and any particular runtime.

mod act;
pub mod admin;
pub mod assignment;
pub mod clock;
mod figures;
mod metered;
mod probe;
mod reconcile;
pub mod state;
pub mod store;
pub mod timeline;
pub mod watch_file;

use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::Generation;
use ringmaster_core::snapshot::{Report, Snapshot};
use ringmaster_runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use reconcile::Board;

use clock::Clock;
use reconcile::{Channels, Command, Reconciler};
use store::Store;
use timeline::Timeline;

/// Commands that wait for the loop at most; more are refused by waiting.
const COMMANDS_MAX: usize = 64;

/// The seam towards the data plane: two `watch` channels of pure values.
#[derive(Debug)]
pub struct DataPlaneSeam {
    /// The generation of the first snapshot: higher than any of the runs before.
    pub first_generation: Generation,
    /// How long the first snapshot may wait until every replica that runs already has been judged. Zero where the data
    /// plane starts with the controller; one that has served meanwhile must not be told that nobody is ready.
    pub settle: Duration,
    /// What is published.
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    /// What comes back.
    pub reports: watch::Receiver<Report>,
}

/// A running controller.
#[derive(Debug)]
pub struct Controller {
    store: Arc<Store>,
    timeline: Arc<Timeline>,
    clock: Clock,
    board: watch::Receiver<Arc<Board>>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    reports: watch::Receiver<Report>,
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
}

impl Controller {
    /// Starts the loop. It runs until `shutdown`, and leaves replicas as they are.
    pub fn start(
        runtime: Arc<dyn Runtime>,
        store: Arc<Store>,
        timeline: Arc<Timeline>,
        clock: Clock,
        seam: DataPlaneSeam,
        shutdown: CancellationToken,
    ) -> Controller {
        let (board_sender, board) = watch::channel(Arc::new(Board::default()));
        let (commands, command_receiver) = mpsc::channel(COMMANDS_MAX);
        let (snapshots, reports) = (seam.snapshots.subscribe(), seam.reports.clone());
        let channels = Channels {
            first_generation: seam.first_generation,
            settle: seam.settle,
            reports: seam.reports,
            snapshots: seam.snapshots,
            board: board_sender,
            commands: command_receiver,
        };
        let runtime: Arc<dyn Runtime> = Arc::new(metered::Metered(runtime));
        let reconciler = Reconciler::new(runtime, Arc::clone(&store), Arc::clone(&timeline), clock, channels);
        let task = tokio::spawn(reconciler.run(shutdown));
        Controller { store, timeline, clock, board, snapshots, reports, commands, task }
    }

    /// Follows what is.
    pub fn board(&self) -> watch::Receiver<Arc<Board>> {
        self.board.clone()
    }

    /// The assignment's API over this controller.
    pub fn assignment(&self) -> assignment::Assignment {
        assignment::Assignment::new(Arc::clone(&self.store), self.board.clone())
    }

    /// What the admin API needs of it.
    pub fn admin_state(&self, daemon: admin::Daemon) -> admin::AdminState {
        admin::AdminState {
            store: Arc::clone(&self.store),
            timeline: Arc::clone(&self.timeline),
            clock: self.clock,
            board: self.board.clone(),
            snapshots: self.snapshots.clone(),
            reports: self.reports.clone(),
            commands: self.commands.clone(),
            daemon: Arc::new(daemon),
            shares: Arc::default(),
        }
    }

    /// Waits until the loop has ended. It ends by shutdown; anything else is a bug that ends the daemon.
    ///
    /// # Errors
    /// If the loop has panicked.
    pub async fn join(self) -> Result<(), tokio::task::JoinError> {
        self.task.await
    }
}
