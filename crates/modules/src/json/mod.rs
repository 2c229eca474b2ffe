//! json: `$json(name/key[index])`, to read and to change.
//!
//! A variable belongs to the message whose script made it, as `$var` does.

mod parse;
mod path;
mod tree;

use host::arg::OutVar;
use host::ctx::{Ctx, MsgState};
use host::load::Loader;
use host::var::{At as Place, VarKind, Variable};
use host::{Arg, Call, Registrar, Routes, Text, Value};
use path::{At, Path, View};
use script::ast::{self, ArgKind, AssignOp};
use script::{Diagnostic, Loc};
use std::rc::Rc;
use std::sync::Arc;
use tree::{Json as Tree, Node, Style, node};

/// Names and values of one message.
const MAX_VARIABLES: usize = 1000;

#[derive(Default)]
pub struct Json {
    /// Integers beyond 32 bits are read as texts.
    long_as_text: bool,
}

/// The variables of a message. A copy of the message sees the same ones.
#[derive(Clone, Default)]
struct Variables(Vec<(bytes::Bytes, Node)>);

pub fn register(m: &mut Registrar<Json>) {
    m.param_int("enable_long_quoting", |s, v| Ok(s.long_as_text = v != 0));
    for (name, style) in [
        ("json", Style::Spaced),
        ("json_pretty", Style::Pretty),
        ("json_compact", Style::Compact),
        ("json_compact_noescape", Style::CompactNoEscape),
    ] {
        m.variable_class(name, move |spec, loader, module| {
            let (path, module) = (Path::new(spec, loader)?, module.clone());
            Ok(VarKind::Other(Box::new(Class { path, style, module })))
        });
    }
    m.function("json_link", Routes::ALL, json_link);
    m.function("json_bind", Routes::ALL, json_link);
    m.function("json_merge", Routes::ALL, json_merge);
}

struct Class {
    path: Path,
    style: Style,
    module: Arc<Json>,
}

fn root(state: &MsgState, name: &[u8]) -> Option<Node> {
    let variables = &state.ext.find::<Variables>()?.0;
    variables.iter().find(|(n, _)| n == name).map(|(_, node)| node.clone())
}

/// One step down; `None` when there is nothing.
fn step(from: &Node, at: &At) -> Option<Node> {
    match (&*from.borrow(), at) {
        (json @ Tree::Object(_), At::Key(key)) => json.key(key),
        (Tree::Array(items), At::Index(n)) => items.get(position(items.len(), *n)?).cloned(),
        _ => None,
    }
}

fn position(len: usize, index: i64) -> Option<usize> {
    let at = if index < 0 { len as i64 + index } else { index };
    usize::try_from(at).ok().filter(|at| *at < len)
}

/// What the path names.
fn find(ctx: &mut Ctx, path: &Path) -> Option<Node> {
    let places = path.places(ctx)?;
    places.iter().try_fold(root(&ctx.state, &path.name)?, |node, at| step(&node, at))
}

impl Class {
    fn value(&self, json: &Tree) -> Value {
        match json {
            Tree::Null => Value::Null,
            Tree::Int(n) if self.module.long_as_text && i32::try_from(*n).is_err() => {
                Value::from(n.to_string())
            }
            Tree::Int(n) => Value::Int(*n),
            Tree::Text(text) => Value::Str(text.clone()),
            other => Value::Str(other.print(self.style)),
        }
    }

    /// The i-th key or value, for `for`.
    fn member(&self, json: &Tree, index: usize) -> Value {
        match json {
            Tree::Object(pairs) if self.path.view == View::Keys => {
                pairs.get(index).map_or(Value::Null, |(key, _)| Value::Str(key.clone()))
            }
            Tree::Object(pairs) => pairs.get(index).map_or(Value::Null, |(_, v)| self.value(&v.borrow())),
            Tree::Array(items) => items.get(index).map_or(Value::Null, |v| self.value(&v.borrow())),
            _ => Value::Null,
        }
    }
}

