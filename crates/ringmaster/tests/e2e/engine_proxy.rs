//! A unix socket between the daemon and the engine that can be cut, and that can keep events back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

const ENGINE: &str = "/var/run/docker.sock";

/// The proxy; it ends with this value.
pub(crate) struct EngineProxy {
    pub(crate) path: PathBuf,
    up: Arc<watch::Sender<bool>>,
    task: tokio::task::JoinHandle<()>,
}

impl EngineProxy {
    /// Listens on `path`; with `swallow_events` the event stream stays silent for ever.
    pub(crate) fn start(path: &Path, swallow_events: bool) -> EngineProxy {
        let up = Arc::new(watch::Sender::new(true));
        let task = tokio::spawn(serve(UnixListener::bind(path).unwrap(), Arc::clone(&up), swallow_events));
        EngineProxy { path: path.to_owned(), up, task }
    }

    /// Cuts all connections and refuses new ones, as an engine does that stops.
    pub(crate) fn cut(&self) {
        self.up.send_replace(false);
    }

    /// Lets connections through again.
    pub(crate) fn mend(&self) {
        self.up.send_replace(true);
    }
}

impl Drop for EngineProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: UnixListener, up: Arc<watch::Sender<bool>>, swallow_events: bool) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let mut state = up.subscribe();
        if !*state.borrow() {
            continue; // Dropped: the client sees its connection closed without an answer.
        }
        tokio::spawn(async move {
            tokio::select! {
                () = relay(client, swallow_events) => {}
                _ = state.wait_for(|up| !up) => {}
            }
        });
    }
}

async fn relay(mut client: UnixStream, swallow_events: bool) {
    let mut engine = UnixStream::connect(ENGINE).await.unwrap();
    let mut head = vec![0; 4096];
    let Ok(length) = client.read(&mut head).await else { return };
    let events =
        head[..length].starts_with(b"GET /events") || head[..length].starts_with(b"GET /v1.41/events");
    if swallow_events && events {
        // The stream is open and says nothing: events get lost silently.
        let answer =
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        if client.write_all(answer).await.is_ok() {
            std::future::pending::<()>().await;
        }
        return;
    }
    if engine.write_all(&head[..length]).await.is_ok() {
        // Either side may close at any time; that ends the relay, which is all there is to it.
        drop(copy_bidirectional(&mut client, &mut engine).await);
    }
}
