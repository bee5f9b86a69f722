//! The data plane's side: follows a controller through cuts and restarts, and serves on meanwhile.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringmaster_core::ServiceName;
use ringmaster_core::ring::Ring;
use ringmaster_core::snapshot::{Report, Snapshot, UnpackError, Unpacker};
use ringmaster_core::traffic::TrafficMoved;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::address::{Address, Reads, Writes};
use crate::frame::{self, Frame, FrameError, Limits};
use crate::kept::{self, Keeper, Kept};
use crate::local::{Call, LocalCaller, away, unavailable};
use crate::message::{Hello, Question, Run, ToController, ToPlane};
use crate::numbering::Numbering;
use crate::{CALLS_MAX, HEARTBEAT, SILENCE_MAX, random};

/// Pauses between tries to connect: they double, and each is drawn from its second half, so that many data planes do not
/// come all at once.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Frames that have been read and wait.
const INBOUND_MAX: usize = 16;

/// What a follower is made with.
pub struct FollowerConfig {
    /// Where the controller is.
    pub address: Address,
    /// What it wants to be shown.
    pub token: Option<String>,
    /// This data plane's name: the same after a restart.
    pub name: String,
    /// This data plane's version.
    pub software: String,
    /// Where the last good snapshot is kept; without, a restart waits for the controller.
    pub folder: Option<PathBuf>,
}

/// Tells what it would mean for recent requests if a service had a ring.
pub type Traffic = dyn Fn(&ServiceName, &Ring) -> Option<TrafficMoved> + Send + Sync;

/// What the controller asks the data plane.
pub struct Faces {
    /// Where it listens, and where it should and cannot.
    pub listeners: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Its metrics.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// What it would mean for recent requests if a service had this ring.
    pub traffic: Box<Traffic>,
}

/// Follows a controller.
pub struct Follower {
    config: FollowerConfig,
    process: u64,
    unpacker: Unpacker,
    numbering: Numbering,
    keeper: Keeper,
    snapshots: watch::Sender<Arc<Snapshot>>,
    reports: watch::Receiver<Report>,
    calls: mpsc::Receiver<Call>,
}

/// The data plane's ends.
pub struct Ends {
    /// What it routes by: at first what was kept.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What it reports.
    pub reports: watch::Sender<Report>,
    /// Its way to the assignment's API.
    pub local: LocalCaller,
}

#[derive(Debug, Error)]
enum CutOff {
    #[error("connect to {0}: {1}")]
    Connect(Address, std::io::Error),
    #[error("connect to {0}: it takes too long")]
    Slow(Address),
    #[error("the controller refuses: {0}")]
    Refused(String),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a snapshot cannot be used: {0}")]
    Snapshot(#[from] UnpackError),
}

/// How a connection went on.
enum End {
    /// The data plane has ended.
    Done,
    CutOff(CutOff),
}

/// One connection, after the welcome.
struct Conversation<'a> {
    follower: &'a mut Follower,
    faces: &'a Faces,
    writes: Writes,
    run: Run,
    waiting: HashMap<u64, oneshot::Sender<(u16, Bytes)>>,
    next_call: u64,
    listeners: Option<Vec<String>>,
    heard: Instant,
}

impl Follower {
    /// A follower and the data plane's ends. What is kept is published at once, and a damaged file is left aside with
    /// a warning.
    pub fn new(config: FollowerConfig) -> (Follower, Ends) {
        let mut unpacker = Unpacker::default();
        let found = config.folder.as_deref().and_then(|folder| match restore(folder, &mut unpacker) {
            Ok(found) => found,
            Err(why) => {
                tracing::warn!(folder = %folder.display(), "the kept snapshot {why}: it is left aside, the controller sends another");
                None
            }
        });
        let first = found.unwrap_or_default();
        if first.generation.0 > 0 {
            tracing::info!(
                generation = first.generation.0,
                "routing by the kept snapshot until the controller is met"
            );
        }
        let numbering = Numbering::after(first.generation);
        let keeper = Keeper::start(config.folder.clone(), first.generation);
        let (snapshots, snapshot_receiver) = watch::channel(Arc::new(first));
        let (report_sender, reports) = watch::channel(Report::default());
        let (local, calls) = LocalCaller::new();
        let ends = Ends { snapshots: snapshot_receiver, reports: report_sender, local };
        let process = random();
        (Follower { config, process, unpacker, numbering, keeper, snapshots, reports, calls }, ends)
    }

