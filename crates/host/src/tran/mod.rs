//! Transformations `{class.name,params}`: functions of a value, prepared at load.
//!
//! What a transformation cuts out of a text shares the text's buffer. NULL goes through all of them as
//! NULL. A number that is made here also prints and compares as a text ([`number`]).

mod codec;
mod csv;
mod digest;
mod ip;
mod list;
mod nameaddr;
mod param;
mod re;
mod sdp;
mod string;
mod time;
mod uri;
mod via;

pub use digest::crc32_of;

use crate::language::loader::Loader;
use bytes::Bytes;
use script::ast::{Dialect, TranSpec};
use script::{Diagnostic, Value};

pub use crate::context::transform::Tran;
pub use param::{Number, Word};

/// Longest text that a transformation makes (the buffer of the reference).
pub(crate) const MAX: usize = 65_535;

/// How one name of a class is prepared.
pub(crate) enum Entry {
    Pure(fn(Value) -> Value),
    /// The same where 2.1 does something else: (4.x, 2.1).
    Dialects(fn(Value) -> Value, fn(Value) -> Value),
    With(fn(&TranSpec, &mut Loader) -> Result<Tran, Diagnostic>),
}

/// The names of a class.
type Names = &'static [(&'static str, Entry)];

const CLASSES: &[(&str, Names)] = &[
    ("s", string::NAMES),
    ("uri", uri::NAMES),
    ("via", via::NAMES),
    ("param", list::NAMES),
    ("nameaddr", nameaddr::NAMES),
    ("ip", ip::NAMES),
    ("csv", csv::NAMES),
    ("sdp", sdp::NAMES),
    ("re", re::NAMES),
];

/// There is a transformation `class.name`.
pub fn is_known(name: &str) -> bool {
    let Some((class, name)) = name.split_once('.') else { return false };
    CLASSES.iter().any(|(c, names)| *c == class && names.iter().any(|(n, _)| *n == name))
}

/// Prepares `{class.name,params}`; an unknown one is a diagnostic with the nearest name. Case does not matter.
pub fn prepare(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    let class = String::from_utf8_lossy(&spec.class).to_ascii_lowercase();
    let name = String::from_utf8_lossy(&spec.name).to_ascii_lowercase();
    let Some((_, names)) = CLASSES.iter().find(|(c, _)| *c == class) else {
        let error = Diagnostic::error(spec.loc, format!("unknown class of transformations {{{class}.…}}"));
        let known: Vec<&str> = CLASSES.iter().map(|(c, _)| *c).collect();
        return Err(error.hint(match script::nearest(&class, known.iter().copied()) {
            Some(near) => format!("did you mean {{{near}.{name}}}?"),
            None => format!("classes of the core: {}; modules bring others", known.join(", ")),
        }));
    };
    let found = names.iter().find(|(n, _)| *n == name).map(|(_, entry)| entry);
    let found = found.or_else(|| match class == "nameaddr" {
        true => nameaddr::indexed(&name, names),
        false => None,
    });
    let Some(entry) = found else {
        let error = Diagnostic::error(spec.loc, format!("unknown transformation {{{class}.{name}}}"));
        return Err(match script::nearest(&name, names.iter().map(|(n, _)| *n)) {
            Some(near) => error.hint(format!("did you mean {{{class}.{near}}}?")),
            None => error,
        });
    };
    match entry {
        Entry::Pure(run) => Ok(Tran::pure(*run)),
        Entry::Dialects(new, old) => Ok(Tran::pure(if loader.dialect == Dialect::V21 { *old } else { *new })),
        Entry::With(build) => build(spec, loader),
    }
}

/// A number that is also its text, as transformations give it.
pub fn number(n: i64) -> Value {
    Value::Num(digits(n), n)
}

/// 1 or 0, as number and text.
pub(crate) fn truth(yes: bool) -> Value {
    number(i64::from(yes))
}

/// The decimal text; that of small numbers is not allocated.
pub(crate) fn digits(n: i64) -> Bytes {
    /// "000001002…999", three digits each.
    static SMALL: [u8; 3000] = {
        let mut text = [0; 3000];
        let mut n = 0;
        while n < 1000 {
            text[3 * n] = b'0' + (n / 100) as u8;
            text[3 * n + 1] = b'0' + (n / 10 % 10) as u8;
            text[3 * n + 2] = b'0' + (n % 10) as u8;
            n += 1;
        }
        text
    };
    match usize::try_from(n) {
        Ok(small) if small < 1000 => {
            let skip = if small < 10 { 2 } else { usize::from(small < 100) };
            Bytes::from_static(&SMALL[3 * small + skip..3 * small + 3])
        }
        _ => Bytes::copy_from_slice(itoa::Buffer::new().format(n).as_bytes()),
    }
}

/// The text of a value that is not NULL.
pub(crate) fn text(value: &Value) -> Bytes {
    match value {
        Value::Int(n) => digits(*n),
        value => value.to_text(),
    }
}

/// The value with another text: what is a number stays one.
pub(crate) fn with_text(value: &Value, text: Bytes) -> Value {
    match value {
        Value::Int(n) | Value::Num(_, n) => Value::Num(text, *n),
        Value::Both(_, n) => Value::Both(text, *n),
        _ => Value::Str(text),
    }
}

/// What stands for a part that is not there: NULL, in 2.1 an empty text.
pub(crate) fn absent(dialect: Dialect) -> Value {
    match dialect {
        Dialect::V4 => Value::Null,
        Dialect::V21 => Value::Str(Bytes::new()),
    }
}

/// `value`, or what stands for one that is not there.
pub(crate) fn or_absent(value: Value, dialect: Dialect) -> Value {
    match value {
        Value::Null => absent(dialect),
        value => value,
    }
}

/// A part of a text, NULL when it is empty.
pub(crate) fn some(text: Bytes) -> Value {
    if text.is_empty() { Value::Null } else { Value::Str(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_numbers() {
        for n in [0, 7, 10, 99, 100, 999, 1000, -1, -999, i64::MAX, i64::MIN] {
            assert_eq!(digits(n), n.to_string());
        }
    }
}
