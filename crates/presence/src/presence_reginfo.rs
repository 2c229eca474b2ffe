//! presence_reginfo: who is registered, and with which contacts (RFC 3680).

use crate::presence::Presence;
use crate::presence::packages::{Bodies, Package};
use crate::presence::winfo::NUMBER;
use crate::xml::{self, Element, Node};
use bytes::Bytes;
use host::Registrar;
use std::sync::Arc;

pub const EVENT: &str = "reg";
pub const NAMESPACE: &str = "urn:ietf:params:xml:ns:reginfo";
pub const CONTENT_TYPE: &str = "application/reginfo+xml";

pub struct PresenceReginfo {
    default_expires: u32,
    aggregates: bool,
}

impl Default for PresenceReginfo {
    fn default() -> PresenceReginfo {
        PresenceReginfo { default_expires: 3600, aggregates: false }
    }
}

pub fn register(m: &mut Registrar<PresenceReginfo>) {
    m.param_int("default_expires", |s, v| {
        s.default_expires = u32::try_from(v).ok().filter(|v| *v > 0).unwrap_or(3600);
        Ok(())
    });
    m.param_int("aggregate_presentities", |s, v| Ok(s.aggregates = v != 0));
    m.needs(&["presence"]);
    m.init(|s, loader| {
        let Some(presence) = loader.module::<Presence>() else { return Ok(()) };
        let mut package = Package {
            default_expires: s.default_expires,
            numbered: Some(numbered),
            ..Package::new(EVENT, CONTENT_TYPE)
        };
        if s.aggregates {
            package.aggregate = Some(Arc::new(|bodies| aggregate(&bodies)));
        }
        presence.packages.add(package);
        Ok(())
    });
}

/// The root of a document, without a number.
pub fn frame() -> Element {
    Element::new("reginfo", NAMESPACE).attribute("version", NUMBER).attribute("state", "full")
}

/// Each watcher has numbers of its own (RFC 3680 §5.1): the one that the document brought gives way.
fn numbered(body: &Bytes, number: u32) -> Option<Bytes> {
    const VERSION: &[u8] = b"version=\"";
    let root = memchr::memmem::find(body, b"reginfo")?;
    let from = root + memchr::memmem::find(&body[root..], VERSION)? + VERSION.len();
    let to = from + memchr::memchr(b'"', &body[from..])?;
    Some([&body[..from], number.to_string().as_bytes(), &body[to..]].concat().into())
}

/// All registrations of all documents.
fn aggregate(bodies: &Bodies<'_>) -> Option<Bytes> {
    let mut root = frame();
    let mut any = false;
    for body in &bodies.published {
        match xml::parse(body) {
            Ok(document) => {
                any = true;
                root.children.extend(document.elements().cloned().map(Node::Element));
            }
            Err(why) => {
                host::error!("presence_reginfo", "a document of {} is left out: {why}", bodies.uri);
            }
        }
    }
    any.then(|| root.document())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::packages::Extent;

    #[test]
    fn documents_are_numbered_for_each_watcher() {
        let body = Bytes::from_static(b"<?xml version=\"1.0\"?><reginfo version=\"7\" state=\"full\"/>");
        let found = numbered(&body, 12).unwrap();
        assert_eq!(&found[..], b"<?xml version=\"1.0\"?><reginfo version=\"12\" state=\"full\"/>");
        assert_eq!(numbered(&Bytes::from_static(b"<reginfo/>"), 1), None);
    }

    #[test]
    fn registrations_of_several_sources() {
        let body = |id: &str| {
            Bytes::from(format!("<reginfo xmlns='{NAMESPACE}'><registration id='{id}'/></reginfo>"))
        };
        let bodies = |published| Bodies {
            uri: "sip:b@x",
            published,
            ending: None,
            extent: Extent::Full,
            permanent: None,
        };
        let all = aggregate(&bodies(vec![body("1"), Bytes::from_static(b"odd"), body("2")])).unwrap();
        let root = xml::parse(&all).unwrap();
        let ids: Vec<_> = root.elements().filter_map(|e| e.get("id")).collect();
        assert_eq!(ids, ["1", "2"]);
        assert!(aggregate(&bodies(Vec::new())).is_none());
    }
}
