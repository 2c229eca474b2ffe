//! tm: the script's side of transactions. The engine is `host::tm`.

mod local;
mod query;
mod vars;

use bytes::Bytes;
use host::arg::{BRANCH, FAILURE, ON_REPLY, RouteArg};
use host::registrar::{ParamFn, Since};
use host::tm::{Relay, Settings};
use host::{Call, Ctx, Int, Outcome, Registrar, Routes, Text};
use script::ast::{ParamValue, RouteKind};
use transaction::{Cancelling, Verdict};

/// Parameters; they go to the engine when all are read.
#[derive(Default)]
pub struct Tm {
    settings: Settings,
    minor_flag: Option<String>,
}

pub fn register(m: &mut Registrar<Tm>) {
    params(m);
    let request_failure = Routes::REQUEST.and(Routes::FAILURE);
    let any = Routes::REQUEST.and(Routes::BRANCH).and(Routes::ON_REPLY).and(Routes::FAILURE).and(Routes::LOCAL);
    m.function("t_relay", request_failure, t_relay);
    m.function("t_reply", request_failure, t_reply);
    m.function("t_reply_with_body", request_failure, t_reply_with_body);
    m.function("t_newtran", Routes::REQUEST, |call: &mut Call<Tm>| t_newtran(call.ctx));
    m.function("t_on_failure", any, |call: &mut Call<Tm>, route: RouteArg<FAILURE>| {
        call.ctx.state.on_failure = Some(route.0);
        host::tm::arm(call.ctx)
    });
    m.function("t_on_reply", any, |call: &mut Call<Tm>, route: RouteArg<ON_REPLY>| {
        call.ctx.state.on_reply = Some(route.0);
        host::tm::arm(call.ctx)
    });
    m.function("t_on_branch", any, |call: &mut Call<Tm>, route: RouteArg<BRANCH>| {
        call.ctx.state.on_branch = Some(route.0);
        1
    });
    m.function("t_check_trans", Routes::REQUEST.and(Routes::BRANCH), query::check_trans);
    m.function("t_check_status", any, query::check_status);
    m.function("t_local_replied", any, query::local_replied);
    m.function("t_was_cancelled", any, query::was_cancelled);
    m.function("t_flush_flags", Routes::ALL, flush_flags);
    m.function("t_cancel_branch", Routes::ON_REPLY, cancel_branch);
    m.function("t_add_hdrs", any, add_hdrs);
    m.function("t_add_cancel_reason", Routes::REQUEST, add_cancel_reason);
    m.function("t_replicate", Routes::REQUEST, local::replicate);
    m.function("t_new_request", Routes::ALL, local::new_request);
    m.function("t_wait_for_new_branches", Routes::REQUEST, wait_for_branches);
    m.function("t_wait_no_more_branches", Routes::ALL, wait_no_more);
    m.function("t_inject_branches", Routes::ALL, inject_branches);
    m.function("t_reply_by_callid", Routes::ALL, query::reply_by_callid);
    m.function("t_cancel_callid", Routes::ALL, query::cancel_callid);
    m.function_of(Since::V21, "t_cancel_callid", Routes::ALL, |call: &mut Call<Tm>, id: Text, cseq: Text, _: Text| {
        query::cancel_callid(call, id, cseq, None)
    });
    vars::register(m);
    m.init(|s, loader| {
        if s.settings.config.fr < 2000 {
            return Err("fr_timeout must be at least 2 seconds".into());
        }
        if let Some(flag) = &s.minor_flag {
            loader.flag(flag.as_bytes(), script::Loc::default()).map_err(|d| d.message)?;
        }
        loader.tm = s.settings.clone();
        Ok(())
    });
}

/// Seconds of a parameter as milliseconds.
fn seconds(value: i64) -> Result<u32, String> {
    u32::try_from(value).ok().and_then(|s| s.checked_mul(1000)).ok_or_else(|| "not a number of seconds".into())
}

