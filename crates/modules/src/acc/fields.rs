//! Extra values and legs: names of tags, what each backend calls them, and the variables that hold them.

use super::Acc;
use super::account::{self, Backend};
use host::load::Loader;
use host::var::VarKind;
use host::{At, Ctx, Value, Variable};
use script::ast::{AssignOp, VarSpec};
use script::{Diagnostic, nearest};
use std::sync::Arc;

/// A set of tags and the names that backends give them (`extra_fields`, `leg_fields`).
#[derive(Default)]
pub struct Fields {
    pub tags: Vec<String>,
    /// (backend, index of the tag, name).
    names: Vec<(Backend, usize, String)>,
}

impl Fields {
    /// "backend: tag->name; tag".
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let (backend, list) = text
            .split_once(':')
            .ok_or_else(|| format!("`{text}` lacks its backend, as in \"log: tag->name; tag\""))?;
        let backend = backend.trim();
        let backend = Backend::parse(backend.as_bytes())
            .ok_or_else(|| format!("`{backend}` is no backend: they are log, db, aaa and evi"))?;
        for token in list.split(';').map(str::trim).filter(|t| !t.is_empty()) {
            let (tag, name) = match token.split_once("->") {
                Some((tag, name)) => (tag.trim(), name.trim()),
                None => (token, token),
            };
            if tag.is_empty() || name.is_empty() {
                return Err(format!("`{token}` is not tag->name"));
            }
            let index = match self.tags.iter().position(|t| t == tag) {
                Some(index) => index,
                None => {
                    self.tags.push(tag.to_string());
                    self.tags.len() - 1
                }
            };
            self.names.push((backend, index, name.to_string()));
        }
        Ok(())
    }

    /// (tag's index, name) for a backend, in the order of the parameters.
    pub fn of(&self, backend: Backend) -> impl Iterator<Item = (usize, &str)> {
        self.names.iter().filter(move |(b, ..)| *b == backend).map(|(_, i, name)| (*i, name.as_str()))
    }

    fn index(&self, spec: &VarSpec, variable: &str, param: &str) -> Result<usize, Diagnostic> {
        let tag = spec.inner.as_deref().map(<[u8]>::trim_ascii).unwrap_or_default();
        let tag = String::from_utf8_lossy(tag);
        if let Some(index) = self.tags.iter().position(|t| *t == tag) {
            return Ok(index);
        }
        let error = Diagnostic::error(spec.loc, format!("${variable}({tag}): `{param}` names no tag {tag}"));
        Err(match nearest(&tag, self.tags.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean ${variable}({near})?")),
            None => error.hint(format!("modparam(\"acc\", \"{param}\", \"db: {tag}->column\")")),
        })
    }
}

/// `$acc_extra(tag)`
struct Extra(Arc<Acc>, usize);

impl Variable for Extra {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let found = account::find(ctx).and_then(|a| a.borrow().extra.get(self.1).cloned().flatten());
        found.map_or(Value::Null, Value::Str)
    }

    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        let account = account::entry(ctx, &self.0);
        if let Some(slot) = account.borrow_mut().extra.get_mut(self.1) {
            *slot = value.text();
        }
        super::cdr::changed(ctx);
        true
    }

    fn writable(&self) -> bool {
        true
    }
}

pub fn extra(spec: &VarSpec, _: &mut Loader, module: &Arc<Acc>) -> Result<VarKind, Diagnostic> {
    let index = module.extra.index(spec, "acc_extra", "extra_fields")?;
    Ok(VarKind::Other(Box::new(Extra(module.clone(), index))))
}

/// `$(acc_leg(tag)[leg])`: without an index the last leg, negative ones count from it.
struct Leg(Arc<Acc>, usize);

fn leg_at(at: At, count: usize) -> Option<usize> {
    let index = match at {
        At::None | At::All | At::Append => -1,
        At::Index(i) => i64::from(i),
    };
    let index = if index < 0 { index + count as i64 } else { index };
    usize::try_from(index).ok().filter(|i| *i < count)
}

impl Variable for Leg {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        let Some(account) = account::find(ctx) else { return Value::Null };
        let account = account.borrow();
        let value = leg_at(at, account.legs.len()).and_then(|leg| account.legs[leg][self.1].clone());
        value.map_or(Value::Null, Value::Str)
    }

    fn set(&self, ctx: &mut Ctx, at: At, _: AssignOp, value: Value) -> bool {
        let account = account::entry(ctx, &self.0);
        let mut account = account.borrow_mut();
        match leg_at(at, account.legs.len()) {
            Some(leg) => {
                account.legs[leg][self.1] = value.text();
                true
            }
            None => false,
        }
    }

    fn writable(&self) -> bool {
        true
    }
}

pub fn leg(spec: &VarSpec, _: &mut Loader, module: &Arc<Acc>) -> Result<VarKind, Diagnostic> {
    let index = module.legs.index(spec, "acc_leg", "leg_fields")?;
    Ok(VarKind::Other(Box::new(Leg(module.clone(), index))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_backends_share_tags() {
        let mut fields = Fields::default();
        for text in ["log: a->My_a; b", "db:a->col_a;c->col_c;", "evi: c -> 12"] {
            fields.add(text).expect(text);
        }
        assert_eq!(fields.tags, ["a", "b", "c"]);
        let of = |backend| fields.of(backend).map(|(i, n)| format!("{i}{n}")).collect::<Vec<_>>();
        assert_eq!(of(Backend::Log), ["0My_a", "1b"]);
        assert_eq!(of(Backend::Db), ["0col_a", "2col_c"]);
        assert_eq!(of(Backend::Evi), ["212"]);
        for bad in ["a->b", "ldap: a", "log: ->x"] {
            assert!(fields.add(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn legs_count_from_either_end() {
        for (at, count, leg) in [
            (At::None, 3, Some(2)),
            (At::Index(0), 3, Some(0)),
            (At::Index(-3), 3, Some(0)),
            (At::Index(-4), 3, None),
            (At::Index(3), 3, None),
            (At::None, 0, None),
        ] {
            assert_eq!(leg_at(at, count), leg, "{at:?} of {count}");
        }
    }
}
