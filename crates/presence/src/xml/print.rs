//! Printing: namespaces are declared where they are needed first.

use super::{Element, Node};
use bytes::Bytes;
use quick_xml::escape::{escape, partial_escape};
use std::sync::Arc;

/// The namespace of `xml:`, which nobody declares.
pub const XML: &str = "http://www.w3.org/XML/1998/namespace";

impl Element {
    /// A whole document with this root.
    pub fn document(&self) -> Bytes {
        let mut out = String::from("<?xml version=\"1.0\"?>\n");
        self.print(&mut out, &mut vec![("".into(), "".into())]);
        out.push('\n');
        out.into()
    }

    fn print(&self, out: &mut String, scopes: &mut Vec<(Box<str>, Arc<str>)>) {
        let outer = scopes.len();
        out.push('<');
        put_name(out, &self.prefix, &self.name);
        let used = self.attributes.iter().map(|a| (&a.prefix, &a.namespace)).filter(|(p, _)| !p.is_empty());
        let needed = std::iter::once((&self.prefix, &self.namespace)).chain(used);
        let declared = self.declared.iter().map(|(p, n)| (p, n));
        for (prefix, namespace) in needed.chain(declared) {
            declare(out, scopes, outer, prefix, namespace);
        }
        for attribute in &self.attributes {
            out.push(' ');
            put_name(out, &attribute.prefix, &attribute.name);
            put_value(out, &attribute.value);
        }
        if self.children.is_empty() {
            out.push_str("/>");
        } else {
            out.push('>');
            for node in &self.children {
                match node {
                    Node::Element(element) => element.print(out, scopes),
                    Node::Text(text) => out.push_str(&partial_escape(text.as_str())),
                }
            }
            out.push_str("</");
            put_name(out, &self.prefix, &self.name);
            out.push('>');
        }
        scopes.truncate(outer);
    }
}

fn put_name(out: &mut String, prefix: &str, name: &str) {
    if !prefix.is_empty() {
        out.push_str(prefix);
        out.push(':');
    }
    out.push_str(name);
}

fn put_value(out: &mut String, value: &str) {
    out.push_str("=\"");
    // Line ends in values would be read as blanks.
    out.push_str(&escape(value).replace('\n', "&#10;").replace('\r', "&#13;").replace('\t', "&#9;"));
    out.push('"');
}

/// Declares a prefix unless it means that already; one element declares a prefix once.
fn declare(
    out: &mut String,
    scopes: &mut Vec<(Box<str>, Arc<str>)>,
    outer: usize,
    prefix: &str,
    namespace: &Arc<str>,
) {
    let known = scopes.iter().rposition(|(p, _)| **p == *prefix);
    let means_it = known.is_some_and(|at| scopes[at].1 == *namespace);
    let declared_here = known.is_some_and(|at| at >= outer);
    // A prefix without a namespace was never declared; it stays as it was.
    let undeclared = !prefix.is_empty() && namespace.is_empty();
    if means_it || declared_here || undeclared || **namespace == *XML {
        return;
    }
    out.push_str(" xmlns");
    if !prefix.is_empty() {
        out.push(':');
        out.push_str(prefix);
    }
    put_value(out, namespace);
    scopes.push((prefix.into(), namespace.clone()));
}
