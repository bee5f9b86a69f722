//! How a2 is shown.

use super::{A2, Step};
use crate::a1::view::under;
use crate::chart::{
    AreaBand, Axis, Bar, BarChart, ChartError, Colour, LineChart, Series, grouped, replica_colour,
};
use crate::measure::{Check, Verdict, probability};
use crate::output::{Figure, Findings, checks_table, csv_line, figure_blocks, table, verdict};
use crate::report::{Block, Section};

/// Colours of lines that are no replicas.
fn colour(index: u32) -> Colour {
    replica_colour(index)
}

impl A2 {
    fn line(&self, name: &str, index: u32, dashed: bool, of: impl Fn(&Step) -> Option<f64>) -> Series {
        let points =
            self.steps.iter().filter_map(|step| Some((f64::from(step.replicas), of(step)?))).collect();
        Series { name: name.to_owned(), points, colour: colour(index), dashed, ..Series::default() }
    }

    fn band(&self, name: &str, index: u32, of: impl Fn(&Step) -> (f64, f64)) -> AreaBand {
        let point = |step: &Step| (f64::from(step.replicas), of(step).0, of(step).1);
        AreaBand {
            name: name.to_owned(),
            points: self.steps.iter().map(point).collect(),
            colour: colour(index),
        }
    }

    fn chart(&self, title: &str, subtitle: &str, y_label: &str, series: Vec<Series>) -> LineChart {
        LineChart {
            title: title.to_owned(),
            subtitle: subtitle.to_owned(),
            x_label: "replicas".to_owned(),
            y_label: y_label.to_owned(),
            x: Axis::Numeric,
            series,
            y_from_zero: true,
            ..LineChart::default()
        }
    }

    fn balance_chart(&self) -> LineChart {
        let policy = self.steps.first().map_or(String::new(), |step| under(&step.counted));
        let requests = grouped(self.requests as f64, 0);
        let series = vec![
            self.line("busiest, measured", 0, false, |step| Some(step.counted.max_over_mean)),
            self.line("busiest, ideal hashing", 0, true, |step| Some(step.ideal.max_over_mean)),
            self.line("idlest, measured", 1, false, |step| Some(step.counted.min_over_mean)),
            self.line("idlest, ideal hashing", 1, true, |step| Some(step.ideal.min_over_mean)),
        ];
        let bands = vec![
            self.band("busiest, 98 of 100 ideal runs", 0, |step| {
                (step.ideal.max_over_mean_p1, step.ideal.max_over_mean_p99)
            }),
            self.band("idlest, 98 of 100 ideal runs", 1, |step| {
                (step.ideal.min_over_mean_p1, step.ideal.min_over_mean_p99)
            }),
        ];
        let title = format!("a2: balance from 2 to 6 replicas, {policy}");
        let subtitle =
            format!("{requests} requests for each number of replicas, the same ids each time; 1 is the mean");
        LineChart {
            bands,
            y_from_zero: false,
            ..self.chart(&title, &subtitle, "answered, by the mean", series)
        }
    }

    fn mean_chart(&self) -> LineChart {
        let series = vec![
            self.line("mean (requests / N)", 0, false, |step| Some(step.counted.mean)),
            self.line("σ of the replicas' counts", 1, false, |step| Some(step.counted.stddev)),
            self.line("σ of ideal hashing", 1, true, |step| Some(step.ideal.stddev)),
        ];
        let subtitle =
            "What the assignment asks for. The mean is arithmetic; the spread around it is the finding.";
        self.chart("a2: mean load per replica", subtitle, "requests", series)
    }

    fn moved_chart(&self) -> Option<LineChart> {
        let of = |pick: fn(&super::Moved) -> Option<f64>| {
            move |step: &Step| step.moved.as_ref().and_then(pick).map(|share| 100.0 * share)
        };
        let series = vec![
            self.line("measured", 0, false, of(|moved| Some(moved.measured))),
            self.line("the fewest possible (1/N)", 1, true, of(|moved| Some(moved.optimum))),
        ];
        let has_points = series.iter().any(|line| !line.points.is_empty());
        let subtitle = "Ids whose answers came from another replica than with one replica fewer";
        has_points.then(|| self.chart("a2: keys moved by each step", subtitle, "ids moved (%)", series))
    }

