use bytes::Bytes;

/// What a script variable holds. Strings are bytes; a string cut from a message shares its buffer.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    #[default]
    Null,
    Int(i64),
    Str(Bytes),
    /// A text that is also a number ($rp, $Ts, $ml): arithmetic sees the number, printing the text.
    Both(Bytes, i64),
}

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }
    /// The text as it prints inside formats ("<null>" for NULL).
    pub fn to_text(&self) -> Bytes {
        match self {
            Value::Null => Bytes::from_static(b"<null>"),
            Value::Int(n) => Bytes::from(n.to_string()),
            Value::Str(s) | Value::Both(s, _) => s.clone(),
        }
    }
    /// The text, `None` for NULL.
    pub fn text(&self) -> Option<Bytes> {
        if self.is_null() { None } else { Some(self.to_text()) }
    }
    /// The number, when the value carries one (a plain string does not).
    pub fn int(&self) -> Option<i64> {
        match self {
            Value::Int(n) | Value::Both(_, n) => Some(*n),
            _ => None,
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
