//! xcap: documents of users (RFC 4825) in a table, for modules that go by them.

use crate::xml::Element;
use bytes::Bytes;
use host::Registrar;
use host::db::{Db, Name, Pool, Proof, Query};
use std::rc::Rc;

/// Kinds of documents, with the numbers of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DocumentKind {
    PresRules = 1 << 1,
    ResourceLists = 1 << 2,
    RlsServices = 1 << 3,
    PidfManipulation = 1 << 4,
    OmaPresRules = 1 << 5,
}

pub struct Xcap {
    url: Option<String>,
    db: Option<Db>,
    table: Name,
    /// The table is the server's; else it is what was fetched.
    pub integrated: bool,
}

impl Default for Xcap {
    fn default() -> Xcap {
        Xcap { url: None, db: None, table: "xcap".into(), integrated: false }
    }
}

pub fn register(m: &mut Registrar<Xcap>) {
    m.param_text("db_url", |s, v| Ok(s.url = Some(v.into())));
    m.param_text("xcap_table", |s, v| Ok(s.table = v.to_string().into()));
    m.param_int("integrated_xcap_server", |s, v| Ok(s.integrated = v != 0));
    m.init(|s: &mut Xcap, loader| {
        s.db = loader.db_or_default(s.url.as_deref())?;
        if s.db.is_none() { Err("db_url is not set".into()) } else { Ok(()) }
    });
    m.ready(|module, hooks, _| {
        if let Some(db) = &module.db {
            hooks.proves(Proof::of_version("xcap", db, &module.table, 4));
        }
    });
}

impl Xcap {
    /// A worker's connections; there are some once it is loaded.
    pub fn pool(&self, ctx: &mut host::Ctx) -> Option<Rc<dyn Pool>> {
        self.db.as_ref().map(|db| db.on(ctx))
    }

    /// The database; there is one once it is loaded.
    pub fn database(&self) -> Option<&Db> {
        self.db.as_ref()
    }

    /// Asks for one column of a user's document of a kind; `file`: of this name only.
    pub fn query(&self, user: &Bytes, domain: &Bytes, kind: DocumentKind, file: Option<&Bytes>) -> Query {
        let query = Query::select(&self.table)
            .columns(["doc", "etag"])
            .eq("username", user.clone())
            .eq("domain", domain.clone())
            .eq("doc_type", kind as i64);
        let query = match file {
            Some(file) if !file.is_empty() => query.eq("doc_uri", file.clone()),
            _ => query,
        };
        query.limit(1)
    }
}

/// A URI in a document as SIP writes it: escapes undone, "sip:" before it where no scheme is.
pub fn normalized(uri: &str) -> String {
    let uri = unescaped(uri);
    match ["sip:", "sips:", "tel:"].iter().any(|scheme| uri.starts_with(scheme)) {
        true => uri,
        false => format!("sip:{uri}"),
    }
}

fn unescaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|b| (*b as char).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (byte, hex(0), hex(1)) {
            out.push((high * 16 + low) as u8);
            rest = &after[2..];
            continue;
        }
        out.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A document's address (RFC 4825 §6).
#[derive(Clone, Debug, PartialEq)]
pub struct Address {
    pub auid: String,
    /// Of a user; else of all.
    pub user: Option<String>,
    pub file: String,
    /// What of the document, after `/~~`.
    pub selector: Option<String>,
}

impl Address {
    /// `None`: it is none.
    pub fn parse(uri: &str) -> Option<Address> {
        let uri = unescaped(uri);
        let (path, selector) = match uri.split_once("/~~/") {
            Some((path, selector)) => (path, Some(format!("/{selector}"))),
            None => (&*uri, None),
        };
        let (root, user, rest) = match (path.split_once("/global/"), path.split_once("/users/")) {
            (Some((root, rest)), _) => (root, None, rest),
            (None, Some((root, rest))) => {
                let (user, rest) = rest.split_once('/')?;
                (root, Some(user.to_string()), rest)
            }
            (None, None) => return None,
        };
        let auid = root.rsplit('/').next().unwrap_or_default().to_string();
        Some(Address { auid, user, file: rest.to_string(), selector })
    }
}

/// The element that a selector means: steps of names, each with the number or an attribute of which of several.
/// `None`: there is none.
pub fn select<'a>(root: &'a Element, selector: &str) -> Option<&'a Element> {
    let mut steps = selector.split('/').filter(|step| !step.is_empty());
    let step = Step::parse(steps.next()?)?;
    let mut found = Some(root).filter(|root| step.fits(root))?;
    for step in steps {
        let step = Step::parse(step)?;
        found = found.elements().filter(|e| step.fits(e)).nth(step.at)?;
    }
    Some(found)
}

struct Step<'a> {
    name: &'a str,
    attribute: Option<(&'a str, &'a str)>,
    /// Of several, from 0.
    at: usize,
}

impl Step<'_> {
    fn parse(text: &str) -> Option<Step<'_>> {
        let (name, which) = match text.split_once('[') {
            Some((name, which)) => (name, Some(which.strip_suffix(']')?)),
            None => (text, None),
        };
        let name = name.rsplit(':').next()?;
        let attribute =
            which.and_then(|w| w.strip_prefix('@')).map(|w| w.split_once('=')).map_or(Some(None), |w| {
                let (name, value) = w?;
                Some(Some((name, value.trim_matches(['"', '\''].as_slice()))))
            })?;
        let at = which.and_then(|w| w.parse::<usize>().ok()).map_or(0, |n| n.saturating_sub(1));
        Some(Step { name, attribute, at })
    }

    fn fits(&self, element: &Element) -> bool {
        let has = |(name, value): (&str, &str)| element.get(name) == Some(value);
        (self.name == "*" || *element.name == *self.name) && self.attribute.is_none_or(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let found = Address::parse(
            "http://x.org/xcap-root/resource-lists/users/sip:bob@x.org/index/~~/resource-lists/list%5b@name=%22a%22%5d",
        );
        let wanted = Address {
            auid: "resource-lists".into(),
            user: Some("sip:bob@x.org".into()),
            file: "index".into(),
            selector: Some("/resource-lists/list[@name=\"a\"]".into()),
        };
        assert_eq!(found, Some(wanted));
        assert_eq!(Address::parse("/a/global/index").and_then(|a| a.user), None);
        assert_eq!(Address::parse("http://x.org/nothing"), None);
    }

    #[test]
    fn selectors() {
        let text = b"<lists><list name='a'><entry uri='1'/></list><list name='b'><entry uri='2'/><entry uri='3'/></list></lists>";
        let root = crate::xml::parse(text).unwrap();
        let uri = |selector| select(&root, selector).and_then(|e| e.get("uri"));
        assert_eq!(uri("/lists/list[@name=\"b\"]/entry[2]"), Some("3"));
        assert_eq!(uri("/lists/list[1]/entry"), Some("1"));
        assert_eq!(uri("/lists/list[@name='c']/entry"), None);
        assert_eq!(uri("/other/list/entry"), None);
    }

    #[test]
    fn uris() {
        assert_eq!(normalized("bob%40x"), "sip:bob@x");
        assert_eq!(normalized("sips:bob@x"), "sips:bob@x");
        assert_eq!(unescaped("100%"), "100%");
    }
}
