//! Arguments of the functions: numbers, variables for attributes, partitions.

use super::Drouting;
use super::partition::Partition;
use host::load::Loader;
use host::{Arg, Call, Format, OutVar, Text};
use script::ast::{self, ArgKind, Dialect};
use script::{Diagnostic, Loc, Value, nearest};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A number: literal, or a variable that holds one. A text is none, as in the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group(pub i64);

impl Arg<Drouting> for Group {
    type Prepared = <host::Int as Arg<Drouting>>::Prepared;
    const WHAT: &'static str = "an integer";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<Drouting>,
    ) -> Result<Self::Prepared, Diagnostic> {
        <host::Int as Arg<Drouting>>::prepare(arg, site, loader, module)
    }

    fn eval(prepared: &Self::Prepared, call: &mut Call<'_, Drouting>) -> Result<Group, i32> {
        match prepared {
            Ok(n) => Ok(Group(*n)),
            Err(format) => match format.value(call.ctx) {
                Value::Int(n) | Value::Num(_, n) | Value::Both(_, n) => Ok(Group(n)),
                _ => Err(-1),
            },
        }
    }
}

/// The same, or nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number(pub Option<i64>);

impl Arg<Drouting> for Number {
    type Prepared = <Option<Group> as Arg<Drouting>>::Prepared;
    const OPTIONAL: bool = true;
    const WHAT: &'static str = Group::WHAT;

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<Drouting>,
    ) -> Result<Self::Prepared, Diagnostic> {
        <Option<Group> as Arg<Drouting>>::prepare(arg, site, loader, module)
    }

    fn eval(prepared: &Self::Prepared, call: &mut Call<'_, Drouting>) -> Result<Number, i32> {
        let number = <Option<Group> as Arg<Drouting>>::eval(prepared, call)?;
        Ok(Number(number.map(|group| group.0)))
    }
}

/// Whose attributes a variable gets; a script that asks for none does not have them kept.
pub const OF_RULE: usize = 0;
pub const OF_GATEWAY: usize = 1;
pub const OF_CARRIER: usize = 2;

/// A variable for attributes.
#[derive(Clone)]
pub struct Attrs<const OF: usize>(pub OutVar);

impl<const OF: usize> Arg<Drouting> for Attrs<OF> {
    type Prepared = <OutVar as Arg<Drouting>>::Prepared;
    const WHAT: &'static str = "a variable to write";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<Drouting>,
    ) -> Result<Self::Prepared, Diagnostic> {
        module.attrs_wanted[OF].store(true, Ordering::Relaxed);
        <OutVar as Arg<Drouting>>::prepare(arg, site, loader, module)
    }

    fn eval(prepared: &Self::Prepared, call: &mut Call<'_, Drouting>) -> Result<Attrs<OF>, i32> {
        <OutVar as Arg<Drouting>>::eval(prepared, call).map(Attrs)
    }
}

/// Variables that get attributes.
#[derive(Clone, Default)]
pub struct Outs {
    pub rule: Option<OutVar>,
    pub gateway: Option<OutVar>,
    pub carrier: Option<OutVar>,
}

impl Outs {
    pub fn new(
        rule: Option<Attrs<OF_RULE>>,
        gateway: Option<Attrs<OF_GATEWAY>>,
        carrier: Option<Attrs<OF_CARRIER>>,
    ) -> Outs {
        Outs { rule: rule.map(|a| a.0), gateway: gateway.map(|a| a.0), carrier: carrier.map(|a| a.0) }
    }
}

/// What a function works on.
pub enum Chosen {
    One(Arc<Partition>),
    /// `*`
    All,
}

impl Chosen {
    /// For functions that take no `*`.
    pub fn one(self, function: &str) -> Option<Arc<Partition>> {
        match self {
            Chosen::One(partition) => Some(partition),
            Chosen::All => {
                host::error!("drouting", "{function} needs one partition, not *");
                None
            }
        }
    }
}

impl Arg<Drouting> for Chosen {
    type Prepared = Option<Format>;
    const OPTIONAL: bool = true;
    const WHAT: &'static str = "a partition";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<Drouting>,
    ) -> Result<Option<Format>, Diagnostic> {
        let Some(arg) = arg.filter(|arg| !matches!(arg.kind, ArgKind::Empty)) else {
            if module.settings.use_partitions && loader.dialect == Dialect::V4 {
                return Err(Diagnostic::error(site, "the name of a partition is missing here")
                    .hint("use_partitions is set: it is the last parameter"));
            }
            return Ok(None);
        };
        let format = <Text as Arg<Drouting>>::prepare(Some(arg), site, loader, module)?;
        if let Some(name) = format.constant() {
            module
                .note_named(&String::from_utf8_lossy(name))
                .map_err(|why| Diagnostic::error(arg.loc, why))?;
        }
        Ok(Some(format))
    }

    fn eval(prepared: &Option<Format>, call: &mut Call<'_, Drouting>) -> Result<Chosen, i32> {
        match prepared {
            None => call.module.first().map(Chosen::One).ok_or(-1),
            Some(format) => {
                let name = format.text(call.ctx);
                find(call, &String::from_utf8_lossy(&name))
            }
        }
    }
}

/// A partition by its name; -1 and a complaint without such a one.
pub fn find(call: &mut Call<'_, Drouting>, name: &str) -> Result<Chosen, i32> {
    if name == "*" {
        return Ok(Chosen::All);
    }
    let found = call.module.partition(name);
    if found.is_none() {
        host::complain!(call.ctx, "drouting", "there is no partition {name}");
    }
    found.map(Chosen::One).ok_or(-1)
}

/// An argument of 2.1 that is a variable to write, or a text, as its place says only when `use_partitions` is known.
pub struct Old {
    pub text: Option<Text>,
    pub variable: Option<OutVar>,
}

pub struct PreparedOld {
    format: Option<Format>,
    variable: Option<Arc<host::Var>>,
}

impl Arg<Drouting> for Old {
    type Prepared = PreparedOld;
    const OPTIONAL: bool = true;
    const WHAT: &'static str = "a string or a variable";

    fn prepare(
        arg: Option<&ast::Arg>,
        _: Loc,
        loader: &mut Loader,
        module: &Arc<Drouting>,
    ) -> Result<PreparedOld, Diagnostic> {
        let Some(arg) = arg.filter(|arg| !matches!(arg.kind, ArgKind::Empty)) else {
            return Ok(PreparedOld { format: None, variable: None });
        };
        // What a variable will be for is not known yet: its attributes are kept.
        module.attrs_wanted.iter().for_each(|wanted| wanted.store(true, Ordering::Relaxed));
        let spec = match &arg.kind {
            ArgKind::Var(spec) => Some(spec.clone()),
            ArgKind::Text(text) if text.starts_with(b"$") => script::parse_variable(text, arg.loc).ok(),
            _ => None,
        };
        let variable = spec.and_then(|spec| loader.target_var(&spec).ok()).map(Arc::new);
        let format = host::arg::format_of(arg, loader)?;
        Ok(PreparedOld { format: Some(format), variable })
    }

    fn eval(prepared: &PreparedOld, call: &mut Call<'_, Drouting>) -> Result<Old, i32> {
        let text = prepared.format.as_ref().map(|format| Text(format.text(call.ctx)));
        Ok(Old { text, variable: prepared.variable.clone().map(OutVar) })
    }
}

/// For messages about names in a configuration.
pub fn did_you_mean<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    nearest(name, names).map_or_else(String::new, |near| format!(": did you mean {near}?"))
}
