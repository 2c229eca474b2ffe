//! What is allowed and most likely not meant: the warnings of `fermata check`.

mod relay;
mod values;

use crate::ast::{
    ArgKind, BinOp, Config, Dialect, Expr, ExprKind, Route, RouteKind, RouteRef, Stmt, StmtKind, VarSpec,
};
use crate::diagnostic::{Diagnostic, Loc, nearest};
use crate::format::{FormatPiece, parse_format};
use crate::walk::{Met, Target, body};
use ahash::{AHashMap, AHashSet};
use bytes::Bytes;

/// Warnings about a configuration without errors, in the order of the text. `can_wait` says which
/// functions may hold a script.
pub fn lint(config: &Config, can_wait: &dyn Fn(&[u8]) -> bool) -> Vec<Diagnostic> {
    let mut lint = Lint { config, found: Vec::new() };
    for route in &config.routes {
        lint.unreachable(&route.body, false);
        lint.each(route);
    }
    lint.unused_routes();
    lint.resume_routes();
    lint.unset_variables();
    lint.waits_under_locks(can_wait);
    lint.async_without_tm();
    lint.values_of_messages();
    lint.open_relay();
    if config.dialect == Dialect::V4 {
        lint.old_forms();
    }
    lint.found.sort_by_key(|d| (d.loc.file, d.loc.start));
    lint.found
}

struct Lint<'a> {
    config: &'a Config,
    found: Vec<Diagnostic>,
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// Variables inside a text; none when it is no format.
fn variables(text: &Bytes, loc: Loc) -> Vec<VarSpec> {
    let pieces = parse_format(text, loc).unwrap_or_default();
    pieces.into_iter().filter_map(|p| if let FormatPiece::Var(v) = p { Some(v) } else { None }).collect()
}

