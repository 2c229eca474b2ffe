//! topology_hiding: the ends of a call see this server and nothing behind it (compare RFC 3323, RFC 7092).
//!
//! Vias, Record-Routes and contacts are taken away where a message leaves and given back where its reply or a later
//! request passes. Where the dialog module knows the call, it knows what was taken (`with_dialog.rs`); else the
//! contact that is shown carries it (`alone.rs`, `codec.rs`). Nothing of it is kept in this module.

mod alone;
mod call_id;
mod codec;
mod headers;
mod vars;
mod with_dialog;

use crate::dialog::{Flags, Key, LegNo, api};
use bytes::Bytes;
use codec::{Carrier, Scheme};
use host::Accepts;
use host::load::Loader;
use host::shared::Hooks;
use host::stats::Stats;
use host::watch::{Moment, Seen, Told};
use host::{Call, Ctx, Outcome, Registrar, Routes, Text};
use std::rc::Rc;
use std::sync::Arc;
use transaction::Origin;

pub struct Th {
    force_dialog: bool,
    masks: Arc<call_id::Masks>,
    uri_params: Vec<String>,
    header_params: Vec<String>,
    carriers: Vec<Carrier>,
    /// Name of the carrier that encodes; `None`: the first.
    encodes: Option<String>,
    scheme: Scheme,
    caller_var: String,
    callee_var: String,
    trusted_tag: String,
    external_tag: String,
    auto_route: bool,
}

impl Default for Th {
    fn default() -> Th {
        Th {
            force_dialog: false,
            masks: Arc::default(),
            uri_params: Vec::new(),
            header_params: Vec::new(),
            carriers: Vec::new(),
            encodes: None,
            scheme: Scheme::default(),
            caller_var: "_th_contact_caller_username_var_".into(),
            callee_var: "_th_contact_callee_username_var_".into(),
            trusted_tag: String::new(),
            external_tag: String::new(),
            auto_route: true,
        }
    }
}

/// Contacts are decoded with the newest password and with the one before it.
const MAX_CARRIERS: usize = 2;

pub fn register(m: &mut Registrar<Th>) {
    m.param_int("force_dialog", |s, v| Ok(s.force_dialog = v != 0));
    m.param_text("th_callid_passwd", |s, v| match v {
        "" => Err("th_callid_passwd is empty".into()),
        v => Ok(Arc::make_mut(&mut s.masks).password = v.into()),
    });
    m.param_text("th_callid_prefix", |s, v| match v {
        "" => Err("th_callid_prefix is empty: masked Call-IDs could not be told from others".into()),
        v => Ok(Arc::make_mut(&mut s.masks).prefix = v.into()),
    });
    m.param_int("th_callid_loop_protection", |s, v| Ok(Arc::make_mut(&mut s.masks).with_tag = v != 0));
    m.param_text("th_passed_contact_uri_params", |s, v| Ok(s.uri_params = names(v)));
    m.param_text("th_passed_contact_params", |s, v| Ok(s.header_params = names(v)));
    m.param_text("th_contact_encode_param_password", |s, v| {
        if s.carriers.len() >= MAX_CARRIERS {
            return Err(format!("at most {MAX_CARRIERS} parameters carry what is hidden"));
        }
        Ok(s.carriers.push(Carrier::parse(v)?))
    });
    m.param_text("th_use_param", |s, v| Ok(s.encodes = Some(v.into())));
    // Names of before 4.0: one parameter, one password.
    m.param_text("th_contact_encode_param", |s, v| Ok(s.own_carrier().name = v.into()));
    m.param_text("th_contact_encode_passwd", |s, v| Ok(s.own_carrier().password = v.into()));
    m.param_text("th_contact_encode_scheme", |s, v| {
        let scheme = Scheme::parse(v);
        Ok(s.scheme = scheme.ok_or("th_contact_encode_scheme is base64 or base32")?)
    });
    m.param_text("th_contact_caller_username_var", |s, v| Ok(s.caller_var = v.into()));
    m.param_text("th_contact_callee_username_var", |s, v| Ok(s.callee_var = v.into()));
    m.param_text("th_internal_trusted_tag", |s, v| Ok(s.trusted_tag = v.into()));
    m.param_text("th_external_socket_tag", |s, v| Ok(s.external_tag = v.into()));
    m.param_int("th_auto_route_on_trusted_socket", |s, v| Ok(s.auto_route = v != 0));
    m.accepts(Accepts::FILLED, &["th_contact_callee_username_var", "th_contact_caller_username_var"]);
    m.accepts(Accepts::TOKEN, &["th_contact_encode_param"]);
    m.function("topology_hiding", Routes::REQUEST, topology_hiding);
    m.function("topology_hiding_match", Routes::REQUEST, topology_hiding_match);
    vars::register(m);
    m.needs(&["tm"]);
    m.init(init);
    m.ready(ready);
    m.start(|call| {
        let module = call.module.clone();
        if api::module(call.ctx).is_some() {
            with_dialog::listen(call.ctx, &module);
        }
    });
}

