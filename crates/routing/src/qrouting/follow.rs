//! What becomes of the calls that are routed by quality: how soon they ring and are answered, how they end.
//!
//! ```text
//!  do_routing, use_next_gw ──► INVITE to a gateway ──► 180, 183: PDD ──► 200: AST, ASR, CCR ──► BYE: ACD
//!                                     └─► a failure: ASR, and CCR unless it is one of 5xx, 6xx, or nobody answered
//! ```

use super::measure::{Measured, Quality};
use host::Ctx;
use host::shared::Hooks;
use host::watch::{Moment, Seen, Told};
use modules::dialog::api::{self, Event};
use modules::dialog::{Flags, Key};
use sip::Method;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use transaction::TxnId;

/// The gateways of one routing, in the order in which they are tried.
#[derive(Default)]
pub struct Plan(pub VecDeque<Arc<Measured>>);

/// A call on its way.
struct Followed {
    plan: Plan,
    dialog: Option<Key>,
    /// When the INVITE to the gateway in use was made; microseconds since 1970.
    sent_us: u64,
    rang: bool,
}

/// Kept with the message and its transaction.
#[derive(Clone, Default)]
struct Link(Option<Rc<RefCell<Followed>>>);

/// Kept with the dialog of an answered call.
#[derive(Clone, Default)]
struct Talk(Option<(Arc<Measured>, u64)>);

pub fn ready(hooks: &mut Hooks) {
    hooks.watch.told(Told::Created, |ctx, seen| {
        if let (Some(id), Some(link)) = (seen.txn, ctx.state.ext.find::<Link>().cloned()) {
            keep(ctx, id, link);
        }
    });
    hooks.watch.on(Moment::ReplyIn, |ctx, seen| replied(ctx, seen, false));
    hooks.watch.on(Moment::Failing, |ctx, seen| replied(ctx, seen, true));
}

/// On each worker: hears of calls that end.
pub fn start(ctx: &mut Ctx) {
    api::listen(
        ctx,
        Rc::new(|ctx: &mut Ctx, told: &api::Told| {
            if told.event != Event::Terminated {
                return;
            }
            let now_us = ctx.core.wall_us;
            let talk = api::get(ctx, told.key).and_then(|dialog| dialog.ext.find::<Talk>()?.0.clone());
            if let Some((gateway, answered_us)) = talk {
                let seconds = now_us / 1_000_000 - answered_us.min(now_us) / 1_000_000;
                gateway.add(Quality::Acd, seconds as f64);
            }
        }),
    );
}

fn keep(ctx: &mut Ctx, id: TxnId, link: Link) {
    if let Some(ext) = ctx.ext_of(id) {
        ext.set(link);
    }
}

/// A routing has chosen gateways; the first is in use. Other requests than INVITE are not measured.
pub fn begin(ctx: &mut Ctx, plan: Plan) {
    if plan.0.is_empty() || ctx.state.msg.method() != Method::Invite {
        return;
    }
    // Its end is the end of the call. A request within a dialog has one.
    let dialog = api::current(ctx).map(|(key, _)| key).or_else(|| api::create(ctx, Flags::default()));
    let sent_us = ctx.core.wall_us;
    let followed = Followed { plan, dialog, sent_us, rang: false };
    let link = Link(Some(Rc::new(RefCell::new(followed))));
    if let Some(id) = ctx.state.txn {
        keep(ctx, id, link.clone());
    }
    ctx.state.ext.set(link);
}

/// The next gateway of the same routing takes its turn.
pub fn next(ctx: &mut Ctx) {
    let now_us = ctx.core.wall_us;
    let of_txn = ctx.state.txn.and_then(|id| of(ctx, id));
    let Some(followed) = of_txn.or_else(|| ctx.state.ext.find::<Link>()?.0.clone()) else { return };
    let mut followed = followed.borrow_mut();
    if followed.plan.0.len() > 1 {
        followed.plan.0.pop_front();
    }
    followed.sent_us = now_us;
}

fn of(ctx: &mut Ctx, id: TxnId) -> Option<Rc<RefCell<Followed>>> {
    ctx.ext_of(id)?.find::<Link>()?.0.clone()
}

/// A reply came, or `failing`: all branches have failed.
fn replied(ctx: &mut Ctx, seen: &Seen, failing: bool) {
    let Some(id) = seen.txn else { return };
    let Some(followed) = of(ctx, id) else { return };
    let now_us = ctx.core.wall_us;
    let mut followed = followed.borrow_mut();
    let Some(gateway) = followed.plan.0.front().cloned() else { return };
    let ms = (now_us.saturating_sub(followed.sent_us) / 1000) as f64;
    let silent =
        failing && seen.branch.is_none_or(|branch| host::tm::branch_reply(ctx, id, branch).is_none());
    match seen.status {
        180 | 183 if !followed.rang => {
            followed.rang = true;
            gateway.add(Quality::Pdd, ms);
        }
        ..200 => {}
        200 => {
            if !followed.rang {
                followed.rang = true;
                // As the reference counts a call that is answered without ringing.
                gateway.add(Quality::Pdd, 0.0);
            }
            gateway.add(Quality::Ast, ms);
            gateway.ended(true, true);
            if let Some(dialog) = followed.dialog.and_then(|key| api::get(ctx, key)) {
                dialog.ext.set(Talk(Some((gateway, now_us))));
            }
        }
        // Not the gateway's own word.
        408 if silent => gateway.ended(false, false),
        status => gateway.ended(false, status < 500),
    }
}