impl Lint<'_> {
    fn warn(&mut self, loc: Loc, message: impl Into<String>, hint: &str) {
        self.found.push(Diagnostic::warning(loc, message).hint(hint));
    }

    // ---- statements

    /// Warns about what stands behind the end of a block; says whether the block never reaches its end.
    fn unreachable(&mut self, stmts: &[Stmt], in_switch: bool) -> bool {
        let mut ended: Option<&Stmt> = None;
        for stmt in stmts {
            if let Some(end) = ended {
                // A `break` behind an `exit` is good manners in a `switch`.
                if !(in_switch && matches!(stmt.kind, StmtKind::Break)) {
                    let hint = match end.kind {
                        StmtKind::Async { .. } => {
                            "`async` goes on in its resume route only; move the statement there"
                        }
                        _ => "the statement before it never comes back",
                    };
                    self.warn(stmt.loc, "this statement is never reached", hint);
                }
                break;
            }
            if self.ends(stmt, in_switch) {
                ended = Some(stmt);
            }
        }
        ended.is_some()
    }

    fn ends(&mut self, stmt: &Stmt, in_switch: bool) -> bool {
        match &stmt.kind {
            StmtKind::Exit | StmtKind::Drop | StmtKind::Return(_) | StmtKind::Break | StmtKind::Continue => {
                true
            }
            StmtKind::Async { .. } => true,
            StmtKind::Block(b) => self.unreachable(b, in_switch),
            StmtKind::If { then, otherwise, .. } => {
                let then = self.unreachable(then, in_switch);
                let otherwise = otherwise.as_ref().is_some_and(|o| self.unreachable(o, in_switch));
                then && otherwise
            }
            StmtKind::While { body, .. } | StmtKind::For { body, .. } => {
                self.unreachable(body, false);
                false
            }
            StmtKind::Switch { arms, default, .. } => {
                for arm in arms {
                    self.unreachable(&arm.body, true);
                }
                self.unreachable(default.as_deref().unwrap_or_default(), true);
                false
            }
            StmtKind::Expr(_)
            | StmtKind::Assign { .. }
            | StmtKind::Launch { .. }
            | StmtKind::Parallel { .. }
            | StmtKind::Assert { .. } => false,
        }
    }

    fn each(&mut self, route: &Route) {
        let mut met = Vec::new();
        body(&route.body, &mut |m| met.push(m));
        for m in met {
            match m {
                Met::Expr(e) => self.expression(e),
                Met::Stmt(Stmt { kind: StmtKind::Return(values), loc }) => {
                    let zero = matches!(values.first(), Some(Expr { kind: ExprKind::Int(0), .. }));
                    if zero && route.kind == RouteKind::Request && route.name.is_some() {
                        self.warn(
                            *loc,
                            "`return(0)` ends the whole script",
                            "write `exit` if that is meant, or return another number",
                        );
                    }
                }
                _ => {}
            }
        }
    }

    fn expression(&mut self, e: &Expr) {
        match &e.kind {
            // Texts outside of calls: assigned, compared, returned.
            ExprKind::Text(text) => {
                if let Some(var) = variables(text, e.loc).first() {
                    self.warn(
                        var.loc,
                        "this variable is not replaced by its value",
                        "texts are expanded only as parameters of functions; join with `+`",
                    );
                }
            }
            ExprKind::Binary(op, left, _) => {
                let ExprKind::Binary(inner, ..) = &left.kind else { return };
                if binds(*op) > binds(*inner) && binds(*inner) > 0 {
                    self.warn(
                        e.loc,
                        "operators have no precedence: this is read from left to right",
                        "put parentheses around what belongs together",
                    );
                }
            }
            _ => {}
        }
    }

    // ---- routes

    fn unused_routes(&mut self) {
        let mut named: AHashSet<Bytes> = AHashSet::new();
        let mut dynamic = false;
        let mut formats = false;
        for route in &self.config.routes {
            body(&route.body, &mut |m| match m {
                Met::Route(RouteRef::Name(name, _), _) => drop(named.insert(name.clone())),
                Met::Route(..) => dynamic = true,
                Met::Arg(a) => match &a.kind {
                    ArgKind::Text(text) => {
                        formats |= memchr::memchr(b'$', text).is_some();
                        named.extend(words(text));
                    }
                    ArgKind::Word(text) => drop(named.insert(text.clone())),
                    ArgKind::Int(n) => drop(named.insert(Bytes::from(n.to_string()))),
                    _ => {}
                },
                Met::Call(call, _) if call.name.starts_with(b"t_on_") => {
                    formats |= call.args.iter().any(|a| matches!(a.kind, ArgKind::Var(_)));
                }
                _ => {}
            });
        }
        // A module may be told the name of a route.
        for param in &self.config.params {
            if let crate::ast::ParamValue::Text(text) = &param.value {
                named.extend(words(text));
            }
        }
        for route in &self.config.routes {
            let Some(name) = &route.name else { continue };
            let guessed = match route.kind {
                RouteKind::Request => dynamic,
                RouteKind::Failure | RouteKind::Branch | RouteKind::OnReply => formats && dynamic,
                _ => continue,
            };
            if !guessed && !named.contains(name) {
                let hint = match route.kind {
                    RouteKind::Request => "no `route(...)` calls it",
                    RouteKind::Failure => "no `t_on_failure(...)` names it",
                    RouteKind::Branch => "no `t_on_branch(...)` names it",
                    _ => "no `t_on_reply(...)` names it",
                };
                self.warn(route.loc, format!("nothing uses the route `{}`", shown(name)), hint);
            }
        }
    }

    /// Resume routes that do not look at how the operation ended.
    fn resume_routes(&mut self) {
        let mut resumed: AHashMap<&Bytes, Bytes> = AHashMap::new();
        for route in &self.config.routes {
            let mut function = Bytes::new();
            body(&route.body, &mut |m| match m {
                Met::Call(call, _) => function = call.name.clone(),
                Met::Route(RouteRef::Name(name, _), Target::Resume) => {
                    resumed.entry(name).or_insert_with(|| function.clone());
                }
                _ => {}
            });
        }
        for route in &self.config.routes {
            let Some(function) =
                route.name.as_ref().filter(|_| route.kind == RouteKind::Request).and_then(|n| resumed.get(n))
            else {
                continue;
            };
            let quiet = matches!(&function[..], b"sleep" | b"usleep");
            if !quiet && !looks_at_rc(&route.body) {
                let message =
                    format!("this route never looks at `$rc`, which says how `{}` ended", shown(function));
                self.warn(route.loc, message, "begin with `if ($rc < 0) { ... }`");
            }
        }
    }

    /// Calls that may wait between taking a lock of cfgutils and giving it back.
    fn waits_under_locks(&mut self, can_wait: &dyn Fn(&[u8]) -> bool) {
        let mut waits = Vec::new();
        for route in &self.config.routes {
            let mut locked = false;
            body(&route.body, &mut |m| {
                let Met::Call(call, _) = m else { return };
                match &call.name[..] {
                    b"get_static_lock" | b"get_dynamic_lock" => locked = true,
                    b"release_static_lock" | b"release_dynamic_lock" => locked = false,
                    name if locked && can_wait(name) => waits.push(call),
                    _ => {}
                }
            });
        }
        for call in waits {
            let message = format!("`{}` may wait, and the script holds a lock", shown(&call.name));
            self.warn(call.loc, message, "every other call that wants the lock waits too: release it first");
        }
    }

    /// OpenSIPS keeps a suspended call in its transaction.
    fn async_without_tm(&mut self) {
        if self.config.modules.is_empty() || self.config.modules.iter().any(|m| &m.name[..] == b"tm") {
            return;
        }
        let mut first = None;
        for route in &self.config.routes {
            body(&route.body, &mut |m| {
                if let Met::Stmt(Stmt { kind: StmtKind::Async { .. }, loc }) = m {
                    first.get_or_insert(*loc);
                }
            });
        }
        if let Some(loc) = first {
            self.warn(loc, "`async` without module tm: OpenSIPS refuses this", "loadmodule \"tm.so\"");
        }
    }

    // ---- variables

    /// `$var(x)` that is read and never set, when another that is set has nearly its name.
    fn unset_variables(&mut self) {
        let mut set: AHashSet<Bytes> = AHashSet::new();
        let mut read: Vec<(Bytes, Loc)> = Vec::new();
        for route in &self.config.routes {
            body(&route.body, &mut |m| match m {
                Met::Written(v) => set.extend(var_name(v)),
                Met::Read(v) => read.extend(var_name(v).map(|n| (n, v.loc))),
                // A function may set it, quoted or not.
                Met::Arg(a) => match &a.kind {
                    ArgKind::Var(v) => set.extend(var_name(v)),
                    ArgKind::Text(text) => {
                        let inside = variables(text, a.loc);
                        let alone = matches!(&inside[..], [v] if text.len() as u32 + 2 == a.loc.end - a.loc.start && v.loc.end - v.loc.start == text.len() as u32);
                        for v in inside {
                            match alone {
                                true => set.extend(var_name(&v)),
                                false => read.extend(var_name(&v).map(|n| (n, v.loc))),
                            }
                        }
                    }
                    _ => {}
                },
                _ => {}
            });
        }
        let mut warned: AHashSet<Bytes> = AHashSet::new();
        for (name, loc) in read {
            if set.contains(&name) || !warned.insert(name.clone()) {
                continue;
            }
            let mut others: Vec<String> = set.iter().map(|n| shown(n)).collect();
            others.sort_unstable();
            if let Some(near) = nearest(&shown(&name), others.iter().map(String::as_str)) {
                self.warn(
                    loc,
                    format!("nothing sets `$var({})`", shown(&name)),
                    &format!("did you mean `$var({near})`?"),
                );
            }
        }
    }

    // ---- old forms

    fn old_forms(&mut self) {
        for global in &self.config.globals {
            if let Some((_, new)) = OLD_PARAMETERS.iter().find(|(old, _)| old.as_bytes() == global.name) {
                let message = format!("`{}` is the old name of this parameter", shown(&global.name));
                self.warn(global.loc, message, &format!("write `{new}`"));
            }
        }
        let mut calls = Vec::new();
        for route in &self.config.routes {
            body(&route.body, &mut |m| {
                if let Met::Call(call, _) = m {
                    calls.push(call)
                }
            });
        }
        for call in calls {
            if let Some((_, new)) = OLD_FUNCTIONS.iter().find(|(old, _)| old.as_bytes() == call.name) {
                let message = format!("`{}` is the old name of this function", shown(&call.name));
                // Without a URI it moves the R-URI into a new branch, which has a name of its own.
                let moves = *new == "append_msg_branch" && call.args.is_empty();
                let new = if moves { "append_branch_old()" } else { new };
                self.warn(call.loc, message, &format!("write `{new}`"));
            }
        }
    }
}

