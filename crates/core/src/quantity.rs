//! Quantities as people write them: durations (`500ms`), processor shares (`250m`), memory (`64Mi`), factors
//! (`1.25`), shares (`20%`), amounts (`2` or `25%`).
//!
//! Each keeps one meaning and one canonical spelling, so that a manifest and what `get -o yaml` prints agree.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Text that is not the quantity that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// Not a duration.
    #[error("`{0}` is not a duration: write a whole number and a unit, such as 250ms, 30s, 2m or 1h")]
    Duration(String),
    /// Not a share of a processor.
    #[error("`{0}` is not a cpu quantity: write cores (2, 0.5) or thousandths of a core (500m)")]
    Cpu(String),
    /// Not an amount of memory.
    #[error("`{0}` is not a memory quantity: write bytes or use Ki, Mi, Gi, k, M or G, such as 64Mi")]
    Memory(String),
    /// Not a factor.
    #[error("`{0}` is not a factor: write a number from 1 to 10 with at most three decimals, such as 1.25")]
    Factor(String),
    /// Not a share of a hundred.
    #[error("`{0}` is not a percentage: write a whole number from 0% to 100%, such as 20%")]
    Percent(String),
    /// Neither a count nor a share of a hundred.
    #[error("`{0}` is neither a count nor a percentage: write a whole number up to 1000, or one such as 25%")]
    Amount(String),
}

/// A length of time, written as a whole number and a unit: `ms`, `s`, `m` or `h`; at most a year.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// A share of processor time in thousandths of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu {
    /// Thousandths of a core.
    pub millicores: u32,
}

/// A factor from 1 to 10 in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Factor {
    /// Thousandths.
    pub thousandths: u32,
}

/// A share in hundredths, from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(pub u8);

/// So many of a whole: a count, or a share of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Amount {
    /// So many, up to [`Amount::COUNT_MAX`].
    Count(u32),
    /// A share.
    Share(Percent),
}

/// An amount of memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Memory {
    /// Bytes.
    pub bytes: u64,
}

const SPAN_MS_MAX: u64 = 366 * 24 * 3_600_000;
const SPAN_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const MEMORY_UNITS: [(&str, u64); 9] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
    ("", 1),
];

impl Span {
    /// `ms` milliseconds.
    pub const fn from_millis(ms: u64) -> Span {
        Span(Duration::from_millis(ms))
    }
}

impl Percent {
    /// Whether it is nothing.
    pub(crate) fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

impl FromStr for Span {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split_unit(text);
        let parse = || {
            let (_, unit_ms) = SPAN_UNITS.iter().find(|(name, _)| *name == unit)?;
            let ms = number.parse::<u64>().ok()?.checked_mul(*unit_ms)?;
            (ms <= SPAN_MS_MAX).then(|| Span::from_millis(ms))
        };
        parse().ok_or_else(|| QuantityError::Duration(text.to_owned()))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis() as u64;
        let (unit, unit_ms) = SPAN_UNITS
            .iter()
            .find(|(_, unit_ms)| ms > 0 && ms.is_multiple_of(*unit_ms))
            .unwrap_or(&("s", 1_000));
        write!(f, "{}{unit}", ms / unit_ms)
    }
}

/// A decimal number with at most three decimals, in thousandths.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return None;
    }
    let thousandths: u32 = format!("{fraction:0<3}").parse().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(1_000)?.checked_add(thousandths)
}

impl FromStr for Factor {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let factor = thousandths(text).filter(|factor| (1_000..=10_000).contains(factor));
        let factor = factor.map(|thousandths| Factor { thousandths });
        factor.ok_or_else(|| QuantityError::Factor(text.to_owned()))
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.thousandths) / 1_000.0)
    }
}

impl FromStr for Percent {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let digits = text.strip_suffix('%').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse().ok()).filter(|number| *number <= 100);
        number.map(Percent).ok_or_else(|| QuantityError::Percent(text.to_owned()))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl Percent {
    /// This share of `whole`, rounded down.
    pub fn of(self, whole: u32) -> u32 {
        (u64::from(whole) * u64::from(self.0) / 100) as u32
    }

    /// This share of `whole`, rounded up.
    pub fn of_rounded_up(self, whole: u32) -> u32 {
        (u64::from(whole) * u64::from(self.0)).div_ceil(100) as u32
    }
}

impl Amount {
    /// The largest count.
    pub const COUNT_MAX: u32 = 1_000;

    /// Whether it is nothing of any whole.
    pub fn is_zero(self) -> bool {
        matches!(self, Amount::Count(0) | Amount::Share(Percent(0)))
    }
}

impl FromStr for Amount {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let amount = match digits {
            true => text.parse().ok().filter(|count| *count <= Self::COUNT_MAX).map(Amount::Count),
            false => text.parse().ok().map(Amount::Share),
        };
        amount.ok_or_else(|| QuantityError::Amount(text.to_owned()))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Count(count) => count.fmt(f),
            Amount::Share(share) => share.fmt(f),
        }
    }
}

