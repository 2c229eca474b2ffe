//! The moments at which reports are made: a reply goes upstream, all branches have failed.

use super::Acc;
use super::account::{self, Account, Backend, Marks, What};
use super::report::{Ending, Report, ReportKind};
use bytes::Bytes;
use host::Ctx;
use host::shared::Hooks;
use host::stats::Stats;
use host::watch::{Moment, Seen, Told};
use sip::{Message, Method};
use std::sync::Arc;
use transaction::{Origin, TxnId};

pub fn ready(module: &Arc<Acc>, hooks: &mut Hooks, _: &Stats) {
    hooks.raises([super::EVENT, super::MISSED_EVENT, super::CDR_EVENT]);
    hooks.watch.told(Told::Created, |ctx, seen| seen.txn.into_iter().for_each(|id| account::adopt(ctx, id)));
    let (of_failed, of_replied) = (module.clone(), module.clone());
    let of_bye = module.clone();
    hooks.watch.on(Moment::RequestEnd, move |ctx, _| super::cdr::script_ended(ctx, &of_bye)).after("dialog");
    hooks.watch.on(Moment::Failing, move |ctx, seen| failing(ctx, &of_failed, seen));
    hooks.watch.told(Told::Replied, move |ctx, seen| replied(ctx, &of_replied, seen));
}

/// What is to be reported of the transaction whose request is the current message.
fn marked(ctx: &mut Ctx, module: &Acc, id: TxnId) -> Option<(Option<account::Shared>, Marks)> {
    let msg = &ctx.state.msg;
    if !msg.is_request() || msg.method() == Method::Cancel && !module.report_cancels {
        return None;
    }
    let account = account::of(ctx, id);
    let marks = account.as_ref().map(|a| a.borrow().marks).unwrap_or_default();
    let marks = marks.with(module.flagged(ctx.state.flags));
    if marks == Marks::default() { None } else { Some((account, marks)) }
}

/// Calls that are missed are reported before the failure route, which may mark the next destination.
fn failing(ctx: &mut Ctx, module: &Acc, seen: &Seen) {
    let (Some(id), Some(branch)) = (seen.txn, seen.branch) else { return };
    let Some((account, marks)) = marked(ctx, module, id) else { return };
    if !marks.any(What::Missed) {
        return;
    }
    let reply = host::tm::branch_reply(ctx, id, branch);
    // Without one no branch answered.
    let made_here = || super::report::comment(&Bytes::from(seen.status.to_string()));
    let ending = reply.map_or_else(made_here, |reply| Ending::of_reply(&reply));
    missed(ctx, module, account, marks, ending);
}

fn replied(ctx: &mut Ctx, module: &Acc, seen: &Seen) {
    let (Some(id), status) = (seen.txn, seen.status) else { return };
    let Some((account, mut marks)) = marked(ctx, module, id) else { return };
    let Some(data) = ctx.txn(id).data() else { return };
    let local = seen.origin == Origin::Here;
    // A 503 goes upstream as 500: what was received is accounted.
    let translated = !local && status == 500 && data.seen_status == 503;
    let Ok(reply) = Message::parse(seen.bytes.clone()) else { return };
    let ending = || {
        let mut ending = Ending::of_reply(&reply);
        // Tags made here name no dialog.
        if local {
            ending.to_tag = None;
        }
        if translated {
            ending.code = Bytes::from_static(b"503");
        }
        ending
    };
    if ctx.state.msg.method() == Method::Invite && status >= 300 && marks.any(What::Missed) {
        marks = missed(ctx, module, account.clone(), marks, ending());
    }
    let early = module.early_media && !local && !reply.body().is_empty();
    if status >= 300 && !marks.any(What::Failed) || status < 200 && !early || !marks.any(What::Answered) {
        return;
    }
    let account: Option<Account> = account.map(|a| a.borrow().clone());
    let table = table(ctx, module, account.as_ref());
    let report = Report::new(ctx, module, account, ending());
    for backend in Backend::ALL {
        // An answered call gets a record at its end, and nothing for what happens in it.
        let later = marks.has(backend, What::Cdr) && ((200..300).contains(&status) || !begins_call(ctx));
        if marks.has(backend, What::Answered) && !later {
            report.deliver(ctx, module, backend, &ReportKind::Answered, &table);
        }
    }
}

/// The current request is of no call yet.
fn begins_call(ctx: &Ctx) -> bool {
    ctx.state.msg.to_tag().is_none()
}

/// The table of completed transactions: that of the script, of `db_table_avp`, or `db_table_acc`.
fn table(ctx: &mut Ctx, module: &Acc, account: Option<&Account>) -> String {
    let by_avp = module.table_avp.as_ref().and_then(|avp| avp.get(ctx).text());
    let named = account.and_then(|a| a.table.clone()).or(by_avp);
    named.map_or_else(|| module.table.clone(), |t| String::from_utf8_lossy(&t).into_owned())
}

/// Reports a missed call and unmarks it: only the first destination that fails is reported.
fn missed(
    ctx: &mut Ctx,
    module: &Acc,
    account: Option<account::Shared>,
    marks: Marks,
    ending: Ending,
) -> Marks {
    let mut done = Marks::default();
    let report = Report::new(ctx, module, account.as_ref().map(|a| a.borrow().clone()), ending);
    for backend in Backend::ALL {
        if marks.has(backend, What::Missed) {
            report.deliver(ctx, module, backend, &ReportKind::Missed, &module.missed_table);
            done = done.with(Marks::of(backend, What::Missed));
        }
    }
    if let Some(account) = account {
        let mut account = account.borrow_mut();
        account.marks = account.marks.without(done);
    }
    let bits = module.flags.iter().filter(|f| f.marks.without(done) == Marks::default());
    ctx.state.flags &= !bits.fold(0, |all, f| all | f.bit);
    marks.without(done)
}
