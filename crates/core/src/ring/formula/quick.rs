//! The same program without its checks, for numbers of up to six digits: what a request costs.
//!
//! While the program is built, what each of its values can be for such an `i` is bounded. If every bound fits into 64
//! bits and no operator can fail, plain 64-bit operators give the exact values, and nothing need be checked for
//! a request. The value at hand stays in a machine register; a number is part of its step; only what is
//! needed again later goes through memory. Programs of which this cannot be said, and those of `j`, have no such form.

use super::bounds;
use super::program::{Code, I, Register, Step};

/// The first number for which the bounds do not hold.
const I_END: u64 = 1_000_000;
/// Places for values that are needed again: `i`, then others, and the last for those that are not.
const FRAME: usize = 8;
const UNUSED: u8 = FRAME as u8 - 1;
/// Shifts by more leave only the sign, as this one does.
const BY_MAX: i64 = 63;

/// An operator on the value at hand, with the step's number or with a value that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    /// Takes up the kept one.
    Take,
    AddNumber,
    /// The number minus the value.
    FromNumber,
    MultiplyNumber,
    AndNumber,
    OrNumber,
    XorNumber,
    ShiftLeft,
    ShiftRight,
    /// `x xor x >> number`, which most mixing functions are made of.
    XorShifted,
    Divide,
    Remainder,
    Power,
    Add,
    Subtract,
    /// The kept one minus the value.
    From,
    Multiply,
    And,
    Or,
    Xor,
}

impl Operator {
    fn uses_kept(self) -> bool {
        use Operator::{Add, And, From, Multiply, Or, Subtract, Take, Xor};
        matches!(self, Take | Add | Subtract | From | Multiply | And | Or | Xor)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct QuickStep {
    operator: Operator,
    /// Which kept value is the other side. While this is built: which of the program's registers.
    kept: u8,
    /// Where the result is kept. While this is built: which of the program's registers it is.
    keep: u8,
    number: i64,
}

/// A program without checks; see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quick(Box<[QuickStep]>);

impl Quick {
    /// The form without checks, if there is one. `value` is the register of the result.
    pub(super) fn new(registers: &[Register], steps: &[Step], value: u8) -> Option<Quick> {
        bounds::fit(registers, steps, value, I_END)?;
        if number(registers, value).is_some() {
            return None;
        }
        let mut draft = Draft { registers, steps: Vec::new(), at_hand: I };
        let shifts = Shifts::new(registers, steps);
        for step in steps.iter().filter(|step| !shifts.is_part_of_another(step.result)) {
            match shifts.of(step.result) {
                Some((shifted, by)) => {
                    draft.take(shifted);
                    draft.push(Operator::XorShifted, I, step.result, by);
                }
                None => draft.add(step)?,
            }
        }
        draft.take(value);
        draft.finish()
    }

    /// The value; none for an `i` of more than six digits.
    #[inline]
    pub(super) fn run(&self, i: u64) -> Option<i64> {
        if i >= I_END {
            return None;
        }
        let mut value = i as i64;
        let mut frame = [0_i64; FRAME];
        frame[0] = value;
        for step in &self.0 {
            // The masks change no index; they show the compiler that none is out of bounds.
            let (kept, number) = (frame[usize::from(step.kept) % FRAME], step.number);
            value = match step.operator {
                Operator::Take => kept,
                Operator::AddNumber => value.wrapping_add(number),
                Operator::FromNumber => number.wrapping_sub(value),
                Operator::MultiplyNumber => value.wrapping_mul(number),
                Operator::AndNumber => value & number,
                Operator::OrNumber => value | number,
                Operator::XorNumber => value ^ number,
                Operator::ShiftLeft => value.wrapping_shl(number as u32),
                Operator::ShiftRight => value.wrapping_shr(number as u32),
                Operator::XorShifted => value ^ value.wrapping_shr(number as u32),
                // The number is above 0, where these round down.
                Operator::Divide => value.div_euclid(number),
                Operator::Remainder => value.rem_euclid(number),
                Operator::Power => value.wrapping_pow(number as u32),
                Operator::Add => value.wrapping_add(kept),
                Operator::Subtract => value.wrapping_sub(kept),
                Operator::From => kept.wrapping_sub(value),
                Operator::Multiply => value.wrapping_mul(kept),
                Operator::And => value & kept,
                Operator::Or => value | kept,
                Operator::Xor => value ^ kept,
            };
            frame[usize::from(step.keep) % FRAME] = value;
        }
        Some(value)
    }
}

/// Which operators are `x xor x >> number`, by their results, and which shifts are for nothing but that.
struct Shifts {
    found: Vec<Option<(u8, i64)>>,
    parts: Vec<bool>,
}

impl Shifts {
    fn new(registers: &[Register], steps: &[Step]) -> Shifts {
        let mut uses = vec![0_u32; registers.len()];
        for register in steps.iter().flat_map(|step| [step.left, step.right]) {
            uses[usize::from(register)] += 1;
        }
        let mut shifts = Shifts { found: vec![None; registers.len()], parts: vec![false; registers.len()] };
        for step in steps.iter().filter(|step| step.code == Code::Xor) {
            for (plain, shift) in [(step.left, step.right), (step.right, step.left)] {
                let Register::Result(Code::ShiftRight, shifted, by) = registers[usize::from(shift)] else {
                    continue;
                };
                if let Some(by) = number(registers, by)
                    && shifted == plain
                    && uses[usize::from(shift)] == 1
                {
                    shifts.found[usize::from(step.result)] = Some((plain, by.min(BY_MAX)));
                    shifts.parts[usize::from(shift)] = true;
                }
            }
        }
        shifts
    }

    fn of(&self, result: u8) -> Option<(u8, i64)> {
        self.found[usize::from(result)]
    }

    fn is_part_of_another(&self, result: u8) -> bool {
        self.parts[usize::from(result)]
    }
}

/// Steps that are being made, over the program's registers.
struct Draft<'a> {
    registers: &'a [Register],
    steps: Vec<QuickStep>,
    /// The register whose content is the value at hand.
    at_hand: u8,
}

impl Draft<'_> {
    /// Makes the content of a register the value at hand.
    fn take(&mut self, register: u8) {
        if self.at_hand != register {
            self.push(Operator::Take, register, register, 0);
        }
    }

