//! `rtpproxy_offer` and `rtpproxy_answer`.

use super::ask::{Asking, Feature, has};
use super::describe::{At, Failed, Kind, Made, Notified, Task};
use super::options::Options;
use super::{Rtpproxy, engage};
use crate::bodies;
use bytes::Bytes;
use host::arg::AnyVar;
use host::branches::request_branch;
use host::ctx::Resolved;
use host::registrar::Since;
use host::shared::Hooks;
use host::tm::branch::{SendError, lookup_of, path_of};
use host::tm::with_request;
use host::watch::Moment;
use host::{Call, Ctx, Finish, Int, OutVar, Outcome, Registrar, Routes, Suspension, Text};
use modules::dialog::api as dialog;
use sip::Method;
use std::net::IpAddr;
use std::sync::Arc;

/// Beyond what the engines may take: looking up names, changing sockets.
const SLACK_MS: u64 = 5_000;

/// Where functions of this module may stand.
pub const EVERYWHERE: Routes =
    Routes::REQUEST.and(Routes::ON_REPLY).and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::LOCAL);

pub fn register(m: &mut Registrar<Rtpproxy>) {
    m.function("rtpproxy_offer", EVERYWHERE, offer);
    m.function("rtpproxy_answer", EVERYWHERE, answer);
    m.function("rtpproxy_engage", EVERYWHERE, engage::engage);
    m.function_of(Since::V21, "engage_rtp_proxy", EVERYWHERE, engage::engage);
}

/// Call-ID and tags of a message.
pub struct Parties {
    pub call_id: Bytes,
    pub from: Bytes,
    /// Empty: none yet.
    pub to: Bytes,
}

impl Parties {
    pub fn of(ctx: &Ctx) -> Option<Parties> {
        let msg = &ctx.state.msg;
        let call_id = msg.call_id().filter(|id| !id.is_empty());
        let from = msg.from_tag().filter(|tag| !tag.is_empty());
        let (Some(call_id), Some(from)) = (call_id, from) else {
            host::error!("rtpproxy", "a message without Call-ID or From tag");
            return None;
        };
        Some(Parties { call_id, from, to: msg.to_tag().unwrap_or_default() })
    }
}

/// What a script says.
#[derive(Clone, Default)]
pub struct Said {
    pub flags: Bytes,
    pub ip: Option<Bytes>,
    pub bind: Option<Bytes>,
}

/// Longest that a command may wait.
pub fn limit(module: &Rtpproxy) -> u64 {
    let nodes = module.sets.get().nodes().count() as u64;
    module.patience.total_ms().saturating_mul((nodes + 2) * 2) + SLACK_MS
}

/// What is to be asked for a description of the current message.
pub fn task(ctx: &mut Ctx, module: &Rtpproxy, kind: Kind, said: Said, sdp: Bytes) -> Option<Task> {
    let parties = Parties::of(ctx)?;
    let options = Options::parse(&said.flags);
    let notified = notified(ctx, module, &options, kind, &parties.call_id)?;
    let source = ctx.state.source;
    let bound = ctx.shared().sockets.get(usize::from(source.socket)).map(|socket| socket.addr.ip());
    Some(Task {
        kind,
        options,
        sdp,
        call_id: parties.call_id,
        from_tag: parties.from,
        to_tag: parties.to,
        is_request: ctx.state.msg.is_request(),
        source: source.remote.ip(),
        local: bound.unwrap_or(source.remote.ip()),
        shown: said.ip.filter(|ip| !ip.is_empty()),
        bind: said.bind,
        remote: None,
        notified,
        mark: module.mark.clone(),
    })
}

