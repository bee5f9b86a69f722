//! Charts as self-contained SVG texts, and the same as PNG.
//!
//! plotters maps and draws the shapes; every text is placed here, because only who knows the box of each label can
//! promise that none overlaps another. The charts know bars, lines and moments; what they mean is their caller's.
//! Values that are not finite are left out of lines and count as zero in bars. Deliberately absent: interaction,
//! logarithmic axes, and any font of the host (Noto Sans comes along as bytes).

mod bars;
mod canvas;
mod colour;
mod legend;
mod lines;
mod multiples;
mod number;
mod png;
mod terminal;
#[cfg(test)]
mod tests;
mod text;
mod timeline;

pub use colour::{Colour, replica_colour};
pub use number::{grouped, in_milliseconds};
pub use png::png;
pub use terminal::terminal_bars;

/// The width of every chart, in CSS pixels.
pub const WIDTH: f64 = 900.0;

/// A chart as the text of an SVG document: no ids, no scripts, no references, so that many fit on one HTML page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Svg(pub String);

/// Why a chart could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// plotters refused a shape.
    #[error("drawing the chart {chart:?}: {reason}")]
    Draw {
        /// The chart's title.
        chart: String,
        /// What plotters said.
        reason: String,
    },
    /// The SVG could not be turned into pixels.
    #[error("turning a chart into a PNG: {0}")]
    Raster(String),
}

/// Bars from zero: one value for each replica, policy or step.
#[derive(Clone, Debug, Default)]
pub struct BarChart {
    /// The finding or the subject, one line (cut if it is wider than the chart).
    pub title: String,
    /// What was done and how to read it; wrapped, may be empty.
    pub subtitle: String,
    /// What the bars stand for.
    pub x_label: String,
    /// What their height is, with its unit.
    pub y_label: String,
    /// From left to right.
    pub bars: Vec<Bar>,
    /// A line across all bars.
    pub mean: Option<RefLine>,
    /// A range across all bars.
    pub band: Option<Band>,
    /// Digits after the point in value labels; chosen from the values if absent.
    pub decimals: Option<u8>,
}

/// A bar.
#[derive(Clone, Debug, Default)]
pub struct Bar {
    /// Under the bar, such as a replica's name.
    pub label: String,
    /// Its height; negative and non-finite values are drawn as zero.
    pub value: f64,
    /// The prediction, drawn as a diamond beside the measurement.
    pub expected: Option<f64>,
    /// Its fill; [`replica_colour`] for replicas.
    pub colour: Colour,
}

/// A horizontal line at a value, explained in the legend.
#[derive(Clone, Debug, Default)]
pub struct RefLine {
    /// Where, in the unit of the axis.
    pub value: f64,
    /// Such as "mean 3,333".
    pub label: String,
}

/// A horizontal range of values, explained in the legend.
#[derive(Clone, Debug, Default)]
pub struct Band {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Such as "±2σ of ideal hashing".
    pub label: String,
}

/// Lines over one axis.
#[derive(Clone, Debug, Default)]
pub struct LineChart {
    /// The finding or the subject, one line.
    pub title: String,
    /// What was done and how to read it; wrapped, may be empty.
    pub subtitle: String,
    /// What runs from left to right, with its unit.
    pub x_label: String,
    /// What the height is, with its unit.
    pub y_label: String,
    /// Numbers or names.
    pub x: Axis,
    /// The lines, drawn in this order.
    pub series: Vec<Series>,
    /// Ranges behind the lines.
    pub bands: Vec<AreaBand>,
    /// Whether the axis begins at zero even if no value is near.
    pub y_from_zero: bool,
    /// Named places along the x axis or in the plane.
    pub markers: Vec<Marker>,
    /// Digits after the point in value labels; chosen from the values if absent.
    pub decimals: Option<u8>,
}

/// What the x values of a line chart mean.
#[derive(Clone, Debug, Default)]
pub enum Axis {
    /// Numbers.
    #[default]
    Numeric,
    /// Names for x = 0, 1, 2 …
    Categories(Vec<String>),
}

/// A line.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// In the legend.
    pub name: String,
    /// Pairs of x and y by rising x; those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// Of line and points.
    pub colour: Colour,
    /// Dashed with hollow diamonds: a prediction, an optimum.
    pub dashed: bool,
    /// Each value holds until the next point, as counts do.
    pub step: bool,
    /// The ground under the line is tinted.
    pub filled: bool,
}

/// A range that changes along x.
#[derive(Clone, Debug, Default)]
pub struct AreaBand {
    /// In the legend.
    pub name: String,
    /// Triples of x, low and high by rising x.
    pub points: Vec<(f64, f64, f64)>,
    /// Of the tint.
    pub colour: Colour,
}

/// A named place in a line chart.
#[derive(Clone, Debug, Default)]
pub struct Marker {
    /// Where along x.
    pub x: f64,
    /// Where in height; without it a line from bottom to top.
    pub y: Option<f64>,
    /// Beside it.
    pub label: String,
}

/// Panels over one axis of time, with the moments of faults and of their mending.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// The finding or the subject, one line.
    pub title: String,
    /// What was done and how to read it; wrapped, may be empty.
    pub subtitle: String,
    /// The length of the time axis, from zero.
    pub seconds: f64,
    /// From top to bottom.
    pub panels: Vec<Panel>,
    /// Shown as numbered marks in a lane for each kind, and as a table below.
    pub moments: Vec<Moment>,
}

/// One strip of a timeline.
#[derive(Clone, Debug, Default)]
pub struct Panel {
    /// What it shows with its unit, such as "requests per second".
    pub title: String,
    /// A remark at the right end of the title's line, such as "0 failed of 10,000".
    pub note: String,
    /// x in seconds.
    pub series: Vec<Series>,
    /// x in seconds.
    pub bands: Vec<AreaBand>,
    /// The height of its plot in pixels; 110 if absent.
    pub height: Option<f64>,
}

/// A moment of a timeline.
#[derive(Clone, Debug)]
pub struct Moment {
    /// When, on the timeline's axis.
    pub at_seconds: f64,
    /// Which fault it belongs to, from 1: the number in its mark.
    pub fault: u32,
    /// For a [`MomentKind::Kill`] what was done to whom ("kill -9 web-1"); not shown for the others.
    pub label: String,
    /// Its lane.
    pub kind: MomentKind,
}

/// What happened at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MomentKind {
    /// The fault was injected.
    Kill,
    /// The controller or the proxy learned of it.
    Detected,
    /// The replica is no longer chosen.
    RingChanged,
    /// Its replacement was created.
    Created,
    /// Its replacement is ready.
    Ready,
}

/// Bar charts side by side on one page, with one legend.
#[derive(Clone, Debug, Default)]
pub struct SmallMultiples {
    /// The finding or the subject, one line.
    pub title: String,
    /// What was done and how to read it; wrapped, may be empty.
    pub subtitle: String,
    /// How many stand beside each other; 1 to 5.
    pub columns: u32,
    /// In reading order; each with its own title and (at most two lines of) subtitle.
    pub charts: Vec<BarChart>,
    /// Whether all have the same scale, so that heights can be compared between them.
    pub shared_scale: bool,
}
