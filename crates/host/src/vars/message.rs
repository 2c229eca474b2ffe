//! The message itself: `$rm`, `$rs`, `$mb`, `$msg.type`.

use super::boolean;
use crate::ctx::Ctx;
use crate::language::vartable::VarTable;
use crate::tm::status_of;
use bytes::Bytes;
use script::Value;
use sip::Method;

type Read = fn(&mut Ctx) -> Value;

const NAMES: [(&str, Read); 8] = [
    ("rm", |ctx| match super::text_or_null(ctx.state.msg.method_text()) {
        Value::Str(text) => Value::Both(text, method_number(ctx.state.msg.method())),
        absent => absent,
    }),
    ("rs", |ctx| match status_of(&ctx.state).0 {
        0 => Value::Null,
        status => Value::Int(i64::from(status)),
    }),
    ("rr", |ctx| match status_of(&ctx.state) {
        (0, _) => Value::Null,
        (_, reason) => Value::Str(reason),
    }),
    ("mb", |ctx| Value::Str(ctx.state.msg.buf().clone())),
    ("ml", |ctx| Value::Int(ctx.state.msg.buf().len() as i64)),
    ("mi", |ctx| Value::Int(number(ctx))),
    ("msg.is_request", |ctx| boolean(ctx.state.msg.is_request())),
    ("msg.type", |ctx| {
        let name = if ctx.state.msg.is_request() { "request" } else { "reply" };
        Value::Str(Bytes::from_static(name.as_bytes()))
    }),
];

pub fn register(table: &mut VarTable) {
    for (name, read) in NAMES {
        table.read(name, read);
    }
}

/// What `$rm` is as a number: one bit for each method.
pub fn method_number(method: Method) -> i64 {
    1 << match method {
        Method::Invite => 0,
        Method::Cancel => 1,
        Method::Ack => 2,
        Method::Bye => 3,
        Method::Info => 4,
        Method::Options => 5,
        Method::Update => 6,
        Method::Register => 7,
        Method::Message => 8,
        Method::Subscribe => 9,
        Method::Notify => 10,
        Method::Prack => 11,
        Method::Refer => 12,
        Method::Publish => 13,
        Method::Service | Method::Other => 14,
    }
}

/// The number of a message, given when it is first asked for.
#[derive(Clone, Copy, Default)]
struct MessageNumber(Option<u32>);

/// The last number given on this worker.
#[derive(Default)]
struct LastNumber(u32);

/// `$mi`: numbers messages within a worker.
fn number(ctx: &mut Ctx) -> i64 {
    if let Some(MessageNumber(Some(n))) = ctx.state.ext.find() {
        return i64::from(*n);
    }
    let last = ctx.local::<LastNumber>();
    last.0 = last.0.wrapping_add(1) & 0x7fff_ffff;
    let n = last.0;
    ctx.state.ext.set(MessageNumber(Some(n)));
    i64::from(n)
}
