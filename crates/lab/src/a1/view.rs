//! How a1 is shown.

use super::{A1, Run};
use crate::chart::{Band, Bar, BarChart, ChartError, RefLine, SmallMultiples, grouped, replica_colour};
use crate::measure::{Check, Counted, Verdict, probability};
use crate::output::{Figure, Findings, checks_table, csv_line, figure_blocks, table, verdict};
use crate::report::{Block, Section};
use crate::stats::average;

/// How many of the best runs a table shows in full.
const RUNS_SHOWN: usize = 50;

impl A1 {
    /// Every load with its name.
    fn loads(&self) -> Vec<(String, &Counted)> {
        let as_is = format!("as it is: {}", under(&self.as_is));
        let others = [("without hashOn", &self.without_hash_on), ("assignment", &self.assignment)];
        let others = others.into_iter().filter_map(|(name, load)| Some((name.to_owned(), load.as_ref()?)));
        std::iter::once((as_is, &self.as_is)).chain(others).collect()
    }
}

/// A policy and what it hashes.
pub(crate) fn under(counted: &Counted) -> String {
    match counted.hash_on.as_str() {
        "nothing" if counted.policy == "slot-table" => "slot-table without hashOn".to_owned(),
        "nothing" => counted.policy.clone(),
        keys => format!("{} on {keys}", counted.policy),
    }
}

/// Requests per replica as bars, with the mean and what ideal hashing would do.
pub(crate) fn bars(title: &str, counted: &Counted) -> BarChart {
    let ideal = counted.ideal();
    let bar = |replica: &crate::measure::ReplicaCount| Bar {
        label: replica.name.clone(),
        value: replica.count as f64,
        expected: Some(replica.predicted.map_or(replica.expected, |predicted| predicted as f64)),
        colour: replica_colour(u32::from(replica.ordinal)),
    };
    let (low, high) = (ideal.mean - 2.0 * ideal.stddev, ideal.mean + 2.0 * ideal.stddev);
    let requests = grouped(counted.requests as f64, 0);
    BarChart {
        title: title.to_owned(),
        subtitle: format!(
            "{requests} requests, {} failed; max/mean {:.4}, χ² {:.2} with {} degrees of freedom, p {}",
            counted.failed,
            counted.max_over_mean,
            counted.chi_square,
            counted.degrees,
            probability(counted.p)
        ),
        x_label: "replica".to_owned(),
        y_label: "requests answered".to_owned(),
        bars: counted.replicas.iter().map(bar).collect(),
        mean: Some(RefLine { value: counted.mean, label: format!("mean {}", grouped(counted.mean, 0)) }),
        band: Some(Band {
            low,
            high,
            label: format!("±2σ of ideal hashing, {} to {}", grouped(low, 0), grouped(high, 0)),
        }),
        decimals: Some(0),
    }
}

/// The numbers of a load, as a row of [`LOAD_COLUMNS`].
pub(crate) fn load_row(name: &str, counted: &Counted) -> Vec<String> {
    let counts: Vec<String> = counted.replicas.iter().map(|replica| replica.count.to_string()).collect();
    let expected: Vec<String> = counted.replicas.iter().map(|r| format!("{:.0}", r.expected)).collect();
    vec![
        name.to_owned(),
        counts.join(" / "),
        expected.join(" / "),
        format!("{:.4}", counted.max_over_mean),
        format!("{:.2}", counted.chi_square),
        probability(counted.p),
        as_predicted(counted),
        counted.failed.to_string(),
    ]
}

/// The columns of [`load_row`].
pub(crate) const LOAD_COLUMNS: [&str; 8] = [
    "load",
    "measured:",
    "expected:",
    "max/mean:",
    "χ²:",
    "p:",
    "answered by the predicted replica:",
    "failed:",
];

/// How many answers came from the very replica that was predicted for them.
pub(crate) fn as_predicted(counted: &Counted) -> String {
    match counted.as_predicted {
        Some(hits) => format!("{hits} of {}", counted.requests),
        None => "–".to_owned(),
    }
}

