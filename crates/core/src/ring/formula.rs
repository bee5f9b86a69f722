//! Formulas of the manifest, such as `i^2 + 2*i + 17`: text in, a small checked program out.
//!
//! The language is integers (decimal, or hexadecimal after `0x`), the names `i`, `j`, `M` and `K`, parentheses and
//! these operators, from the loosest to the tightest; those of one line go from left to right:
//!
//! | operators | meaning |
//! |---|---|
//! | `\|` | bitwise or |
//! | `xor` | bitwise exclusive or |
//! | `&` | bitwise and |
//! | `<<` `>>` | shifts; `>>` keeps the sign |
//! | `+` `-` | |
//! | `*` `/` `%` | `/` rounds down, `%` has the sign of its right side |
//! | `-x` | negation |
//! | `^` | power, from right to left: `-i^2` is `-(i^2)`, `2^3^2` is `2^9` |
//!
//! All arithmetic is exact in 128 bits, and whatever does not fit is an error and never wraps. A formula is parsed
//! once; equal parts are computed once; an evaluation allocates nothing. Limits: [`TEXT_BYTES_MAX`],
//! [`DEPTH_MAX`], [`REGISTERS_MAX`].
//!
//! Deliberately absent: what `i` and `j` are, and for which of them a formula must have a value. That is asked by
//! [`super::assignment`], which evaluates it for all of them before it is used.

mod bounds;
mod parse;
mod program;
mod quick;

use std::fmt;

use thiserror::Error;

use program::Program;

/// Most bytes of a formula: enough for a 32-bit avalanche of two variables written out.
pub const TEXT_BYTES_MAX: usize = 4_096;

/// Most parentheses, signs and powers within each other.
pub const DEPTH_MAX: usize = 64;

/// Most different values within one formula: variables, numbers, and results of operators.
pub const REGISTERS_MAX: usize = 64;

/// A parsed formula of `i`, and of `j` if it was allowed.
#[derive(Clone, PartialEq, Eq)]
pub struct Formula {
    text: Box<str>,
    program: Program,
}

/// What a formula may refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// The value of `M`, the number of slots.
    pub slots: u32,
    /// The value of `K`, the number of virtual servers.
    pub virtual_servers: u32,
    /// Whether `j` is known.
    pub with_j: bool,
}

/// What is wrong with a formula, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind}")]
pub struct FormulaError {
    /// The byte of the text at which it is wrong; always at a character's first byte, or at the end.
    pub offset: usize,
    /// What is wrong there.
    pub kind: FormulaErrorKind,
}

/// What is wrong with a formula.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormulaErrorKind {
    /// Longer than [`TEXT_BYTES_MAX`].
    #[error("a formula of {0} bytes is longer than the most of {TEXT_BYTES_MAX}")]
    TooLong(usize),
    /// Deeper than [`DEPTH_MAX`].
    #[error("more than {DEPTH_MAX} parentheses, signs and powers within each other")]
    TooDeep,
    /// More than [`REGISTERS_MAX`].
    #[error("more than {REGISTERS_MAX} different values in one formula")]
    TooManyValues,
    /// A number, a name or a parenthesis should be here.
    #[error("expected a number, a name or `(`, got {0}")]
    ExpectedValue(Token),
    /// An operator should be here, or nothing.
    #[error("expected an operator, got {0}")]
    ExpectedOperator(Token),
    /// A parenthesis that is not closed, or closed without having been opened.
    #[error("this parenthesis has no partner")]
    Parenthesis,
    /// A character that the language does not have.
    #[error("`{0}` has no meaning in a formula")]
    UnknownCharacter(char),
    /// A name that the language does not have.
    #[error("`{0}` is not known: the names are i, j, M, K and xor")]
    UnknownName(String),
    /// A `j` where there is none.
    #[error("`j` is not known here: a request has only a number `i`")]
    NoJ,
    /// A number that does not fit.
    #[error("this number does not fit in 128 bits")]
    Number,
    /// A formula without a value for some `i`, and `j` if it has one.
    #[error("{failure} for {}", Of(*.i, *.j))]
    NoValue {
        /// Why it has none.
        failure: Failure,
        /// For which `i`.
        i: u64,
        /// For which `j`.
        j: Option<u32>,
    },
    /// A part of a formula that has no value at all.
    #[error("this {0}")]
    NeverAValue(Failure),
}

