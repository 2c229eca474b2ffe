//! Values by index: `$(ct[1])`, `$(hdr(Via)[-1])`, `$(branch(uri)[*])`.

use crate::context::var::At;
use bytes::{Bytes, BytesMut};
use script::Value;

/// Place of an index in a list: from the start, negative ones from the end.
pub fn position(len: usize, index: i32) -> Option<usize> {
    let at = if index >= 0 { index as usize } else { len.checked_sub(index.unsigned_abs() as usize)? };
    (at < len).then_some(at)
}

/// The value that an index means; none written is the first, `[*]` joins all.
pub fn pick<T>(list: &[T], at: At, value: impl Fn(&T) -> Value) -> Value {
    match at {
        At::None => list.first().map_or(Value::Null, value),
        At::Index(n) => position(list.len(), n).map_or(Value::Null, |i| value(&list[i])),
        At::All => join(list.iter().map(value)),
        At::Append => Value::Null,
    }
}

/// All values but NULL ones with `, ` between them; NULL when there are none.
pub fn join(values: impl Iterator<Item = Value>) -> Value {
    let mut out = BytesMut::new();
    let mut some = false;
    for value in values {
        let Some(text) = value.text() else { continue };
        if some {
            out.extend_from_slice(b", ");
        }
        some = true;
        out.extend_from_slice(&text);
    }
    if some { Value::Str(Bytes::from(out)) } else { Value::Null }
}
