//! The course of a call: its descriptions go through the engine on their way, and the session ends with it.

use super::RtpRelay;
use super::context::{ALL, Common, Context, Handle, Side};
use super::engines::{self, Kind, Made, Order};
use crate::bodies;
use bytes::Bytes;
use host::shared::Hooks;
use host::watch::{Moment, Seen, Told};
use host::{Call, Ctx, Finish, Outcome, Suspension};
use modules::dialog::api::{self as dialog, Event};
use modules::dialog::{CALLER, Key, Val};
use sip::Method;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// The value of the dialog that the context is kept in.
const STORED: &[u8] = b"_rtp_relay_ctx_";

type Shared = Rc<RefCell<Context>>;

/// The context of the call of the current message.
pub fn context(ctx: &mut Ctx) -> Option<Shared> {
    if let Some(own) = ctx.state.ext.find::<Handle>().and_then(|handle| handle.0.clone()) {
        return Some(own);
    }
    let of_txn = ctx.state.txn.and_then(|id| ctx.ext_of(id)?.find::<Handle>()?.0.clone());
    of_txn.or_else(|| {
        let (key, _) = dialog::current(ctx)?;
        of_dialog(ctx, key)
    })
}

fn of_dialog(ctx: &mut Ctx, key: Key) -> Option<Shared> {
    dialog::get(ctx, key)?.ext.find::<Handle>()?.0.clone()
}

pub fn context_or_new(ctx: &mut Ctx) -> Shared {
    if let Some(context) = context(ctx) {
        return context;
    }
    let context = Shared::default();
    ctx.state.ext.set(Handle(Some(context.clone())));
    keep(ctx);
    context
}

/// What the current message knows goes to its transaction.
fn keep(ctx: &mut Ctx) {
    let Some(handle) = ctx.state.ext.find::<Handle>().cloned() else { return };
    if let Some(id) = ctx.state.txn
        && let Some(ext) = ctx.ext_of(id)
    {
        ext.set(handle);
    }
}

/// Keeps an established context with its dialog as it is now.
pub fn store(ctx: &mut Ctx) {
    if let Some((key, _)) = dialog::current(ctx) {
        store_with(ctx, key);
    }
}

pub fn store_with(ctx: &mut Ctx, key: Key) {
    let Some(context) = of_dialog(ctx, key) else { return };
    let text = context.borrow().stored();
    dialog::set_val(ctx, key, STORED, text.map(|text| Val::Str(text.into_bytes().into())));
}

/// Joins the call: what follows goes through the engine. -1: it cannot.
pub fn engage(ctx: &mut Ctx, engine: &'static str, set: Option<i64>) -> i32 {
    use script::ast::RouteKind;
    let msg = ctx.state.msg.clone();
    if msg.method() != Method::Invite || msg.to_tag().is_some_and(|tag| !tag.is_empty()) {
        host::error!("rtp_relay", "rtp_relay_engage: only an INVITE that begins a call");
        return -2;
    }
    let index = match ctx.state.kind {
        RouteKind::Request => ALL,
        RouteKind::Branch => ctx.state.txn_branch.map_or(ALL, i32::from),
        _ => {
            host::error!("rtp_relay", "rtp_relay_engage: only in the main route and in branch routes");
            return -1;
        }
    };
    let Some(tag) = msg.from_tag().filter(|tag| !tag.is_empty()) else { return -1 };
    let late = !bodies::has_sdp(&ctx.state);
    let context = context_or_new(ctx);
    let mut context = context.borrow_mut();
    if context.call_id.is_empty() {
        context.call_id = msg.call_id().unwrap_or_default();
        context.from_tag = tag.clone();
    }
    let session = context.session(index);
    if index != ALL && session.engine.is_none() {
        // What a branch route said of itself before goes with the offer.
        session.legs.swap(0, 1);
    }
    (session.engine, session.set, session.late) = (Some(engine), set, late);
    (session.node, session.pending) = (None, false);
    session.legs[0].tag = Some(tag);
    1
}