    fn latency_chart(&self) -> LineChart {
        let of = |pick: fn(&super::Steady) -> f64| move |step: &Step| step.steady.as_ref().map(pick);
        let series = vec![
            self.line("p50", 0, false, of(|steady| steady.latency.p50_ms)),
            self.line("p90", 1, false, of(|steady| steady.latency.p90_ms)),
            self.line("p99", 2, false, of(|steady| steady.latency.p99_ms)),
        ];
        let rate = self.steps.iter().find_map(|step| step.steady.as_ref()).map_or(0.0, |steady| steady.rate);
        let subtitle = format!("Open loop at {} requests/s, from the intended send time", grouped(rate, 0));
        self.chart("a2: latency", &subtitle, "milliseconds", series)
    }

    fn bar_chart(&self, title: &str, y_label: &str, decimals: u8, of: impl Fn(&Step) -> f64) -> BarChart {
        let bar = |step: &Step| Bar {
            label: format!("N = {}", step.replicas),
            value: of(step),
            expected: None,
            colour: colour(0),
        };
        BarChart {
            title: title.to_owned(),
            x_label: "replicas".to_owned(),
            y_label: y_label.to_owned(),
            bars: self.steps.iter().map(bar).collect(),
            decimals: Some(decimals),
            ..BarChart::default()
        }
    }
}

impl Findings for A2 {
    const NAME: &'static str = "a2";

    fn csv(&self) -> String {
        let mut text = csv_line(&[
            &"replicas",
            &"replica",
            &"count",
            &"expected",
            &"predicted",
            &"max_over_mean",
            &"min_over_mean",
            &"stddev",
            &"chi_square",
            &"p",
            &"failed",
            &"moved",
            &"per_second",
            &"p50_ms",
            &"p99_ms",
            &"converge_seconds",
        ]);
        for step in &self.steps {
            let c = &step.counted;
            let moved = step.moved.map_or(String::new(), |moved| format!("{:.6}", moved.measured));
            let latency = step.steady.as_ref().map(|steady| steady.latency).unwrap_or_default();
            for r in &c.replicas {
                let predicted = r.predicted.map_or(String::new(), |predicted| predicted.to_string());
                text += &csv_line(&[
                    &step.replicas,
                    &r.name,
                    &r.count,
                    &r.expected,
                    &predicted,
                    &c.max_over_mean,
                    &c.min_over_mean,
                    &c.stddev,
                    &c.chi_square,
                    &c.p,
                    &c.failed,
                    &moved,
                    &c.per_second,
                    &latency.p50_ms,
                    &latency.p99_ms,
                    &step.converge_seconds,
                ]);
            }
        }
        text
    }

    fn figures(&self) -> Result<Vec<Figure>, ChartError> {
        let figure = |name: &str, svg, caption: &str| Figure {
            name: name.to_owned(),
            svg,
            caption: caption.to_owned(),
        };
        let mut figures = vec![
            figure(
                "a2",
                self.balance_chart().svg()?,
                "The busiest and the idlest replica beside ideal hashing.",
            ),
            figure("a2-mean", self.mean_chart().svg()?, "The mean load per replica, and its spread."),
        ];
        if let Some(chart) = self.moved_chart() {
            figures.push(figure("a2-moved", chart.svg()?, "What each step costs in moved keys."));
        }
        figures.push(figure("a2-latency", self.latency_chart().svg()?, "Latencies at a steady rate."));
        let throughput =
            self.bar_chart("a2: throughput", "requests per second", 0, |step| step.counted.per_second);
        let throughput =
            BarChart { subtitle: format!("Sent {}, as fast as they are answered", self.sent), ..throughput };
        figures.push(figure(
            "a2-throughput",
            throughput.svg()?,
            "Replicas, proxy and generator share the machine.",
        ));
        let converge = self.bar_chart("a2: time to converge", "seconds", 2, |step| step.converge_seconds);
        let subtitle = "From the edit of the desired state until every replica is ready; the first bar shrinks or \
                        grows the service as it was found";
        let converge = BarChart { subtitle: subtitle.to_owned(), ..converge };
        figures.push(figure("a2-converge", converge.svg()?, "How long a step takes."));
        Ok(figures)
    }

