//! Changes of a dialog by scripts, and the context of another dialog (`load_dialog_ctx`).
//!
//! A dialog of another worker is looked at in a copy. What the script changes goes into the copy at once, and as
//! a job to the worker that owns the dialog.

use super::cell::{Data, Membership, Text, Val};
use super::link::{self, Current, Link, Loaded};
use super::routes::Moment;
use super::table::{self, Due, Key};
use super::{Did, Dlg, State};
use host::{Call, Checked, Ctx, Finish, Int, Named, Outcome, Suspension};
use script::{Diagnostic, Loc};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// A dialog of another worker, as it was when it was asked for and changed since by this script.
pub struct Copy {
    pub dialog: RefCell<Data>,
    worker: usize,
    did: Did,
}

impl std::fmt::Debug for Copy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Copy({})", self.did)
    }
}

/// What a script may change.
#[derive(Clone, Debug)]
pub enum Change {
    /// `None`: the value goes.
    Val(Text, Option<Val>),
    Flag(u8, bool),
    /// Seconds from now, or from the answer.
    Timeout(u32),
    Delay(u32),
    Options(u32),
    Reinvites(u32),
    Join(Membership),
    /// One membership, or all that fit.
    Leave(u16, Option<Text>, bool),
    Route(Moment, Option<Text>),
    Tag(Text),
}

/// Changes the current dialog; false when there is none.
pub fn change(ctx: &mut Ctx, module: &Arc<Dlg>, change: Change) -> bool {
    match link::current(ctx) {
        None => false,
        Some(Current::Here(key)) => {
            apply(ctx, module, key, change);
            true
        }
        Some(Current::Copy(copy)) => {
            data(&mut copy.dialog.borrow_mut(), &change, None);
            let (module, did) = (module.clone(), copy.did);
            let job = move |ctx: &mut Ctx| {
                if let Some(key) = table::of(ctx).by_did(did) {
                    apply(ctx, &module, key, change);
                }
            };
            let shared = ctx.shared().clone();
            shared.dispatch.get().is_some_and(|all| all.run_on(copy.worker, Box::new(job)))
        }
    }
}

/// Changes a dialog of this worker, with all that follows from it.
pub fn apply(ctx: &mut Ctx, module: &Dlg, key: Key, change: Change) {
    let now = ctx.core.now;
    let table = table::of(ctx);
    let Some(dialog) = table.get_mut(key) else { return };
    let before = dialog.memberships.clone();
    data(dialog, &change, Some(module));
    if matches!(change, Change::Join(_) | Change::Leave(..)) {
        let after = dialog.memberships.clone();
        tell_store(ctx, module, &before, &after);
    }
    let table = table::of(ctx);
    let Some(dialog) = table.get(key) else { return };
    let answered = dialog.state.is_answered();
    match change {
        Change::Timeout(seconds) if answered => {
            table::set_due(ctx, key, Due::End, Some(now.after(u64::from(seconds) * 1000)));
        }
        Change::Options(seconds) if answered => {
            table::set_due(ctx, key, Due::Options, Some(now.after(u64::from(seconds) * 1000)));
        }
        Change::Reinvites(seconds) if answered => {
            table::set_due(ctx, key, Due::Reinvite, Some(now.after(u64::from(seconds) * 1000)));
        }
        _ => {}
    }
    table::touch(ctx, key);
    super::api::changed(ctx, key);
}

/// What was joined and left goes to the store of shared profiles.
fn tell_store(ctx: &mut Ctx, module: &Dlg, before: &[Membership], after: &[Membership]) {
    let count = |list: &[Membership], one: &Membership| list.iter().filter(|m| *m == one).count();
    if after.len() > before.len() {
        after[before.len()..].iter().for_each(|m| super::shared::changed(ctx, module, m, 1));
        return;
    }
    let mut seen: Vec<&Membership> = Vec::new();
    for one in before {
        if !seen.contains(&one) {
            seen.push(one);
            for _ in count(after, one)..count(before, one) {
                super::shared::changed(ctx, module, one, -1);
            }
        }
    }
}

/// The part of a change that is data. Memberships count when there is a module to count them in.
fn data(dialog: &mut Data, change: &Change, module: Option<&Dlg>) {
    match change {
        Change::Val(name, value) => dialog.set_val(name, value.clone()),
        Change::Flag(bit, true) => dialog.user_flags |= 1 << bit,
        Change::Flag(bit, false) => dialog.user_flags &= !(1 << bit),
        Change::Timeout(seconds) => dialog.lifetime = *seconds,
        Change::Delay(seconds) => dialog.delay = Some(*seconds),
        Change::Options(seconds) => dialog.options.interval = *seconds,
        Change::Reinvites(seconds) => dialog.reinvites.interval = *seconds,
        Change::Tag(tag) => dialog.tag = Some(tag.clone()),
        Change::Route(Moment::Answer, name) => dialog.routes.answer = name.clone(),
        Change::Route(Moment::Timeout, name) => dialog.routes.timeout = name.clone(),
        Change::Route(Moment::Hangup, name) => dialog.routes.hangup = name.clone(),
        Change::Join(membership) => {
            if dialog.state != State::Ended {
                if let Some(module) = module {
                    module.profiles.count_in(membership);
                }
                dialog.memberships.reserve_exact(1);
                dialog.memberships.push(membership.clone());
            }
        }
        Change::Leave(profile, value, all) => {
            let fits = |m: &Membership| m.profile == *profile && value.as_ref().is_none_or(|v| *v == m.value);
            while let Some(at) = dialog.memberships.iter().position(fits) {
                let gone = dialog.memberships.remove(at);
                if let Some(module) = module {
                    module.profiles.count_out(&gone);
                }
                if !all {
                    break;
                }
            }
        }
    }
}

