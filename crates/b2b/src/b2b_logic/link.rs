//! The session that a message belongs to, for functions and variables of its routes.

use super::session::{EndId, set_value};
use crate::b2b_entities::entity::Kind;
use crate::b2b_entities::table as entities;
use bytes::Bytes;
use host::Ctx;
use host::avp::AvpName;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Role {
    /// The main route.
    #[default]
    Main,
    Request,
    Reply,
}

/// An end that the main route or a route of the session prepares (`b2b_server_new`, `b2b_client_new`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewEnd {
    pub kind: Kind,
    pub name: Bytes,
    pub uri: Bytes,
    pub proxy: Option<Bytes>,
    pub from_dname: Bytes,
    pub contact: Option<Bytes>,
    /// AVPs with the names and bodies of headers.
    pub headers: Option<(AvpName, AvpName)>,
    pub pass_legs: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Link {
    /// Key of the session; empty: none yet.
    pub session: Bytes,
    /// Key of the entity that the message is of.
    pub entity: Bytes,
    pub kind: Kind,
    pub role: Role,
    pub peer: Option<EndId>,
    /// Lines and body that pass on.
    pub headers: Bytes,
    pub body: Option<Bytes>,
    /// The call was given up before this reply came.
    pub late: bool,
    /// Where the turn of its call is kept while its route runs.
    pub slot: u64,
    pub new: Vec<NewEnd>,
    /// Values that the main route set before there was a session.
    pub values: Vec<(Bytes, Bytes)>,
}

pub fn of(ctx: &Ctx) -> Option<&Link> {
    ctx.state.ext.find::<Link>()
}

/// The session of the current message: of its route, or by its dialog.
pub fn session(ctx: &mut Ctx) -> Option<Bytes> {
    if let Some(key) = of(ctx).map(|link| link.session.clone()).filter(|key| !key.is_empty()) {
        return Some(key);
    }
    entity(ctx).map(|(_, _, logic)| logic).filter(|key| !key.is_empty())
}

/// (key, kind, logic) of the entity of the current message.
pub fn entity(ctx: &mut Ctx) -> Option<(Bytes, Kind, Bytes)> {
    if let Some(link) = of(ctx).filter(|link| !link.entity.is_empty()) {
        return Some((link.entity.clone(), link.kind, link.session.clone()));
    }
    let msg = ctx.state.msg.clone();
    let (call_id, from, to) = (msg.call_id()?, msg.from_tag()?, msg.to_tag().unwrap_or_default());
    let table = entities::of(ctx);
    let found = table.get(&call_id).filter(|e| e.kind == Kind::Client);
    let found = found.or_else(|| table.of_dialog(&call_id, &from, &to));
    // A request of ours to a caller, or a reply to one.
    let found = found.or_else(|| table.of_dialog(&call_id, &to, &from));
    let found = found.or_else(|| table.of_caller(&call_id, &from))?;
    Some((found.key.clone(), found.kind, found.logic.clone()))
}

/// A value that waits for its session.
pub fn keep_value(ctx: &mut Ctx, name: &Bytes, value: Option<Bytes>) -> bool {
    set_value(&mut ctx.state.ext.entry::<Link>().values, name, value)
}
