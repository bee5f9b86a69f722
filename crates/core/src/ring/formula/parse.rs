//! From text to code: a hand-written parser by precedence climbing, one token ahead.

use super::program::{Builder, Code, Program, Refused};
use super::{DEPTH_MAX, FormulaError, FormulaErrorKind, Names, Token};

/// Most characters of a token that an error quotes.
const QUOTED_CHARS_MAX: usize = 20;

/// How tightly negation binds: tighter than products, looser than powers.
const NEGATION: u8 = 7;
const POWER: u8 = 8;

/// A token with the byte at which it begins.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Piece<'a> {
    kind: Kind,
    offset: usize,
    text: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Number(i128),
    I,
    J,
    Slots,
    VirtualServers,
    Operator(Code),
    Open,
    Close,
    End,
}

/// Parses a formula into a program.
pub(super) fn program(text: &str, names: Names) -> Result<Program, FormulaError> {
    let mut lexer = Lexer { text, position: 0 };
    let ahead = lexer.next()?;
    let mut parser = Parser { lexer, ahead, names, builder: Builder::new(), depth: 0 };
    let value = parser.expression(0)?;
    match parser.ahead.kind {
        Kind::End => Ok(parser.builder.finish(value)),
        Kind::Close => Err(parser.error(FormulaErrorKind::Parenthesis)),
        _ => Err(parser.error(FormulaErrorKind::ExpectedOperator(parser.quoted()))),
    }
}

