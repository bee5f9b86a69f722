//! One probe: a GET that must answer 200 to 399, or a connection that must be accepted.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use ringmaster_core::spec::Probe;
use tokio::net::TcpStream;

/// Asks once, within the probe's timeout. The error says what happened, for people.
pub(super) async fn check(address: SocketAddr, probe: &Probe) -> Result<(), String> {
    let question = async {
        let stream = TcpStream::connect(address).await.map_err(|e| format!("connect to {address}: {e}"))?;
        match &probe.http_get {
            Some(get) => http_get(stream, address, &get.path).await,
            None => Ok(()),
        }
    };
    match tokio::time::timeout(probe.timeout.0, question).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer from {address} within {}", probe.timeout)),
    }
}

async fn http_get(stream: TcpStream, address: SocketAddr, path: &str) -> Result<(), String> {
    let failed = |e: &dyn std::error::Error| format!("GET {path} on {address}: {e}");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|e| failed(&e))?;
    let request = http::Request::get(path)
        .header(http::header::HOST, address.to_string())
        .header(http::header::USER_AGENT, "ringmaster-probe")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| failed(&e))?;
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    // The connection is driven right here: a probe needs no task of its own.
    let response = tokio::select! {
        biased;
        response = &mut answer => response,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    };
    let status = response.map_err(|e| failed(&e))?.status();
    match status.as_u16() {
        200..=399 => Ok(()),
        _ => Err(format!("GET {path} on {address} answered {status}")),
    }
}
