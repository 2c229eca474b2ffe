//! Loops, `switch`, routes and their ends.

use super::{End, Run, Step, compare};
use crate::ast::RouteKind;
use crate::host::{Host, RouteId};
use crate::ops::{Cmp, ConstId, Pc, VarId};
use crate::task::Frame;
use crate::value::Value;

/// Routes in each other, the outermost counted.
const MAX_DEPTH: usize = 100;

impl<H: Host> Run<'_, H> {
    pub(super) fn round(&mut self, out: Pc) {
        let limit = i64::from(self.program.max_while_loops);
        let done = match self.host.task().stack.last_mut() {
            Some(Value::Int(count)) if *count < limit => {
                *count += 1;
                return;
            }
            _ => limit,
        };
        self.complain(&format!("the loop was left after {done} rounds (max_while_loops)"));
        self.pc = out;
    }

    pub(super) fn next(&mut self, list: VarId, out: Pc) {
        self.mark();
        let at = match self.host.task().stack.last_mut() {
            Some(Value::Int(count)) => {
                *count += 1;
                *count - 1
            }
            _ => i64::MAX,
        };
        let value = match i32::try_from(at) {
            Ok(at) => self.host.get_at(self.program.var(list), at),
            Err(_) => Value::Null,
        };
        if value.is_null() { self.pc = out } else { self.push(value) }
    }

    fn case(&mut self, hit: impl FnOnce(&Value) -> bool, to: Pc) {
        let stack = &mut self.host.task().stack;
        if stack.last().is_some_and(hit) {
            stack.pop();
            self.acc = 1;
            self.pc = to;
        }
    }

    pub(super) fn case_int(&mut self, n: i32, to: Pc) {
        self.case(|value| compare::with_int(Cmp::Eq, value, n) == compare::TRUE, to);
    }

    pub(super) fn case_text(&mut self, text: ConstId, to: Pc) {
        let Value::Str(text) = self.program.constant(text) else { return };
        self.case(|value| compare::with_text(Cmp::Eq, value, text) == compare::TRUE, to);
    }

    pub(super) fn case_null(&mut self, to: Pc) {
        self.case(Value::is_null, to);
    }

    /// Calls a route; the top `args` values are its parameters.
    pub(super) fn enter(&mut self, route: RouteId, args: u8, lazy: u32) {
        let back = self.pc;
        self.mark();
        let task = self.host.task();
        let base = task.stack.len() - args as usize;
        if task.frames.len() >= MAX_DEPTH {
            task.stack.truncate(base);
            self.complain(&format!("routes are nested deeper than {}", MAX_DEPTH - 1));
            self.set_rc(-1);
            return;
        }
        task.frames.push(Frame { back, base: base as u32, lazy, route, params: args });
        task.returned = None;
        // An empty route is a success.
        self.acc = 1;
        self.pc = self.program.entry(route);
    }

    pub(super) fn enter_named(&mut self, args: u8, lazy: u32) {
        let stack = &mut self.host.task().stack;
        let name = stack.remove(stack.len() - 1 - args as usize);
        let text = name.text().unwrap_or_default();
        if let Some(route) = self.program.route(RouteKind::Request, Some(&text)) {
            return self.enter(route, args, lazy);
        }
        let stack = &mut self.host.task().stack;
        stack.truncate(stack.len() - args as usize);
        self.complain(&format!("no route named \"{}\"", String::from_utf8_lossy(&text)));
        self.acc = -1;
    }

    /// Ends the innermost route with this return code.
    pub(super) fn leave(&mut self, rc: i32, returned: Option<Box<[Value]>>) -> Option<Step<H::Op>> {
        self.set_rc(rc);
        let task = self.host.task();
        task.returned = returned;
        if rc == 0 {
            return Some(Step::Done(End::Exit));
        }
        if task.frames.len() <= 1 {
            return Some(Step::Done(End::Return(i64::from(rc))));
        }
        let frame = task.frames.pop()?;
        task.stack.truncate(frame.base as usize);
        self.pc = frame.back;
        None
    }

    /// `return(code, values...)`. A code that is no number is 1, NULL is -1.
    pub(super) fn return_top(&mut self, n: u32) -> Option<Step<H::Op>> {
        let stack = &mut self.host.task().stack;
        let from = stack.len() - n as usize;
        let returned: Box<[Value]> = stack.drain(from..).collect();
        let rc = match self.pop() {
            Value::Null | Value::Nought | Value::Failed => -1,
            Value::Str(_) | Value::Pieced(..) => 1,
            Value::Int(n) | Value::Both(_, n) | Value::Num(_, n) => n as i32,
        };
        self.leave(rc, Some(returned).filter(|values| !values.is_empty()))
    }

    pub(super) fn assertion(&mut self, text: ConstId) -> Option<Step<H::Op>> {
        self.mark();
        let loc = self.program.loc(self.here);
        let text = self.program.constant(text).to_text();
        self.host.assertion_failed(loc, &text);
        match self.program.error_route {
            Some(route) => {
                self.pc = self.host.task().replace(route);
                self.acc = 1;
                None
            }
            None => Some(Step::Done(End::Exit)),
        }
    }

    /// A message that cannot be parsed was met: error_route takes the script's place, once.
    pub(super) fn check_raised(&mut self) {
        let task = self.host.task();
        if !task.take_raised() {
            return;
        }
        let Some(route) = self.program.error_route else { return };
        if self.host.task().frames[0].route != route {
            self.pc = self.host.task().replace(route);
            self.acc = 1;
        }
    }
}