/// How a dialog is named to commands and functions.
#[derive(Clone, Debug)]
pub enum Name {
    CallId(Text),
    Did(Did),
}

impl Name {
    /// The dialog of this worker that is meant; one that lives before one that has ended.
    pub fn find(&self, ctx: &mut Ctx) -> Option<Key> {
        let table = table::of(ctx);
        match self {
            Name::Did(did) => table.by_did(*did),
            Name::CallId(call_id) => {
                let mut first = None;
                for key in table.by_call_id(call_id) {
                    if table.get(key).is_some_and(|d| d.state != State::Ended) {
                        return Some(key);
                    }
                    first = first.or(Some(key));
                }
                first
            }
        }
    }
}

/// Asks every worker, this one among them, and gives the answers that are `Some`, in the order of workers.
pub fn ask_all<T: Send + 'static>(
    ctx: &mut Ctx,
    question: impl Fn(&mut Ctx) -> Option<T> + Clone + Send + 'static,
) -> impl Future<Output = Vec<(usize, T)>> + 'static {
    let shared = ctx.shared().clone();
    let mut waiting = Vec::new();
    if let Some(all) = shared.dispatch.get() {
        for worker in 0..all.workers() {
            let (send, receive) = tokio::sync::oneshot::channel();
            let question = question.clone();
            let job = move |ctx: &mut Ctx| drop(send.send(question(ctx)));
            if all.run_on(worker, Box::new(job)) {
                waiting.push((worker, receive));
            }
        }
    }
    async move {
        let mut found = Vec::new();
        for (worker, receive) in waiting {
            if let Ok(Some(answer)) = receive.await {
                found.push((worker, answer));
            }
        }
        found
    }
}

const NO_KIND: &str = "the kind of identifier is callid or did";

/// How a dialog is named.
pub struct IdKind;

impl Named<Dlg> for IdKind {
    const WHAT: &'static str = "callid or did";

    fn check(text: &[u8], _: &mut host::Loader, _: &Dlg) -> Result<(), Diagnostic> {
        match text {
            b"" | b"callid" | b"did" => Ok(()),
            _ => Err(Diagnostic::error(Loc::default(), NO_KIND)),
        }
    }
}

/// Longest that another worker may take to answer.
pub const LIMIT_MS: u64 = 5_000;

/// load_dialog_ctx(dialog, [id type], [active only]): 1 its context is the current one, -1 there is no such
/// dialog, or a context is loaded already.
pub fn load(
    call: &mut Call<Dlg>,
    name: host::Text,
    kind: Option<Checked<IdKind>>,
    active: Option<Int>,
) -> Outcome {
    let ctx = &mut *call.ctx;
    if ctx.state.ext.find::<Link>().is_some_and(|link| link.loaded.is_some()) {
        host::error!("dialog", "load_dialog_ctx: a context is loaded already, unload it first");
        return (-1).into();
    }
    let name = match kind.as_deref().map(|k| &k[..]) {
        None | Some(b"callid") => Name::CallId(name.0[..].into()),
        Some(b"did") => match Did::parse(&name) {
            Some(did) => Name::Did(did),
            None => return (-1).into(),
        },
        Some(_) => {
            host::error!("dialog", "load_dialog_ctx: {NO_KIND}");
            return (-1).into();
        }
    };
    let active = active.is_some_and(|n| n.0 != 0);
    if let Some(key) = name.find(ctx) {
        let ended = table::of(ctx).get(key).is_none_or(|d| d.state == State::Ended);
        if active && ended {
            return (-1).into();
        }
        ctx.state.ext.entry::<Link>().loaded = Some(Loaded::Here(key));
        return 1.into();
    }
    if ctx.core.workers <= 1 {
        return (-1).into();
    }
    let question = move |ctx: &mut Ctx| {
        let key = name.find(ctx)?;
        let dialog = table::of(ctx).get(key)?;
        if active && dialog.state == State::Ended { None } else { Some(dialog.data.clone()) }
    };
    let answers = ask_all(ctx, question);
    Suspension::future("load_dialog_ctx", async move {
        let found = answers.await.into_iter().next();
        Box::new(move |ctx: &mut Ctx| {
            let Some((worker, dialog)) = found else { return -1 };
            let did = dialog.did;
            let dialog = RefCell::new(dialog);
            let copy = Rc::new(Copy { dialog, worker, did });
            ctx.state.ext.entry::<Link>().loaded = Some(Loaded::Copy(copy));
            1
        }) as Finish
    })
    .limit(LIMIT_MS, -1)
}

/// unload_dialog_ctx(): 1, or -1 when none was loaded.
pub fn unload(call: &mut Call<Dlg>) -> i32 {
    let link = call.ctx.state.ext.entry::<Link>();
    if link.loaded.take().is_some() { 1 } else { -1 }
}
