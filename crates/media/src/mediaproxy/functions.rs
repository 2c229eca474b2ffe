//! `use_media_proxy`, `end_media_session`.

use super::streams::{Answer, Description};
use super::{Mediaproxy, command, engage};
use crate::bodies;
use bytes::Bytes;
use host::{Call, Ctx, Finish, Outcome, Registrar, Routes, Suspension};
use sip::Method;
use std::sync::Arc;

/// Beyond what the dispatcher may take, milliseconds.
const SLACK_MS: u64 = 1_000;

/// There is no description.
const NO_SDP: i32 = -2;

const EVERYWHERE: Routes =
    Routes::REQUEST.and(Routes::ON_REPLY).and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::LOCAL);

pub fn register(m: &mut Registrar<Mediaproxy>) {
    m.function("use_media_proxy", EVERYWHERE, use_media_proxy);
    m.function("end_media_session", EVERYWHERE, end_media_session);
    m.function("engage_media_proxy", Routes::REQUEST, engage::engage);
}

/// How candidates of the relay come into a description (RFC 8445).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ice {
    None,
    Priority(u32),
}

impl Ice {
    /// `low-priority`, `high-priority`; everything else is none.
    pub fn parse(text: &[u8]) -> Ice {
        // The preference of the type: below that of relays, and above that of hosts.
        let preference = match text.to_ascii_lowercase().as_slice() {
            b"low-priority" => 0,
            b"high-priority" => 130,
            _ => return Ice::None,
        };
        Ice::Priority((preference << 24) + 0xff_ffff)
    }

    /// What the message's AVP says, else the configuration.
    pub fn of(ctx: &mut Ctx, module: &Mediaproxy) -> Ice {
        match module.ice.value(ctx) {
            Some(text) => Ice::parse(&text),
            None => Ice::parse(module.ice_default.as_bytes()),
        }
    }
}

fn use_media_proxy(call: &mut Call<Mediaproxy>) -> Outcome {
    let module = call.module.clone();
    if module.disabled {
        return (-1).into();
    }
    let ice = Ice::of(call.ctx, &module);
    relay(call.ctx, &module, "use_media_proxy", "", ice, None)
}

/// Asks for the streams of the current message and puts the relay's addresses in. `always`: the code that comes back whatever
/// became of it.
pub fn relay(
    ctx: &mut Ctx,
    module: &Arc<Mediaproxy>,
    what: &'static str,
    dialog: &str,
    ice: Ice,
    always: Option<i32>,
) -> Outcome {
    let end = move |code: i32| always.unwrap_or(code);
    let msg = &ctx.state.msg;
    let is_request = msg.is_request();
    let sdp = bodies::sdp(&ctx.state);
    let streams = match &sdp {
        Some(sdp) => match Description::parse(sdp) {
            // The end of a negotiation (RFC 8445): what was agreed on stays.
            Ok(found) if is_request && found.has_remote_candidates => return end(-1).into(),
            Ok(found) if !found.is_relayed() => return end(1).into(),
            Ok(found) => Some(found),
            Err(why) => {
                host::error!("mediaproxy", "{what}: the description: {why}");
                return end(-1).into();
            }
        },
        None if !msg.body().is_empty() => return end(-1).into(),
        // The dispatcher hears that the call was answered.
        None if !is_request
            && msg.status() == 200
            && msg.cseq().is_some_and(|cseq| cseq.method == Method::Invite) =>
        {
            None
        }
        None => return end(NO_SDP).into(),
    };
    let Some(question) = command::update(ctx, module, dialog, streams.as_ref()) else {
        return end(-1).into();
    };
    let module = module.clone();
    let detail = ctx.state.msg.call_id().unwrap_or_default();
    let limit = limit(&module);
    Suspension::future(what, async move {
        let line = module.dispatcher.ask(&question).await;
        Box::new(move |ctx: &mut Ctx| {
            let Some(line) = line else { return end(-1) };
            let (Some(streams), Some(sdp)) = (streams, sdp) else { return end(1) };
            end(put(ctx, what, &streams, sdp, &line, is_request, ice))
        }) as Finish
    })
    .detail(detail)
    .limit(limit, end(-1))
}

/// Puts what the dispatcher granted into the message.
fn put(
    ctx: &mut Ctx,
    what: &str,
    streams: &Description,
    sdp: Bytes,
    line: &[u8],
    is_request: bool,
    ice: Ice,
) -> i32 {
    let Some(answer) = Answer::parse(line) else {
        let line = String::from_utf8_lossy(line);
        host::error!("mediaproxy", "{what}: the dispatcher answers {:?}", line.trim());
        return -1;
    };
    let (got, wanted) = (answer.ports.len(), streams.relayed());
    if got < wanted && is_request {
        host::error!("mediaproxy", "{what}: {got} ports for {wanted} streams");
        return -1;
    }
    if got < wanted {
        host::warn!("mediaproxy", "{what}: the called party answers more streams than it was offered");
    }
    bodies::replace_sdp(&mut ctx.state, sdp, streams.through(&answer, ice));
    1
}

pub fn limit(module: &Mediaproxy) -> u64 {
    module.dispatcher.patience.total_ms() + SLACK_MS
}

fn end_media_session(call: &mut Call<Mediaproxy>) -> Outcome {
    let module = call.module.clone();
    if module.disabled {
        return (-1).into();
    }
    let Some(question) = command::remove_current(call.ctx) else {
        host::error!("mediaproxy", "end_media_session: a message without Call-ID");
        return (-1).into();
    };
    let detail = call.ctx.state.msg.call_id().unwrap_or_default();
    let limit = limit(&module);
    Suspension::future("end_media_session", async move {
        let code = if module.dispatcher.ask(&question).await.is_some() { 1 } else { -1 };
        Box::new(move |_: &mut Ctx| code) as Finish
    })
    .detail(detail)
    .limit(limit, -1)
}
