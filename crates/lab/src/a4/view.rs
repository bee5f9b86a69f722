//! How a4 is shown.

use super::{A4, Contender, Point};
use crate::chart::{Bar, BarChart, ChartError, RefLine, SmallMultiples, grouped, replica_colour};
use crate::measure::{Check, Verdict, probability};
use crate::output::{Figure, Findings, checks_table, csv_line, figure_blocks, table, verdict};
use crate::report::{Block, Section};

impl Contender {
    /// The load on so many replicas.
    fn point(&self, replicas: u32) -> Option<&Point> {
        self.points.iter().find(|point| point.replicas == replicas)
    }

    /// Its requests per replica with three of them.
    fn counts_chart(&self, rank: usize) -> Option<BarChart> {
        let counted = &self.point(3)?.counted;
        let bar = |replica: &crate::measure::ReplicaCount| Bar {
            label: replica.name.clone(),
            value: replica.count as f64,
            expected: Some(replica.expected),
            colour: replica_colour(u32::from(replica.ordinal)),
        };
        Some(BarChart {
            title: format!("{rank}. {}", self.name),
            subtitle: format!("max/mean {:.3}", counted.max_over_mean),
            y_label: "requests".to_owned(),
            bars: counted.replicas.iter().map(bar).collect(),
            mean: Some(RefLine { value: counted.mean, label: "mean".to_owned() }),
            decimals: Some(0),
            ..BarChart::default()
        })
    }

    /// max/mean over the numbers of replicas.
    fn scaling_chart(&self, rank: usize) -> BarChart {
        let bar = |point: &Point| {
            let expected = point.counted.replicas.iter().map(|replica| replica.expected).fold(0.0, f64::max);
            Bar {
                label: point.replicas.to_string(),
                value: point.counted.max_over_mean,
                expected: Some(expected / point.counted.mean.max(1.0)),
                colour: replica_colour(0),
            }
        };
        BarChart {
            title: format!("{rank}. {}", self.name),
            subtitle: format!("average {:.3}", self.mean_max_over_mean),
            x_label: "replicas".to_owned(),
            y_label: "max/mean".to_owned(),
            bars: self.points.iter().map(bar).collect(),
            mean: Some(RefLine { value: 1.0, label: "even".to_owned() }),
            decimals: Some(2),
            ..BarChart::default()
        }
    }
}

impl Findings for A4 {
    const NAME: &'static str = "a4";

    fn csv(&self) -> String {
        let mut text = csv_line(&[
            &"rank",
            &"name",
            &"policy",
            &"request_hash",
            &"server_hash",
            &"replicas",
            &"replica",
            &"count",
            &"expected",
            &"max_over_mean",
            &"stddev",
            &"chi_square",
            &"p",
            &"moved",
            &"failed",
        ]);
        for (index, contender) in self.ranking.iter().enumerate() {
            let (h, phi) = contender.formulas.clone().unwrap_or_default();
            for point in &contender.points {
                let c = &point.counted;
                let moved = point.moved.map_or(String::new(), |moved| format!("{moved:.6}"));
                for r in &c.replicas {
                    text += &csv_line(&[
                        &(index + 1),
                        &contender.name,
                        &contender.policy,
                        &h,
                        &phi,
                        &point.replicas,
                        &r.name,
                        &r.count,
                        &r.expected,
                        &c.max_over_mean,
                        &c.stddev,
                        &c.chi_square,
                        &c.p,
                        &moved,
                        &c.failed,
                    ]);
                }
            }
        }
        text
    }

    fn figures(&self) -> Result<Vec<Figure>, ChartError> {
        let requests = grouped(self.requests as f64, 0);
        let ranked = || (1..).zip(&self.ranking);
        let counts = SmallMultiples {
            title: format!("a4: {requests} requests on three replicas, the most even first"),
            subtitle:
                "Bars are measured, diamonds are the share of all keys; all have the same scale. Ranked by \
                       max/mean, averaged over 2 to 6 replicas."
                    .to_owned(),
            columns: 4,
            charts: ranked().filter_map(|(rank, contender)| contender.counts_chart(rank)).collect(),
            shared_scale: true,
        };
        let scaling = SmallMultiples {
            title: "a4: how much more than the mean the busiest of 2 to 6 replicas answers".to_owned(),
            subtitle:
                "max/mean of the counts; diamonds are what the shares of all keys make of it. 1 is even."
                    .to_owned(),
            columns: 4,
            charts: ranked().map(|(rank, contender)| contender.scaling_chart(rank)).collect(),
            shared_scale: true,
        };
        Ok(vec![
            Figure {
                name: "a4".to_owned(),
                svg: counts.svg()?,
                caption: "Every policy and every pair of formulas on three replicas.".to_owned(),
            },
            Figure {
                name: "a4-scaling".to_owned(),
                svg: scaling.svg()?,
                caption: "The same from 2 to 6 replicas.".to_owned(),
            },
        ])
    }