/// Where the engine tells of this call; the outer `None`: it cannot be said.
#[expect(clippy::option_option, reason = "nobody is told, or it fails")]
fn notified(
    ctx: &mut Ctx,
    module: &Rtpproxy,
    options: &Options,
    kind: Kind,
    call_id: &Bytes,
) -> Option<Option<Notified>> {
    if options.notify.is_none() && options.dtmf.is_none() {
        return Some(None);
    }
    let own = module.notify.as_ref().map(|place| Bytes::from(place.text.clone()));
    let said = options.notify.clone().flatten();
    let Some(socket) = said.clone().or(own) else {
        host::warn!("rtpproxy", "nobody is told: there is no rtpp_notify_socket");
        return Some(None);
    };
    let is_new = ctx.state.msg.to_tag().is_none_or(|tag| tag.is_empty());
    let did = |ctx: &mut Ctx| {
        let key = dialog::current(ctx).map(|(key, _)| key)?;
        dialog::get(ctx, key).map(|dialog| dialog.did.to_string())
    };
    let mut timeout = None;
    if kind == Kind::Offer && !options.lookup {
        if options.notify.is_some() {
            if is_new && ctx.state.msg.is_request() && ctx.state.msg.method() == Method::Invite {
                dialog::create(ctx, modules::dialog::Flags::default());
            }
            timeout = match did(ctx) {
                Some(did) => Some(format!("T{did}").into()),
                // Without the module there are no dialogs: the one who listens there may end something else.
                None if dialog::module(ctx).is_none() => Some(Bytes::new()),
                None => {
                    host::error!("rtpproxy", "no dialog to end when media stops");
                    return None;
                }
            };
        } else {
            timeout = Some(Bytes::from_static(b"I"));
        }
    }
    let dtmf = options.dtmf.as_ref().map(|_| match did(ctx) {
        Some(did) => Bytes::from(format!("d{did}")),
        None => [b"c", &call_id[..]].concat().into(),
    });
    let is_own_tcp = said.is_none() && socket.starts_with(b"tcp:");
    Some(Some(Notified { socket, timeout, dtmf, is_own_tcp }))
}

/// Variables that get what became of it.
#[derive(Clone)]
pub struct Out {
    pub sock: Option<OutVar>,
    pub place: Option<OutVar>,
    /// The description goes here, not into the message.
    pub body: Option<OutVar>,
    /// What comes back when nothing came of it.
    pub otherwise: i32,
}

impl Default for Out {
    fn default() -> Out {
        Out { sock: None, place: None, body: None, otherwise: -1 }
    }
}

impl Out {
    /// 1: done.
    pub fn finish(self, ctx: &mut Ctx, given: Bytes, result: Result<Made, Failed>) -> i32 {
        let (node, made) = match result {
            Ok(made) => (made.node.clone(), Some(made)),
            Err(Failed(node)) => (node, None),
        };
        if let (Some(sock), Some(node)) = (&self.sock, node) {
            sock.set(ctx, node.url.clone());
        }
        let Some(made) = made else { return self.otherwise };
        if let (Some(var), Some(place)) = (&self.place, made.place) {
            var.set(ctx, place);
        }
        match (made.sdp, self.body) {
            (Some(sdp), Some(var)) => {
                var.set(ctx, sdp);
            }
            (Some(sdp), None) => {
                bodies::replace_sdp(&mut ctx.state, given, sdp);
            }
            (None, _) => {}
        }
        1
    }
}

/// Offers that wait until it is known where their request goes.
#[derive(Clone, Default)]
struct Waiting(Vec<(Task, i64)>);

/// Asks for a description of the current message.
pub fn ask(
    call: &mut Call<Rtpproxy>,
    what: &'static str,
    kind: Kind,
    said: Said,
    set: Option<i64>,
    out: Out,
) -> Outcome {
    let given = match &out.body {
        Some(var) => var.0.get(call.ctx).text().filter(|body| !body.is_empty()),
        None => bodies::sdp(&call.ctx.state),
    };
    let Some(given) = given else {
        host::info!("rtpproxy", "{what}: the message has no description");
        return (-1).into();
    };
    let module = call.module.clone();
    let Some(task) = task(call.ctx, &module, kind, said, given) else { return (-1).into() };
    ask_for(call.ctx, &module, what, task, set, out)
}

/// The same where the task is known.
pub fn ask_for(
    ctx: &mut Ctx,
    module: &Arc<Rtpproxy>,
    what: &'static str,
    mut task: Task,
    set: Option<i64>,
    out: Out,
) -> Outcome {
    let module = module.clone();
    let number = set.unwrap_or(module.default_set);
    let bridged = module.autobridge && task.remote.is_none();
    let upstream = if bridged && !task.is_request { upstream(ctx) } else { None };
    let asking = Asking::new(ctx, &module);
    let (limit, detail, otherwise) = (limit(&module), task.call_id.clone(), out.otherwise);
    let mut ready = module.ready.subscribe();
    Suspension::future(what, async move {
        let _ = ready.wait_for(|ready| *ready).await;
        let Some(set) = module.sets.get().get(number).cloned() else {
            host::error!("rtpproxy", "there is no set {number}");
            return Box::new(move |_: &mut Ctx| otherwise) as Finish;
        };
        if bridged {
            let Some(node) = asking.choose(&set, &task.call_id, &[]).await else {
                host::error!("rtpproxy", "no available proxies");
                return Box::new(move |_: &mut Ctx| otherwise) as Finish;
            };
            if has(&node, Feature::Autobridge) {
                if task.is_request {
                    return Box::new(move |ctx: &mut Ctx| {
                        ctx.state.ext.entry::<Waiting>().0.push((task, number));
                        1
                    }) as Finish;
                }
                task.remote = upstream;
            }
        }
        let given = task.sdp.clone();
        let result = task.run(&asking, &At::Set(set)).await;
        Box::new(move |ctx: &mut Ctx| out.finish(ctx, given, result)) as Finish
    })
    .detail(detail)
    .limit(limit, otherwise)
}

