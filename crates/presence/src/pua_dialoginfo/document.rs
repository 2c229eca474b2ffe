//! The document of one side of a call.

use super::{Party, PuaDialogInfo};
use crate::xml::Element;
use bytes::Bytes;

const NAMESPACE: &str = "urn:ietf:params:xml:ns:dialog-info";

/// Which end of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Caller,
    Callee,
}

/// A moment of a call, seen from one end.
pub struct View<'a> {
    pub id: &'a str,
    pub call_id: &'a [u8],
    pub state: &'a str,
    pub end: End,
    pub own: &'a Party,
    pub other: &'a Party,
    pub own_tag: &'a [u8],
    pub other_tag: &'a [u8],
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn party(name: &str, party: &Party) -> Element {
    let mut identity = Element::new("identity", NAMESPACE).text(text(&party.uri));
    if !party.name.is_empty() {
        identity.set("display", text(&party.name));
    }
    let target = Element::new("target", NAMESPACE).attribute("uri", text(&party.uri));
    Element::new(name, NAMESPACE).child(identity).child(target)
}

/// `number`: of the document, where the server wants one.
pub fn of(module: &PuaDialogInfo, view: &View<'_>, number: Option<u32>) -> Bytes {
    let mut dialog = Element::new("dialog", NAMESPACE).attribute("id", view.id);
    if module.callid {
        dialog.set("call-id", text(view.call_id));
    }
    if module.tags {
        for (name, tag) in [("local-tag", view.own_tag), ("remote-tag", view.other_tag)] {
            if !tag.is_empty() {
                dialog.set(name, text(tag));
            }
        }
    }
    dialog.set("direction", if view.end == End::Caller { "initiator" } else { "recipient" });
    let mut dialog = dialog.child(Element::new("state", NAMESPACE).text(view.state));
    if module.parties {
        dialog = dialog.child(party("remote", view.other)).child(party("local", view.own));
    }
    let mut root = Element::new("dialog-info", NAMESPACE)
        .attribute("state", "partial")
        .attribute("entity", text(&view.own.uri));
    if let Some(number) = number {
        root.set("version", number.to_string());
    }
    root.child(dialog).document()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_document_says() {
        let (alice, bob) = (
            Party { uri: "sip:alice@x".into(), name: "Alice".into() },
            Party { uri: "sip:bob@x".into(), name: Bytes::new() },
        );
        let view = View {
            id: "c.0",
            call_id: b"c",
            state: "early",
            end: End::Callee,
            own: &bob,
            other: &alice,
            own_tag: b"t",
            other_tag: b"",
        };
        let printed =
            |module: &PuaDialogInfo, number| String::from_utf8(of(module, &view, number).to_vec()).unwrap();
        let all = printed(&PuaDialogInfo::default(), None);
        for part in [
            "entity=\"sip:bob@x\"",
            "local-tag=\"t\" direction=\"recipient\"",
            "<state>early</state>",
            "<remote><identity display=\"Alice\">sip:alice@x</identity>",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
        let bare = PuaDialogInfo { callid: false, tags: false, parties: false, ..PuaDialogInfo::default() };
        let bare = printed(&bare, Some(3));
        assert!(
            bare.contains("version=\"3\"") && !bare.contains("call-id") && !bare.contains("remote"),
            "{bare}"
        );
    }
}
