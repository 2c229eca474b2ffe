//! Values that may have to be waited for: an `Await` stands before the instruction that reads them.

use super::Compiler;
use crate::host::Lang;
use crate::ops::{FuncId, Op, VarId, WaitId};
use ahash::AHashMap;

impl<L: Lang> Compiler<'_, L> {
    /// Keeps what the variable or function that was just prepared waits for.
    pub(super) fn note_waits(
        &mut self,
        table: impl FnOnce(&mut Self) -> &mut AHashMap<u32, Box<[VarId]>>,
        id: u32,
    ) {
        let waits = self.env.waits();
        if waits.is_empty() {
            return;
        }
        let first = self.vars.len() as u32;
        self.vars.extend(waits);
        let ids = (first..self.vars.len() as u32).map(VarId).collect();
        table(self).insert(id, ids);
    }

    pub(super) fn may_wait(&self, var: VarId) -> bool {
        self.var_waits.contains_key(&var.0)
    }

    /// Emits an `Await` for what `op` reads. Jumps lead to it, because labels are taken before `emit`.
    pub(super) fn await_values(&mut self, op: Op) {
        if self.var_waits.is_empty() && self.func_waits.is_empty() {
            return;
        }
        let mut asked = Vec::new();
        let (vars, funcs) = self.reads(op);
        for func in funcs {
            asked.extend(self.func_waits.get(&func.0).into_iter().flatten());
        }
        for var in vars {
            asked.extend(self.var_waits.get(&var.0).into_iter().flatten());
        }
        if asked.is_empty() {
            return;
        }
        self.waits.push(asked.into());
        self.code.push(Op::Await(WaitId(self.waits.len() as u32 - 1)));
    }

    /// The variables and functions in an instruction.
    fn reads(&self, op: Op) -> (Vec<VarId>, Vec<FuncId>) {
        match op {
            Op::Call(func) => (vec![], vec![func]),
            Op::CallAsync(site) => (vec![], vec![self.asyncs[site.0 as usize].func]),
            Op::Launch(site) => (vec![], vec![self.launches[site.0 as usize].func]),
            Op::Parallel(site) => {
                let calls = &self.parallels[site.0 as usize].calls;
                (calls.iter().filter_map(|(_, var)| *var).collect(), calls.iter().map(|c| c.0).collect())
            }
            Op::Assign(var, _)
            | Op::AssignInt(var, _)
            | Op::PushVar(var)
            | Op::CmpInt(_, var, _)
            | Op::CmpText(_, var, _)
            | Op::CmpNull(_, var)
            | Op::Match(_, var, _)
            | Op::Test(var)
            | Op::Next(var, _) => (vec![var], vec![]),
            Op::AssignVar(one, two)
            | Op::CmpVar(_, one, two)
            | Op::CmpWord(_, one, two)
            | Op::MatchVar(_, one, two) => (vec![one, two], vec![]),
            _ => (vec![], vec![]),
        }
    }
}
