//! uac_replace_from, uac_replace_to and their undoing in requests.

use super::{Done, Restore, Uac, cookie};
use crate::dialog::{CALLER, Key, api};
use bytes::Bytes;
use host::{Call, Ctx, Text};
use script::ast::{Dialect, RouteKind};
use sip::{Anchor, NameAddr, Span};

/// From or To.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    From,
    To,
}

impl Side {
    pub fn address(self, ctx: &Ctx) -> Option<NameAddr> {
        match self {
            Side::From => ctx.state.msg.from(),
            Side::To => ctx.state.msg.to(),
        }
    }

    fn param(self, module: &Uac) -> &str {
        match self {
            Side::From => &module.from_param,
            Side::To => &module.to_param,
        }
    }
}

/// A function was called twice where that cannot work.
const TWICE: i32 = -10;

pub fn from_uri(call: &mut Call<Uac>, uri: Text) -> i32 {
    replace(call, Side::From, None, uri.0)
}

pub fn from_both(call: &mut Call<Uac>, display: Option<Text>, uri: Text) -> i32 {
    replace(call, Side::From, display.map(|d| d.0), uri.0)
}

pub fn to_uri(call: &mut Call<Uac>, uri: Text) -> i32 {
    replace(call, Side::To, None, uri.0)
}

pub fn to_both(call: &mut Call<Uac>, display: Option<Text>, uri: Text) -> i32 {
    replace(call, Side::To, display.map(|d| d.0), uri.0)
}

/// A display name as it can stand in a header: quoted, unless it is one token.
fn quoted(display: &Bytes) -> Bytes {
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(b);
    let is_quoted = display.len() >= 2 && display.starts_with(b"\"") && display.ends_with(b"\"");
    if is_quoted || display.iter().all(token) {
        return display.clone();
    }
    [b"\"", &display[..], b"\""].concat().into()
}

/// The brackets belong to a span of a URI.
fn with_brackets(address: &NameAddr) -> Span {
    let span = address.uri_span;
    if address.bracketed { Span { start: span.start - 1, end: span.end + 1 } } else { span }
}

fn replace(call: &mut Call<Uac>, side: Side, display: Option<Bytes>, uri: Bytes) -> i32 {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    let kind = ctx.state.kind;
    let done = ctx.state.ext.entry::<Done>();
    let main = match side {
        Side::From => &mut done.main_from,
        Side::To => &mut done.main_to,
    };
    if *main && kind != RouteKind::Failure {
        let name = match side {
            Side::From => "from",
            Side::To => "to",
        };
        host::error!("uac", "uac_replace_{name}() was called before for this request");
        return TWICE;
    }
    *main |= kind == RouteKind::Request;
    let breaks = |text: &Bytes| text.iter().any(|b| matches!(b, b'\r' | b'\n' | 0));
    if breaks(&uri) || display.as_ref().is_some_and(breaks) {
        host::error!("uac", "a line end cannot stand in From or To");
        return -1;
    }
    let sequential = ctx.state.msg.to_tag().is_some();
    if module.restore == Restore::Auto && !uri.is_empty() && sequential {
        host::error!(
            "uac",
            "From and To of requests inside a dialog are replaced by the mode \"auto\" itself"
        );
        return -1;
    }
    let Some(address) = side.address(ctx) else { return -1 };
    let new_uri: Option<Bytes> = (!uri.is_empty()).then(|| [b"<", &uri[..], b">"].concat().into());
    if let Some(display) = display {
        set_display(ctx, &address, &quoted(&display), new_uri.is_some());
    }
    let Some(new_uri) = new_uri else { return 1 };
    ctx.state.edits.replace(with_brackets(&address), new_uri.clone());
    if module.restore == Restore::None {
        return 1;
    }
    if module.restore == Restore::Auto && in_dialog(ctx, &module, side, &uri) {
        super::replies::remember(ctx, |done| match side {
            Side::From => done.from = true,
            Side::To => done.to = true,
        });
        return 1;
    }
    // 2.1 mixes the URIs without brackets.
    let mixed = if ctx.core.shared.dialect == Dialect::V21 { &uri } else { &new_uri };
    let value = cookie::encode(&address.uri, mixed, module.password.as_bytes());
    let param = format!(";{}={value}", side.param(&module));
    crate::rr::add_param(ctx, param.as_bytes());
    super::replies::remember(ctx, |done| match side {
        Side::From => done.from = true,
        Side::To => done.to = true,
    });
    1
}

/// With a dialog the new URI is kept there, and our Record-Route stays as it is.
fn in_dialog(ctx: &mut Ctx, module: &Uac, side: Side, uri: &Bytes) -> bool {
    let found = api::current(ctx).map(|(key, _)| key);
    let key = match found {
        None if module.force_dialog => api::create(ctx, Default::default()),
        found => found,
    };
    let Some(key) = key else { return false };
    let Some(dialog) = api::get(ctx, key) else { return false };
    let shown = Some(uri[..].into());
    match side {
        Side::From => dialog.shown_from = shown,
        Side::To => dialog.shown_to = shown,
    }
    api::touch(ctx, key);
    true
}

