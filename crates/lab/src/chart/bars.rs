//! Bar charts: bars from zero, a value over each, the prediction as a diamond beside it.

use super::canvas::{self, Canvas, Drawing, Pen, Plot, PlotError, Rect};
use super::colour::Colour;
use super::legend::{self, BODY, Entry, Key, MARGIN, TICK};
use super::number::{self, Ticks};
use super::text::{self, Anchor, Label};
use super::{Bar, BarChart, ChartError, Svg, WIDTH};

/// The height of the plot with its labels, in pixels.
const BODY_HEIGHT: f64 = 360.0;
/// Beyond this a height is drawn as this, so that sums stay finite.
const LARGEST: f64 = 1e300;
/// The size of the line "predicted 8,437" under a value, in pixels.
const PREDICTED: f64 = 11.5;
/// Half the height of a prediction's diamond, in pixels.
const DIAMOND: f64 = 6.0;
/// A row of names under the bars, in pixels.
const NAME_ROW: f64 = 15.0;

impl BarChart {
    /// The chart, 900 pixels wide.
    ///
    /// # Errors
    /// When plotters refuses a shape.
    pub fn svg(&self) -> Result<Svg, ChartError> {
        self.drawing().map(|drawing| drawing.svg)
    }

    pub(crate) fn drawing(&self) -> Result<Drawing, ChartError> {
        canvas::draw(&self.title, |canvas| {
            let top = legend::header(canvas, &self.title, &self.subtitle, &self.entries())? + 10.0;
            let at = Rect::new(MARGIN, top, WIDTH - MARGIN, top + BODY_HEIGHT);
            self.draw_in(canvas, at, Look::Page, self.largest())?;
            Ok(at.bottom + 10.0)
        })
    }

