//! Line charts over numbers or names.

use std::ops::Range;

use super::canvas::{self, Canvas, Drawing, Pen, Plot, PlotError, Rect};
use super::colour::Colour;
use super::legend::{self, Entry, Key, MARGIN, TICK};
use super::number::{self, Ticks};
use super::text::{self, Anchor, Label};
use super::{AreaBand, Axis, ChartError, LineChart, Series, Svg, WIDTH};

/// The height of the plot with its labels, in pixels.
const BODY_HEIGHT: f64 = 350.0;
/// Series with more points have neither dots nor values.
const FEW: usize = 16;
/// Values beyond this are left out, so that sums stay finite.
const LARGEST: f64 = 1e300;

impl LineChart {
    /// The chart, 900 pixels wide.
    ///
    /// # Errors
    /// When plotters refuses a shape.
    pub fn svg(&self) -> Result<Svg, ChartError> {
        self.drawing().map(|drawing| drawing.svg)
    }

    pub(crate) fn drawing(&self) -> Result<Drawing, ChartError> {
        canvas::draw(&self.title, |canvas| {
            let entries = entries(&self.series, &self.bands);
            let top = legend::header(canvas, &self.title, &self.subtitle, &entries)? + 10.0;
            let at = Rect::new(MARGIN, top, WIDTH - MARGIN, top + BODY_HEIGHT);
            self.body(canvas, at)?;
            Ok(at.bottom + 10.0)
        })
    }

    fn body(&self, canvas: &mut Canvas<'_>, at: Rect) -> Result<(), PlotError> {
        let y_points = || self.series.iter().flat_map(|series| good(&series.points)).map(|(_, y)| y);
        let marked = self.markers.iter().filter_map(|marker| marker.y).filter(|y| y.abs() <= LARGEST);
        let decimals = self.decimals.map_or_else(|| number::common_decimals(y_points()), usize::from);
        let whole = decimals == 0 && y_points().all(|y| y.fract() == 0.0);
        let banded = self.bands.iter().flat_map(good_band).flat_map(|(_, low, high)| [low, high]);
        let y_range = spread(y_points().chain(banded).chain(marked), self.y_from_zero, 0.09);
        let y_ticks = Ticks::within(y_range.start, y_range.end, 5, whole);
        let gutter = y_ticks.texts().map(|(_, text)| text::width(&text, TICK, false)).fold(0.0, f64::max);
        let plot_at = Rect::new(at.left + gutter + 9.0, at.top + 26.0, at.right - 8.0, at.bottom - 46.0);
        let plot = canvas.plot(plot_at, self.x_range(), y_range.clone())?;

        let label = text::cut(&self.y_label, TICK, false, at.width());
        canvas.texts.put(Label::new(label, at.left, at.top + 12.0, TICK).colour(Colour::MUTED));
        let label = text::cut(&self.x_label, TICK, false, plot_at.width());
        let middle = f64::midpoint(plot_at.left, plot_at.right);
        let label = Label::new(label, middle, at.bottom - 6.0, TICK).anchor(Anchor::Middle);
        canvas.texts.put(label.colour(Colour::MUTED));

        y_axis(canvas, &plot, &y_ticks, y_range.start)?;
        self.x_axis(canvas, &plot, y_range.start)?;
        for band in &self.bands {
            area(&plot, band)?;
        }
        self.marks(canvas, &plot, &y_range)?;
        lines(canvas, &plot, &self.series, y_range.start.max(0.0))?;
        self.values(canvas, &plot, decimals);
        Ok(())
    }

    fn x_range(&self) -> Range<f64> {
        if let Axis::Categories(names) = &self.x {
            return -0.5..names.len().max(1) as f64 - 0.5;
        }
        let series = self.series.iter().flat_map(|series| good(&series.points)).map(|(x, _)| x);
        let bands = self.bands.iter().flat_map(good_band).map(|(x, _, _)| x);
        let marks = self.markers.iter().map(|marker| marker.x).filter(|x| x.abs() <= LARGEST);
        spread(series.chain(bands).chain(marks), false, 0.03)
    }

    fn x_axis(&self, canvas: &mut Canvas<'_>, plot: &Plot<'_>, floor: f64) -> Result<(), PlotError> {
        let (_, y) = plot.pixel(0.0, floor);
        canvas.line(&[(plot.at.left, y), (plot.at.right, y)], Pen::new(Colour::AXIS, 1.2))?;
        let names: Vec<(f64, String)> = match &self.x {
            Axis::Categories(names) => {
                let room = plot.at.width() / names.len().max(1) as f64 - 8.0;
                let cut = |name: &String| text::cut(name, TICK, false, room);
                names.iter().enumerate().map(|(index, name)| (index as f64, cut(name))).collect()
            }
            Axis::Numeric => {
                let mut xs = self.series.iter().flat_map(|series| good(&series.points)).map(|(x, _)| x);
                let range = self.x_range();
                Ticks::within(range.start, range.end, 9, xs.all(|x| x.fract() == 0.0)).texts().collect()
            }
        };
        for (value, name) in names {
            let (x, _) = plot.pixel(value, floor);
            canvas.line(&[(x, y), (x, y + 4.0)], Pen::new(Colour::AXIS, 1.0))?;
            let label = Label::new(name, x, y + 6.0 + TICK, TICK).anchor(Anchor::Middle);
            canvas.texts.put_if_free(label.colour(Colour::MUTED));
        }
        Ok(())
    }

