//! pua_bla: bridged line appearances (draft-anil-sipping-bla): this server subscribes to each phone of a shared line and
//! publishes what they say.

use crate::pua::record::{Publication, Source, event_named};
use crate::pua::{Pua, Wish, publish, subscribe};
use crate::xml;
use bytes::Bytes;
use host::load::Loader;
use host::{Call, Ctx, Registrar, Routes};
use modules::usrloc::Usrloc;
use modules::usrloc::contact::Field;
use modules::usrloc::table::Change;
use sip::HeaderName;
use std::sync::Arc;

const EVENT: &str = "dialog;sla";
/// Seconds, where a NOTIFY says none.
const EXPIRES_S: i64 = 3600;

#[derive(Default)]
pub struct PuaBla {
    domain: Option<String>,
    header: Option<String>,
    proxy: Option<Bytes>,
    server: Option<Bytes>,
    presence_server: Option<Bytes>,
    pua: Option<Arc<Pua>>,
}

/// The address of the current REGISTER is a shared line.
#[derive(Clone, Default)]
struct Line(Option<Bytes>);

pub fn register(m: &mut Registrar<PuaBla>) {
    m.param_text("default_domain", |s, v| Ok(s.domain = Some(v.into())));
    m.param_text("header_name", |s, v| Ok(s.header = Some(v.into())));
    m.param_text("outbound_proxy", |s, v| Ok(s.proxy = Some(v.to_string().into())));
    m.param_text("server_address", |s, v| Ok(s.server = Some(v.to_string().into())));
    m.param_text("presence_server", |s, v| Ok(s.presence_server = Some(v.to_string().into())));
    m.function("bla_set_flag", Routes::REQUEST, set_flag);
    m.function("bla_handle_notify", Routes::REQUEST, handle_notify);
    m.needs(&["usrloc", "pua", "presence"]);
    m.init(init);
    m.start(|call| {
        let module = call.module.clone();
        if let Some(usrloc) = call.shared().module::<Usrloc>().filter(|_| call.core.worker == 0) {
            usrloc.watch(Arc::new(move |ctx, _, aor, changes| {
                changes.iter().for_each(|change| changed(ctx, &module, aor, change));
            }));
        }
    });
}

fn init(s: &mut PuaBla, loader: &mut Loader) -> Result<(), String> {
    if s.server.is_none() {
        return Err("server_address is not set".into());
    }
    if s.header.as_ref().is_none_or(|name| name.trim().is_empty()) {
        return Err("header_name is not set".into());
    }
    s.pua = loader.module::<Pua>();
    Ok(())
}

/// bla_set_flag(): phones that this REGISTER registers share its address.
fn set_flag(call: &mut Call<PuaBla>) -> i32 {
    let Some(from) = call.state.msg.from() else { return -1 };
    call.state.ext.set(Line(Some(from.uri)));
    1
}

fn changed(ctx: &mut Ctx, module: &PuaBla, aor: &Bytes, change: &Change) {
    let line = ctx.state.ext.find::<Line>().and_then(|line| line.0.clone());
    let (Some(_), Some(pua), Some(event)) = (line, &module.pua, event_named(EVENT)) else { return };
    let (contact, ends) = match change {
        Change::Inserted(contact) | Change::Updated(contact) => (contact, false),
        Change::Deleted(contact) => (contact, true),
        _ => return,
    };
    let aor = String::from_utf8_lossy(aor);
    let user = match (aor.contains('@'), &module.domain) {
        (true, _) => format!("sip:{aor}"),
        (false, Some(domain)) => format!("sip:{aor}@{domain}"),
        (false, None) => {
            host::error!("pua_bla", "the address {aor} has no domain: set default_domain");
            return;
        }
    };
    let now = (ctx.core.wall_us / 1_000_000) as i64;
    let received = Bytes::copy_from_slice(contact.text(Field::Received));
    let wish = Wish {
        uri: Bytes::copy_from_slice(contact.uri()),
        watcher: user.into(),
        contact: module.server.clone().unwrap_or_default(),
        event,
        source: Source::LinePhone,
        expires: if ends { 0 } else { (i64::from(contact.expires) - now).max(1) },
        id: Bytes::new(),
        proxy: module.proxy.clone().or(Some(received).filter(|uri| !uri.is_empty())),
        headers: Bytes::new(),
    };
    if !subscribe(ctx, pua, wish) {
        host::error!("pua_bla", "a phone of {aor} was not subscribed to");
    }
    ctx.state.ext.set(Line(None));
}

/// Seconds that a Subscription-State leaves; `None`: it is none.
fn seconds_of(value: &[u8]) -> Option<i64> {
    let text = String::from_utf8_lossy(value).to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    match parts.next()? {
        "terminated" => Some(0),
        "active" | "pending" => match parts.find_map(|part| part.strip_prefix("expires=")) {
            Some(seconds) => seconds.trim().parse().ok(),
            None => Some(EXPIRES_S),
        },
        _ => None,
    }
}

/// bla_handle_notify(): 1 published, or there is no body; -2 it belongs to no subscription of ours; -1 it cannot be read.
fn handle_notify(call: &mut Call<PuaBla>) -> i32 {
    let module = call.module.clone();
    let msg = call.state.msg.clone();
    let (Some(pua), Some(event)) = (&module.pua, event_named(EVENT)) else { return -1 };
    let has_tags =
        msg.to_tag().is_some_and(|t| !t.is_empty()) && msg.from_tag().is_some_and(|t| !t.is_empty());
    let (Some(to), Some(from), Some(call_id), true) = (msg.to(), msg.from(), msg.call_id(), has_tags) else {
        return -1;
    };
    let body = msg.text(msg.body());
    if body.is_empty() {
        return 1;
    }
    let is_document = xml::parse(&body)
        .is_ok_and(|root| root.is("dialog-info") && root.elements().all(|element| element.is("dialog")));
    let contact = msg.addresses(HeaderName::Contact).ok().and_then(|all| all.into_iter().next());
    let (Some(contact), true) = (contact, is_document) else { return -1 };
    // The phone is the one that was subscribed to, by the contact that it registered.
    let is_ours = pua.subscription(&contact.uri, Source::LinePhone, &call_id).is_some()
        || pua.subscription(&from.uri, Source::LinePhone, &call_id).is_some();
    if !is_ours {
        return -2;
    }
    let state = msg.headers_named(b"Subscription-State").next().map(|header| msg.text(header.value()));
    let Some(expires) = state.and_then(|value| seconds_of(&value)) else { return -1 };
    let name = module.header.as_deref().unwrap_or_default();
    let publication = Publication {
        uri: to.uri,
        id: contact.uri.clone(),
        event,
        source: Source::Line,
        expires,
        body: Some(body),
        content_type: Bytes::new(),
        etag: None,
        headers: [name.as_bytes(), b": ", &contact.uri, b"\r\n"].concat().into(),
        proxy: module.presence_server.clone(),
        is_new: false,
        done: None,
    };
    match publish(call.ctx, pua, publication) {
        Ok(()) => 1,
        Err(why) => {
            host::error!("pua_bla", "what a phone says was not published: {why:?}");
            -1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_subscriptions() {
        for (value, seconds) in [
            ("terminated;reason=timeout", Some(0)),
            ("active;expires=60", Some(60)),
            ("Pending", Some(EXPIRES_S)),
            ("odd", None),
            ("active;expires=x", None),
        ] {
            assert_eq!(seconds_of(value.as_bytes()), seconds, "{value}");
        }
    }
}
