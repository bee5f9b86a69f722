//! How a3 is shown.

use super::{A3, BEST_PUBLISHED};
use crate::chart::{
    Bar, BarChart, ChartError, Moment, MomentKind, Panel, Series, Timeline, grouped, in_milliseconds,
    replica_colour,
};
use crate::fault::{FaultReport, Victim};
use crate::measure::{Check, Verdict};
use crate::output::{Figure, Findings, checks_table, csv_line, figure_blocks, table, verdict};
use crate::report::{Block, Section};

/// Colours of what is no replica: sent, failed, ready, in the ring.
const SENT: u32 = 0;
const FAILED: u32 = 5;
const READY: u32 = 2;
const IN_RING: u32 = 1;

/// One of a victim's times.
type TimeOf = fn(&Victim) -> Option<f64>;

/// The timeline of faults one after the other; each begins where the one before ended.
fn timeline(title: &str, replicas: u32, faults: &[(u32, &FaultReport)]) -> Timeline {
    let line = |name: &str, index: u32, points: Vec<(f64, f64)>, step: bool, filled: bool| Series {
        name: name.to_owned(),
        points,
        colour: replica_colour(index),
        step,
        filled,
        ..Series::default()
    };
    let (mut sent, mut failed, mut ready, mut in_ring) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut moments, mut offset) = (Vec::new(), 0.0);
    for (number, fault) in faults {
        let end = fault.bins.last().map_or(fault.seconds, |bin| bin.0);
        sent.extend(fault.bins.iter().map(|bin| (offset + bin.0, bin.1)));
        failed.extend(fault.bins.iter().map(|bin| (offset + bin.0, bin.2)));
        for look in fault.looks.iter().filter(|look| look.at_seconds <= end) {
            let at = offset + look.at_seconds.max(0.0);
            ready.push((at, f64::from(look.ready)));
            in_ring.push((at, f64::from(look.in_ring)));
        }
        // A step holds until the next point.
        if let Some(last) = fault.looks.iter().rfind(|look| look.at_seconds <= end) {
            ready.push((offset + end, f64::from(last.ready)));
            in_ring.push((offset + end, f64::from(last.in_ring)));
        }
        moments.extend(moments_of(*number, fault, offset));
        offset += end;
    }
    let requests: u64 = faults.iter().map(|(_, fault)| fault.requests).sum();
    let lost: u64 = faults.iter().map(|(_, fault)| fault.failed).sum();
    let panel = |title: &str, note: String, series: Vec<Series>| Panel {
        title: title.to_owned(),
        note,
        series,
        ..Panel::default()
    };
    Timeline {
        title: title.to_owned(),
        subtitle: format!(
            "Open loop, in bins of 50 ms by the intended send time; {replicas} replicas. Numbers are the faults."
        ),
        seconds: offset,
        panels: vec![
            panel("requests sent per second", String::new(), vec![line("sent", SENT, sent, false, true)]),
            panel(
                "failed requests per second",
                format!("{} failed of {}", grouped(lost as f64, 0), grouped(requests as f64, 0)),
                vec![line("failed", FAILED, failed, false, true)],
            ),
            panel(
                "replicas",
                String::new(),
                vec![
                    line("ready", READY, ready, true, false),
                    line("may be chosen", IN_RING, in_ring, true, false),
                ],
            ),
        ],
        moments,
    }
}

fn moments_of(number: u32, fault: &FaultReport, offset: f64) -> Vec<Moment> {
    let at = |ms: f64| offset + fault.injected_seconds + ms / 1e3;
    let moment = |ms: f64, kind: MomentKind, label: &str| Moment {
        at_seconds: at(ms),
        fault: number,
        label: label.to_owned(),
        kind,
    };
    let mut moments = vec![moment(0.0, MomentKind::Kill, &fault.name)];
    // Of several victims the last one counts.
    let kinds: [(MomentKind, TimeOf); 4] = [
        (MomentKind::Detected, |victim| victim.detected_ms),
        (MomentKind::RingChanged, |victim| victim.out_of_ring_ms),
        (MomentKind::Created, |victim| victim.started_ms),
        (MomentKind::Ready, |victim| victim.ready_ms),
    ];
    for (kind, of) in kinds {
        let last = fault.victims.iter().filter_map(of).reduce(f64::max);
        moments.extend(last.map(|ms| moment(ms, kind, "")));
    }
    moments
}

