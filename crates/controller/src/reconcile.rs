//! The loop: observe → plan → publish → act, one pass after every change of anything.
//!
//! Level-based: each pass recomputes everything from what is known, and events only wake it. One task owns all
//! state; slow work (lists, images, creating, removing) runs in tasks of its own whose ends come back
//! as values, so a slow service never holds up another.

mod autoscale;
mod commands;
mod memory;
mod pass;
mod rollouts;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use ringmaster_core::autoscale::Scaling;
use ringmaster_core::desired::Desired;
use ringmaster_core::snapshot::{Report, Snapshot};
use ringmaster_core::status::ServiceStatus;
use ringmaster_core::world::{RESYNC_PERIOD, World};
use ringmaster_core::{Generation, Ordinal, Reason, ReplicaName, ServiceName, Timestamp};
use ringmaster_runtime::{Runtime, Signal, Wake};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::figures::{Spans, woken};
use crate::probe::{HealthChange, Prober};
use crate::store::Store;
use crate::timeline::Timeline;
use autoscale::Cpus;
use memory::Memory;
use tasks::{Done, Finishing};

/// For how long what the loop does counts as done for the last request.
const CAUSE_MAX: Duration = Duration::from_secs(10);

/// What is, published for the admin API.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Board {
    /// The desired state that the statuses relate to.
    pub desired: Arc<Desired>,
    /// The status of every service.
    pub statuses: BTreeMap<ServiceName, ServiceStatus>,
    /// Why the engine cannot be reached, if so.
    pub engine_error: Option<String>,
    /// The generation of the published snapshot.
    pub snapshot: Generation,
}

/// Something that only the loop may do, because it alone knows which object is which replica.
#[derive(Debug)]
pub(crate) enum Command {
    /// Fetch a replica's output.
    Logs {
        service: ServiceName,
        ordinal: Ordinal,
        previous: bool,
        lines: usize,
        reply: oneshot::Sender<Result<String, String>>,
    },
    /// Send a signal to a replica's process.
    Fault {
        service: ServiceName,
        ordinal: Ordinal,
        signal: Signal,
        reply: oneshot::Sender<Result<String, String>>,
    },
}

/// Everything that the loop owns.
pub(crate) struct Reconciler {
    runtime: Arc<dyn Runtime>,
    store: Arc<Store>,
    timeline: Arc<Timeline>,
    clock: Clock,
    desired: watch::Receiver<Arc<Desired>>,
    reports: watch::Receiver<Report>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    board: watch::Sender<Arc<Board>>,
    commands: mpsc::Receiver<Command>,
    health: mpsc::UnboundedReceiver<HealthChange>,
    events: BoxStream<'static, Wake>,
    world: World,
    prober: Prober,
    tasks: JoinSet<Done>,
    /// Turns to fetch output.
    fetches: Arc<Semaphore>,
    /// Replicas of services that nobody desires, reported already.
    orphans: BTreeSet<ReplicaName>,
    /// A deletion is being written, or may be tried again then.
    finishing: Finishing,
    /// Services whose failed release is being given up, or is to be then.
    giving_up: BTreeMap<ServiceName, Finishing>,
    /// What was ready has to be written, is being written, or may be tried again then.
    ready_writes: Finishing,
    ready_unwritten: bool,
    memory: Memory,
    wake_at: Option<Timestamp>,
    scaling: Scaling,
    cpus: Cpus,
    spans: Spans,
    first_generation: Generation,
    settle: Duration,
    /// The span of the request that the loop works for, until all is as desired, and not longer than
    /// [`CAUSE_MAX`]: it is not over before.
    cause: Option<(tracing::Span, tokio::time::Instant)>,
}

/// The loop's ends of the channels.
pub(crate) struct Channels {
    pub(crate) first_generation: Generation,
    pub(crate) settle: Duration,
    pub(crate) reports: watch::Receiver<Report>,
    pub(crate) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(crate) board: watch::Sender<Arc<Board>>,
    pub(crate) commands: mpsc::Receiver<Command>,
}

impl Reconciler {
    pub(crate) fn new(
        runtime: Arc<dyn Runtime>,
        store: Arc<Store>,
        timeline: Arc<Timeline>,
        clock: Clock,
        channels: Channels,
    ) -> Reconciler {
        let (health_changes, health) = mpsc::unbounded_channel();
        let mut world = World::default();
        let memory = Memory::new(&store);
        world.expect(memory.recollection.ready(&store.desired()));
        for (name, service) in &store.desired().services {
            if let Some(stable) = store.stable(name, &service.rollout) {
                world.stable.insert(name.clone(), (service.rollout.noted_from, stable));
            }
        }
        Reconciler {
            desired: store.subscribe(),
            events: runtime.events(),
            prober: Prober::new(clock, health_changes, Arc::clone(&runtime)),
            runtime,
            store,
            timeline,
            clock,
            reports: channels.reports,
            snapshots: channels.snapshots,
            board: channels.board,
            commands: channels.commands,
            health,
            world,
            tasks: JoinSet::new(),
            fetches: Arc::new(Semaphore::new(tasks::FETCHES_MAX)),
            orphans: BTreeSet::new(),
            finishing: Finishing::default(),
            giving_up: BTreeMap::new(),
            ready_writes: Finishing::default(),
            ready_unwritten: false,
            memory,
            wake_at: None,
            scaling: Scaling::default(),
            cpus: Cpus::new(),
            spans: Spans::default(),
            first_generation: channels.first_generation,
            settle: channels.settle,
            cause: None,
        }
    }

