//! The script itself: `$rc`, `$param(1)`, `$route`, `$cfg_line`, log levels.

use super::name::Name;
use super::pick;
use crate::ctx::Ctx;
use crate::events::EventParams;
use crate::language::vartable::VarTable;
use crate::log;
use crate::var::{At, VarKind, Variable};
use bytes::Bytes;
use script::ast::{AssignOp, Dialect, RouteKind};
use script::{Diagnostic, RouteId, Value};

pub fn register(table: &mut VarTable) {
    for name in ["rc", "retcode"] {
        table.read(name, |ctx| Value::Int(ctx.state.task.rc));
    }
    table.class("param", |spec, loader| {
        Ok(VarKind::Other(Box::new(Param(Name::new(spec, loader, "$param(1)")?))))
    });
    table.class("return", |spec, loader| {
        let name = Name::optional(spec, loader)?.unwrap_or(Name::Fixed(Bytes::from_static(b"0")));
        Ok(VarKind::Other(Box::new(Return(name))))
    });
    table.simple("route", Routes { read: full_name, all: true });
    table
        .simple("route.name", Routes { read: |ctx, id| ctx.state.task.program().route_name(id), all: false });
    table.simple("route.type", Routes { read: |ctx, id| kind_name(kind(ctx, id)).into(), all: false });
    table.read("rT", |ctx| top_kind(ctx).into());
    table.read("cfg_line", |ctx| {
        Value::Int(i64::from(ctx.shared().sources().line_col(ctx.state.task.loc()).0))
    });
    table.read("cfg_file", |ctx| {
        Value::Str(Bytes::copy_from_slice(ctx.shared().sources().name(ctx.state.task.loc()).as_bytes()))
    });
    table.simple("log_level", Level { get: log::level, set: log::override_level });
    table.simple("xlog_level", Level { get: log::xlog_level, set: log::override_xlog_level });
    table.read("pp", |_| Value::Int(i64::from(std::process::id())));
    table.class("argv", |spec, loader| {
        Ok(VarKind::Other(Box::new(Argument(Name::new(spec, loader, "$argv(name)")?))))
    });
    table.class("C", |spec, loader| colour(spec, loader.dialect, loader.globals.core.xlog_force_color));
}

/// `$param(n)`, from 1; in event_route also `$param(name)`.
struct Param(Name);

impl Variable for Param {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        if let Some(n) = self.0.number(ctx) {
            return usize::try_from(n).map_or(Value::Null, |n| script::param(ctx, n));
        }
        let Some(name) = self.0.text(ctx) else { return Value::Null };
        ctx.state.ext.find::<EventParams>().and_then(|params| params.find(&name)).unwrap_or_default()
    }
}

/// `$return(n)`, from 0.
struct Return(Name);

impl Variable for Return {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        self.0
            .number(ctx)
            .and_then(|n| usize::try_from(n).ok())
            .map_or(Value::Null, |n| ctx.state.task.returned(n))
    }
}

fn kind(ctx: &Ctx, id: RouteId) -> RouteKind {
    ctx.state.task.program().route_kind(id)
}

/// "route", "failure_route" ...
pub fn kind_name(kind: RouteKind) -> &'static str {
    match kind {
        RouteKind::Request => "route",
        RouteKind::Branch => "branch_route",
        RouteKind::Failure => "failure_route",
        RouteKind::OnReply => "onreply_route",
        RouteKind::Local => "local_route",
        RouteKind::Error => "error_route",
        RouteKind::Startup => "startup_route",
        RouteKind::Timer => "timer_route",
        RouteKind::Event => "event_route",
    }
}

/// `$rT` of 2.1: kind of the outermost route; routes without a message count as request routes there.
fn top_kind(ctx: &mut Ctx) -> &'static str {
    match ctx.state.kind {
        RouteKind::Request | RouteKind::Startup | RouteKind::Timer => "request_route",
        kind => kind_name(kind),
    }
}

