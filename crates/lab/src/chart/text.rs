//! Text with known extent: measured in the font that also draws it, so that boxes can be kept apart.

use std::fmt::Write as _;
use std::sync::LazyLock;

use ttf_parser::Face;

use super::canvas::Rect;
use super::colour::Colour;

/// The family that is measured. Where an HTML reader's host lacks it, `textLength` holds the width.
pub(crate) const FAMILY: &str = "Noto Sans";

/// The fonts as bytes, regular and bold (SIL Open Font License 1.1).
pub(crate) const FONT_FILES: [&[u8]; 2] = [notosans::REGULAR_TTF, notosans::BOLD_TTF];

static FACES: LazyLock<[Face<'static>; 2]> = LazyLock::new(|| {
    FONT_FILES.map(|bytes| Face::parse(bytes, 0).expect("invariant: the embedded font parses"))
});

/// The width of a text in pixels at a size in pixels. Kerning is off in the charts, so advances simply add up.
pub(crate) fn width(text: &str, size: f64, bold: bool) -> f64 {
    let face = &FACES[usize::from(bold)];
    let units = f64::from(face.units_per_em());
    let advance = |letter: char| {
        let glyph = face.glyph_index(letter).unwrap_or_default();
        f64::from(face.glyph_hor_advance(glyph).unwrap_or_default())
    };
    text.chars().map(advance).sum::<f64>() / units * size
}

/// The text, or as much of it as fits with an ellipsis.
pub(crate) fn cut(text: &str, size: f64, bold: bool, room: f64) -> String {
    if width(text, size, bold) <= room {
        return text.to_owned();
    }
    let mut kept: Vec<char> = text.chars().collect();
    while kept.pop().is_some() {
        let shorter: String = kept.iter().collect::<String>().trim_end().to_owned() + "…";
        if width(&shorter, size, bold) <= room {
            return shorter;
        }
    }
    String::new()
}

/// The text in lines that fit, broken at spaces; at most `most` lines, the last one cut.
pub(crate) fn wrap(text: &str, size: f64, bold: bool, room: f64, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if lines_full(line, word, size, bold, room) => lines.push(word.to_owned()),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    if lines.len() > most {
        let rest = lines.split_off(most.saturating_sub(1)).join(" ");
        lines.push(rest);
    }
    lines.iter().map(|line| cut(line, size, bold, room)).collect()
}

fn lines_full(line: &str, word: &str, size: f64, bold: bool, room: f64) -> bool {
    width(&format!("{line} {word}"), size, bold) > room
}

/// Text that is safe in XML: markup escaped, and what XML forbids left out.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(' '),
            control if control.is_control() || matches!(control, '\u{fffe}' | '\u{ffff}') => {}
            other => out.push(other),
        }
    }
    out
}

/// Which end of a text its position is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// A text with its place; `y` is the baseline.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    pub(crate) text: String,
    x: f64,
    y: f64,
    size: f64,
    bold: bool,
    anchor: Anchor,
    colour: Colour,
    halo: bool,
}

impl Label {
    pub(crate) fn new(text: impl Into<String>, x: f64, y: f64, size: f64) -> Self {
        let text = text.into();
        Self { text, x, y, size, bold: false, anchor: Anchor::Start, colour: Colour::INK, halo: false }
    }

    pub(crate) fn bold(mut self) -> Self {
        self.bold = true;
        self
    }

    pub(crate) fn at_x(mut self, x: f64) -> Self {
        self.x = x;
        self
    }

    pub(crate) fn at_y(mut self, y: f64) -> Self {
        self.y = y;
        self
    }

    pub(crate) fn anchor(mut self, anchor: Anchor) -> Self {
        self.anchor = anchor;
        self
    }

    pub(crate) fn colour(mut self, colour: Colour) -> Self {
        self.colour = colour;
        self
    }

    /// A white rim, for text that lies over lines.
    pub(crate) fn halo(mut self) -> Self {
        self.halo = true;
        self
    }

    /// The box that the letters may fill.
    pub(crate) fn extent(&self) -> Rect {
        let width = width(&self.text, self.size, self.bold);
        let left = match self.anchor {
            Anchor::Start => self.x,
            Anchor::Middle => self.x - width / 2.0,
            Anchor::End => self.x - width,
        };
        Rect { left, top: self.y - 0.78 * self.size, right: left + width, bottom: self.y + 0.24 * self.size }
    }

    fn write(&self, out: &mut String) {
        let extent = self.extent();
        let width = extent.right - extent.left;
        let weight = if self.bold { " font-weight=\"700\"" } else { "" };
        let halo = if self.halo {
            " stroke=\"#ffffff\" stroke-width=\"3\" stroke-linejoin=\"round\" paint-order=\"stroke\""
        } else {
            ""
        };
        // The measured length keeps boxes true where a reader's host draws another font.
        writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"{}\"{weight} fill=\"{}\"{halo} textLength=\"{width:.1}\" \
             lengthAdjust=\"spacingAndGlyphs\">{}</text>",
            extent.left,
            self.y,
            self.size,
            self.colour.hex(),
            escaped(&self.text),
        )
        .expect("invariant: writing to a String does not fail");
    }
}

/// All texts of a chart; drawn above its shapes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts(Vec<Label>);

impl Texts {
    /// Adds a text; one without letters is none.
    pub(crate) fn put(&mut self, label: Label) {
        if !label.text.trim().is_empty() {
            self.0.push(label);
        }
    }

    /// Adds a text unless it would touch another; says whether it did.
    pub(crate) fn put_if_free(&mut self, label: Label) -> bool {
        let extent = label.extent().grown(2.0);
        let free = !self.0.iter().any(|other| other.extent().overlaps(extent));
        if free {
            self.put(label);
        }
        free
    }

    #[cfg(test)]
    pub(crate) fn labels(&self) -> &[Label] {
        &self.0
    }

    pub(crate) fn svg(&self) -> String {
        let mut out = String::new();
        for label in &self.0 {
            label.write(&mut out);
        }
        out
    }
}
