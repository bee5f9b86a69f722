//! The sheet: shapes by plotters, texts by us, one SVG.
//!
//! plotters counts in whole pixels, so it draws on a sheet ten times finer, and an SVG group scales that down.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::element::{Circle, DashedPathElement, PathElement, Polygon, Rectangle};
use plotters::prelude::{Cartesian2d, ChartBuilder, DrawingArea, IntoDrawingArea, SVGBackend};
use plotters::style::{Color, RGBAColor, RGBColor, ShapeStyle};

use super::colour::Colour;
use super::text::{FAMILY, Texts, escaped};
use super::{ChartError, Svg, WIDTH};

/// Steps of plotters' sheet for each pixel.
const FINE: f64 = 10.0;
/// No chart is taller, in pixels.
const TALLEST: f64 = 20_000.0;

/// A box in pixels, y downwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rect {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) right: f64,
    pub(crate) bottom: f64,
}

impl Rect {
    pub(crate) fn new(left: f64, top: f64, right: f64, bottom: f64) -> Self {
        Self { left, top, right, bottom }
    }

    pub(crate) fn width(self) -> f64 {
        self.right - self.left
    }

    pub(crate) fn height(self) -> f64 {
        self.bottom - self.top
    }

    pub(crate) fn grown(self, by: f64) -> Self {
        Self::new(self.left - by, self.top - by, self.right + by, self.bottom + by)
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pen {
    colour: Colour,
    /// In pixels.
    width: f64,
    alpha: f64,
    dashed: bool,
}

impl Pen {
    pub(crate) fn new(colour: Colour, width: f64) -> Self {
        Self { colour, width, alpha: 1.0, dashed: false }
    }

    pub(crate) fn alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }

    pub(crate) fn dashed(mut self, dashed: bool) -> Self {
        self.dashed = dashed;
        self
    }

    fn style(self) -> ShapeStyle {
        let width = (self.width * FINE).round().max(1.0) as u32;
        tint(self.colour, self.alpha).stroke_width(width)
    }
}

fn tint(colour: Colour, alpha: f64) -> RGBAColor {
    RGBColor(colour.red, colour.green, colour.blue).mix(alpha)
}

fn fine(pixels: f64) -> i32 {
    (pixels * FINE).round() as i32
}

/// What plotters' SVG backend reports; it writes into memory.
pub(crate) type PlotError = plotters::drawing::DrawingAreaErrorKind<std::io::Error>;

/// A drawing in the making. Its methods take pixels.
pub(crate) struct Canvas<'a> {
    root: DrawingArea<SVGBackend<'a>, Shift>,
    pub(crate) texts: Texts,
}

/// A finished drawing.
pub(crate) struct Drawing {
    pub(crate) svg: Svg,
    #[cfg(test)]
    pub(crate) texts: Texts,
    #[cfg(test)]
    pub(crate) height: f64,
}

/// Draws a chart whose height `paint` returns; `title` names it for those who listen.
pub(crate) fn draw(
    title: &str,
    paint: impl FnOnce(&mut Canvas<'_>) -> Result<f64, PlotError>,
) -> Result<Drawing, ChartError> {
    let mut shapes = String::new();
    let fail = |error: PlotError| ChartError::Draw { chart: title.to_owned(), reason: error.to_string() };
    let (texts, height) = paint_into(&mut shapes, paint).map_err(fail)?;
    // Only the shapes are wanted: the document around them is ours.
    let inner = shapes.split_once('>').map_or("", |(_, rest)| rest);
    let inner = inner.rsplit_once("</svg>").map_or(inner, |(inner, _)| inner).trim();
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         role=\"img\" aria-label=\"{}\" font-family=\"'{FAMILY}', 'Segoe UI', Helvetica, Arial, sans-serif\" \
         font-kerning=\"none\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <g transform=\"scale({})\">\n{inner}\n</g>\n{}</svg>\n",
        escaped(title),
        1.0 / FINE,
        texts.svg(),
    );
    Ok(Drawing {
        svg: Svg(svg),
        #[cfg(test)]
        texts,
        #[cfg(test)]
        height,
    })
}