fn params(m: &mut Registrar<Tm>) {
    m.param_int("fr_timeout", |s, v| Ok(s.settings.config.fr = seconds(v)?));
    m.param_int("fr_timer", |s, v| Ok(s.settings.config.fr = seconds(v)?));
    m.param_int("fr_inv_timeout", |s, v| Ok(s.settings.config.fr_inv = seconds(v)?));
    m.param_int("fr_inv_timer", |s, v| Ok(s.settings.config.fr_inv = seconds(v)?));
    m.param_int("wt_timer", |s, v| Ok(s.settings.config.wait = seconds(v)?));
    m.param_int("T1_timer", |s, v| Ok(s.settings.config.t1 = v.clamp(1, 1 << 30) as u32));
    m.param_int("T2_timer", |s, v| Ok(s.settings.config.t2 = v.clamp(1, 1 << 30) as u32));
    m.param_int("ruri_matching", |s, v| Ok(s.settings.config.match_uri = v != 0));
    m.param_int("via1_matching", |s, v| Ok(s.settings.config.match_via = v != 0));
    m.param_int("restart_fr_on_each_reply", |s, v| Ok(s.settings.config.restart_on_each_reply = v != 0));
    m.param_int("disable_6xx_block", |s, v| Ok(s.settings.config.fork_after_6xx = v != 0));
    m.param_int("auto_100trying", |s, v| Ok(s.settings.auto_100 = v != 0));
    m.param("minor_branch_flag", ParamFn::Any(|s, v| {
        s.minor_flag = Some(match v {
            ParamValue::Int(n) => n.to_string(),
            ParamValue::Text(t) => String::from_utf8_lossy(t).into_owned(),
        });
        Ok(())
    }));
    m.ignored(&["delete_timer"], "a transaction is freed when it ends");
    m.ignored(&["timer_partitions"], "each worker has its own timer wheel");
    m.ignored(&["enable_stats"], "statistics cost nothing here");
    m.ignored(&["syn_branch"], "branches are synonym branches always");
    m.ignored(&["onreply_avp_mode"], "AVPs of the transaction are visible in reply routes always");
    m.ignored(&["pass_provisional_replies"], "provisional replies reach hooks always");
    m.ignored(&["unix_tx_timeout", "tw_append"], "t_write_req and t_write_unix do not exist yet");
    m.ignored(&["tm_replication_cluster", "cluster_param", "cluster_auto_cancel"], "clustering does not exist yet");
    m.ignored(&["local_request_route", "local_reply_route"], "not built yet");
    m.ignored(&["fr_timer_avp", "fr_inv_timer_avp"], "removed after 1.x: use $T_fr_timeout, $T_fr_inv_timeout");
    m.ignored(&["pass_reason_hdr"], "t_relay takes it as a flag");
}

/// Flags of `t_relay`: words, or a number of 2.x ("0x05").
fn relay_flags(text: &str) -> Relay {
    let mut relay = Relay::default();
    if let Some(bits) = host::arg::parse_int(text.trim().as_bytes()) {
        relay.no_100 = bits & 1 != 0;
        relay.no_477 = bits & 2 != 0;
        relay.pass_reason = bits & 8 != 0;
        relay.keep_branches = bits & 16 != 0;
        return relay;
    }
    for word in text.split(',').map(str::trim) {
        match word {
            "no-auto-477" => relay.no_477 = true,
            "pass-reason-hdr" => relay.pass_reason = true,
            "allow-no-cancel" => relay.keep_branches = true,
            _ => {}
        }
    }
    relay
}

/// "[proto:]host[:port]" as a URI.
fn proxy_uri(text: &str) -> Bytes {
    if text.starts_with("sip:") || text.starts_with("sips:") {
        return Bytes::copy_from_slice(text.as_bytes());
    }
    match text.split_once(':') {
        Some((proto, rest)) if sip::Transport::parse(proto.as_bytes()).is_some() => {
            format!("sip:{rest};transport={}", proto.to_ascii_lowercase()).into()
        }
        _ => format!("sip:{text}").into(),
    }
}

/// t_relay([flags], [outbound proxy]); 2.1 also takes the proxy alone.
fn t_relay(call: &mut Call<Tm>, first: Option<Text>, second: Option<Text>) -> Outcome {
    let (flags, proxy) = match (first, second) {
        (Some(only), None) => {
            let text = only.str();
            let is_flags = host::arg::parse_int(text.trim().as_bytes()).is_some()
                || text.split(',').any(|w| matches!(w.trim(), "no-auto-477" | "no-dns-failover" | "pass-reason-hdr" | "allow-no-cancel"));
            if is_flags { (Some(only), None) } else { (None, Some(only)) }
        }
        pair => pair,
    };
    let mut relay = flags.map_or_else(Relay::default, |f| relay_flags(&f.str()));
    relay.proxy = proxy.filter(|p| !p.is_empty()).map(|p| proxy_uri(&p.str()));
    host::tm::relay(call.ctx, relay)
}

/// t_reply(code, reason): makes the transaction when there is none.
fn t_reply(call: &mut Call<Tm>, code: Int, reason: Text) -> i32 {
    let Ok(code) = u16::try_from(code.0) else { return -1 };
    let made = host::tm::new_transaction(call.ctx);
    if made != 1 {
        return made;
    }
    match call.ctx.state.txn {
        Some(txn) => host::tm::reply(call.ctx, txn, code, &reason),
        None => -1,
    }
}