impl Findings for A1 {
    const NAME: &'static str = "a1";

    fn csv(&self) -> String {
        let mut text = csv_line(&[
            &"load",
            &"policy",
            &"hash_on",
            &"replica",
            &"ordinal",
            &"count",
            &"expected",
            &"predicted",
        ]);
        for (name, load) in self.loads() {
            for r in &load.replicas {
                let predicted = r.predicted.map_or(String::new(), |predicted| predicted.to_string());
                let expected = format!("{:.2}", r.expected);
                text += &csv_line(&[
                    &name,
                    &load.policy,
                    &load.hash_on,
                    &r.name,
                    &r.ordinal,
                    &r.count,
                    &expected,
                    &predicted,
                ]);
            }
        }
        for run in self.runs.iter().skip(1) {
            for (index, count) in run.counts.iter().enumerate() {
                let name = format!("seed {}", run.seed);
                let replica = &self.as_is.replicas[index.min(self.as_is.replicas.len() - 1)];
                let (policy, keys) = (&self.as_is.policy, &self.as_is.hash_on);
                text += &csv_line(&[&name, policy, keys, &replica.name, &replica.ordinal, count, &"", &""]);
            }
        }
        text
    }

    fn figures(&self) -> Result<Vec<Figure>, ChartError> {
        let replicas = self.as_is.replicas.len();
        let requests = grouped(self.as_is.requests as f64, 0);
        let page = SmallMultiples {
            title: format!("a1: {requests} requests on {replicas} replicas, {}", self.sent),
            subtitle:
                "Bars are measured, diamonds predicted by the ring before it was measured; the band is what \
                       ideal hashing does in 95 of 100 runs."
                    .to_owned(),
            columns: 3,
            charts: self
                .loads()
                .iter()
                .map(|(name, load)| BarChart {
                    subtitle: format!("max/mean {:.4}, χ² p {}", load.max_over_mean, probability(load.p)),
                    ..bars(name, load)
                })
                .collect(),
            shared_scale: true,
        };
        let mut figures = vec![Figure {
            name: "a1".to_owned(),
            svg: page.svg()?,
            caption: "Requests that each replica answered, beside the prediction.".to_owned(),
        }];
        figures.push(Figure {
            name: "a1-distribution".to_owned(),
            svg: bars(&format!("a1: distribution under {}", under(&self.as_is)), &self.as_is).svg()?,
            caption: format!("The service as it is: {}.", self.as_is.description),
        });
        if self.runs.len() > 1 {
            figures.push(Figure {
                name: "a1-runs".to_owned(),
                svg: runs_chart(self).svg()?,
                caption: "Every run has ids of its own; ideal hashing is not better either.".to_owned(),
            });
        }
        Ok(figures)
    }

    fn section(&self, figures: &[Figure]) -> Section {
        let rows = self.loads().iter().map(|(name, load)| load_row(name, load)).collect();
        let mut blocks: Vec<Block> = vec![Block::Paragraph(format!(
            "Each request carries a six-digit id out of the seed as `X-Request-Id`. The prediction is made before the \
             load, by the ring's own code for these very ids; the expectation behind χ² is each replica's share of \
             all keys. Ideal hashing of {} requests on {} replicas has a standard deviation of {:.1} requests per \
             replica and a max/mean of {:.4} in the mean, {:.4} in one run of a thousand. Sent {}, answered in \
             {:.2} s ({} requests/s).",
            self.as_is.requests,
            self.as_is.replicas.len(),
            self.ideal.stddev,
            self.ideal.max_over_mean,
            self.ideal.max_over_mean_p999,
            self.sent,
            self.as_is.seconds,
            grouped(self.as_is.per_second, 0),
        ))];
        blocks.extend(self.as_is.bottleneck.iter().map(|why| Block::Paragraph(format!("Note: {why}."))));
        blocks.push(checks_table(&self.checks));
        blocks.extend(figure_blocks(figures));
        blocks.push(table("Counts beside predictions", &LOAD_COLUMNS, rows));
        if let Some(assignment) = &self.assignment {
            blocks.push(Block::Paragraph(format!(
                "Why the assignment's own hash functions are so uneven: {}. On three replicas their exact shares of \
                 10,000 requests are 8437 / 469 / 1094.",
                assignment.reason
            )));
        }
        if self.runs.len() > 1 {
            blocks.push(runs_table(&self.runs));
        }
        Section {
            id: "a1".to_owned(),
            title: "a1: distribution".to_owned(),
            verdict: Some(verdict(self)),
            lead: lead(self),
            blocks,
        }
    }

