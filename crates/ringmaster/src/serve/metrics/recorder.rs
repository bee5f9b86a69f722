//! Where the `metrics` macros count: families that are known beforehand, each with its help and its buckets.
//!
//! Our own, because series must be able to go: those of a deleted service are not written down, and go on where they
//! were should it come back. Deliberately absent: families that the table does not name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit,
};
use ringmaster_core::exposition::{Exposition, Kind};

/// The label whose values come and go.
const SERVICE: &str = "service";
/// Most deleted services whose series are remembered.
const RETIRED_MAX: usize = 100;

/// A family of the table.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    /// Upper bounds, ascending; of histograms only.
    pub(super) buckets: &'static [f64],
    /// Labels with all their values: these series are there from the start, at 0. None: series come with the first
    /// count.
    pub(super) known: Option<&'static [(&'static str, &'static [&'static str])]>,
}

type Labels = Vec<(String, String)>;

/// All series.
#[derive(Debug)]
pub(in crate::serve) struct Recorder {
    families: &'static [Family],
    series: Mutex<BTreeMap<&'static str, BTreeMap<Labels, Series>>>,
}

#[derive(Debug, Clone)]
enum Series {
    Counter(Arc<Count>),
    Gauge(Arc<Value>),
    Histogram(Arc<Buckets>),
}

#[derive(Debug, Default)]
struct Count(AtomicU64);

/// A number as its bits.
#[derive(Debug, Default)]
struct Value(AtomicU64);

#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    /// One more than there are bounds: the last counts what is beyond them.
    counts: Box<[AtomicU64]>,
    sum: Value,
}

impl Value {
    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn update(&self, change: impl Fn(f64) -> f64) {
        let next = |bits| Some(change(f64::from_bits(bits)).to_bits());
        let updated = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        updated.expect("every value has a next one");
    }
}

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }
}

impl GaugeFn for Value {
    fn increment(&self, value: f64) {
        self.update(|before| before + value);
    }

    fn decrement(&self, value: f64) {
        self.update(|before| before - value);
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let bucket = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.update(|before| before + value);
    }
}

impl Recorder {
    /// The families of a table, with the series that are there from the start.
    pub(super) fn new(families: &'static [Family]) -> Recorder {
        let recorder = Recorder { families, series: Mutex::default() };
        for family in families {
            for labels in family.known.map(combinations).unwrap_or_default() {
                recorder.series(family.name, labels);
            }
        }
        recorder
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, BTreeMap<Labels, Series>>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A series, new or as it is; none of a family that the table does not name.
    fn series(&self, name: &str, mut labels: Labels) -> Option<Series> {
        let family = self.families.iter().find(|family| family.name == name)?;
        labels.retain(|(_, value)| !value.is_empty());
        labels.sort_by_key(|(name, _)| name != SERVICE);
        let new = || match family.kind {
            Kind::Counter => Series::Counter(Arc::default()),
            Kind::Gauge => Series::Gauge(Arc::default()),
            Kind::Histogram => Series::Histogram(Arc::new(Buckets {
                bounds: family.buckets,
                counts: (0..=family.buckets.len()).map(|_| AtomicU64::new(0)).collect(),
                sum: Value::default(),
            })),
        };
        Some(self.lock().entry(family.name).or_default().entry(labels).or_insert_with(new).clone())
    }

    fn of_key(&self, key: &Key) -> Option<Series> {
        let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned()));
        let found = self.series(key.name(), labels.collect());
        debug_assert!(found.is_some(), "{} is not in the table of families", key.name());
        found
    }

    /// Writes down all families that have series, but no series of a service that is not live.
    pub(super) fn render(&self, out: &mut Exposition, is_live: &dyn Fn(&str) -> bool) {
        let service = |labels: &Labels| -> Option<String> {
            labels.iter().find(|(name, _)| name == SERVICE).map(|(_, value)| value.clone())
        };
        let all = {
            let mut all = self.lock();
            let of_services = all.values().flat_map(BTreeMap::keys).filter_map(service);
            let gone: BTreeSet<String> = of_services.filter(|service| !is_live(service)).collect();
            if gone.len() > RETIRED_MAX {
                for series in all.values_mut() {
                    series.retain(|labels, _| service(labels).is_none_or(|service| !gone.contains(&service)));
                }
            }
            let live = |series: &BTreeMap<Labels, Series>| -> Vec<(Labels, Series)> {
                let live = series.iter().filter(|(labels, _)| service(labels).is_none_or(|s| is_live(&s)));
                live.map(|(labels, series)| (labels.clone(), series.clone())).collect()
            };
            all.iter().map(|(name, series)| (*name, live(series))).collect::<BTreeMap<_, _>>()
        };
        for family in self.families {
            let series = all.get(family.name).filter(|series| !series.is_empty());
            let Some(series) = series else { continue };
            out.family(family.name, family.kind, family.help);
            for (labels, series) in series {
                let labels: Vec<(&str, &str)> =
                    labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                series.render(out, &labels);
            }
        }
    }
}

