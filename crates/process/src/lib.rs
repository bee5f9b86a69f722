//! Replicas as child processes on loopback ports, for machines without a container engine.
//!
//! Responsible for: real processes in process groups of their own that outlive the daemon, their records and
//! logs, and adopting them again. Deliberately absent: isolation (limits, users and mounts are for containers),
//! and decisions (see [`Runtime`]).

mod exec;
mod output;
mod proc;
mod program;
mod record;
mod registry;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use ringmaster_core::Timestamp;
use ringmaster_core::observed::{ExitInfo, RuntimeId, RuntimeReplica};
use ringmaster_core::spec::Template;
use ringmaster_runtime::{
    CreateRequest, ErrorKind, ExecOutcome, Inspected, Runtime, RuntimeError, Signal, Wake,
};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal as RawSignal, WaitOptions, kill_process_group, pidfd_send_signal, waitpid,
};

use crate::program::{Program, free_port};
use crate::record::{Folder, Record};
use crate::registry::{Entry, Life, Live, Registry, Watchers};

/// How long a process may take to end after SIGKILL.
const KILL_MAX: Duration = Duration::from_secs(20);

/// Where replicas are recorded, and what the word `ringmaster` runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessConfig {
    /// The folder of records and logs. Made if it is not there.
    pub dir: PathBuf,
    /// The daemon's own binary: what runs when a command's first word is `ringmaster`.
    pub daemon: PathBuf,
    /// Tells this daemon's replicas from those of others in the same folder.
    pub instance: String,
}

/// Replicas as child processes. They live on when it is dropped, and when the daemon ends.
#[derive(Debug)]
pub struct ProcessRuntime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ProcessConfig,
    registry: Arc<Registry>,
    watchers: Watchers,
}

impl ProcessRuntime {
    /// Opens the folder and adopts what still runs. Call it on a tokio runtime: ends are watched by its tasks.
    ///
    /// # Errors
    /// The folder cannot be made, read or written.
    pub async fn open(config: ProcessConfig) -> Result<ProcessRuntime, RuntimeError> {
        blocking(move || {
            let operation = format!("open {}", config.dir.display());
            let open = || {
                DirBuilder::new().recursive(true).mode(0o700).create(&config.dir)?;
                Registry::open(Folder(config.dir.clone()), &config.instance)
            };
            let registry = Arc::new(open().map_err(|error| disk(operation, &error))?);
            let watchers = Watchers::default();
            registry.watch_all(&watchers);
            Ok(ProcessRuntime { inner: Arc::new(Inner { config, registry, watchers }) })
        })
        .await
    }

    /// Sends a signal to a replica's main process; false if it has ended.
    fn send(&self, operation: String, live: &Live, signal: RawSignal) -> Result<bool, RuntimeError> {
        match pidfd_send_signal(&*live.pidfd, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(RuntimeError::new(operation, ErrorKind::Engine, error.to_string())),
        }
    }

    /// Sends its stop signal, unless `grace` is zero, and SIGKILL to what has not ended after it; returns when the end
    /// is recorded.
    async fn end(&self, verb: &str, id: &RuntimeId, grace: Duration) -> Result<(), RuntimeError> {
        let Some(live) = self.inner.registry.live(id) else { return Ok(()) };
        let operation = || format!("{verb} process {}", id.0);
        let mut end = live.end.subscribe();
        if !grace.is_zero() {
            let chosen = self.inner.registry.lifecycle(id).and_then(|lifecycle| lifecycle.stop_signal);
            let signal = chosen.and_then(|chosen| RawSignal::from_named_raw(chosen.number()));
            self.send(operation(), &live, signal.unwrap_or(RawSignal::TERM))?;
            if tokio::time::timeout(grace, end.wait_for(|ended| *ended)).await.is_ok() {
                return Ok(());
            }
        }
        self.send(operation(), &live, RawSignal::KILL)?;
        let ended = tokio::time::timeout(KILL_MAX, end.wait_for(|ended| *ended)).await;
        ended.map(|_| ()).map_err(|_| {
            RuntimeError::new(
                operation(),
                ErrorKind::Engine,
                "it has not ended after SIGKILL: it is stuck in the kernel (state D), look at its disks",
            )
        })
    }
}

