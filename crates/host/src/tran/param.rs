//! Parameters of transformations: constants, read at load, or variables.

use crate::ctx::Ctx;
use crate::language::loader::Loader;
use crate::var::Var;
use bytes::Bytes;
use script::Diagnostic;
use script::ast::TranSpec;

/// A whole number, written or in a variable.
pub enum Number {
    Fixed(i32),
    Var(Box<Var>),
}

/// A text, written or in a variable.
pub enum Word {
    Fixed(Bytes),
    Var(Box<Var>),
}

fn missing(spec: &TranSpec, nth: usize, what: &str) -> Diagnostic {
    let (class, name) = (String::from_utf8_lossy(&spec.class), String::from_utf8_lossy(&spec.name));
    Diagnostic::error(spec.loc, format!("{{{class}.{name}}} needs {what} as its parameter {}", nth + 1))
}

fn variable(text: &Bytes, spec: &TranSpec, loader: &mut Loader) -> Result<Box<Var>, Diagnostic> {
    Ok(Box::new(loader.var(&script::parse_variable(text, spec.loc)?)?))
}

impl Number {
    /// The n-th parameter (from 0).
    pub fn new(spec: &TranSpec, nth: usize, loader: &mut Loader) -> Result<Number, Diagnostic> {
        match spec.params.get(nth) {
            Some(text) => Number::parse(text, spec, nth, loader),
            None => Err(missing(spec, nth, "a number")),
        }
    }

    /// The n-th parameter, when it is there.
    pub fn optional(spec: &TranSpec, nth: usize, loader: &mut Loader) -> Result<Option<Number>, Diagnostic> {
        match spec.params.get(nth) {
            Some(text) => Number::parse(text, spec, nth, loader).map(Some),
            None => Ok(None),
        }
    }

    /// A constant, or a variable.
    pub(super) fn parse(
        text: &Bytes,
        spec: &TranSpec,
        nth: usize,
        loader: &mut Loader,
    ) -> Result<Number, Diagnostic> {
        let text = text.slice_ref(text.trim_ascii());
        if text.starts_with(b"$") {
            return Ok(Number::Var(variable(&text, spec, loader)?));
        }
        match leading_int(&text) {
            (Some(n), rest) => {
                if !rest.trim_ascii().is_empty() {
                    let rest = String::from_utf8_lossy(rest).into_owned();
                    let text = format!("what follows the number in this parameter has no effect: {rest}");
                    loader.diagnostics.push(Diagnostic::warning(spec.loc, text));
                }
                Ok(Number::Fixed(n))
            }
            (None, _) => Err(missing(spec, nth, "a number or a variable")),
        }
    }

    /// False: a number with something behind it.
    pub fn is_whole(text: &[u8]) -> bool {
        leading_int(text.trim_ascii()).1.trim_ascii().is_empty() || text.trim_ascii().starts_with(b"$")
    }

    /// `None`: the variable holds no number.
    pub fn get(&self, ctx: &mut Ctx) -> Option<i32> {
        match self {
            Number::Fixed(n) => Some(*n),
            Number::Var(var) => var.get(ctx).int().map(|n| n as i32),
        }
    }

    pub fn fixed(&self) -> Option<i32> {
        match self {
            Number::Fixed(n) => Some(*n),
            Number::Var(_) => None,
        }
    }
}

/// The number a text begins with, wrapped to 32 bits, and what follows it. `None`: it begins with none.
pub(crate) fn leading_int(text: &[u8]) -> (Option<i32>, &[u8]) {
    let (sign, rest) = match text.first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    let len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if len == 0 {
        return (None, text);
    }
    let n = rest[..len].iter().fold(0i32, |n, b| n.wrapping_mul(10).wrapping_add(i32::from(b - b'0')));
    (Some(n.wrapping_mul(sign)), &rest[len..])
}

impl Word {
    /// The n-th parameter: up to the first blank, or a variable.
    pub fn new(spec: &TranSpec, nth: usize, loader: &mut Loader) -> Result<Word, Diagnostic> {
        let Some(text) = spec.params.get(nth) else { return Err(missing(spec, nth, "a text")) };
        let trimmed = text.trim_ascii();
        if trimmed.starts_with(b"$") {
            return Ok(Word::Var(variable(&text.slice_ref(trimmed), spec, loader)?));
        }
        let word = trimmed.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        Ok(Word::Fixed(text.slice_ref(word)))
    }

    /// `None`: the variable is NULL or empty.
    pub fn get(&self, ctx: &mut Ctx) -> Option<Bytes> {
        match self {
            Word::Fixed(text) => Some(text.clone()),
            Word::Var(var) => {
                let value = var.get(ctx);
                if value.is_null() { None } else { Some(super::text(&value)).filter(|t| !t.is_empty()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_texts_begin_with() {
        for (text, n, rest) in [
            ("12x", Some(12), "x"),
            ("-12.5", Some(-12), ".5"),
            ("+5", Some(5), ""),
            ("", None, ""),
            ("-", None, "-"),
            (" 7", None, " 7"),
            ("2147483648", Some(i32::MIN), ""),
            ("99999999999", Some(1_215_752_191), ""),
        ] {
            assert_eq!(leading_int(text.as_bytes()), (n, rest.as_bytes()), "{text}");
        }
    }
}
