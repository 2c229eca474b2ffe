//! Commands: what is relayed, and moving calls to other engines with re-INVITEs.

use super::context::{Context, FIELDS, Handle, Side};
use super::engines::{self, Asked, Kind, Order};
use super::{RtpRelay, follow};
use bytes::Bytes;
use host::mi::{MiAnswer, MiError, MiParams};
use host::tm::Answer;
use host::{Call, Ctx, Finish, Registrar};
use modules::dialog::api::{self as dialog, Inside};
use modules::dialog::{CALLER, Key, State};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use sip::Uri;
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

/// Longest that other workers may take to answer.
const LIMIT_MS: u64 = 5_000;

pub fn register(m: &mut Registrar<RtpRelay>) {
    m.command_late("rtp_relay:list rtp_relay_list", "calls whose media is relayed", list)
        .takes("[engine] [set] [node]");
    m.command_late("rtp_relay:update rtp_relay_update", "moves calls to another engine", update)
        .takes("[engine] [set] [node] [new_set] [new_node]");
    m.command_late("rtp_relay:update_callid rtp_relay_update_callid", "moves one call", update_one)
        .takes("callid [engine] [set] [node] [flags]");
}

/// Which calls are meant.
#[derive(Clone, Default)]
struct Filter {
    call_id: Option<String>,
    engine: Option<&'static str>,
    set: Option<i64>,
    node: Option<String>,
}

impl Filter {
    fn of(ctx: &Ctx, params: &MiParams) -> Result<Filter, MiError> {
        let engine = engine(ctx, params, 0)?;
        if engine.is_none() && (params.text("set", 1).is_some() || params.text("node", 2).is_some()) {
            return Err(MiError::params("Named parameters do not match"));
        }
        Ok(Filter { call_id: None, engine, set: params.int("set", 1)?, node: params.text("node", 2) })
    }

    fn takes(&self, context: &Context) -> bool {
        let Some(session) = context.current() else { return false };
        let call_id = |id: &String| context.call_id == id.as_bytes();
        self.call_id.as_ref().is_none_or(call_id)
            && self.engine.is_none_or(|engine| session.engine == Some(engine))
            && self.set.is_none_or(|set| session.set.unwrap_or(0) == set)
            && self.node.as_ref().is_none_or(|node| session.node.as_deref() == Some(node.as_bytes()))
    }

    /// Calls of this worker.
    fn find(&self, ctx: &mut Ctx) -> Vec<(Key, Rc<RefCell<Context>>)> {
        let mut found = Vec::new();
        for key in dialog::keys(ctx) {
            let Some(dialog) = dialog::get(ctx, key).filter(|d| d.state != State::Ended) else { continue };
            let handle = dialog.ext.find::<Handle>().and_then(|handle| handle.0.clone());
            found
                .extend(handle.filter(|context| self.takes(&context.borrow())).map(|context| (key, context)));
        }
        found
    }
}

fn engine(ctx: &Ctx, params: &MiParams, at: usize) -> Result<Option<&'static str>, MiError> {
    let Some(name) = params.text("engine", at) else { return Ok(None) };
    let engine = engines::known(&name).filter(|engine| engines::is_there(ctx, engine));
    engine.map(Some).ok_or_else(|| MiError::new(404, "unknown RTP  Relay engine"))
}

fn list(call: &mut Call<RtpRelay>, params: &MiParams, answer: MiAnswer) {
    let filter = match Filter::of(call.ctx, params) {
        Ok(filter) => filter,
        Err(error) => return answer.give(Err(error)),
    };
    let found = dialog::ask_all(call.ctx, move |ctx| {
        let calls = filter.find(ctx);
        Some(calls.iter().filter_map(|(_, context)| context.borrow().shown()).collect::<Vec<Json>>())
    });
    call.ctx.spawn("rtp_relay:list", LIMIT_MS, async move {
        let all = found.await.into_iter().flat_map(|(_, calls)| calls).collect();
        answer.give(Ok(Json::Array(all)));
        Box::new(|_: &mut Ctx| 1) as Finish
    });
}

/// Where calls go, and how.
#[derive(Clone, Default)]
struct Change {
    engine: Option<&'static str>,
    set: Option<i64>,
    node: Option<String>,
    flags: Option<Json>,
}

/// Calls that are on their way, and who waits for them.
struct Tally {
    /// Workers and calls that have not said how it went.
    open: usize,
    found: usize,
    done: usize,
    answer: Option<MiAnswer>,
    /// No call: an error.
    must_be: bool,
}