    fn marks(&self, canvas: &mut Canvas<'_>, plot: &Plot<'_>, y: &Range<f64>) -> Result<(), PlotError> {
        let good: Vec<_> = self.markers.iter().filter(|marker| marker.x.abs() <= LARGEST).collect();
        let upright = good.iter().filter(|marker| marker.y.is_none());
        let upright: Vec<f64> = upright.map(|marker| plot.pixel(marker.x, y.start).0).collect();
        for x in &upright {
            let pen = Pen::new(Colour::MUTED, 1.2).dashed(true);
            canvas.line(&[(*x, plot.at.top), (*x, plot.at.bottom)], pen)?;
        }
        for marker in good {
            let (x, y) = match marker.y.filter(|y| y.abs() <= LARGEST) {
                Some(height) => {
                    let (x, y) = plot.pixel(marker.x, height);
                    canvas.diamond(x, y, 5.5, Colour::INK)?;
                    (x, y + 4.0)
                }
                None => (plot.pixel(marker.x, y.start).0, plot.at.top + 12.0),
            };
            mark_label(canvas, plot.at, &marker.label, (x, y), &upright);
        }
        Ok(())
    }

    /// Values beside the points of measured series, as far as there is room.
    fn values(&self, canvas: &mut Canvas<'_>, plot: &Plot<'_>, decimals: usize) {
        let few = |series: &&Series| !series.dashed && !series.step && series.points.len() <= FEW;
        for series in self.series.iter().filter(few) {
            for (x, y) in good(&series.points) {
                let (px, py) = plot.pixel(x, y);
                let text = number::label(y, decimals);
                let half = text::width(&text, TICK, true) / 2.0;
                let px = px.clamp(plot.at.left + half, (plot.at.right - half).max(plot.at.left + half));
                let label = Label::new(text, px, py, TICK).bold().halo().anchor(Anchor::Middle);
                let label = label.colour(series.colour.mixed(Colour::INK, 0.45));
                let above = py - 11.0;
                let below = py + 11.0 + 0.75 * TICK;
                let clear = |at: f64| !self.touches(plot, px, half, at);
                let order = if clear(above) || !clear(below) { [above, below] } else { [below, above] };
                for at in order {
                    let inside = at - TICK > plot.at.top - 8.0 && at + 3.0 < plot.at.bottom;
                    if inside && canvas.texts.put_if_free(label.clone().at_y(at)) {
                        break;
                    }
                }
            }
        }
    }

    /// Whether a point of any series lies in a label's box.
    fn touches(&self, plot: &Plot<'_>, x: f64, half: f64, baseline: f64) -> bool {
        let mut points = self.series.iter().flat_map(|series| good(&series.points));
        let at = Rect::new(x - half, baseline - TICK, x + half, baseline + 3.0).grown(5.0);
        points.any(|(px, py)| {
            let (px, py) = plot.pixel(px, py);
            at.overlaps(Rect::new(px, py, px, py).grown(0.1))
        })
    }
}

/// A marker's label beside it: right, else left, else a row lower; across another marker's line only at last.
fn mark_label(canvas: &mut Canvas<'_>, at: Rect, text: &str, (x, y): (f64, f64), upright: &[f64]) {
    let width = text::width(text, TICK, false);
    let places: Vec<Label> = (0..8)
        .flat_map(|row| [x + 9.0, x - 9.0 - width].map(|left| (left, y + 16.0 * f64::from(row))))
        .filter(|(left, _)| *left >= at.left && left + width <= at.right)
        .map(|(left, y)| Label::new(text, left, y, TICK).halo())
        .collect();
    let crossed = |label: &Label| {
        let extent = label.extent();
        upright.iter().any(|line| extent.left - 3.0 < *line && *line < extent.right + 3.0)
    };
    let (crossing, clear): (Vec<Label>, Vec<Label>) = places.into_iter().partition(crossed);
    for label in clear.into_iter().chain(crossing) {
        if canvas.texts.put_if_free(label) {
            return;
        }
    }
}

/// The points that can be drawn.
pub(crate) fn good(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> + '_ {
    points.iter().copied().filter(|(x, y)| x.abs() <= LARGEST && y.abs() <= LARGEST)
}

