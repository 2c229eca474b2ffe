//! `$rtp_relay`, `$rtp_relay_peer`, `$rtp_relay_caller`, `$rtp_relay_callee` and `$rtp_relay_ctx`.

use super::context::{ALL, COMMON, Common, Context, FIELDS, Field, Leg, Side};
use super::{RtpRelay, follow};
use bytes::Bytes;
use host::format::Format;
use host::var::{At, VarKind, Variable};
use host::{Ctx, Registrar, Value};
use script::Diagnostic;
use script::ast::{AssignOp, RouteKind, VarSpec};
use std::cell::RefCell;
use std::rc::Rc;

pub fn register(m: &mut Registrar<RtpRelay>) {
    for (name, whose) in [
        ("rtp_relay", Whose::Own),
        ("rtp_relay_peer", Whose::Peer),
        ("rtp_relay_caller", Whose::Of(Side::Caller)),
        ("rtp_relay_callee", Whose::Of(Side::Callee)),
    ] {
        m.variable_class(name, move |spec, loader, _| {
            let field = match name_of(spec)? {
                None => Field::Flags,
                Some(name) => {
                    let known = FIELDS.iter().find(|(known, ..)| *known == name);
                    known.map(|(.., field)| *field).ok_or_else(|| unknown(spec, &name))?
                }
            };
            let index = loader.text_index(spec)?;
            Ok(VarKind::Other(Box::new(OfLeg { whose, field, index })))
        });
    }
    m.variable_class("rtp_relay_ctx", |spec, _, _| {
        let name = name_of(spec)?.unwrap_or_default().replace('_', "-");
        let name = if name == "call-id" { "callid".to_string() } else { name };
        let known = COMMON.iter().find(|(known, _)| *known == name);
        let (_, which) = *known.ok_or_else(|| unknown(spec, &name))?;
        Ok(VarKind::Other(Box::new(OfCall(which))))
    });
}

fn name_of(spec: &VarSpec) -> Result<Option<String>, Diagnostic> {
    Ok(spec.inner.as_ref().map(|inner| String::from_utf8_lossy(inner).trim().to_ascii_lowercase()))
}

fn unknown(spec: &VarSpec, name: &str) -> Diagnostic {
    Diagnostic::error(spec.loc, format!("media of a call has no `{name}`"))
}

#[derive(Clone, Copy)]
enum Whose {
    /// The party that the current message is from.
    Own,
    Peer,
    Of(Side),
}

struct OfLeg {
    whose: Whose,
    field: Field,
    /// The number of a branch, or a tag.
    index: Option<Format>,
}

/// Where a leg is kept.
enum Place {
    Session(i32, Side),
    Numbered(i32),
}

impl OfLeg {
    fn place(&self, ctx: &mut Ctx, context: &Rc<RefCell<Context>>) -> Option<Place> {
        let (session, own) = here(ctx, context);
        let side = match self.whose {
            Whose::Own => own,
            Whose::Peer => own.other(),
            Whose::Of(side) => side,
        };
        let Some(index) = &self.index else { return Some(Place::Session(session, side)) };
        let text = index.text(ctx);
        let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse::<i32>().ok());
        match (number, self.whose) {
            (Some(ALL), _) => Some(Place::Session(ALL, side)),
            (Some(number), Whose::Own | Whose::Of(Side::Callee)) => Some(Place::Numbered(number)),
            (Some(number), _) => Some(Place::Session(number, Side::Caller)),
            (None, _) => {
                let context = context.borrow();
                let is = |leg: &Leg| leg.tag.as_ref() == Some(&text);
                let found = context.sessions.iter().find_map(|session| {
                    let side =
                        [Side::Caller, Side::Callee].into_iter().find(|side| is(session.leg(*side)))?;
                    Some((session.index, side))
                });
                let (session, side) = found?;
                let side = if matches!(self.whose, Whose::Peer) { side.other() } else { side };
                Some(Place::Session(session, side))
            }
        }
    }
}

/// The session that a script means here, and the party whose message it sees.
fn here(ctx: &mut Ctx, context: &Rc<RefCell<Context>>) -> (i32, Side) {
    let msg = ctx.state.msg.clone();
    let context = context.borrow();
    let is_reply = !msg.is_request();
    if let Some(session) = context.current() {
        let from = msg.from_tag().unwrap_or_default();
        let side = context.side_of(&from);
        return (session.index, if is_reply { side.other() } else { side });
    }
    let branch = ctx.state.txn_branch.map_or(ALL, i32::from);
    match ctx.state.kind {
        RouteKind::Branch => (branch, Side::Callee),
        _ if is_reply => (branch, Side::Callee),
        _ => (ALL, Side::Caller),
    }
}

impl Variable for OfLeg {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let Some(context) = follow::context(ctx) else { return Value::Null };
        let Some(place) = self.place(ctx, &context) else { return Value::Null };
        let context = context.borrow();
        let leg = match place {
            Place::Session(index, side) => context.find(index).map(|session| session.leg(side)),
            Place::Numbered(n) => context.numbered.iter().find(|(known, _)| *known == n).map(|(_, leg)| leg),
        };
        let Some(leg) = leg else { return Value::Null };
        match self.field {
            Field::Disabled if leg.is_disabled() => Value::from("disabled"),
            Field::Disabled => Value::from("enabled"),
            field => Value::Str(leg.get(field).cloned().unwrap_or_default()),
        }
    }

    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        let context = follow::context_or_new(ctx);
        let Some(place) = self.place(ctx, &context) else { return false };
        let text: Option<Bytes> = value.text();
        {
            let mut context = context.borrow_mut();
            let leg = match place {
                Place::Session(index, side) => &mut context.session(index).legs[side as usize],
                Place::Numbered(number) => context.numbered(number),
            };
            leg.set(self.field, text);
        }
        follow::store(ctx);
        true
    }

    fn writable(&self) -> bool {
        true
    }
}

struct OfCall(Common);

impl Variable for OfCall {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let Some(context) = follow::context(ctx) else { return Value::Null };
        let value = context.borrow().common(self.0).cloned();
        value.map_or(Value::Null, Value::Str)
    }

    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        let context = follow::context_or_new(ctx);
        context.borrow_mut().common[self.0 as usize] = value.text();
        follow::store(ctx);
        true
    }

    fn writable(&self) -> bool {
        true
    }
}
