//! Branches of a message: `$msg.branch.uri`, `$branch(uri)`, `$ds`.

use super::name::Name;
use super::{flags, join, position};
use crate::branches::{self, q_text};
use crate::ctx::{Ctx, MsgState};
use crate::language::vartable::VarTable;
use crate::var::{At, VarKind, Variable};
use bytes::Bytes;
use script::ast::{AssignOp, Dialect};
use script::{Diagnostic, Value};

pub fn register(table: &mut VarTable) {
    table.read("ds", |ctx| {
        branches::contacts(&ctx.state)
            .map_or(Value::Null, |list| Value::Str([b"Contact: ", &list[..]].concat().into()))
    });
    table.simple("msg.branch", Newest);
    table.read("msg.branch.last_idx", |ctx| Value::Int(ctx.state.branches.len() as i64));
    for (name, field) in FIELDS {
        table.simple(name, Counted { field, from: From::RequestUri });
    }
    // The second name is that of 3.x.
    for flag in ["msg.branch.flag", "branch.flag"] {
        table.class(flag, move |spec, loader| {
            let inner = spec.inner.as_deref().map(<[u8]>::trim_ascii).filter(|inner| !inner.is_empty());
            let Some(name) = inner else {
                return Err(Diagnostic::error(spec.loc, format!("${flag} needs the name of a flag")));
            };
            Ok(VarKind::Other(Box::new(OneFlag(loader.branch_flag(name, spec.loc)?))))
        });
    }
    table.class("msg.branch.attr", |spec, loader| {
        Ok(VarKind::Other(Box::new(Attribute(Name::new(spec, loader, "$msg.branch.attr(name)")?))))
    });
    table.class("branch", |spec, _| {
        let Some(inner) = spec.inner.as_deref().map(<[u8]>::trim_ascii) else {
            return Ok(VarKind::Other(Box::new(Newest)));
        };
        let found = FIELDS.iter().find(|(name, _)| &name.as_bytes()[PREFIX.len()..] == inner);
        match found {
            Some((_, field)) => Ok(VarKind::Other(Box::new(Counted { field: *field, from: From::Appended }))),
            None => {
                let error = Diagnostic::error(spec.loc, "a branch has no such field");
                Err(error.hint("fields are uri, duri, q, path, flags, socket"))
            }
        }
    });
}

const PREFIX: &str = "msg.branch.";

const FIELDS: [(&str, Field); 6] = [
    ("msg.branch.uri", Field::Uri),
    ("msg.branch.duri", Field::Duri),
    ("msg.branch.path", Field::Path),
    ("msg.branch.q", Field::Q),
    ("msg.branch.flags", Field::Flags),
    ("msg.branch.socket", Field::Socket),
];

#[derive(Clone, Copy, PartialEq)]
enum Field {
    Uri,
    Duri,
    Path,
    Q,
    Flags,
    Socket,
}

/// What index 0 means.
#[derive(Clone, Copy, PartialEq)]
enum From {
    /// `$msg.branch.…`: the R-URI; no index means the branch added last.
    RequestUri,
    /// `$branch(…)`: the first that was appended, which no index means too.
    Appended,
}

#[derive(Clone, Copy)]
struct Counted {
    field: Field,
    from: From,
}

impl Counted {
    /// Number of the branch (0 is the R-URI) that an index means.
    fn branch(&self, state: &MsgState, at: At) -> Option<usize> {
        let appended = state.branches.len();
        match (self.from, at) {
            (_, At::All | At::Append) => None,
            (From::RequestUri, At::None) => Some(appended),
            (From::RequestUri, At::Index(n)) => position(appended + 1, n),
            (From::Appended, At::None) => (appended > 0).then_some(1),
            (From::Appended, At::Index(n)) => position(appended, n).map(|i| i + 1),
        }
    }
}

