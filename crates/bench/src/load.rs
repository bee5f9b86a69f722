//! Load of one work on one proxy: in a closed loop, or at a fixed rate with times that do not wait for answers.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
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
    /// At these times, whoever is free.
    Queued { queue: RefCell<VecDeque<Instant>>, news: Notify, ended: Cell<bool> },
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
        Some(_) => Due::Queued { queue: RefCell::default(), news: Notify::new(), ended: Cell::new(false) },
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
    if let Some(rate) = run.script.work.rate {
        run.keep_time(rate).await?;
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
            Due::Queued { queue, news, ended } => loop {
                if let Some(due) = queue.borrow_mut().pop_front() {
                    return Some(due);
                }
                if ended.get() {
                    // The next one that waits is to see it, too.
                    news.notify_one();
                    return None;
                }
                news.notified().await;
            },
        }
    }

    /// Queues requests at a rate. By a timer of the kernel's: those of the runtime are of whole milliseconds.
    async fn keep_time(&self, rate: u64) -> io::Result<()> {
        let Due::Queued { queue, news, ended } = &self.due else { return Ok(()) };
        let interval = Timespec { tv_sec: 0, tv_nsec: (1_000_000_000 / rate) as i64 };
        let timer: OwnedFd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        let started = Instant::now();
        let setting = Itimerspec { it_interval: interval, it_value: interval };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &setting)?;
        let timer = AsyncFd::register(timer)?;
        let mut ticks = 0_u64;
        while Instant::now() < self.until {
            let mut ready = timer.readable().await?;
            let mut count = [0; 8];
            match rustix::io::read(&timer, &mut count) {
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            for _ in 0..u64::from_ne_bytes(count) {
                ticks += 1;
                queue.borrow_mut().push_back(started + Duration::from_nanos(ticks * 1_000_000_000 / rate));
                news.notify_one();
            }
        }
        ended.set(true);
        news.notify_one();
        Ok(())
    }
}
