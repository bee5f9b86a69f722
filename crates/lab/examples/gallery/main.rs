//! Writes every kind of chart (SVG and PNG) and a report to the folder given as argument, to be looked at.
//!
//! The numbers are made up or published by others; no daemon is needed.

use std::error::Error;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::{env, fs};

use ringmaster_lab::chart::{
    AreaBand, Axis, Band, Bar, BarChart, Colour, LineChart, Marker, Moment, MomentKind, Panel, RefLine,
    Series, SmallMultiples, Svg, Timeline, grouped, png, replica_colour, terminal_bars,
};
use ringmaster_lab::report;

mod sample;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::args_os().nth(1).ok_or("usage: gallery FOLDER")?);
    fs::create_dir_all(&folder)?;
    let charts = [
        ("assignment", assignment().svg()?),
        ("even", even().svg()?),
        ("six", replicas(&[1688, 1702, 1611, 1655, 1690, 1654], 1.0).svg()?),
        ("eleven", replicas(&[912, 905, 880, 931, 899, 920, 908, 917, 911, 903, 914], 1.0).svg()?),
        ("thirty", replicas(&(0..30).map(|i| 320 + i * 7 % 31).collect::<Vec<_>>(), 1.0).svg()?),
        ("thirty-large", replicas(&(0..30).map(|i| 320 + i * 7 % 31).collect::<Vec<_>>(), 1234.5).svg()?),
        ("one", replicas(&[10_000], 1.0).svg()?),
        ("none", BarChart { title: "No replicas answered".into(), ..BarChart::default() }.svg()?),
        ("ranked", ranked().svg()?),
        ("scaling", scaling().svg()?),
        ("latency", latency().svg()?),
        ("spread", spread().svg()?),
        ("policies", policies().svg()?),
        ("timeline", timeline(&[1.2, 3.6, 6.0, 8.4, 8.9], 12.0).svg()?),
        ("timeline-one", timeline(&[2.5], 8.0).svg()?),
    ];
    for (name, svg) in &charts {
        write(&folder, name, svg)?;
    }
    fs::write(folder.join("report.html"), report::html(&sample::report(&charts)))?;
    for chart in [assignment(), even(), ranked()] {
        println!("{}", terminal_bars(&chart, 90, std::io::stdout().is_terminal()));
    }
    Ok(())
}

fn write(folder: &Path, name: &str, svg: &Svg) -> Result<(), Box<dyn Error>> {
    fs::write(folder.join(format!("{name}.svg")), &svg.0)?;
    fs::write(folder.join(format!("{name}.png")), png(svg)?)?;
    Ok(())
}

fn bars(values: &[(&str, f64, Option<f64>)]) -> Vec<Bar> {
    let bar = |(ordinal, (label, value, expected)): (usize, &(&str, f64, Option<f64>))| Bar {
        label: (*label).to_owned(),
        value: *value,
        expected: *expected,
        colour: replica_colour(ordinal as u32),
    };
    values.iter().enumerate().map(bar).collect()
}

fn ideal(mean: f64, sigma: f64) -> (Option<RefLine>, Option<Band>) {
    let line = RefLine { value: mean, label: format!("mean {}", grouped(mean, 0)) };
    let band =
        Band {
            low: mean - 2.0 * sigma, high: mean + 2.0 * sigma, label: "±2σ of ideal hashing".to_owned()
        };
    (Some(line), Some(band))
}

fn assignment() -> BarChart {
    let (mean, band) = ideal(3333.3, 47.1);
    BarChart {
        title: "The assignment’s ring gives one of three replicas 84 % of the requests".into(),
        subtitle:
            "10,000 requests, 100 at a time, seed 42, policy assignment with its own H and Φ on 512 slots. \
                   The prediction walks the ring for all ids before the first request is sent."
                .into(),
        x_label: "replica".into(),
        y_label: "requests answered".into(),
        bars: bars(&[
            ("Server 1", 8437.0, Some(8430.0)),
            ("Server 2", 469.0, Some(481.0)),
            ("Server 3", 1094.0, Some(1089.0)),
        ]),
        mean,
        band,
        decimals: None,
    }
}

