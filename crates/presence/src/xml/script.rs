//! `$xml(name/element[index].attr/name)`: documents that scripts read and change.
//!
//! A variable belongs to the message whose script made it, as `$var` does.

use super::{Element, Node, parse};
use bytes::Bytes;
use host::ctx::{Ctx, MsgState};
use host::load::Loader;
use host::var::{At, Var, VarKind, Variable};
use host::{Registrar, Value};
use quick_xml::escape::partial_escape;
use script::ast::{AssignOp, VarSpec};
use script::{Diagnostic, Loc};
use std::sync::Arc;

/// Documents of one message.
const MAX_DOCUMENTS: usize = 1000;

/// The module keeps nothing.
#[derive(Default)]
pub struct Xml;

pub fn register(m: &mut Registrar<Xml>) {
    m.variable_class("xml", |spec, loader, _| Ok(VarKind::Other(Box::new(Path::new(spec, loader)?))));
}

/// The documents of a message by name. `None`: its root was taken away.
#[derive(Clone, Default)]
struct Documents(Vec<(Bytes, Option<Arc<Element>>)>);

fn document<'a>(state: &'a mut MsgState, name: &Bytes) -> Option<&'a mut Option<Arc<Element>>> {
    let documents = &mut state.ext.entry::<Documents>().0;
    documents.iter_mut().find(|(known, _)| known == name).map(|(_, document)| document)
}

/// A name or number as written, or in a variable.
enum Word {
    Written(Bytes),
    Variable(Var),
}

impl Word {
    fn text(&self, ctx: &mut Ctx) -> Option<Bytes> {
        match self {
            Word::Written(text) => Some(text.clone()),
            Word::Variable(var) => var.get(ctx).text(),
        }
    }

    fn number(&self, ctx: &mut Ctx) -> Option<usize> {
        let number = match self {
            Word::Written(text) => std::str::from_utf8(text).ok()?.parse().ok()?,
            Word::Variable(var) => var.get(ctx).int()?,
        };
        usize::try_from(number).ok()
    }
}

/// What of the last element is meant.
enum Part {
    Whole,
    /// The text in it.
    Text,
    Attribute(Word),
}

struct Path {
    document: Bytes,
    /// Names, each with which of several, from 0.
    steps: Vec<(Word, Option<Word>)>,
    part: Part,
}

impl Path {
    fn new(spec: &VarSpec, loader: &mut Loader) -> Result<Path, Diagnostic> {
        let bad = |why: &str| {
            Diagnostic::error(spec.loc, why.to_owned())
                .hint("write it as $xml(name/element[index].attr/name)")
        };
        let text = spec.inner.clone().unwrap_or_default();
        let end = text.iter().position(|b| *b == b'/').unwrap_or(text.len());
        let (document, mut rest) = (text.slice(..end), text.slice(end..));
        if document.is_empty() {
            return Err(bad("$xml needs the name of a document"));
        }
        let (mut steps, mut part) = (Vec::new(), Part::Whole);
        while !rest.is_empty() {
            if steps.is_empty() || rest[0] == b'/' {
                rest = rest.slice(1..);
                let name = word(&mut rest, b"/[", &[b".val", b".attr/"], spec.loc, loader)?;
                let mut index = None;
                if rest.first() == Some(&b'[') {
                    rest = rest.slice(1..);
                    index = Some(word(&mut rest, b"]", &[], spec.loc, loader)?);
                    if rest.first() != Some(&b']') {
                        return Err(bad("this index does not end"));
                    }
                    rest = rest.slice(1..);
                }
                steps.push((name, index));
                continue;
            }
            part = match (&rest[..] == b".val", rest.strip_prefix(b".attr/").map(<[u8]>::len)) {
                (true, _) => Part::Text,
                (_, Some(length)) if length > 0 => {
                    rest = rest.slice(b".attr/".len()..);
                    Part::Attribute(word(&mut rest, b"", &[], spec.loc, loader)?)
                }
                _ => return Err(bad("what follows an element is /, [, .val or .attr/")),
            };
            rest.clear();
        }
        Ok(Path { document, steps, part })
    }

    /// The steps as they are now; `None`: a variable does not hold what is needed.
    fn places(&self, ctx: &mut Ctx) -> Option<Vec<(Bytes, usize)>> {
        let mut places = Vec::with_capacity(self.steps.len());
        for (name, index) in &self.steps {
            let at = index.as_ref().map_or(Some(0), |index| index.number(ctx))?;
            places.push((name.text(ctx)?, at));
        }
        Some(places)
    }

    fn attribute(&self, ctx: &mut Ctx) -> Option<String> {
        match &self.part {
            Part::Attribute(name) => Some(String::from_utf8_lossy(&name.text(ctx)?).into_owned()),
            _ => None,
        }
    }
}

