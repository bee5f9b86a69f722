//! The report holds together: everything escaped, nothing fetched, every link has its end.

use crate::chart::{BarChart, Svg};
use crate::report::{Block, Column, Report, Section, Table, Verdict, html};

const EVIL: &str = "<script>alert(\"&\")</script>' onload='x";

fn report() -> Report {
    let table = Table {
        caption: EVIL.into(),
        columns: vec![Column::text(EVIL), Column::number("requests")],
        rows: vec![vec![EVIL.into(), "8,437".into(), "surplus".into()], vec!["short".into()]],
        highlight_rows: vec![0, 99],
    };
    let svg = BarChart { title: EVIL.into(), ..BarChart::default() }.svg().unwrap();
    let blocks = vec![
        Block::Heading(EVIL.into()),
        Block::Paragraph(EVIL.into()),
        Block::List(vec![EVIL.into()]),
        Block::Figure { svg: svg.clone(), caption: EVIL.into() },
        Block::Figure { svg, caption: "second".into() },
        Block::Table(table),
        Block::Code(format!("a\n{EVIL}")),
    ];
    let section = |id: &str, verdict| Section {
        id: id.into(),
        title: EVIL.into(),
        verdict,
        lead: EVIL.into(),
        blocks: blocks.clone(),
    };
    Report {
        title: EVIL.into(),
        subtitle: EVIL.into(),
        made_at: EVIL.into(),
        machine: vec![(EVIL.into(), EVIL.into())],
        sections: vec![
            section("a1", Some(Verdict::Pass(EVIL.into()))),
            section("a1", Some(Verdict::Fail(EVIL.into()))),
            section("\"><img src=x>", Some(Verdict::Info(EVIL.into()))),
            section("", None),
            section("machine", None),
        ],
    }
}

#[test]
fn everything_is_escaped() {
    let page = html(&report());
    assert!(!page.contains("<script"), "{page}");
    assert!(!page.contains("' onload"), "a quote closes no attribute");
    assert!(!page.contains("<img"));
    // The head has 4, the machine 2; each of 5 sections is linked once and has 14, two of them in each chart; 3 verdicts.
    assert_eq!(page.matches("&lt;script&gt;").count(), 4 + 2 + 5 * 15 + 3, "and everything is there");
}

#[test]
fn nothing_is_fetched() {
    let page = html(&report());
    for reference in ["src=", "url(", "@import", "<link", "https:", "<iframe"] {
        assert!(!page.contains(reference), "{reference} in the report");
    }
    let without_namespace = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!without_namespace.contains("http:"));
}

#[test]
fn every_link_of_the_contents_has_one_end() {
    let page = html(&report());
    let links: Vec<&str> = page.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(links.len(), 5);
    for link in links {
        assert_eq!(page.matches(&format!("id=\"{link}\"")).count(), 1, "{link}");
    }
    assert!(page.contains("1 of 2 verdicts pass."));
}

#[test]
fn figures_and_tables_are_numbered_through_the_report() {
    let page = html(&report());
    for number in 1..=10 {
        assert_eq!(page.matches(&format!("<b>Figure {number}.</b>")).count(), 1);
    }
    assert!(page.contains("<b>Table 5.</b>") && !page.contains("Figure 11"));
}

#[test]
fn tables_have_a_cell_for_each_column() {
    let page = html(&report());
    assert!(!page.contains("surplus"));
    assert!(page.contains("<tr><td>short</td><td class=\"n\"></td></tr>"));
    assert!(
        page.contains("<tr class=\"mark\">") && page.contains("<th scope=\"col\" class=\"n\">requests</th>")
    );
}

#[test]
fn tags_are_balanced() {
    let page = html(&report());
    for tag in [
        "section", "figure", "table", "tr", "td", "th", "svg", "p", "li", "ul", "ol", "div", "span", "text",
        "g",
    ] {
        let opened = page.matches(&format!("<{tag} ")).count() + page.matches(&format!("<{tag}>")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn backticks_set_code() {
    assert_eq!(
        super::inline("run `make a1` & `<x>`"),
        "run <code>make a1</code> &amp; <code>&lt;x&gt;</code>"
    );
    assert_eq!(super::inline("a ` b"), "a ` b");
    assert_eq!(super::inline("`a` and ` b"), "<code>a</code> and ` b");
    assert_eq!(super::inline(""), "");
}

#[test]
fn an_empty_report_is_a_page() {
    let page = html(&Report { title: "Nothing yet".into(), ..Report::default() });
    assert!(page.contains("<h1>Nothing yet</h1>") && !page.contains("<nav") && !page.contains("<dl>"));
    let with = Block::Figure { svg: Svg(String::new()), caption: String::new() };
    let section = Section { id: "x".into(), blocks: vec![with], ..Section::default() };
    assert!(html(&Report { sections: vec![section], ..Report::default() }).contains("Figure 1."));
}
