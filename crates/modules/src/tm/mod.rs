//! tm: the script's side of transactions. The engine is `host::tm`.

mod branches;
mod mi;
mod query;
pub(crate) mod relay;
mod reply;
mod request;
mod vars;

use host::Accepts;
use host::arg::{BRANCH, FAILURE, ON_REPLY, RouteArg};
use host::registrar::ParamFn;
use host::tm::Settings;
use host::{Call, HeadLines, Registrar, Routes};
use script::ast::ParamValue;
use transaction::TxnId;

/// Parameters; they go to the engine when all are read.
#[derive(Default)]
pub struct Tm {
    settings: Settings,
    minor_flag: Option<String>,
    local_request_route: Option<String>,
    local_reply_route: Option<String>,
}

pub fn register(m: &mut Registrar<Tm>) {
    params(m);
    relay::register(m);
    reply::register(m);
    branches::register(m);
    query::register(m);
    request::register(m);
    vars::register(m);
    mi::register(m);
    let any =
        Routes::REQUEST.and(Routes::BRANCH).and(Routes::ON_REPLY).and(Routes::FAILURE).and(Routes::LOCAL);
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
    m.function("t_flush_flags", Routes::ALL, flush_flags);
    m.function("t_add_hdrs", any, add_hdrs);
    m.function("t_add_cancel_reason", Routes::REQUEST, add_cancel_reason);
    m.init(|s, loader| {
        if s.settings.config.fr < 2000 {
            return Err("fr_timeout must be at least 2 seconds".into());
        }
        if let Some(flag) = &s.minor_flag {
            s.settings.minor_flag =
                loader.branch_flag(flag.as_bytes(), script::Loc::default()).map_err(|d| d.message)?;
        }
        for (name, route) in [
            (&s.local_request_route, &mut s.settings.request_route),
            (&s.local_reply_route, &mut s.settings.reply_route),
        ] {
            if let Some(name) = name {
                *route = Some(loader.route(name).map_err(|d| d.message)?);
            }
        }
        s.settings.loaded = true;
        s.settings.config.unanswered = s.settings.config.fr;
        loader.set_transactions(s.settings.clone());
        Ok(())
    });
}

/// How scripts and commands name a transaction.
pub(crate) fn id_text(id: TxnId) -> String {
    format!("{:x}:{:08x}", id.index, id.generation)
}

/// Reads what `id_text` made.
pub(crate) fn parse_id(text: &str) -> Option<TxnId> {
    let (index, generation) = text.split_once(':')?;
    let part = |text: &str| u32::from_str_radix(text, 16).ok();
    Some(TxnId { index: part(index)?, generation: part(generation)? })
}

/// Seconds of a parameter as milliseconds.
fn seconds(value: i64) -> Result<u32, String> {
    u32::try_from(value)
        .ok()
        .and_then(|s| s.checked_mul(1000))
        .ok_or_else(|| "not a number of seconds".into())
}

