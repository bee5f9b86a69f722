//! How compare is shown.

use super::{Balancer, Compare, Under};
use crate::a1::view::bars;
use crate::chart::{Bar, BarChart, ChartError, SmallMultiples, grouped, in_milliseconds, replica_colour};
use crate::measure::{Check, Verdict, probability};
use crate::output::{Figure, Findings, checks_table, csv_line, figure_blocks, table, verdict};
use crate::report::{Block, Section};

fn kill_text(kill: Option<&Under>) -> String {
    kill.map_or("–".to_owned(), |kill| format!("{} of {}", kill.failed, grouped(kill.requests as f64, 0)))
}

impl Balancer {
    /// Its counts. The rings of peers are not predicted.
    fn bars(&self) -> BarChart {
        let mut chart = bars(&self.name, &self.counted);
        if self.counted.as_predicted.is_none() {
            chart.bars.iter_mut().for_each(|bar| bar.expected = None);
        }
        chart
    }
}

impl Compare {
    fn page(&self) -> SmallMultiples {
        let chart = |balancer: &Balancer| BarChart {
            subtitle: format!("max/mean {:.4}", balancer.counted.max_over_mean),
            ..balancer.bars()
        };
        SmallMultiples {
            title: format!("compare: {} requests, consistent hash on X-Request-Id", grouped(self.requests as f64, 0)),
            subtitle: "The same ids through each balancer, to the same replicas. The band is what ideal hashing does in \
                       95 of 100 runs."
                .to_owned(),
            columns: 3,
            charts: self.balancers.iter().map(chart).collect(),
            shared_scale: true,
        }
    }

    fn bar_chart(&self, title: &str, y_label: &str, of: impl Fn(&Balancer) -> f64) -> BarChart {
        let bar = |(index, balancer): (u32, &Balancer)| Bar {
            label: balancer.name.clone(),
            value: of(balancer),
            expected: None,
            colour: replica_colour(index),
        };
        BarChart {
            title: title.to_owned(),
            y_label: y_label.to_owned(),
            bars: (0..).zip(&self.balancers).map(bar).collect(),
            ..BarChart::default()
        }
    }
}

impl Findings for Compare {
    const NAME: &'static str = "compare";

    fn csv(&self) -> String {
        let mut text = csv_line(&[
            &"balancer",
            &"version",
            &"replica",
            &"count",
            &"max_over_mean",
            &"per_second",
            &"p50_ms",
            &"p99_ms",
            &"kill_requests",
            &"kill_failed",
            &"kill_slowest_ms",
        ]);
        for b in &self.balancers {
            let kill = b.kill.as_ref();
            for r in &b.counted.replicas {
                text += &csv_line(&[
                    &b.name,
                    &b.version,
                    &r.name,
                    &r.count,
                    &b.counted.max_over_mean,
                    &b.counted.per_second,
                    &b.steady.latency.p50_ms,
                    &b.steady.latency.p99_ms,
                    &kill.map_or(String::new(), |kill| kill.requests.to_string()),
                    &kill.map_or(String::new(), |kill| kill.failed.to_string()),
                    &kill.map_or(String::new(), |kill| kill.latency.max_ms.to_string()),
                ]);
            }
        }
        text
    }

    fn figures(&self) -> Result<Vec<Figure>, ChartError> {
        let latency = SmallMultiples {
            title: "compare: latency and failures".to_owned(),
            subtitle: "Open loop, from the intended send time".to_owned(),
            columns: 3,
            charts: vec![
                self.bar_chart("p50", "ms", |balancer| balancer.steady.latency.p50_ms),
                self.bar_chart("p99", "ms", |balancer| balancer.steady.latency.p99_ms),
                self.bar_chart("failed through kill -9", "requests", |balancer| {
                    balancer.kill.as_ref().map_or(0.0, |kill| kill.failed as f64)
                }),
            ],
            shared_scale: false,
        };
        let figure = |name: &str, svg, caption: &str| Figure {
            name: name.to_owned(),
            svg,
            caption: caption.to_owned(),
        };
        Ok(vec![
            figure("compare", self.page().svg()?, "Distribution under a consistent hash on the same key."),
            figure(
                "compare-latency",
                latency.svg()?,
                "Latency at a steady rate, and failures through kill -9.",
            ),
        ])
    }

    fn section(&self, figures: &[Figure]) -> Section {
        let row = |b: &Balancer| {
            vec![
                b.name.clone(),
                b.version.clone(),
                format!("{:.4}", b.counted.max_over_mean),
                probability(b.counted.p),
                grouped(b.counted.per_second, 0),
                in_milliseconds(b.steady.latency.p50_ms / 1e3),
                in_milliseconds(b.steady.latency.p99_ms / 1e3),
                b.counted.failed.to_string(),
                kill_text(b.kill.as_ref()),
                b.kill.as_ref().map_or("–".to_owned(), |kill| in_milliseconds(kill.latency.max_ms / 1e3)),
            ]
        };
        let columns = [
            "balancer",
            "version",
            "max/mean:",
            "p against even:",
            "requests/s:",
            "p50:",
            "p99:",
            "failed:",
            "failed through kill -9:",
            "slowest then:",
        ];
        let mut blocks = vec![checks_table(&self.checks)];
        blocks.extend(figure_blocks(figures));
        blocks.push(table("Side by side", &columns, self.balancers.iter().map(row).collect()));
        let causes: Vec<String> = self
            .balancers
            .iter()
            .filter_map(|b| Some((b, b.kill.as_ref().filter(|kill| kill.failed > 0)?)))
            .map(|(b, kill)| {
                let causes: Vec<String> =
                    kill.causes.iter().map(|(cause, n)| format!("{n} × {cause}")).collect();
                format!("{}: {}", b.name, causes.join("; "))
            })
            .collect();
        if !causes.is_empty() {
            blocks.push(Block::Heading("Why requests failed through kill -9".to_owned()));
            blocks.push(Block::List(causes));
        }
        if !self.missing.is_empty() {
            blocks.push(Block::Paragraph(format!("Not installed here: {}.", self.missing.join(", "))));
        }
        Section {
            id: "compare".to_owned(),
            title: "compare: other balancers".to_owned(),
            verdict: Some(verdict(self)),
            lead: "The same ids, the same replicas, the same machine, a consistent hash on the same key."
                .to_owned(),
            blocks,
        }
    }

    fn bars(&self) -> Vec<BarChart> {
        self.balancers.iter().map(Balancer::bars).collect()
    }

    fn checks(&self) -> &[Check] {
        &self.checks
    }

    fn verdict(&self) -> Verdict {
        self.verdict
    }
}
