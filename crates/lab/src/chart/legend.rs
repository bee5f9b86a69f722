//! Title, subtitle and legend: what stands above every chart, left aligned.

use super::WIDTH;
use super::canvas::{Canvas, Pen, PlotError, Rect};
use super::colour::Colour;
use super::text::{self, Label};

/// The white rim of a chart, in pixels.
pub(crate) const MARGIN: f64 = 18.0;
/// Sizes of text in pixels.
pub(crate) const TITLE: f64 = 18.0;
pub(crate) const BODY: f64 = 13.0;
pub(crate) const TICK: f64 = 12.0;

/// What a legend shows beside a name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Key {
    Line(Colour, bool),
    Area(Colour, f64),
    Diamond,
    DashedDiamond(Colour),
    /// A remark.
    None,
}

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) name: String,
}

impl Entry {
    pub(crate) fn new(key: Key, name: impl Into<String>) -> Self {
        Self { key, name: name.into() }
    }
}

const KEY_WIDTH: f64 = 24.0;
const KEY_GAP: f64 = 7.0;
const ENTRY_GAP: f64 = 22.0;

/// Draws title, subtitle and legend from the top of the canvas; returns where they end.
pub(crate) fn header(
    canvas: &mut Canvas<'_>,
    title: &str,
    subtitle: &str,
    entries: &[Entry],
) -> Result<f64, PlotError> {
    let room = WIDTH - 2.0 * MARGIN;
    let mut y = MARGIN - 6.0;
    for line in text::wrap(title, TITLE, true, room, 2) {
        y += 24.0;
        canvas.texts.put(Label::new(line, MARGIN, y - 4.0, TITLE).bold());
    }
    for line in text::wrap(subtitle, BODY, false, room, 3) {
        y += 18.0;
        canvas.texts.put(Label::new(line, MARGIN, y - 3.0, BODY).colour(Colour::MUTED));
    }
    legend(canvas, entries, Rect::new(MARGIN, y, WIDTH - MARGIN, y))
}

/// The width of entries in one row, in pixels.
pub(crate) fn width(entries: &[Entry]) -> f64 {
    let each =
        entries.iter().map(|entry| KEY_WIDTH + KEY_GAP + text::width(&entry.name, BODY, false) + ENTRY_GAP);
    (each.sum::<f64>() - ENTRY_GAP).max(0.0)
}

/// Draws entries in rows from the top of `at`; returns where they end. No entries take no room.
pub(crate) fn legend(canvas: &mut Canvas<'_>, entries: &[Entry], at: Rect) -> Result<f64, PlotError> {
    let entries: Vec<&Entry> = entries.iter().filter(|entry| !entry.name.trim().is_empty()).collect();
    if entries.is_empty() {
        return Ok(at.top);
    }
    let (mut x, mut baseline) = (at.left, at.top + 22.0);
    for entry in entries {
        let indent = if entry.key == Key::None { 0.0 } else { KEY_WIDTH + KEY_GAP };
        let name = text::cut(&entry.name, BODY, false, at.width() - indent);
        let width = indent + text::width(&name, BODY, false);
        if x > at.left && x + width > at.right {
            x = at.left;
            baseline += 20.0;
        }
        key(canvas, entry.key, x, baseline - 4.5)?;
        canvas.texts.put(Label::new(name, x + indent, baseline, BODY));
        x += width + ENTRY_GAP;
    }
    Ok(baseline + 6.0)
}

fn key(canvas: &Canvas<'_>, key: Key, x: f64, y: f64) -> Result<(), PlotError> {
    let (left, middle, right) = (x, x + KEY_WIDTH / 2.0, x + KEY_WIDTH);
    match key {
        Key::Line(colour, dashed) => {
            canvas.line(&[(left, y), (right, y)], Pen::new(colour, 2.2).dashed(dashed))
        }
        Key::Area(colour, alpha) => canvas.fill(Rect::new(left, y - 5.5, right, y + 5.5), colour, alpha),
        Key::Diamond => canvas.diamond(middle, y, 6.0, Colour::INK),
        Key::DashedDiamond(colour) => {
            canvas.line(&[(left, y), (right, y)], Pen::new(colour, 2.0).dashed(true))?;
            canvas.diamond(middle, y, 6.0, colour)
        }
        Key::None => Ok(()),
    }
}