    fn push(&mut self, operator: Operator, kept: u8, result: u8, number: i64) {
        self.steps.push(QuickStep { operator, kept, keep: result, number });
        self.at_hand = result;
    }

    fn add(&mut self, step: &Step) -> Option<()> {
        let Step { code, left, right, result, .. } = *step;
        match (number(self.registers, left), number(self.registers, right)) {
            (None, None) => self.add_of_two(code, left, right, result)?,
            (None, Some(number)) => {
                let (operator, number) = with_number(code, number)?;
                self.take(left);
                self.push(operator, I, result, number);
            }
            (Some(number), None) => {
                let (operator, number) = match code {
                    Code::Subtract => (Operator::FromNumber, number),
                    Code::Add | Code::Multiply | Code::And | Code::Or | Code::Xor => {
                        with_number(code, number)?
                    }
                    _ => return None,
                };
                self.take(right);
                self.push(operator, I, result, number);
            }
            (Some(_), Some(_)) => return None,
        }
        Some(())
    }

    fn add_of_two(&mut self, code: Code, left: u8, right: u8, result: u8) -> Option<()> {
        let (operator, reversed) = match code {
            Code::Add => (Operator::Add, Operator::Add),
            Code::Subtract => (Operator::Subtract, Operator::From),
            Code::Multiply => (Operator::Multiply, Operator::Multiply),
            Code::And => (Operator::And, Operator::And),
            Code::Or => (Operator::Or, Operator::Or),
            Code::Xor => (Operator::Xor, Operator::Xor),
            Code::ShiftLeft | Code::ShiftRight | Code::Divide | Code::Remainder | Code::Power => return None,
        };
        if self.at_hand == right {
            self.push(reversed, left, result, 0);
        } else {
            self.take(left);
            self.push(operator, right, result, 0);
        }
        Some(())
    }

    /// Gives places to what is needed again; none if there are too few.
    fn finish(mut self) -> Option<Quick> {
        let mut places = vec![UNUSED; self.registers.len()];
        places[usize::from(I)] = 0;
        let mut next = 1;
        for step in self.steps.iter().filter(|step| step.operator.uses_kept()) {
            let place = &mut places[usize::from(step.kept)];
            if *place == UNUSED {
                *place = next;
                next += 1;
            }
        }
        for step in &mut self.steps {
            step.kept = places[usize::from(step.kept)];
            step.keep = places[usize::from(step.keep)];
        }
        (next <= UNUSED).then(|| Quick(self.steps.into()))
    }
}

/// The number that a register holds, if it does.
fn number(registers: &[Register], register: u8) -> Option<i64> {
    match registers[usize::from(register)] {
        Register::Number(number) => i64::try_from(number).ok(),
        _ => None,
    }
}

/// The operator with a number as its right side, and the number that it then takes.
fn with_number(code: Code, number: i64) -> Option<(Operator, i64)> {
    let is_power_of_two = number > 0 && number.count_ones() == 1;
    Some(match code {
        Code::Or => (Operator::OrNumber, number),
        Code::Xor => (Operator::XorNumber, number),
        Code::And => (Operator::AndNumber, number),
        Code::ShiftLeft => (Operator::ShiftLeft, number),
        Code::ShiftRight => (Operator::ShiftRight, number.min(BY_MAX)),
        Code::Add => (Operator::AddNumber, number),
        Code::Subtract => (Operator::AddNumber, number.checked_neg()?),
        Code::Multiply => (Operator::MultiplyNumber, number),
        Code::Divide if is_power_of_two => (Operator::ShiftRight, i64::from(number.trailing_zeros())),
        Code::Divide => (Operator::Divide, number),
        Code::Remainder if is_power_of_two => (Operator::AndNumber, number - 1),
        Code::Remainder => (Operator::Remainder, number),
        Code::Power => (Operator::Power, number),
    })
}