/// Parameters of the core that 3.x and 4.x call differently.
const OLD_PARAMETERS: &[(&str, &str)] = &[
    ("listen", "socket"),
    ("children", "udp_workers"),
    ("tcp_children", "tcp_workers"),
    ("debug", "log_level"),
    ("log_stderror", "stderror_enabled"),
    ("log_facility", "syslog_facility"),
    ("log_name", "syslog_name"),
];

/// Functions that 3.x and 4.x call differently.
const OLD_FUNCTIONS: &[(&str, &str)] = &[
    ("append_branch", "append_msg_branch"),
    ("remove_branch", "remove_msg_branch"),
    ("avp_db_query", "sql_query"),
    ("avp_db_load", "sql_avp_load"),
    ("avp_db_store", "sql_avp_store"),
    ("avp_db_delete", "sql_avp_delete"),
    ("rewritehost", "sethost"),
    ("rewritehostport", "sethostport"),
    ("rewriteport", "setport"),
    ("rewriteuri", "seturi"),
    ("rewriteuser", "setuser"),
    ("rewriteuserpass", "setuserpass"),
];

/// How tightly people expect an operator to bind; 0 where nobody is misled.
fn binds(op: BinOp) -> u8 {
    match op {
        BinOp::Or => 1,
        BinOp::And => 2,
        BinOp::Add | BinOp::Sub => 3,
        BinOp::Mul | BinOp::Div | BinOp::Mod => 4,
        _ => 0,
    }
}

/// Words of a text that could be the name of a route, and the text itself.
fn words(text: &Bytes) -> Vec<Bytes> {
    let name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let mut found = vec![text.clone()];
    let mut from = 0;
    for part in text.split(|b| !name(b)) {
        if !part.is_empty() && part.len() < text.len() {
            found.push(text.slice(from..from + part.len()));
        }
        from += part.len() + 1;
    }
    found
}

fn var_name(v: &VarSpec) -> Option<Bytes> {
    let inner = v.inner.as_ref().filter(|_| v.name == "var")?;
    (!inner.contains(&b'$')).then(|| inner.clone())
}

/// `$rc` or `$retcode` stands somewhere, also in a text; a sub-route may look at it too.
fn looks_at_rc(stmts: &[Stmt]) -> bool {
    let rc = |v: &VarSpec| matches!(&v.name[..], b"rc" | b"retcode");
    let mut looks = false;
    body(stmts, &mut |m| match m {
        Met::Read(v) => looks |= rc(v),
        Met::Route(_, Target::Call) => looks = true,
        Met::Arg(a) => {
            if let ArgKind::Text(text) = &a.kind {
                looks |= variables(text, a.loc).iter().any(rc);
            }
        }
        _ => {}
    });
    looks
}
