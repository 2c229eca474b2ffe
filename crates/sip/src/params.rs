//! Parameters of URIs and headers.

use crate::scan::{self, Nesting, Scanner, trim, unquoted};
use bytes::Bytes;

/// `;name=value;flag` parameters: the raw text after the first `;` (without it).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params {
    /// As received, without the first `;`.
    pub text: Bytes,
}

impl Params {
    /// Value of the parameter, any case: `None` absent, `Some(None)` a flag. Quotes are kept.
    /// The first of several wins.
    pub fn find(&self, name: &[u8]) -> Option<Option<Bytes>> {
        Some(self.named(name).next()?.map(|v| self.text.slice_ref(v)))
    }

    /// Value if present and not a flag; surrounding quotes removed.
    pub fn value(&self, name: &[u8]) -> Option<Bytes> {
        self.named(name).next()?.map(|v| self.text.slice_ref(unquoted(v)))
    }

    /// As `value`, of several the last.
    pub fn last_value(&self, name: &[u8]) -> Option<Bytes> {
        last_value(&self.text, name).map(|v| self.text.slice_ref(v))
    }

    /// The parameter is there, with a value or without; any case.
    pub fn has(&self, name: &[u8]) -> bool {
        self.named(name).next().is_some()
    }

    fn named(&self, name: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
        named(&self.text, name)
    }

    /// All parameters in order; quotes are kept, blanks around names and values are not.
    pub fn iter(&self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
        self.slices().map(|(n, v)| (self.text.slice_ref(n), v.map(|v| self.text.slice_ref(v))))
    }

    /// As `iter`, borrowed. Empty parameters (`;;`) are passed over.
    pub fn slices(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.raw().map(split_value).filter(|(name, value)| !name.is_empty() || value.is_some())
    }

    /// The texts between the semicolons, empty ones too.
    pub(crate) fn raw(&self) -> impl Iterator<Item = &[u8]> {
        raw(&self.text)
    }
}

/// The texts between the semicolons, empty ones too.
fn raw(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut scanner = Scanner::new(text, Nesting::Quotes);
    let mut from = (!text.is_empty()).then_some(0);
    std::iter::from_fn(move || {
        let start = from?;
        let end = scanner.find(start, b';');
        from = end.map(|e| e + 1);
        Some(&text[start..end.unwrap_or(text.len())])
    })
}

/// The values of the parameters of this name, which is not empty.
fn named<'a>(text: &'a [u8], name: &[u8]) -> impl Iterator<Item = Option<&'a [u8]>> {
    raw(text).filter_map(move |param| {
        let (known, value) = split_value(param);
        known.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// As `Params::last_value`, of its text.
pub(crate) fn last_value<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    named(text, name).last()?.map(unquoted)
}

/// `name = value` or `flag`, blanks removed.
pub(crate) fn split_value(param: &[u8]) -> (&[u8], Option<&[u8]>) {
    match scan::find(param, [b'=']) {
        Some(eq) => (trim(&param[..eq]), Some(trim(&param[eq + 1..]))),
        None => (trim(param), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, name: &str, want: Option<Option<&str>>) {
        let params = Params { text: Bytes::copy_from_slice(text.as_bytes()) };
        let found = params.find(name.as_bytes());
        let want = want.map(|v| v.map(|v| Bytes::copy_from_slice(v.as_bytes())));
        assert_eq!(found, want, "{text} {name}");
    }

    #[test]
    fn finds_values_and_flags() {
        check("tag=a1;lr", "tag", Some(Some("a1")));
        check("tag=a1;lr", "LR", Some(None));
        check("tag=a1;lr", "r", None);
        check("x=\"a;tag=fake\";tag=real", "tag", Some(Some("real")));
        check(" tag = a1 ", "TAG", Some(Some("a1")));
        check("a=1;a=2", "a", Some(Some("1")));
        check("tag=", "tag", Some(Some("")));
        check("", "tag", None);
        check(";;tag=1;", "tag", Some(Some("1")));
        check("x=\"open;tag=1", "tag", Some(Some("1")));
    }

    #[test]
    fn value_drops_quotes() {
        let params = Params { text: Bytes::from_static(b"q=\"a b\";w=\"") };
        assert_eq!(params.value(b"q").unwrap(), "a b");
        assert_eq!(params.value(b"w").unwrap(), "\"");
        assert_eq!(params.iter().count(), 2);
    }
}
