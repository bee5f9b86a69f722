//! Where the `metrics` macros count: metrics-exporter-prometheus, told of the families that are known beforehand.
//!
//! The exporter forgets no series. Those of a deleted service are left out as they are written down, and go on where
//! they were should it come back.

use metrics::{Key, Label, Level, Metadata, Recorder as _, SharedString};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use ringmaster_core::exposition::Kind;

/// The label whose values come and go, as it is written.
const SERVICE: &str = "service=\"";
const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

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

/// A recorder for the families of a table, with the series that are there from the start.
///
/// # Errors
/// If a family's buckets are none.
pub(super) fn recorder(families: &[Family]) -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for family in families.iter().filter(|family| family.kind == Kind::Histogram) {
        builder = builder.set_buckets_for_metric(Matcher::Full(family.name.to_owned()), family.buckets)?;
    }
    let recorder = builder.build_recorder();
    for family in families {
        let (name, help) = (family.name.into(), SharedString::const_str(family.help));
        match family.kind {
            Kind::Counter => recorder.describe_counter(name, None, help),
            Kind::Gauge => recorder.describe_gauge(name, None, help),
            Kind::Histogram => recorder.describe_histogram(name, None, help),
        }
        for labels in family.known.map(combinations).unwrap_or_default() {
            let key = Key::from_parts(family.name, labels);
            match family.kind {
                Kind::Counter => drop(recorder.register_counter(&key, &METADATA)),
                Kind::Gauge => drop(recorder.register_gauge(&key, &METADATA)),
                Kind::Histogram => drop(recorder.register_histogram(&key, &METADATA)),
            }
        }
    }
    Ok(recorder)
}

/// What has been counted, but no series of a service that is not live.
pub(super) fn render(handle: &PrometheusHandle, is_live: &dyn Fn(&str) -> bool) -> String {
    let text = handle.render();
    let lines = text.lines().filter(|line| service(line).is_none_or(is_live));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The service that a line is about.
fn service(line: &str) -> Option<&str> {
    let labels = line.split_once('{').filter(|_| !line.starts_with('#'))?.1;
    let at = labels.match_indices(SERVICE).find(|(at, _)| *at == 0 || labels.as_bytes()[at - 1] == b',')?.0;
    labels[at + SERVICE.len()..].split('"').next().filter(|name| !name.is_empty())
}

/// Every combination of the labels' values.
fn combinations(labels: &'static [(&'static str, &'static [&'static str])]) -> Vec<Vec<Label>> {
    labels.iter().fold(vec![Vec::new()], |all, (name, values)| {
        let with = |labels: &Vec<Label>, value: &'static str| {
            let mut labels = labels.clone();
            labels.push(Label::from_static_parts(name, value));
            labels
        };
        all.iter().flat_map(|labels| values.iter().map(move |value| with(labels, value))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    static FAMILIES: [Family; 2] = [
        Family {
            name: "t_total",
            kind: Kind::Counter,
            help: "Things.",
            buckets: &[],
            known: Some(&[("kind", &["a", "b"]), ("result", &["good"])]),
        },
        Family { name: "t_seconds", kind: Kind::Histogram, help: "Time.", buckets: &[1.0], known: Some(&[]) },
    ];

    #[test]
    fn known_series_are_there_from_the_start_and_macros_count_in_them() {
        let recorder = recorder(&FAMILIES).unwrap();
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("t_total", "kind" => "b", "result" => "good").increment(2);
            metrics::histogram!("t_seconds").record(0.5);
            metrics::histogram!("t_seconds").record(2.0);
        });
        let text = render(&recorder.handle(), &|_| true);
        for line in [
            "# HELP t_total Things.",
            "# TYPE t_seconds histogram",
            "t_total{kind=\"a\",result=\"good\"} 0",
            "t_total{kind=\"b\",result=\"good\"} 2",
            "t_seconds_bucket{le=\"1\"} 1",
            "t_seconds_bucket{le=\"+Inf\"} 2",
            "t_seconds_sum 2.5",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_service_that_is_gone_has_no_series_and_one_that_comes_back_goes_on() {
        let recorder = recorder(&FAMILIES).unwrap();
        let count = |service: &str| {
            metrics::with_local_recorder(&recorder, || {
                metrics::counter!("t_total", "kind" => "a", "service" => service.to_owned()).increment(1);
                metrics::histogram!("t_seconds", "service" => service.to_owned()).record(0.5);
            });
        };
        count("web");
        let text = render(&recorder.handle(), &|service| service != "web");
        assert!(!text.contains("web") && text.contains("t_seconds_count 0"), "{text}");
        count("web");
        let text = render(&recorder.handle(), &|_| true);
        assert!(text.contains("t_total{kind=\"a\",service=\"web\"} 2\n"), "{text}");
    }
}
