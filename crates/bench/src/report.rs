//! The tables: each figure beside what it must be and what it is to reach.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use crate::cost::{Plan, Slot};
use crate::idle::Idle;
use crate::machine::Machine;
use crate::peer::Kind;
use crate::work::Work;

/// What is written by hand below the tables begins here.
const NOTES: &str = "\n## Notes";

/// Memory: what it must not exceed, and what it is to reach.
const IDLE_BYTES: (f64, f64) = (5_000.0, 2_000.0);
const RESIDENT_BYTES: (f64, f64) = (24e6, 12e6);

/// Everything that was measured.
pub(crate) struct Report {
    pub(crate) plan: Plan,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) resident: Vec<(Kind, u64)>,
    pub(crate) idle: Vec<Idle>,
    pub(crate) machine: Machine,
}

/// Ratios of the rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ratio {
    median: f64,
    least: f64,
    most: f64,
}

/// Replaces the tables in a file, and keeps its notes.
pub(crate) fn keep(file: &Path, text: &str) -> io::Result<()> {
    let before = match fs::read_to_string(file) {
        Ok(before) => before,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let notes = before.find(NOTES).map_or("", |start| &before[start..]);
    fs::write(file, format!("{}\n{notes}", text.trim_end()))
}

impl Report {
    /// Every response was what it had to be.
    pub(crate) fn is_verified(&self) -> bool {
        self.slots.iter().all(|slot| slot.wrong.is_none())
    }

    pub(crate) fn text(&self) -> String {
        let mut out = self.introduction();
        self.costs(&mut out);
        self.long_bodies(&mut out);
        self.latencies(&mut out);
        self.memory(&mut out);
        self.faults(&mut out);
        out
    }

    fn introduction(&self) -> String {
        let Machine { commit, processor, cores, kernel, load_average, has_own_network } = &self.machine;
        let network =
            if *has_own_network { "a network namespace of its own" } else { "the machine's own network" };
        let peers: Vec<String> = [Kind::Haproxy, Kind::Nginx].into_iter().filter_map(Kind::version).collect();
        let requests: u64 = self.slots.iter().map(|slot| slot.requests).sum();
        let beside = if peers.is_empty() { "no peer is installed".to_owned() } else { peers.join(", ") };
        format!(
            "# What a request costs\n\nPrinted by `make bench`. Commit {commit}; {processor}, {cores} cores, Linux {kernel}, load average \
             {load_average}, {network}; {beside}.\nOne worker on one core, load and origins on another; {} rounds of {:?} per work \
             (F four times as long), interleaved proxy by proxy; {requests} responses, {}.\nThe ratio is to haproxy in the same round, the median of the \
             rounds (least and most). Ratios count; times are those of a shared machine.\n\n",
            self.plan.rounds,
            self.plan.slot,
            if self.is_verified() { "each verified" } else { "NOT ALL VERIFIED (see below)" },
        )
    }

    fn costs(&self, out: &mut String) {
        out.push_str(
            "| work | haproxy, µs (user + system) | nginx | ringmaster, µs (user + system) | busy, haproxy and ringmaster | \
             ringmaster, ratio | must | goal | |\n|---|---|---|---|---|---|---|---|---|\n",
        );
        for work in &self.plan.works {
            let ratio = self.ratio(work, Kind::Ours);
            let verdict = ratio
                .map_or("no haproxy to compare with", |ratio| verdict(ratio.median, (work.must, work.goal)));
            line(
                out,
                &[
                    format!("{}: {}", work.name, work.what),
                    self.cost(work, Kind::Haproxy),
                    show(self.ratio(work, Kind::Nginx)),
                    self.cost(work, Kind::Ours),
                    format!("{}, {}", self.busy(work, Kind::Haproxy), self.busy(work, Kind::Ours)),
                    show(ratio),
                    format!("≤ {:.2}", work.must),
                    format!("≤ {:.2}", work.goal),
                    verdict.to_owned(),
                ],
            );
        }
    }

    fn long_bodies(&self, out: &mut String) {
        for work in &self.plan.works {
            let tuned: Vec<String> = self
                .kinds
                .iter()
                .filter(|kind| kind.is_for_long_bodies())
                .filter_map(|kind| Some((kind.name(), self.ratio(work, *kind)?)))
                .map(|(name, ratio)| format!("{name}: {}", show(Some(ratio))))
                .collect();
            if !tuned.is_empty() {
                writeln!(out, "\n{} with a haproxy tuned for it: {}.", work.name, tuned.join("; "))
                    .expect("a string takes all");
            }
        }
    }

    fn latencies(&self, out: &mut String) {
        for work in self.plan.works.iter().filter(|work| work.rate.is_some()) {
            let of = |kind| {
                let times = |time: fn(&Slot) -> Duration| {
                    median(self.of(work, kind).map(|slot| time(slot).as_secs_f64() * 1e6).collect())
                };
                let found = (times(|slot| slot.p50)?, times(|slot| slot.p99)?);
                Some(format!("{} {:.0} and {:.0} µs", kind.name(), found.0, found.1))
            };
            let all: Vec<String> =
                [Kind::Haproxy, Kind::Nginx, Kind::Ours].into_iter().filter_map(of).collect();
            writeln!(
                out,
                "\n{}, p50 and p99 of the latency, median of the rounds: {}.",
                work.name,
                all.join("; ")
            )
            .expect("a string takes all");
        }
    }

    fn memory(&self, out: &mut String) {
        if self.idle.is_empty() {
            return;
        }
        out.push_str(
            "\n| memory | haproxy | nginx | ringmaster | must | goal | |\n|---|---|---|---|---|---|---|\n",
        );
        let row = |what: String, values: [Option<f64>; 3], (must, goal): (f64, f64), unit: (f64, &str)| {
            let show = |value: f64| format!("{:.1} {}", value / unit.0, unit.1);
            let [haproxy, nginx, ours] = values;
            let mut cells = vec![what];
            cells.extend([haproxy, nginx, ours].map(|value| value.map_or("-".to_owned(), show)));
            cells.extend([format!("≤ {}", show(must)), format!("≤ {}", show(goal))]);
            cells.push(ours.map_or("-", |value| verdict(value, (must, goal))).to_owned());
            cells
        };
        let (few, many) = self.idle.first().map_or((0, 0), |idle| (idle.few.0, idle.many.0));
        let idle = |kind| self.idle.iter().find(|idle| idle.kind == kind).map(Idle::bytes_per_connection);
        let resident =
            |kind| self.resident.iter().find(|(of, _)| *of == kind).map(|(_, bytes)| *bytes as f64);
        let peers = [Kind::Haproxy, Kind::Nginx, Kind::Ours];
        line(
            out,
            &row(
                format!("per idle client connection, {few} to {many}"),
                peers.map(idle),
                IDLE_BYTES,
                (1e3, "kB"),
            ),
        );
        line(
            out,
            &row("resident after the rounds".to_owned(), peers.map(resident), RESIDENT_BYTES, (1e6, "MB")),
        );
    }

    fn faults(&self, out: &mut String) {
        let extra: u64 = self.slots.iter().map(|slot| slot.extra).sum();
        if extra > 0 {
            writeln!(out, "\nOrigins saw {extra} requests twice: hedges and replays.")
                .expect("a string takes all");
        }
        for slot in &self.slots {
            if let Some(wrong) = &slot.wrong {
                writeln!(
                    out,
                    "\nNOT VERIFIED: round {}, {}, {}: {wrong}",
                    slot.round,
                    slot.work,
                    slot.kind.name()
                )
                .expect("a string takes all");
            }
        }
    }

    fn of(&self, work: &Work, kind: Kind) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(move |slot| slot.work == work.name && slot.kind == kind)
    }

    fn cost(&self, work: &Work, kind: Kind) -> String {
        let of = |value: fn(&Slot) -> f64| median(self.of(work, kind).map(value).collect());
        let parts = (of(|slot| slot.cpu_us), of(|slot| slot.user_us), of(|slot| slot.system_us));
        match parts {
            (Some(all), Some(user), Some(system)) => format!("{all:.1} ({user:.1} + {system:.1})"),
            _ => "-".to_owned(),
        }
    }

    fn busy(&self, work: &Work, kind: Kind) -> String {
        let busy = median(self.of(work, kind).map(|slot| slot.busy).collect());
        busy.map_or("-".to_owned(), |busy| format!("{busy:.2}"))
    }

    fn ratio(&self, work: &Work, kind: Kind) -> Option<Ratio> {
        let paired = self.of(work, kind).filter_map(|slot| {
            let haproxy = self.of(work, Kind::Haproxy).find(|other| other.round == slot.round)?;
            (haproxy.cpu_us > 0.0).then(|| slot.cpu_us / haproxy.cpu_us)
        });
        let ratios: Vec<f64> = paired.collect();
        let least = ratios.iter().copied().reduce(f64::min)?;
        let most = ratios.iter().copied().reduce(f64::max)?;
        Some(Ratio { median: median(ratios)?, least, most })
    }
}

fn line(out: &mut String, cells: &[String]) {
    writeln!(out, "| {} |", cells.join(" | ")).expect("a string takes all");
}

fn show(ratio: Option<Ratio>) -> String {
    ratio
        .map_or("-".to_owned(), |Ratio { median, least, most }| format!("{median:.2} ({least:.2}–{most:.2})"))
}

fn verdict(value: f64, (must, goal): (f64, f64)) -> &'static str {
    match value {
        value if value <= goal => "goal met",
        value if value <= must => "must met, goal not",
        _ => "**must missed**",
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (len, middle) = (values.len(), values.len() / 2);
    match len {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn a_verdict_tells_must_from_goal() {
        let limits = (0.85, 0.75);
        assert_eq!(
            [0.75, 0.8, 0.86].map(|value| verdict(value, limits)),
            ["goal met", "must met, goal not", "**must missed**"]
        );
    }

    #[test]
    fn notes_outlive_the_tables() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("BENCH.md");
        keep(&file, "one\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "one\n");
        fs::write(&file, "one\n\n## Notes\n\nby hand\n").unwrap();
        keep(&file, "two\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two\n\n## Notes\n\nby hand\n");
    }
}
