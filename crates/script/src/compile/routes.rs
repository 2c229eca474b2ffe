//! Routes: their names, the places that name them, and their parameters.

use super::values::switch_word;
use super::{Compiler, Tail, lossy};
use crate::ast::{Arg, ArgKind, Config, Dialect, ExprKind, Route, RouteKind, RouteRef, VarSpec};
use crate::diagnostic::{Diagnostic, Loc, nearest};
use crate::format::{FormatPiece, parse_format};
use crate::host::{Lang, RouteId};
use crate::ops::Op;
use crate::program::{RouteInfo, main_name};
use crate::value::Value;
use bytes::Bytes;

/// How a kind of route is written.
pub(crate) fn keyword(kind: RouteKind) -> &'static str {
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

/// `route[name]`, or `route` for a main route.
pub(crate) fn shown(kind: RouteKind, name: &[u8]) -> String {
    if name.is_empty() { keyword(kind).to_string() } else { format!("{}[{}]", keyword(kind), lossy(name)) }
}

impl<L: Lang> Compiler<'_, L> {
    /// Makes all names known before any body is compiled.
    pub(super) fn declare(&mut self, config: &Config) {
        for (i, route) in config.routes.iter().enumerate() {
            let Ok(id) = u16::try_from(i) else {
                self.error(route.loc, format!("more than {} routes", u16::MAX));
                return;
            };
            let name = Bytes::copy_from_slice(main_name(route.name.as_deref()));
            // Of two with one name (the parser reports them) the first counts.
            self.names.entry((route.kind, name.clone())).or_insert(RouteId(id));
            let (kind, interval, loc) = (route.kind, route.interval, route.loc);
            self.routes.push(RouteInfo { kind, name, interval, entry: 0, loc });
        }
    }

    pub(super) fn route(&mut self, index: usize, route: &Route) {
        self.kind = route.kind;
        self.height = 0;
        self.around.clear();
        let here = self.here();
        self.routes[index].entry = here;
        self.locs.push((here, route.loc));
        self.block(&route.body);
        self.locs.push((self.here(), Loc { start: route.loc.end.saturating_sub(1), ..route.loc }));
        self.emit(Op::End);
    }

    /// A route that can be called: `route[name]`.
    pub(super) fn callable(&mut self, name: &[u8], loc: Loc) -> Option<RouteId> {
        let key = (RouteKind::Request, Bytes::copy_from_slice(main_name(Some(name))));
        if let Some(id) = self.names.get(&key) {
            return Some(*id);
        }
        let error = Diagnostic::error(loc, format!("no route named `{}`", lossy(name)));
        let hint = self.meant(&key.1);
        self.report(match hint {
            Some(hint) => error.hint(hint),
            None => error,
        });
        None
    }

    /// What a name that is no `route[...]` may have meant.
    fn meant(&self, name: &Bytes) -> Option<String> {
        let other = self.routes.iter().find(|r| r.name == *name && !name.is_empty());
        if let Some(other) = other {
            let other = shown(other.kind, name);
            return Some(format!("{other} exists, but only a plain route[{}] can be run here", lossy(name)));
        }
        let names = self.routes.iter().filter(|r| r.kind == RouteKind::Request && !r.name.is_empty());
        let names: Vec<_> = names.map(|r| lossy(&r.name)).collect();
        let near = nearest(&lossy(name), names.iter().map(AsRef::as_ref))?;
        Some(format!("did you mean `{near}`?"))
    }

    /// The route that an `async` or `launch` names; it must be known now.
    pub(super) fn fixed_route(&mut self, route: &RouteRef) -> Option<RouteId> {
        match route {
            RouteRef::Name(name, loc) => self.callable(name, *loc),
            RouteRef::Format(text, loc) => match parse_format(text, *loc).as_deref() {
                Ok([FormatPiece::Text(name)]) => self.callable(&name.clone(), *loc),
                _ => {
                    self.error(*loc, "the route must be named outright");
                    None
                }
            },
            RouteRef::Var(spec) => {
                self.error(spec.loc, "the route must be named outright, a variable cannot name it");
                None
            }
        }
    }

    /// `route(name, args...)`
    pub(super) fn route_call(&mut self, route: &RouteRef, args: &[Arg]) -> Tail {
        let before = self.height;
        let fixed = match route {
            RouteRef::Name(name, loc) => self.callable(name, *loc),
            RouteRef::Var(spec) => {
                let var = self.var(spec);
                self.emit_push(Op::PushVar(var));
                None
            }
            RouteRef::Format(text, loc) => match parse_format(text, *loc).as_deref() {
                Ok([FormatPiece::Text(name)]) => self.callable(&name.clone(), *loc),
                _ => {
                    self.format(text, *loc);
                    None
                }
            },
        };
        let named = matches!(route, RouteRef::Name(..)) || fixed.is_some();
        let mut lazy = 0;
        for (i, arg) in args.iter().enumerate() {
            if self.route_arg(arg, i) {
                lazy |= 1 << i;
            }
        }
        if args.len() > usize::from(u8::MAX) {
            self.error(args[args.len() - 1].loc, format!("more than {} parameters", u8::MAX));
        }
        self.height = before;
        let args = args.len() as u8;
        if named {
            let route = fixed.map_or(0, |id| id.0);
            self.emit(Op::Route { route, args, lazy });
            return Tail::Rc;
        }
        self.emit(Op::RouteNamed { args, lazy });
        Tail::Acc
    }

    /// Pushes a parameter of a route. True: the variable itself, because 2.1 reads it when it is used.
    fn route_arg(&mut self, arg: &Arg, index: usize) -> bool {
        match &arg.kind {
            ArgKind::Empty => self.error(arg.loc, "a parameter is missing here"),
            ArgKind::Int(n) => self.emit_push(Op::PushInt(super::int32(*n))),
            ArgKind::Word(word) if matches!(&word[..], b"NULL" | b"null") => self.push_null(),
            ArgKind::Word(word) => match switch_word(word) {
                Some(truth) => self.emit_push(Op::PushInt(i32::from(truth))),
                None => {
                    let message = format!("`{}` is no parameter of a route", super::lossy(word));
                    self.report(Diagnostic::error(arg.loc, message).hint("quote a text"));
                    self.height += 1;
                }
            },
            ArgKind::Text(text) => {
                let text = self.literal(text);
                self.emit_push(Op::Push(text));
            }
            ArgKind::Var(spec) => return self.route_var_arg(spec, index),
            ArgKind::Expr(expr) => match &expr.kind {
                ExprKind::Var(spec) => return self.route_var_arg(spec, index),
                _ => self.simple_value(expr, "a parameter of a route"),
            },
        }
        false
    }

    fn route_var_arg(&mut self, spec: &VarSpec, index: usize) -> bool {
        let var = self.var(spec);
        // `$param` means the caller's, so it is read at once in either dialect.
        // So is what may have to be waited for: the route could not wait inside any of its expressions.
        let lazy =
            self.dialect == Dialect::V21 && index < 32 && spec.name != b"param"[..] && !self.may_wait(var);
        self.emit_push(if lazy { Op::PushLazy(var) } else { Op::PushVar(var) });
        lazy
    }

    pub(super) fn push_null(&mut self) {
        let null = self.constant(Value::Null);
        self.emit_push(Op::Push(null));
    }

    /// Pushes a text with its variables filled in.
    pub(super) fn format(&mut self, text: &Bytes, loc: Loc) {
        let pieces = match parse_format(text, loc) {
            Ok(pieces) => pieces,
            Err(diagnostic) => {
                self.report(diagnostic);
                Vec::new()
            }
        };
        let before = self.height;
        for piece in &pieces {
            match piece {
                FormatPiece::Text(text) => {
                    let text = self.literal(text);
                    self.emit_push(Op::Push(text));
                }
                FormatPiece::Var(spec) => {
                    let var = self.var(spec);
                    self.emit_push(Op::PushVar(var));
                }
            }
        }
        self.emit(Op::Join(self.height - before));
        self.height = before + 1;
    }
}