pub fn hooks(module: &Arc<RtpRelay>, hooks: &mut Hooks) {
    hooks.watch.told(Told::Created, |ctx, _| keep(ctx));
    let of_branch = module.clone();
    let watch = &mut hooks.watch;
    watch.on(Moment::RequestOut, move |ctx, seen| request(&of_branch, ctx, seen)).before("dialog");
    let of_ack = module.clone();
    watch.on(Moment::ForwardOut, move |ctx, seen| request(&of_ack, ctx, seen)).before("dialog");
    let of_reply = module.clone();
    watch.on(Moment::ReplyOut, move |ctx, seen| reply(&of_reply, ctx, seen)).before("dialog");
}

/// Sessions end with their dialogs, and come back with them.
pub fn start(call: &mut Call<RtpRelay>) {
    if dialog::module(call.ctx).is_none() {
        return;
    }
    let module = call.module.clone();
    dialog::listen(
        call.ctx,
        Rc::new(move |ctx, told| match told.event {
            Event::Terminated | Event::Failed | Event::Expired => over(&module, ctx, told.key),
            Event::Loaded => loaded(ctx, told.key),
            _ => {}
        }),
    );
}

fn loaded(ctx: &mut Ctx, key: Key) {
    let Some(Val::Str(text)) = dialog::val(ctx, key, STORED) else { return };
    match Context::restored(&text) {
        Some(context) => {
            let handle = Handle(Some(Rc::new(RefCell::new(context))));
            if let Some(dialog) = dialog::get(ctx, key) {
                dialog.ext.set(handle);
            }
        }
        None => host::warn!("rtp_relay", "what was kept of a call's media cannot be read"),
    }
}

fn over(module: &Arc<RtpRelay>, ctx: &mut Ctx, key: Key) {
    let Some(context) = of_dialog(ctx, key) else { return };
    let at = {
        let mut context = context.borrow_mut();
        let Some(at) = context.established.take() else { return };
        if !std::mem::take(&mut context.sessions[at].pending) {
            return;
        }
        at
    };
    end(module, ctx, &context, at);
}

/// Ends a session at its engine; nobody waits for that.
pub fn end(module: &Arc<RtpRelay>, ctx: &mut Ctx, context: &Shared, at: usize) {
    end_of(module, ctx, context, at, |order| order);
}

fn end_of(
    module: &Arc<RtpRelay>,
    ctx: &mut Ctx,
    context: &Shared,
    at: usize,
    change: impl FnOnce(Order) -> Order,
) {
    let order = Order::delete(&context.borrow(), at, Side::Caller).map(change);
    let Some(order) = order else { return };
    let limit = engines::limit(ctx, order.engine);
    let Some(asked) = engines::ask(ctx, module, order) else { return };
    ctx.spawn("rtp_relay delete", limit, async move {
        asked.await;
        Box::new(|_: &mut Ctx| 1) as Finish
    });
}

/// A request leaves.
fn request(module: &Arc<RtpRelay>, ctx: &mut Ctx, seen: &Seen) -> Outcome {
    let msg = ctx.state.msg.clone();
    let method = msg.method();
    if !matches!(method, Method::Invite | Method::Update | Method::Ack) {
        return 1.into();
    }
    if msg.to_tag().is_some_and(|tag| !tag.is_empty()) {
        return within(module, ctx, method);
    }
    let Some(context) = context(ctx).filter(|_| method == Method::Invite) else { return 1.into() };
    let branch = seen.branch.map_or(ALL, i32::from);
    let at = {
        let context = context.borrow();
        let at = context.engaged(branch);
        let wanted = |at: &usize| !context.sessions[*at].late && context.established.is_none();
        at.filter(wanted)
    };
    let Some(at) = at else { return 1.into() };
    {
        // What a script says of the callee of one branch holds for all, where it says nothing else.
        let mut context = context.borrow_mut();
        let legs = context.legs(at, branch);
        context.sessions[at].legs = legs;
    }
    describe(module, ctx, &context, at, branch, Kind::Offer, Side::Caller)
}

