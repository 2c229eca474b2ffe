//! The current message, put aside for another one and back.

use crate::context::ctx::{Ctx, MsgState};
use crate::context::tape::{Note, PANICKED};
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A panic that was caught: a defect of the server, which has said on stderr where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Defect;

/// While it lives another message is the current one. Dropping it, also by a panic, brings the outer one back.
struct Elsewhere<'a> {
    ctx: &'a mut Ctx,
    outer: Option<Box<MsgState>>,
}

impl Elsewhere<'_> {
    /// Brings the outer message back; the other one as it is now.
    fn end(&mut self) -> Option<Box<MsgState>> {
        let outer = self.outer.take()?;
        Some(std::mem::replace(&mut self.ctx.state, outer))
    }
}

impl Drop for Elsewhere<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

impl Deref for Elsewhere<'_> {
    type Target = Ctx;
    fn deref(&self) -> &Ctx {
        self.ctx
    }
}

impl DerefMut for Elsewhere<'_> {
    fn deref_mut(&mut self) -> &mut Ctx {
        self.ctx
    }
}

impl Ctx {
    /// Does `work` with `state` as the current message, and gives it back as it is then.
    pub fn with_state<R>(
        &mut self,
        state: Box<MsgState>,
        work: impl FnOnce(&mut Ctx) -> R,
    ) -> (Box<MsgState>, R) {
        let outer = std::mem::replace(&mut self.state, state);
        let mut elsewhere = Elsewhere { ctx: self, outer: Some(outer) };
        let result = work(&mut elsewhere);
        let state = elsewhere.end().expect("only `end` takes it");
        (state, result)
    }

    /// The same with a state that stays where it is; a panic leaves it empty of what was done to it.
    pub(crate) fn with_state_in<R>(
        &mut self,
        state: &mut Box<MsgState>,
        work: impl FnOnce(&mut Ctx) -> R,
    ) -> R {
        struct Swapped<'a, 'b>(&'a mut Ctx, &'b mut Box<MsgState>);
        impl Drop for Swapped<'_, '_> {
            fn drop(&mut self) {
                std::mem::swap(&mut self.0.state, self.1);
            }
        }
        std::mem::swap(&mut self.state, state);
        work(Swapped(self, state).0)
    }

    /// The same; a panic goes no further.
    pub fn try_with_state<R>(
        &mut self,
        state: Box<MsgState>,
        work: impl FnOnce(&mut Ctx) -> R,
    ) -> (Box<MsgState>, Result<R, Defect>) {
        self.with_state(state, |ctx| ctx.catch(work))
    }

    /// Does `work`; a panic goes no further. What was put aside meanwhile is back, but what `work` had half done
    /// stays half done: whoever calls this gives up what it was about.
    pub fn catch<R>(&mut self, work: impl FnOnce(&mut Ctx) -> R) -> Result<R, Defect> {
        catch_unwind(AssertUnwindSafe(|| work(self))).map_err(|_| {
            self.core.traffic.defects.up();
            if let Some(tape) = self.core.tape.as_ref().filter(|tape| tape.on()) {
                tape.note(Note::Over(PANICKED));
            }
            crate::error!(
                "core",
                "a defect in the server: a message or an operation was dropped (stderr says where)"
            );
            Defect
        })
    }
}
