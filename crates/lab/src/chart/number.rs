//! Numbers as people read them, and the ticks of an axis.

/// A number with thousands separators: `grouped(8437.0, 0)` is "8,437". Not finite is "–".
#[must_use]
pub fn grouped(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(w, f)| (w, Some(f)));
    let mut out = String::new();
    // A value that rounds to zero has no sign.
    if value < 0.0 && text.bytes().any(|digit| (b'1'..=b'9').contains(&digit)) {
        out.push('−');
    }
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// A span of seconds as "0.42 ms", "4.2 ms", "438 ms" or "1.24 s".
#[must_use]
pub fn in_milliseconds(seconds: f64) -> String {
    let ms = seconds * 1e3;
    match ms.abs() {
        size if size >= 1e3 => format!("{} s", grouped(seconds, 2)),
        size if size >= 99.5 => format!("{} ms", grouped(ms, 0)),
        size if size >= 1.0 => format!("{} ms", grouped(ms, 1)),
        _ => format!("{} ms", grouped(ms, 2)),
    }
}

/// Few characters: "950", "12k", "1.2M"; beyond that with an exponent.
pub(crate) fn compact(value: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let size = value.abs();
    if !value.is_finite() {
        return grouped(value, 0);
    }
    if size >= 1e15 {
        return format!("{value:.1e}");
    }
    for (unit, letter) in UNITS {
        // 999,950 would otherwise be shown as 1000.0k.
        if size >= unit * 0.999_5 {
            let scaled = value / unit;
            let decimals = usize::from(scaled.abs() < 99.95 && (scaled * 10.0).round() % 10.0 != 0.0);
            return format!("{}{letter}", grouped(scaled, decimals));
        }
    }
    short(value)
}

/// Three significant digits without needless zeros.
fn short(value: f64) -> String {
    let text = grouped(value, significant_decimals(value.abs(), 3));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Digits after the point that show `value` to so many significant digits; at most 9.
fn significant_decimals(value: f64, digits: i32) -> usize {
    if value <= 0.0 || !value.is_finite() {
        return 0;
    }
    (digits - 1 - value.log10().floor() as i32).clamp(0, 9) as usize
}

/// The digits after the point with which values can stand beside each other: none for counts, otherwise four
/// significant digits of the largest, or fewer where fewer show every value exactly.
pub(crate) fn common_decimals(values: impl Iterator<Item = f64>) -> usize {
    let values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    let largest = values.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    if largest >= 1000.0 {
        return 0;
    }
    let most = significant_decimals(largest, 4);
    let exact = |decimals: &usize| {
        let scale = 10_f64.powi(*decimals as i32);
        values.iter().all(|value| ((value * scale).round() / scale - value).abs() <= 1e-12 * largest)
    };
    (0..most).find(exact).unwrap_or(most)
}

/// A value for a label: grouped while that is short, compact for what is huge.
pub(crate) fn label(value: f64, decimals: usize) -> String {
    if value.abs() >= 1e9 { compact(value) } else { grouped(value, decimals) }
}

/// The marked values of an axis, and how to write them.
#[derive(Clone, Debug)]
pub(crate) struct Ticks {
    pub(crate) values: Vec<f64>,
    decimals: usize,
}

impl Ticks {
    /// Round values between `low` and `high` (which must be finite and apart), about `wanted` of them.
    pub(crate) fn within(low: f64, high: f64, wanted: usize, whole: bool) -> Self {
        let rough = (high - low) / wanted.max(1) as f64;
        let magnitude = 10_f64.powf(rough.log10().floor());
        let factor = [1.0, 2.0, 2.5, 5.0, 10.0]
            .into_iter()
            .find(|factor| {
                let fits_whole = !whole || (factor * magnitude).fract() == 0.0;
                factor * magnitude >= rough * 0.999_999 && fits_whole
            })
            .unwrap_or(10.0);
        let step = if whole { (factor * magnitude).max(1.0) } else { factor * magnitude };
        let first = (low / step - 1e-9).ceil();
        let count = ((high / step + 1e-9).floor() - first).clamp(0.0, 200.0) as u32;
        let values = (0..=count).map(|index| (first + f64::from(index)) * step).collect();
        let decimals = (0..9)
            .find(|d| {
                let s = step * 10_f64.powi(*d);
                (s - s.round()).abs() < 1e-6 * s
            })
            .unwrap_or(9);
        Self { values, decimals: decimals as usize }
    }

    /// How a marked value is written.
    pub(crate) fn text(&self, value: f64) -> String {
        if value.abs() >= 1e6 { compact(value) } else { grouped(value, self.decimals) }
    }

    /// The texts of all.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (f64, String)> + '_ {
        self.values.iter().map(|value| (*value, self.text(*value)))
    }
}
