//! What the arithmetic operators do with values of any kind.

use crate::ops::{Arith, Right};
use crate::value::{MAX_TEXT, Value};
use bytes::{Bytes, BytesMut};

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

/// `left op right`. A NULL right operand is ignored; a NULL left one counts as the empty string.
pub(crate) fn binary(op: Arith, left: Value, right: &Value, origin: Right) -> Result<Value, Misfit> {
    if right.is_null() {
        return Ok(if left.is_null() { Value::Str(Bytes::new()) } else { left });
    }
    match op {
        Arith::Add if !left.is_number() => join(&left, right, origin),
        Arith::Concat => join(&left, right, Right::Variable),
        _ => {
            let (a, b) = match op {
                Arith::Or => (digits(&left), digits(right)),
                _ => (number(&left), number(right)),
            };
            let (Some(a), Some(b)) = (a, b) else { return Err(Misfit::Kinds) };
            Ok(Value::Int(i64::from(compute(op, a, b))))
        }
    }
}

/// The same with a number written in the script, the frequent case.
pub(crate) fn binary_int(op: Arith, left: &Value, right: i32) -> Result<Value, Misfit> {
    match (op, left) {
        (Arith::Add, left) if !left.is_number() => Err(Misfit::Kinds),
        (Arith::Concat, left) => join(left, &Value::Int(i64::from(right)), Right::Variable),
        (Arith::Or, left) => {
            digits(left).map(|a| Value::Int(i64::from(compute(op, a, right)))).ok_or(Misfit::Kinds)
        }
        (_, left) => number(left).map(|a| Value::Int(i64::from(compute(op, a, right)))).ok_or(Misfit::Kinds),
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
    let mut joined = BytesMut::with_capacity(a.len() + b.len());
    joined.extend_from_slice(a);
    joined.extend_from_slice(b);
    Ok(Value::Str(joined.freeze()))
}

/// `|` alone takes strings of digits for numbers.
fn digits(value: &Value) -> Option<i32> {
    match value {
        Value::Str(text) => std::str::from_utf8(text).ok()?.parse::<i64>().ok().map(|n| n as i32),
        value => number(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        check("NULL", Sub, "1", "misfit");
        check("NULL", Mul, "2", "misfit");
        check("6", Add, "'x'", "misfit");
        check("'6'", Add, "3", "'63'");
        check("'abc'", Add, "'de'", "'abcde'");
        check("'6'", Sub, "3", "misfit");
        check("'6'", Or, "3", "7");
        check("'abc'", And, "'de'", "misfit");
        check("num 7 sec", Add, "1", "8");
        check("num 7 sec", Mul, "0", "0");
        check("both 7", Sub, "1", "6");
        check("both 7", Add, "1", "'71'");
        check("1", Add, "both 7", "8");
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
