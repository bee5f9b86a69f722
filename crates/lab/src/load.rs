//! The load generator: exact counts, latencies from the intended send time, and every failure with its cause.
//!
//! Two ways to send: [`Pace::Open`], requests at random but seeded times whether or not the ones before have been
//! answered, which is how users come; and [`Pace::Waves`], N at a time as fast as they are answered, which is how
//! the assignment's "10,000 asynchronous requests" are sent. Only the first measures latencies that mean something
//! when the server stalls: a closed loop stops asking exactly then (coordinated omission).
//!
//! It runs on a thread of its own, so that the processor time of that thread says whether it was the bottleneck.
//!
//! Deliberately absent: retries. What fails, fails.

mod arrivals;
mod run;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use ringmaster_core::Ordinal;
use ringmaster_core::spec::HashOn;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::error::LabError;
use crate::http::{Answer, request_text};
use crate::random::Random;

/// Where requests go, and what they look like.
#[derive(Debug, Clone)]
pub struct Target {
    /// The data plane.
    pub address: SocketAddr,
    /// The value of `Host`.
    pub host: String,
    /// What is asked for.
    pub path: String,
    /// What the service hashes: each request carries its id there too, so that a seed fixes every key.
    pub keys: Vec<HashOn>,
}

/// When requests are sent.
#[derive(Debug, Clone)]
pub enum Pace {
    /// So many at a time, the next one as soon as one is answered.
    Waves {
        /// Requests in flight.
        concurrency: usize,
    },
    /// Independent arrivals, so many a second in the mean, until all are sent and `stop` is cancelled.
    Open {
        /// The mean rate.
        per_second: f64,
        /// More are sent than there are ids while this is not cancelled; already cancelled, it ends with the ids.
        stop: CancellationToken,
    },
}

/// A load.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where it goes.
    pub target: Target,
    /// The seed of the ids and of the arrivals.
    pub seed: u64,
    /// How many requests.
    pub requests: usize,
    /// When they are sent.
    pub pace: Pace,
    /// After this time from its intended sending a request has failed.
    pub timeout: Duration,
}

/// What became of one request. Times are since the load began.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The request id.
    pub id: u32,
    /// When it was to be sent.
    pub intended: Duration,
    /// When its answer was there, or its failure.
    pub ended: Duration,
    /// Who answered; none for a failure, or for an answer that does not tell.
    pub replica: Option<Ordinal>,
    /// Whether it failed.
    pub failed: bool,
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// When it was to be sent, in seconds since the load began.
    pub at_seconds: f64,
    /// Its request id.
    pub id: u32,
    /// Why it counts as failed.
    pub cause: String,
}

/// How long answers took, in milliseconds from the intended sending; failures are not among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// Half took no longer.
    pub p50_ms: f64,
    /// 90 % took no longer.
    pub p90_ms: f64,
    /// 99 % took no longer.
    pub p99_ms: f64,
    /// 99.9 % took no longer.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

/// What came of a load.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Every request, in the order in which they ended.
    pub samples: Vec<Sample>,
    /// Those that failed.
    pub failures: Vec<Failure>,
    /// Answers that do not say which replica they are from.
    pub unnamed: u64,
    /// From the first to the last.
    pub elapsed: Duration,
    /// When it began, in milliseconds since the Unix epoch.
    pub began_ms: f64,
    /// Latencies.
    pub latency: Latency,
    /// How much later than intended requests were sent, at the 99th percentile.
    pub late_p99: Duration,
    /// The share of a processor that the generator itself used.
    pub generator_share: f64,
}

/// A generator that uses more than this share of a processor may be what limits the rate.
const GENERATOR_SHARE_MAX: f64 = 0.85;
/// Requests of an open loop that are sent later than this were held up by the generator.
const LATE_MAX: Duration = Duration::from_millis(5);

impl Outcome {
    /// Answers by replica.
    pub fn counts(&self) -> BTreeMap<Ordinal, u64> {
        let mut counts = BTreeMap::new();
        for ordinal in self.samples.iter().filter_map(|sample| sample.replica) {
            *counts.entry(ordinal).or_default() += 1;
        }
        counts
    }

    /// Requests that ended, a second.
    pub fn per_second(&self) -> f64 {
        self.samples.len() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Says so if the generator, and not what it measures, may have set the figures.
    pub fn bottleneck(&self) -> Option<String> {
        if self.generator_share > GENERATOR_SHARE_MAX {
            let share = 100.0 * self.generator_share;
            return Some(format!("the generator used {share:.0} % of a processor: it may have set the rate"));
        }
        (self.late_p99 > LATE_MAX).then(|| {
            let late = self.late_p99.as_secs_f64() * 1e3;
            format!(
                "the generator sent 1 % of the requests more than {late:.0} ms late: the machine is too busy"
            )
        })
    }
}

impl Plan {
    /// The ids of its requests.
    pub fn ids(&self) -> Vec<u32> {
        crate::random::request_ids(self.seed, self.requests)
    }

    fn id_source(&self) -> Random {
        Random::new(self.seed)
    }
}

impl Target {
    /// The request of an id, as bytes.
    fn request(&self, id: u32) -> String {
        let mut fields = format!("X-Request-Id: {id}\r\n");
        let mut path = self.path.clone();
        for key in &self.keys {
            match key {
                HashOn::Header(name) if !name.eq_ignore_ascii_case("x-request-id") => {
                    fields += &format!("{name}: {id}\r\n");
                }
                HashOn::Cookie(name) | HashOn::SetCookie(name) => {
                    fields += &format!("Cookie: {name}={id}\r\n")
                }
                HashOn::Query(name) => path += &format!("?{name}={id}"),
                HashOn::Header(_) | HashOn::RequestId | HashOn::Path | HashOn::ClientIp => {}
            }
        }
        request_text("GET", &path, &self.host, &fields, "")
    }
}

/// Who answered: the field that the proxy adds, or else the demo server's `Hello from Server: K`, whose K is its
/// ordinal plus 1.
fn replica_of(answer: &Answer) -> Option<Ordinal> {
    if let Some(name) = &answer.replica {
        return name.rsplit('-').next()?.parse().ok().map(Ordinal);
    }
    const GREETING: &[u8] = b"Server: ";
    let at = answer.body.windows(GREETING.len()).position(|window| window == GREETING)?;
    let rest = &answer.body[at + GREETING.len()..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number: u16 = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
    number.checked_sub(1).map(Ordinal)
}

/// Runs a load to its end, or until `cancel`: then what has ended until that is the outcome.
///
/// # Errors
/// [`LabError::Io`] if the thread cannot be started; [`LabError::Failed`] if it has panicked.
pub async fn run(plan: Plan, bar: ProgressBar, cancel: CancellationToken) -> Result<Outcome, LabError> {
    let (sender, outcome) = tokio::sync::oneshot::channel();
    let plan = Arc::new(plan);
    std::thread::Builder::new()
        .name("load".to_owned())
        .spawn(move || {
            let outcome = run::on_this_thread(&plan, &bar, &cancel);
            // Whoever asked may have gone: then nobody wants to know.
            drop(sender.send(outcome));
        })
        .map_err(LabError::io("start the load generator"))?;
    outcome.await.map_err(|_| LabError::Failed("the load generator has ended by itself".to_owned()))?
}

impl Latency {
    /// Of a histogram of microseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Latency {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Latency {
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: histogram.max() as f64 / 1e3,
        }
    }
}

#[cfg(test)]
mod tests;
