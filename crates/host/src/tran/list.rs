//! Class `param`: lists of parameters `a=1;b;c="x y"`.

use super::{Entry, Number, Tran, Word, absent, number, text, truth};
use crate::language::loader::Loader;
use bytes::Bytes;
use script::ast::TranSpec;
use script::{Diagnostic, Value};

pub(super) const NAMES: super::Names = &[
    ("value", Entry::With(value)),
    ("valueat", Entry::With(|spec, loader| at(spec, loader, |param| param.value.unwrap_or_default()))),
    ("name", Entry::With(|spec, loader| at(spec, loader, |param| param.name))),
    ("count", Entry::Pure(count)),
    ("exist", Entry::With(exist)),
    ("exists", Entry::With(exist)),
];

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Param<'a> {
    pub name: &'a [u8],
    /// Without quotes; `None` when it has no `=`.
    pub value: Option<&'a [u8]>,
}

/// A text that is no list of parameters: `a=`, `a;`, `a b`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Malformed;

/// Reads parameters up to the end, a comma or a `>` behind one of them. A fault anywhere spoils the
/// whole list, so all of it is read before an answer is given.
pub(super) struct Params<'a> {
    rest: &'a [u8],
    done: bool,
}

impl<'a> Params<'a> {
    pub fn new(text: &'a [u8]) -> Params<'a> {
        Params { rest: text, done: false }
    }

    /// Calls `each` for every parameter with its place.
    pub fn read(text: &'a [u8], mut each: impl FnMut(usize, Param<'a>)) -> Result<(), Malformed> {
        for (n, param) in Params::new(text).enumerate() {
            each(n, param?);
        }
        Ok(())
    }

    fn next_param(&mut self) -> Result<Param<'a>, Malformed> {
        let (name, rest) = split(self.rest, |b| blank(b) || matches!(b, b';' | b',' | b'='));
        let mut rest = trim(rest);
        let mut value = None;
        if let [b'=', after @ ..] = rest {
            let after = trim(after);
            let (body, after) = match after {
                [b'"', inside @ ..] => {
                    let end = memchr::memchr(b'"', inside).ok_or(Malformed)?;
                    (&inside[..end], &inside[end + 1..])
                }
                plain => match split(plain, |b| blank(b) || matches!(b, b';' | b',')) {
                    ([], _) => return Err(Malformed),
                    found => found,
                },
            };
            value = Some(body);
            rest = trim(after);
        }
        match rest {
            [] | [b',' | b'>', ..] => self.done = true,
            [b';', after @ ..] => {
                self.rest = trim(after);
                if self.rest.is_empty() {
                    return Err(Malformed);
                }
            }
            _ => return Err(Malformed),
        }
        Ok(Param { name, value })
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = Result<Param<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let param = self.next_param();
        self.done |= param.is_err();
        Some(param)
    }
}

fn blank(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

fn trim(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|b| blank(**b)).count()..]
}

fn split(text: &[u8], stop: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|b| stop(*b)).unwrap_or(text.len()))
}

/// The value of the first parameter of that name, any case: `Some("")` when it has none.
pub(super) fn find(text: &Bytes, name: &[u8]) -> Result<Option<Bytes>, Malformed> {
    let mut found = None;
    Params::read(text, |_, param| {
        if found.is_none() && param.name.eq_ignore_ascii_case(name) {
            found = Some(param.value.unwrap_or_default());
        }
    })?;
    Ok(found.map(|part| text.slice_ref(part)))
}

fn value(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    let (name, dialect) = (Word::new(spec, 0, loader)?, loader.dialect);
    Ok(Tran::new(move |ctx, value| {
        let list = text(&value);
        match name.get(ctx).filter(|_| !list.is_empty()).map(|name| find(&list, &name)) {
            Some(Ok(found)) => found.map_or_else(|| absent(dialect), Value::Str),
            _ => Value::Null,
        }
    }))
}

fn exist(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    let name = Word::new(spec, 0, loader)?;
    Ok(Tran::new(move |ctx, value| {
        let list = text(&value);
        let Some(name) = name.get(ctx).filter(|_| !list.is_empty()) else { return Value::Null };
        let mut found = false;
        let sound = Params::read(&list, |_, param| found |= param.name.eq_ignore_ascii_case(&name));
        sound.map_or(Value::Null, |()| truth(found))
    }))
}

fn at(
    spec: &TranSpec,
    loader: &mut Loader,
    part: for<'a> fn(Param<'a>) -> &'a [u8],
) -> Result<Tran, Diagnostic> {
    let (index, dialect) = (Number::new(spec, 0, loader)?, loader.dialect);
    Ok(Tran::new(move |ctx, value| {
        let list = text(&value);
        let Some(index) = index.get(ctx).filter(|_| !list.is_empty()) else { return Value::Null };
        let mut params = smallvec::SmallVec::<[Param<'_>; 8]>::new();
        if Params::read(&list, |_, param| params.push(param)).is_err() {
            return Value::Null;
        }
        let at = if index < 0 { params.len() as i64 + i64::from(index) } else { i64::from(index) };
        let found = usize::try_from(at).ok().and_then(|at| params.get(at));
        found.map_or_else(|| absent(dialect), |param| Value::Str(list.slice_ref(part(*param))))
    }))
}

fn count(value: Value) -> Value {
    let (list, mut count) = (text(&value), 0);
    if list.is_empty() || Params::read(&list, |n, _| count = n + 1).is_err() {
        return Value::Null;
    }
    number(count as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        for (text, want) in [
            ("a=1;b;c=\"x;y\"", Some("a=1|b|c=x;y")),
            ("a", Some("a")),
            ("=v", Some("=v")),
            ("a=1;;b=2", Some("a=1||b=2")),
            (" a = 1", None),
            ("a = 1 ; b", Some("a=1|b")),
            ("a=\"\"", Some("a=")),
            ("a=b=c", Some("a=b=c")),
            ("a=1,b=2", Some("a=1")),
            ("a=1>;b", Some("a=1>|b")),
            ("a=", None),
            ("a=;b", None),
            ("a;", None),
            ("a b", None),
            ("a=\"x", None),
            (";", None),
        ] {
            let mut shown = Vec::new();
            let sound = Params::read(text.as_bytes(), |_, p| {
                let value = p.value.map(|v| format!("={}", String::from_utf8_lossy(v))).unwrap_or_default();
                shown.push(String::from_utf8_lossy(p.name).into_owned() + &value);
            });
            let have = sound.ok().map(|()| shown.join("|"));
            assert_eq!(have.as_deref(), want, "{text}");
        }
    }
}
