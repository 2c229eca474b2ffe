//! Reading.

use super::{Attribute, Element, MAX_BYTES, MAX_DEPTH, MAX_NODES, Node};
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};
use std::fmt;
use std::sync::Arc;

/// Why a text is no document that is taken.
#[derive(Clone, Debug, PartialEq)]
pub enum XmlError {
    /// More than [`MAX_BYTES`], [`MAX_DEPTH`] or [`MAX_NODES`].
    TooLarge,
    /// DOCTYPE, or an entity that XML does not have itself.
    Entities,
    Malformed(String),
}

impl fmt::Display for XmlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            XmlError::TooLarge => write!(
                f,
                "it is too large (at most {} KB, {MAX_NODES} nodes, {MAX_DEPTH} deep)",
                MAX_BYTES / 1024
            ),
            XmlError::Entities => f.write_str("it has a DOCTYPE or entities of its own, which are not taken"),
            XmlError::Malformed(why) => write!(f, "it is no well-formed XML: {why}"),
        }
    }
}

fn malformed(why: impl fmt::Display) -> XmlError {
    XmlError::Malformed(why.to_string())
}

/// The root element of a document in UTF-8.
pub fn parse(text: &[u8]) -> Result<Element, XmlError> {
    if text.len() > MAX_BYTES {
        return Err(XmlError::TooLarge);
    }
    let text = std::str::from_utf8(text).map_err(|_| malformed("it is not UTF-8"))?;
    let mut reader = quick_xml::Reader::from_str(text.trim_start_matches('\u{feff}'));
    reader.config_mut().check_end_names = true;
    let mut tree = Tree::default();
    loop {
        match reader.read_event().map_err(malformed)? {
            Event::Start(tag) => tree.open(&tag)?,
            Event::Empty(tag) => {
                tree.open(&tag)?;
                tree.close()?;
            }
            Event::End(_) => tree.close()?,
            Event::Text(text) => tree.text(&text.xml_content(XmlVersion::Implicit1_0))?,
            Event::CData(text) => tree.text(&text.xml_content(XmlVersion::Implicit1_0))?,
            Event::GeneralRef(name) => match name.resolve_char_ref().map_err(malformed)? {
                Some(char) => tree.text(char.encode_utf8(&mut [0; 4]))?,
                None => {
                    let name = name.into_inner();
                    tree.text(resolve_predefined_entity(&name).ok_or(XmlError::Entities)?)?;
                }
            },
            Event::DocType(_) => return Err(XmlError::Entities),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => return tree.root(),
        }
    }
}

#[derive(Default)]
struct Tree {
    open: Vec<Element>,
    /// Namespaces that hold now, and the depth at which each was declared.
    scopes: Vec<(usize, Box<str>, Arc<str>)>,
    root: Option<Element>,
    nodes: usize,
}

fn split(name: &str) -> (&str, &str) {
    name.split_once(':').unwrap_or(("", name))
}

impl Tree {
    fn count(&mut self) -> Result<(), XmlError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES { Err(XmlError::TooLarge) } else { Ok(()) }
    }

    fn open(&mut self, tag: &BytesStart<'_>) -> Result<(), XmlError> {
        self.count()?;
        if self.open.len() >= MAX_DEPTH {
            return Err(XmlError::TooLarge);
        }
        if self.root.is_some() {
            return Err(malformed("there is a second root"));
        }
        let depth = self.open.len();
        let mut plain = Vec::new();
        let mut declared = Vec::new();
        for attribute in tag.attributes() {
            self.count()?;
            let attribute = attribute.map_err(malformed)?;
            let value =
                attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|_| XmlError::Entities)?;
            let name: &str = attribute.key.as_ref();
            let prefix = match split(name) {
                ("", "xmlns") => "",
                ("xmlns", prefix) => prefix,
                _ => {
                    plain.push((name.to_string(), value.into_owned()));
                    continue;
                }
            };
            let namespace: Arc<str> = (&*value).into();
            self.scopes.push((depth, prefix.into(), namespace.clone()));
            declared.push((prefix.into(), namespace));
        }
        let name = tag.name();
        let (prefix, local) = split(name.as_ref());
        let mut element = Element::prefixed(prefix, local, "");
        element.namespace = self.resolve(prefix);
        element.declared = declared;
        for (name, value) in plain {
            let (prefix, local) = split(&name);
            let namespace = if prefix.is_empty() { Arc::default() } else { self.resolve(prefix) };
            element.attributes.push(Attribute {
                prefix: prefix.into(),
                namespace,
                name: local.into(),
                value,
            });
        }
        self.open.push(element);
        Ok(())
    }

    fn resolve(&self, prefix: &str) -> Arc<str> {
        if prefix == "xml" {
            return super::print::XML.into();
        }
        let found = self.scopes.iter().rev().find(|(_, p, _)| **p == *prefix);
        found.map(|(.., namespace)| namespace.clone()).unwrap_or_default()
    }

    fn close(&mut self) -> Result<(), XmlError> {
        let element = self.open.pop().ok_or_else(|| malformed("an end without a start"))?;
        let depth = self.open.len();
        self.scopes.retain(|(declared, ..)| *declared < depth);
        match self.open.last_mut() {
            Some(parent) => parent.children.push(Node::Element(element)),
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), XmlError> {
        let Some(parent) = self.open.last_mut() else {
            return if text.trim().is_empty() {
                Ok(())
            } else {
                Err(malformed("there is text around the root"))
            };
        };
        if let Some(Node::Text(last)) = parent.children.last_mut() {
            last.push_str(text);
            return Ok(());
        }
        parent.children.push(Node::Text(text.to_string()));
        self.count()
    }

    fn root(self) -> Result<Element, XmlError> {
        match self.root {
            Some(root) if self.open.is_empty() => Ok(root),
            _ => Err(malformed("it ends too early")),
        }
    }
}
