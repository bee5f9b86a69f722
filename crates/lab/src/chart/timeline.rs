//! Timelines: panels over one axis of time, a lane of marks for each kind of moment, and a table of them below.
//!
//! A fault's moments lie milliseconds apart on an axis of seconds. Labels at their places would cover each other, so
//! each kind has a lane, each mark the number of its fault, and the table below says what it was and how long it took.

use std::collections::BTreeMap;

use super::canvas::{self, Canvas, Drawing, Pen, Plot, PlotError, Rect};
use super::colour::Colour;
use super::legend::{self, BODY, MARGIN, TICK};
use super::lines::{area, entries, good, good_band, lines as draw_lines, spread, y_axis};
use super::number::{self, Ticks};
use super::text::{self, Anchor, Label};
use super::{ChartError, Moment, MomentKind, Panel, Svg, Timeline, WIDTH};

const LANE: f64 = 20.0;
const RADIUS: f64 = 8.0;
const PANEL: f64 = 110.0;
/// In the order in which they happen.
const KINDS: [MomentKind; 5] =
    [MomentKind::Kill, MomentKind::Detected, MomentKind::RingChanged, MomentKind::Created, MomentKind::Ready];

impl MomentKind {
    /// The name of its lane.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "fault",
            Self::Detected => "detected",
            Self::RingChanged => "out of ring",
            Self::Created => "created",
            Self::Ready => "ready",
        }
    }

    const fn colour(self) -> Colour {
        match self {
            Self::Kill => Colour::VERMILLION,
            Self::Detected => Colour::ORANGE,
            Self::RingChanged => Colour::PURPLE,
            Self::Created => Colour::SKY,
            Self::Ready => Colour::GREEN,
        }
    }
}

impl Timeline {
    /// The chart, 900 pixels wide and as tall as its panels and moments need.
    ///
    /// # Errors
    /// When plotters refuses a shape.
    pub fn svg(&self) -> Result<Svg, ChartError> {
        self.drawing().map(|drawing| drawing.svg)
    }

    pub(crate) fn drawing(&self) -> Result<Drawing, ChartError> {
        canvas::draw(&self.title, |canvas| {
            let top = legend::header(canvas, &self.title, &self.subtitle, &[])? + 12.0;
            let moments = self.moments();
            let left = MARGIN + self.gutter(&moments);
            let right = WIDTH - MARGIN - 8.0;
            let mut y = lanes(canvas, &moments, Rect::new(left, top, right, top), self.span())?;
            for panel in &self.panels {
                y = self.panel(canvas, panel, &moments, Rect::new(left, y, right, y))?;
            }
            y = self.time_axis(canvas, Rect::new(left, y, right, y))?;
            table(canvas, &moments, y + 10.0)
        })
    }

    /// The length of the axis; 1 s where none is given.
    fn span(&self) -> f64 {
        if self.seconds.is_finite() && self.seconds > 0.0 { self.seconds.min(1e9) } else { 1.0 }
    }

    /// The moments that can be shown, by time.
    fn moments(&self) -> Vec<&Moment> {
        let mut moments: Vec<_> =
            self.moments.iter().filter(|moment| moment.at_seconds.is_finite()).collect();
        moments.sort_by(|a, b| a.at_seconds.total_cmp(&b.at_seconds).then(a.kind.cmp(&b.kind)));
        moments
    }

    /// The room left of the axis of time, for the names of lanes and the ticks of panels.
    fn gutter(&self, moments: &[&Moment]) -> f64 {
        let lanes = moments.iter().map(|moment| text::width(moment.kind.name(), TICK, false));
        let ticks = self.panels.iter().flat_map(|panel| {
            panel.ticks().texts().map(|(_, text)| text::width(&text, TICK, false)).collect::<Vec<_>>()
        });
        lanes.chain(ticks).fold(0.0, f64::max) + 14.0
    }

    fn panel(
        &self,
        canvas: &mut Canvas<'_>,
        panel: &Panel,
        moments: &[&Moment],
        at: Rect,
    ) -> Result<f64, PlotError> {
        let title = text::cut(&panel.title, BODY, true, at.right - MARGIN);
        let mut x = MARGIN + text::width(&title, BODY, true) + 18.0;
        let baseline = at.top + 24.0;
        canvas.texts.put(Label::new(title, MARGIN, baseline, BODY).bold());
        let note = text::cut(&panel.note, BODY, false, (at.right - x).max(0.0));
        let note_left = at.right - text::width(&note, BODY, false);
        let label = Label::new(note, at.right, baseline, BODY).anchor(Anchor::End);
        canvas.texts.put(label.colour(Colour::MUTED));
        let entries = entries(&panel.series, &panel.bands);
        let mut top = at.top + 34.0;
        if !entries.is_empty() {
            // The legend stands in the title's line; where that is too short, in rows of its own.
            let width = legend::width(&entries);
            if x + width > note_left - 14.0 {
                x = MARGIN;
                top = legend::legend(canvas, &entries, Rect::new(x, at.top + 24.0, at.right, at.top))? + 6.0;
            } else {
                legend::legend(canvas, &entries, Rect::new(x, baseline - 22.0, at.right, at.top))?;
            }
        }
        let plot_at =
            Rect::new(at.left, top, at.right, top + panel.height.unwrap_or(PANEL).clamp(30.0, 600.0));
        let range = panel.range();
        let plot = canvas.plot(plot_at, 0.0..self.span(), range.clone())?;
        y_axis(canvas, &plot, &panel.ticks(), range.start)?;
        self.outages(canvas, &plot, moments)?;
        for band in &panel.bands {
            area(&plot, band)?;
        }
        let ground = [(plot_at.left, plot_at.bottom), (plot_at.right, plot_at.bottom)];
        canvas.line(&ground, Pen::new(Colour::AXIS, 1.2))?;
        draw_lines(canvas, &plot, &panel.series, range.start.max(0.0))?;
        Ok(plot_at.bottom)
    }

