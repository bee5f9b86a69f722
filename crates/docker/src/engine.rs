//! The connection to the engine: every call bounded in time, every failure mapped once, by status code.
//!
//! Deliberately absent: retries. A failed call is reported; the loop observes again and decides.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::errors::Error as EngineError;
use bollard::{API_DEFAULT_VERSION, Docker};
use ringmaster_runtime::{ErrorKind, RuntimeError};
use tokio::net::UnixStream;

/// Bound on calls that only read.
pub(crate) const READ_MAX: Duration = Duration::from_secs(15);
/// Bound on calls that change something: a start takes half a second, on a crowded engine many times that.
pub(crate) const CHANGE_MAX: Duration = Duration::from_secs(60);
/// Bound on a pull.
pub(crate) const PULL_MAX: Duration = Duration::from_secs(300);

/// An engine that answered once.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    /// The client. Its own time limit covers only the wait for the response's head, so [`Engine::call`] adds one.
    pub(crate) docker: Docker,
    pub(crate) socket: PathBuf,
}

impl Engine {
    /// Connects, pings and negotiates the version.
    pub(crate) async fn connect(socket: &Path) -> Result<Engine, RuntimeError> {
        let operation = || format!("connect to the engine at {}", socket.display());
        // A plain connection first: its error says why, the client's does not.
        let probe = tokio::time::timeout(READ_MAX, UnixStream::connect(socket));
        match probe.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                return Err(RuntimeError::new(
                    operation(),
                    ErrorKind::Unreachable,
                    socket_failure(socket, &error),
                ));
            }
            Err(_) => return Err(timed_out(operation(), READ_MAX)),
        }
        let path = socket.to_str().ok_or_else(|| {
            RuntimeError::new(operation(), ErrorKind::Invalid, "the socket's path is not valid UTF-8")
        })?;
        let docker = Docker::connect_with_unix(path, READ_MAX.as_secs(), API_DEFAULT_VERSION)
            .map_err(|error| failed(operation(), socket, &error))?;
        let mut engine = Engine { docker: docker.clone(), socket: socket.to_owned() };
        engine.call(operation(), READ_MAX, engine.docker.ping()).await?;
        engine.docker = engine.call(operation(), READ_MAX, docker.negotiate_version()).await?;
        Ok(engine)
    }

    /// The client for a call that may take `limit` until its response begins.
    pub(crate) fn within(&self, limit: Duration) -> Docker {
        self.docker.clone().with_timeout(limit)
    }

    /// Runs one call within `limit` and maps its failure.
    pub(crate) async fn call<T>(
        &self,
        operation: impl Into<String>,
        limit: Duration,
        call: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, RuntimeError> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(failed(operation.into(), &self.socket, &error)),
            Err(_) => Err(timed_out(operation.into(), limit)),
        }
    }
}

fn timed_out(operation: String, limit: Duration) -> RuntimeError {
    let message =
        format!("the engine did not answer within {} s: is it overloaded or hung?", limit.as_secs());
    RuntimeError::new(operation, ErrorKind::Unreachable, message)
}

/// The one table from the engine's failures to ours. Texts differ between engines, status codes do not.
pub(crate) fn failed(operation: String, socket: &Path, error: &EngineError) -> RuntimeError {
    let (kind, message) = match error {
        EngineError::DockerResponseServerError { status_code, message } => {
            let kind = match status_code {
                400 => ErrorKind::Invalid,
                404 => ErrorKind::NotFound,
                409 => ErrorKind::Conflict,
                _ => ErrorKind::Engine,
            };
            (kind, one_line(message))
        }
        EngineError::RequestTimeoutError => {
            (ErrorKind::Unreachable, "the engine did not answer in time".into())
        }
        EngineError::SocketNotFoundError(_) => {
            (ErrorKind::Unreachable, socket_failure(socket, &io::Error::from(io::ErrorKind::NotFound)))
        }
        EngineError::HyperLegacyError { .. }
        | EngineError::HyperResponseError { .. }
        | EngineError::IOError { .. } => (ErrorKind::Unreachable, transport_failure(socket, error)),
        other => (ErrorKind::Engine, one_line(&other.to_string())),
    };
    RuntimeError::new(operation, kind, message)
}

fn transport_failure(socket: &Path, error: &EngineError) -> String {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            return socket_failure(socket, error);
        }
        cause = inner.source();
    }
    format!("the connection to {} broke off: {error}", socket.display())
}

/// Why a socket cannot be used, and what to do about it.
fn socket_failure(socket: &Path, error: &io::Error) -> String {
    let socket = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("there is no socket at {socket}: start Docker, or use the process runtime")
        }
        io::ErrorKind::PermissionDenied => format!(
            "no permission to use {socket}: run as root, or join the group that owns it (`ls -l {socket}`)"
        ),
        io::ErrorKind::ConnectionRefused => {
            format!("{socket} is there, but no engine listens on it: start it (`systemctl start docker`)")
        }
        _ => format!("cannot talk to {socket}: {error}"),
    }
}

/// Engines end their messages with line breaks, and ours stand in one line.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_not_reaching_the_socket_says_what_to_do() {
        let text = |kind: io::ErrorKind| socket_failure(Path::new("/run/x.sock"), &kind.into());
        assert!(text(io::ErrorKind::NotFound).contains("start Docker"));
        assert!(text(io::ErrorKind::PermissionDenied).contains("join the group"));
        assert!(text(io::ErrorKind::ConnectionRefused).contains("no engine listens"));
    }

    #[test]
    fn status_codes_decide_the_kind() {
        for (status_code, kind) in [
            (400, ErrorKind::Invalid),
            (404, ErrorKind::NotFound),
            (409, ErrorKind::Conflict),
            (500, ErrorKind::Engine),
        ] {
            let error =
                EngineError::DockerResponseServerError { status_code, message: "no\nsuch  thing\n".into() };
            let error = failed("inspect x".into(), Path::new("/x"), &error);
            assert_eq!((error.kind, error.to_string().as_str()), (kind, "inspect x: no such thing"));
        }
    }

    #[test]
    fn every_refusal_of_the_engines_table_has_the_kind_that_it_names() {
        let facts: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../tests/engine-facts.json")).unwrap();
        let refusals: Vec<_> = facts.iter().filter(|fact| fact["status"].as_u64().unwrap() >= 400).collect();
        assert!(refusals.len() > 10);
        for fact in refusals {
            let error = EngineError::DockerResponseServerError {
                status_code: u16::try_from(fact["status"].as_u64().unwrap()).unwrap(),
                message: fact["text"].as_str().unwrap().to_owned(),
            };
            let kind = failed("x".into(), Path::new("/x"), &error).kind;
            assert_eq!(fact["kind"], format!("{kind:?}"), "{fact}");
        }
    }
}