/// Where the current reply goes.
fn upstream(ctx: &mut Ctx) -> Option<IpAddr> {
    let id = ctx.state.txn?;
    Some(with_request(ctx, id, |ctx| ctx.state.source.remote.ip()))
}

pub fn hooks(module: &Arc<Rtpproxy>, hooks: &mut Hooks) {
    if !module.autobridge {
        return;
    }
    for moment in [Moment::RequestOut, Moment::ForwardOut] {
        let module = module.clone();
        hooks.watch.on(moment, move |ctx, _| bridge(&module, ctx)).before("dialog");
    }
}

/// A branch leaves: its offers are made.
fn bridge(module: &Arc<Rtpproxy>, ctx: &mut Ctx) -> Outcome {
    let Some(waiting) = ctx.state.ext.find::<Waiting>().cloned().filter(|w| !w.0.is_empty()) else {
        return 1.into();
    };
    ctx.state.ext.remove::<Waiting>();
    let target = request_branch(&ctx.state);
    let path = path_of(ctx, &ctx.state, &target, None);
    let known = path.as_ref().ok().map(|path| path.remote.ip());
    let wanted = lookup_of(&ctx.shared().sockets, &target, None);
    let wanted = wanted.filter(|_| matches!(path, Err(SendError::NotYet)));
    let look_up = wanted.map(|wanted| ctx.core.spawner.resolve(wanted));
    let asking = Asking::new(ctx, module);
    let module = module.clone();
    let limit = limit(&module);
    Suspension::future("rtpproxy bridge", async move {
        let remote = match (known, look_up) {
            (Some(ip), _) => Some(ip),
            (None, Some(Resolved::Now(found))) => first_ip(found),
            (None, Some(Resolved::Later(found))) => first_ip(found.await),
            (None, None) => None,
        };
        let mut results = Vec::new();
        for (mut task, number) in waiting.0 {
            task.remote = remote;
            let Some(set) = module.sets.get().get(number).cloned() else { continue };
            let given = task.sdp.clone();
            results.push((given, task.run(&asking, &At::Set(set)).await));
        }
        Box::new(move |ctx: &mut Ctx| {
            for (given, result) in results {
                Out::default().finish(ctx, given, result);
            }
            1
        }) as Finish
    })
    .limit(limit, 1)
}

fn first_ip<E>(found: Result<Vec<sip::names::Hop>, E>) -> Option<IpAddr> {
    found.ok()?.first().map(|hop| hop.addr.ip())
}

/// rtpproxy_offer([flags], [address], [set], [engine], [place], [body], [bind])
#[expect(clippy::too_many_arguments, reason = "those of the script function")]
fn offer(
    call: &mut Call<Rtpproxy>,
    flags: Option<Text>,
    ip: Option<Text>,
    set: Option<Int>,
    sock: Option<OutVar>,
    place: Option<OutVar>,
    body: Option<OutVar>,
    bind: Option<AnyVar>,
) -> Outcome {
    let said = said(call.ctx, flags, ip, bind);
    ask(
        call,
        "rtpproxy_offer",
        Kind::Offer,
        said,
        set.map(|n| n.0),
        Out { sock, place, body, ..Out::default() },
    )
}

/// rtpproxy_answer([flags], [address], [set], [engine], [place], [body], [bind])
#[expect(clippy::too_many_arguments, reason = "those of the script function")]
fn answer(
    call: &mut Call<Rtpproxy>,
    flags: Option<Text>,
    ip: Option<Text>,
    set: Option<Int>,
    sock: Option<OutVar>,
    place: Option<OutVar>,
    body: Option<OutVar>,
    bind: Option<AnyVar>,
) -> Outcome {
    let said = said(call.ctx, flags, ip, bind);
    ask(
        call,
        "rtpproxy_answer",
        Kind::Answer,
        said,
        set.map(|n| n.0),
        Out { sock, place, body, ..Out::default() },
    )
}

fn said(ctx: &mut Ctx, flags: Option<Text>, ip: Option<Text>, bind: Option<AnyVar>) -> Said {
    let bind = bind.and_then(|var| var.0.get(ctx).text());
    Said { flags: flags.map(|text| text.0).unwrap_or_default(), ip: ip.map(|text| text.0), bind }
}