impl Tally {
    fn settle(tally: &Mutex<Tally>, with: impl FnOnce(&mut Tally)) {
        let mut now = tally.lock();
        with(&mut now);
        now.open -= 1;
        if now.open > 0 {
            return;
        }
        let Some(answer) = now.answer.take() else { return };
        let (found, done, must_be) = (now.found, now.done, now.must_be);
        drop(now);
        answer.give(match (found, done) {
            (0, _) if must_be => Err(MiError::new(404, "RTP Relay session not found")),
            (0, _) => Ok(json!("OK")),
            (_, 0) => Err(MiError::new(400, "RTP Relay not available")),
            (_, done) => Ok(json!(format!("Sessions: {done}"))),
        });
    }
}

fn update(call: &mut Call<RtpRelay>, params: &MiParams, answer: MiAnswer) {
    let read = || {
        let filter = Filter::of(call.ctx, params)?;
        let (set, node) = (params.int_in("new_set", 3, 0..=i32::MAX.into())?, params.text("new_node", 4));
        Ok((filter, Change { set, node, ..Change::default() }))
    };
    match read() {
        Ok((filter, change)) => move_all(call, filter, change, answer),
        Err(error) => answer.give(Err(error)),
    }
}

fn update_one(call: &mut Call<RtpRelay>, params: &MiParams, answer: MiAnswer) {
    let read = || {
        let call_id = Some(params.need("callid", 0)?);
        let flags = match params.text("flags", 4) {
            Some(text) => match serde_json::from_str(&text) {
                Ok(flags @ Json::Object(_)) => Some(flags),
                _ => return Err(MiError::new(400, "Invalid flags JSON")),
            },
            None => None,
        };
        let (set, node) = (params.int_in("set", 2, 0..=i32::MAX.into())?, params.text("node", 3));
        let change = Change { engine: engine(call.ctx, params, 1)?, set, node, flags };
        Ok((Filter { call_id, ..Filter::default() }, change))
    };
    match read() {
        Ok((filter, change)) => move_all(call, filter, change, answer),
        Err(error) => answer.give(Err(error)),
    }
}

fn move_all(call: &mut Call<RtpRelay>, filter: Filter, change: Change, answer: MiAnswer) {
    let must_be = filter.call_id.is_some();
    let workers = usize::from(call.ctx.core.workers);
    let tally =
        Arc::new(Mutex::new(Tally { open: workers, found: 0, done: 0, answer: Some(answer), must_be }));
    for worker in 0..workers {
        let (filter, change, of_worker) = (filter.clone(), change.clone(), tally.clone());
        let module = call.module.clone();
        let job = move |ctx: &mut Ctx| {
            let calls = filter.find(ctx);
            of_worker.lock().open += calls.len();
            let found = calls.len();
            for (key, context) in calls {
                let tally = of_worker.clone();
                let done = move |_: &mut Ctx, done: bool| {
                    Tally::settle(&tally, |tally| tally.done += usize::from(done));
                };
                Move::begin(ctx, &module, key, context, &change, Box::new(done));
            }
            Tally::settle(&of_worker, |tally| tally.found += found);
        };
        if !call.ctx.on_worker(worker, job) {
            Tally::settle(&tally, |_| ());
        }
    }
}

type Done = Box<dyn FnOnce(&mut Ctx, bool)>;

/// One call on its way to another engine.
struct Move {
    module: Arc<RtpRelay>,
    key: Key,
    context: Rc<RefCell<Context>>,
    /// As it will be.
    next: Context,
    at: usize,
    call_id: Bytes,
    tags: [Bytes; 2],
    /// Where the parties say that they are.
    places: [Option<IpAddr>; 2],
    done: Done,
}

impl Move {
    fn begin(
        ctx: &mut Ctx,
        module: &Arc<RtpRelay>,
        key: Key,
        context: Rc<RefCell<Context>>,
        change: &Change,
        done: Done,
    ) {
        let next = context.borrow().clone();
        let Some(at) = next.established else { return done(ctx, false) };
        let Some(dialog) = dialog::get(ctx, key).filter(|d| d.state.is_answered()) else {
            return done(ctx, false);
        };
        let (caller, callee) = (&dialog.caller, dialog.callee());
        let said = next.sessions[at].leg(Side::Callee).said.clone();
        let (Some(callee), Some(said)) = (callee, said) else { return done(ctx, false) };
        let bytes = |text: &[u8]| Bytes::copy_from_slice(text);
        let mut this = Move {
            module: module.clone(),
            key,
            context,
            next,
            at,
            call_id: bytes(&dialog.call_id),
            tags: [bytes(&caller.tag), bytes(&callee.tag)],
            places: [place(&caller.contact), place(&callee.contact)],
            done,
        };
        this.change(change);
        this.describe(ctx, Kind::Offer, Side::Callee, said, Move::offer_made);
    }