fn even() -> BarChart {
    let (mean, band) = ideal(3333.3, 47.1);
    BarChart {
        title: "Without hashOn the least loaded replica answers: max/mean 1.0005".into(),
        subtitle: "10,000 requests, 100 at a time, seed 42.".into(),
        x_label: "replica".into(),
        y_label: "requests answered".into(),
        bars: bars(&[
            ("web-0", 3334.0, Some(3333.0)),
            ("web-1", 3331.0, Some(3333.0)),
            ("web-2", 3335.0, Some(3334.0)),
        ]),
        mean,
        band,
        decimals: None,
    }
}

fn replicas(counts: &[u32], scale: f64) -> BarChart {
    let total = f64::from(counts.iter().sum::<u32>()) * scale;
    let mean = total / counts.len() as f64;
    let (line, band) = ideal(mean, (mean * (1.0 - 1.0 / counts.len() as f64)).sqrt());
    let bar = |(ordinal, count): (usize, &u32)| Bar {
        label: format!("web-{ordinal}"),
        value: (f64::from(*count) * scale).round(),
        expected: Some(mean),
        colour: replica_colour(ordinal as u32),
    };
    BarChart {
        title: format!("{} requests on {} replicas", grouped(total, 0), counts.len()),
        subtitle: "The ring on request ids, 160 points for each replica.".into(),
        x_label: "replica".into(),
        y_label: "requests answered".into(),
        bars: counts.iter().enumerate().map(bar).collect(),
        mean: line,
        band,
        decimals: None,
    }
}

fn ranked() -> BarChart {
    let names = [
        "slot-table",
        "maglev",
        "rendezvous",
        "ring (ketama)",
        "assignment, sha256",
        "A-4 of group 7",
        "assignment",
    ];
    let values = [1.0112, 1.0131, 1.0164, 1.0398, 1.3121, 1.7740, 2.5311];
    let bar = |(name, value): (&str, f64)| Bar {
        label: name.to_owned(),
        value,
        expected: Some(value * 0.995),
        colour: Colour::BLUE,
    };
    BarChart {
        title: "How much more than its share the busiest of three replicas answers".into(),
        subtitle: "Ranked; 1 is perfect, and ideal hashing averages 1.0147.".into(),
        x_label: "policy".into(),
        y_label: "max/mean".into(),
        bars: names.into_iter().zip(values).map(bar).collect(),
        mean: Some(RefLine { value: 1.0147, label: "ideal hashing 1.0147".into() }),
        band: None,
        decimals: Some(3),
    }
}

fn scaling() -> LineChart {
    let line = |name: &str, ys: &[f64], colour, dashed| Series {
        name: name.to_owned(),
        points: ys.iter().enumerate().map(|(i, y)| (i as f64 + 2.0, *y)).collect(),
        colour,
        dashed,
        ..Series::default()
    };
    LineChart {
        title: "Every step moves as few keys as is possible".into(),
        subtitle: "Share of 10,000 request ids whose replica changes when one replica joins.".into(),
        x_label: "replicas N".into(),
        y_label: "keys moved by the step to N, %".into(),
        series: vec![
            line("ring", &[50.4, 33.1, 25.3, 19.7, 16.9], Colour::BLUE, false),
            line("assignment", &[61.0, 47.2, 30.9, 31.5, 22.4], Colour::ORANGE, false),
            line("optimum 1/N", &[50.0, 33.3, 25.0, 20.0, 16.7], Colour::GREY, true),
        ],
        bands: vec![AreaBand {
            name: "±2σ of ideal hashing".into(),
            points: [50.0, 33.3, 25.0, 20.0, 16.7]
                .iter()
                .enumerate()
                .map(|(i, y)| (i as f64 + 2.0, y - 1.0, y + 1.0))
                .collect(),
            colour: Colour::GREY,
        }],
        y_from_zero: true,
        ..LineChart::default()
    }
}

