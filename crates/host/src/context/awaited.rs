//! Variables that may have to wait, because of their class or one of their transformations.
//!
//! The machine asks for them before the instruction that reads them and suspends there; the answers are kept
//! with the message until the next instruction that waits, and reading finds them. So nothing that has an
//! effect ever runs twice, and ordinary variables know nothing of it.

use crate::call::Suspension;
use crate::ctx::Ctx;
use crate::var::{Answer, Var};
use script::Value;

/// A variable, its index and transformations, of which at least one may wait.
#[derive(Debug)]
pub struct Awaited {
    /// Which one of the configuration it is.
    pub(crate) id: u32,
    pub(crate) var: Var,
}

/// What was found so far, one for each variable asked for.
#[derive(Default, Debug)]
pub(crate) struct Answers(thin_vec::ThinVec<Found>);

#[derive(Debug)]
struct Found {
    id: u32,
    /// What the transformations before `stage` made; NULL until an operation has answered.
    value: Value,
    /// The next transformation.
    stage: usize,
    progress: Progress,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    Asked,
    Done,
}

impl Answers {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    fn of(&mut self, id: u32) -> Option<&mut Found> {
        self.0.iter_mut().find(|found| found.id == id)
    }
}

impl Ctx {
    /// The value that the variable asked for last was waiting for. For the second half of [`Answer::Later`]:
    /// gives its return code, 1, or -1 for NULL.
    pub fn answer(&mut self, value: Value) -> i32 {
        let rc = if value.is_null() { -1 } else { 1 };
        if let Some(found) = self.state.answers.0.last_mut() {
            found.value = value;
        }
        rc
    }
}

impl Awaited {
    /// Goes on until the value is there (`None`) or something must be waited for.
    pub(crate) fn ask(&self, ctx: &mut Ctx) -> Option<Box<Suspension>> {
        let (mut answer, mut stage) = match ctx.state.answers.of(self.id) {
            Some(found) if found.progress == Progress::Done => return None,
            Some(found) => (Answer::Now(std::mem::take(&mut found.value)), found.stage),
            None => {
                let answer = self.var.ask_raw(ctx);
                let found = Found { id: self.id, value: Value::Null, stage: 0, progress: Progress::Asked };
                ctx.state.answers.0.push(found);
                (answer, 0)
            }
        };
        loop {
            let value = match answer {
                Answer::Now(value) => value,
                Answer::Later(operation) => {
                    self.keep(ctx, Value::Null, stage, Progress::Asked);
                    return Some(operation);
                }
            };
            let Some(tran) = self.var.trans.get(stage) else {
                let value = self.var.checked(value);
                self.keep(ctx, value, stage, Progress::Done);
                return None;
            };
            stage += 1;
            answer = tran.ask(ctx, value);
        }
    }

    fn keep(&self, ctx: &mut Ctx, value: Value, stage: usize, progress: Progress) {
        if let Some(found) = ctx.state.answers.of(self.id) {
            (found.value, found.stage, found.progress) = (value, stage, progress);
        }
    }

    /// What was asked for; where nothing could wait, what is there at once.
    pub(crate) fn read(&self, ctx: &mut Ctx) -> Value {
        match ctx.state.answers.of(self.id) {
            Some(found) => found.value.clone(),
            None => self.var.get(ctx),
        }
    }
}
