//! Arguments of the functions on preferences, checked when the script is loaded.

use super::{HasUserDb, Scheme};
use bytes::Bytes;
use host::avp::AvpName;
use host::db::{Db, Name};
use host::format::Format;
use host::load::Loader;
use host::var::Kind;
use host::{Arg, Call, Int, Value, Var};
use script::ast::{self, ArgKind};
use script::{Diagnostic, Loc};
use std::sync::Arc;

/// The database that a function works on: its number, 0 when left out.
#[derive(Clone, Debug)]
pub struct DbId(pub Db);

pub enum Chosen {
    Fixed(Db),
    Computed(Result<i64, Format>),
}

impl<M: HasUserDb> Arg<M> for DbId {
    type Prepared = Chosen;
    const OPTIONAL: bool = true;
    const WHAT: &'static str = "the number of a database";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<M>,
    ) -> Result<Chosen, Diagnostic> {
        let empty = |arg: &&ast::Arg| match &arg.kind {
            ArgKind::Empty => true,
            ArgKind::Text(t) => t.is_empty(),
            _ => false,
        };
        let loc = arg.map_or(site, |a| a.loc);
        let prepared = match arg.filter(|a| !empty(a)) {
            None => Ok(0),
            Some(arg) => <Int as Arg<M>>::prepare(Some(arg), site, loader, module)?,
        };
        let Ok(id) = prepared else { return Ok(Chosen::Computed(prepared)) };
        let db = u32::try_from(id).ok().and_then(|id| module.user_db().db(id));
        db.cloned().map(Chosen::Fixed).ok_or_else(|| {
            let number = if id == 0 { String::new() } else { format!("{id} ") };
            Diagnostic::error(loc, format!("there is no database number {id}")).hint(format!(
                "modparam(\"{}\", \"db_url\", \"{number}mysql://user:password@host/database\")",
                M::MODULE
            ))
        })
    }

    fn eval(prepared: &Chosen, call: &mut Call<'_, M>) -> Result<DbId, i32> {
        match prepared {
            Chosen::Fixed(db) => Ok(DbId(db.clone())),
            Chosen::Computed(id) => {
                let Int(id) = <Int as Arg<M>>::eval(id, call)?;
                let db = u32::try_from(id).ok().and_then(|id| call.module.user_db().db(id)).cloned();
                db.map(DbId).ok_or_else(|| {
                    host::error!(M::MODULE, "there is no database number {id}");
                    -1
                })
            }
        }
    }
}

/// Which part of a source names the rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    Uri,
    Username,
    Domain,
    Uuid,
}

/// Whose preferences: a variable or text, and which part of it counts ("$ru/username").
#[derive(Clone, Debug)]
pub struct Source {
    pub value: Value,
    pub part: Part,
}

pub enum Prepared {
    Var(Box<Var>, Part),
    Text(Bytes, Part),
}

/// "text/part", where `/` may also stand inside a variable's transformations.
fn split_part(text: &Bytes, loc: Loc) -> Result<(Bytes, Option<Part>), Diagnostic> {
    let Some(at) = text.iter().rposition(|b| *b == b'/') else { return Ok((text.clone(), None)) };
    let part = match text[at + 1..].trim_ascii() {
        b"username" => Part::Username,
        b"domain" => Part::Domain,
        b"uri" => Part::Uri,
        b"uuid" => Part::Uuid,
        other if text.starts_with(b"$(") && other.ends_with(b")") => return Ok((text.clone(), None)),
        other => {
            let other = String::from_utf8_lossy(other);
            return Err(Diagnostic::error(loc, format!("`{other}` is none of username, domain, uri, uuid")));
        }
    };
    Ok((text.slice(..at), Some(part)))
}

impl<M: HasUserDb> Arg<M> for Source {
    type Prepared = Prepared;
    const WHAT: &'static str =
        "whose preferences: a variable or text, with /username, /domain, /uri or /uuid";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<M>,
    ) -> Result<Prepared, Diagnostic> {
        let what = <Source as Arg<M>>::WHAT;
        let arg =
            arg.ok_or_else(|| Diagnostic::error(site, format!("a parameter is missing here: {what}")))?;
        match &arg.kind {
            ArgKind::Var(spec) => Ok(Prepared::Var(Box::new(loader.var(spec)?), implied(&spec.name))),
            ArgKind::Text(text) | ArgKind::Word(text) => {
                let (text, part) = split_part(text, arg.loc)?;
                if !text.starts_with(b"$") {
                    return Ok(Prepared::Text(text, part.unwrap_or(Part::Uuid)));
                }
                let spec = script::parse_variable(&text, arg.loc)?;
                let part = part.unwrap_or_else(|| implied(&spec.name));
                Ok(Prepared::Var(Box::new(loader.var(&spec)?), part))
            }
            _ => Err(Diagnostic::error(arg.loc, format!("this must be {what}"))),
        }
    }

    fn eval(prepared: &Prepared, call: &mut Call<'_, M>) -> Result<Source, i32> {
        Ok(match prepared {
            Prepared::Var(var, part) => Source { value: var.get(call.ctx), part: *part },
            Prepared::Text(text, part) => Source { value: Value::Str(text.clone()), part: *part },
        })
    }
}

