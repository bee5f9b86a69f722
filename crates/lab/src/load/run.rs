//! Sends what is due, reads what comes back, and counts.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use rustix::process::Resource;
use rustix::time::ClockId;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

use super::arrivals::{Arrival, Arrivals};
use super::{Failure, Latency, Outcome, Pace, Plan, Sample, replica_of};
use crate::error::LabError;
use crate::http::Connection;
use crate::random::Random;

/// Sets the arrivals of a seed apart from its ids.
const ARRIVALS_SALT: u64 = 0xa441_7a15;
/// Failures that are kept in full; all are counted.
const FAILURES_KEPT: usize = 10_000;

/// What all requests of a load share.
struct Shared {
    began: Instant,
    timeout: Duration,
    plan: Plan,
    bar: ProgressBar,
    idle: RefCell<Vec<Connection>>,
    samples: RefCell<Vec<Sample>>,
    failures: RefCell<Vec<Failure>>,
    unnamed: Cell<u64>,
    /// In microseconds.
    latencies: RefCell<Histogram<u64>>,
    lateness: RefCell<Histogram<u64>>,
}

/// Runs a load on the calling thread, whose processor time is the generator's.
pub(super) fn on_this_thread(
    plan: &Plan,
    bar: &ProgressBar,
    cancel: &CancellationToken,
) -> Result<Outcome, LabError> {
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LabError::io("start the load generator"))?;
    let histogram =
        || Histogram::new_with_max(600_000_000, 3).expect("ten minutes with three digits make a histogram");
    let shared = Rc::new(Shared {
        began: Instant::now(),
        timeout: plan.timeout,
        plan: plan.clone(),
        bar: bar.clone(),
        idle: RefCell::default(),
        samples: RefCell::new(Vec::with_capacity(plan.requests)),
        failures: RefCell::default(),
        unnamed: Cell::new(0),
        latencies: RefCell::new(histogram()),
        lateness: RefCell::new(histogram()),
    });
    let began_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1e3;
    let processor_before = processor_time();
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        match &plan.pace {
            Pace::Waves { concurrency } => waves(&shared, *concurrency, cancel).await,
            Pace::Open { per_second, stop } => open(&shared, *per_second, stop, cancel).await,
        }
    });
    let elapsed = shared.began.elapsed();
    let generator = processor_time().saturating_sub(processor_before);
    // Requests that a cancelled load gave up hold the rest.
    drop(local);
    let outcome = Outcome {
        samples: shared.samples.take(),
        failures: shared.failures.take(),
        unnamed: shared.unnamed.get(),
        elapsed,
        began_ms,
        latency: Latency::of(&shared.latencies.borrow()),
        late_p99: Duration::from_micros(shared.lateness.borrow().value_at_quantile(0.99)),
        generator_share: generator.as_secs_f64() / elapsed.as_secs_f64().max(1e-9),
    };
    Ok(outcome)
}

async fn waves(shared: &Rc<Shared>, concurrency: usize, cancel: &CancellationToken) {
    let ids = Rc::new(RefCell::new((shared.plan.id_source(), shared.plan.requests)));
    let mut workers = JoinSet::new();
    for _ in 0..concurrency.min(shared.plan.requests) {
        let (shared, ids, cancel) = (Rc::clone(shared), Rc::clone(&ids), cancel.clone());
        workers.spawn_local(async move {
            let mut connection = None;
            while let Some(id) = next_id(&ids) {
                let intended = shared.began.elapsed();
                tokio::select! {
                    () = cancel.cancelled() => return,
                    left = send(&shared, connection.take(), Arrival { id, intended }) => connection = left,
                }
            }
        });
    }
    while workers.join_next().await.is_some() {}
}

fn next_id(ids: &RefCell<(Random, usize)>) -> Option<u32> {
    let (source, left) = &mut *ids.borrow_mut();
    *left = left.checked_sub(1)?;
    Some(source.request_id())
}