/// A request inside the dialog leaves.
fn within(module: &Arc<RtpRelay>, ctx: &mut Ctx, method: Method) -> Outcome {
    let Some((key, towards)) = dialog::current(ctx) else { return 1.into() };
    let Some(context) = of_dialog(ctx, key) else { return 1.into() };
    let side = if towards == CALLER { Side::Callee } else { Side::Caller };
    let has_sdp = bodies::has_sdp(&ctx.state);
    let (at, kind) = {
        let mut context = context.borrow_mut();
        let Some(at) = context.established else { return 1.into() };
        let session = &mut context.sessions[at];
        if !session.pending {
            return 1.into();
        }
        match (method, has_sdp) {
            (Method::Invite, _) => session.late = !has_sdp,
            (Method::Ack, false) if session.late => {
                host::warn!("rtp_relay", "an ACK without the answer to a late offer");
            }
            _ => {}
        }
        let kind = match (method, has_sdp) {
            (_, false) => return 1.into(),
            (Method::Ack, true) if session.late => Kind::Answer,
            (Method::Ack, true) => return 1.into(),
            (_, true) => Kind::Offer,
        };
        (at, kind)
    };
    describe(module, ctx, &context, at, ALL, kind, side)
}

/// A reply leaves upstream.
fn reply(module: &Arc<RtpRelay>, ctx: &mut Ctx, seen: &Seen) -> Outcome {
    let msg = ctx.state.msg.clone();
    let method = msg.cseq().map_or(msg.method(), |cseq| cseq.method);
    if !matches!(method, Method::Invite | Method::Update) {
        return 1.into();
    }
    let Some(context) = context(ctx) else { return 1.into() };
    let has_sdp = bodies::has_sdp(&ctx.state);
    let is_first = seen.txn.is_some_and(|id| {
        ctx.ext_of(id).is_some_and(|ext| ext.find::<Handle>().is_some_and(|handle| handle.0.is_some()))
    });
    if !is_first {
        let wanted = {
            let context = context.borrow();
            let session = context.established.map(|at| (at, &context.sessions[at]));
            let wanted = session.filter(|(_, session)| session.pending && has_sdp && seen.status < 300);
            // The reply is from whom the request was for.
            let side = context.side_of(&msg.from_tag().unwrap_or_default()).other();
            wanted.map(|(at, session)| (at, session.late, side))
        };
        let Some((at, late, side)) = wanted else { return 1.into() };
        let kind = if late { Kind::Offer } else { Kind::Answer };
        return describe(module, ctx, &context, at, ALL, kind, side);
    }
    initial(module, ctx, &context, seen, has_sdp)
}

/// A reply to the INVITE that the call begins with.
fn initial(module: &Arc<RtpRelay>, ctx: &mut Ctx, context: &Shared, seen: &Seen, has_sdp: bool) -> Outcome {
    let branch = seen.branch.map_or(ALL, i32::from);
    if seen.status >= 300 {
        given_up(module, ctx, context, None);
        return 1.into();
    }
    let tag = ctx.state.msg.to_tag().unwrap_or_default();
    let (at, late) = {
        let mut context = context.borrow_mut();
        let Some(at) = context.engaged(branch) else { return 1.into() };
        let session = &mut context.sessions[at];
        if session.is_disabled() || !session.late && !session.pending {
            return 1.into();
        }
        let late = session.late;
        if !tag.is_empty() {
            session.legs[1].tag = Some(tag.clone());
            // The callee's own tag takes the place of one that a script said.
            context.common[Common::ToTag as usize] = None;
        }
        (at, late)
    };
    if !has_sdp {
        if (200..300).contains(&seen.status) && !late {
            established(module, ctx, context, at, branch, &tag);
        }
        return 1.into();
    }
    let kind = if late { Kind::Offer } else { Kind::Answer };
    let (own, context_of_end) = (module.clone(), context.clone());
    let final_reply = seen.status >= 200;
    describe_then(module, ctx, context, at, branch, (kind, Side::Callee), move |ctx, done| {
        if done {
            established(&own, ctx, &context_of_end, at, branch, &tag);
        } else if final_reply {
            // The caller hears what the callee said: there is nothing to end later.
            context_of_end.borrow_mut().sessions[at].pending = false;
        }
    })
}

