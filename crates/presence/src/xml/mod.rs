//! XML documents of presence: a small tree, read within bounds and printed again. Documents with a DOCTYPE are refused, so
//! there are no entities but the five that XML has.

mod print;
mod read;
mod script;

use std::sync::Arc;

pub use read::{XmlError, parse};
pub use script::{Xml, register};

/// Largest document, bytes.
pub const MAX_BYTES: usize = 256 * 1024;
/// Elements inside one another.
pub const MAX_DEPTH: usize = 64;
/// Elements, attributes and texts of one document.
pub const MAX_NODES: usize = 20_000;

/// An attribute other than a namespace declaration.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    pub prefix: Box<str>,
    /// Empty without a prefix.
    pub namespace: Arc<str>,
    pub name: Box<str>,
    pub value: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Element(Element),
    Text(String),
}

/// An element. Namespaces are resolved: it can be put into any other document and is printed with what it needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    pub prefix: Box<str>,
    /// URI; empty for none.
    pub namespace: Arc<str>,
    pub name: Box<str>,
    pub attributes: Vec<Attribute>,
    pub children: Vec<Node>,
    /// Declarations that stood here: values may name a prefix that no tag uses.
    declared: Vec<(Box<str>, Arc<str>)>,
}

impl Element {
    /// Without a prefix.
    pub fn new(name: &str, namespace: &str) -> Element {
        Element::prefixed("", name, namespace)
    }

    pub fn prefixed(prefix: &str, name: &str, namespace: &str) -> Element {
        Element {
            prefix: prefix.into(),
            namespace: namespace.into(),
            name: name.into(),
            attributes: Vec::new(),
            children: Vec::new(),
            declared: Vec::new(),
        }
    }

    pub fn attribute(mut self, name: &str, value: impl Into<String>) -> Element {
        self.set(name, value);
        self
    }

    pub fn child(mut self, child: Element) -> Element {
        self.children.push(Node::Element(child));
        self
    }

    pub fn text(mut self, text: impl Into<String>) -> Element {
        self.children.push(Node::Text(text.into()));
        self
    }

    /// Writes an attribute without a prefix.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        match self.attributes.iter_mut().find(|a| a.prefix.is_empty() && *a.name == *name) {
            Some(attribute) => attribute.value = value,
            None => self.attributes.push(Attribute {
                prefix: Box::default(),
                namespace: Arc::default(),
                name: name.into(),
                value,
            }),
        }
    }

    /// Whatever the case of its letters.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|a| a.name.eq_ignore_ascii_case(name)).map(|a| &*a.value)
    }

    /// Is it called so, whatever the case and the namespace?
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    pub fn elements(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// The first child of this name.
    pub fn first(&self, name: &str) -> Option<&Element> {
        self.elements().find(|e| e.is(name))
    }

    /// The first element of this name, this one included, in the order of the document.
    pub fn find(&self, name: &str) -> Option<&Element> {
        if self.is(name) {
            return Some(self);
        }
        self.elements().find_map(|e| e.find(name))
    }

    pub fn find_mut(&mut self, name: &str) -> Option<&mut Element> {
        if self.is(name) {
            return Some(self);
        }
        self.children.iter_mut().find_map(|node| match node {
            Node::Element(element) => element.find_mut(name),
            Node::Text(_) => None,
        })
    }

    /// All text in it.
    pub fn content(&self) -> String {
        let mut all = String::new();
        self.collect(&mut all);
        all
    }

    fn collect(&self, into: &mut String) {
        for node in &self.children {
            match node {
                Node::Element(element) => element.collect(into),
                Node::Text(text) => into.push_str(text),
            }
        }
    }

    /// Itself without children.
    pub fn shell(&self) -> Element {
        Element { children: Vec::new(), ..self.clone() }
    }

    /// Keeps the child elements that `keep` says, and all texts.
    pub fn retain(&mut self, mut keep: impl FnMut(&Element) -> bool) {
        self.children.retain(|node| match node {
            Node::Element(element) => keep(element),
            Node::Text(_) => true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> String {
        let root = parse(text.as_bytes()).expect(text);
        String::from_utf8(root.document().to_vec()).expect("UTF-8")
    }

    #[test]
    fn a_document_comes_out_as_it_went_in() {
        let text =
            "<?xml version=\"1.0\"?>\n<a xmlns=\"urn:a\" x=\"1 &lt; 2\"><b>t &amp; &#65;</b><c/></a>\n";
        assert_eq!(printed(text), text.replace("&#65;", "A"));
    }

    #[test]
    fn an_element_takes_its_namespaces_along() {
        let root = parse(b"<a xmlns='urn:a' xmlns:r='urn:r'><b><r:x r:y='1'/></b></a>").unwrap();
        let part = root.first("b").unwrap().clone();
        let new = Element::new("a", "urn:a").child(part);
        let text = String::from_utf8(new.document().to_vec()).unwrap();
        assert!(
            text.ends_with("<a xmlns=\"urn:a\"><b><r:x xmlns:r=\"urn:r\" r:y=\"1\"/></b></a>\n"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_document_is_refused() {
        let deep = "<a>".repeat(MAX_DEPTH + 1);
        let many = format!("<a>{}</a>", "<b/>".repeat(MAX_NODES));
        for bad in [
            "",
            "no xml",
            "<a><b></a>",
            "<a/><b/>",
            "<a>",
            "<a x=1/>",
            "<a x='1' x='2'/>",
            "<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>",
            "<a>&e;</a>",
            "<a/>text",
            &deep,
            &many,
        ] {
            let short = &bad[..bad.len().min(40)];
            assert!(parse(bad.as_bytes()).is_err(), "{short}");
        }
        assert!(parse(&vec![b' '; MAX_BYTES + 1]).is_err());
        assert!(parse(b"<a>\xff</a>").is_err());
    }

    #[test]
    fn looking_up() {
        let root = parse(b"<p><Tuple id='1'><s><basic>open</basic></s></Tuple><n>x</n></p>").unwrap();
        assert_eq!(root.find("basic").map(Element::content).as_deref(), Some("open"));
        assert_eq!(root.first("tuple").and_then(|t| t.get("ID")), Some("1"));
        assert!(root.first("basic").is_none());
        assert_eq!(root.content(), "openx");
    }
}