/// URIs of the message name a user by themselves, all else is a uuid.
fn implied(variable: &[u8]) -> Part {
    if matches!(variable, b"ru" | b"fu" | b"tu" | b"ou") { Part::Uri } else { Part::Uuid }
}

/// Which names are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Names {
    One(AvpName),
    All,
    /// Names that are numbers, as old scripts write them.
    Numbers,
    Words,
}

impl Names {
    pub fn has(self, name: AvpName) -> bool {
        let number = || name.text().iter().all(u8::is_ascii_digit);
        match self {
            Names::One(one) => one == name,
            Names::All => true,
            Names::Numbers => number(),
            Names::Words => !number(),
        }
    }

    /// "$avp(x)", or `a`, `i`, `s` for all, numbered, named AVPs.
    pub fn parse(text: &Bytes, loc: Loc, loader: &mut Loader) -> Result<Names, Diagnostic> {
        let text = text.slice_ref(text.trim_ascii());
        if !text.starts_with(b"$") {
            // Script flags behind the letter are of no use here.
            let letter = text.first().copied().unwrap_or(b'a');
            return if text.get(1..).unwrap_or_default().iter().all(u8::is_ascii_digit) {
                match letter {
                    b'a' | b'A' | b'*' => Ok(Names::All),
                    b'i' | b'I' => Ok(Names::Numbers),
                    b's' | b'S' => Ok(Names::Words),
                    _ => Err(not_an_avp(&text, loc)),
                }
            } else {
                Err(not_an_avp(&text, loc))
            };
        }
        let spec = script::parse_variable(&text, loc)?;
        match loader.var(&spec)?.kind {
            Kind::Avp(name) => Ok(Names::One(name)),
            _ => Err(not_an_avp(&text, loc)),
        }
    }
}

pub fn not_an_avp(text: &[u8], loc: Loc) -> Diagnostic {
    Diagnostic::error(loc, format!("`{}` is no AVP", String::from_utf8_lossy(text))).hint("as in $avp(name)")
}

/// Which AVPs, and where they are kept: "$avp(x)", "$avp(x)/table", "$avp(x)/$scheme".
#[derive(Clone)]
pub struct AvpSpec {
    pub names: Names,
    pub table: Option<Name>,
    pub scheme: Option<Arc<Scheme>>,
}

impl<M: HasUserDb> Arg<M> for AvpSpec {
    type Prepared = AvpSpec;
    const WHAT: &'static str = "an AVP, with /table or /$scheme";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<M>,
    ) -> Result<AvpSpec, Diagnostic> {
        let what = <AvpSpec as Arg<M>>::WHAT;
        let arg =
            arg.ok_or_else(|| Diagnostic::error(site, format!("a parameter is missing here: {what}")))?;
        let none = AvpSpec { names: Names::All, table: None, scheme: None };
        let text = match &arg.kind {
            ArgKind::Text(text) | ArgKind::Word(text) => text.clone(),
            ArgKind::Var(spec) => {
                return match loader.var(spec)?.kind {
                    Kind::Avp(name) => Ok(AvpSpec { names: Names::One(name), ..none }),
                    _ => Err(not_an_avp(&spec.name, arg.loc)),
                };
            }
            _ => return Err(Diagnostic::error(arg.loc, format!("this must be {what}"))),
        };
        let Some(at) = text.iter().rposition(|b| *b == b'/') else {
            return Ok(AvpSpec { names: Names::parse(&text, arg.loc, loader)?, ..none });
        };
        let names = Names::parse(&text.slice(..at), arg.loc, loader)?;
        let place = text[at + 1..].trim_ascii();
        match place.strip_prefix(b"$") {
            None => {
                let table = Name::from(String::from_utf8_lossy(place).into_owned());
                Ok(AvpSpec { names, table: Some(table), ..none })
            }
            Some(name) => match module.user_db().scheme(name) {
                Some(scheme) => Ok(AvpSpec { names, scheme: Some(Arc::new(scheme.clone())), ..none }),
                None => {
                    let name = String::from_utf8_lossy(name);
                    let error = Diagnostic::error(arg.loc, format!("there is no db_scheme {name}"));
                    Err(error
                        .hint(format!("modparam(\"{}\", \"db_scheme\", \"{name}:table=...\")", M::MODULE)))
                }
            },
        }
    }

    fn eval(prepared: &AvpSpec, _: &mut Call<'_, M>) -> Result<AvpSpec, i32> {
        Ok(prepared.clone())
    }
}
