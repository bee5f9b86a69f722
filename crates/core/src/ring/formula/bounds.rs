//! What the values of a program can be, without running it: whether all of them fit into 64 bits and none can fail.

use super::program::{Code, I, Register, Step};

/// All whole numbers from one to another, both included, and both of 64 bits.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    least: i128,
    most: i128,
}

/// Whether, for every `i` below `i_end`, all values of a program fit into 64 bits and no operator fails. None where that
/// cannot be said, as for programs of `j`.
pub(super) fn fit(registers: &[Register], steps: &[Step], value: u8, i_end: u64) -> Option<()> {
    let mut bounds: Vec<Option<Bounds>> = registers
        .iter()
        .map(|register| match register {
            Register::Number(number) => Bounds::new(*number, *number),
            Register::Variable | Register::Result(..) => None,
        })
        .collect();
    bounds[usize::from(I)] = Bounds::new(0, i128::from(i_end) - 1);
    for step in steps {
        let (left, right) = (bounds[usize::from(step.left)]?, bounds[usize::from(step.right)]?);
        bounds[usize::from(step.result)] = Some(left.operator(step.code, right)?);
    }
    bounds[usize::from(value)].map(|_| ())
}

impl Bounds {
    fn new(least: i128, most: i128) -> Option<Bounds> {
        let fits = |number| i64::try_from(number).is_ok();
        (fits(least) && fits(most)).then_some(Bounds { least, most })
    }

    fn of(values: impl IntoIterator<Item = i128>) -> Option<Bounds> {
        let mut values = values.into_iter();
        let first = values.next()?;
        let (least, most) = values.fold((first, first), |(least, most), v| (least.min(v), most.max(v)));
        Bounds::new(least, most)
    }

    /// The number, if it is only one.
    fn number(self) -> Option<i128> {
        (self.least == self.most).then_some(self.least)
    }

    fn is_negative(self) -> bool {
        self.least < 0
    }

    /// What an operator makes of two values within these bounds; none if it may fail, or if that is not worth
    /// knowing.
    fn operator(self, code: Code, other: Bounds) -> Option<Bounds> {
        let (a, b) = (self, other);
        match code {
            Code::Add => Bounds::new(a.least + b.least, a.most + b.most),
            Code::Subtract => Bounds::new(a.least - b.most, a.most - b.least),
            // Of 64-bit numbers, so no product overflows.
            Code::Multiply => {
                Bounds::of([a.least * b.least, a.least * b.most, a.most * b.least, a.most * b.most])
            }
            Code::And => match (a.is_negative(), b.is_negative()) {
                (false, false) => Bounds::new(0, a.most.min(b.most)),
                (false, true) => Bounds::new(0, a.most),
                (true, false) => Bounds::new(0, b.most),
                (true, true) => a.any_bits(b),
            },
            Code::Or | Code::Xor => a.any_bits(b),
            Code::ShiftLeft => match b.number()? {
                by @ 0..=62 => Bounds::new(a.least << by, a.most << by),
                _ => None,
            },
            Code::ShiftRight => match b.number()? {
                by @ 0..=126 => Bounds::new(a.least >> by, a.most >> by),
                _ => None,
            },
            Code::Divide => match b.number()? {
                by @ 1.. => Bounds::new(a.least.div_euclid(by), a.most.div_euclid(by)),
                _ => None,
            },
            Code::Remainder => match b.number()? {
                by @ 1.. => Bounds::new(0, by - 1),
                _ => None,
            },
            Code::Power => a.power(u32::try_from(b.number()?).ok()?),
        }
    }

    /// Everything of as many bits as these have, with a sign if one of them may have it.
    fn any_bits(self, other: Bounds) -> Option<Bounds> {
        let magnitude = |number: i128| if number < 0 { !number } else { number };
        let all = [self.least, self.most, other.least, other.most];
        let bits = 128 - all.map(magnitude).into_iter().max()?.leading_zeros();
        let end = 1_i128 << bits;
        Bounds::new(if self.is_negative() || other.is_negative() { -end } else { 0 }, end - 1)
    }

    fn power(self, exponent: u32) -> Option<Bounds> {
        let ends = [self.least.checked_pow(exponent)?, self.most.checked_pow(exponent)?];
        // An even power of something around 0 is lowest there.
        let has_zero = self.is_negative() && self.most >= 0;
        Bounds::of(ends.into_iter().chain((has_zero && exponent > 0).then_some(0)))
    }
}