impl Variable for Counted {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        let old = self.from == From::Appended && ctx.core.shared.dialect == Dialect::V21;
        if at == At::All {
            let first = usize::from(self.from == From::Appended);
            // All at once 2.1 prints URIs, whatever was asked for.
            let field = if old { Field::Uri } else { self.field };
            let values: Vec<Value> = (first..=ctx.state.branches.len())
                .map(|branch| match read(ctx, branch, field) {
                    Value::Null => Value::Str(Bytes::new()),
                    value => value,
                })
                .collect();
            return join(values.into_iter());
        }
        let Some(branch) = self.branch(&ctx.state, at) else { return Value::Null };
        match (self.from, self.field) {
            // Where 2.1 prints numbers.
            (From::Appended, Field::Q) if old => Value::Int(i64::from(ctx.state.branches[branch - 1].q)),
            _ => read(ctx, branch, self.field),
        }
    }

    fn set(&self, ctx: &mut Ctx, at: At, _: AssignOp, value: Value) -> bool {
        match self.branch(&ctx.state, at) {
            Some(branch) => write(ctx, branch, self.field, value),
            None => false,
        }
    }

    fn writable(&self) -> bool {
        true
    }
}

fn optional(text: &Option<Bytes>) -> Value {
    text.clone().map_or(Value::Null, Value::Str)
}

/// A field of branch n (0 is the R-URI).
fn read(ctx: &Ctx, n: usize, field: Field) -> Value {
    let state = &ctx.state;
    let added = n.checked_sub(1).map(|i| &state.branches[i]);
    match field {
        // A reply has its status where a request has its URI.
        Field::Uri if n == 0 && !state.msg.is_request() => Value::from(state.msg.status().to_string()),
        Field::Uri => Value::Str(added.map_or_else(|| state.current_uri(), |b| b.uri.clone())),
        Field::Duri => optional(added.map_or(&state.dst_uri, |b| &b.dst_uri)),
        Field::Path => optional(added.map_or(&state.path, |b| &b.path)),
        Field::Q => Value::Str(q_text(added.map_or(state.ruri_q, |b| b.q))),
        Field::Flags => {
            let flags = added.map_or(state.branch_flags, |b| b.flags);
            Value::Str(flags::list(&ctx.core.shared.branch_flag_names.read(), flags))
        }
        Field::Socket => {
            let socket = added.map_or(state.socket, |b| b.socket);
            let socket = socket.and_then(|i| ctx.core.shared.sockets.get(usize::from(i)));
            socket.map_or(Value::Null, |s| Value::Str(super::socket::describe(s)))
        }
    }
}

