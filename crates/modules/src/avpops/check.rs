//! avp_check(): compares AVPs and other variables.

use super::Avpops;
use super::args::{
    Flags, Operand, Parse, Parsed, Piece, by_first_letters, number, operand, operation, piece,
};
use bytes::Bytes;
use host::load::Loader;
use host::{Arg, Call, Ctx, Registrar, Routes, Value};
use script::ast;
use script::posix::{self, Case};
use script::{Diagnostic, Loc};
use std::cmp::Ordering;
use std::sync::Arc;

pub fn register(m: &mut Registrar<Avpops>) {
    m.function("avp_check", Routes::ALL, check);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Regular expression.
    Re,
    /// Fast match: `*`, `?`, `[a-z]`, as `fnmatch` has it.
    Fm,
    And,
    Or,
    Xor,
}

impl Op {
    fn parse(text: &[u8]) -> Option<Op> {
        const WORDS: [(&[u8], Op); 11] = [
            (b"eq", Op::Eq),
            (b"ne", Op::Ne),
            (b"lt", Op::Lt),
            (b"le", Op::Le),
            (b"gt", Op::Gt),
            (b"ge", Op::Ge),
            (b"re", Op::Re),
            (b"fm", Op::Fm),
            (b"and", Op::And),
            (b"or", Op::Or),
            (b"xor", Op::Xor),
        ];
        by_first_letters(&WORDS, text)
    }

    fn numbers(self, left: i32, right: i32) -> bool {
        match self {
            Op::Eq => left == right,
            Op::Ne => left != right,
            Op::Lt => left < right,
            Op::Le => left <= right,
            Op::Gt => left > right,
            Op::Ge => left >= right,
            Op::And => left & right != 0,
            Op::Or => left | right != 0,
            Op::Xor => left ^ right != 0,
            Op::Re | Op::Fm => false,
        }
    }

    fn texts(self, left: &[u8], right: &[u8], case: Case) -> bool {
        let equal = || match case {
            Case::Ignore => left.eq_ignore_ascii_case(right),
            Case::Sensitive => left == right,
        };
        // The order never minds case.
        let order = || left.to_ascii_lowercase().cmp(&right.to_ascii_lowercase());
        match self {
            Op::Eq => equal(),
            Op::Ne => !equal(),
            Op::Lt => order() == Ordering::Less,
            Op::Le => order() != Ordering::Greater,
            Op::Gt => order() == Ordering::Greater,
            Op::Ge => order() != Ordering::Less,
            Op::Fm => glob(right, case).is_some_and(|pattern| pattern.is_match(left)),
            Op::Re | Op::And | Op::Or | Op::Xor => false,
        }
    }
}

/// `fnmatch` without flags, as a regular expression.
fn glob(pattern: &[u8], case: Case) -> Option<posix::Pattern> {
    let mut out = b"^".to_vec();
    let literal = |out: &mut Vec<u8>, byte: u8| {
        if !byte.is_ascii_alphanumeric() && byte.is_ascii() {
            out.push(b'\\');
        }
        out.push(byte);
    };
    let mut at = 0;
    while let Some(&byte) = pattern.get(at) {
        at += 1;
        match byte {
            b'*' => out.extend_from_slice(b"(.|\n)*"),
            b'?' => out.extend_from_slice(b"(.|\n)"),
            b'\\' => {
                literal(&mut out, *pattern.get(at)?);
                at += 1;
            }
            b'[' => {
                // A `]` that stands first is one of the characters.
                let negated = matches!(pattern.get(at), Some(b'!' | b'^'));
                let first = at + usize::from(negated);
                let end = (first + 1..pattern.len()).find(|i| pattern[*i] == b']');
                let Some(end) = end else {
                    literal(&mut out, b'[');
                    continue;
                };
                out.extend_from_slice(if negated { b"[^" } else { b"[" });
                out.extend_from_slice(&pattern[first..=end]);
                at = end + 1;
            }
            byte => literal(&mut out, byte),
        }
    }
    out.push(b'$');
    posix::compile(&out, case).ok()
}

enum With {
    Regex(posix::Pattern),
    Value(Operand),
}

/// "operator/value/flags"
struct Test {
    op: Op,
    with: With,
    flags: Flags,
}

