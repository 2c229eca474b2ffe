//! `parallel { ... }`: several operations of one script at the same time.
//!
//! Each operation has a parked slot of its own, so it shows up in `async_list`, has its own deadline and
//! can be cancelled alone. The script is parked in one more slot, the group, which goes on when all are
//! done, the first one has succeeded (`any`), or its time is up. Whatever ends the group ends the others.

use crate::call::{Finish, Outcome, Suspension, Wait};
use crate::context::parked::{Group, Member};
use crate::ctx::{Ctx, Sip, TaskId};
use script::ast::{AssignOp, Until};
use script::{Called, ParallelSite};

/// Longest a group waits when the script does not say: its operations have limits of their own.
const NO_LIMIT_MS: u64 = u64::MAX;

impl Ctx {
    /// Starts the operations of a `parallel`, in the order in which they are written.
    pub(crate) fn start_parallel(&mut self, site: ParallelSite<Sip>) -> Called<Box<Suspension>> {
        let mut codes = vec![None; site.len()];
        let mut waiting = Vec::new();
        for (place, code) in codes.iter_mut().enumerate() {
            match site.func(place).call(self) {
                Outcome::Suspend(operation) => waiting.push((place, *operation)),
                Outcome::Done(rc) => {
                    *code = Some(rc);
                    self.store_code(&site, place, rc);
                    if site.until() == Until::Any && rc > 0 {
                        // Nothing else need be started.
                        return Called::Done(outcome(&site, &codes));
                    }
                }
            }
        }
        if waiting.is_empty() {
            return Called::Done(outcome(&site, &codes));
        }
        let limit_ms = site.timeout_ms().unwrap_or(NO_LIMIT_MS);
        let group = Box::new(Group { site, codes, running: Vec::new() });
        Called::Suspend(Box::new(Suspension {
            what: "parallel",
            detail: bytes::Bytes::new(),
            wait: Wait::External(Box::new(move |ctx, id| ctx.begin_group(id, group, waiting))),
            limit_ms,
            on_deadline: -1,
        }))
    }

    fn begin_group(&mut self, id: TaskId, group: Box<Group>, waiting: Vec<(usize, Suspension)>) {
        let Some(slot) = self.live_slot(id) else { return };
        let (call_id, loc) = (slot.call_id.clone(), slot.loc);
        slot.group = Some(group);
        for (place, operation) in waiting {
            let Suspension { what, detail, wait, limit_ms, on_deadline } = operation;
            // An operation before this one may have ended the group.
            if self.live_slot(id).is_none() {
                return;
            }
            let member = self.park_slot(what, detail, call_id.clone(), loc, limit_ms, on_deadline);
            let Some(member) = member else {
                self.member_done(Member { group: id, place }, Box::new(|_| -1));
                continue;
            };
            self.core.tasks[member.index as usize].member = Some(Member { group: id, place });
            if let Some(group) = self.group(id) {
                group.running.push(member);
            }
            self.begin_wait(member, wait);
        }
    }

    fn group(&mut self, id: TaskId) -> Option<&mut Group> {
        self.live_slot(id)?.group.as_deref_mut()
    }

    /// One operation of a group is over: its second half runs on the script's state.
    pub(crate) fn member_done(&mut self, member: Member, finish: Finish) -> i32 {
        let Member { group: id, place } = member;
        let Some(slot) = self.live_slot(id) else { return -1 };
        let (Some(state), Some(mut group)) = (slot.state.take(), slot.group.take()) else { return -1 };
        let (state, done) = self.try_with_state(state, |ctx| {
            let rc = ctx.finish_placed(finish);
            ctx.store_code(&group.site, place, rc);
            rc
        });
        let Ok(rc) = done else {
            // The others end with the group.
            if let Some(slot) = self.live_slot(id) {
                slot.group = Some(group);
            }
            self.cancel_task(id);
            crate::tm::defect::script_broke(self, state);
            return -1;
        };
        group.codes[place] = Some(rc);
        let won = group.site.until() == Until::Any && rc > 0;
        let over = won || group.codes.iter().all(Option::is_some);
        let total = outcome(&group.site, &group.codes);
        let Some(slot) = self.live_slot(id) else { return rc };
        (slot.state, slot.group) = (Some(state), Some(group));
        if over {
            self.resume(id, Box::new(move |_| total));
        }
        rc
    }

    /// The group's time is up: what runs ends as at its own deadline.
    pub(crate) fn group_late(&mut self, group: &mut Group) -> i32 {
        for place in 0..group.codes.len() {
            if group.codes[place].is_none() {
                group.codes[place] = Some(-1);
                self.store_code(&group.site, place, -1);
            }
        }
        outcome(&group.site, &group.codes)
    }

    /// `$var(x) = f();` inside the block.
    fn store_code(&mut self, site: &ParallelSite<Sip>, place: usize, rc: i32) {
        if let Some(var) = site.target(place) {
            var.set(self, AssignOp::Set, script::Value::Int(i64::from(rc)));
        }
    }
}

/// The return code of the whole. All: 1 when every one succeeded, else the first failure as they are
/// written. Any: the place (from 1) of one that succeeded, else the last failure.
fn outcome(site: &ParallelSite<Sip>, codes: &[Option<i32>]) -> i32 {
    let code = |c: &Option<i32>| match *c {
        // 0 would end the script, which none of several may do.
        None | Some(0) => -1,
        Some(rc) => rc,
    };
    match site.until() {
        Until::All => codes.iter().map(code).find(|rc| *rc < 0).unwrap_or(1),
        Until::Any => match codes.iter().position(|c| c.is_some_and(|rc| rc > 0)) {
            Some(place) => place as i32 + 1,
            None => codes.iter().map(code).next_back().unwrap_or(-1),
        },
    }
}
