//! uac_auth: the next hop's challenge is answered in a failure route; CSeq grows with each attempt.

use super::{CSEQ_PARAM, Done, Uac, replies};
use crate::dialog::api;
use crate::uac_auth::{self, UacAuth};
use bytes::Bytes;
use host::load::Loader;
use host::{Arg, Call, Ctx, Format, Int, Text};
use script::ast;
use script::{Diagnostic, Loc};
use sip::digest::Algorithm;
use sip::{Anchor, Span};
use std::sync::Arc;

/// A list of algorithms; unknown names in a constant are a load error.
pub struct Algorithms(Vec<Algorithm>);

fn parse(text: &[u8]) -> Result<Vec<Algorithm>, String> {
    let words = text.split(|b| *b == b',').map(|w| w.trim_ascii()).filter(|w| !w.is_empty());
    words
        .map(|w| {
            Algorithm::parse(w)
                .ok_or_else(|| format!("unknown digest algorithm {}", String::from_utf8_lossy(w)))
        })
        .collect()
}

impl Arg<Uac> for Algorithms {
    type Prepared = Format;
    const WHAT: &'static str = "a list of digest algorithms";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<Uac>,
    ) -> Result<Format, Diagnostic> {
        let format = <Text as Arg<Uac>>::prepare(arg, site, loader, module)?;
        if let Some(text) = format.constant() {
            parse(text).map_err(|e| {
                Diagnostic::error(arg.map_or(site, |a| a.loc), e)
                    .hint("MD5, SHA-256, SHA-512-256, each with -sess")
            })?;
        }
        Ok(format)
    }

    fn eval(format: &Format, call: &mut Call<'_, Uac>) -> Result<Algorithms, i32> {
        parse(&format.text(call.ctx)).map(Algorithms).map_err(|e| {
            host::error!("uac", "{e}");
            -1
        })
    }
}

/// uac_auth([algorithms]): in a failure route, after 401 or 407. The request gets the answer, `t_relay` sends it.
pub fn uac_auth(call: &mut Call<Uac>, algorithms: Option<Algorithms>) -> i32 {
    let ctx = &mut *call.ctx;
    let (Some(id), Some(branch)) = (ctx.state.txn, ctx.state.txn_branch) else {
        host::error!("uac", "uac_auth() answers a challenge: it stands in a failure_route");
        return -1;
    };
    let Some(credentials) = ctx.shared().module::<UacAuth>() else { return -1 };
    let Some(reply) = host::tm::branch_reply(ctx, id, branch) else { return -1 };
    let algorithms = algorithms.map(|a| a.0).unwrap_or_default();
    let Some(challenged) = uac_auth::choose(&reply, &algorithms, |realm| credentials.lookup(ctx, realm))
    else {
        return -1;
    };
    let Some(uri) = ctx.txn(id).branch(branch).map(|b| b.data.target.uri.clone()) else {
        return -1;
    };
    let msg = ctx.state.msg.clone();
    let body = ctx.state.edits.body().cloned().unwrap_or_else(|| msg.text(msg.body()));
    let line = challenged.line(ctx, &msg.method_text(), &uri, &body, 1);
    ctx.state.edits.insert(Anchor::End, line);
    ctx.state.ruri = Some(uri);
    // Where there is a dialog, it numbers what follows.
    if api::number_again(ctx) {
        return 1;
    }
    if !add_to_cseq(ctx, 1) {
        return -1;
    }
    let sequential = msg.to_tag().is_some();
    let total = ctx.state.ext.find::<Done>().map_or(0, |d| d.cseq);
    if !sequential && api::current(ctx).is_none() {
        crate::rr::forget_param(ctx, format!(";{CSEQ_PARAM}={}", total - 1).as_bytes());
        crate::rr::add_param(ctx, format!(";{CSEQ_PARAM}={total}").as_bytes());
    }
    1
}

/// uac_inc_cseq(number)
pub fn inc_cseq(call: &mut Call<Uac>, more: Int) -> i32 {
    match u32::try_from(more.0) {
        Ok(more) if call.ctx.state.txn.is_some() && add_to_cseq(call.ctx, more) => 1,
        _ => -1,
    }
}

/// Makes the CSeq that leaves larger; false when it is no number.
pub fn add_to_cseq(ctx: &mut Ctx, more: u32) -> bool {
    let msg = ctx.state.msg.clone();
    let (Some((number, _)), Some(header)) = (msg.cseq_parts(), msg.header(sip::HeaderName::CSeq)) else {
        return false;
    };
    let Some(received) = std::str::from_utf8(&number).ok().and_then(|n| n.parse::<u32>().ok()) else {
        return false;
    };
    let total = ctx.state.ext.find::<Done>().map_or(0, |d| d.cseq).saturating_add(more);
    let start = header.value().start;
    let span = Span { start, end: start + number.len() as u32 };
    // An earlier change of the same number is forgotten.
    ctx.state.edits.forget(span);
    ctx.state.edits.replace(span, Bytes::from(received.wrapping_add(total).to_string()));
    replies::remember(ctx, |done| done.cseq = total);
    true
}