/// Sessions of the INVITE that are not needed (any more) end.
fn given_up(module: &Arc<RtpRelay>, ctx: &mut Ctx, context: &Shared, kept: Option<usize>) {
    let open: Vec<usize> = {
        let mut context = context.borrow_mut();
        if kept.is_none() && context.established.take().is_some_and(|at| !context.sessions[at].pending) {
            return;
        }
        let open = |(at, session): (usize, &super::context::Session)| {
            (session.pending && Some(at) != kept).then_some(at)
        };
        let open: Vec<usize> = context.sessions.iter().enumerate().filter_map(open).collect();
        open.iter().for_each(|at| context.sessions[*at].pending = false);
        open
    };
    // A reply that ends the INVITE says who refused it.
    let msg = ctx.state.msg.clone();
    let (ip, tag) = (ctx.state.source.remote.ip(), msg.to_tag().filter(|tag| !tag.is_empty()));
    let refused = kept.is_none() && msg.status() >= 300;
    for at in open {
        end_of(module, ctx, context, at, |order| match &tag {
            Some(tag) if refused => order.refused(ip, tag.clone()),
            _ => order,
        });
    }
}

/// The call has this session.
fn established(module: &Arc<RtpRelay>, ctx: &mut Ctx, context: &Shared, at: usize, branch: i32, tag: &Bytes) {
    {
        let mut context = context.borrow_mut();
        let legs = context.legs(at, branch);
        context.sessions[at].legs = legs;
        context.established = Some(at);
        context.to_tag = tag.clone();
    }
    let is_final = (200..300).contains(&ctx.state.msg.status());
    if is_final {
        given_up(module, ctx, context, Some(at));
    }
    let Some((key, _)) = dialog::current(ctx) else { return };
    if let Some(dialog) = dialog::get(ctx, key) {
        dialog.ext.set(Handle(Some(context.clone())));
    }
    store_with(ctx, key);
}

fn describe(
    module: &Arc<RtpRelay>,
    ctx: &mut Ctx,
    context: &Shared,
    at: usize,
    branch: i32,
    kind: Kind,
    side: Side,
) -> Outcome {
    describe_then(module, ctx, context, at, branch, (kind, side), |_, _| ())
}

/// Sends the description of the current message to the engine and puts what it says in its place.
fn describe_then(
    module: &Arc<RtpRelay>,
    ctx: &mut Ctx,
    context: &Shared,
    at: usize,
    branch: i32,
    (kind, side): (Kind, Side),
    then: impl FnOnce(&mut Ctx, bool) + 'static,
) -> Outcome {
    let order = {
        let context = context.borrow();
        let legs = context.legs(at, branch);
        let disabled = context.sessions[at].is_disabled();
        Order::new(kind, &context, at, &legs, side).filter(|_| !disabled)
    };
    let (Some(order), Some(given)) = (order, bodies::sdp(&ctx.state)) else { return 1.into() };
    let body = order.body.clone().or(Some(given.clone()));
    let order = Order { body, ..order };
    let limit = engines::limit(ctx, order.engine);
    let Some(asked) = engines::ask(ctx, module, order) else {
        then(ctx, false);
        return 1.into();
    };
    let context = context.clone();
    Suspension::future("rtp_relay", async move {
        let made = asked.await;
        Box::new(move |ctx: &mut Ctx| {
            let done = made.is_some();
            if let Some(made) = made {
                accepted(ctx, &context, (at, side), kind, given, made);
            } else {
                host::error!("rtp_relay", "no engine took the description");
            }
            then(ctx, done);
            1
        }) as Finish
    })
    .limit(limit, 1)
}

fn accepted(
    ctx: &mut Ctx,
    context: &Shared,
    (at, side): (usize, Side),
    kind: Kind,
    given: Bytes,
    made: Made,
) {
    {
        let mut context = context.borrow_mut();
        let session = &mut context.sessions[at];
        session.legs[side as usize].said = Some(Bytes::copy_from_slice(&given));
        if made.node.is_some() {
            session.node = made.node;
        }
        session.set = made.set.or(session.set);
        if kind == Kind::Offer {
            session.pending = true;
        }
    }
    if let Some(body) = made.body {
        bodies::replace_sdp(&mut ctx.state, given, body);
    }
}