/// Writes plotters' SVG of what `paint` draws; returns its texts and its height.
fn paint_into(
    shapes: &mut String,
    paint: impl FnOnce(&mut Canvas<'_>) -> Result<f64, PlotError>,
) -> Result<(Texts, f64), PlotError> {
    let backend = SVGBackend::with_string(shapes, (fine(WIDTH) as u32, fine(TALLEST) as u32));
    let mut canvas = Canvas { root: backend.into_drawing_area(), texts: Texts::default() };
    let height = paint(&mut canvas)?.ceil();
    canvas.root.present()?;
    Ok((canvas.texts, height))
}

impl<'a> Canvas<'a> {
    /// A plane of values in a box of pixels. Both ranges must be finite and not empty.
    pub(crate) fn plot(
        &self,
        at: Rect,
        x: std::ops::Range<f64>,
        y: std::ops::Range<f64>,
    ) -> Result<Plot<'a>, PlotError> {
        let part =
            self.root.clone().shrink((fine(at.left), fine(at.top)), (fine(at.width()), fine(at.height())));
        let chart = ChartBuilder::on(&part).build_cartesian_2d(x, y)?;
        Ok(Plot { area: chart.plotting_area().clone(), at })
    }

    pub(crate) fn fill(&self, at: Rect, colour: Colour, alpha: f64) -> Result<(), PlotError> {
        let corners = [(fine(at.left), fine(at.top)), (fine(at.right), fine(at.bottom))];
        self.root.draw(&Rectangle::new(corners, tint(colour, alpha).filled()))
    }

    pub(crate) fn line(&self, points: &[(f64, f64)], pen: Pen) -> Result<(), PlotError> {
        let points: Vec<_> = points.iter().map(|(x, y)| (fine(*x), fine(*y))).collect();
        if pen.dashed {
            return self.root.draw(&DashedPathElement::new(points, fine(5.0), fine(3.5), pen.style()));
        }
        self.root.draw(&PathElement::new(points, pen.style()))
    }

    pub(crate) fn disc(&self, x: f64, y: f64, radius: f64, colour: Colour) -> Result<(), PlotError> {
        self.root.draw(&Circle::new((fine(x), fine(y)), fine(radius), tint(colour, 1.0).filled()))
    }

    /// A hollow diamond: a prediction.
    pub(crate) fn diamond(&self, x: f64, y: f64, radius: f64, colour: Colour) -> Result<(), PlotError> {
        let corners = [(x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y)];
        let fill: Vec<_> = corners.iter().map(|(x, y)| (fine(*x), fine(*y))).collect();
        self.root.draw(&Polygon::new(fill, tint(Colour::WHITE, 1.0).filled()))?;
        // One corner more than the outline has, so that its last angle is closed.
        let outline: Vec<_> = corners.iter().cycle().take(6).copied().collect();
        self.line(&outline, Pen::new(colour, 1.6))
    }
}

/// A plane of values. Its methods take values.
pub(crate) struct Plot<'a> {
    area: DrawingArea<SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>,
    pub(crate) at: Rect,
}

impl Plot<'_> {
    /// Where a pair of values is, in pixels of the canvas.
    pub(crate) fn pixel(&self, x: f64, y: f64) -> (f64, f64) {
        let (x, y) = self.area.map_coordinate(&(x, y));
        (f64::from(x) / FINE, f64::from(y) / FINE)
    }

    pub(crate) fn fill(
        &self,
        x: (f64, f64),
        y: (f64, f64),
        colour: Colour,
        alpha: f64,
    ) -> Result<(), PlotError> {
        self.area.draw(&Rectangle::new([(x.0, y.1), (x.1, y.0)], tint(colour, alpha).filled()))
    }

    pub(crate) fn line(&self, points: Vec<(f64, f64)>, pen: Pen) -> Result<(), PlotError> {
        if pen.dashed {
            return self.area.draw(&DashedPathElement::new(points, fine(5.0), fine(3.5), pen.style()));
        }
        self.area.draw(&PathElement::new(points, pen.style()))
    }

    pub(crate) fn polygon(
        &self,
        corners: Vec<(f64, f64)>,
        colour: Colour,
        alpha: f64,
    ) -> Result<(), PlotError> {
        self.area.draw(&Polygon::new(corners, tint(colour, alpha).filled()))
    }
}
