//! Finding the dialog of a request that belongs to one: by the identity in our Route, or by Call-ID and tags.

use super::cell::LegNo;
use super::did::Did;
use super::table::{self, Key};
use super::{Dlg, MatchMode};
use bytes::Bytes;
use host::Ctx;
use sip::{HeaderName, Uri};

/// The dialog of the current message by Call-ID and tags, and the end it goes to (RFC 3261 §12.2.2).
pub fn by_elements(ctx: &mut Ctx) -> Option<(Key, LegNo)> {
    let msg = ctx.state.msg.clone();
    let (call_id, from, to) = (msg.call_id()?, msg.from_tag()?, msg.to_tag()?);
    let table = table::of(ctx);
    // One that ended may have been an attempt before, with the same Call-ID and tag of the caller.
    let living = |key: Key| table.get(key).filter(|d| d.state != super::State::Ended);
    let fits = |key: Key| Some((key, living(key)?.towards(&from, &to)?));
    table.by_call_id(&call_id).find_map(fits)
}

/// The same by the identity that a Route carries; the tags must fit too.
fn by_did(ctx: &mut Ctx, did: Did) -> Option<(Key, LegNo)> {
    let msg = ctx.state.msg.clone();
    let (call_id, from, to) = (msg.call_id()?, msg.from_tag()?, msg.to_tag()?);
    let table = table::of(ctx);
    let key = table.by_did(did)?;
    let dialog = table.get(key).filter(|d| *d.call_id == call_id[..])?;
    Some((key, dialog.towards(&from, &to)?))
}

/// The identity that the current request brings: in a contact of ours, or in our Route.
pub fn identity(ctx: &Ctx, module: &Dlg) -> Option<Bytes> {
    in_uri(ctx, module).or_else(|| {
        let text = crate::rr::route_params(ctx)?;
        sip::Params { text }.value(module.rr_param.as_bytes())
    })
}

/// The identity in a R-URI that is a contact of ours, made by topology hiding: a parameter, or behind a dot in its user.
fn in_uri(ctx: &Ctx, module: &Dlg) -> Option<Bytes> {
    if ctx.state.msg.header(HeaderName::Route).is_some() {
        return None;
    }
    let uri = Uri::parse(&ctx.state.current_uri()).ok()?;
    if !ctx.core.shared.is_own(&uri) {
        return None;
    }
    let name = module.rr_param.as_bytes();
    uri.params.value(name).or_else(|| {
        let (user, mark) = (uri.user?, [b".", name, b"."].concat());
        let at = memchr::memmem::find(&user, &mark)?;
        Some(user.slice(at + mark.len()..))
    })
}

/// Finds the dialog of the current request.
pub fn find(ctx: &mut Ctx, module: &Dlg, mode: MatchMode) -> Option<(Key, LegNo)> {
    if mode == MatchMode::DidNone {
        return by_elements(ctx);
    }
    let Some(param) = identity(ctx, module) else {
        return if mode == MatchMode::DidOnly { None } else { by_elements(ctx) };
    };
    let did = Did::parse(&param)?;
    match by_did(ctx, did) {
        Some(found) => Some(found),
        None if mode == MatchMode::DidFallback => by_elements(ctx),
        None => None,
    }
}
