//! Visits everything in a route's body, in the order it is written.

use crate::ast::{Arg, ArgKind, Call, Expr, ExprKind, RouteRef, Stmt, StmtKind, VarSpec};
use crate::host::Waits;

/// Something met in a body.
pub(crate) enum Met<'a> {
    /// Before what is inside of it.
    Stmt(&'a Stmt),
    Expr(&'a Expr),
    /// A function; `Waits` says whether `async` or `launch` runs it.
    Call(&'a Call, Waits),
    Arg(&'a Arg),
    /// A variable that is read, or handed to a function.
    Read(&'a VarSpec),
    Written(&'a VarSpec),
    Route(&'a RouteRef, Target),
}

/// Why a route is named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// `route(x)`
    Call,
    /// `async(f(), x)`
    Resume,
    /// `launch(f(), x)`
    Report,
}

pub(crate) fn body<'a>(stmts: &'a [Stmt], see: &mut dyn FnMut(Met<'a>)) {
    for s in stmts {
        stmt(s, see);
    }
}

fn stmt<'a>(s: &'a Stmt, see: &mut dyn FnMut(Met<'a>)) {
    see(Met::Stmt(s));
    match &s.kind {
        StmtKind::Expr(e) => expr(e, see),
        StmtKind::Assign { target, value, .. } => {
            expr(value, see);
            see(Met::Written(target));
        }
        StmtKind::If { test, then, otherwise } => {
            expr(test, see);
            body(then, see);
            body(otherwise.as_deref().unwrap_or_default(), see);
        }
        StmtKind::While { test, body: b } => {
            expr(test, see);
            body(b, see);
        }
        StmtKind::For { var, list, body: b } => {
            see(Met::Read(list));
            see(Met::Written(var));
            body(b, see);
        }
        StmtKind::Switch { on, arms, default } => {
            expr(on, see);
            for arm in arms {
                arm.values.iter().for_each(|v| expr(v, see));
                body(&arm.body, see);
            }
            body(default.as_deref().unwrap_or_default(), see);
        }
        StmtKind::Return(values) => values.iter().for_each(|v| expr(v, see)),
        StmtKind::Assert { test, .. } => expr(test, see),
        StmtKind::Block(b) | StmtKind::Parallel { body: b, .. } => body(b, see),
        StmtKind::Async { call: c, resume, .. } => {
            call(c, Waits::Async, see);
            see(Met::Route(resume, Target::Resume));
        }
        StmtKind::Launch { call: c, report, param } => {
            call(c, Waits::Launch, see);
            if let Some(report) = report {
                see(Met::Route(report, Target::Report));
            }
            if let Some(param) = param {
                arg(param, see);
            }
        }
        StmtKind::Break | StmtKind::Continue | StmtKind::Exit | StmtKind::Drop => {}
    }
}

fn expr<'a>(e: &'a Expr, see: &mut dyn FnMut(Met<'a>)) {
    see(Met::Expr(e));
    match &e.kind {
        ExprKind::Var(var) => see(Met::Read(var)),
        ExprKind::Call(c) => call(c, Waits::Plain, see),
        ExprKind::Route(target, args) => {
            see(Met::Route(target, Target::Call));
            args.iter().for_each(|a| arg(a, see));
        }
        ExprKind::Bracket(e)
        | ExprKind::Not(e)
        | ExprKind::BitNot(e)
        | ExprKind::Neg(e)
        | ExprKind::Group(e) => {
            expr(e, see);
        }
        ExprKind::Binary(_, left, right) => {
            expr(left, see);
            expr(right, see);
        }
        ExprKind::Async(s) | ExprKind::Assign(s) => stmt(s, see),
        ExprKind::Int(_) | ExprKind::Text(_) | ExprKind::Null | ExprKind::Word(_) => {}
    }
}

fn call<'a>(c: &'a Call, waits: Waits, see: &mut dyn FnMut(Met<'a>)) {
    see(Met::Call(c, waits));
    c.args.iter().for_each(|a| arg(a, see));
}

fn arg<'a>(a: &'a Arg, see: &mut dyn FnMut(Met<'a>)) {
    see(Met::Arg(a));
    match &a.kind {
        ArgKind::Var(var) => see(Met::Read(var)),
        ArgKind::Expr(e) => expr(e, see),
        ArgKind::Empty | ArgKind::Int(_) | ArgKind::Text(_) | ArgKind::Word(_) => {}
    }
}
