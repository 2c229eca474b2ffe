//! presence_dialoginfo: states of calls (RFC 4235), of several phones in one document.

use crate::presence::Presence;
use crate::presence::packages::{Bodies, Extent, Package};
use crate::presence::winfo::{NUMBER, numbered};
use crate::xml::{self, Element, Node};
use bytes::Bytes;
use host::Registrar;
use std::sync::Arc;

const NAMESPACE: &str = "urn:ietf:params:xml:ns:dialog-info";

#[derive(Default)]
pub struct DialogInfo {
    single: bool,
}

pub fn register(m: &mut Registrar<DialogInfo>) {
    m.param_int("force_single_dialog", |s, v| Ok(s.single = v != 0));
    m.needs(&["presence"]);
    m.init(|s, loader| {
        let Some(presence) = loader.module::<Presence>() else { return Ok(()) };
        let single = s.single;
        presence.packages.add(Package {
            aggregate: Some(Arc::new(move |bodies| Some(aggregate(&bodies, single)))),
            empty: Some(|uri| frame(uri, Extent::Full).document()),
            numbered: Some(numbered),
            ..Package::new("dialog", "application/dialog-info+xml")
        });
        Ok(())
    });
}

fn frame(uri: &str, extent: Extent) -> Element {
    let state = if extent == Extent::Full { "full" } else { "partial" };
    Element::new("dialog-info", NAMESPACE)
        .attribute("version", NUMBER)
        .attribute("entity", uri)
        .attribute("state", state)
}

/// How much watchers want to see it: one that rings can be picked up.
fn priority(dialog: &Element) -> u8 {
    match dialog.find("state").map(|s| s.content().trim().to_ascii_lowercase()).as_deref() {
        Some("trying") => 1,
        Some("proceeding") => 2,
        Some("confirmed") => 3,
        Some("early") => 4,
        _ => 0,
    }
}

/// All dialogs of all documents, or the one that matters most.
fn aggregate(bodies: &Bodies<'_>, single: bool) -> Bytes {
    let mut root = frame(bodies.uri, bodies.extent);
    let parse = |body: &Bytes| {
        let parsed = xml::parse(body);
        if let Err(why) = &parsed {
            host::error!("presence_dialoginfo", "a document of {} is left out: {why}", bodies.uri);
        }
        parsed.ok()
    };
    let documents: Vec<Element> = bodies.published.iter().filter_map(parse).collect();
    let mut dialogs: Vec<Element> = Vec::new();
    for document in &documents {
        dialogs.extend(document.elements().cloned());
    }
    if single && documents.len() > 1 {
        // Of equal ones the first.
        let best = dialogs.iter().enumerate().max_by_key(|(at, d)| (priority(d), std::cmp::Reverse(*at)));
        let best = best.map(|(at, _)| at);
        dialogs = best.map(|at| dialogs.swap_remove(at)).into_iter().collect();
    }
    root.children.extend(dialogs.into_iter().map(Node::Element));
    root.document()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(id: &str, state: &str) -> Bytes {
        format!(
            "<dialog-info xmlns='{NAMESPACE}'><dialog id='{id}'><state>{state}</state></dialog></dialog-info>"
        )
        .into()
    }

    fn ids(states: &[&str], single: bool) -> Vec<String> {
        let published = states.iter().enumerate().map(|(n, s)| body(&n.to_string(), s)).collect();
        let uri = "sip:b@x";
        let bodies = Bodies { uri, published, ending: None, extent: Extent::Full, permanent: None };
        let root = xml::parse(&aggregate(&bodies, single)).unwrap();
        root.elements().filter_map(|d| d.get("id").map(str::to_string)).collect()
    }

    #[test]
    fn several_dialogs() {
        assert_eq!(ids(&["confirmed", "early"], false), ["0", "1"]);
        assert_eq!(ids(&["confirmed", "early", "trying"], true), ["1"]);
        assert_eq!(ids(&["confirmed", "confirmed"], true), ["0"]);
        assert!(ids(&[], true).is_empty());
    }

    #[test]
    fn a_document_without_dialogs() {
        let text = String::from_utf8(frame("sip:b@x", Extent::Full).document().to_vec()).unwrap();
        assert!(text.contains(" entity=\"sip:b@x\" state=\"full\"/>"), "{text}");
    }
}