fn spread() -> LineChart {
    let line = |name: &str, ys: [f64; 5], colour, dashed| Series {
        name: name.to_owned(),
        points: ys.iter().enumerate().map(|(i, y)| (i as f64, *y)).collect(),
        colour,
        dashed,
        ..Series::default()
    };
    let ideal = [1.008, 1.0147, 1.0206, 1.026, 1.031];
    LineChart {
        title: "The busiest and the idlest replica against their share".into(),
        subtitle: "10,000 requests for each N; 1 is the mean 10,000/N.".into(),
        x_label: "replicas".into(),
        y_label: "share of the mean".into(),
        x: Axis::Categories((2..=6).map(|n| format!("N = {n}")).collect()),
        series: vec![
            line("max/mean", [1.0071, 1.0139, 1.0242, 1.0197, 1.0312], Colour::VERMILLION, false),
            line("min/mean", [0.9929, 0.9881, 0.9792, 0.9812, 0.9701], Colour::BLUE, false),
            line("max/mean of ideal hashing", ideal, Colour::GREY, true),
        ],
        bands: vec![AreaBand {
            name: "±2σ of ideal hashing".into(),
            points: ideal.iter().enumerate().map(|(i, y)| (i as f64, 2.0 - y - 0.01, y + 0.01)).collect(),
            colour: Colour::GREY,
        }],
        ..LineChart::default()
    }
}

fn latency() -> LineChart {
    let curve = |name: &str, base: f64, colour| Series {
        name: name.to_owned(),
        points: (0..80)
            .map(|i| {
                (f64::from(i) * 0.1, base + 0.2 * (f64::from(i) * 0.7).sin() + base * f64::from(i) * 0.01)
            })
            .collect(),
        colour,
        ..Series::default()
    };
    LineChart {
        title: "Latency from the intended send time".into(),
        subtitle: String::new(),
        x_label: "seconds since the load began".into(),
        y_label: "latency, ms".into(),
        x: Axis::Numeric,
        series: vec![curve("p50", 1.1, Colour::BLUE), curve("p99", 4.2, Colour::VERMILLION)],
        y_from_zero: true,
        markers: vec![
            Marker { x: 2.0, y: None, label: "kill -9 web-1".into() },
            Marker { x: 2.1, y: None, label: "replaced and ready".into() },
            Marker { x: 7.8, y: None, label: "end of the load".into() },
            Marker { x: 5.0, y: Some(5.5), label: "best published".into() },
        ],
        ..LineChart::default()
    }
}

fn policies() -> SmallMultiples {
    let runs: [(&str, &str, [f64; 3]); 10] = [
        ("1. slot-table", "max/mean 1.003; H reaches all 65,537 slots", [3334.0, 3331.0, 3335.0]),
        ("2. maglev", "max/mean 1.006", [3352.0, 3320.0, 3328.0]),
        ("3. rendezvous", "max/mean 1.014", [3381.0, 3290.0, 3329.0]),
        ("4. ring", "max/mean 1.021", [3402.0, 3301.0, 3297.0]),
        ("5. assignment with sha256 and the same 512 slots", "max/mean 1.22", [4066.0, 2876.0, 3058.0]),
        (
            "6. H = i*i + 2*i + 17",
            "max/mean 1.57; H reaches 87 of 512 slots, so most slots are never asked for",
            [5230.0, 2604.0, 2166.0],
        ),
        ("7. H = 7*i + 31", "max/mean 1.66", [5533.0, 1011.0, 3456.0]),
        ("8. Φ = i*i + j*j + 2*j + 25 (A-1)", "max/mean 2.53", [8437.0, 469.0, 1094.0]),
        ("9. Φ constant", "every virtual server collides", [10_000.0, 0.0, 0.0]),
        ("10. yours", "max/mean 1.31", [4366.0, 2576.0, 3058.0]),
    ];
    let chart = |(title, note, values): (&str, &str, [f64; 3])| {
        let (mean, band) = ideal(3333.3, 47.1);
        BarChart {
            title: title.to_owned(),
            subtitle: note.to_owned(),
            x_label: "replica".into(),
            y_label: "requests answered".into(),
            bars: bars(&[
                ("web-0", values[0], Some(values[0] * 0.99)),
                ("web-1", values[1], Some(values[1] * 1.01)),
                ("web-2", values[2], Some(values[2])),
            ]),
            mean,
            band,
            decimals: None,
        }
    };
    SmallMultiples {
        title: "Ten hash functions, ranked by how evenly they spread 10,000 requests".into(),
        subtitle: "Three replicas, the same 10,000 request ids for each; the scale is the same in all."
            .into(),
        columns: 3,
        charts: runs.into_iter().map(chart).collect(),
        shared_scale: true,
    }
}

