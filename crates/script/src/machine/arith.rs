//! What the arithmetic operators do with values of any kind.

use crate::ops::{Arith, Right};
use crate::traced::Builder;
use crate::value::{MAX_TEXT, Value};
use bytes::BytesMut;

/// Why an expression has no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Misfit {
    /// The operands do not go together.
    Kinds,
    /// The text would be longer than `MAX_TEXT`.
    TooLong,
}

/// Numbers are 32 bits wide and wrap.
fn number(value: &Value) -> Option<i32> {
    value.int().map(|n| n as i32)
}

/// The number of a left operand, which must be one first.
fn first_number(value: &Value) -> Option<i32> {
    match value {
        Value::Nought => Some(0),
        value if value.is_number() => number(value),
        _ => None,
    }
}

/// `left op right`. The left side decides: a number computes (a NULL on its right counts as 0), anything else
/// joins with `+` (NULL is the empty string) and goes byte by byte with `&`, `|` and `^`.
pub(crate) fn binary(op: Arith, left: Value, right: &Value, origin: Right) -> Result<Value, Misfit> {
    if left.has_failed() || right.has_failed() {
        return Err(Misfit::Kinds);
    }
    match op {
        Arith::Add if first_number(&left).is_none() => join(&left, right, origin),
        Arith::Concat => join(&left, right, Right::Variable),
        Arith::And | Arith::Or | Arith::Xor if first_number(&left).is_none() => {
            bytewise(op, &left, right, origin)
        }
        _ => {
            let b = if right.is_null() { Some(0) } else { number(right) };
            let (Some(a), Some(b)) = (first_number(&left), b) else { return Err(Misfit::Kinds) };
            Ok(Value::Int(i64::from(compute(op, a, b))))
        }
    }
}

/// `target op= right`: what would not change its kind, and no NULL on either side.
pub(crate) fn modified(op: Arith, left: Value, right: &Value, origin: Right) -> Result<Value, Misfit> {
    let bitwise = matches!(op, Arith::And | Arith::Or | Arith::Xor);
    if left.is_null() || right.is_null() || (bitwise && !left.is_number()) {
        return Err(Misfit::Kinds);
    }
    binary(op, left, right, origin)
}

/// The same with a number written in the script, the frequent case.
pub(crate) fn binary_int(op: Arith, left: &Value, right: i32) -> Result<Value, Misfit> {
    match (op, left) {
        (Arith::Concat, left) => join(left, &Value::Int(i64::from(right)), Right::Variable),
        (_, left) => {
            first_number(left).map(|a| Value::Int(i64::from(compute(op, a, right)))).ok_or(Misfit::Kinds)
        }
    }
}

pub(crate) fn bit_not(value: &Value) -> Result<Value, Misfit> {
    number(value).map(|n| Value::Int(i64::from(!n))).ok_or(Misfit::Kinds)
}

fn compute(op: Arith, a: i32, b: i32) -> i32 {
    match op {
        Arith::Add => a.wrapping_add(b),
        Arith::Sub => a.wrapping_sub(b),
        Arith::Mul => a.wrapping_mul(b),
        Arith::Div if b == 0 => 0,
        Arith::Div => a.wrapping_div(b),
        Arith::Mod if b == 0 => 0,
        Arith::Mod => a.wrapping_rem(b),
        Arith::And => a & b,
        Arith::Or => a | b,
        Arith::Xor => a ^ b,
        // The count counts modulo 32, as the processor does it.
        Arith::ShiftLeft => a.wrapping_shl(b as u32),
        Arith::ShiftRight => a.wrapping_shr(b as u32),
        Arith::Concat => unreachable!("texts are joined, not computed"),
    }
}

fn join(left: &Value, right: &Value, origin: Right) -> Result<Value, Misfit> {
    if origin == Right::Computed && matches!(right, Value::Int(_)) {
        return Err(Misfit::Kinds);
    }
    let (mut one, mut two) = (itoa::Buffer::new(), itoa::Buffer::new());
    let a = left.text_in(&mut one).unwrap_or_default();
    let b = right.text_in(&mut two).unwrap_or_default();
    if a.len() + b.len() > MAX_TEXT {
        return Err(Misfit::TooLong);
    }
    if matches!(left, Value::Pieced(..)) || matches!(right, Value::Pieced(..)) {
        let mut joined = Builder::default();
        [left, right].into_iter().filter(|value| !value.is_null()).for_each(|value| joined.push_value(value));
        return Ok(joined.finish().into_value());
    }
    let mut joined = BytesMut::with_capacity(a.len() + b.len());
    joined.extend_from_slice(a);
    joined.extend_from_slice(b);
    Ok(Value::Str(joined.freeze()))
}