    fn section(&self, figures: &[Figure]) -> Section {
        let mut blocks = vec![checks_table(&self.checks)];
        blocks.extend(figure_blocks(figures));
        blocks.push(self.table());
        let worst = self.steps.iter().map(|step| step.counted.max_over_mean).fold(1.0, f64::max);
        let failed: u64 = self.steps.iter().map(|step| step.counted.failed).sum();
        let moved =
            self.steps.iter().filter_map(|step| step.moved).map(|moved| moved.measured / moved.optimum);
        let moved = moved.fold(0.0, f64::max);
        let mut lead = format!(
            "From 2 to 6 replicas the busiest is never more than {:.1} % above the mean, {failed} requests fail",
            100.0 * (worst - 1.0)
        );
        if moved > 0.0 {
            lead += &format!(", and no step moves more than {moved:.2} times the fewest possible keys");
        }
        Section {
            id: "a2".to_owned(),
            title: "a2: scaling".to_owned(),
            verdict: Some(verdict(self)),
            lead: lead + ".",
            blocks,
        }
    }

    fn bars(&self) -> Vec<BarChart> {
        let bar = |step: &Step| Bar {
            label: format!("N = {}", step.replicas),
            value: 100.0 * (step.counted.max_over_mean - 1.0),
            expected: Some(100.0 * (step.ideal.max_over_mean - 1.0)),
            colour: colour(0),
        };
        vec![BarChart {
            title: "a2: how much more than the mean the busiest replica answers".to_owned(),
            subtitle: "predicted: the mean of ideal hashing".to_owned(),
            y_label: "per cent".to_owned(),
            bars: self.steps.iter().map(bar).collect(),
            decimals: Some(2),
            ..BarChart::default()
        }]
    }

    fn checks(&self) -> &[Check] {
        &self.checks
    }

    fn verdict(&self) -> Verdict {
        self.verdict
    }
}

impl A2 {
    fn table(&self) -> Block {
        let row = |step: &Step| {
            let c = &step.counted;
            let counts: Vec<String> = c.replicas.iter().map(|replica| replica.count.to_string()).collect();
            let latency = step.steady.as_ref().map(|steady| steady.latency).unwrap_or_default();
            let moved = step.moved.map_or("–".to_owned(), |moved| {
                format!("{:.2} % ({:.2} %)", 100.0 * moved.measured, 100.0 * moved.optimum)
            });
            vec![
                step.replicas.to_string(),
                grouped(c.mean, 1),
                counts.join(" / "),
                format!("{:.4}", c.max_over_mean),
                format!("{:.4}", c.min_over_mean),
                format!("{:.1} ({:.1})", c.stddev, step.ideal.stddev),
                probability(c.p),
                moved,
                grouped(c.per_second, 0),
                format!("{:.2}", latency.p50_ms),
                format!("{:.2}", latency.p99_ms),
                format!("{:.2} s", step.converge_seconds),
                c.failed.to_string(),
            ]
        };
        let columns = [
            "N:",
            "mean:",
            "counts:",
            "max/mean:",
            "min/mean:",
            "σ (ideal):",
            "p:",
            "moved (optimum):",
            "requests/s:",
            "p50 ms:",
            "p99 ms:",
            "converged:",
            "failed:",
        ];
        table("Every number of replicas", &columns, self.steps.iter().map(row).collect())
    }
}