fn timeline(kills: &[f64], seconds: f64) -> Timeline {
    let what = [
        "kill -9 web-1",
        "SIGSTOP web-2",
        "stop web-0",
        "kill -9 web-0 and web-1 at once",
        "kill -9 all three",
    ];
    let mut moments = Vec::new();
    for (index, kill) in kills.iter().enumerate() {
        let mut at = |kind, after: f64, label: &str| {
            let (at_seconds, label) = (kill + after, label.to_owned());
            moments.push(Moment { at_seconds, fault: index as u32 + 1, label, kind });
        };
        at(MomentKind::Kill, 0.0, what[index % what.len()]);
        at(MomentKind::Detected, 0.0041, "");
        at(MomentKind::RingChanged, 0.0049, "");
        at(MomentKind::Created, 0.210, "");
        at(MomentKind::Ready, 0.487 + 0.1 * index as f64, "");
        if index == 3 {
            at(MomentKind::Detected, 0.0093, "");
            at(MomentKind::Ready, 0.911, "");
        }
    }
    moments.sort_by(|a, b| a.at_seconds.total_cmp(&b.at_seconds));
    let sampled = |f: &dyn Fn(f64) -> f64| {
        (0..=(seconds * 20.0) as u32)
            .map(|i| (f64::from(i) / 20.0, f(f64::from(i) / 20.0)))
            .collect::<Vec<_>>()
    };
    let down = |at: f64| {
        kills
            .iter()
            .enumerate()
            .filter(|(i, kill)| at >= **kill && at < **kill + 0.487 + 0.1 * *i as f64)
            .count() as f64
    };
    let series = |name: &str, points, colour, step, filled| Series {
        name: name.to_owned(),
        points,
        colour,
        step,
        filled,
        dashed: false,
    };
    Timeline {
        title: "Five faults in 12 s, and no request failed".into(),
        subtitle:
            "Open-loop load of 833 requests/s through the proxy on three replicas; tinted: from the fault to \
                   the moment its replacement is ready."
                .into(),
        seconds,
        panels: vec![
            Panel {
                title: "requests per second".into(),
                note: "10,000 requests, each bin 50 ms".into(),
                series: vec![series(
                    "answered",
                    sampled(&|at| (833.0 + 40.0 * (at * 9.0).sin() - 60.0 * down(at)).round()),
                    Colour::BLUE,
                    true,
                    true,
                )],
                ..Panel::default()
            },
            Panel {
                title: "failed requests per second".into(),
                note: "0 failed of 10,000".into(),
                series: vec![series("failed", sampled(&|_| 0.0), Colour::VERMILLION, true, true)],
                height: Some(50.0),
                ..Panel::default()
            },
            Panel {
                title: "replicas".into(),
                series: vec![
                    series("in the ring", sampled(&|at| 3.0 - down(at - 0.005)), Colour::BLUE, true, false),
                    series("ready", sampled(&|at| 3.0 - down(at)), Colour::GREEN, true, true),
                ],
                ..Panel::default()
            },
        ],
        moments,
    }
}