    fn bars(&self) -> Vec<BarChart> {
        self.loads().iter().map(|(name, load)| bars(name, load)).collect()
    }

    fn checks(&self) -> &[Check] {
        &self.checks
    }

    fn verdict(&self) -> Verdict {
        self.verdict
    }
}

fn lead(a1: &A1) -> String {
    let runs: Vec<f64> = a1.runs.iter().map(|run| run.max_over_mean).collect();
    let mut text = match runs.len() {
        0 | 1 => {
            format!("The busiest replica answers {:.2} % more than the mean", excess(a1.as_is.max_over_mean))
        }
        count => {
            let mean = average(&runs);
            format!("Over {count} runs the busiest replica answers {:.2} % more than the mean", excess(mean))
        }
    };
    text += &format!(", where ideal hashing has {:.2} %", excess(a1.ideal.max_over_mean));
    if let Some(unhashed) = &a1.without_hash_on {
        text += &format!("; without affinity it is {:.2} %", excess(unhashed.max_over_mean));
    }
    if let Some(assignment) = &a1.assignment {
        text += &format!(
            ", and under the assignment's own hash functions {:.0} %",
            excess(assignment.max_over_mean)
        );
    }
    text + "."
}

fn excess(max_over_mean: f64) -> f64 {
    100.0 * (max_over_mean - 1.0)
}

fn runs_chart(a1: &A1) -> BarChart {
    let bar = |(index, run): (usize, &Run)| Bar {
        label: (index + 1).to_string(),
        value: 100.0 * (run.max_over_mean - 1.0),
        expected: None,
        colour: replica_colour(0),
    };
    let mean = 100.0 * (average(&a1.runs.iter().map(|run| run.max_over_mean).collect::<Vec<_>>()) - 1.0);
    BarChart {
        title: format!("a1: {} runs under {}", a1.runs.len(), under(&a1.as_is)),
        subtitle: format!(
            "How much more than the mean the busiest of {} replicas answered, each run with a seed of its own",
            a1.as_is.replicas.len()
        ),
        x_label: "run".to_owned(),
        y_label: "above the mean (%)".to_owned(),
        bars: a1.runs.iter().enumerate().map(bar).collect(),
        mean: Some(RefLine { value: mean, label: format!("mean {mean:.2} %") }),
        band: Some(Band {
            low: excess(a1.ideal.max_over_mean_p1),
            high: excess(a1.ideal.max_over_mean_p999),
            label: format!(
                "ideal hashing, 1st to 99.9th percentile (mean {:.2} %)",
                excess(a1.ideal.max_over_mean)
            ),
        }),
        decimals: Some(2),
    }
}

fn runs_table(runs: &[Run]) -> Block {
    let row = |(index, run): (usize, &Run)| {
        let counts: Vec<String> = run.counts.iter().map(ToString::to_string).collect();
        vec![
            (index + 1).to_string(),
            run.seed.to_string(),
            counts.join(" / "),
            format!("{:.4}", run.max_over_mean),
            format!("{:.2}", run.chi_square),
            probability(run.p),
            run.failed.to_string(),
            format!("{:.2}", run.seconds),
        ]
    };
    let rows = runs.iter().enumerate().take(RUNS_SHOWN).map(row).collect();
    let columns = ["run:", "seed:", "measured:", "max/mean:", "χ²:", "p:", "failed:", "seconds:"];
    table("Every run of the service as it is", &columns, rows)
}
