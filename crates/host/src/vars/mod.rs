//! The variables of the core: one table of names, one file per family.

mod address;
pub mod auth;
pub mod avp;
pub mod body;
mod branch;
mod contact;
pub mod error;
pub mod flags;
pub mod header;
mod list;
mod message;
pub mod name;
mod run;
mod sdp;
pub mod socket;
pub mod time;
pub mod uri;
pub mod word;

use crate::language::vartable::VarTable;
use bytes::Bytes;
use script::Value;

pub use crate::context::awaited::Awaited;
pub use crate::context::list::{join, pick, position};
pub use list::takes_index;
pub use message::method_number;

/// Registers every core variable.
pub fn register(table: &mut VarTable) {
    avp::register(table);
    uri::register(table);
    address::register(table);
    header::register(table);
    contact::register(table);
    body::register(table);
    sdp::register(table);
    auth::register(table);
    socket::register(table);
    branch::register(table);
    flags::register(table);
    time::register(table);
    message::register(table);
    run::register(table);
    error::register(table);
}

/// A text, NULL when it is empty.
pub fn text_or_null(text: Bytes) -> Value {
    if text.is_empty() { Value::Null } else { Value::Str(text) }
}

/// A truth: prints `true` or `false`, counts as 1 or 0.
pub fn boolean(truth: bool) -> Value {
    let text = if truth { "true" } else { "false" };
    Value::Num(Bytes::from_static(text.as_bytes()), i64::from(truth))
}

/// A text made of digits that comparisons may take as a number ($rp).
pub fn digits(n: impl Into<i64>) -> Value {
    let n = n.into();
    Value::Both(Bytes::copy_from_slice(itoa::Buffer::new().format(n).as_bytes()), n)
}
