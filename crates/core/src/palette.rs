//! The colours of replicas, by ordinal: the same on the live page and in every chart.
//!
//! Okabe and Ito's (2008), which people tell apart whatever colours they see, and a brown instead of black, which a dark
//! ground would swallow. Neighbours differ in hue and in lightness.

/// A colour in sRGB: red, green, blue.
pub type Rgb = [u8; 3];

/// How many replicas have a colour of their own; then they repeat.
pub const COLOURS: u32 = 24;

const HUES: [Rgb; 8] = [
    [0x00, 0x72, 0xb2],
    [0xe6, 0x9f, 0x00],
    [0x00, 0x9e, 0x73],
    [0xcc, 0x79, 0xa7],
    [0x56, 0xb4, 0xe9],
    [0xd5, 0x5e, 0x00],
    [0xf0, 0xe4, 0x42],
    [0x8a, 0x64, 0x4a],
];

/// The colour of a replica. From the ninth on the hues repeat, lighter, then darker, then from the start.
pub fn replica(ordinal: u32) -> Rgb {
    let hue = HUES[(ordinal % 8) as usize];
    match (ordinal % COLOURS) / 8 {
        0 => hue,
        1 => hue.map(|part| part / 2 + 128),
        _ => hue.map(|part| (u16::from(part) * 3 / 5) as u8),
    }
}

/// As in CSS: `#0072b2`.
pub fn hex([red, green, blue]: Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_colour_is_its_own_until_they_repeat() {
        assert_eq!((0..COLOURS).map(replica).collect::<BTreeSet<_>>().len(), COLOURS as usize);
        assert_eq!(replica(COLOURS), replica(0));
        assert_eq!(hex(replica(0)), "#0072b2");
    }

    #[test]
    fn no_hue_is_swallowed_by_a_dark_ground() {
        let luminance = |colour: Rgb| {
            let linear = |part: u8| {
                let value = f64::from(part) / 255.0;
                if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * linear(colour[0]) + 0.7152 * linear(colour[1]) + 0.0722 * linear(colour[2])
        };
        // The cards of the live page when it is dark. On a light ground an outline keeps yellow in sight.
        let ground = luminance([0x1d, 0x20, 0x26]);
        for ordinal in 0..8 {
            let contrast = (luminance(replica(ordinal)) + 0.05) / (ground + 0.05);
            assert!(contrast >= 3.0, "{ordinal}: {contrast:.2}");
        }
    }
}
