//! What the data plane has counted, read from the metrics.
//!
//! Deliberately absent: a reader of the whole text format. These are our own lines, as `exposition` writes them.

use std::collections::BTreeMap;

const DURATION: &str = "ringmaster_proxy_request_duration_seconds_bucket";
const RESPONSES: &str = "ringmaster_proxy_responses_total";
const EJECTIONS: &str = "ringmaster_proxy_ejections_total";

/// The counters of all services.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Counted(pub(super) BTreeMap<String, Requests>);

/// The counters of one service, or what they have grown by.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Requests {
    /// Responses to clients.
    pub(super) answered: u64,
    /// Those of them with a status of 500 or more.
    pub(super) failed: u64,
    /// Upper bounds in seconds, ascending, and how many requests took no longer.
    pub(super) took: Vec<(f64, u64)>,
    /// How often each server was ejected.
    pub(super) ejections: BTreeMap<String, u64>,
}

impl Counted {
    /// Reads the metrics.
    pub(super) fn read(text: &str) -> Counted {
        let mut counted = Counted::default();
        for line in text.lines() {
            let Some((family, rest)) = line.split_once('{') else { continue };
            let Some((labels, value)) = rest.rsplit_once("} ") else { continue };
            let (Some(service), Ok(value)) = (label(labels, "service"), value.parse::<f64>()) else {
                continue;
            };
            if ![RESPONSES, DURATION, EJECTIONS].contains(&family) {
                continue;
            }
            let (requests, count) = (counted.0.entry(service.to_owned()).or_default(), value as u64);
            match family {
                RESPONSES => {
                    requests.answered += count;
                    if label(labels, "code") == Some("5xx") {
                        requests.failed += count;
                    }
                }
                DURATION => {
                    let bound = label(labels, "le").map(|bound| bound.parse().unwrap_or(f64::INFINITY));
                    requests.took.push((bound.unwrap_or(f64::INFINITY), count));
                }
                _ => {
                    let server = label(labels, "server").unwrap_or_default().to_owned();
                    requests.ejections.insert(server, count);
                }
            }
        }
        counted
    }

    /// All services together.
    pub(super) fn sum(&self) -> Requests {
        let mut sum = Requests::default();
        for requests in self.0.values() {
            sum.answered += requests.answered;
            sum.failed += requests.failed;
            // Every service has the same bounds.
            match sum.took.is_empty() {
                true => sum.took.clone_from(&requests.took),
                false => sum.took.iter_mut().zip(&requests.took).for_each(|(sum, one)| sum.1 += one.1),
            }
        }
        sum
    }
}

impl Requests {
    /// What was counted since `before`; everything if the counters began anew.
    pub(super) fn since(&self, before: &Requests) -> Requests {
        if before.answered > self.answered || before.took.len() != self.took.len() {
            return self.clone();
        }
        let took = self.took.iter().zip(&before.took);
        Requests {
            answered: self.answered - before.answered,
            failed: self.failed.saturating_sub(before.failed),
            took: took.map(|(now, before)| (now.0, now.1.saturating_sub(before.1))).collect(),
            ejections: self.ejections.clone(),
        }
    }

    /// The time in seconds that this share of requests did not exceed, as Prometheus estimates it: evenly within a
    /// bucket. None without requests.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.took.last()?.1;
        if total == 0 {
            return None;
        }
        let rank = share * total as f64;
        let (mut low, mut below) = (0.0, 0);
        for (bound, count) in &self.took {
            if *count as f64 >= rank {
                let within = (rank - below as f64) / (count - below).max(1) as f64;
                // Beyond the last bound nothing is known but that.
                return Some(if bound.is_finite() { low + (bound - low) * within } else { low });
            }
            (low, below) = (*bound, *count);
        }
        Some(low)
    }
}

/// The value of a label. None of ours holds what would be escaped.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|one| one.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP ringmaster_proxy_responses_total Responses.\n\
        ringmaster_proxy_responses_total{service=\"web\",code=\"2xx\"} 90\n\
        ringmaster_proxy_responses_total{service=\"web\",code=\"5xx\"} 10\n\
        ringmaster_proxy_ejections_total{service=\"web\",server=\"2\"} 3\n\
        ringmaster_proxy_request_duration_seconds_bucket{service=\"web\",le=\"0.001\"} 50\n\
        ringmaster_proxy_request_duration_seconds_bucket{service=\"web\",le=\"0.01\"} 99\n\
        ringmaster_proxy_request_duration_seconds_bucket{service=\"web\",le=\"+Inf\"} 100\n\
        ringmaster_proxy_connections_active 4\n";

    #[test]
    fn counters_are_read_and_quantiles_are_those_of_prometheus() {
        let web = Counted::read(TEXT).0.remove("web").unwrap();
        assert_eq!((web.answered, web.failed, web.ejections["2"]), (100, 10, 3));
        let millis = |share| web.quantile(share).map(|seconds| (seconds * 1e5).round() / 1e2);
        assert_eq!((millis(0.25), millis(0.5)), (Some(0.5), Some(1.0)));
        assert_eq!((millis(0.99), millis(1.0)), (Some(10.0), Some(10.0)));
        assert_eq!(Requests::default().quantile(0.5), None);
        assert_eq!(web.since(&web).quantile(0.5), None, "no request since");
    }

    #[test]
    fn counters_that_began_anew_count_from_there() {
        let (web, mut before) = (Counted::read(TEXT).sum(), Counted::read(TEXT).sum());
        assert_eq!(web.since(&before).answered, 0);
        before.answered = 1_000;
        assert_eq!(web.since(&before).answered, 100);
    }
}