    /// Follows the controller, whether it is there or not, until `ended`: then the data plane has no requests any more, and
    /// the controller is told.
    pub async fn run(mut self, faces: Faces, ended: CancellationToken) {
        let mut pause = PAUSE_MIN;
        let mut told = String::new();
        loop {
            let since = Instant::now();
            match self.meet(&faces, &ended).await {
                End::Done => return,
                End::CutOff(cut) => {
                    let why = cut.to_string();
                    // Each reason once: a controller may be away for long.
                    if why != told {
                        tracing::warn!("{why}: serving by the last snapshot, and trying again");
                        told = why;
                    }
                }
            }
            if since.elapsed() > SILENCE_MAX {
                (pause, told) = (PAUSE_MIN, String::new());
            }
            tokio::select! {
                () = ended.cancelled() => return,
                () = sleep(drawn(pause)) => {}
                () = self.answer_that_nobody_is_there() => {}
            }
            pause = PAUSE_MAX.min(2 * pause);
        }
    }

    /// Never ends: without a controller nobody answers.
    async fn answer_that_nobody_is_there(&mut self) {
        while let Some(call) = self.calls.recv().await {
            // Who has called may have gone.
            drop(call.reply.send(away()));
        }
        std::future::pending().await
    }

    /// Connects, and converses until one of both ends.
    async fn meet(&mut self, faces: &Faces, ended: &CancellationToken) -> End {
        let address = self.config.address.clone();
        let connected = tokio::select! {
            connected = timeout(CONNECT_MAX, self.greet()) => connected.unwrap_or(Err(CutOff::Slow(address))),
            () = ended.cancelled() => return End::Done,
        };
        let (reads, writes, run) = match connected {
            Ok(connected) => connected,
            Err(cut) => return End::CutOff(cut),
        };
        tracing::info!(controller = %self.config.address, "following the controller");
        let mut conversation = Conversation {
            follower: self,
            faces,
            writes,
            run,
            waiting: HashMap::new(),
            next_call: 0,
            listeners: None,
            heard: Instant::now(),
        };
        match conversation.go_on(reads, ended).await {
            Ok(()) => End::Done,
            Err(cut) => End::CutOff(cut),
        }
    }

    async fn greet(&mut self) -> Result<(Reads, Writes, Run), CutOff> {
        let address = &self.config.address;
        let connected = address.connect().await;
        let (mut reads, mut writes) = connected.map_err(|error| CutOff::Connect(address.clone(), error))?;
        let hello = Hello {
            name: self.config.name.clone(),
            process: self.process,
            software: self.config.software.clone(),
            token: self.config.token.clone(),
            rings: self.unpacker.rings().into_keys().collect(),
        };
        frame::write(&mut writes, &ToController::Hello(hello).into(), SILENCE_MAX).await?;
        match frame::read(&mut reads, Limits::STRANGER).await?.message {
            ToPlane::Welcome { run } => Ok((reads, writes, run)),
            ToPlane::Refused { why } => Err(CutOff::Refused(why)),
            _ => Err(FrameError::Magic.into()),
        }
    }
}