/// Why an operator has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Failure {
    /// The result needs more than 128 bits.
    #[error("overflows 128 bits")]
    Overflow,
    /// A division, or the remainder of one, by zero.
    #[error("divides by zero")]
    DivisionByZero,
    /// A power below zero.
    #[error("raises to a negative power")]
    NegativePower,
    /// A shift by less than 0 or more than 126 bits.
    #[error("shifts by less than 0 or more than 126 bits")]
    Shift,
}

/// A piece of a formula, as an error quotes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// The text of it.
    Text(String),
    /// The end of the formula.
    End,
}

struct Of(u64, Option<u32>);

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i={}", self.0)?;
        self.1.map_or(Ok(()), |j| write!(f, ", j={j}"))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Text(text) => write!(f, "`{text}`"),
            Token::End => f.write_str("the end"),
        }
    }
}

impl FormulaErrorKind {
    /// What to do about it, if that is not obvious.
    pub fn suggestion(&self) -> Option<&'static str> {
        match self {
            Self::ExpectedOperator(Token::Text(_)) => Some("write a product as `2*i`"),
            Self::ExpectedValue(Token::Text(text)) if text == "*" => Some("write a power as `i^2`"),
            Self::UnknownCharacter('²' | '³') => Some("write a power as `i^2`"),
            Self::UnknownName(name) if name == "m" => Some("did you mean `M`?"),
            Self::UnknownName(name) if name == "k" => Some("did you mean `K`?"),
            Self::NoValue { .. } => {
                Some("it must have a value for every server and every six-digit request id")
            }
            _ => None,
        }
    }
}

impl Formula {
    /// Parses a formula.
    ///
    /// # Errors
    /// [`FormulaError`] says what is wrong at which byte.
    pub fn parse(text: &str, names: Names) -> Result<Formula, FormulaError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(FormulaError { offset: 0, kind: FormulaErrorKind::TooLong(text.len()) });
        }
        Ok(Formula { text: text.into(), program: parse::program(text, names)? })
    }

    /// The text that was parsed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value for one `i` and `j`.
    ///
    /// # Errors
    /// [`FormulaErrorKind::NoValue`] at the operator that has no result.
    pub fn value(&self, i: u64, j: Option<u32>) -> Result<i128, FormulaError> {
        let (i_wide, j_wide) = (i128::from(i), i128::from(j.unwrap_or(0)));
        self.program.run(i_wide, j_wide).map_err(|(failure, offset)| FormulaError {
            offset: usize::from(offset),
            kind: FormulaErrorKind::NoValue { failure, i, j },
        })
    }

    /// The value modulo `modulus` (at least 1, at most 2^32), in `0..modulus`; none where there is no value.
    pub fn modulo(&self, i: u64, j: u32, modulus: u32) -> Option<u32> {
        if let Some(value) = self.program.quick().and_then(|quick| quick.run(i)) {
            return Some(modulo(value, modulus));
        }
        // Nearly all formulas stay within 64 bits, where a division costs a fifth; those that leave them are
        // computed again in 128.
        if let Ok(small) = i64::try_from(i)
            && let Some(value) = self.program.run_small(small, i64::from(j))
        {
            return Some(modulo(value, modulus));
        }
        let value = self.program.run(i128::from(i), i128::from(j)).ok()?;
        Some(value.rem_euclid(i128::from(modulus)) as u32)
    }
}

/// The remainder, from 0 up; a division is only made where it must be.
#[inline]
fn modulo(value: i64, modulus: u32) -> u32 {
    if modulus.is_power_of_two() {
        return value as u32 & (modulus - 1);
    }
    value.rem_euclid(i64::from(modulus)) as u32
}

impl fmt::Debug for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Formula({})", self.text)
    }
}
