//! Script variables, prepared at load.

use crate::avp::AvpName;
use crate::call::{Finish, Suspension, Wait};
use crate::context::awaited::Awaited;
use crate::context::transform::Tran;
use crate::ctx::Ctx;
use bytes::Bytes;
use script::Value;
use script::ast::AssignOp;
use std::fmt;
use std::sync::Arc;

/// `[index]` as evaluated for one access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// No index written: the first value.
    None,
    Index(i32),
    All,
    /// `[append]`: after the last value; reads NULL.
    Append,
}

/// `[index]` as written.
#[derive(Debug)]
pub enum Index {
    None,
    Int(i32),
    All,
    Append,
    Var(Box<Var>),
}

/// `$(<request>ru)`: the message that is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Context {
    Current,
    Request,
    Reply,
}

/// A class of variables: what `$name(inner)` reads and writes.
pub trait Variable: Send + Sync {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value;
    /// False: refused (logged by the caller once).
    fn set(&self, ctx: &mut Ctx, at: At, op: AssignOp, value: Value) -> bool {
        let _ = (ctx, at, op, value);
        false
    }
    /// For bare words: whether a value equals it, when that is more than comparing values.
    fn equals(&self, ctx: &mut Ctx, left: &Value) -> Option<bool> {
        let _ = (ctx, left);
        None
    }
    /// A script may assign it; checked at load.
    fn writable(&self) -> bool {
        false
    }
}

/// A class of variables whose values may have to be waited for. The script stands still before the
/// instruction that reads one, so `ask` is called once for each time that instruction runs. Where nothing can
/// wait (texts prepared while the server runs, fields of accounting), an answer that is not there is NULL.
pub trait WaitingVariable: Send + Sync {
    fn ask(&self, ctx: &mut Ctx, at: At) -> Answer;
}

/// A value, or the operation that brings it.
pub enum Answer {
    Now(Value),
    /// Its second half calls [`Ctx::answer`]; the return code says whether it went well (for `async_stats`)
    /// and is not seen by the script. NULL when the deadline comes first.
    Later(Box<Suspension>),
}

impl From<Value> for Answer {
    fn from(value: Value) -> Answer {
        Answer::Now(value)
    }
}

impl Answer {
    /// Waits for a future that owns what it needs and gives the value.
    pub fn later(
        what: &'static str,
        detail: impl Into<Bytes>,
        limit_ms: u64,
        future: impl Future<Output = Value> + 'static,
    ) -> Answer {
        let future = async move {
            let value = future.await;
            Box::new(move |ctx: &mut Ctx| ctx.answer(value)) as Finish
        };
        Answer::Later(Box::new(Suspension {
            what,
            detail: detail.into(),
            wait: Wait::Future(Box::pin(future)),
            limit_ms,
            on_deadline: -1,
        }))
    }
}

/// A variable computed by one function.
pub struct ReadOnly(pub fn(&mut Ctx) -> Value);

impl Variable for ReadOnly {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        (self.0)(ctx)
    }
}

/// What the frequent classes are without a virtual call.
pub enum VarKind {
    /// `$var(x)`: slot.
    Local(u16),
    Avp(AvpName),
    Other(Box<dyn Variable>),
    /// May have to wait; the loader wraps it into `Awaited`.
    Waiting(Box<dyn WaitingVariable>),
    /// A whole variable of which the class or a transformation may have to wait.
    Awaited(Arc<Awaited>),
}

/// One variable as it stands in a script: class, index, context, transformations.
pub struct Var {
    pub kind: VarKind,
    pub index: Index,
    pub context: Context,
    pub trans: Box<[Tran]>,
    /// A transformation that gives NULL has failed (2.1).
    pub fails: bool,
    /// As written, for messages.
    pub text: Bytes,
}

impl fmt::Debug for Var {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.text))
    }
}

impl Var {
    pub fn get(&self, ctx: &mut Ctx) -> Value {
        let Some(at) = self.at(ctx) else { return self.no_place() };
        let mut value = self.get_raw(ctx, at);
        for tran in &self.trans {
            value = tran.apply(ctx, value);
        }
        self.checked(value)
    }