impl Conversation<'_> {
    async fn go_on(&mut self, mut reads: Reads, ended: &CancellationToken) -> Result<(), CutOff> {
        let (sender, mut inbound) = mpsc::channel(INBOUND_MAX);
        let mut reader = JoinSet::new();
        // A task of its own, because a frame that is read in parts must not be dropped by a select.
        reader.spawn(async move {
            loop {
                let frame = frame::read::<ToPlane>(&mut reads, Limits::KNOWN).await;
                let is_last = frame.is_err();
                if sender.send(frame).await.is_err() || is_last {
                    return;
                }
            }
        });
        let mut beat = interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.report().await?;
        loop {
            // Every arm is cancel-safe: channels keep what was not taken. What follows is done outside.
            tokio::select! {
                frame = inbound.recv() => {
                    let frame = frame.ok_or(FrameError::Ended)??;
                    self.heard = Instant::now();
                    self.take(frame).await?;
                }
                Ok(()) = self.follower.reports.changed() => self.report().await?,
                () = self.follower.keeper.changed() => self.report().await?,
                Some(call) = self.follower.calls.recv() => self.call(call).await?,
                _ = beat.tick() => self.beat().await?,
                () = ended.cancelled() => {
                    self.report().await?;
                    self.say(ToController::Bye).await?;
                    return Ok(());
                }
            }
        }
    }

    async fn say(&mut self, message: ToController) -> Result<(), CutOff> {
        Ok(frame::write(&mut self.writes, &message.into(), SILENCE_MAX).await?)
    }

    /// Tells the newest report, its acknowledgement as a generation of the run that the snapshot is of.
    async fn report(&mut self) -> Result<(), CutOff> {
        let mut report = self.follower.reports.borrow_and_update().clone();
        let own = report.acknowledged.min(self.follower.keeper.done());
        report.acknowledged = self.follower.numbering.acknowledged(own);
        let run = self.follower.numbering.newest().map_or(self.run, |(run, _)| run);
        self.say(ToController::Report { run, report }).await
    }

    async fn take(&mut self, frame: Frame<ToPlane>) -> Result<(), CutOff> {
        let Frame { message, bytes } = frame;
        match message {
            ToPlane::Ring { digest } => self.follower.unpacker.take(digest, bytes[..].into())?,
            ToPlane::Snapshot(packed) => {
                let mut snapshot = self.follower.unpacker.unpack(&packed)?;
                if let Some(own) = self.follower.numbering.take(self.run, packed.generation) {
                    snapshot.generation = own;
                    self.follower.snapshots.send_replace(Arc::new(snapshot));
                    let rings = self.follower.unpacker.rings().into_values().collect();
                    let packed = ringmaster_core::snapshot::PackedSnapshot { generation: own, ..packed };
                    self.follower.keeper.keep(own, Kept { snapshot: packed, rings });
                }
            }
            ToPlane::Ask { id, question } => {
                let answer = match question {
                    Question::Metrics => (self.faces.metrics)().into_bytes(),
                    Question::Traffic { service } => {
                        let moved =
                            Ring::decode(&bytes).ok().and_then(|ring| (self.faces.traffic)(&service, &ring));
                        moved.and_then(|moved| serde_json::to_vec(&moved).ok()).unwrap_or_default()
                    }
                };
                let frame = Frame { message: ToController::Answer { id }, bytes: answer.into() };
                frame::write(&mut self.writes, &frame, SILENCE_MAX).await?;
            }
            ToPlane::Answered { id, status } => {
                if let Some(reply) = self.waiting.remove(&id) {
                    // Who has called may have gone.
                    drop(reply.send((status, bytes)));
                }
            }
            ToPlane::Ping => {}
            ToPlane::Welcome { .. } | ToPlane::Refused { .. } => return Err(FrameError::Magic.into()),
        }
        Ok(())
    }

    async fn call(&mut self, call: Call) -> Result<(), CutOff> {
        if self.waiting.len() >= CALLS_MAX {
            drop(call.reply.send(unavailable("too many calls wait for their answer: try again later")));
            return Ok(());
        }
        self.next_call += 1;
        let id = self.next_call;
        self.waiting.insert(id, call.reply);
        let message = ToController::Call { id, method: call.method, path: call.path };
        Ok(frame::write(&mut self.writes, &Frame { message, bytes: call.body }, SILENCE_MAX).await?)
    }

    /// What is due once in a while: a sign of life, listeners that have changed, calls whose client has gone.
    async fn beat(&mut self) -> Result<(), CutOff> {
        if self.heard.elapsed() > SILENCE_MAX {
            return Err(FrameError::Stalled.into());
        }
        let listeners = (self.faces.listeners)();
        if self.listeners.as_ref() != Some(&listeners) {
            self.say(ToController::Listeners(listeners.clone())).await?;
            self.listeners = Some(listeners);
        }
        let gone: Vec<u64> =
            self.waiting.iter().filter(|(_, reply)| reply.is_closed()).map(|(id, _)| *id).collect();
        for id in gone {
            self.waiting.remove(&id);
            self.say(ToController::Cancel { id }).await?;
        }
        self.say(ToController::Ping).await
    }
}

/// What is kept, unpacked; none if there is nothing.
fn restore(folder: &Path, unpacker: &mut Unpacker) -> Result<Option<Snapshot>, String> {
    let Some(kept) = kept::read(folder)? else { return Ok(None) };
    let restored = kept::digests(&kept.rings)
        .try_for_each(|(digest, bytes)| unpacker.take(digest, bytes))
        .and_then(|()| unpacker.unpack(&kept.snapshot));
    restored.map(Some).map_err(|error| format!("cannot be used ({error})"))
}

/// Somewhere between half a pause and all of it.
fn drawn(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + 0.5 * (random() as f64 / u64::MAX as f64))
}
