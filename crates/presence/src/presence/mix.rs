//! Presence out of dialogs (`mix_dialog_presence`): who is in a call is shown so, whatever the phone says.

use crate::xml::{self, Element};
use bytes::Bytes;

const PIDF: &str = "urn:ietf:params:xml:ns:pidf";
const DATA_MODEL: &str = "urn:ietf:params:xml:ns:pidf:data-model";
const RPID: &str = "urn:ietf:params:xml:ns:pidf:rpid";

/// State of the first dialog of a document (RFC 4235).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DialogState {
    Trying,
    Early,
    Confirmed,
    Terminated,
}

impl DialogState {
    /// `None`: the document has no dialog, or one whose state is unknown.
    pub fn of_body(body: &[u8]) -> Option<DialogState> {
        let root = xml::parse(body).ok()?;
        let state = root.find("dialog")?.first("state")?.content();
        Some(match state.trim().to_ascii_lowercase().as_str() {
            "trying" => DialogState::Trying,
            "early" => DialogState::Early,
            "confirmed" => DialogState::Confirmed,
            "terminated" => DialogState::Terminated,
            _ => return None,
        })
    }

    /// The presence that it means; `None`: it means none.
    pub fn presence(self, uri: &str) -> Option<Bytes> {
        let note = match self {
            DialogState::Trying | DialogState::Early => "Proceeding",
            DialogState::Confirmed => "On the phone",
            DialogState::Terminated => return None,
        };
        let activities = Element::prefixed("rpid", "activities", RPID).child(Element::prefixed(
            "rpid",
            "on-the-phone",
            RPID,
        ));
        let person = Element::prefixed("dm", "person", DATA_MODEL)
            .attribute("id", "pers_mixingid")
            .child(activities)
            .child(Element::prefixed("dm", "note", DATA_MODEL).text(note));
        let root = presence(uri, "open").child(Element::new("note", PIDF).text(note)).child(person);
        Some(root.document())
    }
}

/// The most telling of several documents, oldest first: a confirmed dialog, else the newest that rings.
pub fn state_of(bodies: &[Bytes]) -> Option<DialogState> {
    let states = || bodies.iter().rev().filter_map(|body| DialogState::of_body(body));
    let confirmed = states().find(|s| *s == DialogState::Confirmed);
    confirmed.or_else(|| states().find(|s| *s != DialogState::Terminated))
}

fn presence(uri: &str, basic: &str) -> Element {
    let status = Element::new("status", PIDF).child(Element::new("basic", PIDF).text(basic));
    let tuple = Element::new("tuple", PIDF).attribute("id", "tuple_mixingid").child(status);
    Element::new("presence", PIDF).attribute("entity", uri).child(tuple)
}

/// Nobody has published anything (`notify_offline_body`).
pub fn offline(uri: &str) -> Bytes {
    presence(uri, "closed").document()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialog(state: &str) -> Bytes {
        format!(
            "<dialog-info xmlns='urn:ietf:params:xml:ns:dialog-info'><dialog id='1'><state>{state}</state></dialog>\
             </dialog-info>"
        )
        .into()
    }

    #[test]
    fn the_call_that_counts() {
        for (states, wanted) in [
            (&["early", "confirmed", "trying"][..], Some(DialogState::Confirmed)),
            (&["early", "terminated"], Some(DialogState::Early)),
            (&["terminated"], None),
            (&["odd"], None),
            (&[], None),
        ] {
            let bodies: Vec<Bytes> = states.iter().map(|s| dialog(s)).collect();
            assert_eq!(state_of(&bodies), wanted, "{states:?}");
        }
    }

    #[test]
    fn somebody_in_a_call() {
        let body = DialogState::Confirmed.presence("sip:bob@x").unwrap();
        let root = xml::parse(&body).unwrap();
        assert_eq!(root.first("note").map(Element::content).as_deref(), Some("On the phone"));
        assert!(root.find("on-the-phone").is_some());
        assert!(DialogState::Terminated.presence("sip:bob@x").is_none());
    }
}
