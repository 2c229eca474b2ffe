//! What a watcher sees of a document (RFC 5025 §3.3).

use crate::xml::{self, Element};
use bytes::Bytes;

/// The document after the transformations of a rule; `None`: it stays as it is.
pub fn apply(transformations: &Element, body: &Bytes) -> Option<Bytes> {
    let mut root = xml::parse(body).ok()?;
    for provision in transformations.elements() {
        let Some(what) = provision.name.strip_prefix("provide-") else { continue };
        match (what, &*provision.content().trim().to_ascii_lowercase()) {
            (_, "true") => {}
            (_, "false") => remove(&mut root, kind_of(what)),
            ("services" | "persons" | "devices", _) => {
                let all = provision.elements().any(|e| e.name.strip_prefix("all-") == Some(what));
                let kind = kind_of(what);
                root.retain(|e| all || !e.is(kind) || provision.elements().any(|wanted| fits(wanted, e)));
            }
            _ => {}
        }
    }
    Some(root.document())
}

fn kind_of(what: &str) -> &str {
    match what {
        "services" => "tuple",
        "persons" => "person",
        "devices" => "device",
        other => other,
    }
}

/// Removes all elements of a name, wherever they stand.
fn remove(element: &mut Element, name: &str) {
    element.retain(|e| !e.is(name));
    for node in &mut element.children {
        if let xml::Node::Element(child) = node {
            remove(child, name);
        }
    }
}

/// Does a wish of the rule mean this tuple, person or device?
fn fits(wanted: &Element, element: &Element) -> bool {
    let content = wanted.content();
    let content = content.trim();
    let holds =
        |name: &str| element.find(name).is_some_and(|e| e.content().trim().eq_ignore_ascii_case(content));
    match &*wanted.name {
        "class" => holds("class"),
        "deviceID" => holds("deviceID"),
        // The reference writes it with one r.
        "occurrence-id" | "occurence-id" => {
            element.get("id").is_some_and(|id| id.eq_ignore_ascii_case(content))
        }
        "service-uri" => holds("contact"),
        "service-uri-scheme" => element.find("contact").is_some_and(|contact| {
            let contact = contact.content();
            contact.trim().split_once(':').is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case(content))
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "<presence xmlns='urn:ietf:params:xml:ns:pidf' xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model' \
        xmlns:r='urn:ietf:params:xml:ns:pidf:rpid'><tuple id='a'><status/><contact>sip:a@x</contact></tuple>\
        <tuple id='b'><status/><r:class>work</r:class><contact>mailto:b@x</contact></tuple>\
        <dm:person id='p'><r:activities/><r:mood/></dm:person><dm:device id='d'/></presence>";

    fn shown(transformations: &str) -> String {
        let text = format!("<transformations>{transformations}</transformations>");
        let rule = xml::parse(text.as_bytes()).unwrap();
        let body = apply(&rule, &Bytes::from_static(BODY.as_bytes())).unwrap();
        let root = xml::parse(&body).unwrap();
        let mut ids: Vec<&str> = root.elements().filter_map(|e| e.get("id")).collect();
        ids.extend(["activities", "mood"].into_iter().filter(|name| root.find(name).is_some()));
        ids.join(" ")
    }

    #[test]
    fn what_is_provided() {
        for (transformations, wanted) in [
            ("", "a b p d activities mood"),
            ("<provide-services><all-services/></provide-services>", "a b p d activities mood"),
            ("<provide-services/>", "p d activities mood"),
            ("<provide-services><class>work</class></provide-services>", "b p d activities mood"),
            (
                "<provide-services><service-uri-scheme>sip</service-uri-scheme></provide-services>",
                "a p d activities mood",
            ),
            (
                "<provide-services><occurrence-id>b</occurrence-id></provide-services>",
                "b p d activities mood",
            ),
            ("<provide-persons/><provide-devices/>", "a b"),
            (
                "<provide-activities>false</provide-activities><provide-mood>true</provide-mood>",
                "a b p d mood",
            ),
            ("<provide-persons>FALSE</provide-persons>", "a b d"),
        ] {
            assert_eq!(shown(transformations), wanted, "{transformations}");
        }
    }
}