impl Series {
    fn render(&self, out: &mut Exposition, labels: &[(&str, &str)]) {
        match self {
            Series::Counter(count) => out.sample(labels, count.0.load(Ordering::Relaxed)),
            Series::Gauge(value) => out.sample(labels, value.get()),
            Series::Histogram(buckets) => {
                let counts: Vec<u64> = buckets.counts.iter().map(|c| c.load(Ordering::Relaxed)).collect();
                let bounded = buckets.bounds.iter().copied().zip(counts.iter().copied());
                let beyond = counts.last().copied().unwrap_or(0);
                out.histogram(labels, bounded, beyond, buckets.sum.get());
            }
        }
    }
}

/// Every combination of the labels' values.
fn combinations(labels: &'static [(&'static str, &'static [&'static str])]) -> Vec<Labels> {
    labels.iter().fold(vec![Vec::new()], |all, (name, values)| {
        let with = |labels: &Labels, value: &str| {
            let mut labels = labels.clone();
            labels.push(((*name).to_owned(), value.to_owned()));
            labels
        };
        all.iter().flat_map(|labels| values.iter().map(move |value| with(labels, value))).collect()
    })
}

/// The recorder as the macros' crate wants it.
pub(super) struct Installed(pub(super) Arc<Recorder>);

impl metrics::Recorder for Installed {
    // Help and kind stand in the table.
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.0.of_key(key) {
            Some(Series::Counter(count)) => Counter::from_arc(count),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.0.of_key(key) {
            Some(Series::Gauge(value)) => Gauge::from_arc(value),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.0.of_key(key) {
            Some(Series::Histogram(buckets)) => Histogram::from_arc(buckets),
            _ => Histogram::noop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: [Family; 3] = [
        Family {
            name: "t_total",
            kind: Kind::Counter,
            help: "Things.",
            buckets: &[],
            known: Some(&[("kind", &["a", "b"]), ("result", &["good"])]),
        },
        Family { name: "t_size", kind: Kind::Gauge, help: "Size.", buckets: &[], known: None },
        Family { name: "t_seconds", kind: Kind::Histogram, help: "Time.", buckets: &[1.0], known: None },
    ];
    static FAMILIES: [Family; 3] = TABLE;

    fn text(recorder: &Recorder, is_live: &dyn Fn(&str) -> bool) -> String {
        let mut out = Exposition::new();
        recorder.render(&mut out, is_live);
        out.finish()
    }

    #[test]
    fn known_series_are_there_from_the_start_and_macros_count_in_them() {
        let installed = Installed(Arc::new(Recorder::new(&FAMILIES)));
        metrics::with_local_recorder(&installed, || {
            metrics::counter!("t_total", "kind" => "b", "result" => "good").increment(2);
            metrics::histogram!("t_seconds").record(0.5);
            metrics::histogram!("t_seconds").record(2.0);
        });
        let expected = "# HELP t_total Things.\n# TYPE t_total counter\nt_total{kind=\"a\",result=\"good\"} 0\n\
            t_total{kind=\"b\",result=\"good\"} 2\n# HELP t_seconds Time.\n# TYPE t_seconds histogram\n\
            t_seconds_bucket{le=\"1\"} 1\nt_seconds_bucket{le=\"+Inf\"} 2\nt_seconds_sum 2.5\nt_seconds_count 2\n";
        assert_eq!(text(&installed.0, &|_| true), expected);
    }

    #[test]
    fn a_service_that_is_gone_has_no_series_and_one_that_comes_back_goes_on() {
        let installed = Installed(Arc::new(Recorder::new(&FAMILIES)));
        let count = |service: &str| {
            metrics::with_local_recorder(&installed, || {
                metrics::counter!("t_total", "kind" => "a", "service" => service.to_owned()).increment(1);
            });
        };
        count("web");
        assert!(!text(&installed.0, &|service| service != "web").contains("web"));
        count("web");
        assert!(text(&installed.0, &|_| true).contains("t_total{service=\"web\",kind=\"a\"} 2\n"));
        for n in 0..=RETIRED_MAX {
            count(&format!("s{n}"));
        }
        assert!(!text(&installed.0, &|_| false).contains("service"));
        assert!(!text(&installed.0, &|_| true).contains("service"), "so many are not remembered");
    }
}
