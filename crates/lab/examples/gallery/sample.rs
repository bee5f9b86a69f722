//! A report with every kind of block.

use ringmaster_lab::chart::Svg;
use ringmaster_lab::report::{Block, Column, Report, Section, Table, Verdict};

/// The report, with the charts by their names.
pub(crate) fn report(charts: &[(&str, Svg)]) -> Report {
    let figure = |name: &str, caption: &str| {
        let svg = charts
            .iter()
            .find(|(other, _)| *other == name)
            .map_or(Svg(String::new()), |(_, svg)| svg.clone());
        Block::Figure { svg, caption: caption.to_owned() }
    };
    let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    let table = Table {
        caption: "Requests per replica, with what was predicted.".into(),
        columns: vec![
            Column::text("Replica"),
            Column::number("Requests"),
            Column::number("Predicted"),
            Column::number("Deviation"),
            Column::text("Remark"),
        ],
        rows: vec![
            row(&["`Server 1`", "8,437", "8,430", "+0.1 %", "the busiest"]),
            row(&["`Server 2`", "469", "481", "−2.5 %", ""]),
            row(&["`Server 3`", "1,094", "1,089", "+0.5 %", "<script>alert(1)</script> is text"]),
        ],
        highlight_rows: vec![0],
    };
    Report {
        title: "Ringmaster: measured beside predicted".into(),
        subtitle: "Distribution, scaling, failure and hash functions of a self-healing load balancer".into(),
        made_at: "Made on 2026-11-22 at 16:40 UTC by `ringmaster lab report`, commit 10363de, seed 42".into(),
        machine: vec![
            ("CPU".into(), "2 × sample processor".into()),
            ("Docker".into(), "API 1.41".into()),
            ("ringmaster".into(), "0.1.0 (`10363de`)".into()),
        ],
        sections: vec![
            Section {
                id: "a1".into(),
                title: "Distribution of 10,000 requests".into(),
                verdict: Some(Verdict::Pass("max/mean 1.021 ≤ 1.0482; χ² = 1.93, p = 0.38".into())),
                lead:
                    "The ring on request ids spreads as ideal hashing does; the assignment’s formulas do not."
                        .into(),
                blocks: vec![
                    Block::Paragraph("Each request carries an `X-Request-Id` drawn from the seed.".into()),
                    figure("even", "Each replica answers its third."),
                    figure("assignment", "The same load with the assignment’s formulas."),
                    Block::Table(table),
                    Block::Code("ringmaster lab a1 --requests 10000 --seed 42\nmake a1".into()),
                ],
            },
            Section {
                id: "a2".into(),
                title: "Scaling from two to six replicas".into(),
                verdict: Some(Verdict::Info("nothing was promised for this machine".into())),
                lead: "A step moves 1/N of the keys.".into(),
                blocks: vec![figure("scaling", "Keys moved by each step.")],
            },
            Section {
                id: "a3".into(),
                title: "Failures".into(),
                verdict: Some(Verdict::Fail("out of the ring after 140 ms, promised ≤ 100 ms".into())),
                lead: "No request failed, but a SIGSTOP took too long to be noticed.".into(),
                blocks: vec![figure("timeline", "Five faults under a steady load.")],
            },
            Section {
                id: "a4".into(),
                title: "Hash functions".into(),
                verdict: Some(Verdict::Pass("every policy is where theory puts it".into())),
                lead: String::new(),
                blocks: vec![
                    figure("policies", "Ten policies and formulas."),
                    figure("ranked", "The same, ranked."),
                ],
            },
            Section {
                id: "method".into(),
                title: "Method".into(),
                verdict: None,
                lead: String::new(),
                blocks: vec![
                    Block::Heading("Load".into()),
                    Block::List(vec![
                        "open loop, seeded arrivals".into(),
                        "latency from the intended send time".into(),
                    ]),
                ],
            },
        ],
    }
}