/// A word up to one of these characters or texts, or a variable.
fn word(
    rest: &mut Bytes,
    stops: &[u8],
    ends: &[&[u8]],
    loc: Loc,
    loader: &mut Loader,
) -> Result<Word, Diagnostic> {
    if rest.starts_with(b"$") {
        let (spec, length) = script::parse_leading_variable(rest, loc)?;
        *rest = rest.slice(length..);
        return Ok(Word::Variable(loader.var(&spec)?));
    }
    let stop = |at: &usize| {
        stops.contains(&rest[*at])
            || ends.iter().any(|end| {
                // `.val` ends the path; inside a name it is part of it.
                rest[*at..].starts_with(end) && (end.ends_with(b"/") || rest.len() == at + end.len())
            })
    };
    let end = (0..rest.len()).find(stop).unwrap_or(rest.len());
    let text = rest.slice(..end);
    *rest = rest.slice(end..);
    Ok(Word::Written(text))
}

/// The element at these places; the first is the root.
fn find<'a>(root: &'a Element, places: &[(Bytes, usize)]) -> Option<&'a Element> {
    let (first, others) = places.split_first()?;
    let mut found = Some(root).filter(|root| root.name.as_bytes() == &first.0[..] && first.1 == 0)?;
    for (name, at) in others {
        found = found.elements().filter(|e| e.name.as_bytes() == &name[..]).nth(*at)?;
    }
    Some(found)
}

/// Where among the children of an element one of this name is.
fn child_at(parent: &Element, (name, at): &(Bytes, usize)) -> Option<usize> {
    let is = |node: &Node| matches!(node, Node::Element(e) if e.name.as_bytes() == &name[..]);
    parent.children.iter().enumerate().filter(|(_, node)| is(node)).nth(*at).map(|(place, _)| place)
}

fn find_mut<'a>(root: &'a mut Element, places: &[(Bytes, usize)]) -> Option<&'a mut Element> {
    let (first, others) = places.split_first()?;
    if root.name.as_bytes() != &first.0[..] || first.1 != 0 {
        return None;
    }
    let mut found = root;
    for place in others {
        let at = child_at(found, place)?;
        let Node::Element(child) = &mut found.children[at] else { return None };
        found = child;
    }
    Some(found)
}

impl Variable for Path {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let (Some(places), attribute) = (self.places(ctx), self.attribute(ctx)) else { return Value::Null };
        let Some(root) = document(&mut ctx.state, &self.document).cloned() else { return Value::Null };
        if self.steps.is_empty() {
            let mut out = String::from("<?xml version=\"1.0\"?>");
            if let Some(root) = root {
                out.push('\n');
                put(&root, &mut out);
            }
            return out.into();
        }
        let Some(element) = root.as_deref().and_then(|root| find(root, &places)) else { return Value::Null };
        match (&self.part, attribute) {
            (Part::Whole, _) => {
                let mut out = String::new();
                put(element, &mut out);
                out.into()
            }
            (Part::Text, _) => own_text(element).into(),
            (Part::Attribute(_), Some(name)) => {
                let found = element.attributes.iter().find(|a| *a.name == *name);
                found.map_or(Value::Null, |a| a.value.clone().into())
            }
            (Part::Attribute(_), None) => Value::Null,
        }
    }

    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        let text = match &value {
            Value::Null | Value::Nought | Value::Failed => None,
            Value::Int(_) | Value::Num(..) => return refused("only texts and NULL can be assigned"),
            value => match String::from_utf8(value.to_text().to_vec()) {
                Ok(text) => Some(text),
                Err(_) => return refused("it is not UTF-8"),
            },
        };
        if self.steps.is_empty() {
            return self.replace(ctx, text);
        }
        let (Some(places), attribute) = (self.places(ctx), self.attribute(ctx)) else {
            return refused("a variable in its path holds no name or no number");
        };
        let Some(slot) = document(&mut ctx.state, &self.document) else {
            return refused("there is no such document");
        };
        let Some(root) = slot.as_mut().map(Arc::make_mut) else { return refused("the document has no root") };
        if let (Part::Whole, None) = (&self.part, &text) {
            return match places.split_last() {
                Some((_, [])) if find(root, &places).is_some() => {
                    *slot = None;
                    true
                }
                Some((last, parents)) => match find_mut(root, parents) {
                    Some(parent) => child_at(parent, last).map(|at| parent.children.remove(at)).is_some(),
                    None => refused("there is no such element"),
                },
                None => false,
            };
        }
        let Some(element) = find_mut(root, &places) else { return refused("there is no such element") };
        change(element, &self.part, attribute, text)
    }

    fn writable(&self) -> bool {
        true
    }
}

impl Path {
    /// A whole document.
    fn replace(&self, ctx: &mut Ctx, text: Option<String>) -> bool {
        let documents = &mut ctx.state.ext.entry::<Documents>().0;
        let at = documents.iter().position(|(name, _)| *name == self.document);
        let Some(text) = text else {
            at.map(|at| documents.remove(at));
            return true;
        };
        let root = match parse(text.trim().as_bytes()) {
            Ok(root) => Some(Arc::new(root)),
            Err(why) => return refused(&why.to_string()),
        };
        match at {
            Some(at) => documents[at].1 = root,
            None if documents.len() >= MAX_DOCUMENTS => return refused("a message has too many documents"),
            None => documents.push((self.document.clone(), root)),
        }
        true
    }
}

