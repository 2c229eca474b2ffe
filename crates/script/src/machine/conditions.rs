//! Conditions with more than a number in them.

use super::{Run, compare};
use crate::ast::Dialect;
use crate::host::Host;
use crate::ops::{Cmp, Op, VarId, Want};
use crate::value::Value;

impl<H: Host> Run<'_, H> {
    /// Sets acc from the comparison.
    pub(super) fn condition(&mut self, op: Op) {
        self.acc = match op {
            Op::CmpText(cmp, var, text) => {
                let left = self.get(var);
                let right = self.program.constant(text);
                match right {
                    Value::Str(right) => compare::with_text(cmp, &left, right),
                    right => compare::values(cmp, &left, right),
                }
            }
            Op::CmpVar(cmp, left, right) => {
                let (left, right) = (self.get(left), self.get(right));
                compare::values(cmp, &left, &right)
            }
            Op::CmpWord(cmp, left, word) => self.compare_word(cmp, left, word),
            Op::Match(want, var, regex) => {
                let left = self.get(var);
                match self.lone_empty(&left) {
                    true => compare::NEITHER,
                    false => compare::matches(want, &left, self.program.regex(regex)),
                }
            }
            Op::MatchVar(want, left, pattern) => self.match_variable(want, left, pattern),
            _ => return,
        }
    }

    fn compare_word(&mut self, cmp: Cmp, left: VarId, word: VarId) -> i32 {
        let left = self.get(left);
        let decided = match cmp {
            Cmp::Eq | Cmp::Ne => self.host.compare_word(&left, self.program.var(word)),
            _ => None,
        };
        match decided {
            Some(equal) => i32::from(equal == (cmp == Cmp::Eq)),
            None => {
                let right = self.get(word);
                compare::values(cmp, &left, &right)
            }
        }
    }

    fn match_variable(&mut self, want: Want, left: VarId, pattern: VarId) -> i32 {
        let (left, pattern) = (self.get(left), self.get(pattern));
        let old = self.program.dialect == Dialect::V21;
        if self.lone_empty(&left) || (old && (left.is_null() || pattern.is_null())) {
            return compare::NEITHER;
        }
        compare::matches_pattern(want, &left, &pattern).unwrap_or_else(|| {
            let pattern = pattern.to_text();
            self.complain(&format!(
                "not a regular expression: {}",
                String::from_utf8_lossy(&pattern[..pattern.len().min(100)])
            ));
            compare::NEITHER
        })
    }

    /// 2.1 neither matches nor fails to match an empty string.
    fn lone_empty(&self, left: &Value) -> bool {
        self.program.dialect == Dialect::V21
            && matches!(left, Value::Str(text) | Value::Both(text, _) | Value::Num(text, _) if text.is_empty())
    }
}
