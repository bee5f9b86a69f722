//! The replicas that are known, and what becomes of them.
//!
//! One lock over memory and records: each change is made to both before anybody sees either, so that a record
//! never comes back after its removal. Nothing under the lock waits.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use ringmaster_core::observed::{ExitInfo, ReplicaState, RuntimeId, RuntimeReplica};
use ringmaster_core::spec::Lifecycle;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::output;
use crate::proc;
use crate::record::{Folder, ProcessId, Record};

/// One known replica.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) record: Record,
    pub(crate) life: Life,
}

/// Where a process is in its life.
#[derive(Debug)]
pub(crate) enum Life {
    /// Its name is taken, its process not started. Becomes `Live` or `Ended`.
    Starting,
    /// It runs, or has ended and nobody has noticed. Becomes `Ended`.
    Live(Live),
    /// It has ended; the record says how. Final.
    Ended,
}

/// A running process.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    /// Opened, and only then compared with the recorded start time: it means this very process for ever, and a
    /// signal through it never reaches a later one with the same pid.
    pub(crate) pidfd: Arc<OwnedFd>,
    /// True once the end has been recorded.
    pub(crate) end: watch::Sender<bool>,
}

/// All known replicas of one instance, and the tasks that watch them.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) folder: Folder,
    pub(crate) boot_id: String,
    entries: Mutex<BTreeMap<String, Entry>>,
    /// Grows with every change.
    pub(crate) changes: watch::Sender<u64>,
}

/// The tasks that wait for ends; aborted when the runtime is dropped. The processes live on.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<JoinSet<()>>);

impl Registry {
    /// Reads the records of `instance` and takes over what still runs.
    pub(crate) fn open(folder: Folder, instance: &str) -> io::Result<Registry> {
        let boot_id = proc::boot_id()?;
        let mut entries = BTreeMap::new();
        for mut record in folder.all()?.into_iter().filter(|record| record.instance == instance) {
            let life = adopt(&mut record, &boot_id);
            folder.write(&record)?;
            tracing::info!(replica = %record.name, ended = record.exit.is_some(), "adopted");
            entries.insert(record.id.clone(), Entry { record, life });
        }
        Ok(Registry { folder, boot_id, entries: Mutex::new(entries), changes: watch::Sender::new(0) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().expect("no holder panics")
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// The running process of an id, if it has one.
    pub(crate) fn live(&self, id: &RuntimeId) -> Option<Live> {
        match &self.lock().get(&id.0)?.life {
            Life::Live(live) => Some(live.clone()),
            Life::Starting | Life::Ended => None,
        }
    }

    /// How a replica is asked to end.
    pub(crate) fn lifecycle(&self, id: &RuntimeId) -> Option<Lifecycle> {
        self.lock().get(&id.0).map(|entry| entry.record.lifecycle.clone())
    }

    /// The process of a replica that runs.
    pub(crate) fn pid(&self, id: &RuntimeId) -> Option<i32> {
        let entries = self.lock();
        let entry = entries.get(&id.0).filter(|entry| matches!(entry.life, Life::Live(_)))?;
        Some(entry.record.process?.pid)
    }

    /// Notes that a process was started, and watches it. On failure it still runs, and nothing is noted.
    pub(crate) fn started(self: &Arc<Self>, watchers: &Watchers, id: &str, pid: Pid) -> io::Result<()> {
        // It is our child and has not been waited for, so the pid is still its own.
        let pidfd = Arc::new(pidfd_open(pid, PidfdFlags::empty())?);
        let start_ticks = proc::start_ticks(pid).ok_or(io::ErrorKind::NotFound)?;
        let mut entries = self.lock();
        let entry = entries.get_mut(id).ok_or(io::ErrorKind::NotFound)?;
        entry.record.process = Some(ProcessId { pid: pid.as_raw_nonzero().get(), start_ticks });
        let live = Live { pidfd, end: watch::Sender::new(false) };
        entry.life = Life::Live(live.clone());
        if let Err(error) = self.folder.write(&entry.record) {
            // The record without its pid is there, and the marker leads the next daemon to the process.
            tracing::error!(replica = %entry.record.name, %error, "cannot record the pid");
        }
        drop(entries);
        watchers.watch(self, id, live);
        self.changed();
        Ok(())
    }

    /// Notes that a process could not be started.
    pub(crate) fn failed(&self, id: &str, message: &str) -> io::Result<()> {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(id) else { return Ok(()) };
        entry.record.exit = Some(ExitInfo { message: Some(message.to_owned()), ..ExitInfo::default() });
        entry.life = Life::Ended;
        self.folder.write(&entry.record)
    }

    /// Records the end of a process that has ended; does nothing while it runs.
    fn settle(&self, entry: &mut Entry) {
        let Life::Live(live) = &entry.life else { return };
        let Some((pid, recorded)) = entry.record.process.and_then(|p| Some((Pid::from_raw(p.pid)?, p)))
        else {
            return;
        };
        if !has_ended(&live.pidfd) {
            return;
        }
        // Whatever it started ends with it, as in a container. A zombie still holds the number of the group;
        // one that init has reaped has just ended, and a number is not given again while its group lives.
        if proc::start_ticks(pid).is_none_or(|ticks| ticks == recorded.start_ticks) {
            match kill_process_group(pid, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH | Errno::PERM) => {}
                Err(error) => tracing::warn!(replica = %entry.record.name, %error, "cannot end its group"),
            }
        }
        entry.record.exit = Some(reap(&live.pidfd));
        if let Err(error) = self.folder.write(&entry.record) {
            // Memory is right; the next daemon will find the process gone.
            tracing::error!(replica = %entry.record.name, %error, "cannot record the end");
        }
        live.end.send_replace(true);
        entry.life = Life::Ended;
        self.changed();
    }

    /// All replicas, each compared with what runs.
    pub(crate) fn list(&self) -> Vec<RuntimeReplica> {
        let mut entries = self.lock();
        let replicas = entries.values_mut().map(|entry| {
            self.settle(entry);
            replica(entry)
        });
        replicas.collect()
    }

    /// One replica, compared with what runs.
    pub(crate) fn one(&self, id: &RuntimeId) -> Option<RuntimeReplica> {
        let mut entries = self.lock();
        let entry = entries.get_mut(&id.0)?;
        self.settle(entry);
        Some(replica(entry))
    }

    /// Cuts the logs that have become too long. A log that cannot be cut is no reason not to list.
    pub(crate) fn cut_logs(&self) {
        let records: Vec<Record> = self.lock().values().map(|entry| entry.record.clone()).collect();
        for record in records {
            if let Err(error) = output::cut_if_long(&self.folder, &record) {
                tracing::warn!(replica = %record.name, %error, "cannot cut the log");
            }
        }
    }

    /// Forgets a replica that has ended.
    pub(crate) fn forget(&self, id: &RuntimeId) -> io::Result<()> {
        let mut entries = self.lock();
        let Some(entry) = entries.get(&id.0) else { return Ok(()) };
        self.folder.remove(&entry.record.name)?;
        entries.remove(&id.0);
        drop(entries);
        self.changed();
        Ok(())
    }

    /// Watches everything that was adopted.
    pub(crate) fn watch_all(self: &Arc<Self>, watchers: &Watchers) {
        let live: Vec<(String, Live)> = self
            .lock()
            .iter()
            .filter_map(|(id, entry)| match &entry.life {
                Life::Live(live) => Some((id.clone(), live.clone())),
                Life::Starting | Life::Ended => None,
            })
            .collect();
        for (id, live) in live {
            watchers.watch(self, &id, live);
        }
    }
}

impl Watchers {
    fn watch(&self, registry: &Arc<Registry>, id: &str, live: Live) {
        let mut tasks = self.0.lock().expect("no holder panics");
        // Those that have ended are let go; what they had to tell is recorded.
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a watcher of processes failed");
            }
        }
        let registry = Arc::downgrade(registry);
        let id = id.to_owned();
        tasks.spawn(async move {
            // A pidfd becomes readable when its process has ended.
            let ended = match readable(live.pidfd) {
                Ok(pidfd) => pidfd.readable().await.map(|_| ()),
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                tracing::error!(%error, "cannot watch a process; the next list will see its end");
                return;
            }
            if let Some(registry) = registry.upgrade()
                && let Some(entry) = registry.lock().get_mut(&id)
            {
                registry.settle(entry);
            }
        });
    }
}

