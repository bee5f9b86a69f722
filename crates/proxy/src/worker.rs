//! One worker: a thread with its own runtime, listeners, routing and connections.
//!
//! Nothing here is shared but what [`Shared`] says. Everything of a worker is on one thread, so its state is in
//! `Rc` and `Cell`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client;
use crate::closing::Closing;
use crate::error::ProxyError;
use crate::io::Buffers;
use crate::key::Random;
use crate::registry::Shared;
use crate::routing::Routing;
use crate::socket::Socket;
use crate::splice::Pipes;
use crate::ticks::Ticks;

/// Pause after the system refused to accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the control thread tells a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// Accept connections from this socket.
    Open { address: SocketAddr, socket: TcpListener },
    /// Close the socket of this address; its connections live on.
    Close { address: SocketAddr },
}

/// What a worker is started with.
pub(crate) struct Setup {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) token: CancellationToken,
    pub(crate) grace: Duration,
}

/// A worker's state.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) random: Random,
    /// Which one it is, from 0.
    pub(crate) index: usize,
    /// Whether connections are to end with what they carry now.
    pub(crate) closing: Rc<Closing>,
    /// Pipes that nobody uses now.
    pub(crate) pipes: Pipes,
    /// When something is due for a request.
    pub(crate) ticks: Rc<Ticks>,
    /// How many connections keep what they need for requests although they have none.
    pub(crate) warm: Cell<u32>,
    /// What the clock said first since a connection was woken.
    moment: Cell<Option<Instant>>,
    /// Buffers that nobody uses now.
    pub(crate) buffers: Rc<Buffers>,
    routing: RefCell<Rc<Routing>>,
    date: RefCell<(u64, Rc<[u8]>)>,
    token: CancellationToken,
    tasks: TaskTracker,
}

/// Tells a worker; one that has ended needs to know nothing any more.
pub(crate) fn send(worker: &mpsc::UnboundedSender<Command>, command: Command) {
    if worker.send(command).is_err() {
        tracing::debug!("a worker has ended, a listener command is dropped");
    }
}

/// Runs a worker until its token is cancelled and its connections have ended or the grace is over.
pub(crate) fn run(setup: Setup, ready: &SyncSender<Result<(), ProxyError>>) {
    let built =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let (result, runtime) = match built {
        Ok(runtime) => (Ok(()), Some(runtime)),
        Err(source) => (Err(ProxyError::Runtime { source }), None),
    };
    if ready.send(result).is_err() {
        tracing::debug!("nobody waits for this worker any more");
    }
    if let Some(runtime) = runtime {
        runtime.block_on(serve(setup));
    }
}

async fn serve(setup: Setup) {
    let Setup { index, shared, commands, token, grace } = setup;
    let worker = Rc::new(Worker {
        shared,
        random: Random::new(),
        index,
        buffers: Rc::default(),
        closing: Rc::default(),
        ticks: Rc::default(),
        warm: Cell::new(0),
        moment: Cell::new(None),
        pipes: Pipes::default(),
        routing: RefCell::default(),
        date: RefCell::default(),
        token,
        tasks: TaskTracker::new(),
    });
    worker.swap();
    let following = tokio::task::spawn_local(Rc::clone(&worker).follow_snapshots());
    let ticks = Rc::clone(&worker.ticks);
    let ticking = tokio::task::spawn_local(async move { ticks.run().await });
    worker.listen(commands).await;
    worker.closing.begin();
    worker.tasks.close();
    if timeout(grace, worker.tasks.wait()).await.is_err() {
        let left = worker.tasks.len();
        tracing::warn!(left, "shutdown: connections were cut off, their requests did not end in time");
    }
    following.abort();
    ticking.abort();
}

impl Worker {
    /// The time at which the connection at hand was woken, read once: between two waits of a request nothing takes long
    /// but the processor, and a reading of the clock costs as much as a search of the ring. For connections' own tasks
    /// alone: only their wake-ups renew it.
    pub(crate) fn now(&self) -> Instant {
        self.moment.get().unwrap_or_else(|| {
            let now = Instant::now();
            self.moment.set(Some(now));
            now
        })
    }

    /// The routing of this moment; valid for a choice only until the next await.
    pub(crate) fn routing(&self) -> Rc<Routing> {
        Rc::clone(&self.routing.borrow())
    }

