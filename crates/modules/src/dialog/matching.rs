//! Finding the dialog of a request that belongs to one: by the identity in our Route, or by Call-ID and tags.

use super::cell::LegNo;
use super::did::Did;
use super::table::{self, Key};
use super::{Dlg, MatchMode};
use host::Ctx;

/// The dialog of the current message by Call-ID and tags, and the end it goes to (RFC 3261 §12.2.2).
pub fn by_elements(ctx: &mut Ctx) -> Option<(Key, LegNo)> {
    let msg = ctx.state.msg.clone();
    let (call_id, from, to) = (msg.call_id()?, msg.from_tag()?, msg.to_tag()?);
    let table = table::of(ctx);
    let fits = |key: Key| Some((key, table.get(key)?.towards(&from, &to)?));
    // A dialog that ended gives way to one with the same elements that lives.
    let mut found: Vec<(Key, LegNo)> = table.by_call_id(&call_id).filter_map(fits).collect();
    found.sort_by_key(|(key, _)| table.get(*key).is_none_or(|d| d.state == super::State::Ended));
    found.first().copied()
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

/// Finds the dialog of the current request. `given`: an identity that stands elsewhere than in our Route
/// (topology hiding keeps it in the R-URI).
pub fn find(ctx: &mut Ctx, module: &Dlg, mode: MatchMode, given: Option<&[u8]>) -> Option<(Key, LegNo)> {
    if mode == MatchMode::DidNone {
        return by_elements(ctx);
    }
    let param = match given {
        Some(text) => Some(bytes::Bytes::copy_from_slice(text)),
        None => crate::rr::route_params(ctx)
            .and_then(|text| sip::Params { text }.value(module.rr_param.as_bytes())),
    };
    let Some(param) = param else {
        return if mode == MatchMode::DidOnly { None } else { by_elements(ctx) };
    };
    let did = Did::parse(&param)?;
    match by_did(ctx, did) {
        Some(found) => Some(found),
        None if mode == MatchMode::DidFallback => by_elements(ctx),
        None => None,
    }
}
