//! The report: one HTML file with charts inline, tables, verdicts and the method.
//!
//! It asks nothing of the network and has no script, so that it can be handed in, archived and printed. All texts are
//! escaped; in paragraphs, leads, captions and cells a pair of backticks sets code.

mod write;

pub use write::html;

use crate::chart::Svg;

/// A report.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Of the document.
    pub title: String,
    /// Under the title.
    pub subtitle: String,
    /// When it was made, as it is to be shown.
    pub made_at: String,
    /// Machine and versions: pairs of name and value.
    pub machine: Vec<(String, String)>,
    /// In order; numbered from 1.
    pub sections: Vec<Section>,
}

/// A section.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// The anchor, unique in the report; letters, digits and hyphens, others are replaced.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// Its outcome, if it has one.
    pub verdict: Option<Verdict>,
    /// What was found, in a sentence or two.
    pub lead: String,
    /// The rest.
    pub blocks: Vec<Block>,
}

/// An outcome with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What was promised holds.
    Pass(String),
    /// It does not.
    Fail(String),
    /// Nothing was promised.
    Info(String),
}

/// A part of a section.
#[derive(Clone, Debug)]
pub enum Block {
    /// A heading within the section.
    Heading(String),
    /// Text.
    Paragraph(String),
    /// Points of a list.
    List(Vec<String>),
    /// A chart; numbered through the report.
    Figure {
        /// As it comes from [`crate::chart`].
        svg: Svg,
        /// What is to be seen in it.
        caption: String,
    },
    /// A table; numbered through the report.
    Table(Table),
    /// Preformatted text.
    Code(String),
}

/// A table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// From left to right.
    pub columns: Vec<Column>,
    /// A cell for each column; missing ones are empty, surplus ones left out.
    pub rows: Vec<Vec<String>>,
    /// Indices of rows that stand out.
    pub highlight_rows: Vec<usize>,
}

/// A column.
#[derive(Clone, Debug, Default)]
pub struct Column {
    /// Its head.
    pub title: String,
    /// Aligned right, in figures of one width.
    pub numeric: bool,
}

impl Column {
    /// A column of text.
    #[must_use]
    pub fn text(title: impl Into<String>) -> Self {
        Self { title: title.into(), numeric: false }
    }

    /// A column of numbers.
    #[must_use]
    pub fn number(title: impl Into<String>) -> Self {
        Self { title: title.into(), numeric: true }
    }
}
