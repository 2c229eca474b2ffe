//! Headers: `$hdr(name)`, `$hdrcnt(name)`, `$hdr_name` and those with a variable of their own.

use super::name::Name;
use super::{pick, text_or_null};
use crate::ctx::Ctx;
use crate::language::vartable::VarTable;
use crate::var::{At, VarKind, Variable};
use bytes::Bytes;
use script::Value;
use sip::{Header, HeaderName, Message};

pub fn register(table: &mut VarTable) {
    table.class("hdr", |spec, loader| {
        Ok(VarKind::Other(Box::new(Values(Name::new(spec, loader, "$hdr(From)")?))))
    });
    table.class("hdrcnt", |spec, loader| {
        Ok(VarKind::Other(Box::new(Count(Name::new(spec, loader, "$hdrcnt(Via)")?))))
    });
    table.simple("hdr_name", Names);
    table.read("ci", |ctx| ctx.state.msg.call_id().map_or(Value::Null, Value::Str));
    table.read("ua", |ctx| first(ctx, HeaderName::UserAgent));
    table.read("cs", |ctx| ctx.state.msg.cseq_parts().map_or(Value::Null, |(number, _)| Value::Str(number)));
    table.read("cl", |ctx| {
        let length = ctx.state.msg.content_length();
        length.map_or(Value::Null, |length| Value::Int(i64::from(length)))
    });
}

fn first(ctx: &Ctx, name: HeaderName) -> Value {
    ctx.state.msg.value(name).map_or(Value::Null, text_or_null)
}

/// The headers of this name; a compact form is the header (RFC 3261 §7.3.3).
pub fn find<'a>(msg: &'a Message, name: &'a [u8]) -> impl Iterator<Item = &'a Header> {
    msg.headers_named(name)
}

/// The value with its folds and the blanks at its end.
fn raw_value(msg: &Message, header: &Header) -> Bytes {
    let line = msg.bytes(header.whole());
    let ends = line.iter().rev().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let end = (header.whole().end as usize - ends).max(header.value().end as usize);
    msg.buf().slice(header.value().start as usize..end)
}

struct Values(Name);

impl Variable for Values {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        let Some(name) = self.0.text(ctx) else { return Value::Null };
        let msg = &ctx.state.msg;
        if let At::None | At::Index(0) = at {
            return find(msg, &name).next().map_or(Value::Null, |h| Value::Str(raw_value(msg, h)));
        }
        let headers: Vec<&Header> = find(msg, &name).collect();
        pick(&headers, at, |h| Value::Str(raw_value(msg, h)))
    }
}

struct Count(Name);

impl Variable for Count {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let Some(name) = self.0.text(ctx) else { return Value::Null };
        Value::Int(find(&ctx.state.msg, &name).count() as i64)
    }
}

#[derive(Clone, Copy)]
struct Names;

impl Variable for Names {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        let msg = &ctx.state.msg;
        pick(msg.headers(), at, |h| Value::Str(msg.text(h.label())))
    }
}