    /// Is cancelled when nothing new is to be begun.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// The time of now, as messages tell it (RFC 9110 section 5.6.7).
    pub(crate) fn date(&self) -> Rc<[u8]> {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut date = self.date.borrow_mut();
        if date.0 != second || date.1.is_empty() {
            *date = (second, httpdate::fmt_http_date(now).into_bytes().into());
        }
        Rc::clone(&date.1)
    }

    /// Swaps in the newest snapshot and says so. Until the acknowledgement nothing is awaited.
    fn swap(&self) {
        let previous = self.routing();
        let next = Rc::new(Routing::newest(&self.shared, self.index, &previous));
        self.routing.replace(Rc::clone(&next));
        previous.retire(&next);
        self.shared.acknowledge(self.index, next.generation);
    }

    /// Follows the snapshots until there will be no more: then the last one stays.
    async fn follow_snapshots(self: Rc<Self>) {
        let mut snapshots = self.shared.snapshots();
        // The first one may have changed between the swap at the start and this subscription.
        snapshots.mark_changed();
        while snapshots.changed().await.is_ok() {
            self.swap();
        }
    }

    /// Opens and closes listeners as told, until the token is cancelled; then closes all.
    async fn listen(self: &Rc<Self>, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut open: HashMap<SocketAddr, CancellationToken> = HashMap::new();
        loop {
            // Cancel-safe: `recv` loses no command when the other arm ends the loop.
            let command = tokio::select! {
                command = commands.recv() => command,
                () = self.token.cancelled() => None,
            };
            match command {
                Some(Command::Open { address, socket }) => {
                    let close = self.token.child_token();
                    open.insert(address, close.clone());
                    match watched(socket) {
                        Ok(listener) => drop(self.tasks.spawn_local(Rc::clone(self).accept(listener, close))),
                        Err(error) => tracing::error!(%address, %error, "a worker cannot listen"),
                    }
                }
                Some(Command::Close { address }) => {
                    if let Some(close) = open.remove(&address) {
                        close.cancel();
                    }
                }
                None if self.token.is_cancelled() => return,
                // The control thread has ended before us, which only a panic does; what is open stays open until
                // the token, which its end cancels.
                None => return self.token.cancelled().await,
            }
        }
    }

    async fn accept(self: Rc<Self>, listener: AsyncFd<TcpListener>, close: CancellationToken) {
        loop {
            // Cancel-safe: a connection that `accept` has not returned is still in the queue.
            let accepted = tokio::select! {
                accepted = listener.async_io(Interest::READABLE, accept) => accepted,
                () = close.cancelled() => break,
            };
            match accepted {
                Ok((stream, client)) => self.connected(stream, client),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept: raise the limit on open files (`ulimit -n`)");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Whoever is in the queue has been told that the connection stands: closing would reset it.
        while let Ok((stream, client)) = accept(listener.get_ref()) {
            self.connected(stream, client);
        }
    }

    fn connected(self: &Rc<Self>, stream: Socket, client: SocketAddr) {
        let worker = Rc::clone(self);
        self.tasks.spawn_local(async move {
            let _open = OpenConnection::count(&worker.shared);
            let mut serving = pin!(client::serve(Rc::clone(&worker), stream, client));
            poll_fn(|cx| {
                worker.moment.set(None);
                serving.as_mut().poll(cx)
            })
            .await;
        });
    }
}

/// Not the runtime's own kind of listener, which has each connection watched before anybody waits for it.
#[expect(
    deprecated,
    reason = "the successor is unsafe for what has no descriptor of its own; a listener has"
)]
fn watched(listener: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    AsyncFd::with_interest(listener, Interest::READABLE)
}

/// The next connection in the queue, if there is one.
fn accept(listener: &TcpListener) -> io::Result<(Socket, SocketAddr)> {
    let (socket, client) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let client = client.and_then(|client| SocketAddr::try_from(client).ok());
    Ok((Socket::new(socket), client.ok_or(io::ErrorKind::ConnectionAborted)?))
}

/// Counts a client's connection as open until it is dropped.
struct OpenConnection(Arc<Shared>);

impl OpenConnection {
    fn count(shared: &Arc<Shared>) -> OpenConnection {
        shared.front.accepted.fetch_add(1, Ordering::Relaxed);
        shared.front.open.fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(shared))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.front.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether an accept failed for the connection at hand, and not for those to come.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
