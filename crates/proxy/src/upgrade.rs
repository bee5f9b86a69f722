//! Upgraded connections (WebSocket): bytes both ways until one side ends, or the data plane does.

use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Relays until both sides have ended, one has failed, or `token` is cancelled. What was read beyond the two heads
/// goes first.
pub(crate) async fn run(
    client: &mut TcpStream,
    from_client: &[u8],
    upstream: &mut TcpStream,
    from_upstream: &[u8],
    token: &CancellationToken,
) {
    let relaying = async {
        upstream.write_all(from_client).await?;
        client.write_all(from_upstream).await?;
        copy_bidirectional(client, upstream).await
    };
    // Both arms may be dropped half-way: that closes the two sockets, which is what a cancelled tunnel does.
    tokio::select! {
        result = relaying => {
            if let Err(error) = result {
                tracing::debug!(%error, "tunnel ended");
            }
        }
        () = token.cancelled() => {}
    }
}