fn t_reply_with_body(call: &mut Call<Tm>, code: Int, reason: Text, body: Text) -> i32 {
    let before = call.ctx.state.reply_body.take();
    call.ctx.state.reply_body = Some((Bytes::new(), body.0));
    let rc = t_reply(call, code, reason);
    call.ctx.state.reply_body = before;
    rc
}

/// t_newtran(): also answers 100 to an INVITE.
fn t_newtran(ctx: &mut Ctx) -> i32 {
    let made = host::tm::new_transaction(ctx);
    if let (1, Some(txn)) = (made, ctx.state.txn) {
        host::tm::trying_current(ctx, txn);
    }
    made
}

/// t_flush_flags(): message flags reach the transaction's copy of the request.
fn flush_flags(call: &mut Call<Tm>) -> i32 {
    let flags = call.ctx.state.flags;
    let Some(id) = call.ctx.state.txn else { return -1 };
    if let Some(saved) = call.ctx.core.txns.txns.get_mut(id).and_then(|d| d.saved.as_mut()) {
        saved.flags = flags;
    }
    1
}

/// t_cancel_branch([flags]): `a` all, `o` others, none: this one.
fn cancel_branch(call: &mut Call<Tm>, flags: Option<Text>) -> i32 {
    let ctx = &mut *call.ctx;
    let (Some(id), Some(branch)) = (ctx.state.txn, ctx.state.txn_branch) else { return -1 };
    let flags = flags.map(|f| f.0).unwrap_or_default();
    let which = match (flags.contains(&b'a'), flags.contains(&b'o')) {
        (true, _) => Cancelling::All,
        (_, true) => Cancelling::AllBut(branch),
        _ => Cancelling::Only(branch),
    };
    let now = ctx.core.now;
    let headers = ctx.core.txns.txns.get(id).map(|d| d.cancel_headers.clone()).unwrap_or_default();
    ctx.core.txns.txns.cancel_branches(now, id, which, headers);
    host::tm::drain(ctx);
    1
}

/// t_add_hdrs(lines): for every branch, and the ACKs and CANCELs made here.
fn add_hdrs(call: &mut Call<Tm>, lines: Text) -> i32 {
    let ctx = &mut *call.ctx;
    let Some(id) = ctx.state.txn else { return -1 };
    ctx.state.edits.insert(sip::Anchor::End, lines.0.clone());
    let agent = &ctx.core.shared.signature.user_agent;
    let agent = if agent.is_empty() { Vec::new() } else { [b"User-Agent: ", &agent[..], b"\r\n"].concat() };
    ctx.core.txns.txns.set_hop_headers(id, [&agent[..], &lines.0].concat().into());
    1
}

/// t_add_cancel_reason(header): for the CANCELs of the transaction that this CANCEL names.
fn add_cancel_reason(call: &mut Call<Tm>, header: Text) -> i32 {
    let msg = call.ctx.state.msg.clone();
    match call.ctx.core.txns.txns.find(&msg) {
        Some((id, transaction::Relation::Cancel)) => {
            if let Some(data) = call.ctx.core.txns.txns.get_mut(id) {
                data.cancel_headers = header.0;
            }
            1
        }
        _ => -1,
    }
}

fn wait_for_branches(call: &mut Call<Tm>, count: Option<Int>) -> i32 {
    let made = host::tm::new_transaction(call.ctx);
    if made != 1 {
        return made;
    }
    let count = count.map_or(u16::MAX, |c| c.0.clamp(1, 1000) as u16);
    host::tm::wait_for_branches(call.ctx, count)
}

fn wait_no_more(call: &mut Call<Tm>) -> i32 {
    let Some(id) = call.ctx.state.txn else { return -1 };
    let now = call.ctx.core.now;
    let verdict = call.ctx.core.txns.txns.wait_no_more(now, id);
    let ended = !matches!(verdict, Verdict::Absorb);
    host::tm::on_verdict(call.ctx, id, verdict);
    if ended { 1 } else { -1 }
}

/// t_inject_branches("msg", [flags]): the R-URI and branches of this message join the transaction.
fn inject_branches(call: &mut Call<Tm>, source: Text, flags: Option<Text>) -> i32 {
    if &source.0[..] != b"msg" {
        host::error!("tm", "t_inject_branches: only \"msg\" is built; event_routing does not exist yet");
        return -1;
    }
    let flags = flags.map(|f| f.str().into_owned()).unwrap_or_default();
    let cancel = flags.split(',').any(|f| matches!(f.trim(), "c" | "cancel"));
    let last = flags.split(',').any(|f| matches!(f.trim(), "l" | "last"));
    host::tm::inject(call.ctx, cancel, last)
}

/// Kinds of routes in which the transaction of the message is a request's.
pub(crate) fn in_reply(ctx: &Ctx) -> bool {
    ctx.state.kind == RouteKind::OnReply
}
