//! JSON values that can be shared and changed in place; numbers keep the text they were written as.

use bytes::Bytes;
use std::cell::RefCell;
use std::rc::Rc;

/// Arrays and objects inside each other, as json-c has it.
pub const DEPTH: usize = 32;

pub type Node = Rc<RefCell<Json>>;

#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Int(i64),
    /// A number that is no integer, as written.
    Float(Bytes),
    Text(Bytes),
    Array(Vec<Node>),
    /// In the order in which keys were added.
    Object(Vec<(Bytes, Node)>),
}

/// How a value is printed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Style {
    /// `{ "a": [ 1, 2 ] }`
    Spaced,
    /// `{"a":[1,2]}`
    Compact,
    /// The same with plain slashes.
    CompactNoEscape,
    Pretty,
}

pub fn node(json: Json) -> Node {
    Rc::new(RefCell::new(json))
}

impl Json {
    /// The value of a key.
    pub fn key(&self, name: &[u8]) -> Option<Node> {
        match self {
            Json::Object(pairs) => pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()),
            _ => None,
        }
    }

    /// A copy that shares nothing.
    pub fn copy(&self) -> Json {
        match self {
            Json::Array(items) => Json::Array(items.iter().map(|item| node(item.borrow().copy())).collect()),
            Json::Object(pairs) => {
                let pair = |(key, value): &(Bytes, Node)| (key.clone(), node(value.borrow().copy()));
                Json::Object(pairs.iter().map(pair).collect())
            }
            plain => plain.clone(),
        }
    }

    /// What it holds, however deep, including `other`.
    pub fn holds(&self, other: &Node) -> bool {
        let inside = |node: &Node| Rc::ptr_eq(node, other) || node.borrow().holds(other);
        match self {
            Json::Array(items) => items.iter().any(inside),
            Json::Object(pairs) => pairs.iter().any(|(_, value)| inside(value)),
            _ => false,
        }
    }

    /// Arrays and objects inside each other; 0 for a plain value.
    pub fn depth(&self) -> usize {
        let deepest = |nodes: &mut dyn Iterator<Item = &Node>| {
            1 + nodes.map(|node| node.borrow().depth()).max().unwrap_or(0)
        };
        match self {
            Json::Array(items) => deepest(&mut items.iter()),
            Json::Object(pairs) => deepest(&mut pairs.iter().map(|(_, value)| value)),
            _ => 0,
        }
    }

    pub fn print(&self, style: Style) -> Bytes {
        let mut out = Vec::with_capacity(128);
        self.write(&mut out, style, 0);
        out.into()
    }

    fn write(&self, out: &mut Vec<u8>, style: Style, level: usize) {
        match self {
            Json::Null => out.extend(b"null"),
            Json::Bool(true) => out.extend(b"true"),
            Json::Bool(false) => out.extend(b"false"),
            Json::Int(n) => out.extend(n.to_string().as_bytes()),
            Json::Float(text) => out.extend(text),
            Json::Text(text) => write_text(out, text, style),
            Json::Array(items) => {
                let mut list = List::open(out, style, level, b"[]");
                for item in items {
                    list.next();
                    item.borrow().write(list.out, style, level + 1);
                }
                list.close();
            }
            Json::Object(pairs) => {
                let mut list = List::open(out, style, level, b"{}");
                for (key, value) in pairs {
                    list.next();
                    write_text(list.out, key, style);
                    list.out.extend(if style == Style::Spaced { &b": "[..] } else { &b":"[..] });
                    value.borrow().write(list.out, style, level + 1);
                }
                list.close();
            }
        }
    }
}

/// What stands around the members of an array or object.
struct List<'a> {
    out: &'a mut Vec<u8>,
    style: Style,
    level: usize,
    brackets: &'static [u8; 2],
    members: usize,
}

impl<'a> List<'a> {
    fn open(out: &'a mut Vec<u8>, style: Style, level: usize, brackets: &'static [u8; 2]) -> List<'a> {
        out.push(brackets[0]);
        List { out, style, level, brackets, members: 0 }
    }

    fn next(&mut self) {
        if self.members > 0 {
            self.out.push(b',');
        }
        self.members += 1;
        match self.style {
            Style::Spaced => self.out.push(b' '),
            Style::Pretty => self.line(self.level + 1),
            Style::Compact | Style::CompactNoEscape => {}
        }
    }

    fn close(mut self) {
        match self.style {
            Style::Spaced => self.out.push(b' '),
            Style::Pretty if self.members > 0 => self.line(self.level),
            _ => {}
        }
        self.out.push(self.brackets[1]);
    }

    fn line(&mut self, level: usize) {
        self.out.push(b'\n');
        self.out.resize(self.out.len() + 2 * level, b' ');
    }
}

fn write_text(out: &mut Vec<u8>, text: &[u8], style: Style) {
    out.push(b'"');
    for &b in text {
        match b {
            b'"' | b'\\' => out.extend([b'\\', b]),
            b'/' if style != Style::CompactNoEscape => out.extend(b"\\/"),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            8 => out.extend(b"\\b"),
            12 => out.extend(b"\\f"),
            0..=31 => out.extend(format!("\\u{b:04x}").as_bytes()),
            b => out.push(b),
        }
    }
    out.push(b'"');
}