/// "failure_route[name]"
fn full_name(ctx: &Ctx, id: RouteId) -> Bytes {
    let (kind, name) = (kind_name(kind(ctx, id)), ctx.state.task.program().route_name(id));
    match name.is_empty() {
        true => Bytes::from_static(kind.as_bytes()),
        false => [kind.as_bytes(), b"[", &name, b"]"].concat().into(),
    }
}

/// The routes being run, the innermost first.
#[derive(Clone, Copy)]
struct Routes {
    read: fn(&Ctx, RouteId) -> Bytes,
    /// `[*]` gives them all; else it is NULL.
    all: bool,
}

impl Variable for Routes {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        let mut routes = ctx.state.task.routes();
        if at == At::All {
            if !self.all {
                return Value::Null;
            }
            let names: Vec<Bytes> = routes.iter().map(|id| (self.read)(ctx, *id)).collect();
            return Value::Str(names.join(&b" > "[..]).into());
        }
        routes.reverse();
        pick(&routes, at, |id| Value::Str((self.read)(ctx, *id)))
    }
}

/// A log level of this worker; NULL sets it back to that of the server.
#[derive(Clone, Copy)]
struct Level {
    get: fn() -> i8,
    set: fn(Option<i8>),
}

impl Variable for Level {
    fn get(&self, _: &mut Ctx, _: At) -> Value {
        Value::Int(i64::from((self.get)()))
    }
    fn set(&self, _: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        let level = match &value {
            Value::Null | Value::Nought | Value::Failed => None,
            Value::Int(n) | Value::Num(_, n) | Value::Both(_, n) => Some(n.clamp(&-3, &4)).map(|n| *n as i8),
            Value::Str(name) | Value::Pieced(name, _) => match log::Level::parse(name) {
                Some(level) => Some(level as i8),
                None => return false,
            },
        };
        (self.set)(level);
        true
    }
    fn writable(&self) -> bool {
        true
    }
}

/// `$argv(name)`: the value of `-o name=value` on the command line.
struct Argument(Name);

impl Variable for Argument {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let Some(name) = self.0.text(ctx) else { return Value::Null };
        let arguments = ctx.shared().arguments.get().map(Vec::as_slice).unwrap_or_default();
        let mut after_o = false;
        for argument in arguments {
            let option = argument.strip_prefix("-o").filter(|rest| !rest.is_empty());
            let option = option.or(after_o.then_some(argument.as_str()));
            after_o = argument == "-o";
            let Some((key, value)) = option.map(|o| o.split_once('=').unwrap_or((o, ""))) else { continue };
            if key.as_bytes() == &name[..] {
                return Value::Str(Bytes::copy_from_slice(value.as_bytes()));
            }
        }
        Value::Null
    }
}

/// `$C(xy)`: an escape sequence for the colours of a terminal.
fn colour(spec: &script::ast::VarSpec, dialect: Dialect, forced: bool) -> Result<VarKind, Diagnostic> {
    let bad = || {
        Diagnostic::error(spec.loc, "a colour is two letters: $C(foreground background), x for the default")
    };
    let Some(&[front, back]) = spec.inner.as_deref().map(<[u8]>::trim_ascii) else { return Err(bad()) };
    let number = |letter: u8| b"srgybpcw".iter().position(|c| *c == letter.to_ascii_lowercase());
    let digit = |letter: u8| match letter.eq_ignore_ascii_case(&b'x') {
        true => Ok(9),
        false => number(letter).ok_or_else(bad),
    };
    let bold = i32::from(front.is_ascii_uppercase());
    let sequence = format!("\x1b[{bold};{};{}m", 30 + digit(front)?, 40 + digit(back)?);
    let shown = dialect == Dialect::V21 || forced;
    let text = if shown { Bytes::from(sequence) } else { Bytes::new() };
    Ok(VarKind::Other(Box::new(Constant(text))))
}

struct Constant(Bytes);

impl Variable for Constant {
    fn get(&self, _: &mut Ctx, _: At) -> Value {
        Value::literal(self.0.clone())
    }
}
