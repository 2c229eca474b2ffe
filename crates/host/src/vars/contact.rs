//! Contacts: `$ct`, `$ct.fields(uri)`.

use super::{pick, text_or_null};
use crate::ctx::Ctx;
use crate::language::vartable::VarTable;
use crate::var::{At, VarKind, Variable};
use bytes::Bytes;
use script::{Diagnostic, Value};
use sip::{HeaderName, Message, NameAddr};

pub fn register(table: &mut VarTable) {
    table.simple("ct", Whole);
    table.class("ct.fields", |spec, _| {
        let inner = spec.inner.as_deref().unwrap_or_default().trim_ascii();
        let found = FIELDS.iter().find(|(name, _)| name.as_bytes() == inner);
        let error = || {
            let names: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
            Diagnostic::error(spec.loc, "a contact has no such field")
                .hint(format!("fields are {}", names.join(", ")))
        };
        found.map(|(_, read)| VarKind::Other(Box::new(Field(*read)))).ok_or_else(error)
    });
}

type Read = fn(&NameAddr) -> Value;

const FIELDS: [(&str, Read); 7] = [
    ("name", |contact| text_or_null(contact.display.clone())),
    ("uri", |contact| text_or_null(contact.uri.clone())),
    ("q", |contact| param(contact, b"q")),
    ("expires", |contact| param(contact, b"expires")),
    ("methods", |contact| param(contact, b"methods")),
    ("received", |contact| param(contact, b"received")),
    ("params", |contact| text_or_null(contact.params.text.clone())),
];

fn param(contact: &NameAddr, name: &[u8]) -> Value {
    contact.params.value(name).map_or(Value::Null, text_or_null)
}

fn contacts(msg: &Message) -> Vec<NameAddr> {
    msg.addresses(HeaderName::Contact).unwrap_or_default()
}

fn is_star(contacts: &[NameAddr]) -> bool {
    matches!(contacts, [one] if &one.uri[..] == b"*" && !one.bracketed)
}

#[derive(Clone, Copy)]
struct Whole;

impl Variable for Whole {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        let msg = &ctx.state.msg;
        let list = contacts(msg);
        // `*` is no contact, so there is none to count from the end.
        if is_star(&list) && matches!(at, At::Index(n) if n < 0) {
            return Value::Null;
        }
        pick(&list, at, |contact| Value::Str(msg.text(contact.whole)))
    }
}

/// The field of all contacts: `, ` goes before each, once something stands there. NULL without contacts.
fn all(contacts: &[NameAddr], read: Read) -> Value {
    let mut out = Vec::new();
    for contact in contacts {
        if !out.is_empty() {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(&read(contact).text().unwrap_or_default());
    }
    if contacts.is_empty() { Value::Null } else { Value::Str(out.into()) }
}

struct Field(Read);

impl Variable for Field {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        let list = contacts(&ctx.state.msg);
        match (is_star(&list), at) {
            (true, At::All) => Value::Str(Bytes::new()),
            (true, _) => Value::Null,
            (false, At::All) => all(&list, self.0),
            (false, at) => pick(&list, at, self.0),
        }
    }
}
