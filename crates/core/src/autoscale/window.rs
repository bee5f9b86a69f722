//! The figures of the last seconds: what was measured when, and means over time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::Timestamp;
use crate::ids::ReplicaName;

/// Over how long figures are averaged.
const AVERAGED_OVER: Duration = Duration::from_secs(5);
/// Less than this says nothing.
const KNOWN_MIN: Duration = Duration::from_secs(1);
/// Processor time is measured less often.
const CPU_AVERAGED_OVER: Duration = Duration::from_secs(10);
/// An older figure of processor time is none.
const CPU_STALE_AFTER: Duration = Duration::from_secs(10);

/// What the data plane says of a service at one moment; it holds until the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// Counters of samples with different epochs cannot be compared.
    pub epoch: u64,
    /// Requests in flight, at replicas that drain too.
    pub in_flight: u32,
    /// Requests that wait for a replica.
    pub waiting: u32,
    /// Responses that have begun so far.
    pub responses: u64,
    /// The share of recent requests that have the most frequent key, in thousandths; none if it is not known.
    pub hottest_permille: Option<u16>,
}

/// The processor time that each replica has used so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuSample {
    /// When.
    pub at: Timestamp,
    /// Of each replica that could tell.
    pub used: BTreeMap<ReplicaName, Duration>,
}

impl Sample {
    fn load(&self) -> f64 {
        f64::from(self.in_flight) + f64::from(self.waiting)
    }

    fn is_busy(&self) -> bool {
        self.in_flight > 0 || self.waiting > 0
    }
}

/// Of requests.
#[derive(Debug, Clone, Default)]
pub(super) struct Load {
    samples: VecDeque<Sample>,
    active_at: Timestamp,
}

impl Load {
    pub(super) fn observe(&mut self, sample: Sample) {
        let before = self.samples.back().copied();
        let comparable = before.filter(|before| before.epoch == sample.epoch);
        let is_quiet = comparable.is_some_and(|before| {
            !before.is_busy() && !sample.is_busy() && before.responses == sample.responses
        });
        if !is_quiet {
            self.active_at = sample.at;
        }
        if comparable.is_none() {
            self.samples.clear();
        }
        self.samples.push_back(sample);
        // One from before the window tells how it began.
        while self.samples.get(1).is_some_and(|second| sample.at.since(second.at) > AVERAGED_OVER) {
            self.samples.pop_front();
        }
    }

    pub(super) fn is_known(&self) -> bool {
        !self.samples.is_empty()
    }

    pub(super) fn waiting(&self) -> u32 {
        self.samples.back().map_or(0, |sample| sample.waiting)
    }

    pub(super) fn hottest_permille(&self) -> Option<u16> {
        self.samples.back()?.hottest_permille
    }

    /// Since when there have been no requests; `now` while there are some, or nothing is known.
    pub(super) fn idle_since(&self, now: Timestamp) -> Timestamp {
        match self.samples.back() {
            Some(last) if !last.is_busy() => self.active_at,
            _ => now,
        }
    }

    /// Whether means may still change although nothing is heard.
    pub(super) fn is_active(&self, now: Timestamp) -> bool {
        now.since(self.idle_since(now)) <= AVERAGED_OVER
    }

    /// Requests in flight or waiting, on average over time.
    pub(super) fn mean(&self, now: Timestamp) -> Option<f64> {
        let window = self.known(now)?;
        let ends = self.samples.iter().skip(1).map(|next| next.at).chain([now]);
        let begin = Timestamp(now.0.saturating_sub(window.as_millis() as u64));
        let weighed = self.samples.iter().zip(ends);
        let sum: f64 =
            weighed.map(|(sample, end)| sample.load() * end.since(sample.at.max(begin)).as_secs_f64()).sum();
        Some(sum / window.as_secs_f64())
    }

    /// Requests per second: those that were answered, and those that have come to wait.
    pub(super) fn rate(&self, now: Timestamp) -> Option<f64> {
        let window = self.known(now)?;
        let begin = Timestamp(now.0.saturating_sub(window.as_millis() as u64));
        let at_begin = self.samples.iter().take_while(|sample| sample.at <= begin).last();
        let (first, last) = (at_begin.or(self.samples.front())?, self.samples.back()?);
        let answered = last.responses.saturating_sub(first.responses) as f64;
        Some((answered + f64::from(last.waiting)) / window.as_secs_f64())
    }

    /// How much of the window is known; none if too little.
    fn known(&self, now: Timestamp) -> Option<Duration> {
        let known = now.since(self.samples.front()?.at).min(AVERAGED_OVER);
        (known >= KNOWN_MIN).then_some(known)
    }
}

/// Of processor time.
#[derive(Debug, Clone, Default)]
pub(super) struct Cpu {
    samples: VecDeque<CpuSample>,
}

impl Cpu {
    pub(super) fn observe(&mut self, sample: CpuSample) {
        let at = sample.at;
        self.samples.push_back(sample);
        while self.samples.get(1).is_some_and(|second| at.since(second.at) > CPU_AVERAGED_OVER) {
            self.samples.pop_front();
        }
    }

    /// Thousandths of a core that all replicas use together, on average over time.
    pub(super) fn millicores(&self, now: Timestamp) -> Option<f64> {
        let last = self.samples.back().filter(|last| now.since(last.at) <= CPU_STALE_AFTER)?;
        let of_replica = |(name, used): (&ReplicaName, &Duration)| {
            let (at, before) = self.samples.iter().find_map(|s| Some((s.at, s.used.get(name)?)))?;
            let elapsed = last.at.since(at);
            (elapsed >= KNOWN_MIN)
                .then(|| 1_000.0 * used.saturating_sub(*before).as_secs_f64() / elapsed.as_secs_f64())
        };
        let known: Vec<f64> = last.used.iter().filter_map(of_replica).collect();
        (!known.is_empty()).then(|| known.iter().sum())
    }
}