    fn change(&mut self, change: &Change) {
        let session = &mut self.next.sessions[self.at];
        session.engine = change.engine.or(session.engine);
        session.set = match (change.set, change.engine) {
            (Some(set), _) => Some(set),
            // A set of another engine is another one.
            (None, Some(engine)) if self.context.borrow().sessions[self.at].engine != Some(engine) => None,
            _ => session.set,
        };
        session.node = change.node.clone().map(Bytes::from);
        session.late = false;
        for (name, leg) in ["caller", "callee"].into_iter().zip(&mut session.legs) {
            let Some(Json::Object(said)) = change.flags.as_ref().and_then(|flags| flags.get(name)) else {
                continue;
            };
            for (key, value) in said {
                let known = FIELDS.iter().find(|(name, shown, _)| name == key || shown == key);
                let text = match value {
                    Json::String(text) => text.clone(),
                    other => other.to_string(),
                };
                if let Some((.., field)) = known {
                    leg.set(*field, Some(text.into()));
                }
            }
        }
    }

    /// Sends a description of a party to the engine.
    fn describe(self, ctx: &mut Ctx, kind: Kind, side: Side, body: Bytes, then: fn(Move, &mut Ctx, Bytes)) {
        let legs = self.next.sessions[self.at].legs.clone();
        let order = Order::new(kind, &self.next, self.at, &legs, side);
        let Some(order) = order else { return (self.done)(ctx, false) };
        let [caller, callee] = self.tags.clone();
        let order = Order {
            body: order.body.clone().or(Some(body)),
            call_id: order.call_id.clone().or(Some(self.call_id.clone())),
            // The callee offers, both times.
            from_tag: order.from_tag.clone().or(Some(callee)),
            to_tag: order.to_tag.clone().or(Some(caller)),
            source: self.places[side as usize],
            detached: true,
            ..order
        };
        let limit = engines::limit(ctx, order.engine);
        let asked: Option<Asked> = engines::ask(ctx, &self.module, order);
        let Some(asked) = asked else { return (self.done)(ctx, false) };
        ctx.spawn("rtp_relay:update", limit, async move {
            let made = asked.await;
            Box::new(move |ctx: &mut Ctx| {
                let mut this = self;
                let Some((made, body)) =
                    made.and_then(|made| Some((made.body.clone()?, made))).map(|(b, m)| (m, b))
                else {
                    (this.done)(ctx, false);
                    return 1;
                };
                let session = &mut this.next.sessions[this.at];
                session.node = made.node.or(session.node.take());
                session.set = made.set.or(session.set);
                then(this, ctx, body);
                1
            }) as Finish
        });
    }

    /// The engine has the callee's description: the caller gets it.
    fn offer_made(self, ctx: &mut Ctx, body: Bytes) {
        self.invite(ctx, CALLER, &body, |this, ctx, answer| {
            let said = answer.reply.as_deref().and_then(dialog::description);
            match said {
                Some(said) => {
                    let mut this = this;
                    this.next.sessions[this.at].legs[0].said = Some(Bytes::copy_from_slice(&said));
                    this.describe(ctx, Kind::Answer, Side::Caller, said.into_vec().into(), Move::answer_made);
                }
                None => (this.done)(ctx, false),
            }
        });
    }

    /// The engine has both: the callee learns where its media goes now.
    fn answer_made(self, ctx: &mut Ctx, body: Bytes) {
        let callee = dialog::get(ctx, self.key).map_or(1, |dialog| dialog.callee_no());
        self.invite(ctx, callee, &body, |this, ctx, _| this.moved(ctx));
    }

    fn invite(
        self,
        ctx: &mut Ctx,
        towards: u8,
        body: &[u8],
        then: impl FnOnce(Move, &mut Ctx, &Answer) + 'static,
    ) {
        let key = self.key;
        let request = Inside { contact: true, ..Inside::new("INVITE", towards).with_sdp(body) };
        let this = Rc::new(RefCell::new(Some(self)));
        let waiting = this.clone();
        let done = move |ctx: &mut Ctx, answer: Answer| {
            let Some(this) = waiting.take() else { return };
            if (200..300).contains(&answer.status) {
                then(this, ctx, &answer);
            } else {
                host::error!("rtp_relay", "a party did not take the new description: {}", answer.status);
                (this.done)(ctx, false);
            }
        };
        if !dialog::send(ctx, key, request, done)
            && let Some(this) = this.take()
        {
            (this.done)(ctx, false);
        }
    }

    /// The old engine is told, where it is another one.
    fn moved(self, ctx: &mut Ctx) {
        let old = self.context.replace(self.next);
        let same = {
            let now = self.context.borrow();
            let (was, is) = (&old.sessions[self.at], &now.sessions[self.at]);
            was.engine == is.engine && was.node == is.node
        };
        if !same {
            follow::end(&self.module, ctx, &Rc::new(RefCell::new(old)), self.at);
        }
        follow::store_with(ctx, self.key);
        (self.done)(ctx, true);
    }
}

/// The address in a Contact.
fn place(contact: &[u8]) -> Option<IpAddr> {
    Uri::parse(&Bytes::copy_from_slice(contact)).ok()?.ip()
}
