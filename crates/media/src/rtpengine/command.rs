//! Commands of the NG protocol, made of a message and flags.

use super::Rtpengine;
use super::bencode::{Bencode, Dict};
use super::flags::{Flags, Via};
use bytes::Bytes;
use host::Ctx;
use std::net::IpAddr;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Offer,
    Answer,
    Delete,
    StartRecording,
    StopRecording,
    PauseRecording,
    Query,
    PlayMedia,
    StopMedia,
    BlockMedia,
    UnblockMedia,
    BlockDtmf,
    UnblockDtmf,
    StartForwarding,
    StopForwarding,
    PlayDtmf,
    SubscribeRequest,
    SubscribeAnswer,
    Unsubscribe,
}

impl Op {
    /// As the protocol has it.
    pub fn word(self) -> &'static str {
        match self {
            Op::Offer => "offer",
            Op::Answer => "answer",
            Op::Delete => "delete",
            Op::StartRecording => "start recording",
            Op::StopRecording => "stop recording",
            Op::PauseRecording => "pause recording",
            Op::Query => "query",
            Op::PlayMedia => "play media",
            Op::StopMedia => "stop media",
            Op::BlockMedia => "block media",
            Op::UnblockMedia => "unblock media",
            Op::BlockDtmf => "block DTMF",
            Op::UnblockDtmf => "unblock DTMF",
            Op::StartForwarding => "start forwarding",
            Op::StopForwarding => "stop forwarding",
            Op::PlayDtmf => "play DTMF",
            Op::SubscribeRequest => "subscribe request",
            Op::SubscribeAnswer => "subscribe answer",
            Op::Unsubscribe => "unsubscribe",
        }
    }

    /// A party of the call is named only where the flags say which.
    fn is_about_one_side(self) -> bool {
        matches!(
            self,
            Op::PlayMedia
                | Op::StopMedia
                | Op::BlockMedia
                | Op::UnblockMedia
                | Op::BlockDtmf
                | Op::UnblockDtmf
                | Op::StartForwarding
                | Op::StopForwarding
        )
    }
}

/// A command that is ready to be sent.
#[derive(Clone, Debug)]
pub struct Command {
    pub op: Op,
    /// What the engine is chosen by.
    pub call_id: Bytes,
    pub dict: Dict,
}

/// Makes a command from the current message. `given`: keys that are there already, and take the place of what the
/// message says. The error is what `error_pv` gets.
pub fn prepare(
    ctx: &mut Ctx,
    module: &Rtpengine,
    op: Op,
    flags: &Bytes,
    sdp: Option<Bytes>,
    given: Option<Dict>,
) -> Result<Command, String> {
    let is_given = given.is_some();
    let mut dict = given.unwrap_or_default();
    let mut now = op;
    let mut flags = Flags::parse(flags, &mut now, &mut dict).map_err(|why| {
        host::error!("rtpengine", "flags: {why}");
        "could not parse flags".to_string()
    })?;
    if let Some(sdp) = sdp {
        dict.set_text("sdp", sdp);
    }
    let msg = ctx.state.msg.clone();
    // A key without a value is as if it were not there.
    let said = |text: Option<Bytes>| text.filter(|text| !text.is_empty());
    let own = |dict: &Dict, key: &str| said(dict.text(key).cloned());
    let call_id = own(&dict, "call-id").or(said(flags.call_id.take())).or_else(|| msg.call_id());
    let call_id = call_id.filter(|id| !id.is_empty()).ok_or("can't get Call-Id field")?;
    let to_tag =
        own(&dict, "to-tag").or(said(flags.to_tag.take())).or_else(|| msg.to_tag()).unwrap_or_default();
    let from_tag = own(&dict, "from-tag").or(said(flags.from_tag.take())).or_else(|| msg.from_tag());
    let from_tag = from_tag.filter(|tag| !tag.is_empty()).ok_or("can't get From tag")?;
    if !dict.0.iter().any(|(key, _)| key == "flags") || !is_given {
        flags.add_lists(now, &mut dict);
    }
    if let Some(transport) = flags.transport {
        dict.set_text("transport-protocol", transport);
    }
    dict.set_text("call-id", call_id.clone());
    if let Some(via) = &flags.via {
        dict.set_text("via-branch", via_branch(ctx, module, via).ok_or("can't get Via branch/extra ID")?);
    }
    dict.set("received-from", received_from(ctx, said(flags.received_from.take()).as_ref())?);
    tags(&mut dict, now, msg.is_request(), &flags, is_given, from_tag, to_tag)?;
    dict.set_text("command", now.word());
    Ok(Command { op, call_id, dict })
}

/// Who is from and who is to: the party that speaks in an offer is `from`, an answer keeps the tags of its offer.
fn tags(
    dict: &mut Dict,
    op: Op,
    is_request: bool,
    flags: &Flags,
    is_given: bool,
    from_tag: Bytes,
    to_tag: Bytes,
) -> Result<(), String> {
    let mut set = |key: &'static str, tag: Bytes| {
        if dict.text(key).is_none_or(|tag| tag.is_empty()) {
            dict.set_text(key, tag);
        }
    };
    if op.is_about_one_side() {
        if flags.directional {
            set("from-tag", from_tag);
        }
        return Ok(());
    }
    let in_order = flags.directional
        || if is_request { op != Op::Answer } else { matches!(op, Op::Delete | Op::Answer) };
    if in_order {
        if op != Op::Delete {
            set("from-tag", from_tag);
        }
        if flags.with_to_tag && !to_tag.is_empty() && !is_given {
            set("to-tag", to_tag);
        }
        return Ok(());
    }
    if to_tag.is_empty() {
        return Err("No to-tag present".into());
    }
    set("from-tag", to_tag);
    if !is_given {
        set("to-tag", from_tag);
    }
    Ok(())
}

fn via_branch(ctx: &mut Ctx, module: &Rtpengine, via: &Via) -> Option<Bytes> {
    let msg = ctx.state.msg.clone();
    let nth = |n: usize| msg.vias().get(n).and_then(|via| via.branch());
    let found = match via {
        Via::First => nth(0),
        Via::Second => nth(1),
        // The first Via of a reply is ours.
        Via::Auto => nth(usize::from(!msg.is_request())),
        Via::Extra => module.extra_id.as_ref().map(|format| format.text(ctx)),
        Via::Given(text) => Some(text.clone()),
    };
    found.filter(|branch| !branch.is_empty())
}

fn received_from(ctx: &Ctx, said: Option<&Bytes>) -> Result<Bencode, String> {
    let ip = match said {
        None => ctx.state.source.remote.ip(),
        Some(text) => {
            let text = std::str::from_utf8(text).unwrap_or_default();
            text.trim_matches(['[', ']']).parse().map_err(|_| "received-from value is not an IP")?
        }
    };
    Ok(address(ip))
}

/// An address as engines get it.
pub fn address(ip: IpAddr) -> Bencode {
    let (family, text) = match ip {
        IpAddr::V4(ip) => ("IP4", ip.to_string()),
        IpAddr::V6(ip) => ("IP6", ip.segments().map(|part| format!("{part:X}")).join(":")),
    };
    Bencode::List(vec![Bencode::Text(family.into()), Bencode::Text(text.into())])
}
