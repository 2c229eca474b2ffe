//! Events of usrloc: E_UL_AOR_INSERT, E_UL_CONTACT_UPDATE ...

use super::contact::{Contact, Field};
use super::sql::socket_text;
use super::table::{Change, Table};
use bytes::Bytes;
use host::events::{EventParams, raise};
use host::{Ctx, Value};
use script::ast::Dialect;

pub const AOR_INSERT: &str = "E_UL_AOR_INSERT";
pub const AOR_DELETE: &str = "E_UL_AOR_DELETE";
pub const CONTACT_INSERT: &str = "E_UL_CONTACT_INSERT";
pub const CONTACT_DELETE: &str = "E_UL_CONTACT_DELETE";
pub const CONTACT_UPDATE: &str = "E_UL_CONTACT_UPDATE";
pub const CONTACT_REFRESH: &str = "E_UL_CONTACT_REFRESH";

pub const LATENCY_UPDATE: &str = "E_UL_LATENCY_UPDATE";

pub const NAMES: [&str; 7] =
    [AOR_INSERT, AOR_DELETE, CONTACT_INSERT, CONTACT_DELETE, CONTACT_UPDATE, CONTACT_REFRESH, LATENCY_UPDATE];

/// Raises the events of some changes of one address.
pub fn changed(ctx: &mut Ctx, table: &Table, aor: &Bytes, changes: &[Change]) {
    for change in changes {
        let (name, contact) = match change {
            Change::AorInserted => (AOR_INSERT, None),
            Change::AorDeleted => (AOR_DELETE, None),
            Change::Inserted(contact) => (CONTACT_INSERT, Some(contact)),
            Change::Updated(contact) => (CONTACT_UPDATE, Some(contact)),
            Change::Deleted(contact) => (CONTACT_DELETE, Some(contact)),
            Change::Moved { .. } | Change::Touched(_) => continue,
        };
        if !ctx.shared().events().wanted(name.as_bytes()) {
            continue;
        }
        let params = match (contact, ctx.shared().dialect) {
            (None, Dialect::V21) => params([("aor", aor.clone().into())]),
            (None, Dialect::V4) => {
                params([("domain", text(table.name.as_bytes())), ("aor", aor.clone().into())])
            }
            (Some(contact), Dialect::V21) => old_contact(aor, contact),
            (Some(contact), Dialect::V4) => contact_params(ctx, table, aor, contact),
        };
        raise(ctx, name, params);
    }
}

fn params<const N: usize>(list: [(&'static str, Value); N]) -> EventParams {
    list.into_iter().collect()
}

fn text(bytes: &[u8]) -> Value {
    Value::from(Bytes::copy_from_slice(bytes))
}

/// The parameters of 2.1.
fn old_contact(aor: &Bytes, c: &Contact) -> EventParams {
    params([
        ("aor", aor.clone().into()),
        ("address", text(c.uri())),
        ("callid", text(c.text(Field::CallId))),
        ("received", text(c.text(Field::Received))),
        ("cseq", Value::from(i64::from(c.cseq))),
    ])
}

fn socket(ctx: &Ctx, c: &Contact) -> Value {
    let name = c.socket().and_then(|s| socket_text(ctx.shared(), s));
    Value::from(Bytes::from(name.unwrap_or_default()))
}

fn contact_params(ctx: &Ctx, table: &Table, aor: &Bytes, c: &Contact) -> EventParams {
    let int = |n: u32| Value::from(i64::from(n));
    let field = |f| text(c.text(f));
    params([
        ("domain", text(table.name.as_bytes())),
        ("aor", aor.clone().into()),
        ("uri", text(c.uri())),
        ("received", field(Field::Received)),
        ("path", field(Field::Path)),
        ("qval", Value::from(i64::from(c.q))),
        ("user_agent", field(Field::UserAgent)),
        ("socket", socket(ctx, c)),
        ("bflags", int(c.flags)),
        ("expires", int(c.expires)),
        ("callid", field(Field::CallId)),
        ("cseq", int(c.cseq)),
        ("attr", field(Field::Attr)),
        ("latency", int(c.latency_us)),
        ("shtag", field(Field::Tag)),
    ])
}

/// E_UL_LATENCY_UPDATE: a contact has answered a ping.
pub fn latency(ctx: &mut Ctx, table: &Table, aor: &Bytes, c: &Contact) {
    if ctx.shared().events().wanted(LATENCY_UPDATE.as_bytes()) {
        let params = contact_params(ctx, table, aor, c);
        raise(ctx, LATENCY_UPDATE, params);
    }
}

/// E_UL_CONTACT_REFRESH: the phone of this contact must be woken, for `reason` ("reg-refresh",
/// "ini-INVITE", "mid-BYE"); `call_id` is that of the request that needs it.
pub fn refresh(ctx: &mut Ctx, table: &Table, aor: &Bytes, c: &Contact, reason: &str, call_id: &[u8]) {
    let int = |n: u32| Value::from(i64::from(n));
    let field = |f| text(c.text(f));
    let list = [
        ("domain", text(table.name.as_bytes())),
        ("aor", aor.clone().into()),
        ("uri", text(c.uri())),
        ("received", field(Field::Received)),
        ("user_agent", field(Field::UserAgent)),
        ("socket", socket(ctx, c)),
        ("bflags", int(c.flags)),
        ("expires", int(c.expires)),
        ("callid", field(Field::CallId)),
        ("attr", field(Field::Attr)),
        ("shtag", field(Field::Tag)),
        ("reason", text(reason.as_bytes())),
        ("req_callid", text(call_id)),
    ];
    raise(ctx, CONTACT_REFRESH, params(list));
}
