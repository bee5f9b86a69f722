//! One probe: a GET that is answered as it should be, a connection that is accepted, or a command that succeeds.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ringmaster_core::probing::ProbeKind;
use ringmaster_core::spec::{HttpGet, Probe};
use ringmaster_runtime::{ErrorKind, ExecOutcome};
use tokio::net::TcpStream;

use super::http::{Http, Question};
use super::task::Task;

/// How a question ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// As it should.
    Good,
    /// It did not.
    Failed(Failure),
    /// It could not be asked: the engine does not answer.
    Unknown,
}

/// Why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// What happened, for people.
    pub(super) why: String,
    /// Nobody listens there any more.
    pub(super) refused: bool,
}

/// Asks one replica, again and again.
#[derive(Debug)]
pub(super) struct Checker {
    http: Http,
    /// The requests that are sent, by the probe's kind.
    questions: [Option<Question>; ProbeKind::ALL.len()],
}

impl Failure {
    pub(super) fn new(why: String) -> Failure {
        Failure { why, refused: false }
    }
}

impl From<Result<(), Failure>> for Answer {
    fn from(result: Result<(), Failure>) -> Answer {
        result.map_or_else(Answer::Failed, |()| Answer::Good)
    }
}

impl Checker {
    pub(super) fn new(task: &Task) -> Checker {
        let probes = &task.probes;
        let of = |get: &HttpGet| Question::new(get, task.address);
        let question = |probe: Option<&Probe>| probe.and_then(|probe| probe.http_get.as_ref()).map(of);
        let questions = ProbeKind::ALL.map(|kind| match kind {
            ProbeKind::Startup => question(probes.startup.as_ref()),
            ProbeKind::Readiness => question(Some(&probes.readiness)),
            ProbeKind::Liveness => question(probes.liveness.as_ref()),
        });
        Checker { http: Http::new(task.address), questions }
    }

    /// Asks once, within the probe's timeout; on a `fresh` connection if there is reason for doubt. Waits for its turn
    /// first, which does not count.
    pub(super) async fn check(&mut self, task: &Task, kind: ProbeKind, probe: &Probe, fresh: bool) -> Answer {
        let limit = probe.timeout.0;
        if let Some(exec) = &probe.exec {
            let _turn = task.turns.execs.acquire().await;
            return match task.runtime.exec(&task.id, &exec.command, limit).await {
                Ok(outcome) if outcome.code == Some(0) => Answer::Good,
                Ok(outcome) => Answer::Failed(Failure::new(exec_failure(&exec.command, &outcome, limit))),
                Err(error) if matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Engine) => {
                    tracing::debug!(replica = %task.name, %error, "a probe could not be asked");
                    Answer::Unknown
                }
                Err(error) => Answer::Failed(Failure::new(error.to_string())),
            };
        }
        let _turn = task.turns.asks.acquire().await;
        let asked = match &self.questions[kind as usize] {
            Some(question) => tokio::time::timeout(limit, self.http.ask(question, fresh)).await,
            None => tokio::time::timeout(limit, async { connect(task.address).await.map(drop) }).await,
        };
        asked.unwrap_or_else(|_| Err(no_answer(task.address, limit))).into()
    }
}

pub(super) fn no_answer(address: SocketAddr, limit: Duration) -> Failure {
    Failure::new(format!("no answer from {address} within {limit:?}"))
}

pub(super) async fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    TcpStream::connect(address).await.map_err(|error| Failure {
        refused: error.kind() == io::ErrorKind::ConnectionRefused,
        why: format!("connect to {address}: {error}"),
    })
}

/// Why a command is no success, with the last line that it wrote.
pub(crate) fn exec_failure(command: &[String], outcome: &ExecOutcome, limit: Duration) -> String {
    let program = command.first().map_or("", String::as_str);
    let last = outcome.output.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let last: String = last.map_or(String::new(), |line| {
        let shown = line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
        [':', ' '].into_iter().chain(shown.take(200)).collect()
    });
    match outcome.code {
        Some(code) => format!("`{program}` ended with exit code {code}{last}"),
        None => format!("`{program}` has not ended within {limit:?}{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_failed_is_told_with_its_last_line() {
        let told = |code, output: &[u8]| {
            exec_failure(&["check".to_owned()], &ExecOutcome::new(code, output), Duration::from_millis(1_500))
        };
        assert_eq!(told(Some(3), b"one\ntw\x1bo\n\n"), "`check` ended with exit code 3: tw\u{fffd}o");
        assert_eq!(told(None, b""), "`check` has not ended within 1.5s");
    }
}