    /// The legend; a chart without line, band and predictions has none.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        if self.bars.iter().any(|bar| finite(bar.expected).is_some()) {
            entries.push(Entry::new(Key::Diamond, "predicted"));
        }
        if let Some(mean) = &self.mean {
            entries.push(Entry::new(Key::Line(Colour::INK, true), &mean.label));
        }
        if let Some(band) = &self.band {
            entries.push(Entry::new(Key::Area(Colour::GREY, 0.3), &band.label));
        }
        entries
    }

    /// The largest value that must be on the scale; 1 if there is none.
    pub(crate) fn largest(&self) -> f64 {
        let bars = self.bars.iter().flat_map(|bar| [Some(bar.value), bar.expected]);
        let lines = [self.mean.as_ref().map(|mean| mean.value), self.band.as_ref().map(|band| band.high)];
        let largest = bars.chain(lines).filter_map(finite).fold(0.0, f64::max);
        if largest > 0.0 { largest } else { 1.0 }
    }

    /// Draws axes and bars into a box, to a scale on which `largest` fits.
    pub(crate) fn draw_in(
        &self,
        canvas: &mut Canvas<'_>,
        at: Rect,
        look: Look,
        largest: f64,
    ) -> Result<(), PlotError> {
        let decimals = self
            .decimals
            .map_or_else(|| number::common_decimals(self.bars.iter().map(|bar| bar.value)), usize::from);
        let count = self.bars.len().max(1) as f64;
        let (above, below) = look.rims();
        // In the widest slot that there could be the labels are the highest.
        let head = Values::fit(&self.bars, decimals, at.width() / count, look).height() + DIAMOND + 8.0;
        // Room over the tallest bar for its labels, as if the plot were as low as names in two rows make it.
        let lowest = (at.height() - above - below - NAME_ROW).max(1.0);
        let ceiling = largest * lowest / (lowest - head).max(lowest * 0.3);
        let y_ticks = Ticks::within(0.0, ceiling, look.ticks(), decimals == 0);
        let gutter =
            y_ticks.texts().map(|(_, text)| text::width(&text, look.tick(), false)).fold(0.0, f64::max);
        let slot = (at.width() - gutter - 9.0) / count;
        let names = Names::fit(&self.bars, slot, look);
        let x_label = names.axis(&self.x_label);
        let below = below + NAME_ROW * names.rows() as f64;
        let plot_at = Rect::new(at.left + gutter + 9.0, at.top + above, at.right, at.bottom - below);
        let values = Values::fit(&self.bars, decimals, slot, look);
        let plot = canvas.plot(plot_at, 0.0..count, 0.0..ceiling)?;

        if look == Look::Page {
            let label = text::cut(&self.y_label, TICK, false, at.width());
            canvas.texts.put(Label::new(label, at.left, at.top + 12.0, TICK).colour(Colour::MUTED));
            let label = text::cut(&x_label, TICK, false, plot_at.width());
            let middle = f64::midpoint(plot_at.left, plot_at.right);
            let label = Label::new(label, middle, at.bottom - 6.0, TICK).anchor(Anchor::Middle);
            canvas.texts.put(label.colour(Colour::MUTED));
        }
        grid(canvas, &plot, &y_ticks, look)?;
        if self.bars.is_empty() {
            let (x, y) = plot.pixel(count / 2.0, ceiling / 2.0);
            let label = Label::new("no values", x, y, BODY).anchor(Anchor::Middle);
            canvas.texts.put(label.colour(Colour::MUTED));
        }
        self.shapes(canvas, &plot, look)?;
        values.put(canvas, &plot, &self.bars, &self.lines(&plot, look.lift()), look.lift());
        names.put(canvas, &plot);
        Ok(())
    }

    fn shapes(&self, canvas: &Canvas<'_>, plot: &Plot<'_>, look: Look) -> Result<(), PlotError> {
        let count = self.bars.len().max(1) as f64;
        let half = (0.31_f64).min(look.widest() / 2.0 / (plot.at.width() / count));
        for (index, bar) in self.bars.iter().enumerate() {
            let (middle, height) = (index as f64 + 0.5, finite(bar.value).unwrap_or(0.0));
            if height > 0.0 {
                let (left, right) = (middle - half, middle + half);
                plot.fill((left, right), (0.0, height), bar.colour, 1.0)?;
                let outline = vec![(left, 0.0), (left, height), (right, height), (right, 0.0)];
                plot.line(outline, Pen::new(bar.colour.mixed(Colour::INK, 0.3), 0.8))?;
            }
        }
        if let Some(band) = &self.band {
            let (low, high) = (finite(band.low).unwrap_or(0.0), finite(band.high).unwrap_or(0.0));
            plot.fill((0.0, count), (low, high.max(low)), Colour::GREY, 0.3)?;
        }
        if let Some(mean) = self.mean.as_ref().and_then(|mean| finite(mean.value)) {
            plot.line(vec![(0.0, mean), (count, mean)], Pen::new(Colour::INK, 1.4).dashed(true))?;
        }
        let (left, zero) = plot.pixel(0.0, 0.0);
        canvas.line(&[(left, zero), (plot.at.right, zero)], Pen::new(Colour::AXIS, 1.2))?;
        for (index, bar) in self.bars.iter().enumerate() {
            let Some(expected) = finite(bar.expected) else { continue };
            let (x, y) = plot.pixel(index as f64 + 0.5, expected);
            let radius = DIAMOND.min(plot.at.width() / count * half);
            canvas.diamond(x, y, radius, Colour::INK)?;
        }
        Ok(())
    }

    /// What crosses all bars, as ranges of pixels from top to bottom that labels keep clear of.
    fn lines(&self, plot: &Plot<'_>, lift: f64) -> Vec<(f64, f64)> {
        let y = |value: f64| plot.pixel(0.0, value).1;
        let mean =
            self.mean.as_ref().and_then(|mean| finite(mean.value)).map(|mean| (y(mean) - 1.0, y(mean) + 1.0));
        let band = self.band.as_ref().and_then(|band| Some((y(finite(band.high)?), y(finite(band.low)?))));
        // Labels would fly too far over a wide band: they lie in it.
        mean.into_iter().chain(band.filter(|(top, bottom)| bottom - top < lift)).collect()
    }
}

/// How large a chart is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Alone.
    Page,
    /// As one of many.
    Panel,
}

impl Look {
    fn tick(self) -> f64 {
        match self {
            Self::Page => TICK,
            Self::Panel => 10.5,
        }
    }

    /// Above the plot for the axis' label, and below it without a row for names.
    fn rims(self) -> (f64, f64) {
        match self {
            Self::Page => (26.0, 29.0),
            Self::Panel => (2.0, 5.0),
        }
    }

    /// How far from its bar a label may go out of the way of a line, in pixels.
    fn lift(self) -> f64 {
        match self {
            Self::Page => 40.0,
            Self::Panel => 24.0,
        }
    }