/// In the order in which they pass, which is that of the reference: the last one first.
fn names(list: &str) -> Vec<String> {
    list.rsplit(';').map(|name| name.trim().to_string()).filter(|name| !name.is_empty()).collect()
}

fn init(s: &mut Th, loader: &mut Loader) -> Result<(), String> {
    if s.force_dialog && !loader.is_loaded("dialog") {
        return Err("force_dialog needs module dialog".into());
    }
    if s.carriers.is_empty() {
        s.carriers.push(Carrier::default());
    }
    if let Some(name) = &s.encodes
        && !s.carriers.iter().any(|carrier| carrier.name == *name)
    {
        return Err(format!("th_use_param names {name}, which th_contact_encode_param_password does not"));
    }
    Ok(())
}

impl Th {
    fn own_carrier(&mut self) -> &mut Carrier {
        if self.carriers.is_empty() {
            self.carriers.push(Carrier::default());
        }
        &mut self.carriers[0]
    }

    /// What encodes.
    fn carrier(&self) -> &Carrier {
        let named = self.encodes.as_ref().and_then(|name| self.carriers.iter().find(|c| c.name == *name));
        named.unwrap_or(&self.carriers[0])
    }
}

/// What was hidden of a request, for its replies; kept with it and with its transaction.
#[derive(Clone, Debug, Default)]
enum Hidden {
    #[default]
    No,
    /// The dialog knows it. `first`: this request began it.
    Dialog {
        key: Key,
        towards: LegNo,
        first: bool,
    },
    Alone(Rc<alone::Request>),
}

/// Users of the contacts that the ends are shown; empty: none.
#[derive(Clone, Debug, Default)]
struct Users {
    caller: Bytes,
    callee: Bytes,
}

impl Users {
    /// "both", "/caller", "/caller/callee" or "//callee".
    fn parse(text: &Bytes) -> Users {
        let text = text.slice_ref(text.trim_ascii());
        let Some(rest) = text.strip_prefix(b"/") else { return Users { caller: text.clone(), callee: text } };
        let cut = rest.iter().position(|b| *b == b'/');
        let trimmed = |part: &[u8]| text.slice_ref(part.trim_ascii());
        match cut {
            Some(at) => Users { caller: trimmed(&rest[..at]), callee: trimmed(&rest[at + 1..]) },
            None => Users { caller: trimmed(rest), callee: Bytes::new() },
        }
    }

    fn both(&self) -> [Bytes; 2] {
        [self.caller.clone(), self.callee.clone()]
    }
}

fn remember(ctx: &mut Ctx, hidden: Hidden) {
    if let Some(ext) = ctx.state.txn.and_then(|id| ctx.ext_of(id)) {
        ext.set(hidden.clone());
    }
    ctx.state.ext.set(hidden);
}

