//! PIDF documents (RFC 3863, 4479, 4480) of several devices as one.

use crate::presence::packages::Bodies;
use crate::xml::{self, Element, Node};
use bytes::Bytes;

pub const PIDF: &str = "urn:ietf:params:xml:ns:pidf";
const DATA_MODEL: &str = "urn:ietf:params:xml:ns:pidf:data-model";

/// Kinds of elements, in the order in which a document has them.
#[derive(Default)]
struct Heaps {
    tuples: Vec<Element>,
    notes: Vec<Element>,
    persons: Vec<Element>,
    devices: Vec<Element>,
    others: Vec<Element>,
}

impl Heaps {
    /// Ids are unique in the whole document: of two elements with one id the first stays.
    fn has(&self, id: &str) -> bool {
        let mut all = self.tuples.iter().chain(&self.persons).chain(&self.devices);
        all.any(|e| e.get("id").is_some_and(|other| other.eq_ignore_ascii_case(id)))
    }

    /// False: an element lacks its id.
    fn add(&mut self, element: &Element) -> bool {
        let namespace = &*element.namespace;
        let heap: fn(&mut Heaps) -> &mut Vec<Element> =
            if element.is("tuple") && namespace.eq_ignore_ascii_case(PIDF) {
                |h| &mut h.tuples
            } else if element.is("note") && namespace.eq_ignore_ascii_case(PIDF) {
                self.notes.push(element.clone());
                return true;
            } else if element.is("person") && namespace.eq_ignore_ascii_case(DATA_MODEL) {
                |h| &mut h.persons
            } else if element.is("device") && namespace.eq_ignore_ascii_case(DATA_MODEL) {
                |h| &mut h.devices
            } else {
                self.others.push(element.clone());
                return true;
            };
        let Some(id) = element.get("id") else { return false };
        if !self.has(id) {
            heap(self).push(element.clone());
        }
        true
    }
}

/// The newest document first: what it says of a tuple counts.
pub fn aggregate(bodies: Bodies<'_>, generates_offline: bool) -> Option<Bytes> {
    let mut documents = Vec::new();
    // One bad source must not silence the others.
    let mut bad = false;
    for (at, body) in bodies.published.iter().chain(&bodies.permanent).enumerate() {
        let document = match xml::parse(body) {
            Ok(document) => document,
            Err(why) => {
                host::error!("presence_xml", "a document of {} is left out: {why}", bodies.uri);
                bad = true;
                continue;
            }
        };
        match bodies.ending == Some(at) && generates_offline {
            true => documents.extend(offline(document)),
            false => documents.push(document),
        }
    }
    if documents.is_empty() {
        return None;
    }
    let mut heaps = Heaps::default();
    let mut told = false;
    for document in documents.iter().rev() {
        if !document.is("presence") || !document.namespace.eq_ignore_ascii_case(PIDF) {
            host::error!("presence_xml", "a document of {} is left out: it is no presence", bodies.uri);
            continue;
        }
        let complete = document.elements().all(|element| Heaps::default().add(element));
        if !complete {
            host::error!("presence_xml", "a document of {} is left out: an id is missing", bodies.uri);
            bad = true;
            continue;
        }
        document.elements().for_each(|element| {
            heaps.add(element);
        });
        told = true;
    }
    if bad && !told {
        return None;
    }
    let mut root = Element::new("presence", PIDF).attribute("entity", bodies.uri);
    for heap in [heaps.tuples, heaps.notes, heaps.persons, heaps.devices, heaps.others] {
        root.children.extend(heap.into_iter().map(Node::Element));
    }
    Some(root.document())
}

/// The last word of a source: its first tuple, closed, and nothing else.
fn offline(mut document: Element) -> Option<Element> {
    document.find_mut("basic")?.children = vec![Node::Text("closed".into())];
    let status = document.find("status")?.clone();
    let tuple = document.find("tuple")?.shell().child(status);
    Some(document.find("presence")?.shell().child(tuple))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::packages::Extent;

    fn body(tuple: &str, basic: &str, more: &str) -> Bytes {
        format!(
            "<presence xmlns='{PIDF}' xmlns:dm='{DATA_MODEL}' entity='sip:b@x'><tuple id='{tuple}'><status><basic>{basic}\
             </basic></status><note>n</note></tuple>{more}</presence>"
        )
        .into()
    }

    fn merged(published: Vec<Bytes>, ending: Option<usize>) -> Option<String> {
        let bodies = Bodies { uri: "sip:b@x", published, ending, extent: Extent::Full, permanent: None };
        aggregate(bodies, true).map(|b| String::from_utf8(b.to_vec()).unwrap())
    }

    #[test]
    fn devices_are_one_document() {
        let person = "<dm:person id='p'/>";
        let text = merged(vec![body("a", "open", person), body("b", "closed", person)], None).unwrap();
        let order = ["id=\"b\"", "id=\"a\"", "<dm:person"].map(|part| text.find(part).expect(part));
        assert!(order.is_sorted(), "{text}");
        assert_eq!(text.matches("<dm:person").count(), 1);
    }

    #[test]
    fn a_source_that_leaves_is_closed() {
        let text = merged(vec![body("a", "open", "<note>x</note>")], Some(0)).unwrap();
        assert!(text.contains("<basic>closed</basic>") && !text.contains("note"), "{text}");
        assert_eq!(merged(Vec::new(), None), None);
        assert_eq!(merged(vec![Bytes::from_static(b"<presence/>")], Some(0)), None);
    }

    #[test]
    fn what_is_no_presence_is_left_out() {
        let other = Bytes::from_static(b"<other/>");
        let text = merged(vec![other, body("a", "open", "")], None).unwrap();
        assert!(text.contains("id=\"a\"") && !text.contains("other"), "{text}");
        let nameless = Bytes::from(format!("<presence xmlns='{PIDF}'><tuple/></presence>"));
        assert_eq!(merged(vec![nameless.clone()], None), None);
        let text = merged(vec![nameless, Bytes::from_static(b"<a"), body("a", "open", "")], None).unwrap();
        assert!(text.contains("id=\"a\"") && text.contains("open"), "{text}");
    }
}
