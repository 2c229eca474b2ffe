//! The variables `$b2b_logic....`.

use super::link::{self, Link};
use super::session::{self, End, Session, set_value};
use super::{B2bl, acts, join};
use crate::b2b_entities::owner::DialogInfo;
use bytes::Bytes;
use host::load::Loader;
use host::var::VarKind;
use host::{At, Ctx, Format, Registrar, Value, Variable};
use script::Diagnostic;
use script::ast::{AssignOp, VarSpec};
use sip::Method;
use std::sync::Arc;

pub fn register(m: &mut Registrar<B2bl>) {
    m.variable("b2b_logic.key", |call| link::session(call.ctx).map_or(Value::Null, Value::Str));
    m.variable("b2b_logic.scenario", |call| {
        let key = link::session(call.ctx);
        let name = key.and_then(|key| acts::read(call.ctx, &key, |s| s.scenario.name()));
        name.filter(|name| !name.is_empty()).map_or(Value::Null, Value::Str)
    });
    m.variable_class("b2b_logic.entity", entity);
    m.variable_class("b2b_logic.ctx", |spec, loader, _: &Arc<B2bl>| {
        Ok(VarKind::Other(Box::new(Kept(inner(spec, loader, "b2b_logic.ctx")?))))
    });
    m.variable_class("b2b_logic.peer", |spec, loader, _: &Arc<B2bl>| {
        Ok(VarKind::Other(Box::new(Peer(inner(spec, loader, "b2b_logic.peer")?))))
    });
}

/// What stands between the brackets: a name, or a variable that holds it.
fn inner(spec: &VarSpec, loader: &mut Loader, class: &str) -> Result<Format, Diagnostic> {
    let name = spec.inner.clone().unwrap_or_default();
    if name.is_empty() {
        return Err(Diagnostic::error(spec.loc, format!("${class} needs a name: ${class}(name)")));
    }
    match name.starts_with(b"$") {
        true => Format::new(&name, spec.loc, loader),
        false => Ok(Format::Constant(name)),
    }
}

#[derive(Clone, Copy)]
enum Field {
    Key,
    CallId,
    Name,
    FromTag,
    ToTag,
}

fn entity(spec: &VarSpec, _: &mut Loader, _: &Arc<B2bl>) -> Result<VarKind, Diagnostic> {
    let field = match spec.inner.as_deref() {
        None | Some(b"key") => Field::Key,
        Some(b"callid") => Field::CallId,
        Some(b"id") => Field::Name,
        Some(b"fromtag") => Field::FromTag,
        Some(b"totag") => Field::ToTag,
        Some(_) => {
            let text = "$b2b_logic.entity knows key, callid, id, fromtag, totag";
            return Err(Diagnostic::error(spec.loc, text));
        }
    };
    Ok(VarKind::Other(Box::new(Entity(field))))
}

struct Entity(Field);

impl Variable for Entity {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        let place = match at {
            At::None => None,
            At::Index(n) if n == 0 || n == 1 => Some(n as usize),
            _ => return Value::Null,
        };
        let Some(key) = link::session(ctx) else { return Value::Null };
        let current = link::entity(ctx).map(|(key, _, _)| key);
        let found = acts::read(ctx, &key, |s| find(s, place, current.as_deref()).cloned()).flatten();
        let Some(end) = found.or_else(|| being_called(ctx)) else { return Value::Null };
        let dialog = end.dialog.unwrap_or_default();
        let value = match self.0 {
            Field::Key => end.key,
            Field::CallId => dialog.call_id,
            // One that has no name is there all the same.
            Field::Name => return Value::Str(end.name),
            Field::FromTag => dialog.from_tag,
            Field::ToTag => dialog.to_tag,
        };
        if value.is_empty() { Value::Null } else { Value::Str(value) }
    }
}

/// The end at a place, or the one of the message.
fn find<'a>(s: &'a Session, place: Option<usize>, current: Option<&[u8]>) -> Option<&'a End> {
    match place {
        Some(at) => s
            .bridged(at)
            .or_else(|| s.ends.iter().find(|end| usize::from(end.no) == at && !end.key.is_empty())),
        None => [0, 1].into_iter().filter_map(|at| s.bridged(at)).find(|end| Some(&end.key[..]) == current),
    }
}

/// An INVITE of this server that goes out just now has an end that nobody knows yet.
fn being_called(ctx: &mut Ctx) -> Option<End> {
    let msg = ctx.state.msg.clone();
    if !msg.is_request()
        || msg.method() != Method::Invite
        || link::of(ctx).is_some_and(|l| !l.entity.is_empty())
    {
        return None;
    }
    let call_id = msg.call_id()?;
    Some(End {
        key: call_id.clone(),
        dialog: Some(DialogInfo { call_id, ..DialogInfo::default() }),
        ..End::default()
    })
}

/// `$b2b_logic.ctx(name)`
struct Kept(Format);

impl Variable for Kept {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let name = self.0.text(ctx);
        let found = match link::session(ctx) {
            Some(key) => acts::read(ctx, &key, |s| s.value(&name).cloned()).flatten(),
            None => {
                let values = ctx.state.ext.find::<Link>().map(|link| &link.values);
                values
                    .and_then(|values| values.iter().find(|(own, _)| *own == name))
                    .map(|(_, value)| value.clone())
            }
        };
        found.map_or(Value::Null, Value::Str)
    }

    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        let name = self.0.text(ctx);
        let value: Option<Bytes> = match &value {
            Value::Null => None,
            Value::Int(_) => {
                host::error!("b2b_logic", "$b2b_logic.ctx keeps texts only");
                return false;
            }
            text => Some(text.to_text()),
        };
        let Some(key) = link::session(ctx) else { return link::keep_value(ctx, &name, value) };
        session::of(ctx, &key).is_some_and(|s| set_value(&mut s.values, &name, value))
    }

    fn writable(&self) -> bool {
        true
    }
}

/// `$b2b_logic.peer(callid;from-tag;to-tag)`: the same of the other end.
struct Peer(Format);

impl Variable for Peer {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let text = self.0.text(ctx);
        let Some((key, Some(place))) = join::resolve(ctx, &text) else { return Value::Null };
        let dialog = acts::read(ctx, &key, |s| s.bridged(place).and_then(|end| end.dialog.clone())).flatten();
        match dialog {
            Some(d) => Value::Str([&d.call_id[..], b";", &d.from_tag, b";", &d.to_tag].concat().into()),
            None => Value::Null,
        }
    }
}
