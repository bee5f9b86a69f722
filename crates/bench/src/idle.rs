//! What an idle connection of a client costs in memory.

use std::time::Duration;

use anyhow::anyhow;
use tokio::time::sleep;

use crate::client::{Connection, Script};
use crate::peer::{Kind, Starter};
use crate::process;
use crate::work::ALL;

/// A proxy may tidy up before its memory is read.
const SETTLES: Duration = Duration::from_millis(300);

/// One proxy with nothing but idle connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    pub(crate) kind: Kind,
    /// Counts of connections, and the resident bytes with each.
    pub(crate) few: (usize, u64),
    pub(crate) many: (usize, u64),
}

impl Idle {
    /// Bytes per connection, without what the proxy itself takes.
    pub(crate) fn bytes_per_connection(&self) -> f64 {
        self.many.1.saturating_sub(self.few.1) as f64 / (self.many.0 - self.few.0) as f64
    }
}

/// Measures each proxy afresh: each connection has carried one request, as those of browsers have.
pub(crate) async fn measure(
    starter: &Starter,
    kinds: &[Kind],
    counts: (usize, usize),
) -> anyhow::Result<Vec<Idle>> {
    let script = Script::new(ALL[0]);
    let mut measured = Vec::new();
    for kind in kinds.iter().copied().filter(|kind| !kind.is_for_long_bodies()) {
        let peer = starter.start(kind, 1).await?;
        let mut connections = Vec::new();
        let mut resident = [0, 0];
        for (count, resident) in [counts.0, counts.1].into_iter().zip(&mut resident) {
            while connections.len() < count {
                let failed = |wrong: String| {
                    anyhow!("{}, with {} idle connections: {wrong}", kind.name(), connections.len())
                };
                let mut connection = Connection::open(peer.address).await.map_err(failed)?;
                connection.exchange(&script, connections.len()).await.map_err(failed)?;
                connection.shrink();
                connections.push(connection);
            }
            sleep(SETTLES).await;
            *resident = process::resident(peer.pid());
        }
        measured.push(Idle { kind, few: (counts.0, resident[0]), many: (counts.1, resident[1]) });
        drop(connections);
        peer.end().await;
    }
    Ok(measured)
}