fn write(ctx: &mut Ctx, n: usize, field: Field, value: Value) -> bool {
    let text = value.text().filter(|text| !text.is_empty());
    let one_line = text.as_ref().is_none_or(|t| !t.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
    match field {
        Field::Uri => {
            let Some(uri) = text.filter(|_| one_line && value.int().is_none()) else { return false };
            match n {
                0 => return super::uri::set_request(ctx, uri),
                n => ctx.state.branches[n - 1].uri = uri,
            }
        }
        Field::Duri | Field::Path if !one_line => return false,
        Field::Duri => *slot(&mut ctx.state, n, |s| &mut s.dst_uri, |b| &mut b.dst_uri) = text,
        Field::Path => *slot(&mut ctx.state, n, |s| &mut s.path, |b| &mut b.path) = text,
        Field::Q => {
            let Some(q) = branches::q_of(&value) else { return false };
            *slot(&mut ctx.state, n, |s| &mut s.ruri_q, |b| &mut b.q) = q;
        }
        Field::Flags => {
            let Some(flags) = flags_of(ctx, &value) else { return false };
            *slot(&mut ctx.state, n, |s| &mut s.branch_flags, |b| &mut b.flags) = flags;
        }
        Field::Socket => {
            let socket = match &text {
                Some(text) => super::socket::find(&ctx.core.shared.sockets, text),
                None => None,
            };
            if text.is_some() && socket.is_none() {
                return false;
            }
            *slot(&mut ctx.state, n, |s| &mut s.socket, |b| &mut b.socket) = socket;
        }
    }
    true
}

/// The same field of the R-URI's branch or of an added one.
fn slot<T>(
    state: &mut MsgState,
    n: usize,
    main: fn(&mut MsgState) -> &mut T,
    added: fn(&mut crate::ctx::Branch) -> &mut T,
) -> &mut T {
    match n {
        0 => main(state),
        n => added(&mut state.branches[n - 1]),
    }
}

/// Flags by number, or by names with blanks or commas between them; NULL is none.
fn flags_of(ctx: &Ctx, value: &Value) -> Option<u32> {
    if let Some(flags) = value.int() {
        return u32::try_from(flags).ok();
    }
    let names = ctx.core.shared.branch_flag_names.read();
    let mut flags = 0;
    for word in value.text().unwrap_or_default().split(|b| matches!(b, b' ' | b',')) {
        if !word.is_empty() {
            flags |= 1 << names.iter().position(|name| &name[..] == word)?;
        }
    }
    Some(flags)
}

/// `$msg.branch`, in 2.1 `$branch`: reading gives the URI of the first branch that was added, assigning adds one.
#[derive(Clone, Copy)]
struct Newest;

impl Variable for Newest {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        ctx.state.branches.first().map_or(Value::Null, |branch| Value::Str(branch.uri.clone()))
    }
    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        match value {
            Value::Str(uri) | Value::Pieced(uri, _) | Value::Both(uri, _) => {
                branches::append(&mut ctx.state, uri, -1)
            }
            _ => false,
        }
    }
    fn writable(&self) -> bool {
        true
    }
}

/// The branch that an index of a single attribute means; none written is the branch added last.
fn one(state: &MsgState, at: At) -> Option<usize> {
    Counted { field: Field::Uri, from: From::RequestUri }.branch(state, at)
}

/// `$msg.branch.flag(name)`: the bit.
struct OneFlag(u32);

impl Variable for OneFlag {
    /// Reading counts the branches that were added, the R-URI's being the first: no index is the R-URI's, and the last
    /// one cannot be read, as in the reference (`msg_branch_flag_get`).
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        let added = ctx.state.branches.len();
        let branch = match at {
            At::None => position(added, 0),
            At::Index(n) => position(added, n),
            At::All | At::Append => None,
        };
        let Some(branch) = branch else { return Value::Null };
        let flags = *slot(&mut ctx.state, branch, |s| &mut s.branch_flags, |b| &mut b.flags);
        super::boolean(flags & self.0 != 0)
    }
    fn set(&self, ctx: &mut Ctx, at: At, _: AssignOp, value: Value) -> bool {
        let (Some(branch), Some(on)) = (one(&ctx.state, at), value.int()) else { return false };
        let flags = slot(&mut ctx.state, branch, |s| &mut s.branch_flags, |b| &mut b.flags);
        if on != 0 {
            *flags |= self.0
        } else {
            *flags &= !self.0
        }
        true
    }
    fn writable(&self) -> bool {
        true
    }
}

/// `$msg.branch.attr(name)`: anything a script wants to keep with a branch.
struct Attribute(Name);

impl Variable for Attribute {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        let Some(name) = self.0.text(ctx) else { return Value::Null };
        match one(&ctx.state, at) {
            Some(branch) => branches::attribute(&ctx.state, branch, &name),
            None => Value::Null,
        }
    }
    fn set(&self, ctx: &mut Ctx, at: At, _: AssignOp, value: Value) -> bool {
        let Some(name) = self.0.text(ctx) else { return false };
        one(&ctx.state, at)
            .is_some_and(|branch| branches::set_attribute(&mut ctx.state, branch, name, value.plain()))
    }
    fn writable(&self) -> bool {
        true
    }
}