/// Texts of the same length, byte with byte; a number on the right is its digits.
fn bytewise(op: Arith, left: &Value, right: &Value, origin: Right) -> Result<Value, Misfit> {
    if origin == Right::Computed && matches!(right, Value::Int(_)) {
        return Err(Misfit::Kinds);
    }
    let (mut one, mut two) = (itoa::Buffer::new(), itoa::Buffer::new());
    let (Some(a), Some(b)) = (left.text_in(&mut one), right.text_in(&mut two)) else {
        return Err(Misfit::Kinds);
    };
    if a.len() != b.len() {
        return Err(Misfit::Kinds);
    }
    let merge = |(a, b): (&u8, &u8)| match op {
        Arith::And => a & b,
        Arith::Or => a | b,
        _ => a ^ b,
    };
    Ok(Value::Str(a.iter().zip(b).map(merge).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn value(text: &str) -> Value {
        match text {
            "NULL" => Value::Null,
            quoted if quoted.starts_with('\'') => {
                Value::Str(Bytes::copy_from_slice(quoted.trim_matches('\'').as_bytes()))
            }
            both if both.starts_with("both ") => Value::Both(Bytes::from(both[5..].to_string()), 7),
            num if num.starts_with("num ") => Value::Num(Bytes::from(num[4..].to_string()), 7),
            number => Value::Int(number.parse().unwrap()),
        }
    }

    fn check(left: &str, op: Arith, right: &str, want: &str) {
        let got = binary(op, value(left), &value(right), Right::Variable);
        let want = if want == "misfit" { Err(Misfit::Kinds) } else { Ok(value(want)) };
        assert_eq!(got, want, "{left} {} {right}", op.sign());
    }

    /// From golden areas op.int, op.var and num.msg.
    #[test]
    fn operators() {
        use Arith::*;
        check("7", Sub, "10", "-3");
        check("-7", Div, "2", "-3");
        check("-7", Mod, "3", "-1");
        check("7", Div, "0", "0");
        check("7", Mod, "0", "0");
        check("-2147483648", Div, "-1", "-2147483648");
        check("6", And, "3", "2");
        check("6", Or, "3", "7");
        check("6", Xor, "3", "5");
        check("1", ShiftLeft, "31", "-2147483648");
        check("1", ShiftLeft, "33", "2");
        check("-16", ShiftRight, "2", "-4");
        check("2147483647", Add, "1", "-2147483648");
        check("6", Add, "NULL", "6");
        check("1", Sub, "NULL", "1");
        check("'6'", Add, "NULL", "'6'");
        check("NULL", Add, "'6'", "'6'");
        check("NULL", Add, "NULL", "''");
        check("6", Mul, "NULL", "0");
        check("6", Div, "NULL", "0");
        check("6", Or, "NULL", "6");
        check("NULL", Sub, "NULL", "misfit");
        check("'6'", Sub, "NULL", "misfit");
        check("NULL", Sub, "1", "misfit");
        check("NULL", Mul, "2", "misfit");
        check("6", Add, "'x'", "misfit");
        check("'6'", Add, "3", "'63'");
        check("'abc'", Add, "'de'", "'abcde'");
        check("'6'", Sub, "3", "misfit");
        check("'6'", Or, "3", "'7'");
        check("'6x'", And, "-7", "'$0'");
        check("'6x'", Or, "6", "misfit");
        check("'6'", Xor, "'3'", "'\u{5}'");
        check("''", And, "NULL", "misfit");
        check("6", Or, "'6'", "misfit");
        check("'abc'", And, "'de'", "misfit");
        check("num 7 sec", Add, "1", "8");
        check("num 7 sec", Mul, "0", "0");
        check("both 7", Sub, "1", "misfit");
        check("both 7", And, "1", "'1'");
        check("both 7", Add, "1", "'71'");
        check("1", Add, "both 7", "8");
    }

    #[test]
    fn changing_in_place() {
        let check = |left, op, right, want: &str| {
            let got = modified(op, value(left), &value(right), Right::Variable);
            let want = if want == "misfit" { Err(Misfit::Kinds) } else { Ok(value(want)) };
            assert_eq!(got, want, "{left} {}= {right}", op.sign());
        };
        check("6", Arith::Add, "7", "13");
        check("6", Arith::Mul, "NULL", "misfit");
        check("NULL", Arith::Add, "'c'", "misfit");
        check("NULL", Arith::Add, "1", "misfit");
        check("'ab'", Arith::Add, "'c'", "'abc'");
        check("'6'", Arith::Or, "'c'", "misfit");
        check("6", Arith::Or, "'c'", "misfit");
    }

    #[test]
    fn texts_stay_short() {
        let half = Value::Str(vec![b'a'; MAX_TEXT / 2].into());
        let whole = binary(Arith::Add, half.clone(), &half, Right::Variable).unwrap();
        assert_eq!(binary(Arith::Add, whole, &half, Right::Variable), Err(Misfit::TooLong));
    }

    #[test]
    fn a_written_number_has_no_text() {
        assert_eq!(binary(Arith::Add, value("'n'"), &value("5"), Right::Computed), Err(Misfit::Kinds));
        assert_eq!(binary_int(Arith::Add, &value("'n'"), 5), Err(Misfit::Kinds));
        assert_eq!(binary_int(Arith::Add, &value("NULL"), 5), Err(Misfit::Kinds));
        assert_eq!(binary_int(Arith::Add, &value("both 7"), 1), Err(Misfit::Kinds));
        assert_eq!(binary_int(Arith::Add, &value("num 7 sec"), 1), Ok(Value::Int(8)));
        assert_eq!(binary_int(Arith::Sub, &value("7"), 2), Ok(Value::Int(5)));
        assert_eq!(bit_not(&value("5")), Ok(Value::Int(-6)));
        assert_eq!(bit_not(&value("'5'")), Err(Misfit::Kinds));
    }
}
