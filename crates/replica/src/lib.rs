//! The demo workload: the assignment's server (`/home`, `/heartbeat`) and a few paths that exercise a proxy.
//!
//! Responsible for: the exact bytes of `/home`, a prompt start, and a graceful end on SIGTERM even as PID 1.
//! Deliberately absent: anything of Ringmaster's. It is an ordinary HTTP server that knows its number.

mod routes;

use std::env;
use std::future::Future;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long requests in flight may go on after SIGTERM; what is left of the five seconds is for ending.
const DRAIN_MAX: Duration = Duration::from_millis(4_500);

/// Most bytes that a check reads of an answer.
const CHECK_BYTES_MAX: u64 = 64 * 1024;

/// How a replica is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its number, as it stands in the answer of `/home`.
    pub server_id: String,
    /// The first word of the answer of `/home`.
    pub greeting: String,
}

impl Config {
    /// Reads `PORT` (default 5000), `HOST` (the address to listen on, default 0.0.0.0), `SERVER_ID` (default
    /// `1`) and `GREETING` (default `Hello`).
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] names the variable that is not what it should be.
    pub fn from_env() -> io::Result<Config> {
        let port = parsed("PORT", "a port", 5000)?;
        let host = parsed("HOST", "an IP address", IpAddr::V4(Ipv4Addr::UNSPECIFIED))?;
        Ok(Config {
            address: SocketAddr::new(host, port),
            server_id: text("SERVER_ID", "1"),
            greeting: text("GREETING", "Hello"),
        })
    }
}

/// Serves until SIGTERM or SIGINT, then finishes the requests in flight and returns within five seconds.
///
/// # Errors
/// The address cannot be listened on, or signals cannot be handled.
pub async fn run(config: Config) -> io::Result<()> {
    // The handlers stand before the port is open: whoever sees the port may send SIGTERM, and a PID 1 without
    // a handler would not even notice.
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(config.address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("listen on {}: {error}", config.address)))?;
    say(&format!("server {} listens on {}", config.server_id, listener.local_addr()?));
    let stop = async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let server_id = config.server_id.clone();
    serve(listener, config, stop).await?;
    say(&format!("server {server_id} has ended"));
    Ok(())
}

/// Serves on `listener` until `stop` completes, then finishes the requests in flight, but no longer than five
/// seconds. Idle connections are closed at once.
///
/// # Errors
/// As [`axum::serve()`].
pub async fn serve(
    listener: TcpListener,
    config: Config,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (stopping, mut stopped) = watch::channel(false);
    let stop = async move {
        stop.await;
        stopping.send_replace(true);
    };
    // An answer is one small write: waiting for more (Nagle) would only delay it. A socket that refuses the
    // option is merely slower.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            say(&format!("cannot set TCP_NODELAY: {error}"));
        }
    });
    let server = axum::serve(listener, routes::router(&config)).with_graceful_shutdown(stop);
    let give_up = async {
        // The sender lives in the server's future, which outlives this one.
        if stopped.wait_for(|stopping| *stopping).await.is_ok() {
            tokio::time::sleep(DRAIN_MAX).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        outcome = server => outcome,
        () = give_up => {
            say("requests were still in flight after the drain time");
            Ok(())
        }
    }
}

/// Asks the replica that is configured so for a path.
///
/// # Errors
/// Nobody answers, or the answer is not 200.
pub async fn check(config: &Config, path: &str) -> io::Result<()> {
    let mut address = config.address;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(CHECK_BYTES_MAX).read_to_end(&mut answer).await?;
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    if line.starts_with(b"HTTP/1.1 200") {
        return Ok(());
    }
    let line = String::from_utf8_lossy(line);
    Err(io::Error::other(format!("GET {path} on {address} was answered by `{line}`")))
}

fn text(name: &str, default: &str) -> String {
    env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

fn parsed<T: FromStr + ToString>(name: &str, what: &str, default: T) -> io::Result<T> {
    let value = text(name, &default.to_string());
    value
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{name}: `{value}` is not {what}")))
}

/// A line on standard output. Nobody may be reading it (a closed pipe, a full disk); that is no reason to stop
/// serving, which is what `println!` would do.
fn say(line: &str) {
    if writeln!(io::stdout(), "{line}").is_err() {
        // Nowhere is left to say it.
    }
}
