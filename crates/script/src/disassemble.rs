//! The instructions as text, for tests and for those who wonder.

use crate::ast::AssignOp;
use crate::compile::route_shown;
use crate::host::{Lang, RouteId};
use crate::ops::{ConstId, Op, VarId};
use crate::program::Program;
use crate::value::Value;
use std::fmt::Write as _;

impl<L: Lang> Program<L> {
    /// Every route with its instructions, one a line. `> 7` is a jump to instruction 7.
    pub fn disassemble(&self) -> String {
        let mut out = String::new();
        for (pc, op) in self.code.iter().enumerate() {
            let last = pc + 1 == self.code.len();
            for route in self.routes.iter().filter(|r| r.entry as usize == pc && !last) {
                let _ = writeln!(out, "{}", route_shown(route.kind, &route.name));
            }
            if !last {
                let _ = writeln!(out, "{pc:5}  {}", self.show(*op));
            }
        }
        out
    }

    fn v(&self, id: VarId) -> String {
        self.vars.get(id.0 as usize).map_or_else(|| "?".to_string(), |v| format!("{v:?}"))
    }

    fn c(&self, id: ConstId) -> String {
        match self.consts.get(id.0 as usize) {
            Some(Value::Str(text) | Value::Pieced(text, _)) => format!("{:?}", String::from_utf8_lossy(text)),
            Some(Value::Null) => "NULL".to_string(),
            Some(other) => String::from_utf8_lossy(&other.to_text()).into_owned(),
            None => "?".to_string(),
        }
    }

    fn r(&self, id: RouteId) -> String {
        route_shown(self.route_kind(id), &self.route_name(id))
    }

    fn show(&self, op: Op) -> String {
        match op {
            Op::Call(f) => format!("call {:?}", self.func(f)),
            Op::CallAsync(id) => {
                let site = self.async_site(id);
                let limit = site.timeout_ms.map_or(String::new(), |ms| format!(" within {ms} ms"));
                format!("async {:?}, {}{limit}", self.func(site.func), self.r(site.resume))
            }
            Op::Parallel(id) => {
                let site = self.parallel(id);
                let mut text = format!("parallel {:?}", site.until).to_lowercase();
                if let Some(ms) = site.timeout_ms {
                    let _ = write!(text, " within {ms} ms");
                }
                for (func, target) in &site.calls {
                    let target = target.map_or(String::new(), |v| format!("{} = ", self.v(v)));
                    let _ = write!(text, ", {target}{:?}", self.func(*func));
                }
                text
            }
            Op::Launch(id) => {
                let site = self.launch_site(id);
                let report = site.report.map_or(String::new(), |r| format!(", {}", self.r(r)));
                format!("launch {:?}{report}", self.func(site.func))
            }
            Op::Assign(v, op) => format!("set {} {}", self.v(v), assign_sign(op)),
            Op::AssignInt(v, n) => format!("set {} = {n}", self.v(v)),
            Op::AssignVar(v, w) => format!("set {} = {}", self.v(v), self.v(w)),
            Op::Fail(height) => format!("fail {height}"),
            Op::Acc(n) => format!("acc {n}"),
            Op::Rc => "rc".to_string(),
            Op::IfNot => "if_not".to_string(),
            Op::Await(id) => {
                let vars: Vec<String> = self.awaited(id).iter().map(|v| self.v(*v)).collect();
                format!("await {}", vars.join(", "))
            }
            Op::Push(c) => format!("push {}", self.c(c)),
            Op::PushInt(n) => format!("push {n}"),
            Op::PushVar(v) => format!("push {}", self.v(v)),
            Op::PushLazy(v) => format!("push_lazy {}", self.v(v)),
            Op::PushAcc => "push_acc".to_string(),
            Op::PushTruth(to) => format!("push_truth > {to}"),
            Op::Binary(op, _, to) => format!("{} > {to}", op.sign()),
            Op::Modify(op, _, to) => format!("{}= > {to}", op.sign()),
            Op::PopReadable(to) => format!("pop readable > {to}"),
            Op::BinaryInt(op, n, to) => format!("{} {n} > {to}", op.sign()),
            Op::BitNot(to) => format!("~ > {to}"),
            Op::Join(n) => format!("join {n}"),
            Op::Pop => "pop".to_string(),
            Op::Truth => "truth".to_string(),
            Op::Not => "not".to_string(),
            Op::Jump(to) => format!("jump > {to}"),
            Op::JumpUnless(to) => format!("unless > {to}"),
            Op::JumpIf(to) => format!("if > {to}"),
            Op::Loop => "loop".to_string(),
            Op::Round(to) => format!("round > {to}"),
            Op::Next(v, to) => format!("next {} > {to}", self.v(v)),
            Op::CaseInt(n, to) => format!("case {n} > {to}"),
            Op::CaseText(c, to) => format!("case {} > {to}", self.c(c)),
            Op::CaseNull(to) => format!("case NULL > {to}"),
            Op::Route { route, args, .. } => format!("{} with {args}", self.r(RouteId(route))),
            Op::RouteNamed { args, .. } => format!("route by name with {args}"),
            Op::End => "end".to_string(),
            Op::Return(n) => format!("return {n}"),
            Op::ReturnTop(n) => format!("return top and {n}"),
            Op::Exit => "exit".to_string(),
            Op::Drop => "drop".to_string(),
            Op::Probe => "probe".to_string(),
            Op::Assert(c) => format!("assert {}", self.c(c)),
            test => self.show_test(test),
        }
    }

    fn show_test(&self, op: Op) -> String {
        match op {
            Op::CmpInt(cmp, v, n) => format!("test {} {} {n}", self.v(v), cmp.sign()),
            Op::CmpText(cmp, v, c) => format!("test {} {} {}", self.v(v), cmp.sign(), self.c(c)),
            Op::CmpVar(cmp, v, w) => format!("test {} {} {}", self.v(v), cmp.sign(), self.v(w)),
            Op::CmpWord(cmp, v, w) => format!("test {} {} word {}", self.v(v), cmp.sign(), self.v(w)),
            Op::CmpNull(cmp, v) => format!("test {} {} NULL", self.v(v), cmp.sign()),
            Op::Match(want, v, r) => {
                format!(
                    "test {} {} {:?}",
                    self.v(v),
                    want.sign(),
                    String::from_utf8_lossy(self.regex(r).source())
                )
            }
            Op::MatchVar(want, v, w) => format!("test {} {} {}", self.v(v), want.sign(), self.v(w)),
            Op::Test(v) => format!("test {}", self.v(v)),
            Op::TestTop => "test_top".to_string(),
            other => format!("{other:?}"),
        }
    }
}

fn assign_sign(op: AssignOp) -> &'static str {
    match op {
        AssignOp::Set => "=",
        AssignOp::SetOver => ":=",
        AssignOp::Add => "+=",
        AssignOp::Sub => "-=",
        AssignOp::Mul => "*=",
        AssignOp::Div => "/=",
        AssignOp::Mod => "%=",
        AssignOp::And => "&=",
        AssignOp::Or => "|=",
        AssignOp::Xor => "^=",
        AssignOp::ShiftLeft => "<<=",
        AssignOp::ShiftRight => ">>=",
        AssignOp::Concat => ".=",
    }
}