/// Letters that are none are passed over, as in the reference.
fn flags(text: &[u8]) -> Flags {
    text.iter().fold(Flags::default(), |flags, letter| match letter {
        b'U' => flags.with(Flags::KEEP_USER),
        b'C' => flags.with(Flags::MASK_CALL_ID),
        b'D' => flags.with(Flags::DID_IN_USER),
        b'a' => flags.with(Flags::KEEP_TO_CALLER),
        b'A' => flags.with(Flags::KEEP_TO_CALLEE),
        _ => flags,
    })
}

/// topology_hiding([flags], [users])
fn topology_hiding(call: &mut Call<Th>, letters: Option<Text>, users: Option<Text>) -> i32 {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    if ctx.state.msg.to().is_none() {
        return -1;
    }
    let flags = letters.map_or(Flags::default(), |text| flags(&text));
    let users = users.map(|text| Users::parse(&text.0)).unwrap_or_default();
    let breaks = |user: &Bytes| user.iter().any(|b| b.is_ascii_control() || b" <>@\"".contains(b));
    if breaks(&users.caller) || breaks(&users.callee) {
        host::error!("topology_hiding", "this cannot be the user of a contact");
        return -1;
    }
    let mut key = api::current(ctx).map(|(key, _)| key);
    if key.is_none() && module.force_dialog {
        key = api::create(ctx, Flags::default());
        if key.is_none() {
            return -1;
        }
    }
    match key {
        Some(_) if ctx.state.msg.to_tag().is_some_and(|tag| !tag.is_empty()) => {
            host::warn!(
                "topology_hiding",
                "topology_hiding() is for first requests: use topology_hiding_match()"
            );
            -1
        }
        Some(key) => with_dialog::begin(ctx, &module, key, flags, users),
        // A second call would hide what the first one made.
        None if matches!(ctx.state.ext.find::<Hidden>(), Some(Hidden::Alone(_))) => 1,
        None => alone::begin(ctx, &module, flags, users),
    }
}

/// topology_hiding_match([mode]): 1 the request is of a hidden call and goes where that is, -1 not.
fn topology_hiding_match(call: &mut Call<Th>, mode: Option<Text>) -> Outcome {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    let Some(mode) = api::match_mode(ctx, mode.as_ref().map(|text| &text[..])) else {
        return alone::within(ctx, &module).into();
    };
    // The dialog told us already, when there is one.
    api::match_request(ctx, mode, move |ctx| match api::current(ctx) {
        Some(_) => 1,
        None => alone::within(ctx, &module),
    })
}

fn ready(module: &Arc<Th>, hooks: &mut Hooks, _: &Stats) {
    call_id::ready(&module.masks, hooks);
    hooks.watch.told(Told::Created, |ctx, seen| {
        let hidden = ctx.state.ext.find::<Hidden>().cloned();
        if let (Some(hidden), Some(ext)) = (hidden, seen.txn.and_then(|id| ctx.ext_of(id))) {
            ext.set(hidden);
        }
    });
    let of_reply = module.clone();
    hooks.watch.on(Moment::ReplyOut, move |ctx, seen| reply_out(ctx, &of_reply, seen));
    let of_local = module.clone();
    hooks.watch.on(Moment::LocalOut, move |ctx, _| with_dialog::local(ctx, &of_local)).after("dialog");
}

fn reply_out(ctx: &mut Ctx, module: &Th, seen: &Seen) {
    let Some(id) = seen.txn.filter(|_| seen.origin == Origin::Relayed) else { return };
    let Some(hidden) = ctx.ext_of(id).and_then(|ext| ext.find::<Hidden>().cloned()) else { return };
    match hidden {
        Hidden::No => {}
        Hidden::Dialog { key, towards, first } => with_dialog::reply(ctx, module, id, key, towards, first),
        Hidden::Alone(request) => alone::reply(ctx, module, id, seen.branch, &request),
    }
}
