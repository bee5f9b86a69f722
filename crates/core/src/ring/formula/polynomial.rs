//! Polynomials in `i` of a low degree, which is what most formulas are: a few multiplications instead of a program.
//!
//! Every value on the way to one is such a polynomial too, with coefficients of 64 bits, and so is below
//! 2^63 · (1 + 10^6 + 10^12 + 10^18) < 2^127 for six-digit numbers. The program cannot overflow on them, which is
//! why both agree there; for larger numbers only the program is asked.

use super::program::Code;

/// The first number for which only the program is asked.
const I_END: u64 = 1_000_000;

/// The coefficients, that of `i^k` at `k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Polynomial([i64; 4]);

impl Polynomial {
    /// `i` itself.
    pub(super) const I: Polynomial = Polynomial([0, 1, 0, 0]);

    pub(super) fn number(number: i128) -> Option<Polynomial> {
        i64::try_from(number).ok().map(|number| Polynomial([number, 0, 0, 0]))
    }

    /// The result of an operator, if it is a polynomial again.
    pub(super) fn operator(code: Code, left: Polynomial, right: Polynomial) -> Option<Polynomial> {
        match code {
            Code::Add => left.sum(right, i64::checked_add),
            Code::Subtract => left.sum(right, i64::checked_sub),
            Code::Multiply => left.product(right),
            Code::Power => match right.0 {
                [exponent @ 0..=3, 0, 0, 0] => {
                    let one = Polynomial([1, 0, 0, 0]);
                    (0..exponent).try_fold(one, |power, _| power.product(left))
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn sum(self, other: Polynomial, add: impl Fn(i64, i64) -> Option<i64>) -> Option<Polynomial> {
        let mut sum = [0; 4];
        for (k, coefficient) in sum.iter_mut().enumerate() {
            *coefficient = add(self.0[k], other.0[k])?;
        }
        Some(Polynomial(sum))
    }

    fn product(self, other: Polynomial) -> Option<Polynomial> {
        let mut product = [0_i64; 4];
        for (k, left) in self.0.into_iter().enumerate().filter(|(_, left)| *left != 0) {
            for (n, right) in other.0.into_iter().enumerate().filter(|(_, right)| *right != 0) {
                let coefficient = product.get_mut(k + n)?;
                *coefficient = coefficient.checked_add(left.checked_mul(right)?)?;
            }
        }
        Some(Polynomial(product))
    }

    /// The value modulo `modulus`; none for numbers or values that are too large for this.
    #[inline]
    pub(super) fn modulo(&self, i: u64, modulus: u32) -> Option<u32> {
        if i >= I_END {
            return None;
        }
        let ([a, b, c, d], i) = (self.0, i as i64);
        if modulus.is_power_of_two() {
            // What wraps are multiples of 2^64, and so of the modulus.
            let term = |sum: i64, coefficient: i64| sum.wrapping_mul(i).wrapping_add(coefficient);
            return Some(term(term(term(d, c), b), a) as u32 & (modulus - 1));
        }
        let term = |sum: i64, coefficient: i64| sum.checked_mul(i)?.checked_add(coefficient);
        let value = term(term(term(d, c)?, b)?, a)?;
        Some(value.rem_euclid(i64::from(modulus)) as u32)
    }
}