    fn section(&self, figures: &[Figure]) -> Section {
        let mut blocks = vec![ranking_table(self)];
        blocks.extend(figure_blocks(figures));
        let formulas = self.ranking.iter().filter_map(|contender| {
            let (h, phi) = contender.formulas.as_ref()?;
            Some(format!("{}: `H(i) = {}`, `Φ(i, j) = {}`", contender.name, short(h), short(phi)))
        });
        blocks.push(Block::Heading("The formulas".to_owned()));
        blocks.push(Block::List(formulas.collect()));
        blocks.push(checks_table(&self.checks));
        Section {
            id: "a4".to_owned(),
            title: "a4: hash functions".to_owned(),
            verdict: Some(verdict(self)),
            lead: lead(self),
            blocks,
        }
    }

    fn bars(&self) -> Vec<BarChart> {
        let bar = |contender: &Contender| Bar {
            label: contender.name.clone(),
            value: 100.0 * (contender.mean_max_over_mean - 1.0),
            expected: None,
            colour: replica_colour(0),
        };
        vec![BarChart {
            title: "a4: how much more than the mean the busiest replica answers, average over 2 to 6"
                .to_owned(),
            y_label: "per cent".to_owned(),
            bars: self.ranking.iter().map(bar).collect(),
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

/// Mixers written out are long.
fn short(formula: &str) -> String {
    const SHOWN: usize = 80;
    if formula.chars().count() <= SHOWN {
        return formula.to_owned();
    }
    formula.chars().take(SHOWN).collect::<String>() + " …"
}

fn lead(a4: &A4) -> String {
    let (Some(best), Some(worst)) = (a4.ranking.first(), a4.ranking.last()) else { return String::new() };
    let mut text = format!(
        "`{}` is the most even: its busiest replica answers {:.2} % more than the mean; `{}` is the least even, with \
         {:.0} %",
        best.name,
        100.0 * (best.mean_max_over_mean - 1.0),
        worst.name,
        100.0 * (worst.mean_max_over_mean - 1.0)
    );
    if let Some(assignment) = a4.ranking.iter().find(|contender| contender.name == "assignment") {
        text += &format!("; of the assignment's own formulas, {}", assignment.reason);
    }
    text + "."
}

fn ranking_table(a4: &A4) -> Block {
    let row = |(rank, contender): (usize, &Contender)| {
        let at = |replicas: u32| {
            let point = contender.point(replicas);
            point.map_or("–".to_owned(), |point| format!("{:.3}", point.counted.max_over_mean))
        };
        let p = contender.points.iter().map(|point| point.counted.p).fold(1.0, f64::min);
        let mut cells = vec![rank.to_string(), contender.name.clone()];
        cells.extend([2, 3, 4, 5, 6].map(at));
        cells.push(format!("{:.3}", contender.mean_max_over_mean));
        cells.push(contender.moved_over_even.map_or("–".to_owned(), |moved| format!("{moved:.2}×")));
        cells.push(probability(p));
        cells.push(contender.reason.clone());
        cells
    };
    let columns = [
        "rank:",
        "policy or formulas",
        "N = 2:",
        "3:",
        "4:",
        "5:",
        "6:",
        "average max/mean:",
        "keys moved:",
        "smallest p:",
        "why",
    ];
    table(
        "max/mean by number of replicas. Keys moved are those of a step, by 1/N: an even ring cannot move fewer, an uneven \
         one does where the new replica gets less than its share",
        &columns,
        (1..).zip(&a4.ranking).map(row).collect(),
    )
}