/// The parts of a band that can be drawn.
pub(crate) fn good_band(band: &AreaBand) -> impl Iterator<Item = (f64, f64, f64)> + '_ {
    let finite = |value: f64| value.abs() <= LARGEST;
    band.points.iter().copied().filter(move |(x, low, high)| finite(*x) && finite(*low) && finite(*high))
}

/// A range that holds all values with some air (a share of it), never empty.
pub(crate) fn spread(values: impl Iterator<Item = f64>, from_zero: bool, air: f64) -> Range<f64> {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        (low, high) = (low.min(value), high.max(value));
    }
    if low > high {
        return 0.0..1.0;
    }
    let floor = from_zero && low >= 0.0;
    if floor {
        low = 0.0;
    }
    let span = if high > low { high - low } else { high.abs().max(1.0) * 0.2 };
    let bottom = if floor { 0.0 } else { low - span * air };
    // What is never negative gets no axis that is.
    let bottom = if low >= 0.0 { bottom.max(0.0) } else { bottom };
    bottom..high + span * air
}

/// The legend; one nameless series without a band has none.
pub(crate) fn entries(series: &[Series], bands: &[AreaBand]) -> Vec<Entry> {
    let lonely = series.len() + bands.len() < 2;
    let of_series = |series: &Series| {
        let key = if series.dashed && series.points.len() <= FEW {
            Key::DashedDiamond(series.colour)
        } else {
            Key::Line(series.colour, series.dashed)
        };
        Entry::new(key, &series.name)
    };
    let of_band = |band: &AreaBand| Entry::new(Key::Area(band.colour, 0.25), &band.name);
    if lonely { Vec::new() } else { series.iter().map(of_series).chain(bands.iter().map(of_band)).collect() }
}

/// Horizontal lines with their values to the left.
pub(crate) fn y_axis(
    canvas: &mut Canvas<'_>,
    plot: &Plot<'_>,
    ticks: &Ticks,
    floor: f64,
) -> Result<(), PlotError> {
    for (value, text) in ticks.texts() {
        let (_, y) = plot.pixel(0.0, value);
        if value > floor {
            canvas.line(&[(plot.at.left, y), (plot.at.right, y)], Pen::new(Colour::GRID, 1.0))?;
        }
        let label = Label::new(text, plot.at.left - 7.0, y + 0.35 * TICK, TICK);
        canvas.texts.put_if_free(label.anchor(Anchor::End).colour(Colour::MUTED));
    }
    Ok(())
}

/// A tinted range.
pub(crate) fn area(plot: &Plot<'_>, band: &AreaBand) -> Result<(), PlotError> {
    let there = good_band(band).map(|(x, low, _)| (x, low));
    let back: Vec<_> = good_band(band).map(|(x, _, high)| (x, high)).collect();
    plot.polygon(there.chain(back.into_iter().rev()).collect(), band.colour, 0.25)
}

/// Lines with their dots; `floor` is where the tint under them ends. Predictions lie under what was measured.
pub(crate) fn lines(
    canvas: &Canvas<'_>,
    plot: &Plot<'_>,
    series: &[Series],
    floor: f64,
) -> Result<(), PlotError> {
    let (dashed, solid): (Vec<&Series>, Vec<&Series>) = series.iter().partition(|series| series.dashed);
    for series in dashed.iter().chain(&solid) {
        line(plot, series, floor)?;
    }
    for series in dashed.into_iter().chain(solid).filter(|series| !series.step && series.points.len() <= FEW)
    {
        for (x, y) in good(&series.points) {
            let (x, y) = plot.pixel(x, y);
            if series.dashed {
                canvas.diamond(x, y, 7.0, series.colour)?;
            } else {
                canvas.disc(x, y, 3.6, series.colour)?;
            }
        }
    }
    Ok(())
}

fn line(plot: &Plot<'_>, series: &Series, floor: f64) -> Result<(), PlotError> {
    let points: Vec<_> = good(&series.points).collect();
    let path = if series.step { stepped(&points) } else { points };
    if let (true, Some(first), Some(last)) = (series.filled, path.first(), path.last()) {
        let ground = [(last.0, floor), (first.0, floor)];
        plot.polygon(path.iter().copied().chain(ground).collect(), series.colour, 0.14)?;
    }
    if path.len() > 1 {
        plot.line(path, Pen::new(series.colour, 2.0).dashed(series.dashed))?;
    }
    Ok(())
}

/// The corners of a staircase in which each value holds until the next.
fn stepped(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut path: Vec<(f64, f64)> = Vec::with_capacity(points.len() * 2);
    for (x, y) in points {
        if let Some((_, before)) = path.last().copied() {
            path.push((*x, before));
        }
        path.push((*x, *y));
    }
    path
}