struct Lexer<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Result<Piece<'a>, FormulaError> {
        let rest = &self.text[self.position..];
        let rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        let offset = self.text.len() - rest.len();
        let error = |kind| FormulaError { offset, kind };
        let Some(first) = rest.chars().next() else {
            return Ok(Piece { kind: Kind::End, offset, text: "" });
        };
        let is_word = first.is_ascii_alphanumeric() || first == '_';
        let length = match first {
            _ if is_word => rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len()),
            '<' | '>' if rest[1..].starts_with(first) => 2,
            _ => first.len_utf8(),
        };
        let text = &rest[..length];
        self.position = offset + length;
        let operator = |code| Ok(Piece { kind: Kind::Operator(code), offset, text });
        let kind = match text {
            "|" => return operator(Code::Or),
            "xor" => return operator(Code::Xor),
            "&" => return operator(Code::And),
            "<<" => return operator(Code::ShiftLeft),
            ">>" => return operator(Code::ShiftRight),
            "+" => return operator(Code::Add),
            "-" => return operator(Code::Subtract),
            "*" => return operator(Code::Multiply),
            "/" => return operator(Code::Divide),
            "%" => return operator(Code::Remainder),
            "^" => return operator(Code::Power),
            "(" => Kind::Open,
            ")" => Kind::Close,
            "i" => Kind::I,
            "j" => Kind::J,
            "M" => Kind::Slots,
            "K" => Kind::VirtualServers,
            _ if first.is_ascii_digit() => return self.number(offset, text),
            _ if is_word => return Err(error(FormulaErrorKind::UnknownName(cut(text)))),
            _ => return Err(error(FormulaErrorKind::UnknownCharacter(first))),
        };
        Ok(Piece { kind, offset, text })
    }

    /// A number, or its digits up to the letter that ends them: `2i` is a number and then a name.
    fn number(&mut self, offset: usize, word: &'a str) -> Result<Piece<'a>, FormulaError> {
        let (radix, digits) = match word.strip_prefix("0x") {
            Some(digits) if !digits.is_empty() => (16, digits),
            _ => (10, word),
        };
        let length = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
        let number = i128::from_str_radix(&digits[..length], radix);
        let text = &word[..word.len() - digits.len() + length];
        self.position = offset + text.len();
        let number = number.map_err(|_| FormulaError { offset, kind: FormulaErrorKind::Number })?;
        Ok(Piece { kind: Kind::Number(number), offset, text })
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    ahead: Piece<'a>,
    names: Names,
    builder: Builder,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, kind: FormulaErrorKind) -> FormulaError {
        FormulaError { offset: self.ahead.offset, kind }
    }

    fn quoted(&self) -> Token {
        match self.ahead.kind {
            Kind::End => Token::End,
            _ => Token::Text(cut(self.ahead.text)),
        }
    }

    fn advance(&mut self) -> Result<Piece<'a>, FormulaError> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.ahead, next))
    }

    /// An expression of operators that bind at least as tightly as `least`.
    fn expression(&mut self, least: u8) -> Result<u8, FormulaError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(FormulaErrorKind::TooDeep));
        }
        let mut left = self.operand()?;
        while let Kind::Operator(code) = self.ahead.kind {
            let tightness = tightness(code);
            if tightness < least {
                break;
            }
            let operator = self.advance()?;
            // Powers go from right to left, and their right side may have a sign; all others go left to right.
            let right = self.expression(if code == Code::Power { NEGATION } else { tightness + 1 })?;
            left = self.emit(code, left, right, operator.offset)?;
        }
        self.depth -= 1;
        Ok(left)
    }

    fn operand(&mut self) -> Result<u8, FormulaError> {
        let piece = self.ahead;
        match piece.kind {
            Kind::Number(number) => self.literal(number),
            Kind::Slots => self.literal(self.names.slots.into()),
            Kind::VirtualServers => self.literal(self.names.virtual_servers.into()),
            Kind::I => {
                self.advance()?;
                Ok(self.builder.i())
            }
            Kind::J if self.names.with_j => {
                self.advance()?;
                Ok(self.builder.j())
            }
            Kind::J => Err(self.error(FormulaErrorKind::NoJ)),
            Kind::Open => {
                self.advance()?;
                let value = self.expression(0)?;
                match self.ahead.kind {
                    Kind::Close => {}
                    Kind::End => {
                        return Err(FormulaError {
                            offset: piece.offset,
                            kind: FormulaErrorKind::Parenthesis,
                        });
                    }
                    _ => return Err(self.error(FormulaErrorKind::ExpectedOperator(self.quoted()))),
                }
                self.advance()?;
                Ok(value)
            }
            Kind::Operator(Code::Subtract) => {
                self.advance()?;
                let value = self.expression(NEGATION)?;
                let zero = self.constant(0, piece.offset)?;
                self.emit(Code::Subtract, zero, value, piece.offset)
            }
            Kind::Operator(_) | Kind::Close | Kind::End => {
                Err(self.error(FormulaErrorKind::ExpectedValue(self.quoted())))
            }
        }
    }

    fn literal(&mut self, number: i128) -> Result<u8, FormulaError> {
        let offset = self.advance()?.offset;
        self.constant(number, offset)
    }

    fn constant(&mut self, number: i128, offset: usize) -> Result<u8, FormulaError> {
        let register = self.builder.number(number);
        register.map_err(|_| FormulaError { offset, kind: FormulaErrorKind::TooManyValues })
    }

    fn emit(&mut self, code: Code, left: u8, right: u8, offset: usize) -> Result<u8, FormulaError> {
        self.builder.operator(code, left, right, offset).map_err(|refused| {
            let kind = match refused {
                Refused::Full => FormulaErrorKind::TooManyValues,
                Refused::NeverAValue(failure) => FormulaErrorKind::NeverAValue(failure),
            };
            FormulaError { offset, kind }
        })
    }
}

fn tightness(code: Code) -> u8 {
    match code {
        Code::Or => 1,
        Code::Xor => 2,
        Code::And => 3,
        Code::ShiftLeft | Code::ShiftRight => 4,
        Code::Add | Code::Subtract => 5,
        Code::Multiply | Code::Divide | Code::Remainder => 6,
        Code::Power => POWER,
    }
}

fn cut(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
}