    fn ticks(self) -> usize {
        match self {
            Self::Page => 6,
            Self::Panel => 4,
        }
    }

    fn value(self) -> f64 {
        match self {
            Self::Page => 14.0,
            Self::Panel => 11.0,
        }
    }

    /// Of a bar, in pixels.
    fn widest(self) -> f64 {
        match self {
            Self::Page => 120.0,
            Self::Panel => 60.0,
        }
    }
}

/// What can be drawn of a value: finite, not negative, and not so large that sums overflow.
fn finite(value: impl Into<Option<f64>>) -> Option<f64> {
    value.into().filter(|value| value.is_finite()).map(|value| value.clamp(0.0, LARGEST))
}

/// Horizontal lines with their values to the left.
fn grid(canvas: &mut Canvas<'_>, plot: &Plot<'_>, ticks: &Ticks, look: Look) -> Result<(), PlotError> {
    for (value, text) in ticks.texts() {
        let (left, y) = plot.pixel(0.0, value);
        canvas.line(&[(left, y), (plot.at.right, y)], Pen::new(Colour::GRID, 1.0))?;
        let label = Label::new(text, left - 7.0, y + 0.35 * look.tick(), look.tick());
        canvas.texts.put(label.anchor(Anchor::End).colour(Colour::MUTED));
    }
    Ok(())
}

/// The texts above the bars.
struct Values {
    texts: Vec<String>,
    predicted: Option<Vec<String>>,
    size: f64,
    /// Whether there is room for every one; otherwise only the extremes are labelled.
    all: bool,
}

impl Values {
    fn fit(bars: &[Bar], decimals: usize, slot: f64, look: Look) -> Self {
        let fits = |texts: &[String], size: f64, bold: bool, room: f64| {
            texts.iter().all(|text| text::width(text, size, bold) <= room)
        };
        let plain: Vec<String> = bars.iter().map(|bar| number::label(bar.value, decimals)).collect();
        let short: Vec<String> = bars.iter().map(|bar| number::compact(bar.value)).collect();
        let small = look.value().min(10.5);
        let predicted = bars
            .iter()
            .map(|bar| {
                finite(bar.expected).map(|value| format!("predicted {}", number::label(value, decimals)))
            })
            .map(Option::unwrap_or_default)
            .collect::<Vec<_>>();
        let wanted = look == Look::Page && predicted.iter().any(|text| !text.is_empty());
        let predicted = (wanted && fits(&predicted, PREDICTED, false, slot - 8.0)).then_some(predicted);
        for (texts, size) in [(&plain, look.value()), (&plain, small), (&short, small)] {
            if fits(texts, size, true, slot - 5.0) {
                return Self { texts: texts.clone(), predicted, size, all: true };
            }
        }
        Self { texts: plain, predicted: None, size: small, all: false }
    }

    /// In pixels, with the air around it.
    fn height(&self) -> f64 {
        self.size + 4.0 + if self.predicted.is_some() { PREDICTED + 4.0 } else { 0.0 }
    }

    fn put(&self, canvas: &mut Canvas<'_>, plot: &Plot<'_>, bars: &[Bar], lines: &[(f64, f64)], lift: f64) {
        let heights: Vec<f64> = bars.iter().map(|bar| finite(bar.value).unwrap_or(0.0)).collect();
        let mut order: Vec<usize> = (0..bars.len()).collect();
        if !self.all {
            order.sort_by(|a, b| heights[*b].total_cmp(&heights[*a]));
            order = order.first().into_iter().chain(order.last()).copied().collect();
            order.dedup();
        }
        for index in order {
            let (x, top) = plot.pixel(index as f64 + 0.5, heights[index]);
            let marker = finite(bars[index].expected).map(|expected| plot.pixel(0.0, expected).1);
            let marker = marker.map(|y| (y - DIAMOND, y + DIAMOND));
            let obstacles: Vec<_> = lines.iter().copied().chain(marker).collect();
            let mut baseline = stack_bottom(top, &obstacles, self.height(), lift);
            if let Some(predicted) = &self.predicted {
                let label = Label::new(&predicted[index], x, baseline, PREDICTED).anchor(Anchor::Middle);
                if !predicted[index].is_empty() {
                    canvas.texts.put(label.colour(Colour::MUTED).halo());
                    baseline -= PREDICTED + 4.0;
                }
            }
            let label = Label::new(&self.texts[index], x, baseline, self.size).bold().halo();
            let width = text::width(&self.texts[index], self.size, true);
            let inside = (plot.at.left + width / 2.0, plot.at.right - width / 2.0);
            let label = label.at_x(x.clamp(inside.0.min(inside.1), inside.1)).anchor(Anchor::Middle);
            canvas.texts.put_if_free(label);
        }
    }
}