/// Why a value is not taken; the host says where.
fn refused(why: &str) -> bool {
    host::warn!("xml", "a value was not assigned: {why}");
    false
}

fn change(element: &mut Element, part: &Part, attribute: Option<String>, text: Option<String>) -> bool {
    match (part, text) {
        (Part::Whole, Some(text)) => {
            let inner = text.trim();
            let added = match parse(inner.as_bytes()) {
                Ok(added) => added,
                Err(why) => return refused(&why.to_string()),
            };
            let start = text.len() - text.trim_start().len();
            let blanks = [&text[..start], &text[start + inner.len()..]].map(|b| Node::Text(b.to_owned()));
            let [before, after] = blanks;
            element
                .children
                .extend([before, Node::Element(added), after].into_iter().filter(|node| !is_empty(node)));
            true
        }
        (Part::Text, text) => {
            element.children.retain(|node| !matches!(node, Node::Text(_)));
            element.children.extend(text.filter(|text| !text.is_empty()).map(Node::Text));
            true
        }
        (Part::Attribute(_), text) => {
            let Some(name) = attribute else { return refused("a variable in its path holds no name") };
            match text {
                Some(text) => element.set(&name, text),
                None => element.attributes.retain(|a| *a.name != *name),
            }
            true
        }
        (Part::Whole, None) => false,
    }
}

fn is_empty(node: &Node) -> bool {
    matches!(node, Node::Text(text) if text.is_empty())
}

fn own_text(element: &Element) -> String {
    let texts = element.children.iter().filter_map(|node| match node {
        Node::Text(text) => Some(text.as_str()),
        Node::Element(_) => None,
    });
    texts.collect()
}

/// As it stands in its document: namespaces are declared where they were.
fn put(element: &Element, out: &mut String) {
    let name = |prefix: &str, name: &str| match prefix {
        "" => name.to_owned(),
        prefix => format!("{prefix}:{name}"),
    };
    let own = name(&element.prefix, &element.name);
    out.push('<');
    out.push_str(&own);
    let mut value = |label: &str, value: &str| {
        let value = partial_escape(value).replace('"', "&quot;").replace('\n', "&#10;").replace('\t', "&#9;");
        out.push_str(&format!(" {label}=\"{value}\""));
    };
    for (prefix, namespace) in &element.declared {
        value(&if prefix.is_empty() { "xmlns".to_owned() } else { format!("xmlns:{prefix}") }, namespace);
    }
    for attribute in &element.attributes {
        value(&name(&attribute.prefix, &attribute.name), &attribute.value);
    }
    if element.children.is_empty() {
        out.push_str("/>");
        return;
    }
    out.push('>');
    for node in &element.children {
        match node {
            Node::Element(child) => put(child, out),
            Node::Text(text) => out.push_str(&partial_escape(text.as_str())),
        }
    }
    out.push_str(&format!("</{own}>"));
}

#[cfg(test)]
mod tests {
    use crate::testing::{refused, run};
    use script::ast::Dialect;

    #[test]
    fn a_document_is_built() {
        let body = r#"
            $xml(d) = "<doc></doc>"; $xml(d/doc) = "\t<list></list>\n"; $xml(d/doc/list) = "<item>a</item>";
            $xml(d/doc/list) = "<item>b &amp; c</item>"; $var(i) = 1; $var(n) = "item"; $var(a) = "sort";
            $avp(v) = $xml(d/doc/list/$var(n)[$var(i)].val); $xml(d/doc/list.attr/$var(a)) = "x\"<";
            $avp(v) = $xml(d/doc/list.attr/sort); $avp(v) = $xml(d); $xml(d/doc/list/item[0]) = NULL;
            $xml(d/doc/list.attr/sort) = NULL; $xml(d/doc/list.val) = "end"; $avp(v) = $xml(d/doc/list);
            $xml(d/doc) = NULL; $avp(v) = $xml(d); $xml(d) = NULL; if ($xml(d) == NULL) $avp(v) = "gone";
        "#;
        let mut all = run("loadmodule \"xml.so\"", body, Dialect::V4).avps("v");
        all.reverse();
        assert_eq!(
            all,
            [
                "b & c",
                "x\"<",
                "<?xml version=\"1.0\"?>\n<doc>\t<list sort=\"x&quot;&lt;\"><item>a</item><item>b &amp; c</item></list>\n</doc>",
                "<list><item>b &amp; c</item>end</list>",
                "<?xml version=\"1.0\"?>",
                "gone",
            ]
        );
    }

    #[test]
    fn names_that_hold_points() {
        let body = r#"$xml(d) = "<a.val><b.attr c='1'/></a.val>"; $avp(v) = $xml(d/a.val/b.attr.attr/c);"#;
        let all = run("loadmodule \"xml.so\"", body, Dialect::V4).avps("v");
        assert_eq!(all, ["1"]);
        for bad in ["$xml(/a)", "$xml(d/a[1)", "$xml(d/a[1]x)"] {
            refused("loadmodule \"xml.so\"", &format!("$var(x) = {bad};"), Dialect::V4);
        }
    }
}