impl Inner {
    fn create(&self, request: &CreateRequest) -> Result<RuntimeReplica, RuntimeError> {
        let operation = || format!("start process {}", request.name);
        let program = Program::find(&request.template, &self.config.daemon)?;
        if program.content_id != request.content_id {
            return Err(RuntimeError::new(
                operation(),
                ErrorKind::Conflict,
                "the program has changed since the template was resolved: resolve it again",
            ));
        }
        let record = self.reserve(request)?;
        let started = output::create(&self.registry.folder, &record.name)
            .and_then(|log| program.start(request, &record, log))
            .and_then(|pid| {
                let noted = self.registry.started(&self.watchers, &record.id, pid);
                noted.or_else(|error| kill_unnoted(pid).and(Err(error)))
            });
        if let Err(error) = started {
            let message = format!("cannot start `{}`: {error}", record.command.join(" "));
            if let Err(error) = self.registry.failed(&record.id, &message) {
                tracing::error!(replica = %record.name, %error, "cannot record the failed start");
            }
            return Err(RuntimeError::new(operation(), ErrorKind::Invalid, message));
        }
        self.registry.one(&RuntimeId(record.id)).ok_or_else(|| {
            RuntimeError::new(operation(), ErrorKind::NotFound, "it was removed as soon as it had started")
        })
    }

    /// Takes the name and a port.
    fn reserve(&self, request: &CreateRequest) -> Result<Record, RuntimeError> {
        let operation = || format!("start process {}", request.name);
        let registry = &self.registry;
        let mut entries = registry.lock();
        let taken = |port| {
            entries.values().any(|entry| entry.record.port == port && !matches!(entry.life, Life::Ended))
        };
        let port = free_port(taken).map_err(|error| disk(operation(), &error))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let logs = &request.template.logs;
        let command = request.template.process.as_ref().map(|process| process.command.clone());
        let record = Record {
            id: format!("{}.{:x}", request.name, now.as_nanos()),
            instance: self.config.instance.clone(),
            name: request.name.clone(),
            revision: request.revision.clone(),
            host: request.host.clone(),
            command: command.unwrap_or_default(),
            port,
            created_at: Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)),
            boot_id: registry.boot_id.clone(),
            process: None,
            exit: None::<ExitInfo>,
            log_keep: logs.max_size.bytes,
            log_max: logs.max_size.bytes.saturating_mul(u64::from(logs.max_files)),
            lifecycle: request.template.lifecycle.clone(),
        };
        match registry.folder.reserve(&record) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let message = match registry.folder.read(&record.name) {
                    Some(other) if other.instance != record.instance => format!(
                        "the name is taken by instance `{}` in the same folder: give each its own",
                        other.instance
                    ),
                    _ => "it exists already".to_owned(),
                };
                return Err(RuntimeError::new(operation(), ErrorKind::Conflict, message));
            }
            Err(error) => return Err(disk(operation(), &error)),
        }
        entries.insert(record.id.clone(), Entry { record: record.clone(), life: Life::Starting });
        Ok(record)
    }
}

/// Ends a child that cannot be watched: nobody would ever end it otherwise.
fn kill_unnoted(pid: Pid) -> io::Result<()> {
    kill_process_group(pid, RawSignal::KILL)?;
    waitpid(Some(pid), WaitOptions::empty())?;
    Ok(())
}

fn disk(operation: String, error: &io::Error) -> RuntimeError {
    RuntimeError::new(operation, ErrorKind::Engine, error.to_string())
}

/// Runs what reads and writes files off the threads that serve. Dropping the future does not interrupt it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(RuntimeError::new("run a blocking task", ErrorKind::Engine, error.to_string()))
    })
}

