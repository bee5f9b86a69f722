//! Load of one work on one proxy: in a closed loop, or at a fixed rate with times that do not wait for answers.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{Connection, Script};

/// How long the last answers may take after the load has ended.
const END_DEADLINE: Duration = Duration::from_secs(20);

/// What became of the requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) answered: u64,
    /// Sorted; from when a request was due.
    pub(crate) latencies: Vec<Duration>,
    /// What went wrong first.
    pub(crate) wrong: Option<String>,
}

/// What all connections share.
struct Run {
    script: Rc<Script>,
    address: SocketAddr,
    until: Instant,
    asked: Cell<usize>,
    due: Due,
    outcome: RefCell<Outcome>,
}

/// When requests are due.
enum Due {
    /// As soon as a connection is free.
    Always,
    /// At these times, whoever is free, until there are no more.
    Queued(Mutex<UnboundedReceiver<Instant>>),
}

impl Outcome {
    /// The latency that this share of requests did not exceed.
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        let index = (self.latencies.len() as f64 * share) as usize;
        self.latencies.get(index.min(self.latencies.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// Sends requests for as long as told; returns when all are answered.
pub(crate) async fn run(script: &Rc<Script>, address: SocketAddr, lasts: Duration) -> io::Result<Outcome> {
    let due = match script.work.rate {
        None => Due::Always,
        Some(rate) => {
            let (times, queued) = unbounded_channel();
            thread::Builder::new().name("clock".to_owned()).spawn(move || keep_time(rate, lasts, &times))?;
            Due::Queued(Mutex::new(queued))
        }
    };
    let (script, asked) = (Rc::clone(script), Cell::new(0));
    let run = Rc::new(Run {
        script,
        address,
        until: Instant::now() + lasts,
        asked,
        due,
        outcome: RefCell::default(),
    });
    let mut connections = JoinSet::new();
    for _ in 0..run.script.work.connections {
        let run = Rc::clone(&run);
        connections.spawn_local(async move {
            if let Err(wrong) = run.connection().await {
                run.outcome.borrow_mut().wrong.get_or_insert(wrong);
            }
        });
    }
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(lasts + END_DEADLINE, all).await.is_err() {
        connections.shutdown().await;
        run.outcome.borrow_mut().wrong.get_or_insert("an answer never came".to_owned());
    }
    let mut outcome = run.outcome.take();
    outcome.latencies.sort_unstable();
    Ok(outcome)
}

impl Run {
    async fn connection(&self) -> Result<(), String> {
        let mut kept: Option<Connection> = None;
        while let Some(due) = self.next().await {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => Connection::open(self.address).await?,
            };
            let key = self.asked.get();
            self.asked.set(key + 1);
            connection.exchange(&self.script, key).await?;
            let mut outcome = self.outcome.borrow_mut();
            outcome.answered += 1;
            outcome.latencies.push(due.elapsed());
            kept = Some(connection).filter(|_| !self.script.work.closes);
        }
        Ok(())
    }

    /// When the next request is due, once it is; none at the end.
    async fn next(&self) -> Option<Instant> {
        match &self.due {
            Due::Always => {
                Some(Instant::now()).filter(|now| *now < self.until && self.outcome.borrow().wrong.is_none())
            }
            Due::Queued(times) => times.lock().await.recv().await,
        }
    }
}

/// Says when requests are due, as they are. On a thread of its own: timers of the runtime are of whole milliseconds.
fn keep_time(rate: u64, lasts: Duration, times: &UnboundedSender<Instant>) {
    let started = Instant::now();
    for tick in 1.. {
        let due = Duration::from_nanos(tick * 1_000_000_000 / rate);
        thread::sleep(due.saturating_sub(started.elapsed()));
        // Nobody listens any more after a failure.
        if due >= lasts || times.send(started + due).is_err() {
            return;
        }
    }
}
