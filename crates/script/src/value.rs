//! Values of the language, and what operators make of them.

use crate::traced::Parts;
use bytes::Bytes;

/// Longest text that operators make, in bytes: doubling in a loop must not fill the memory.
pub const MAX_TEXT: usize = 1 << 20;

/// What a script variable holds. Strings are bytes; a string cut from a message shares its buffer.
///
/// Numbers are 32 bits wide in the language; arithmetic wraps (`Value::int` gives what is stored).
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    #[default]
    /// No value.
    Null,
    /// A number.
    Int(i64),
    /// A text.
    Str(Bytes),
    /// A text of which the script wrote parts itself that matter (line ends, quotes): behaves as `Str`.
    Pieced(Bytes, Parts),
    /// A text that is also a number ($rp): comparisons and `-` see the number, `+` and printing the text.
    Both(Bytes, i64),
    /// A number that prints as another text ({s.int} of "12 sec"): everything but printing and
    /// comparisons with texts sees the number.
    Num(Bytes, i64),
    /// NULL that computes as 0: the port that a URI does not name.
    Nought,
    /// What a transformation that failed leaves in 2.1: NULL that nothing compares with and nothing takes, and
    /// that prints as nothing.
    Failed,
}

impl Value {
    /// It has no value: NULL, or one of the two that print as nothing.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null | Value::Nought | Value::Failed)
    }
    /// Reading it failed: what it is used for fails too.
    pub fn has_failed(&self) -> bool {
        matches!(self, Value::Failed)
    }
    /// It is a number first: `+` adds, and assigning it stores the number alone.
    pub fn is_number(&self) -> bool {
        matches!(self, Value::Int(_) | Value::Num(..))
    }
    /// The text as it prints inside formats ("<null>" for NULL).
    pub fn to_text(&self) -> Bytes {
        match self {
            Value::Null | Value::Nought => Bytes::from_static(b"<null>"),
            Value::Failed => Bytes::new(),
            Value::Int(n) => Bytes::copy_from_slice(itoa::Buffer::new().format(*n).as_bytes()),
            Value::Str(s) | Value::Pieced(s, _) | Value::Both(s, _) | Value::Num(s, _) => s.clone(),
        }
    }
    /// The text, `None` for NULL.
    pub fn text(&self) -> Option<Bytes> {
        if self.is_null() { None } else { Some(self.to_text()) }
    }
    /// The text without an allocation, `None` for NULL; a number is written into `digits`.
    pub fn text_in<'a>(&'a self, digits: &'a mut itoa::Buffer) -> Option<&'a [u8]> {
        match self {
            Value::Null | Value::Nought | Value::Failed => None,
            Value::Int(n) => Some(digits.format(*n).as_bytes()),
            Value::Str(s) | Value::Pieced(s, _) | Value::Both(s, _) | Value::Num(s, _) => Some(s),
        }
    }
    /// The number, when the value carries one (a plain string does not).
    pub fn int(&self) -> Option<i64> {
        match self {
            Value::Int(n) | Value::Both(_, n) | Value::Num(_, n) => Some(*n),
            _ => None,
        }
    }
    /// What a variable keeps of it: a number first stays a number, everything else its text.
    pub fn plain(self) -> Value {
        match self {
            Value::Both(text, _) => Value::Str(text),
            Value::Num(_, n) => Value::Int(n),
            Value::Nought | Value::Failed => Value::Null,
            plain => plain,
        }
    }
}
impl From<i64> for Value {
    fn from(n: i64) -> Value {
        Value::Int(n)
    }
}
impl From<Bytes> for Value {
    fn from(b: Bytes) -> Value {
        Value::Str(b)
    }
}
impl From<&'static str> for Value {
    fn from(s: &'static str) -> Value {
        Value::Str(Bytes::from_static(s.as_bytes()))
    }
}
impl From<String> for Value {
    fn from(s: String) -> Value {
        Value::Str(Bytes::from(s))
    }
}
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(o: Option<T>) -> Value {
        o.map_or(Value::Null, Into::into)
    }
}
