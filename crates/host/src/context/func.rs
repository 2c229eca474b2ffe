//! A call of a script function as it stands in a program.

use crate::context::call::Outcome;
use crate::context::ctx::Ctx;
use script::Loc;
use std::fmt;

/// A prepared function call: evaluates its arguments and runs.
pub struct Func {
    pub name: &'static str,
    pub loc: Loc,
    run: Box<dyn Fn(&mut Ctx) -> Outcome + Send + Sync>,
}

impl Func {
    pub fn new(
        name: &'static str,
        loc: Loc,
        run: impl Fn(&mut Ctx) -> Outcome + Send + Sync + 'static,
    ) -> Func {
        Func { name, loc, run: Box::new(run) }
    }
    pub fn call(&self, ctx: &mut Ctx) -> Outcome {
        (self.run)(ctx)
    }
}

impl fmt::Debug for Func {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