impl Parse for Test {
    const WHAT: &'static str = "operator/value/flags";

    fn parse(text: &Bytes, loc: Loc, loader: &mut Loader) -> Result<Test, Diagnostic> {
        let (word, value, flags) = operation(text, loc)?;
        let Some(op) = Op::parse(&word) else {
            let word = String::from_utf8_lossy(&word);
            return Err(Diagnostic::error(loc, format!("`{word}` is no comparison"))
                .hint("eq, ne, lt, le, gt, ge, re, fm, and, or, xor"));
        };
        let flags = Flags::parse(&flags, b"gi", loc)?;
        let value = operand(&value, loc, loader)?;
        let with = match (op, value) {
            (Op::Re, Operand::Fixed(Value::Str(pattern))) => {
                let regex = posix::compile_lines(&pattern, Case::Ignore);
                With::Regex(regex.map_err(|e| Diagnostic::error(loc, e.to_string()))?)
            }
            (Op::Re, _) | (Op::Fm, Operand::Fixed(Value::Int(_))) => {
                return Err(Diagnostic::error(loc, "the pattern must be a text"));
            }
            (_, value) => With::Value(value),
        };
        Ok(Test { op, with, flags })
    }
}

impl Test {
    fn holds(&self, ctx: &mut Ctx, left: &Value) -> Option<bool> {
        let operand = match &self.with {
            With::Regex(regex) => {
                return Some(match number(left) {
                    None => left.text().is_some_and(|text| regex.is_match(&text)),
                    Some(_) => different(),
                });
            }
            With::Value(operand) => operand,
        };
        let case = if self.flags.ignore_case { Case::Ignore } else { Case::Sensitive };
        let values = operand.values(ctx)?;
        Some(values.iter().any(|right| match (number(left), number(right)) {
            (Some(left), Some(right)) => self.op.numbers(left, right),
            (None, None) => {
                let (left, right) = (left.text().unwrap_or_default(), right.text().unwrap_or_default());
                self.op.texts(&left, &right, case)
            }
            _ => different(),
        }))
    }
}

fn different() -> bool {
    host::error!("avpops", "avp_check: a number and a text do not compare");
    false
}

struct Left(Vec<Value>);

impl Arg<Avpops> for Left {
    type Prepared = Operand;
    const WHAT: &'static str = "a variable";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Avpops>,
    ) -> Result<Operand, Diagnostic> {
        match piece(arg, site, "a variable")? {
            (Piece::Var(spec), _) => Operand::var(spec, loader),
            (Piece::Text(text), loc) => {
                if !text.starts_with(b"$") {
                    return Err(Diagnostic::error(loc, "this must be a variable"));
                }
                Operand::var(&script::parse_leading_variable(&text, loc)?.0, loader)
            }
        }
    }

    fn eval(operand: &Operand, call: &mut Call<'_, Avpops>) -> Result<Left, i32> {
        operand.values(call.ctx).map(Left).ok_or(-1)
    }
}

/// avp_check(name, "operator/value/flags"): `g` tries all values of the AVP, `i` ignores case. An AVP on the
/// right is tried with all its values.
fn check(call: &mut Call<Avpops>, left: Left, test: Parsed<Test>) -> bool {
    let count = if test.0.flags.all { usize::MAX } else { 1 };
    for value in left.0.iter().take(count) {
        match test.0.holds(call.ctx, value) {
            Some(true) => return true,
            Some(false) => {}
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, matches) in [
            ("th*", "three", true),
            ("th*", "th/.x", true),
            ("*ee", "three", true),
            ("t?ree", "three", true),
            ("t?", "three", false),
            ("[a-t]hree", "three", true),
            ("[!a-s]hree", "three", true),
            ("[!a-t]hree", "three", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("a.c", "abc", false),
            ("+49*", "+4930", true),
            ("[", "[", true),
            ("[]x]", "]", true),
            ("", "", true),
            ("THREE", "three", false),
        ] {
            let found = glob(pattern.as_bytes(), Case::Sensitive).expect(pattern);
            assert_eq!(found.is_match(text.as_bytes()), matches, "{pattern} {text}");
        }
        assert!(glob(b"TH*", Case::Ignore).expect("a pattern").is_match(b"three"));
    }
}
