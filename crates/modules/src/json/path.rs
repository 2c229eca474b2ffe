//! `name/key[index]/$var(key)[]`: a place inside a variable.

use bytes::Bytes;
use host::Var;
use host::ctx::Ctx;
use host::load::Loader;
use script::ast::VarSpec;
use script::{Diagnostic, Loc};

/// What a `$json(...)` names.
pub struct Path {
    pub name: Bytes,
    pub steps: Vec<Step>,
    pub view: View,
}

/// `.keys` and `.values` of a path.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum View {
    Whole,
    Keys,
    Values,
}

pub enum Step {
    Key(Bytes),
    KeyVar(Var),
    Index(i64),
    IndexVar(Var),
    /// `[]`: behind the last element.
    Append,
}

/// A step with its variable read.
#[derive(Clone, Debug, PartialEq)]
pub enum At {
    Key(Bytes),
    Index(i64),
    Append,
}

impl Path {
    pub fn new(spec: &VarSpec, loader: &mut Loader) -> Result<Path, Diagnostic> {
        let bad = |text: &str| Diagnostic::error(spec.loc, text).hint("write it as $json(name/key[index])");
        let text = spec.inner.clone().unwrap_or_default();
        let end = text.iter().position(|b| matches!(b, b'/' | b'[')).unwrap_or(text.len());
        let (mut name, mut rest) = (text.slice(..end), text.slice(end..));
        let mut view = View::Whole;
        for (suffix, of) in [(&b".keys"[..], View::Keys), (b".values", View::Values)] {
            let part = if rest.is_empty() { &mut name } else { &mut rest };
            if part.ends_with(suffix) {
                part.truncate(part.len() - suffix.len());
                view = of;
            }
        }
        if name.is_empty() {
            return Err(bad("$json needs a name"));
        }
        let mut steps = Vec::new();
        while let Some(first) = rest.first().copied() {
            rest = rest.slice(1..);
            if first == b'[' {
                steps
                    .push(index(&mut rest, spec.loc, loader)?.ok_or_else(|| bad("this index is no number"))?);
            } else {
                steps.push(key(&mut rest, spec.loc, loader)?);
            }
            if !matches!(rest.first(), None | Some(b'/' | b'[')) {
                return Err(bad("what follows a key or an index is / or ["));
            }
        }
        Ok(Path { name, steps, view })
    }

    /// The steps now; `None` when a variable does not hold what is needed.
    pub fn places(&self, ctx: &mut Ctx) -> Option<Vec<At>> {
        let mut places = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            places.push(match step {
                Step::Key(key) => At::Key(key.clone()),
                Step::Index(n) => At::Index(*n),
                Step::Append => At::Append,
                Step::KeyVar(var) => At::Key(var.get(ctx).text()?),
                Step::IndexVar(var) => At::Index(var.get(ctx).int()?),
            });
        }
        Some(places)
    }
}

fn key(rest: &mut Bytes, loc: Loc, loader: &mut Loader) -> Result<Step, Diagnostic> {
    if rest.starts_with(b"$") {
        return variable(rest, loc, loader).map(Step::KeyVar);
    }
    let end = rest.iter().position(|b| matches!(b, b'/' | b'[')).unwrap_or(rest.len());
    let key = rest.slice(..end);
    *rest = rest.slice(end..);
    Ok(Step::Key(key))
}

/// The inside of brackets and the closing one; `None`: it is no index.
fn index(rest: &mut Bytes, loc: Loc, loader: &mut Loader) -> Result<Option<Step>, Diagnostic> {
    let step = if rest.starts_with(b"$") {
        Step::IndexVar(variable(rest, loc, loader)?)
    } else {
        let end = rest.iter().position(|b| *b == b']').unwrap_or(rest.len());
        let inside = rest.slice(..end);
        *rest = rest.slice(end..);
        if inside.is_empty() {
            Step::Append
        } else {
            match std::str::from_utf8(&inside).ok().and_then(|t| t.parse().ok()) {
                Some(n) => Step::Index(n),
                None => return Ok(None),
            }
        }
    };
    if rest.first() != Some(&b']') {
        return Ok(None);
    }
    *rest = rest.slice(1..);
    Ok(Some(step))
}

fn variable(rest: &mut Bytes, loc: Loc, loader: &mut Loader) -> Result<Var, Diagnostic> {
    let (spec, len) = script::parse_leading_variable(rest, loc)?;
    *rest = rest.slice(len..);
    loader.var(&spec)
}