    /// A tint from each fault to its end, and a line at the fault itself.
    fn outages(&self, canvas: &Canvas<'_>, plot: &Plot<'_>, moments: &[&Moment]) -> Result<(), PlotError> {
        for (_, of_fault) in by_fault(moments) {
            let Some((from, until)) = first_and_last(&of_fault) else { continue };
            let x = |seconds: f64| plot.pixel(seconds.clamp(0.0, self.span()), 0.0).0;
            let tint = Rect::new(x(from), plot.at.top, x(until).max(x(from) + 1.0), plot.at.bottom);
            canvas.fill(tint, Colour::VERMILLION, 0.1)?;
            let top = (x(from), plot.at.top);
            canvas.line(&[top, (x(from), plot.at.bottom)], Pen::new(Colour::VERMILLION, 1.1).alpha(0.8))?;
        }
        Ok(())
    }

    fn time_axis(&self, canvas: &mut Canvas<'_>, at: Rect) -> Result<f64, PlotError> {
        let ticks = Ticks::within(0.0, self.span(), 10, false);
        for (seconds, text) in ticks.texts() {
            let x = at.left + at.width() * seconds / self.span();
            canvas.line(&[(x, at.top), (x, at.top + 4.0)], Pen::new(Colour::AXIS, 1.0))?;
            let label = Label::new(text, x, at.top + 18.0, TICK).anchor(Anchor::Middle);
            canvas.texts.put_if_free(label.colour(Colour::MUTED));
        }
        let label =
            Label::new("seconds since the load began", f64::midpoint(at.left, at.right), at.top + 36.0, TICK);
        canvas.texts.put(label.anchor(Anchor::Middle).colour(Colour::MUTED));
        Ok(at.top + 44.0)
    }
}

impl Panel {
    fn range(&self) -> std::ops::Range<f64> {
        let points = self.series.iter().flat_map(|series| good(&series.points)).map(|(_, y)| y);
        let bands = self.bands.iter().flat_map(good_band).flat_map(|(_, low, high)| [low, high]);
        let range = spread(points.chain(bands), true, 0.12);
        // A panel of zeros, such as one of failures, shows its one line at the bottom of a scale to 1.
        if range.start >= 0.0 && range.end < 1.0 && self.whole() { 0.0..1.1 } else { range }
    }

    fn whole(&self) -> bool {
        self.series.iter().flat_map(|series| good(&series.points)).all(|(_, y)| y.fract() == 0.0)
    }

    fn ticks(&self) -> Ticks {
        let range = self.range();
        let wanted = (self.height.unwrap_or(PANEL) / 25.0).clamp(1.0, 8.0) as usize;
        Ticks::within(range.start, range.end, wanted, self.whole())
    }
}

fn by_fault<'a>(moments: &[&'a Moment]) -> BTreeMap<u32, Vec<&'a Moment>> {
    let mut faults: BTreeMap<u32, Vec<&Moment>> = BTreeMap::new();
    for moment in moments {
        faults.entry(moment.fault).or_default().push(moment);
    }
    faults
}

fn first_and_last(moments: &[&Moment]) -> Option<(f64, f64)> {
    Some((moments.first()?.at_seconds, moments.last()?.at_seconds))
}

/// The marks of each kind in a lane of its own; returns where the lanes end.
fn lanes(canvas: &mut Canvas<'_>, moments: &[&Moment], at: Rect, span: f64) -> Result<f64, PlotError> {
    let mut y = at.top;
    for kind in KINDS {
        let mut marks: Vec<(u32, f64)> = Vec::new();
        for moment in moments.iter().filter(|moment| moment.kind == kind) {
            let x = at.left + at.width() * (moment.at_seconds / span).clamp(0.0, 1.0);
            let twin =
                marks.iter().any(|(fault, other)| *fault == moment.fault && (x - other).abs() < 2.0 * RADIUS);
            if !twin {
                marks.push((moment.fault, x));
            }
        }
        if marks.is_empty() {
            continue;
        }
        let middle = y + LANE / 2.0;
        canvas.line(&[(at.left, middle), (at.right, middle)], Pen::new(Colour::GRID, 1.0))?;
        let label = Label::new(kind.name(), at.left - 10.0, middle + 0.35 * TICK, TICK);
        canvas.texts.put(label.anchor(Anchor::End).colour(Colour::MUTED));
        let places = apart(&marks.iter().map(|(_, x)| *x).collect::<Vec<_>>(), 2.0 * RADIUS + 1.0, at.right);
        for ((fault, x), place) in marks.iter().zip(places) {
            // Where a mark had to move, a stem shows its true moment.
            canvas.line(&[(*x, middle - RADIUS), (*x, middle + RADIUS)], Pen::new(kind.colour(), 1.6))?;
            badge(canvas, *fault, place, middle, kind.colour())?;
        }
        y += LANE;
    }
    Ok(y)
}

