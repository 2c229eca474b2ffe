//! Lines that phones share (dialog;sla): dialogs of several phones in one document.

use crate::presence::packages::Bodies;
use crate::xml::{self, Element, Node};
use bytes::Bytes;

/// The newest document, and the dialogs of older ones that it does not have.
pub fn aggregate(bodies: Bodies<'_>, generates_offline: bool) -> Option<Bytes> {
    let mut documents = Vec::new();
    for (at, body) in bodies.published.iter().enumerate() {
        let mut document = match xml::parse(body) {
            Ok(document) => document,
            Err(why) => {
                host::error!("presence_xml", "dialogs of {} are not told: {why}", bodies.uri);
                return None;
            }
        };
        if bodies.ending == Some(at) && generates_offline && document.find("dialog").is_some() {
            let state = document.find_mut("dialog").and_then(|dialog| dialog.find_mut("state"))?;
            state.children = vec![Node::Text("terminated".into())];
        }
        documents.push(document);
    }
    let mut root = documents.pop().filter(|root| root.is("dialog-info"))?;
    for older in documents.iter().rev().filter(|d| d.is("dialog-info")) {
        let id = older.first("dialog").and_then(|dialog| dialog.get("id"));
        let same = |dialog: &Element| {
            dialog.is("dialog") && dialog.get("id").zip(id).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
        };
        if !root.elements().any(same) {
            let dialogs: Vec<Node> = older.elements().cloned().map(Node::Element).collect();
            root.children.extend(dialogs);
        }
    }
    Some(root.document())
}

/// The document with the number of a watcher's NOTIFY.
pub fn numbered(body: &Bytes, number: u32) -> Option<Bytes> {
    let mut root = xml::parse(body).ok()?;
    root.find_mut("dialog-info")?.set("version", number.to_string());
    Some(root.document())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::packages::Extent;

    const NAMESPACE: &str = "urn:ietf:params:xml:ns:dialog-info";

    fn body(id: &str) -> Bytes {
        format!("<dialog-info xmlns='{NAMESPACE}' version='9'><dialog id='{id}'><state>early</state></dialog></dialog-info>")
            .into()
    }

    #[test]
    fn phones_of_a_group() {
        let published = vec![body("1"), body("2"), body("1")];
        let bodies =
            Bodies { uri: "sip:g@x", published, ending: Some(2), extent: Extent::Full, permanent: None };
        let root = xml::parse(&numbered(&aggregate(bodies, true).unwrap(), 4).unwrap()).unwrap();
        assert_eq!(root.get("version"), Some("4"));
        let states: Vec<_> = root.elements().map(|d| (d.get("id").unwrap(), d.content())).collect();
        assert_eq!(states, [("1", "terminated".to_string()), ("2", "early".to_string())]);
    }
}
