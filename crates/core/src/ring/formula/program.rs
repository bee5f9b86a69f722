//! A formula as straight-line code over registers, and its evaluation.
//!
//! Registers hold `i`, `j`, the numbers, and then one result per operator. Equal operators on equal registers
//! share a result, and operators on numbers alone are computed while parsing.

use super::quick::Quick;
use super::{Failure, REGISTERS_MAX};

/// The registers of the variables.
pub(super) const I: u8 = 0;
const J: u8 = 1;
/// Programs of up to so many registers run in frames of that size: a frame is filled anew for every run.
const SMALL_FRAME: usize = 8;
const MEDIUM_FRAME: usize = 16;

/// An operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Or,
    Xor,
    And,
    ShiftLeft,
    ShiftRight,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
}

/// `registers[result] = registers[left] code registers[right]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) code: Code,
    pub(super) left: u8,
    pub(super) right: u8,
    pub(super) result: u8,
    /// Where the operator stands in the text.
    offset: u16,
}

/// What a register holds while a program is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Register {
    Variable,
    Number(i128),
    Result(Code, u8, u8),
}

/// A program that is being built.
pub(super) struct Builder {
    registers: Vec<Register>,
    steps: Vec<Step>,
}

/// Straight-line code; see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    steps: Box<[Step]>,
    /// The numbers in their registers, zero elsewhere.
    start: Box<[i128; REGISTERS_MAX]>,
    /// As `start`, if all numbers fit.
    start_small: Option<Box<[i64; REGISTERS_MAX]>>,
    registers: usize,
    value: u8,
    quick: Option<Quick>,
}

/// There are too many registers.
#[derive(Debug)]
pub(super) struct Full;

/// Why an operator cannot be added.
#[derive(Debug)]
pub(super) enum Refused {
    Full,
    NeverAValue(Failure),
}

impl From<Full> for Refused {
    fn from(Full: Full) -> Refused {
        Refused::Full
    }
}

impl Builder {
    pub(super) fn new() -> Builder {
        Builder { registers: vec![Register::Variable; 2], steps: Vec::new() }
    }

    pub(super) fn i(&self) -> u8 {
        I
    }

    pub(super) fn j(&self) -> u8 {
        J
    }

    pub(super) fn number(&mut self, number: i128) -> Result<u8, Full> {
        self.register(Register::Number(number)).map(|(register, _)| register)
    }

    pub(super) fn operator(&mut self, code: Code, left: u8, right: u8, offset: usize) -> Result<u8, Refused> {
        if let (Register::Number(a), Register::Number(b)) =
            (self.registers[usize::from(left)], self.registers[usize::from(right)])
        {
            let value = apply(code, a, b).map_err(Refused::NeverAValue)?;
            return Ok(self.number(value)?);
        }
        // The commonest power is worth a product: the same values, and the same overflow.
        let (code, right) = match (code, self.registers[usize::from(right)]) {
            (Code::Power, Register::Number(2)) => (Code::Multiply, left),
            _ => (code, right),
        };
        let (result, is_new) = self.register(Register::Result(code, left, right))?;
        if is_new {
            // The text is limited to fewer bytes than a u16 counts.
            self.steps.push(Step { code, left, right, result, offset: offset as u16 });
        }
        Ok(result)
    }

    /// The register that holds this already, or a new one.
    fn register(&mut self, content: Register) -> Result<(u8, bool), Full> {
        let known = self.registers.iter().skip(2).position(|register| *register == content);
        if let Some(known) = known {
            return Ok((known as u8 + 2, false));
        }
        if self.registers.len() == REGISTERS_MAX {
            return Err(Full);
        }
        self.registers.push(content);
        Ok((self.registers.len() as u8 - 1, true))
    }

    pub(super) fn finish(self, value: u8) -> Program {
        let quick = Quick::new(&self.registers, &self.steps, value);
        let mut start = Box::new([0_i128; REGISTERS_MAX]);
        let mut start_small = Some(Box::new([0_i64; REGISTERS_MAX]));
        for (index, register) in self.registers.iter().enumerate() {
            let Register::Number(number) = register else { continue };
            start[index] = *number;
            match (i64::try_from(*number), &mut start_small) {
                (Ok(number), Some(small)) => small[index] = number,
                _ => start_small = None,
            }
        }
        Program {
            steps: self.steps.into(),
            start,
            start_small,
            registers: self.registers.len(),
            value,
            quick,
        }
    }
}

impl Program {
    /// The value, exactly; or why there is none, and where.
    pub(super) fn run(&self, i: i128, j: i128) -> Result<i128, (Failure, u16)> {
        self.run_in_frame(&self.start, i, j)
    }

    /// The form without checks, if there is one.
    pub(super) fn quick(&self) -> Option<&Quick> {
        self.quick.as_ref()
    }

    /// The value, if it and all on the way to it fit into 64 bits.
    pub(super) fn run_small(&self, i: i64, j: i64) -> Option<i64> {
        let start = self.start_small.as_deref()?;
        self.run_in_frame(start, i, j).ok()
    }

    /// Runs in the smallest frame that all registers fit into.
    fn run_in_frame<T: Word>(&self, start: &[T; REGISTERS_MAX], i: T, j: T) -> Result<T, (Failure, u16)> {
        if self.registers <= SMALL_FRAME {
            self.run_in::<T, SMALL_FRAME>(start, i, j)
        } else if self.registers <= MEDIUM_FRAME {
            self.run_in::<T, MEDIUM_FRAME>(start, i, j)
        } else {
            self.run_in::<T, REGISTERS_MAX>(start, i, j)
        }
    }