/// Each worker follows requests inside dialogs: their URIs are those that the receiver knows.
pub fn start(call: &mut Call<Uac>) {
    if call.module.restore != Restore::Auto {
        return;
    }
    let listener = |ctx: &mut Ctx, told: &api::Told| {
        if told.event == api::Event::RequestWithin || told.event == api::Event::Terminated {
            restore_in_dialog(ctx, told.key);
        }
    };
    api::listen(call.ctx, std::rc::Rc::new(listener));
}

fn restore_in_dialog(ctx: &mut Ctx, key: Key) {
    let (Some((own, towards)), true) = (api::current(ctx), ctx.state.msg.is_request()) else { return };
    if own != key || ctx.state.kind != RouteKind::Request {
        return;
    }
    let Some(dialog) = api::get(ctx, key) else { return };
    let copy = |text: &[u8]| Bytes::copy_from_slice(text);
    let changed =
        [(Side::From, &dialog.shown_from, &dialog.from_uri), (Side::To, &dialog.shown_to, &dialog.to_uri)];
    let changed =
        changed.map(|(side, shown, own)| shown.as_deref().map(|shown| (side, copy(shown), copy(own))));
    for (what, shown, own) in changed.into_iter().flatten() {
        let downstream = towards != CALLER;
        let (side, uri) = match (what, downstream) {
            (side, true) => (side, shown),
            (Side::From, false) => (Side::To, own),
            (Side::To, false) => (Side::From, own),
        };
        let Some(address) = side.address(ctx) else { continue };
        let text: Bytes = [b"<", &uri[..], b">"].concat().into();
        ctx.state.edits.replace(with_brackets(&address), text);
        super::replies::remember(ctx, |done| match side {
            Side::From => done.from = true,
            Side::To => done.to = true,
        });
    }
}

/// Replaces, adds or (empty) removes the display name.
fn set_display(ctx: &mut Ctx, address: &NameAddr, display: &Bytes, uri_follows: bool) {
    let msg = ctx.state.msg.clone();
    let edits = &mut ctx.state.edits;
    if !address.display.is_empty() {
        let span =
            msg.bytes(address.whole).windows(address.display.len()).position(|w| w == &address.display[..]);
        let start = address.whole.start + span.unwrap_or(0) as u32;
        let span = Span { start, end: start + address.display.len() as u32 };
        return if display.is_empty() { edits.delete(span) } else { edits.replace(span, display.clone()) };
    }
    if display.is_empty() {
        return;
    }
    let at = Anchor::At(with_brackets(address).start);
    if address.bracketed {
        edits.insert(at, [&display[..], b" "].concat());
    } else if uri_follows {
        edits.insert(at, display.clone());
    } else {
        edits.insert(at, [&display[..], b" <"].concat());
        edits.insert(Anchor::At(address.uri_span.end), &b">"[..]);
    }
}

pub fn restore_from(call: &mut Call<Uac>) -> i32 {
    let module = call.module.clone();
    restored(restore(call.ctx, &module, Side::From))
}

pub fn restore_to(call: &mut Call<Uac>) -> i32 {
    let module = call.module.clone();
    restored(restore(call.ctx, &module, Side::To))
}

fn restored(side: Option<Side>) -> i32 {
    if side.is_some() { 1 } else { -1 }
}

/// Gives a later request of the dialog the URI that its receiver knows. `what`: which header the first request
/// had replaced; upstream it is the other one here. Which header was changed; `None`: nothing to restore.
pub fn restore(ctx: &mut Ctx, module: &Uac, what: Side) -> Option<Side> {
    let params = sip::Params { text: crate::rr::route_params(ctx)? };
    let value = params.value(what.param(module).as_bytes())?;
    let downstream = crate::rr::is_downstream(ctx);
    let side = match (what, downstream) {
        (Side::From, true) | (Side::To, false) => Side::From,
        (Side::To, true) | (Side::From, false) => Side::To,
    };
    let address = side.address(ctx)?;
    let bare = downstream || ctx.core.shared.dialect == Dialect::V21;
    let known: Bytes =
        if bare { address.uri.clone() } else { [b"<", &address.uri[..], b">"].concat().into() };
    let Some(other) = cookie::decode(&value, &known, module.password.as_bytes()) else {
        host::info!(
            "uac",
            "the {side:?} URI {} is not the one that was replaced",
            String::from_utf8_lossy(&address.uri)
        );
        return None;
    };
    let span = if downstream && ctx.core.shared.dialect == Dialect::V4 {
        with_brackets(&address)
    } else {
        address.uri_span
    };
    ctx.state.edits.replace(span, other);
    Some(side)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_are_quoted_when_they_must() {
        for (given, expected) in [
            ("Only", "Only"),
            ("New Name", "\"New Name\""),
            ("\"Quoted\"", "\"Quoted\""),
            ("a@b", "\"a@b\""),
            ("", ""),
        ] {
            assert_eq!(quoted(&Bytes::from(given)), expected.as_bytes());
        }
    }
}
