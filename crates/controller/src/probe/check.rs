//! One probe: a GET that must answer 200 to 399, or a connection that must be accepted.
//!
//! GETs keep their connection, because most of what a probe costs is the connection's making and unmaking. One in
//! [`REUSES_MAX`] makes a new one, so that a replica that no longer accepts any is found out.

use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper_util::rt::TokioIo;
use ringmaster_core::spec::Probe;
use tokio::net::TcpStream;

/// How often a connection is used again.
const REUSES_MAX: u32 = 8;
/// A longer answer is not read to its end, and its connection is not used again.
const BODY_BYTES_MAX: usize = 64 * 1024;

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
    address: SocketAddr,
    kept: Option<Kept>,
}

/// A connection for the next probe.
#[derive(Debug)]
struct Kept {
    sender: SendRequest<Empty<Bytes>>,
    connection: Pin<Box<Connection<TokioIo<TcpStream>, Empty<Bytes>>>>,
    reuses: u32,
}

impl Checker {
    pub(super) fn new(address: SocketAddr) -> Checker {
        Checker { address, kept: None }
    }

    /// Asks once, within the probe's timeout; on a `fresh` connection if there is reason for doubt.
    pub(super) async fn check(&mut self, probe: &Probe, fresh: bool) -> Result<(), Failure> {
        let address = self.address;
        let kept = self.kept.take().filter(|kept| !fresh && kept.reuses < REUSES_MAX);
        let question = async {
            match &probe.http_get {
                Some(get) => self.get(&get.path, kept).await,
                None => self.connect().await.map(drop),
            }
        };
        tokio::time::timeout(probe.timeout.0, question).await.unwrap_or_else(|_| {
            Err(Failure { why: format!("no answer from {address} within {}", probe.timeout), refused: false })
        })
    }

    async fn get(&mut self, path: &str, kept: Option<Kept>) -> Result<(), Failure> {
        if let Some(kept) = kept
            && let Ok(status) = self.ask(path, kept).await
        {
            return self.judge(path, status);
        }
        // A kept connection may have been closed in the meantime: only a new one tells.
        let stream = self.connect().await?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|e| self.failed(path, &e))?;
        let kept = Kept { sender, connection: Box::pin(connection), reuses: 0 };
        let status = self.ask(path, kept).await.map_err(|e| self.failed(path, &e))?;
        self.judge(path, status)
    }

    async fn connect(&self) -> Result<TcpStream, Failure> {
        let address = self.address;
        TcpStream::connect(address).await.map_err(|error| Failure {
            refused: error.kind() == std::io::ErrorKind::ConnectionRefused,
            why: format!("connect to {address}: {error}"),
        })
    }

    /// Sends one request and reads its answer; keeps the connection if it can be used again.
    async fn ask(
        &mut self,
        path: &str,
        mut kept: Kept,
    ) -> Result<http::StatusCode, Box<dyn std::error::Error + Send + Sync>> {
        let request = http::Request::get(path)
            .header(http::header::HOST, self.address.to_string())
            .header(http::header::USER_AGENT, "ringmaster-probe")
            .body(Empty::new())?;
        let Kept { sender, connection, reuses } = &mut kept;
        let exchange = async move {
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            let status = response.status();
            let whole = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await.is_ok();
            Ok::<_, hyper::Error>((status, whole && sender.is_ready()))
        };
        let mut exchange = Box::pin(exchange);
        // The connection is driven right here: a probe needs no task of its own.
        let (status, reusable) = tokio::select! {
            biased;
            answer = &mut exchange => answer?,
            _ended = connection => (exchange.as_mut().await?.0, false),
        };
        drop(exchange);
        *reuses += 1;
        self.kept = reusable.then_some(kept);
        Ok(status)
    }

    fn judge(&self, path: &str, status: http::StatusCode) -> Result<(), Failure> {
        match status.as_u16() {
            200..=399 => Ok(()),
            _ => Err(Failure {
                why: format!("GET {path} on {} answered {status}", self.address),
                refused: false,
            }),
        }
    }

    fn failed(&self, path: &str, error: &dyn std::fmt::Display) -> Failure {
        Failure { why: format!("GET {path} on {}: {error}", self.address), refused: false }
    }
}