    /// Runs in a frame of `N` registers, a power of two that is not below `self.registers`.
    #[inline]
    fn run_in<T: Word, const N: usize>(
        &self,
        start: &[T; REGISTERS_MAX],
        i: T,
        j: T,
    ) -> Result<T, (Failure, u16)> {
        let mut registers = [T::default(); N];
        registers.copy_from_slice(&start[..N]);
        registers[usize::from(I)] = i;
        registers[usize::from(J)] = j;
        // The masks change no index; they show the compiler that none is out of bounds.
        for step in &self.steps {
            let (left, right) =
                (registers[usize::from(step.left) % N], registers[usize::from(step.right) % N]);
            let result = apply(step.code, left, right).map_err(|failure| (failure, step.offset))?;
            registers[usize::from(step.result) % N] = result;
        }
        Ok(registers[usize::from(self.value) % N])
    }
}

/// One operator on two values.
#[inline]
fn apply<T: Word>(code: Code, a: T, b: T) -> Result<T, Failure> {
    match code {
        Code::Or => Ok(a.or(b)),
        Code::Xor => Ok(a.xor(b)),
        Code::And => Ok(a.and(b)),
        Code::ShiftLeft => a.shift_left(b),
        Code::ShiftRight => a.shift_right(b),
        Code::Add => a.add(b).ok_or(Failure::Overflow),
        Code::Subtract => a.subtract(b).ok_or(Failure::Overflow),
        Code::Multiply => a.multiply(b).ok_or(Failure::Overflow),
        Code::Divide => a.divide(b),
        Code::Remainder => a.remainder(b),
        Code::Power => a.power(b),
    }
}

/// What an evaluation computes with. Both words give the same results where the smaller one gives one.
trait Word: Copy + Default {
    fn or(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    fn and(self, other: Self) -> Self;
    fn shift_left(self, by: Self) -> Result<Self, Failure>;
    fn shift_right(self, by: Self) -> Result<Self, Failure>;
    fn add(self, other: Self) -> Option<Self>;
    fn subtract(self, other: Self) -> Option<Self>;
    fn multiply(self, other: Self) -> Option<Self>;
    fn divide(self, by: Self) -> Result<Self, Failure>;
    fn remainder(self, by: Self) -> Result<Self, Failure>;
    fn power(self, exponent: Self) -> Result<Self, Failure>;
}

macro_rules! word {
    ($word:ty) => {
        impl Word for $word {
            fn or(self, other: Self) -> Self {
                self | other
            }

            fn xor(self, other: Self) -> Self {
                self ^ other
            }

            fn and(self, other: Self) -> Self {
                self & other
            }

            fn shift_left(self, by: Self) -> Result<Self, Failure> {
                let by = shift(i128::from(by))?;
                let shifted = self.checked_shl(by).ok_or(Failure::Overflow)?;
                // Bits that were lost do not come back.
                if shifted >> by == self { Ok(shifted) } else { Err(Failure::Overflow) }
            }

            fn shift_right(self, by: Self) -> Result<Self, Failure> {
                // Beyond the word's width only the sign is left.
                Ok(self >> shift(i128::from(by))?.min(<$word>::BITS - 1))
            }

            fn add(self, other: Self) -> Option<Self> {
                self.checked_add(other)
            }

            fn subtract(self, other: Self) -> Option<Self> {
                self.checked_sub(other)
            }

            fn multiply(self, other: Self) -> Option<Self> {
                self.checked_mul(other)
            }

            fn divide(self, by: Self) -> Result<Self, Failure> {
                if by == 0 {
                    return Err(Failure::DivisionByZero);
                }
                let quotient = self.checked_div(by).ok_or(Failure::Overflow)?;
                let inexact = self.wrapping_rem(by) != 0;
                // Rust rounds towards zero: one less where the result is negative and not whole.
                Ok(if inexact && (self < 0) != (by < 0) { quotient - 1 } else { quotient })
            }

            fn remainder(self, by: Self) -> Result<Self, Failure> {
                if by == 0 {
                    return Err(Failure::DivisionByZero);
                }
                // The smallest number by -1 has the remainder 0, although the quotient does not fit.
                let rest = self.wrapping_rem(by);
                Ok(if rest != 0 && (rest < 0) != (by < 0) { rest + by } else { rest })
            }

            fn power(self, exponent: Self) -> Result<Self, Failure> {
                match exponent {
                    0.. => match u32::try_from(exponent) {
                        Ok(exponent) => self.checked_pow(exponent).ok_or(Failure::Overflow),
                        // No other number has powers that high; of these, only evenness counts.
                        Err(_) if matches!(self, -1..=1) => {
                            Ok(if self == -1 && exponent % 2 == 0 { 1 } else { self })
                        }
                        Err(_) => Err(Failure::Overflow),
                    },
                    _ => Err(Failure::NegativePower),
                }
            }
        }
    };
}

word!(i64);
word!(i128);

/// A number of bits to shift by.
fn shift(by: i128) -> Result<u32, Failure> {
    match u32::try_from(by) {
        Ok(by) if by < 127 => Ok(by),
        _ => Err(Failure::Shift),
    }
}
