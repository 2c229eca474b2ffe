//! mathops: arithmetic on decimal numbers.

mod expr;
mod rpn;

use host::arg::OutVar;
use host::{Call, Int, Registrar, Routes, Text, Value};

pub struct Mathops {
    digits: usize,
}

impl Default for Mathops {
    fn default() -> Mathops {
        Mathops { digits: 6 }
    }
}

/// Most digits behind the point of a result.
const MAX_DIGITS: i64 = 100;

pub fn register(m: &mut Registrar<Mathops>) {
    m.param_int("decimal_digits", |s, n| {
        if !(0..=MAX_DIGITS).contains(&n) {
            return Err(format!("decimal_digits is 0 to {MAX_DIGITS}"));
        }
        Ok(s.digits = n as usize)
    });
    m.function("math_eval", Routes::ALL, math_eval);
    m.function("math_rpn", Routes::ALL, math_rpn);
    m.function("math_trunc", Routes::ALL, math_trunc);
    m.function("math_floor", Routes::ALL, math_floor);
    m.function("math_ceil", Routes::ALL, math_ceil);
    m.function("math_round", Routes::ALL, math_round);
    m.function("math_round_sf", Routes::ALL, math_round_sf);
    m.function("math_compare", Routes::ALL, math_compare);
}

/// As C prints it, with as many digits behind the point.
fn print(n: f64, digits: usize) -> Value {
    match n {
        n if n.is_nan() => if n.is_sign_negative() { "-nan" } else { "nan" }.into(),
        n if n.is_infinite() => if n < 0.0 { "-inf" } else { "inf" }.into(),
        n => format!("{n:.digits$}").into(),
    }
}

/// The number a text begins with, as strtod(3) reads it without hexadecimal, and its length. 0 without one.
fn leading_number(text: &[u8]) -> (f64, usize) {
    let digits = |from: usize| text[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let blanks = text.iter().take_while(|b| b.is_ascii_whitespace()).count();
    let mut at = blanks + usize::from(matches!(text.get(blanks), Some(b'+' | b'-')));
    let mut seen = digits(at);
    at += seen;
    if text.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        seen += fraction;
        at += usize::from(seen > 0) * (1 + fraction);
    }
    if seen == 0 {
        return (0.0, 0);
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits((at + 1 + sign).min(text.len()));
        at += usize::from(exponent > 0) * (1 + sign + exponent);
    }
    let number = std::str::from_utf8(&text[blanks..at]).ok().and_then(|t| t.parse().ok());
    (number.unwrap_or(0.0), at)
}

/// math_eval(expression, result)
fn math_eval(call: &mut Call<Mathops>, expression: Text, out: OutVar) -> bool {
    let result = expr::eval(expression.trim_ascii()).filter(|n| !n.is_nan());
    let digits = call.module.digits;
    result.is_some_and(|n| out.set(call.ctx, print(n, digits)))
}

/// math_rpn(expression, result): operators follow their operands.
fn math_rpn(call: &mut Call<Mathops>, expression: Text, out: OutVar) -> bool {
    let digits = call.module.digits;
    rpn::eval(expression.trim_ascii()).is_some_and(|n| out.set(call.ctx, print(n, digits)))
}

/// The integer of 32 bits that a number is cut to; what does not fit is the lowest one.
fn to_int(n: f64) -> i64 {
    let fits = n > f64::from(i32::MIN) - 1.0 && n < f64::from(i32::MAX) + 1.0;
    if fits { n as i64 } else { i64::from(i32::MIN) }
}

/// math_trunc(number, result): towards 0.
fn math_trunc(call: &mut Call<Mathops>, number: Text, out: OutVar) -> bool {
    out.set(call.ctx, to_int(leading_number(&number).0.trunc()))
}

/// math_floor(number, result): towards negative infinity.
fn math_floor(call: &mut Call<Mathops>, number: Text, out: OutVar) -> bool {
    out.set(call.ctx, to_int(leading_number(&number).0.floor()))
}

/// math_ceil(number, result): towards infinity.
fn math_ceil(call: &mut Call<Mathops>, number: Text, out: OutVar) -> bool {
    out.set(call.ctx, to_int(leading_number(&number).0.ceil()))
}

/// math_round(number, result, [digits]): a whole number, with digits a text.
fn math_round(call: &mut Call<Mathops>, number: Text, out: OutVar, digits: Option<Int>) -> bool {
    let n = leading_number(&number).0;
    match digits.map_or(0, |d| d.0) {
        0 => out.set(call.ctx, to_int(n.round())),
        digits => out.set(call.ctx, print(n, digits.clamp(0, MAX_DIGITS) as usize)),
    }
}

/// math_round_sf(number, result, figures): keeps this many significant figures.
fn math_round_sf(call: &mut Call<Mathops>, number: Text, out: OutVar, figures: Int) -> bool {
    let n = leading_number(&number).0;
    let factor = 10f64.powf(figures.0 as f64 - n.abs().log10().ceil());
    let rounded = if n == 0.0 { 0.0 } else { (n * factor).round() / factor };
    let digits = call.module.digits;
    out.set(call.ctx, print(rounded, digits))
}

/// math_compare(expression, expression, result): 1, -1 or 0.
fn math_compare(call: &mut Call<Mathops>, left: Text, right: Text, out: OutVar) -> bool {
    let value = |text: &Text| expr::eval(text.trim_ascii()).filter(|n| !n.is_nan());
    match value(&left).zip(value(&right)) {
        Some((left, right)) => out.set(call.ctx, i64::from(left > right) - i64::from(left < right)),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use script::ast::Dialect;

    #[test]
    fn numbers_that_texts_begin_with() {
        for (text, want) in [
            ("3.7", (3.7, 3)),
            ("1e2x", (100.0, 3)),
            ("1e+", (1.0, 1)),
            (" -2.9", (-2.9, 5)),
            (".5", (0.5, 2)),
            ("5.", (5.0, 2)),
            (".", (0.0, 0)),
            ("abc", (0.0, 0)),
            ("", (0.0, 0)),
        ] {
            assert_eq!(leading_number(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn script_functions() {
        let body = r#"
            $avp(n) = "3"; math_eval("2 * ($avp(n) + 1)", $avp(a)); math_rpn("1 $avp(n) /", $avp(b));
            math_round("3.141592", $avp(c), 4); math_round_sf("17892.987", $avp(d), 3);
            math_floor("-2.9", $avp(e)); math_compare("1 + 8", "7/2", $avp(f)); math_round("99e99", $avp(g));
            if (!math_eval("2 +", $avp(h)) && !math_eval("sqrt(0-1)", $avp(h))) $avp(i) = "failed";
        "#;
        let ran = testing::run("loadmodule \"mathops.so\"", body, Dialect::V4);
        for (name, want) in [
            ("a", "8.000000"),
            ("b", "0.333333"),
            ("c", "3.1416"),
            ("d", "17900.000000"),
            ("e", "-3"),
            ("f", "1"),
            ("g", "-2147483648"),
            ("i", "failed"),
        ] {
            assert_eq!(ran.avps(name), [want], "{name}");
        }
        assert!(ran.avps("h").is_empty());
    }
}