    /// Runs until shut down. Replicas are left as they are: a restart adopts them.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            // Read once: what is resolved, planned and created in one pass belongs to one desired state.
            let desired = Arc::clone(&self.desired.borrow_and_update());
            self.start_list();
            self.start_resolutions(&desired);
            self.pass(&desired);
            let sleep = self.sleep();
            // Every arm is cancel-safe: the channels and the JoinSet keep what was not taken, and the stream's
            // next() loses nothing when dropped.
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = self.desired.changed() => {
                    if changed.is_err() { break }
                    woken("desired");
                }
                changed = self.reports.changed() => {
                    if changed.is_err() { break }
                    woken("report");
                    self.on_report();
                }
                Some(wake) = self.events.next() => {
                    woken("event");
                    self.on_wake(wake);
                }
                Some(change) = self.health.recv() => {
                    woken("health");
                    self.on_health(change);
                }
                Some(done) = self.tasks.join_next() => {
                    woken("task");
                    self.on_joined(done);
                }
                Some(command) = self.commands.recv() => {
                    woken("command");
                    self.on_command(command);
                }
                () = tokio::time::sleep(sleep) => woken("timer"),
            }
            self.drain_ready();
        }
        // Actions under way end by themselves on the engine; whatever they did is found at the next start.
        self.tasks.shutdown().await;
        self.write_memory_at_the_end().await;
    }

    /// Takes whatever else is ready, so that a burst costs one pass.
    fn drain_ready(&mut self) {
        while let Ok(change) = self.health.try_recv() {
            self.on_health(change);
        }
        while let Some(done) = self.tasks.try_join_next() {
            self.on_joined(done);
        }
    }

    fn on_joined(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(done) => self.on_done(done),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {}
        }
    }

    fn on_report(&mut self) {
        let report = self.reports.borrow_and_update().clone();
        for (name, endpoint) in &report.endpoints {
            let before = self.world.handshake.endpoint(name);
            if endpoint.ejected && !before.ejected {
                let why = endpoint.circuit.map_or("it does not say why", |circuit| circuit.reason.as_str());
                let message = format!("the data plane has stopped choosing it: {why}");
                self.timeline.warning(Some(&name.service), &name.short(), Reason::Ejected, message);
                // Live traffic noticed something first: look at once instead of waiting for a probe or an event.
                self.prober.poke(name);
                self.world.listing.want();
            }
            // One that is taken out of service does not return: its verdict ends with it.
            let is_out = endpoint.ejected || endpoint.circuit.is_some();
            if let Some(circuit) =
                before.circuit.filter(|_| !is_out && self.world.handshake.is_published(name))
            {
                let message =
                    format!("the data plane chooses it again; it was out for: {}", circuit.reason.as_str());
                self.timeline.normal(Some(&name.service), &name.short(), Reason::Returned, message);
            }
        }
        self.scaling.hear(&report, &self.desired.borrow(), self.clock.now());
        self.world.handshake.report(report, self.clock.now());
    }

    fn on_wake(&mut self, wake: Wake) {
        match wake {
            Wake::Changed => {
                self.prober.poke_all();
                self.world.listing.want();
            }
            Wake::Stopping(id) => {
                if let Some(name) = self.world.stopping(&id, self.clock.now()) {
                    let message =
                        format!("somebody is stopping {name}: it gets no new requests and is replaced");
                    self.timeline.warning(Some(&name.service), &name.short(), Reason::Stopping, message);
                }
            }
            Wake::ChangedLimits(id, how) => self.world.changed_limits(&id, how),
            // That it answers again is told once a list has succeeded, which may be before this.
            Wake::Reconnected => self.world.listing.want(),
            Wake::Disconnected(why) => {
                self.tell_unreachable(&why);
                self.world.unreachable(why);
            }
        }
    }

    fn tell_unreachable(&self, why: &str) {
        let message = format!("{why}: replicas are left as they are and traffic goes on");
        self.timeline.warning(None, "engine", Reason::EngineUnreachable, message);
    }

    fn on_health(&mut self, change: HealthChange) {
        self.world.set_health(change.name, change.health);
    }

    /// How long to sleep if nothing happens.
    fn sleep(&self) -> Duration {
        let timers = [
            self.wake_at.map(|at| self.clock.until(at)),
            self.world.due_at().map(|at| self.clock.until(at)),
            self.finishing.due_in(),
            self.ready_writes.due_in(),
            self.memory.due_in(),
            self.giving_up.values().filter_map(Finishing::due_in).min(),
            self.scaling.wake_at().map(|at| self.clock.until(at)),
        ];
        // A millisecond more, so that the time that was waited for has surely come.
        timers.into_iter().flatten().min().unwrap_or(RESYNC_PERIOD) + Duration::from_millis(1)
    }
}