/// The lowest baseline of a stack of labels of this height over a bar's top, clear of obstacles (ranges of pixels from
/// top to bottom); one that could only be cleared by going further than `lift` is crossed.
pub(crate) fn stack_bottom(bar_top: f64, obstacles: &[(f64, f64)], height: f64, lift: f64) -> f64 {
    const AIR: f64 = 4.0;
    let first = bar_top - 6.0;
    let mut baseline = first;
    let mut from_below = obstacles.to_vec();
    from_below.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (top, bottom) in from_below {
        let touches = top < baseline + AIR && bottom > baseline - height;
        let over = top - AIR - 1.0;
        if touches && first - over <= lift {
            baseline = baseline.min(over);
        }
    }
    baseline
}

/// The names under the bars, as they fit.
struct Names {
    lines: Vec<Vec<String>>,
    size: f64,
    /// What all begin with, if it was left out of each.
    prefix: Option<String>,
    /// Every so many bars is named.
    every: usize,
}

impl Names {
    fn fit(bars: &[Bar], slot: f64, look: Look) -> Self {
        let full: Vec<&str> = bars.iter().map(|bar| bar.label.trim()).collect();
        let (size, room) = (look.tick(), slot - 6.0);
        let name = |lines, prefix, every| Self { lines, size, prefix, every };
        let single = |names: &[&str]| names.iter().map(|name| vec![(*name).to_owned()]).collect::<Vec<_>>();
        let widest =
            |names: &[&str]| names.iter().map(|name| text::width(name, size, false)).fold(0.0, f64::max);
        if widest(&full) <= room {
            return name(single(&full), None, 1);
        }
        let wrapped: Vec<_> = full.iter().map(|name| text::wrap(name, size, false, room, 2)).collect();
        let whole = |(name, lines): (&&str, &Vec<String>)| {
            lines.join(" ") == name.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        if full.iter().zip(&wrapped).all(whole) {
            return name(wrapped, None, 1);
        }
        let shared = if look == Look::Page { shared_prefix(&full) } else { "" };
        let rest: Vec<&str> = full.iter().map(|name| &name[shared.len()..]).collect();
        let prefix = (!shared.is_empty()).then(|| shared.to_owned());
        if widest(&rest) <= room {
            return name(single(&rest), prefix, 1);
        }
        if room >= 44.0 {
            return name(wrapped, None, 1);
        }
        let every = ((widest(&rest) + 6.0) / slot).ceil().max(1.0) as usize;
        name(single(&rest), prefix, every)
    }

    fn rows(&self) -> usize {
        self.lines.iter().map(Vec::len).max().unwrap_or(1)
    }

    /// The axis' label, with what was left out of the names.
    fn axis(&self, label: &str) -> String {
        self.prefix.as_ref().map_or_else(|| label.to_owned(), |prefix| format!("{label} ({prefix}…)"))
    }

    fn put(&self, canvas: &mut Canvas<'_>, plot: &Plot<'_>) {
        for (index, lines) in self.lines.iter().enumerate().step_by(self.every) {
            let (x, y) = plot.pixel(index as f64 + 0.5, 0.0);
            for (row, line) in lines.iter().enumerate() {
                let label = Label::new(line, x, y + 6.0 + self.size + NAME_ROW * row as f64, self.size);
                canvas.texts.put_if_free(label.anchor(Anchor::Middle));
            }
        }
    }
}

/// What all names begin with, up to a hyphen or a space.
fn shared_prefix<'a>(names: &[&'a str]) -> &'a str {
    let Some(first) = names.first() else { return "" };
    let ends = first.char_indices().filter(|(_, letter)| matches!(letter, '-' | ' ' | '_'));
    let mut shared =
        ends.map(|(at, _)| &first[..=at]).filter(|start| names.iter().all(|name| name.starts_with(start)));
    shared.next_back().unwrap_or("")
}
