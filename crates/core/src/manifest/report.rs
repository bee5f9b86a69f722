//! What is wrong, where, and what to do, rendered with the offending line and a caret.
//!
//! The text is untrusted and goes to terminals and logs: control and direction-changing characters are escaped,
//! long lines are cut around the column, long values within messages are cut in the middle.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Source;
use super::tree::{Mark, lines};

/// Most errors that are reported at once; those after them are seldom news.
pub const ERRORS_MAX: usize = 100;

const EXCERPT_CHARS_MAX: usize = 100;
const EXCERPT_CHARS_BEFORE: usize = 40;
const MESSAGE_CHARS_MAX: usize = 400;
const SUGGESTED_WORD_CHARS_MAX: usize = 64;

/// One thing that is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestError {
    /// The source's display name.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// The field, as in `spec.template.port`.
    pub path: Option<String>,
    /// What is wrong.
    pub message: String,
    /// The line, escaped and cut, ready to be printed.
    pub source_line: String,
    /// How many characters of `source_line` stand before the caret.
    pub caret_offset: usize,
    /// How many carets underline the place.
    pub caret_width: usize,
    /// What else to know, such as the place of the other half of a conflict.
    pub note: Option<String>,
    /// What to do, such as "did you mean `port`?".
    pub suggestion: Option<String>,
}

/// Everything that is wrong with an apply: by source, then by line. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ManifestErrors(pub Vec<ManifestError>);

/// An error before its source is known.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) mark: Mark,
    path: Option<String>,
    message: String,
    note: Option<Box<str>>,
    suggestion: Option<Box<str>>,
    /// A limit of the whole apply: what was read until then says nothing.
    pub(super) is_limit: bool,
}

impl Fault {
    pub(super) fn new(mark: Mark, message: impl Into<String>) -> Fault {
        Fault { mark, path: None, message: message.into(), note: None, suggestion: None, is_limit: false }
    }

    pub(super) fn limit(mark: Mark, message: impl Into<String>) -> Fault {
        Fault { is_limit: true, ..Fault::new(mark, message) }
    }

    pub(super) fn path(self, path: String) -> Fault {
        Fault { path: Some(path).filter(|path| !path.is_empty()), ..self }
    }

    pub(super) fn help(self, help: impl Into<String>) -> Fault {
        Fault { suggestion: Some(help.into().into()), ..self }
    }

    pub(super) fn note(self, note: impl Into<String>) -> Fault {
        Fault { note: Some(note.into().into()), ..self }
    }

    /// Whether it asks "did you mean" this word.
    pub(super) fn suggests(&self, word: &str) -> bool {
        self.suggestion.as_deref() == Some(format!("did you mean `{word}`?").as_str())
    }

    pub(super) fn in_source(self, source: &Source<'_>) -> ManifestError {
        let Mark { line, column, width } = self.mark;
        let line_text = lines(source.text).nth(line - 1).unwrap_or_default();
        let (source_line, caret_offset, caret_width) = excerpt(line_text, column, width);
        ManifestError {
            file: source.file.to_owned(),
            line,
            column,
            path: self.path.map(|path| shortened(&path)),
            message: shortened(&self.message),
            source_line,
            caret_offset,
            caret_width,
            note: self.note.map(|note| shortened(&note)),
            suggestion: self.suggestion.map(|suggestion| shortened(&suggestion)),
        }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(f, "error: {}", self.message)?;
        write!(f, "{margin}--> {}:{}:{}", printable(&self.file), self.line, self.column)?;
        if let Some(path) = &self.path {
            write!(f, " ({path})")?;
        }
        writeln!(f, "\n{margin} |\n{number} | {}", self.source_line)?;
        let (before, carets) = (" ".repeat(self.caret_offset), "^".repeat(self.caret_width));
        write!(f, "{margin} | {before}{carets}")?;
        if let Some(note) = &self.note {
            write!(f, "\n{margin} = note: {note}")?;
        }
        if let Some(suggestion) = &self.suggestion {
            write!(f, "\n{margin} = help: {suggestion}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ManifestErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let gap = if index > 0 { "\n\n" } else { "" };
            write!(f, "{gap}{error}")?;
        }
        Ok(())
    }
}

/// "did you mean `port`?" if something expected is near, else all that is expected.
pub(super) fn did_you_mean(word: &str, expected: &[&str]) -> String {
    if let Some(near) = nearest(word, expected) {
        return format!("did you mean `{near}`?");
    }
    match expected {
        [] => "nothing is expected here".to_owned(),
        [only] => format!("expected `{only}`"),
        many => {
            let quoted: Vec<_> = many.iter().map(|name| format!("`{name}`")).collect();
            format!("expected one of {}", quoted.join(", "))
        }
    }
}

/// The expected word that is a typing error away from `word`, whatever the case of its letters.
pub(super) fn nearest<'a>(word: &str, expected: &[&'a str]) -> Option<&'a str> {
    let word: String = word.chars().take(SUGGESTED_WORD_CHARS_MAX).collect::<String>().to_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&word, &name.to_lowercase());
    let (near, steps) =
        expected.iter().map(|name| (*name, distance(name))).min_by_key(|(_, steps)| *steps)?;
    (steps <= (near.len() / 3).max(1)).then_some(near)
}

/// Text that a terminal shows as it is: control and direction-changing characters are escaped.
pub(super) fn printable(text: &str) -> String {
    text.chars().flat_map(shown).collect()
}

fn shown(c: char) -> impl Iterator<Item = char> {
    let hidden =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let escape = (c.is_control() || hidden).then(|| c.escape_default());
    let plain = escape.is_none().then_some(c);
    escape.into_iter().flatten().chain(plain)
}

fn shortened(message: &str) -> String {
    let count = message.chars().count();
    if count <= MESSAGE_CHARS_MAX {
        return printable(message);
    }
    // Advice stands at the end of a message and a quoted value at its beginning, so the middle is cut.
    let head = message.chars().take(MESSAGE_CHARS_MAX / 4);
    let tail = message.chars().skip(count - MESSAGE_CHARS_MAX / 2);
    let cut: String = head.chain(['…']).chain(tail).collect();
    printable(&cut)
}

/// The part of a line around a column, with the offset and the width of its carets.
fn excerpt(line: &str, column: usize, width: usize) -> (String, usize, usize) {
    let count = line.chars().count();
    let at = column.saturating_sub(1).min(count);
    let first = if count > EXCERPT_CHARS_MAX { at.saturating_sub(EXCERPT_CHARS_BEFORE) } else { 0 };
    let (mut out, mut offset, mut carets) = (String::new(), 0, 0);
    if first > 0 {
        out.push('…');
        offset = 1;
    }
    for (index, c) in line.chars().enumerate().skip(first).take(EXCERPT_CHARS_MAX) {
        let length = shown(c).count();
        if index < at {
            offset += length;
        } else if index < at.saturating_add(width) {
            carets += length;
        }
        out.extend(shown(c));
    }
    if first + EXCERPT_CHARS_MAX < count {
        out.push('…');
    }
    (out, offset, carets.max(1))
}
