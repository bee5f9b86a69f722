//! Commands in running containers.
//!
//! Engines cannot end a command that they have started. One that is given up runs on, and as long as it does no other
//! is started in its container, so that a probe that hangs costs one process and not one a second.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures_util::TryStreamExt;
use ringmaster_core::observed::{RuntimeId, RuntimeReplica};
use ringmaster_runtime::{EXEC_OUTPUT_BYTES_MAX, ErrorKind, ExecOutcome, RuntimeError};
use tokio::time::Instant;

use crate::engine::{Engine, READ_MAX};
use crate::network::short;

/// Commands that were given up, by container: the engine's id of each.
#[derive(Debug, Default)]
pub(crate) struct Overdue(Mutex<HashMap<String, String>>);

impl Overdue {
    fn get(&self, container: &str) -> Option<String> {
        self.0.lock().expect("no holder panics").get(container).cloned()
    }

    fn put(&self, container: &str, exec: String) {
        self.0.lock().expect("no holder panics").insert(container.to_owned(), exec);
    }

    fn remove(&self, container: &str) {
        self.0.lock().expect("no holder panics").remove(container);
    }

    /// Forgets containers that are gone.
    pub(crate) fn keep_only(&self, listed: &[RuntimeReplica]) {
        let mut overdue = self.0.lock().expect("no holder panics");
        overdue.retain(|id, _| listed.iter().any(|replica| replica.id.0 == *id));
    }
}

/// A command that runs. Given up, by its limit or because nobody waits any more, it is overdue.
struct Running<'a> {
    overdue: &'a Overdue,
    container: &'a str,
    exec: Option<String>,
}

impl Running<'_> {
    fn ended(mut self) {
        self.exec = None;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(exec) = self.exec.take() {
            self.overdue.put(self.container, exec);
        }
    }
}

/// Runs a command and waits for its end, but no longer than `limit`.
pub(crate) async fn run(
    engine: &Engine,
    overdue: &Overdue,
    id: &RuntimeId,
    command: &[String],
    limit: Duration,
) -> Result<ExecOutcome, RuntimeError> {
    let program = command.first().map_or("", String::as_str);
    let operation = format!("run `{program}` in container {}", short(&id.0));
    if let Some(earlier) = overdue.get(&id.0) {
        if is_running(engine, &operation, &earlier).await? {
            let output = "the last one that was given up still runs";
            return Ok(ExecOutcome::new(None, output.as_bytes()));
        }
        overdue.remove(&id.0);
    }
    let deadline = Instant::now() + limit;
    let config = ExecConfig {
        cmd: Some(command.to_vec()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..ExecConfig::default()
    };
    let docker = engine.within(READ_MAX.max(limit));
    let made = engine.call(operation.clone(), READ_MAX, docker.create_exec(&id.0, config)).await;
    let exec = made.map_err(not_running)?.id;
    // From here on it may run, whatever becomes of this call.
    let command = Running { overdue, container: &id.0, exec: Some(exec.clone()) };
    let mut output = Vec::new();
    let running = async {
        let options = StartExecOptions { detach: false, ..StartExecOptions::default() };
        let StartExecResults::Attached { output: mut chunks, input: _input } =
            docker.start_exec(&exec, Some(options)).await?
        else {
            return Ok(());
        };
        while let Some(chunk) = chunks.try_next().await? {
            output.extend_from_slice(&chunk.into_bytes());
            let beyond = output.len().saturating_sub(2 * EXEC_OUTPUT_BYTES_MAX);
            output.drain(..beyond);
        }
        Ok(())
    };
    let ended = match tokio::time::timeout_at(deadline, running).await {
        Ok(outcome) => {
            engine.call(operation.clone(), READ_MAX, async { outcome }).await.map_err(not_running)?;
            true
        }
        Err(_) => false,
    };
    if !ended {
        return Ok(ExecOutcome::new(None, &output));
    }
    let found = engine.call(operation, READ_MAX, docker.inspect_exec(&exec)).await?;
    command.ended();
    Ok(ExecOutcome::new(found.exit_code.and_then(|code| i32::try_from(code).ok()), &output))
}

async fn is_running(engine: &Engine, operation: &str, exec: &str) -> Result<bool, RuntimeError> {
    match engine.call(operation, READ_MAX, engine.docker.inspect_exec(exec)).await {
        Ok(found) => Ok(found.running.unwrap_or(false)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The engine says 409 of a container that does not run, or is paused.
fn not_running(error: RuntimeError) -> RuntimeError {
    match error.kind {
        ErrorKind::Conflict => RuntimeError { kind: ErrorKind::NotFound, ..error },
        _ => error,
    }
}
