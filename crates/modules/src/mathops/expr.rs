//! Expressions with the usual precedences; powers go from left to right, and a sign binds first.

use super::leading_number;

/// Parentheses and functions inside each other.
const DEPTH: u32 = 200;

/// The value of an expression; `None` when it is none.
pub fn eval(text: &[u8]) -> Option<f64> {
    let mut parser = Parser { rest: text, depth: 0 };
    let value = parser.list()?;
    parser.blanks();
    parser.rest.is_empty().then_some(value)
}

struct Parser<'a> {
    rest: &'a [u8],
    depth: u32,
}

impl Parser<'_> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    /// The next character, when it is one of these.
    fn take(&mut self, of: &[u8]) -> Option<u8> {
        self.blanks();
        let (first, rest) = self.rest.split_first().filter(|(first, _)| of.contains(first))?;
        self.rest = rest;
        Some(*first)
    }

    /// `a, b`: the last one.
    fn list(&mut self) -> Option<f64> {
        let mut value = self.sum()?;
        while self.take(b",").is_some() {
            value = self.sum()?;
        }
        Some(value)
    }

    fn sum(&mut self) -> Option<f64> {
        let mut value = self.product()?;
        while let Some(operator) = self.take(b"+-") {
            let right = self.product()?;
            value = if operator == b'+' { value + right } else { value - right };
        }
        Some(value)
    }

    fn product(&mut self) -> Option<f64> {
        let mut value = self.power()?;
        while let Some(operator) = self.take(b"*/%") {
            let right = self.power()?;
            value = match operator {
                b'*' => value * right,
                b'/' => value / right,
                _ => value % right,
            };
        }
        Some(value)
    }

    fn power(&mut self) -> Option<f64> {
        let mut value = self.signed()?;
        while self.take(b"^").is_some() {
            value = value.powf(self.signed()?);
        }
        Some(value)
    }

    fn signed(&mut self) -> Option<f64> {
        let mut negative = false;
        while let Some(sign) = self.take(b"+-") {
            negative ^= sign == b'-';
        }
        let value = self.base()?;
        Some(if negative { -value } else { value })
    }

    fn base(&mut self) -> Option<f64> {
        self.depth += 1;
        if self.depth > DEPTH {
            return None;
        }
        let value = self.base_inside();
        self.depth -= 1;
        value
    }

    fn base_inside(&mut self) -> Option<f64> {
        self.blanks();
        match self.rest.first()? {
            b'(' => {
                self.take(b"(");
                let value = self.list()?;
                self.take(b")").map(|_| value)
            }
            b'0'..=b'9' | b'.' => {
                let (value, len) = leading_number(self.rest);
                self.rest = &self.rest[len..];
                (len > 0).then_some(value)
            }
            b'a'..=b'z' => {
                let len =
                    self.rest.iter().take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit()).count();
                let function = function(&self.rest[..len])?;
                self.rest = &self.rest[len..];
                self.signed().map(function)
            }
            _ => None,
        }
    }
}

fn function(name: &[u8]) -> Option<fn(f64) -> f64> {
    Some(match name {
        b"abs" => f64::abs,
        b"acos" => f64::acos,
        b"asin" => f64::asin,
        b"atan" => f64::atan,
        b"ceil" => f64::ceil,
        b"cos" => f64::cos,
        b"cosh" => f64::cosh,
        b"exp" => f64::exp,
        b"floor" => f64::floor,
        b"ln" => f64::ln,
        b"log" => f64::log10,
        b"sin" => f64::sin,
        b"sinh" => f64::sinh,
        b"sqrt" => f64::sqrt,
        b"tan" => f64::tan,
        b"tanh" => f64::tanh,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        for (text, want) in [
            ("1 + 2 * 3", Some(7.0)),
            ("-2 ^ 2", Some(4.0)),
            ("2^3^2", Some(64.0)),
            ("10 % 4 / 2", Some(1.0)),
            ("--3", Some(3.0)),
            ("abs(-2) + sqrt 16", Some(6.0)),
            ("1, 2", Some(2.0)),
            ("((1))", Some(1.0)),
            ("1e3+1", Some(1001.0)),
            ("1 / 0", Some(f64::INFINITY)),
            ("2 +", None),
            ("2 2", None),
            ("(1", None),
            ("foo(1)", None),
            ("pi", None),
            ("", None),
            (".", None),
        ] {
            assert_eq!(eval(text.as_bytes()), want, "{text}");
        }
        assert_eq!(eval("(".repeat(100_000).as_bytes()), None);
        assert_eq!(eval("sin ".repeat(100_000).as_bytes()), None);
    }
}