/// Milliseconds, or a dash where something did not happen.
fn ms(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| in_milliseconds(value / 1e3))
}

/// The largest of the victims' times.
fn last(fault: &FaultReport, of: TimeOf) -> Option<f64> {
    fault.victims.iter().filter_map(of).reduce(f64::max)
}

fn answered(fault: &FaultReport) -> f64 {
    100.0 * (1.0 - fault.failed as f64 / fault.requests.max(1) as f64)
}

impl A3 {
    fn faults_table(&self) -> Block {
        let start = self.start.as_ref().map(|start| start.milliseconds);
        let row = |fault: &FaultReport| {
            let replacement = last(fault, |victim| victim.replacement_ms);
            let ratio =
                replacement.zip(start).map_or("–".to_owned(), |(took, one)| format!("{:.2}×", took / one));
            vec![
                fault.name.clone(),
                format!("{} of {}", fault.failed, grouped(fault.requests as f64, 0)),
                format!("{:.2} %", answered(fault)),
                ms(last(fault, |victim| victim.detected_ms)),
                ms(last(fault, |victim| victim.out_of_ring_ms)),
                ms(last(fault, |victim| victim.started_ms)),
                ms(fault.recovered_ms),
                ratio,
                in_milliseconds(fault.latency.p50_ms / 1e3),
                in_milliseconds(fault.latency.max_ms / 1e3),
            ]
        };
        let mut rows: Vec<Vec<String>> = self.faults.iter().map(row).collect();
        let mut best = vec!["best published (self-reported)".to_owned(), "0.1 to 1.5 %".to_owned()];
        best.extend(["98.5–99.9 %", "–", "–", "440–500 ms", "–", "–", "–", "–"].map(ToOwned::to_owned));
        rows.push(best);
        let columns = [
            "fault",
            "failed:",
            "answered:",
            "detected:",
            "out of the ring:",
            "replaced:",
            "recovered:",
            "against one start:",
            "p50:",
            "slowest:",
        ];
        table("Faults, counted from the moment of injection", &columns, rows)
    }

    fn endpoints_table(&self) -> Block {
        let row = |endpoint: &super::EndpointCheck| {
            let held = if endpoint.pass { "yes" } else { "NO" };
            vec![format!("`{}`", endpoint.call), format!("`{}`", endpoint.answer), held.to_owned()]
        };
        let rows = self.endpoints.iter().map(row).collect();
        table("Every endpoint of the assignment", &["call", "answer", "as the sheet says"], rows)
    }

    fn numbered(&self) -> Vec<(u32, &FaultReport)> {
        (1..).zip(&self.faults).collect()
    }
}

impl Findings for A3 {
    const NAME: &'static str = "a3";