#[async_trait]
impl Runtime for ProcessRuntime {
    fn kind(&self) -> &'static str {
        "process"
    }

    async fn resolve(&self, template: &Template) -> Result<String, RuntimeError> {
        Ok(Program::find(template, &self.inner.config.daemon)?.content_id)
    }

    async fn list(&self) -> Result<Vec<RuntimeReplica>, RuntimeError> {
        let registry = Arc::clone(&self.inner.registry);
        blocking(move || {
            registry.cut_logs();
            Ok(registry.list())
        })
        .await
    }

    async fn inspect(&self, id: &RuntimeId) -> Result<Option<Inspected>, RuntimeError> {
        let registry = &self.inner.registry;
        Ok(registry.one(id).map(|replica| {
            let pre_stop = registry.lifecycle(id).and_then(|lifecycle| lifecycle.pre_stop);
            Inspected { replica, pre_stop: Ok(pre_stop) }
        }))
    }

    async fn create(&self, request: &CreateRequest) -> Result<RuntimeReplica, RuntimeError> {
        let inner = Arc::clone(&self.inner);
        let request = request.clone();
        blocking(move || inner.create(&request)).await
    }

    async fn exec(
        &self,
        id: &RuntimeId,
        command: &[String],
        limit: Duration,
    ) -> Result<ExecOutcome, RuntimeError> {
        let Some(pid) = self.inner.registry.pid(id) else {
            let operation = format!("run a command beside process {}", id.0);
            return Err(RuntimeError::new(operation, ErrorKind::NotFound, "it does not run"));
        };
        exec::run(pid, &self.inner.config.daemon, id, command, limit).await
    }

    async fn stop(&self, id: &RuntimeId, grace: Duration) -> Result<(), RuntimeError> {
        self.end("stop", id, grace).await
    }

    async fn remove(&self, id: &RuntimeId) -> Result<(), RuntimeError> {
        self.end("remove", id, Duration::ZERO).await?;
        let operation = format!("remove process {}", id.0);
        let starting =
            self.inner.registry.lock().get(&id.0).is_some_and(|entry| matches!(entry.life, Life::Starting));
        if starting {
            return Err(RuntimeError::new(operation, ErrorKind::Conflict, "it is being started"));
        }
        self.inner.registry.forget(id).map_err(|error| disk(operation, &error))
    }

    async fn repair(&self, _id: &RuntimeId) -> Result<(), RuntimeError> {
        // Nothing can be done to a process by hand that is not a fault: one that is stopped hangs, which its
        // probes are to see.
        Ok(())
    }

    async fn signal(&self, id: &RuntimeId, signal: Signal) -> Result<(), RuntimeError> {
        let operation = format!("send {signal} to process {}", id.0);
        let raw = match signal {
            Signal::Kill => RawSignal::KILL,
            Signal::Term => RawSignal::TERM,
            Signal::Stop => RawSignal::STOP,
            Signal::Cont => RawSignal::CONT,
        };
        let sent = match self.inner.registry.live(id) {
            Some(live) => self.send(operation.clone(), &live, raw)?,
            None => false,
        };
        if sent { Ok(()) } else { Err(RuntimeError::new(operation, ErrorKind::NotFound, "it does not run")) }
    }

    async fn logs(&self, id: &RuntimeId, lines: usize) -> Result<String, RuntimeError> {
        let operation = format!("read the logs of process {}", id.0);
        let registry = Arc::clone(&self.inner.registry);
        let id = id.clone();
        blocking(move || {
            let Some(name) = registry.lock().get(&id.0).map(|entry| entry.record.name.clone()) else {
                return Err(RuntimeError::new(operation, ErrorKind::NotFound, "there is no such process"));
            };
            output::tail(&registry.folder, &name, lines).map_err(|error| disk(operation, &error))
        })
        .await
    }

    async fn cpu_used(&self, id: &RuntimeId) -> Result<Option<Duration>, RuntimeError> {
        let entries = self.inner.registry.lock();
        let live = entries.get(&id.0).filter(|entry| matches!(entry.life, Life::Live(_)));
        Ok(live.and_then(|entry| entry.record.process.as_ref()).and_then(proc::cpu_used))
    }

    fn events(&self) -> BoxStream<'static, Wake> {
        let changes = self.inner.registry.changes.subscribe();
        let hints = stream::unfold(changes, |mut changes| async move {
            if changes.changed().await.is_err() {
                // The runtime is gone and nothing changes any more; the stream still does not end.
                std::future::pending::<()>().await;
            }
            Some((Wake::Changed, changes))
        });
        stream::once(async { Wake::Reconnected }).chain(hints).boxed()
    }
}