fn params(m: &mut Registrar<Tm>) {
    m.param_int("fr_timeout", |s, v| Ok(s.settings.config.fr = seconds(v)?));
    m.param_int("fr_timer", |s, v| Ok(s.settings.config.fr = seconds(v)?));
    m.param_int("fr_inv_timeout", |s, v| Ok(s.settings.config.fr_inv = seconds(v)?));
    m.param_int("fr_inv_timer", |s, v| Ok(s.settings.config.fr_inv = seconds(v)?));
    m.param_int("wt_timer", |s, v| Ok(s.settings.config.wait = seconds(v)?));
    m.param_int("T1_timer", |s, v| Ok(s.settings.config.t1 = v.clamp(1, 1 << 30) as u32));
    m.param_int("T2_timer", |s, v| Ok(s.settings.config.t2 = v.clamp(1, 1 << 30) as u32));
    m.accepts(Accepts::range(2, 4_000_000).unit("s"), &["fr_timeout", "fr_timer"]);
    m.accepts(Accepts::from(1).unit("ms"), &["T1_timer", "T2_timer"]);
    m.param_int("ruri_matching", |s, v| Ok(s.settings.config.match_uri = v != 0));
    m.param_int("via1_matching", |s, v| Ok(s.settings.config.match_via = v != 0));
    m.param_int("restart_fr_on_each_reply", |s, v| Ok(s.settings.config.restart_on_each_reply = v != 0));
    m.param_int("disable_6xx_block", |s, v| Ok(s.settings.config.fork_after_6xx = v != 0));
    m.param_int("auto_100trying", |s, v| Ok(s.settings.auto_100 = v != 0));
    m.param_int("onreply_avp_mode", |s, v| Ok(s.settings.shared_avps = v != 0));
    m.param_text("local_request_route", |s, v| Ok(s.local_request_route = Some(v.to_string())));
    m.accepts(Accepts::ROUTE, &["local_reply_route", "local_request_route"]);
    m.param_text("local_reply_route", |s, v| Ok(s.local_reply_route = Some(v.to_string())));
    m.param(
        "minor_branch_flag",
        ParamFn::Any(|s, v| {
            s.minor_flag = Some(match v {
                ParamValue::Int(n) => n.to_string(),
                ParamValue::Text(t) => String::from_utf8_lossy(t).into_owned(),
            });
            Ok(())
        }),
    );
    m.ignored(&["own_timer_proc"], "each worker has its own timers");
    m.ignored(&["delete_timer"], "a transaction is freed when it ends");
    m.ignored(&["timer_partitions"], "each worker has its own timer wheel");
    m.ignored(&["enable_stats"], "statistics cost nothing here");
    m.ignored(&["syn_branch"], "branches are synonym branches always");
    m.ignored(&["pass_provisional_replies"], "provisional replies reach hooks always");
    m.ignored(&["unix_tx_timeout", "tw_append"], "t_write_req and t_write_unix do not exist here");
    m.ignored(
        &["tm_replication_cluster", "cluster_param", "cluster_auto_cancel"],
        "clustering does not exist here",
    );
    m.ignored(
        &["fr_timer_avp", "fr_inv_timer_avp"],
        "removed after 1.x: use $T_fr_timeout, $T_fr_inv_timeout",
    );
    m.ignored(&["pass_reason_hdr"], "t_relay takes it as a flag");
}

/// t_flush_flags(): message flags reach the transaction's copy of the request.
fn flush_flags(call: &mut Call<Tm>) -> i32 {
    let flags = call.ctx.state.flags;
    let Some(id) = call.ctx.state.txn else { return -1 };
    if let Some(saved) = call.ctx.txn_mut(id).data().and_then(|d| d.saved.as_mut()) {
        saved.flags = flags;
    }
    1
}

/// t_add_hdrs(lines): for the ACKs and CANCELs made here (the branches do without them there as well).
fn add_hdrs(call: &mut Call<Tm>, lines: HeadLines) -> i32 {
    let ctx = &mut *call.ctx;
    let Some(id) = ctx.state.txn else {
        host::warn!("tm", "t_add_hdrs: there is no transaction yet; call t_newtran() before");
        return -1;
    };
    let agent = &ctx.core.txns.policy.signature.user_agent;
    let agent = if agent.is_empty() { Vec::new() } else { [b"User-Agent: ", &agent[..], b"\r\n"].concat() };
    ctx.txn_mut(id).set_hop_headers([&agent[..], &lines.0].concat().into());
    1
}

/// t_add_cancel_reason(header): for the CANCELs of the transaction that this CANCEL names.
fn add_cancel_reason(call: &mut Call<Tm>, header: HeadLines) -> i32 {
    let msg = call.ctx.state.msg.clone();
    match call.ctx.txn_cancelled_by(&msg) {
        Some(id) => {
            if let Some(data) = call.ctx.txn_mut(id).data() {
                data.cancel_headers = header.0;
            }
            1
        }
        // As in the reference, where nobody hears of it either.
        None => 1,
    }
}