async fn open(shared: &Rc<Shared>, per_second: f64, stop: &CancellationToken, cancel: &CancellationToken) {
    let (sender, mut due) = mpsc::unbounded_channel();
    let arrivals = Arrivals {
        ids: shared.plan.id_source(),
        gaps: Random::new(shared.plan.seed ^ ARRIVALS_SALT),
        per_second,
        at_least: shared.plan.requests,
        stop: stop.clone(),
        cancel: cancel.clone(),
    };
    let began = shared.began;
    let clock = std::thread::spawn(move || arrivals.run(began, &sender));
    let mut requests = JoinSet::new();
    while let Some(arrival) = due.recv().await {
        let late = shared.began.elapsed().saturating_sub(arrival.intended);
        record(&shared.lateness, late);
        // The last one used first: connections that are not needed stay idle.
        let connection = shared.idle.borrow_mut().pop();
        let shared = Rc::clone(shared);
        requests.spawn_local(async move {
            if let Some(connection) = send(&shared, connection, arrival).await {
                shared.idle.borrow_mut().push(connection);
            }
        });
        while requests.try_join_next().is_some() {}
    }
    tokio::select! {
        () = cancel.cancelled() => requests.abort_all(),
        () = async { while requests.join_next().await.is_some() {} } => {}
    }
    while requests.join_next().await.is_some() {}
    // It has ended: it dropped its sender.
    drop(clock.join());
}

/// Sends one request, on a new connection if none is given, and returns the connection if it is still good.
async fn send(shared: &Shared, connection: Option<Connection>, arrival: Arrival) -> Option<Connection> {
    let left = (arrival.intended + shared.timeout).saturating_sub(shared.began.elapsed());
    let request = shared.plan.target.request(arrival.id);
    let exchange = async {
        let mut connection = match connection {
            Some(connection) => connection,
            None => Connection::open(shared.plan.target.address).await?,
        };
        let answer = connection.exchange(request.as_bytes()).await?;
        io::Result::Ok((connection, answer))
    };
    let result = tokio::time::timeout(left, exchange).await;
    let ended = shared.began.elapsed();
    let (replica, failure, connection) = match result {
        Ok(Ok((connection, answer))) => {
            let failure = (answer.status >= 400).then(|| {
                let body = String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]).into_owned();
                format!("status {}: {body}", answer.status)
            });
            let replica = if failure.is_none() { replica_of(&answer) } else { None };
            (replica, failure, answer.keep.then_some(connection))
        }
        Ok(Err(error)) => (None, Some(error.to_string()), None),
        Err(_) => (None, Some(format!("no answer within {:?}", shared.timeout)), None),
    };
    shared.note(arrival, ended, replica, failure);
    connection
}

impl Shared {
    fn note(
        &self,
        arrival: Arrival,
        ended: Duration,
        replica: Option<ringmaster_core::Ordinal>,
        failure: Option<String>,
    ) {
        let failed = failure.is_some();
        match failure {
            Some(cause) => {
                let mut failures = self.failures.borrow_mut();
                if failures.len() < FAILURES_KEPT {
                    let at_seconds = arrival.intended.as_secs_f64();
                    failures.push(Failure { at_seconds, id: arrival.id, cause });
                }
            }
            None => {
                record(&self.latencies, ended.saturating_sub(arrival.intended));
                self.unnamed.set(self.unnamed.get() + u64::from(replica.is_none()));
            }
        }
        let sample = Sample { id: arrival.id, intended: arrival.intended, ended, replica, failed };
        self.samples.borrow_mut().push(sample);
        self.bar.inc(1);
    }
}

fn record(histogram: &RefCell<Histogram<u64>>, value: Duration) {
    histogram.borrow_mut().saturating_record(value.as_micros() as u64);
}

/// The processor time of the calling thread.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Requests that wait for a frozen replica each hold a connection: as many as are allowed at most.
fn raise_file_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    // With the limit as it was, a load that needs more fails and says so.
    rustix::process::setrlimit(Resource::Nofile, raised).unwrap_or_default();
}