    fn csv(&self) -> String {
        let mut text = csv_line(&[
            &"fault",
            &"signal",
            &"victim",
            &"requests",
            &"failed",
            &"last_answer_ms",
            &"detected_ms",
            &"out_of_ring_ms",
            &"creating_ms",
            &"started_ms",
            &"ready_ms",
            &"recovered_ms",
            &"slowest_ms",
        ]);
        let cell = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.1}"));
        for fault in &self.faults {
            for victim in &fault.victims {
                text += &csv_line(&[
                    &fault.name,
                    &fault.signal,
                    &victim.name,
                    &fault.requests,
                    &fault.failed,
                    &cell(victim.last_answer_ms),
                    &cell(victim.detected_ms),
                    &cell(victim.out_of_ring_ms),
                    &cell(victim.creating_ms),
                    &cell(victim.started_ms),
                    &cell(victim.ready_ms),
                    &cell(fault.recovered_ms),
                    &fault.latency.max_ms,
                ]);
            }
        }
        text
    }

    fn figures(&self) -> Result<Vec<Figure>, ChartError> {
        let numbered = self.numbered();
        let failed: u64 = self.faults.iter().filter(|fault| fault.survivable).map(|fault| fault.failed).sum();
        let title = format!(
            "a3: {} faults under load, {failed} failed requests while a replica lives",
            numbered.len()
        );
        let mut figures = vec![Figure {
            name: "a3".to_owned(),
            svg: timeline(&title, self.replicas, &numbered).svg()?,
            caption: "All faults one after the other.".to_owned(),
        }];
        for (number, fault) in &numbered {
            figures.push(Figure {
                name: format!("a3-{number}-{}", fault.signal.to_lowercase()),
                svg: timeline(&format!("a3: {}", fault.name), self.replicas, &[(*number, fault)]).svg()?,
                caption: format!("{}: {} of {} requests failed.", fault.name, fault.failed, fault.requests),
            });
        }
        Ok(figures)
    }

    fn section(&self, figures: &[Figure]) -> Section {
        let mut blocks = vec![
            Block::Paragraph(format!(
                "Requests come at random moments of a seeded process, whether or not the ones before have been \
                 answered; latency counts from the moment when a request was to be sent. Faults go through the \
                 daemon's own fault command. A replica's death is seen by its last answer; what the daemon knows, by \
                 the times of its events. The best published result of this assignment is {BEST_PUBLISHED}."
            )),
            checks_table(&self.checks),
        ];
        blocks.extend(figure_blocks(&figures[..figures.len().min(1)]));
        blocks.push(self.faults_table());
        if let Some(start) = &self.start {
            let each: Vec<String> = start.each_ms.iter().map(|ms| format!("{ms:.0}")).collect();
            blocks.push(Block::Paragraph(format!(
                "One start of a replica, measured in the same run under the same load by adding one: {:.0} ms (each: \
                 {} ms), from the decision to create it until it gets traffic; {} of {} requests failed meanwhile.",
                start.milliseconds,
                each.join(", "),
                start.failed,
                start.requests
            )));
        }
        let dead: Vec<String> = self
            .faults
            .iter()
            .filter(|fault| fault.failed > 0)
            .map(|fault| {
                let causes: Vec<String> =
                    fault.causes.iter().map(|(cause, count)| format!("{count} × {cause}")).collect();
                format!("{}: {}", fault.name, causes.join("; "))
            })
            .collect();
        if !dead.is_empty() {
            blocks.push(Block::Paragraph(
                "Where every replica is dead at once there is nobody left to answer: those requests fail, at once and \
                 with a status, until the first replacement is ready. They are counted here as what they are."
                    .to_owned(),
            ));
            blocks.push(Block::List(dead));
        }
        blocks.extend(figure_blocks(figures.get(1..).unwrap_or_default()));
        blocks.push(self.endpoints_table());
        Section {
            id: "a3".to_owned(),
            title: "a3: failure".to_owned(),
            verdict: Some(verdict(self)),
            lead: lead(self),
            blocks,
        }
    }

    fn bars(&self) -> Vec<BarChart> {
        let bar = |fault: &FaultReport| Bar {
            label: fault.name.clone(),
            value: fault.recovered_ms.unwrap_or_default(),
            expected: None,
            colour: replica_colour(SENT),
        };
        vec![BarChart {
            title: "a3: all replicas ready again after".to_owned(),
            y_label: "milliseconds".to_owned(),
            bars: self.faults.iter().map(bar).collect(),
            decimals: Some(0),
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

fn lead(a3: &A3) -> String {
    let survivable: Vec<&FaultReport> = a3.faults.iter().filter(|fault| fault.survivable).collect();
    let requests: u64 = survivable.iter().map(|fault| fault.requests).sum();
    let failed: u64 = survivable.iter().map(|fault| fault.failed).sum();
    let (requests, failed) = (grouped(requests as f64, 0), grouped(failed as f64, 0));
    let mut text = format!("While one replica lives, {failed} of {requests} requests fail");
    if let Some(kill) = a3.faults.iter().find(|fault| fault.signal == "KILL" && fault.victims.len() == 1) {
        text += &format!(
            "; after kill -9 a replica is out of the ring within {} and replaced and ready within {}",
            ms(last(kill, |victim| victim.out_of_ring_ms)),
            ms(kill.recovered_ms)
        );
    }
    text + "."
}
