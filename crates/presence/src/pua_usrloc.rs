//! pua_usrloc: who is registered is published as present.

use crate::pua::record::{EVENTS, Publication, Source};
use crate::pua::{Pua, Refused, publish};
use crate::xml::Element;
use bytes::Bytes;
use host::{Call, Ctx, Registrar, Routes};
use modules::usrloc::Usrloc;
use modules::usrloc::contact::{Contact, Field};
use modules::usrloc::table::Change;
use std::sync::Arc;

#[derive(Default)]
pub struct PuaUsrloc {
    domain: String,
    prefix: Option<String>,
    server: Option<Bytes>,
}

/// The REGISTER of the current message is published.
#[derive(Clone, Copy, Default)]
struct Marked(bool);

pub fn register(m: &mut Registrar<PuaUsrloc>) {
    m.param_text("default_domain", |s, v| Ok(s.domain = v.into()));
    m.param_text("entity_prefix", |s, v| Ok(s.prefix = Some(v.into())));
    m.param_text("presence_server", |s, v| Ok(s.server = Some(v.to_string().into())));
    m.function("pua_set_publish", Routes::REQUEST, |call: &mut Call<PuaUsrloc>| {
        call.state.ext.set(Marked(true));
        1
    });
    m.needs(&["pua", "usrloc"]);
    m.start(|call| {
        let shared = call.shared().clone();
        let (Some(usrloc), Some(pua)) = (shared.module::<Usrloc>(), shared.module::<Pua>()) else { return };
        if call.core.worker == 0 {
            let module = call.module.clone();
            usrloc.watch(Arc::new(move |ctx, _, aor, changes| {
                changes.iter().for_each(|change| changed(ctx, &module, &pua, aor, change));
            }));
        }
    });
}

/// "user@domain" of an address of record.
fn full(module: &PuaUsrloc, aor: &Bytes) -> String {
    let aor = String::from_utf8_lossy(aor);
    if aor.contains('@') { aor.into_owned() } else { format!("{aor}@{}", module.domain) }
}

/// A contact came, was refreshed, or is gone. One that has expired is always told of, the others when the script wants it.
fn changed(ctx: &mut Ctx, module: &PuaUsrloc, pua: &Arc<Pua>, aor: &Bytes, change: &Change) {
    let now = ctx.core.wall_us / 1_000_000;
    let has_expired = |c: &Contact| c.expires != 0 && u64::from(c.expires) <= now;
    let (contact, ends) = match change {
        Change::Inserted(contact) | Change::Updated(contact) => (contact, false),
        Change::Deleted(contact) => (contact, true),
        _ => return,
    };
    let expired = ends && has_expired(contact);
    let is_marked = ctx.state.ext.find::<Marked>().is_some_and(|marked| marked.0);
    if !expired && !is_marked {
        return;
    }
    let user = full(module, aor);
    let left = i64::from(contact.expires) - now as i64;
    let publication = |is_new: bool| Publication {
        uri: format!("sip:{user}").into(),
        id: Bytes::copy_from_slice(contact.text(Field::CallId)),
        event: EVENTS[0],
        source: Source::Usrloc,
        expires: match (ends, contact.expires) {
            (true, _) => 0,
            (false, 0) => -1,
            (false, _) => left.max(1),
        },
        body: is_new.then(|| document(module, &user)),
        content_type: Bytes::new(),
        etag: None,
        headers: Bytes::new(),
        proxy: module.server.clone(),
        is_new,
        done: None,
    };
    let is_first = matches!(change, Change::Inserted(_));
    let mut sent = publish(ctx, pua, publication(is_first));
    // It was registered before somebody wanted it told.
    if sent == Err(Refused::NoBody) && !ends {
        sent = publish(ctx, pua, publication(true));
    }
    if let Err(why) = sent
        && why != Refused::NoRecord
    {
        host::error!("pua_usrloc", "the state of {user} was not published: {why}");
    }
    if !expired {
        ctx.state.ext.set(Marked(false));
    }
}

fn document(module: &PuaUsrloc, user: &str) -> Bytes {
    const PIDF: &str = "urn:ietf:params:xml:ns:pidf";
    let entity = match &module.prefix {
        Some(prefix) => format!("{prefix}:{user}"),
        None => user.to_string(),
    };
    let status = Element::new("status", PIDF).child(Element::new("basic", PIDF).text("open"));
    let tuple = Element::new("tuple", PIDF).child(status);
    Element::new("presence", PIDF).attribute("entity", entity).child(tuple).document()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_somebody_registered() {
        let module = PuaUsrloc { domain: "x.org".into(), prefix: Some("pres".into()), server: None };
        let user = full(&module, &Bytes::from_static(b"alice"));
        let text = String::from_utf8(document(&module, &user).to_vec()).unwrap();
        assert!(
            text.contains("entity=\"pres:alice@x.org\"") && text.contains("<basic>open</basic>"),
            "{text}"
        );
        assert_eq!(full(&module, &Bytes::from_static(b"a@y")), "a@y");
    }
}
