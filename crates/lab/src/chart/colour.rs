//! Colours that people with any colour vision can tell apart (Okabe and Ito, 2008).

use ringmaster_core::palette;

/// A colour in sRGB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Colour {
    /// 0 to 255.
    pub red: u8,
    /// 0 to 255.
    pub green: u8,
    /// 0 to 255.
    pub blue: u8,
}

impl Colour {
    /// Okabe–Ito blue.
    pub const BLUE: Self = Self::rgb(0x00, 0x72, 0xb2);
    /// Okabe–Ito orange.
    pub const ORANGE: Self = Self::rgb(0xe6, 0x9f, 0x00);
    /// Okabe–Ito bluish green: what went well.
    pub const GREEN: Self = Self::rgb(0x00, 0x9e, 0x73);
    /// Okabe–Ito reddish purple.
    pub const PURPLE: Self = Self::rgb(0xcc, 0x79, 0xa7);
    /// Okabe–Ito sky blue.
    pub const SKY: Self = Self::rgb(0x56, 0xb4, 0xe9);
    /// Okabe–Ito vermillion: failures and faults.
    pub const VERMILLION: Self = Self::rgb(0xd5, 0x5e, 0x00);
    /// Okabe–Ito yellow.
    pub const YELLOW: Self = Self::rgb(0xf0, 0xe4, 0x42);
    /// A grey that reads as neutral: what stands for no replica in particular, optima, predictions.
    pub const GREY: Self = Self::rgb(0x7a, 0x85, 0x8e);
    /// Text and marks.
    pub const INK: Self = Self::rgb(0x1b, 0x25, 0x2d);
    /// Secondary text.
    pub const MUTED: Self = Self::rgb(0x55, 0x61, 0x6b);
    /// The line on which bars stand.
    pub const AXIS: Self = Self::rgb(0x8a, 0x96, 0x9f);
    /// Grid lines.
    pub const GRID: Self = Self::rgb(0xe4, 0xe8, 0xeb);
    /// The ground.
    pub const WHITE: Self = Self::rgb(0xff, 0xff, 0xff);

    /// A colour by its parts.
    #[must_use]
    pub const fn rgb(red: u8, green: u8, blue: u8) -> Self {
        Self { red, green, blue }
    }

    /// As in CSS: `#0072b2`.
    #[must_use]
    pub fn hex(self) -> String {
        format!("#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }

    /// This colour with a share (0 to 1) of another mixed in.
    #[must_use]
    pub fn mixed(self, other: Self, share: f64) -> Self {
        let mix = |a: u8, b: u8| {
            let value = f64::from(a) + (f64::from(b) - f64::from(a)) * share.clamp(0.0, 1.0);
            value.round() as u8
        };
        Self::rgb(mix(self.red, other.red), mix(self.green, other.green), mix(self.blue, other.blue))
    }

    /// Relative luminance as WCAG defines it, 0 to 1.
    pub(crate) fn luminance(self) -> f64 {
        let linear = |part: u8| {
            let value = f64::from(part) / 255.0;
            if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(self.red) + 0.7152 * linear(self.green) + 0.0722 * linear(self.blue)
    }

    /// Ink or white, whichever is easier to read on this colour.
    pub(crate) fn readable_text(self) -> Self {
        let contrast = |a: f64, b: f64| (a.max(b) + 0.05) / (a.min(b) + 0.05);
        let ground = self.luminance();
        if contrast(ground, Self::INK.luminance()) >= contrast(ground, 1.0) { Self::INK } else { Self::WHITE }
    }
}

/// The colour of a replica by its ordinal: the same in every chart, and on the live page.
#[must_use]
pub fn replica_colour(ordinal: u32) -> Colour {
    let [red, green, blue] = palette::replica(ordinal);
    Colour::rgb(red, green, blue)
}
