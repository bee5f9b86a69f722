//! The report's HTML.

use super::{Block, Report, Section, Table, Verdict};
use crate::chart::Svg;

const STYLE: &str = include_str!("style.css");

/// The report as one self-contained HTML document.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut page = Page::default();
    page.add(&format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n<main>\n",
        escaped(&report.title)
    ));
    page.head(report);
    let names = anchors(&report.sections);
    page.contents(&report.sections, &names);
    for (index, (section, name)) in report.sections.iter().zip(&names).enumerate() {
        page.section(index + 1, section, name);
    }
    page.machine(report);
    page.add("</main>\n</body>\n</html>\n");
    page.out
}

#[derive(Default)]
struct Page {
    out: String,
    figures: usize,
    tables: usize,
}

impl Page {
    fn add(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn head(&mut self, report: &Report) {
        self.add(&format!("<header>\n<h1>{}</h1>\n", escaped(&report.title)));
        if !report.subtitle.is_empty() {
            self.add(&format!("<p class=\"subtitle\">{}</p>\n", inline(&report.subtitle)));
        }
        if !report.made_at.is_empty() {
            self.add(&format!("<p class=\"made\">{}</p>\n", escaped(&report.made_at)));
        }
        self.add("</header>\n");
    }

    fn contents(&mut self, sections: &[Section], names: &[String]) {
        if sections.is_empty() {
            return;
        }
        self.add("<nav aria-label=\"Contents\">\n<h2>Contents</h2>\n<ol>\n");
        for (section, name) in sections.iter().zip(names) {
            let title = escaped(&section.title);
            self.add(&format!("<li><a href=\"#{name}\">{title}</a>"));
            if let Some(verdict) = &section.verdict {
                self.add(&format!(" {}", badge(verdict)));
            }
            self.add("</li>\n");
        }
        self.add("</ol>\n");
        let count = |wanted: fn(&Verdict) -> bool| {
            sections.iter().filter(|section| section.verdict.as_ref().is_some_and(wanted)).count()
        };
        let passed = count(|verdict| matches!(verdict, Verdict::Pass(_)));
        let judged = passed + count(|verdict| matches!(verdict, Verdict::Fail(_)));
        if judged > 0 {
            self.add(&format!("<p class=\"tally\">{passed} of {judged} verdicts pass.</p>\n"));
        }
        self.add("</nav>\n");
    }

    fn section(&mut self, number: usize, section: &Section, name: &str) {
        let title = escaped(&section.title);
        self.add(&format!(
            "<section id=\"{name}\">\n<h2><span class=\"number\">{number}</span> {title}</h2>\n"
        ));
        if let Some(verdict) = &section.verdict {
            let (Verdict::Pass(reason) | Verdict::Fail(reason) | Verdict::Info(reason)) = verdict;
            let reason = inline(reason);
            self.add(&format!("<p class=\"verdict\">{} <span>{reason}</span></p>\n", badge(verdict)));
        }
        if !section.lead.is_empty() {
            self.add(&format!("<p class=\"lead\">{}</p>\n", inline(&section.lead)));
        }
        for block in &section.blocks {
            self.block(block);
        }
        self.add("</section>\n");
    }

    fn block(&mut self, block: &Block) {
        match block {
            Block::Heading(text) => self.add(&format!("<h3>{}</h3>\n", inline(text))),
            Block::Paragraph(text) => self.add(&format!("<p>{}</p>\n", inline(text))),
            Block::List(points) => {
                let points: String =
                    points.iter().map(|point| format!("<li>{}</li>\n", inline(point))).collect();
                self.add(&format!("<ul>\n{points}</ul>\n"));
            }
            Block::Figure { svg, caption } => self.figure(svg, caption),
            Block::Table(table) => self.table(table),
            Block::Code(text) => {
                self.add(&format!("<pre tabindex=\"0\"><code>{}</code></pre>\n", escaped(text)));
            }
        }
    }

    fn figure(&mut self, Svg(svg): &Svg, caption: &str) {
        self.figures += 1;
        let number = self.figures;
        let caption = inline(caption);
        self.add(&format!(
            "<figure>\n<div class=\"card\" tabindex=\"0\">\n{svg}</div>\n\
             <figcaption><b>Figure {number}.</b> {caption}</figcaption>\n</figure>\n"
        ));
    }

    fn table(&mut self, table: &Table) {
        self.tables += 1;
        let number = self.tables;
        let class = |numeric: bool| if numeric { " class=\"n\"" } else { "" };
        self.add(&format!(
            "<div class=\"scroll\" tabindex=\"0\">\n<table>\n\
             <caption><b>Table {number}.</b> {}</caption>\n<thead>\n<tr>",
            inline(&table.caption)
        ));
        for column in &table.columns {
            let title = inline(&column.title);
            self.add(&format!("<th scope=\"col\"{}>{title}</th>", class(column.numeric)));
        }
        self.add("</tr>\n</thead>\n<tbody>\n");
        for (index, row) in table.rows.iter().enumerate() {
            let marked = if table.highlight_rows.contains(&index) { " class=\"mark\"" } else { "" };
            self.add(&format!("<tr{marked}>"));
            for (place, column) in table.columns.iter().enumerate() {
                let cell = row.get(place).map_or_else(String::new, |cell| inline(cell));
                self.add(&format!("<td{}>{cell}</td>", class(column.numeric)));
            }
            self.add("</tr>\n");
        }
        self.add("</tbody>\n</table>\n</div>\n");
    }

    fn machine(&mut self, report: &Report) {
        if report.machine.is_empty() {
            return;
        }
        self.add("<section id=\"machine\">\n<h2>Machine and versions</h2>\n<dl>\n");
        for (name, value) in &report.machine {
            self.add(&format!("<dt>{}</dt><dd>{}</dd>\n", escaped(name), inline(value)));
        }
        self.add("</dl>\n</section>\n");
    }
}

/// Never by colour alone: the word says it, too.
fn badge(verdict: &Verdict) -> String {
    let (class, word) = match verdict {
        Verdict::Pass(_) => ("pass", "pass"),
        Verdict::Fail(_) => ("fail", "fail"),
        Verdict::Info(_) => ("info", "info"),
    };
    format!("<span class=\"badge {class}\">{word}</span>")
}

/// An anchor for each section: safe in an attribute, unique, and none of ours.
fn anchors(sections: &[Section]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(sections.len());
    for (index, section) in sections.iter().enumerate() {
        let safe =
            |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
        let mut name: String = section.id.chars().map(safe).collect();
        if name.is_empty() || name == "machine" || names.contains(&name) {
            name = format!("{name}-section-{}", index + 1);
        }
        names.push(name);
    }
    names
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(letter),
            control if control.is_control() => {}
            other => out.push(other),
        }
    }
    out
}

/// Escaped text in which pairs of backticks set code.
fn inline(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    let mut out = String::new();
    for (index, part) in parts.iter().enumerate() {
        match (index % 2 == 1, index + 1 == parts.len()) {
            (true, false) => out.push_str(&format!("<code>{}</code>", escaped(part))),
            // A backtick without a partner is just that.
            (true, true) => out.push_str(&format!("`{}", escaped(part))),
            (false, _) => out.push_str(&escaped(part)),
        }
    }
    out
}

#[cfg(test)]
mod tests;
