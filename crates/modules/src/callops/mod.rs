//! callops: calls are transferred and put on hold by the server (REFER, RFC 3515; Replaces, RFC 3891).
//!
//! What is known of a transfer stands in values of the dialogs, `call_transfer_leg` and `call_transfer_callid`, and of
//! a hold in `call_hold_caller` and `call_hold_callee`, so that a restart does not lose it.

mod follow;
mod hold;
#[cfg(test)]
mod tests;
mod transfer;

use crate::dialog::{CALLER, Key, LegNo, State, Val, api};
use bytes::Bytes;
use host::events::{self, EventParams};
use host::registrar::ParamFn;
use host::shared::Hooks;
use host::stats::Stats;
use host::watch::Told;
use host::{Ctx, Registrar, Routes, Value};
use script::ast::ParamValue;
use std::sync::Arc;

const TRANSFER: &str = "E_CALL_TRANSFER";
const HOLD: &str = "E_CALL_HOLD";

/// The end that is being transferred; empty: the transfer is over.
const LEG_VALUE: &[u8] = b"call_transfer_leg";
/// The call that takes the place of this one, or that it takes the place of.
const CALL_VALUE: &[u8] = b"call_transfer_callid";

/// How a call that a transfer brings is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Mode {
    /// By the identity of the old dialog in the R-URI.
    #[default]
    Did,
    /// The script says it.
    Manual,
    /// By the Call-ID of the old dialog in the R-URI.
    CallId,
}

pub struct Callops {
    mode: Mode,
    param: String,
}

impl Default for Callops {
    fn default() -> Callops {
        Callops { mode: Mode::default(), param: "osid".into() }
    }
}

pub fn register(m: &mut Registrar<Callops>) {
    m.param(
        "mode",
        ParamFn::Any(|s, v| {
            s.mode = match v {
                ParamValue::Int(0) => Mode::Did,
                ParamValue::Int(1) => Mode::Manual,
                ParamValue::Int(2) => Mode::CallId,
                ParamValue::Text(t) if t.eq_ignore_ascii_case(b"param") => Mode::Did,
                ParamValue::Text(t) if t.eq_ignore_ascii_case(b"manual") => Mode::Manual,
                ParamValue::Text(t) if t.eq_ignore_ascii_case(b"callid") => Mode::CallId,
                _ => return Err("mode is param (0), manual (1) or callid (2)".into()),
            };
            Ok(())
        }),
    );
    m.param_text("match_param", |s, v| match v {
        "" => Err("match_param is the name of a parameter of URIs".into()),
        v => Ok(s.param = v.into()),
    });
    m.function("call_blind_replace", Routes::REQUEST, follow::blind_replace);
    let notify = Routes::REQUEST.and(Routes::FAILURE).and(Routes::LOCAL);
    m.function("call_transfer_notify", notify, follow::transfer_notify);
    m.function("call_transfer", Routes::ALL, transfer::blind);
    m.function("call_transfer", Routes::ALL, transfer::attended);
    m.command_late(
        "callops:transfer call_transfer",
        "refers an end of a call to a destination, or to the place of an end of another call",
        transfer::command,
    )
    .takes("callid leg [destination] [transfer_callid] [transfer_leg] [transfer_fromtag] [transfer_totag] [transfer_destination]");
    m.command_late("callops:hold call_hold", "puts a call on hold", |call, params, answer| {
        hold::command(call, params, answer, hold::Action::Hold)
    })
    .takes("callid [leg] [headers]");
    m.command_late("callops:unhold call_unhold", "resumes a call that is on hold", |call, params, answer| {
        hold::command(call, params, answer, hold::Action::Unhold)
    })
    .takes("callid [leg] [headers]");
    m.needs(&["tm", "dialog"]);
    m.ready(ready);
    m.start(|call| {
        let module = call.module.clone();
        follow::listen(call.ctx, &module);
    });
}

fn ready(_: &Arc<Callops>, hooks: &mut Hooks, _: &Stats) {
    hooks.raises([TRANSFER, HOLD]);
    hooks.watch.told(Told::Created, follow::adopt);
    hooks.watch.told(Told::Replied, follow::replied);
}

/// An end as the manual names it.
fn leg_word(leg: LegNo) -> &'static str {
    if leg == CALLER { "caller" } else { "callee" }
}

/// The end that a word means; the callee is the one that answered.
fn leg_of(ctx: &mut Ctx, key: Key, word: &[u8]) -> Option<LegNo> {
    match word {
        b"caller" => Some(CALLER),
        b"callee" => api::get(ctx, key).map(|d| d.callee_no()),
        _ => None,
    }
}

/// The living dialog of this worker with this Call-ID.
fn living(ctx: &mut Ctx, call_id: &[u8]) -> Option<Key> {
    api::find_by_call_id(ctx, call_id)
        .filter(|key| api::get(ctx, *key).is_some_and(|d| d.state != State::Ended))
}

/// A value of a dialog that is a text and not empty.
fn text_value(ctx: &mut Ctx, key: Key, name: &[u8]) -> Option<Bytes> {
    match api::val(ctx, key, name) {
        Some(Val::Str(text)) if !text.is_empty() => Some(Bytes::from(text.into_vec())),
        _ => None,
    }
}

fn set_text(ctx: &mut Ctx, key: Key, name: &[u8], text: &[u8]) {
    api::set_val(ctx, key, name, Some(Val::Str(text.into())));
}

fn raise(ctx: &mut Ctx, event: &'static str, fields: &[(&'static str, &[u8])]) {
    if !ctx.shared().events().wanted(event.as_bytes()) {
        return;
    }
    let params: EventParams = fields
        .iter()
        .map(|(name, text)| (Bytes::from_static(name.as_bytes()), Value::Str(Bytes::copy_from_slice(text))))
        .collect();
    events::raise(ctx, event, params);
}

/// A step of a transfer of the dialog `key`.
fn raise_transfer(
    ctx: &mut Ctx,
    key: Key,
    new_call: &[u8],
    destination: &[u8],
    state: &'static str,
    status: &[u8],
) {
    let leg = match api::val(ctx, key, LEG_VALUE) {
        Some(Val::Str(text)) => Bytes::from(text.into_vec()),
        Some(Val::Int(_)) => Bytes::new(),
        None => Bytes::from_static(b"unknown"),
    };
    let Some(dialog) = api::get(ctx, key) else { return };
    let call_id = Bytes::copy_from_slice(&dialog.call_id);
    let fields: [(&'static str, &[u8]); 6] = [
        ("callid", &call_id),
        ("leg", &leg),
        ("transfer_callid", new_call),
        ("destination", destination),
        ("state", state.as_bytes()),
        ("status", status),
    ];
    raise(ctx, TRANSFER, &fields);
}