/// Puts a value where the path points; `None` removes what is there.
fn put(ctx: &mut Ctx, path: &Path, value: Option<Node>) -> bool {
    let Some(places) = path.places(ctx) else { return false };
    let Some((last, before)) = places.split_last() else {
        return put_root(&mut ctx.state, &path.name, value);
    };
    let Some(root) = root(&ctx.state, &path.name) else { return false };
    let parent = before.iter().try_fold(root, |node, at| step(&node, at));
    let Some(parent) = parent else { return false };
    // A circle would never end.
    if value.as_ref().is_some_and(|v| Rc::ptr_eq(v, &parent) || v.borrow().holds(&parent)) {
        host::warn!("json", "this link would make a circle");
        return false;
    }
    if value.as_ref().is_some_and(|v| v.borrow().depth() + places.len() > tree::DEPTH) {
        return false;
    }
    let mut parent = parent.borrow_mut();
    put_into(&mut parent, last, value)
}

/// Changes one member.
fn put_into(parent: &mut Tree, at: &At, value: Option<Node>) -> bool {
    match (parent, at, value) {
        (Tree::Object(pairs), At::Key(key), value) => {
            let found = pairs.iter().position(|(k, _)| k == key);
            match (found, value) {
                (Some(found), Some(value)) => pairs[found].1 = value,
                (Some(found), None) => {
                    pairs.remove(found);
                }
                (None, Some(value)) => pairs.push((key.clone(), value)),
                (None, None) => {}
            }
            true
        }
        (Tree::Array(items), At::Append, Some(value)) => {
            items.push(value);
            true
        }
        (Tree::Array(items), At::Index(n), value) => {
            let Some(found) = position(items.len(), *n) else { return false };
            match value {
                Some(value) => items[found] = value,
                None => {
                    items.remove(found);
                }
            }
            true
        }
        _ => false,
    }
}

fn put_root(state: &mut MsgState, name: &bytes::Bytes, value: Option<Node>) -> bool {
    let variables = &mut state.ext.entry::<Variables>().0;
    let at = variables.iter().position(|(n, _)| n == name);
    match (at, value) {
        (Some(at), Some(value)) => variables[at].1 = value,
        (Some(at), None) => {
            variables.remove(at);
        }
        (None, Some(_)) if variables.len() >= MAX_VARIABLES => return false,
        (None, Some(value)) => variables.push((name.clone(), value)),
        (None, None) => {}
    }
    true
}

impl Variable for Class {
    fn get(&self, ctx: &mut Ctx, at: Place) -> Value {
        let Some(found) = find(ctx, &self.path) else { return Value::Null };
        let json = found.borrow();
        match (at, self.path.view) {
            (Place::Index(n), _) => usize::try_from(n).map_or(Value::Null, |n| self.member(&json, n)),
            (_, View::Whole) => self.value(&json),
            (..) => self.member(&json, 0),
        }
    }

    /// `=` takes a text or a number as it is, `:=` reads a text as JSON; NULL removes.
    fn set(&self, ctx: &mut Ctx, _: Place, op: AssignOp, value: Value) -> bool {
        if self.path.view != View::Whole {
            return false;
        }
        let json = match (value, op) {
            (Value::Null | Value::Nought | Value::Failed, _) => return put(ctx, &self.path, None),
            (Value::Int(n) | Value::Num(_, n), _) => Tree::Int(n),
            (Value::Str(text) | Value::Pieced(text, _) | Value::Both(text, _), AssignOp::SetOver) => {
                match parse::parse(&text) {
                    // "null" is no value that can be put somewhere.
                    None | Some(Tree::Null) => return false,
                    Some(json) => json,
                }
            }
            (Value::Str(text) | Value::Pieced(text, _) | Value::Both(text, _), _) => Tree::Text(text),
        };
        put(ctx, &self.path, Some(node(json)))
    }

    fn writable(&self) -> bool {
        true
    }
}

/// A `$json(...)` as an argument.
struct Target(Arc<Path>);

