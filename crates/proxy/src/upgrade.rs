//! Upgraded connections (WebSocket): bytes both ways until one side ends, or the data plane does.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio_util::sync::CancellationToken;

use crate::io::Exchange;
use crate::upstream::InFlight;

/// What an upgraded connection keeps alive until it ends.
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    pub(crate) upstream: OnUpgrade,
    pub(crate) in_flight: InFlight,
    pub(crate) exchange: Option<Exchange>,
}

impl Tunnel {
    /// Relays until both sides have ended, one has failed, or `token` is cancelled.
    pub(crate) async fn run(self, token: CancellationToken) {
        // Both arms may be dropped half-way: that closes the two sockets, which is what a cancelled tunnel does.
        tokio::select! {
            result = relay(self.client, self.upstream) => {
                if let Err(error) = result {
                    tracing::debug!(error, "tunnel ended");
                }
            }
            () = token.cancelled() => {}
        }
        drop((self.in_flight, self.exchange));
    }
}

async fn relay(client: OnUpgrade, upstream: OnUpgrade) -> Result<(), Box<dyn std::error::Error>> {
    let (client, upstream) = futures_util::future::try_join(client, upstream).await?;
    copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await?;
    Ok(())
}
