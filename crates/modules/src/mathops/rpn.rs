//! Reverse Polish notation.

use super::leading_number;

/// Numbers on the stack.
const MAX_STACK: usize = 1024;

/// The number that is left on the stack; `None`: an unknown word, too few operands, more than one left.
pub fn eval(text: &[u8]) -> Option<f64> {
    let mut stack = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            break;
        }
        let digits = rest.strip_prefix(b"-").unwrap_or(rest);
        if digits.first().is_some_and(u8::is_ascii_digit) {
            let (number, len) = leading_number(rest);
            stack.push(number);
            rest = &rest[len..];
        } else {
            let len = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
            apply(&mut stack, &rest[..len])?;
            rest = &rest[len..];
        }
        if stack.len() > MAX_STACK {
            return None;
        }
    }
    match stack[..] {
        [result] => Some(result),
        _ => None,
    }
}

fn apply(stack: &mut Vec<f64>, word: &[u8]) -> Option<()> {
    let unary: fn(f64) -> f64 = match word {
        b"neg" => |n| -n,
        b"exp" => f64::exp,
        b"ln" => f64::ln,
        // The reference knows the decimal logarithm by this name only.
        b"log" => f64::log10,
        b"abs" => f64::abs,
        b"sqrt" => f64::sqrt,
        b"cbrt" => f64::cbrt,
        b"floor" => f64::floor,
        b"ceil" => f64::ceil,
        b"round" => f64::round,
        b"nearbyint" => f64::round_ties_even,
        b"trunc" => f64::trunc,
        _ => return apply_other(stack, word),
    };
    let n = stack.pop()?;
    stack.push(unary(n));
    Some(())
}

fn apply_other(stack: &mut Vec<f64>, word: &[u8]) -> Option<()> {
    let binary: fn(f64, f64) -> f64 = match word {
        b"+" => |a, b| a + b,
        b"-" => |a, b| a - b,
        b"*" => |a, b| a * b,
        b"/" => |a, b| a / b,
        b"mod" => |a, b| a % b,
        b"pow" => f64::powf,
        b"e" => return Some(stack.push(std::f64::consts::E)),
        b"pi" => return Some(stack.push(std::f64::consts::PI)),
        b"drop" => return stack.pop().map(|_| ()),
        b"dup" => {
            let top = *stack.last()?;
            return Some(stack.push(top));
        }
        b"swap" => {
            let len = stack.len();
            return (len >= 2).then(|| stack.swap(len - 1, len - 2));
        }
        _ => return None,
    };
    let (right, left) = (stack.pop()?, stack.pop()?);
    stack.push(binary(left, right));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        for (text, want) in [
            ("1 2 +", Some(3.0)),
            ("10 3 mod", Some(1.0)),
            ("5 dup *", Some(25.0)),
            ("1 3 swap swap dup drop /", Some(1.0 / 3.0)),
            ("2.5 nearbyint", Some(2.0)),
            ("-7.5 round", Some(-8.0)),
            ("2 3 4", None),
            ("+", None),
            ("1 foo", None),
            ("", None),
        ] {
            assert_eq!(eval(text.as_bytes()), want, "{text}");
        }
        assert_eq!(eval("1 ".repeat(5000).as_bytes()), None);
    }
}