    /// What the last transformation gave; in 2.1 NULL is a failure then.
    pub(crate) fn checked(&self, value: Value) -> Value {
        match value {
            Value::Null if self.fails && !self.trans.is_empty() => Value::Failed,
            value => value,
        }
    }

    /// The i-th value, for `for`: Null past the end.
    pub fn get_at(&self, ctx: &mut Ctx, index: i32) -> Value {
        match &self.kind {
            VarKind::Awaited(awaited) if index == 0 => awaited.read(ctx),
            VarKind::Awaited(_) => Value::Null,
            _ => self.get_raw(ctx, At::Index(index)),
        }
    }

    pub fn set(&self, ctx: &mut Ctx, op: AssignOp, value: Value) -> bool {
        let Some(at) = self.at(ctx) else { return false };
        match &self.kind {
            VarKind::Local(slot) => {
                ctx.set_local(*slot, value.plain());
                true
            }
            VarKind::Avp(name) => crate::context::avp::assign(ctx, *name, at, op, value.plain()),
            VarKind::Other(class) => class.set(ctx, at, op, value),
            VarKind::Waiting(_) | VarKind::Awaited(_) => false,
        }
    }

    pub(crate) fn awaited(awaited: Arc<Awaited>) -> Var {
        Var {
            index: Index::None,
            context: Context::Current,
            trans: Box::default(),
            fails: awaited.var.fails,
            text: awaited.var.text.clone(),
            kind: VarKind::Awaited(awaited),
        }
    }

    pub fn writable(&self) -> bool {
        if !self.trans.is_empty() {
            return false;
        }
        match &self.kind {
            VarKind::Local(_) | VarKind::Avp(_) => true,
            VarKind::Other(class) => class.writable(),
            VarKind::Waiting(_) | VarKind::Awaited(_) => false,
        }
    }

    /// What is read where the index is no number; in 2.1 that is a failure.
    fn no_place(&self) -> Value {
        if self.fails { Value::Failed } else { Value::Null }
    }

    /// `None`: the index is a variable that holds no number.
    pub(crate) fn at(&self, ctx: &mut Ctx) -> Option<At> {
        Some(match &self.index {
            Index::None => At::None,
            Index::Int(n) => At::Index(*n),
            Index::All => At::All,
            Index::Append => At::Append,
            Index::Var(var) => At::Index(var.get(ctx).int()? as i32),
        })
    }

    fn get_raw(&self, ctx: &mut Ctx, at: At) -> Value {
        if self.context != Context::Current {
            return crate::context::message::with_message(ctx, self.context, |ctx| self.get_here(ctx, at));
        }
        self.get_here(ctx, at)
    }

    fn get_here(&self, ctx: &mut Ctx, at: At) -> Value {
        match &self.kind {
            VarKind::Local(slot) => ctx.state.vars.get(*slot as usize).cloned().unwrap_or_default(),
            VarKind::Avp(name) => crate::context::avp::read(ctx, *name, at),
            VarKind::Other(class) => class.get(ctx, at),
            VarKind::Awaited(awaited) => awaited.read(ctx),
            VarKind::Waiting(class) => match class.ask(ctx, at) {
                Answer::Now(value) => value,
                Answer::Later(_) => Value::Null,
            },
        }
    }

    /// The value before its transformations, or the operation that brings it.
    pub(crate) fn ask_raw(&self, ctx: &mut Ctx) -> Answer {
        let Some(at) = self.at(ctx) else { return Answer::Now(self.no_place()) };
        match &self.kind {
            VarKind::Waiting(class) => {
                crate::context::message::with_message(ctx, self.context, |ctx| class.ask(ctx, at))
            }
            _ => Answer::Now(self.get_raw(ctx, at)),
        }
    }
}

impl Ctx {
    /// Assigns a `$var` by slot.
    pub fn set_local(&mut self, slot: u16, value: Value) {
        let slot = slot as usize;
        if self.state.vars.len() <= slot {
            self.state.vars.resize(slot + 1, Value::Null);
        }
        self.state.vars[slot] = value;
    }
}