impl Arg<Json> for Target {
    type Prepared = Arc<Path>;
    const WHAT: &'static str = "a $json variable";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Json>,
    ) -> Result<Arc<Path>, Diagnostic> {
        let spec = match arg.map(|arg| (&arg.kind, arg.loc)) {
            Some((ArgKind::Var(spec), _)) => spec.clone(),
            Some((ArgKind::Text(text), loc)) => script::parse_variable(text, loc)?,
            _ => return Err(Diagnostic::error(site, "this takes $json variables")),
        };
        if !spec.name.starts_with(b"json") {
            return Err(Diagnostic::error(spec.loc, "this takes $json variables"));
        }
        Ok(Arc::new(Path::new(&spec, loader)?))
    }

    fn eval(path: &Arc<Path>, _: &mut Call<'_, Json>) -> Result<Target, i32> {
        Ok(Target(path.clone()))
    }
}

/// json_link($json(place), $json(source)): both name the same value from now on.
fn json_link(call: &mut Call<Json>, place: Target, source: Target) -> bool {
    match find(call.ctx, &source.0) {
        Some(found) => put(call.ctx, &place.0, Some(found)),
        None => false,
    }
}

/// json_merge(main, patch, result): the members of both, those of `patch` win; null removes (RFC 7396).
fn json_merge(call: &mut Call<Json>, main: Text, patch: Text, out: OutVar) -> bool {
    let (Some(main), Some(patch)) = (parse::parse(&main), parse::parse(&patch)) else { return false };
    let merged = merge(main, &patch);
    out.set(call.ctx, merged.print(Style::Compact))
}

fn merge(main: Tree, patch: &Tree) -> Tree {
    let Tree::Object(changes) = patch else { return patch.clone() };
    let mut pairs = if let Tree::Object(pairs) = main { pairs } else { Vec::new() };
    for (key, change) in changes {
        let at = pairs.iter().position(|(k, _)| k == key);
        let change = change.borrow();
        match (at, &*change) {
            (Some(at), Tree::Null) => {
                pairs.remove(at);
            }
            (None, Tree::Null) => {}
            (Some(at), change) => {
                let old = pairs[at].1.borrow().copy();
                pairs[at].1 = node(merge(old, change));
            }
            (None, change) => pairs.push((key.clone(), node(merge(Tree::Null, change)))),
        }
    }
    Tree::Object(pairs)
}

#[cfg(test)]
mod tests {
    use crate::testing;
    use script::ast::Dialect;

    fn check(body: &str, want: &str) {
        let body = format!("{body} $avp(out) = \"\" + $json(o);");
        let ran = testing::run("loadmodule \"json.so\"", &body, Dialect::V4);
        assert_eq!(ran.avps("out"), [want], "{body}");
    }

    #[test]
    fn links_share_and_make_no_circles() {
        check(
            r#"$json(o) := "[{},{}]"; json_link($json(stub), $json(o[0])); $json(stub/ana) = "are";
               $json(stub/ar) := "[]"; $json(stub/ar[]) = 1; $json(stub/ar[]) = 2; $json(o[0]/ar[0]) = NULL;
               $json(stub) = NULL;"#,
            r#"[ { "ana": "are", "ar": [ 2 ] }, { } ]"#,
        );
        check(r#"$json(o) := "[1]"; json_link($json(o[0]), $json(o));"#, "[ 1 ]");
        check(
            r#"$json(o) := "{}"; $json(b) := "{}"; json_link($json(o/b), $json(b)); json_link($json(b/o), $json(o));"#,
            r#"{ "b": { } }"#,
        );
    }

    #[test]
    fn places_that_do_not_exist_stay_so() {
        check(
            r#"$json(o) := "{\"l\":[1]}"; $json(o/l[5]) = 1; $json(o/a/b) = 1; $json(o/l/x) = 1; $json(o[]) = 1;"#,
            r#"{ "l": [ 1 ] }"#,
        );
        check(r#"$json(o) := "{}"; $json(o/x) := "not json";"#, "{ }");
        check(r#"$json(o) := "[1,2]"; $json(o[-1]) = NULL; $json(o[-5]) = NULL;"#, "[ 1 ]");
    }

    #[test]
    fn merging() {
        check(
            r#"json_merge("{\"a\":{\"x\":1,\"y\":2},\"b\":1}", "{\"a\":{\"y\":null,\"z\":3},\"b\":[]}", $json(o));"#,
            r#"{"a":{"x":1,"z":3},"b":[]}"#,
        );
    }
}
