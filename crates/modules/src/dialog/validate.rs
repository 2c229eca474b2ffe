//! validate_dialog and fix_route_dialog: requests inside a dialog against what is known of it.

use super::cell::Leg;
use super::{Dlg, State, create, link, table};
use bytes::Bytes;
use host::{Call, Ctx};
use sip::{Anchor, HeaderName, Method, NameAddr, Uri};

const BAD_CSEQ: i32 = -1;
const BAD_TARGET: i32 = -2;
const BAD_ROUTES: i32 = -3;
const OTHER: i32 = -4;

/// validate_dialog(): 1, or -1 CSeq, -2 target, -3 route set, -4 there is no dialog or the request is broken.
pub fn validate_dialog(call: &mut Call<Dlg>) -> i32 {
    let ctx = &mut *call.ctx;
    let Some((key, towards)) = link::own(ctx) else { return OTHER };
    let msg = ctx.state.msg.clone();
    let Some(number) = create::number(&msg) else { return OTHER };
    let table = table::of(ctx);
    let Some(dialog) = table.get(key) else { return OTHER };
    let Some(leg) = dialog.leg(towards) else { return OTHER };
    let fits = if msg.method() == Method::Ack {
        dialog.leg(dialog.other(towards)).is_some_and(|from| from.invite_cseq == number)
    } else {
        number > leg.previous_cseq.unwrap_or(leg.cseq)
    };
    if !fits {
        return BAD_CSEQ;
    }
    if dialog.state <= State::Early || dialog.flags.has(super::Flags::HIDDEN) {
        return 1;
    }
    let (contact, routes) = (Bytes::copy_from_slice(&leg.contact), leg.route_uris());
    // After loose_route the request is as it leaves: its target is the R-URI, its routes what is left of them.
    if !contact.is_empty() && !same_uri(&ctx.state.current_uri(), &contact) {
        return BAD_TARGET;
    }
    let left = routes_left(ctx);
    let same = left.len() == routes.len() && left.iter().zip(&routes).all(|(a, b)| same_uri(a, b));
    if same { 1 } else { BAD_ROUTES }
}

fn same_uri(a: &Bytes, b: &Bytes) -> bool {
    match (Uri::parse(a), Uri::parse(b)) {
        (Ok(a), Ok(b)) => a.equals(&b),
        _ => a == b,
    }
}

/// URIs of the Routes that still stand in the request.
fn routes_left(ctx: &Ctx) -> Vec<Bytes> {
    let msg = &ctx.state.msg;
    let mut left = Vec::new();
    for header in msg.headers_of(HeaderName::Route) {
        if ctx.state.edits.is_deleted(header.whole()) {
            continue;
        }
        for addr in NameAddr::parse_list(&msg.text(header.value())).unwrap_or_default() {
            let start = header.value().start + addr.whole.start;
            if !crate::rr::is_dropped(ctx, start) {
                left.push(addr.uri);
            }
        }
    }
    left
}

/// fix_route_dialog(): the request gets the target and the routes that the dialog knows; -1 without a dialog.
pub fn fix_route_dialog(call: &mut Call<Dlg>) -> i32 {
    let ctx = &mut *call.ctx;
    let Some((key, towards)) = link::own(ctx) else { return -1 };
    let Some(leg) = table::of(ctx).get(key).and_then(|d| d.leg(towards)).cloned() else { return -1 };
    route_to(ctx, &leg);
    1
}

/// Sends the current request to an end by its route set (RFC 3261 §12.2.1.1).
pub fn route_to(ctx: &mut Ctx, leg: &Leg) {
    let msg = ctx.state.msg.clone();
    for header in msg.headers_of(HeaderName::Route) {
        if !ctx.state.edits.is_deleted(header.whole()) {
            ctx.state.edits.delete(header.whole());
        }
    }
    let way = super::request::Way::to(leg);
    if !way.uri.is_empty() {
        ctx.state.ruri = Some(way.uri);
    }
    ctx.state.dst_uri = way.next_hop;
    if !way.headers.is_empty() {
        ctx.state.edits.insert(Anchor::Top, way.headers);
    }
}
