//! Module `sim_watch`: joins in at every moment, leaves its mark there, and waits as long as it is told.

use crate::module::waits;
use host::shared::Hooks;
use host::stats::Stats;
use host::watch::{Moment, Seen, Told, Wire};
use host::{Ctx, Finish, Outcome, Registrar, Suspension};
use sip::Anchor;
use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    static SEEN: RefCell<Vec<String>> = RefCell::default();
}

/// What was seen since the last time: the moment, its branch and status, and what the current message is.
pub fn seen() -> Vec<String> {
    SEEN.take()
}

#[derive(Default)]
pub struct Watching {
    /// Moment, milliseconds, return code.
    waits: Vec<(String, u64, i32)>,
    /// Every moment waits by the seed.
    always: bool,
}

/// How often a transaction was seen.
#[derive(Clone, Copy, Default)]
struct Times(u32);

const ALL: [Moment; 12] = [
    Moment::RequestIn,
    Moment::AckIn,
    Moment::Routed,
    Moment::RequestEnd,
    Moment::RequestOut,
    Moment::ForwardOut,
    Moment::LocalOut,
    Moment::ReplyIn,
    Moment::StrayReply,
    Moment::ReplyOut,
    Moment::Failing,
    Moment::Cancelled,
];

pub fn register(m: &mut Registrar<Watching>) {
    m.param_text("wait", |s, text| {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or("Moment milliseconds code");
        let (moment, ms, rc) = (word()?.to_string(), word()?.parse(), word()?.parse());
        let (Ok(ms), Ok(rc)) = (ms, rc) else { return Err("milliseconds and code are numbers".into()) };
        Ok(s.waits.push((moment, ms, rc)))
    });
    m.param_int("always", |s, v| Ok(s.always = v != 0));
    m.ready(ready);
}

fn ready(module: &Arc<Watching>, hooks: &mut Hooks, _: &Stats) {
    for moment in ALL {
        let module = module.clone();
        hooks.watch.on(moment, move |ctx, seen| module.at(ctx, moment, seen));
    }
    for what in [Told::Created, Told::Replied, Told::Ended] {
        hooks.watch.told(what, move |ctx, seen| note(ctx, &format!("{what:?}"), seen));
    }
    hooks.watch.tap(Wire::Sent, |_, passing| {
        if let Some(at) = passing.bytes.windows(9).position(|w| w == b"X-Secret:") {
            let mut bytes = passing.bytes.to_vec();
            bytes[at + 2..at + 8].copy_from_slice(b"Hidden");
            passing.bytes = bytes.into();
        }
    });
}

impl Watching {
    fn at(&self, ctx: &mut Ctx, moment: Moment, seen: &Seen) -> Outcome {
        let name = format!("{moment:?}");
        note(ctx, &name, seen);
        let mark = format!("X-{name}: {} {}\r\n", seen.branch.map_or(-1, i32::from), seen.status);
        if self.always {
            return waits(None, Some(1)).limit(5000, 1);
        }
        let Some((_, ms, rc)) = self.waits.iter().find(|(of, ..)| *of == name).cloned() else {
            ctx.state.edits.insert(Anchor::End, mark);
            return Outcome::Done(1);
        };
        let clock = crate::module::clock();
        Suspension::future("watch", async move {
            crate::module::pause(clock, ms).await;
            Box::new(move |ctx: &mut Ctx| {
                ctx.state.edits.insert(Anchor::End, mark);
                rc
            }) as Finish
        })
        .limit(5000, 1)
    }
}

fn note(ctx: &mut Ctx, name: &str, seen: &Seen) {
    let message = match ctx.state.msg.is_request() {
        true => String::from_utf8_lossy(&ctx.state.msg.method_text()).into_owned(),
        false => ctx.state.msg.status().to_string(),
    };
    let mut line = format!("{name} {message}");
    if let Some(branch) = seen.branch {
        line += &format!(" branch {branch}");
    }
    if seen.status > 0 {
        line += &format!(" {}", seen.status);
    }
    if let Some(times) = seen.txn.and_then(|id| ctx.ext_of(id)).map(|ext| ext.entry::<Times>()) {
        times.0 += 1;
        if name == "Ended" {
            line += &format!(" seen {}", times.0);
        }
    }
    SEEN.with_borrow_mut(|seen| seen.push(line));
}
