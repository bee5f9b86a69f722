//! Commands beside a replica: on the host, in its folder and with its environment, as `exec` is in a container.
//!
//! Each runs in a process group of its own, all of which is ended when the command is given up.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ringmaster_core::observed::RuntimeId;
use ringmaster_runtime::{EXEC_OUTPUT_BYTES_MAX, ErrorKind, ExecOutcome, RuntimeError};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::proc::MARKER;

/// How long to wait for the end of the output of a command that has ended.
const DRAIN_MAX: Duration = Duration::from_millis(100);

/// A command's process group: ended when this is dropped, because then nobody waits for it any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::debug!(%error, "a command had ended already");
        }
    }
}

/// Runs a command beside the process `pid` and waits for its end, but no longer than `limit`.
pub(crate) async fn run(
    pid: i32,
    daemon: &Path,
    id: &RuntimeId,
    command: &[String],
    limit: Duration,
) -> Result<ExecOutcome, RuntimeError> {
    let [word, args @ ..] = command else {
        return Err(RuntimeError::new("run a command", ErrorKind::Invalid, "it has no words"));
    };
    let operation = || format!("run `{word}` beside process {}", id.0);
    let failed = |error: io::Error| {
        let kind = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => ErrorKind::Invalid,
            _ => ErrorKind::Engine,
        };
        RuntimeError::new(operation(), kind, error.to_string())
    };
    let deadline = Instant::now() + limit;
    let gone = |_| RuntimeError::new(operation(), ErrorKind::NotFound, "it does not run");
    let environment = fs::read(format!("/proc/{pid}/environ")).map_err(gone)?;
    let program = if word == "ringmaster" { daemon.as_os_str() } else { OsStr::new(word) };
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(variables(&environment)).current_dir(format!("/proc/{pid}/cwd"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    let mut group = Group(child.id().and_then(|pid| Pid::from_raw(pid as i32)));
    match tokio::time::timeout_at(deadline, ended(&mut child)).await {
        Ok(outcome) => {
            // It has been waited for: its number may be another's by now.
            group.0 = None;
            outcome.map_err(failed)
        }
        Err(_) => Ok(ExecOutcome::new(None, b"")),
    }
}

/// The variables of an environment as the kernel tells it, without the mark of the replica: the command is none.
fn variables(environment: &[u8]) -> impl Iterator<Item = (&OsStr, &OsStr)> {
    environment.split(|byte| *byte == 0).filter_map(|variable| {
        let at = variable.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (&variable[..at], &variable[at + 1..]);
        (name != MARKER.as_bytes()).then(|| (OsStr::from_bytes(name), OsStr::from_bytes(value)))
    })
}

async fn ended(child: &mut Child) -> io::Result<ExecOutcome> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let status = {
        let read = async { tokio::try_join!(read_end(stdout, &mut out), read_end(stderr, &mut err)) };
        let mut read = std::pin::pin!(read);
        tokio::select! {
            outcome = &mut read => {
                outcome?;
                child.wait().await?
            }
            status = child.wait() => {
                // What it has written is there; what it has started may hold the pipes open for longer than it lives.
                if let Ok(outcome) = tokio::time::timeout(DRAIN_MAX, &mut read).await {
                    outcome?;
                }
                status?
            }
        }
    };
    out.extend_from_slice(&err);
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(ExecOutcome::new(code, &out))
}

async fn read_end(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) -> io::Result<()> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    while pipe.read_buf(kept).await? > 0 {
        let beyond = kept.len().saturating_sub(2 * EXEC_OUTPUT_BYTES_MAX);
        kept.drain(..beyond);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_the_replica_is_not_passed_on() {
        let text = format!("A=1\0{MARKER}=web-0-0.1\0B=x=y\0C=\0broken\0");
        let found: Vec<_> = variables(text.as_bytes())
            .map(|(name, value)| (name.to_str().unwrap(), value.to_str().unwrap()))
            .collect();
        assert_eq!(found, [("A", "1"), ("B", "x=y"), ("C", "")]);
    }
}