/// The life of a recorded process as it is now; completes the record if it has ended.
fn adopt(record: &mut Record, boot_id: &str) -> Life {
    if record.exit.is_some() {
        return Life::Ended;
    }
    if record.boot_id == boot_id {
        let recorded = record.process.and_then(|p| Some((Pid::from_raw(p.pid)?, p.start_ticks)));
        // Without a pid the last daemon died while starting it: it runs, or it never did.
        if let Some((pid, start_ticks)) = recorded.or_else(|| proc::marked(&record.id))
            && let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
            && proc::start_ticks(pid) == Some(start_ticks)
        {
            record.process = Some(ProcessId { pid: pid.as_raw_nonzero().get(), start_ticks });
            return Life::Live(Live { pidfd: Arc::new(pidfd), end: watch::Sender::new(false) });
        }
    }
    let message = "it ended while no daemon watched".to_owned();
    record.exit = Some(ExitInfo { message: Some(message), ..ExitInfo::default() });
    Life::Ended
}

/// The pidfd, registered with tokio.
#[expect(
    deprecated,
    reason = "its successor is unsafe, and asks that the descriptor stays open and the same while it is \
              registered: one that is owned does"
)]
fn readable(pidfd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

/// Whether a process has ended; one that nobody has reaped has ended too.
fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut events = [PollFd::new(pidfd, PollFlags::IN)];
    // An interrupted poll tells nothing; the next one will.
    matches!(poll(&mut events, Some(&Timespec::default())), Ok(ready) if ready > 0)
}

/// How an ended process ended; only its parent is told.
fn reap(pidfd: &OwnedFd) -> ExitInfo {
    let id = WaitId::PidFd(pidfd.as_fd());
    let code = match waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        Ok(Some(status)) => {
            status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
        }
        Ok(None) | Err(_) => None,
    };
    let message =
        code.is_none().then(|| "an earlier daemon started it, so how it ended is unknown".to_owned());
    ExitInfo { code, out_of_memory: false, message }
}

fn replica(entry: &Entry) -> RuntimeReplica {
    let record = &entry.record;
    let state = match &entry.life {
        Life::Starting => ReplicaState::Created,
        Life::Live(_) => ReplicaState::Running,
        Life::Ended => ReplicaState::Exited(record.exit.clone().unwrap_or_default()),
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, record.port));
    RuntimeReplica {
        id: RuntimeId(record.id.clone()),
        name: record.name.clone(),
        engine_name: record.name.to_string(),
        revision: record.revision.clone(),
        address: (state == ReplicaState::Running).then_some(address),
        state,
        created_at: record.created_at,
        host: record.host.clone(),
    }
}
