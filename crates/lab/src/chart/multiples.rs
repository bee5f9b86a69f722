//! Many small bar charts on one page, with one legend.

use super::bars::Look;
use super::canvas::{self, Canvas, Drawing, PlotError, Rect};
use super::colour::Colour;
use super::legend::{self, Entry, Key, MARGIN};
use super::text::{self, Label};
use super::{ChartError, SmallMultiples, Svg, WIDTH};

/// Between two panels, in pixels.
const GAP: f64 = 26.0;
/// Of a panel's axes and bars, in pixels.
const PANEL: f64 = 145.0;
const TITLE: f64 = 13.5;
const NOTE: f64 = 11.5;

impl SmallMultiples {
    /// The page, 900 pixels wide and as tall as it needs.
    ///
    /// # Errors
    /// When plotters refuses a shape.
    pub fn svg(&self) -> Result<Svg, ChartError> {
        self.drawing().map(|drawing| drawing.svg)
    }

    pub(crate) fn drawing(&self) -> Result<Drawing, ChartError> {
        canvas::draw(&self.title, |canvas| {
            let mut top = legend::header(canvas, &self.title, &self.subtitle, &self.entries())? + 16.0;
            let columns = self.columns.clamp(1, 5) as usize;
            let shared = self.charts.iter().map(super::BarChart::largest).fold(0.0, f64::max);
            for row in self.charts.chunks(columns) {
                top = self.row(canvas, row, top, columns, shared)? + GAP - 4.0;
            }
            Ok(top - GAP + MARGIN)
        })
    }

    fn row(
        &self,
        canvas: &mut Canvas<'_>,
        row: &[super::BarChart],
        top: f64,
        columns: usize,
        shared: f64,
    ) -> Result<f64, PlotError> {
        let width = (WIDTH - 2.0 * MARGIN - GAP * (columns - 1) as f64) / columns as f64;
        let titles: Vec<_> =
            row.iter().map(|chart| text::wrap(&chart.title, TITLE, true, width, 2)).collect();
        let notes: Vec<_> =
            row.iter().map(|chart| text::wrap(&chart.subtitle, NOTE, false, width, 2)).collect();
        let title_rows = titles.iter().map(Vec::len).max().unwrap_or(0);
        let head = titles
            .iter()
            .zip(&notes)
            .map(|(title, note)| 18.0 * title.len() as f64 + 15.0 * note.len() as f64);
        let plot_top = top + head.fold(18.0 * title_rows as f64, f64::max) + 4.0;
        for (index, chart) in row.iter().enumerate() {
            let left = MARGIN + index as f64 * (width + GAP);
            let mut y = top;
            for line in &titles[index] {
                y += 18.0;
                canvas.texts.put(Label::new(line, left, y - 4.0, TITLE).bold());
            }
            for line in &notes[index] {
                y += 15.0;
                canvas.texts.put(Label::new(line, left, y - 3.0, NOTE).colour(Colour::MUTED));
            }
            let at = Rect::new(left, plot_top, left + width, plot_top + PANEL);
            let largest = if self.shared_scale { shared } else { chart.largest() };
            chart.draw_in(canvas, at, Look::Panel, largest)?;
        }
        Ok(plot_top + PANEL)
    }

    /// One legend for all: a text of its own where all charts say the same, otherwise what they have in common.
    fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        for entry in self.charts.iter().flat_map(super::BarChart::entries) {
            match entries.iter_mut().find(|other| other.key == entry.key) {
                Some(other) => other.name = shared_words(&other.name, &entry.name),
                None => entries.push(entry),
            }
        }
        for entry in &mut entries {
            if entry.name.is_empty() {
                entry.name = match entry.key {
                    Key::Line(..) => "mean".to_owned(),
                    _ => "expected range".to_owned(),
                };
            }
        }
        entries.extend(self.axes().map(|axes| Entry::new(Key::None, axes)));
        entries
    }

    /// What the axes show, as panels have no room for their labels.
    fn axes(&self) -> Option<String> {
        let common = |label: fn(&super::BarChart) -> &str| {
            let first = self.charts.first().map(label).filter(|text| !text.is_empty())?;
            self.charts.iter().all(|chart| label(chart) == first).then(|| first.to_owned())
        };
        let x = common(|chart| &chart.x_label).map(|label| format!("across: {label}"));
        let y = common(|chart| &chart.y_label).map(|label| format!("upwards: {label}"));
        let axes: Vec<String> = y.into_iter().chain(x).collect();
        (!axes.is_empty()).then(|| axes.join(" · "))
    }
}

/// The words with which both texts begin.
fn shared_words(one: &str, other: &str) -> String {
    let words = one.split(' ').zip(other.split(' ')).take_while(|(a, b)| a == b).map(|(word, _)| word);
    words.collect::<Vec<_>>().join(" ")
}