/// A disc with a number in it.
fn badge(canvas: &mut Canvas<'_>, number: u32, x: f64, y: f64, colour: Colour) -> Result<(), PlotError> {
    canvas.disc(x, y, RADIUS, colour)?;
    let size = if number < 100 { 10.5 } else { 8.0 };
    let label = Label::new(number.to_string(), x, y + 0.36 * size, size).bold().anchor(Anchor::Middle);
    canvas.texts.put_if_free(label.colour(colour.readable_text()));
    Ok(())
}

/// Places as near to rising `xs` as a distance between them allows, none beyond `right`.
pub(crate) fn apart(xs: &[f64], distance: f64, right: f64) -> Vec<f64> {
    let mut places: Vec<f64> = Vec::with_capacity(xs.len());
    for x in xs {
        places.push(places.last().map_or(*x, |before| x.max(before + distance)));
    }
    let mut limit = right;
    for place in places.iter_mut().rev() {
        *place = place.min(limit);
        limit = *place - distance;
    }
    places
}

/// What each number means, and how long after its fault each moment came.
fn table(canvas: &mut Canvas<'_>, moments: &[&Moment], top: f64) -> Result<f64, PlotError> {
    let faults = by_fault(moments);
    if faults.is_empty() {
        return Ok(top);
    }
    let shown: Vec<MomentKind> =
        KINDS[1..].iter().copied().filter(|kind| moments.iter().any(|moment| moment.kind == *kind)).collect();
    let (first, last) = (MARGIN + 26.0, WIDTH - MARGIN - 4.0);
    let column = 128.0;
    let names_end = last - column * shown.len() as f64;
    let right = |index: usize| names_end + column * (index + 1) as f64;
    let mut y = top + 16.0;
    canvas.texts.put(Label::new("fault", first, y, TICK).colour(Colour::MUTED));
    for (index, kind) in shown.iter().enumerate() {
        let label = Label::new(format!("{} after", kind.name()), right(index), y, TICK).anchor(Anchor::End);
        canvas.texts.put(label.colour(Colour::MUTED));
        let x = right(index) - text::width(&format!("{} after", kind.name()), TICK, false) - 9.0;
        canvas.disc(x, y - 4.0, 4.0, kind.colour())?;
    }
    for (fault, of_fault) in faults {
        canvas.line(&[(MARGIN, y + 6.0), (WIDTH - MARGIN, y + 6.0)], Pen::new(Colour::GRID, 1.0))?;
        y += 22.0;
        badge(canvas, fault, MARGIN + 10.0, y - 4.5, MomentKind::Kill.colour())?;
        let kills: Vec<&Moment> =
            of_fault.iter().copied().filter(|moment| moment.kind == MomentKind::Kill).collect();
        let mut what: Vec<&str> = kills.iter().map(|moment| moment.label.as_str()).collect();
        what.dedup();
        let begin = kills.first().or_else(|| of_fault.first()).map_or(0.0, |moment| moment.at_seconds);
        let what = format!("{} at {} s", what.join(", "), number::grouped(begin, 2));
        canvas.texts.put(Label::new(text::cut(&what, BODY, false, names_end - first - 8.0), first, y, BODY));
        for (index, kind) in shown.iter().enumerate() {
            let after = of_fault.iter().filter(|moment| moment.kind == *kind);
            let after = delays(after.map(|moment| moment.at_seconds - begin));
            let label = Label::new(text::cut(&after, BODY, false, column - 10.0), right(index), y, BODY);
            canvas.texts.put(label.anchor(Anchor::End));
        }
    }
    Ok(y + MARGIN - 4.0)
}

/// "4.1 ms", "4.1–9.7 ms" for several, "–" for none.
fn delays(seconds: impl Iterator<Item = f64>) -> String {
    let all: Vec<f64> = seconds.collect();
    let (Some(first), Some(last)) = (all.first(), all.last()) else { return "–".to_owned() };
    let (first, last) = (number::in_milliseconds(*first), number::in_milliseconds(*last));
    match (first.rsplit_once(' '), last.rsplit_once(' ')) {
        _ if first == last => first,
        (Some((low, unit)), Some((high, same))) if unit == same => format!("{low}–{high} {unit}"),
        _ => format!("{first} – {last}"),
    }
}