impl FromStr for Cpu {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let parse = || {
            let millicores = match text.strip_suffix('m') {
                Some(millis) if millis.bytes().all(|b| b.is_ascii_digit()) => millis.parse::<u32>().ok()?,
                Some(_) => return None,
                None => thousandths(text)?,
            };
            (1..=1_024_000).contains(&millicores).then_some(Cpu { millicores })
        };
        parse().ok_or_else(|| QuantityError::Cpu(text.to_owned()))
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millicores.is_multiple_of(1_000) {
            write!(f, "{}", self.millicores / 1_000)
        } else {
            write!(f, "{}m", self.millicores)
        }
    }
}

impl FromStr for Memory {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split_unit(text);
        let parse = || {
            let (_, scale) = MEMORY_UNITS.iter().find(|(name, _)| *name == unit)?;
            let bytes = number.parse::<u64>().ok()?.checked_mul(*scale)?;
            (bytes > 0 && bytes <= 1 << 50).then_some(Memory { bytes })
        };
        parse().ok_or_else(|| QuantityError::Memory(text.to_owned()))
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) =
            MEMORY_UNITS.iter().find(|(_, scale)| self.bytes.is_multiple_of(*scale)).unwrap_or(&("", 1));
        write!(f, "{}{unit}", self.bytes / scale)
    }
}

macro_rules! text_wire_type {
    ($name:ident, $pattern:literal, $example:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": ["string", "number"], "pattern": $pattern, "examples": [$example] })
            }
        }
    };
}

text_wire_type!(Span, "^[0-9]+(ms|s|m|h)$", "30s");
text_wire_type!(Cpu, "^([0-9]+m|[0-9]+(\\.[0-9]{1,3})?)$", "500m");
text_wire_type!(Factor, "^[0-9]+(\\.[0-9]{1,3})?$", "1.25");
text_wire_type!(Percent, "^[0-9]{1,3}%$", "20%");
text_wire_type!(Amount, "^([0-9]{1,4}|[0-9]{1,3}%)$", "25%");
text_wire_type!(Memory, "^[0-9]+(Ti|Gi|Mi|Ki|T|G|M|k)?$", "64Mi");

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: FromStr<Err = QuantityError> + fmt::Display>(text: &str, canonical: Option<&str>) {
        let shown = text.parse::<T>().ok().map(|value| value.to_string());
        assert_eq!(shown.as_deref(), canonical, "{text}");
    }

    #[test]
    fn durations_have_units() {
        check::<Span>("500ms", Some("500ms"));
        check::<Span>("2000ms", Some("2s"));
        check::<Span>("120s", Some("2m"));
        check::<Span>("0s", Some("0s"));
        for bad in ["", "5", "1.5s", "-1s", "s", "5 s", "5d", "99999999999h"] {
            check::<Span>(bad, None);
        }
    }

    #[test]
    fn cpu_is_cores_or_millicores() {
        check::<Cpu>("500m", Some("500m"));
        check::<Cpu>("2", Some("2"));
        check::<Cpu>("0.25", Some("250m"));
        for bad in ["", "0", "0m", "-1", "1.2345", "m", "1e3", ".5", "1.", "9999999999"] {
            check::<Cpu>(bad, None);
        }
    }

    #[test]
    fn factors_have_at_most_three_decimals() {
        check::<Factor>("1.25", Some("1.25"));
        check::<Factor>("1", Some("1"));
        check::<Factor>("2.500", Some("2.5"));
        check::<Factor>("1.001", Some("1.001"));
        for bad in ["", "0.99", "10.001", "-1", "1.2345", "1,25", "1.", "nan", "125%"] {
            check::<Factor>(bad, None);
        }
    }

    #[test]
    fn percentages_are_whole_and_at_most_a_hundred() {
        check::<Percent>("20%", Some("20%"));
        check::<Percent>("0%", Some("0%"));
        check::<Percent>("100%", Some("100%"));
        for bad in ["", "%", "20", "101%", "-1%", "1.5%", "+5%"] {
            check::<Percent>(bad, None);
        }
    }

    #[test]
    fn amounts_are_counts_or_percentages() {
        check::<Amount>("0", Some("0"));
        check::<Amount>("1000", Some("1000"));
        check::<Amount>("25%", Some("25%"));
        for bad in ["", "%", "-1", "1001", "101%", "1.5", "+1", "one", "99999999999"] {
            check::<Amount>(bad, None);
        }
        assert_eq!((Percent(25).of(6), Percent(25).of_rounded_up(6)), (1, 2));
        assert_eq!((Percent(100).of(1_000), Percent(0).of_rounded_up(1_000)), (1_000, 0));
    }

    #[test]
    fn memory_is_bytes_with_binary_or_decimal_units() {
        check::<Memory>("64Mi", Some("64Mi"));
        check::<Memory>("1024Ki", Some("1Mi"));
        check::<Memory>("500M", Some("500M"));
        check::<Memory>("123", Some("123"));
        for bad in ["", "0", "64mb", "64MiB", "-1Mi", "1.5Gi", "999999999Ti"] {
            check::<Memory>(bad, None);
        }
    }
}
