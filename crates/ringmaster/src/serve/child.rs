//! The data plane as a child process: started, watched, started again at once when it dies, and found again by the next
//! daemon when this one is killed.
//!
//! A lock file says whether one lives: the kernel gives the lock back when its holder ends, however it ends. Beside the
//! pid it holds the flags, so that a child of other flags or another version is replaced and not adopted.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use ringmaster_link::Address;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::cli::{LogFormat, Serve};
use crate::proxy::lock::{Holder, Lock};

/// The name of a daemon's own data plane.
const NAME: &str = "child";
/// One that has lived for so long has not failed to start: it is started again at once.
const STARTED_AFTER: Duration = Duration::from_secs(1);
/// One that dies at once again and again is started after pauses that double; the first time there is none.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long it may take to end after SIGTERM, requests in flight included.
const END_MAX: Duration = Duration::from_secs(8);

/// How the data plane is started.
pub(super) struct Child {
    arguments: Vec<OsString>,
    folder: PathBuf,
    listen: SocketAddr,
}

impl Child {
    /// A child with the daemon's flags.
    pub(super) fn of(options: &Serve, folder: PathBuf, link: &Address) -> anyhow::Result<Child> {
        let log_format = match options.log_format {
            LogFormat::Auto => "auto",
            LogFormat::Human => "human",
            LogFormat::Json => "json",
        };
        let mut arguments: Vec<OsString> = vec!["proxy".into(), "--name".into(), NAME.into()];
        arguments.extend(["--controller".into(), link.to_string().into()]);
        arguments.extend(["--state-dir".into(), folder.clone().into()]);
        arguments.extend(["--listen".into(), options.listen.to_string().into()]);
        arguments.extend(["--log-format".into(), log_format.into()]);
        if let Some(workers) = options.workers {
            arguments.extend(["--threads".into(), workers.to_string().into()]);
        }
        Ok(Child { arguments, folder, listen: options.listen })
    }

    /// Ends one that an earlier daemon has left and that cannot be adopted, and makes sure that one can be started.
    pub(super) async fn prepare(
        &self,
        in_use: impl Fn(SocketAddr, io::Error) -> anyhow::Error,
    ) -> anyhow::Result<()> {
        match Lock::holder(&self.folder)? {
            Some(holder) if holder.is_like(&self.arguments) => {
                tracing::info!(pid = holder.pid, "a data plane of these flags serves already: it is adopted");
                return Ok(());
            }
            Some(holder) => {
                tracing::info!(
                    pid = holder.pid,
                    "a data plane of other flags or another version is replaced"
                );
                self.end(&holder).await?;
            }
            None => {}
        }
        // Only a look: the child binds it again.
        tokio::net::TcpListener::bind(self.listen).await.map(drop).map_err(|error| in_use(self.listen, error))
    }

    /// Keeps one running until shut down, then ends it.
    pub(super) async fn supervise(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut pause = Duration::ZERO;
        while !shutdown.is_cancelled() {
            let since = Instant::now();
            let how = tokio::select! {
                how = self.run_one() => how?,
                () = shutdown.cancelled() => break,
            };
            if since.elapsed() >= STARTED_AFTER {
                pause = Duration::ZERO;
            }
            tracing::warn!("the data plane has ended ({how}): it is started again, after {pause:?}");
            tokio::select! {
                () = sleep(pause) => {}
                () = shutdown.cancelled() => {}
            }
            pause = (2 * pause).clamp(PAUSE_MIN, PAUSE_MAX);
        }
        match Lock::holder(&self.folder)? {
            Some(holder) => self.end(&holder).await,
            None => Ok(()),
        }
    }

    /// Adopts the one that lives, or starts one, and waits for its end; says how it ended.
    async fn run_one(&self) -> anyhow::Result<String> {
        if let Some(holder) = Lock::holder(&self.folder)? {
            self.ended(&holder).await?;
            return Ok("one that was adopted".to_owned());
        }
        let program = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(&program);
        // A group of its own: Ctrl-C on a terminal is for the daemon, which ends its data plane in order.
        command.args(&self.arguments).stdin(Stdio::null()).process_group(0);
        for name in ["RINGMASTER_METRICS_LISTEN", "RINGMASTER_LINK_TOKEN_FILE"] {
            command.env_remove(name);
        }
        let child = tokio::process::Command::from(command)
            .spawn()
            .with_context(|| format!("start the data plane, {}", program.display()));
        let status = child?.wait().await.context("wait for the data plane")?;
        Ok(status.to_string())
    }

    /// Waits for the holder's end. The lock is looked at after its process is held, so the pid is still its own.
    async fn ended(&self, holder: &Holder) -> anyhow::Result<()> {
        let process = match pidfd_open(pid(holder)?, PidfdFlags::NONBLOCK) {
            Ok(process) => process,
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(error) => bail!("hold the data plane, process {}: {error}", holder.pid),
        };
        if Lock::holder(&self.folder)?.is_none_or(|now| now.pid != holder.pid) {
            return Ok(());
        }
        let process = readable(process).context("wait for the data plane")?;
        process.readable().await.map(drop).context("wait for the data plane")
    }

    /// SIGTERM, and SIGKILL if that is not enough. The lock is held, so the pid is its holder's.
    async fn end(&self, holder: &Holder) -> anyhow::Result<()> {
        for signal in [Signal::TERM, Signal::KILL] {
            match kill_process(pid(holder)?, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => bail!("end the data plane, process {}: {error}", holder.pid),
            }
            if tokio::time::timeout(END_MAX, self.ended(holder)).await.is_ok_and(|ended| ended.is_ok()) {
                return Ok(());
            }
        }
        bail!("the data plane, process {}, does not end", holder.pid)
    }
}

fn pid(holder: &Holder) -> anyhow::Result<Pid> {
    Pid::from_raw(holder.pid).with_context(|| format!("the data plane's pid is {}", holder.pid))
}

/// A process's descriptor, registered with tokio: readable when the process has ended.
#[expect(
    deprecated,
    reason = "its successor is unsafe, and asks that the descriptor stays open and the same while it is registered: one \
              that is owned does"
)]
fn readable(process: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(process, Interest::READABLE)
}
