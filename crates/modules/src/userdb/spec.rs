//! Arguments of the functions on preferences, checked when the script is loaded.

use super::{HasUserDb, Scheme};
use bytes::Bytes;
use host::avp::AvpName;
use host::db::{Db, Name};
use host::format::Format;
use host::load::Loader;
use host::vars::avp::AvpRef;
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

/// Which AVPs are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Names {
    One(AvpName),
    All,
}

impl Names {
    pub fn has(self, name: AvpName) -> bool {
        match self {
            Names::One(one) => one == name,
            Names::All => true,
        }
    }
}

/// As written: one AVP, or `a`, `i`, `s` or `*` for all. The reference told numbers from names there
/// once; all names are texts now.
enum Written {
    One(AvpRef),
    All,
}

impl Written {
    fn parse(text: &Bytes, loc: Loc, loader: &mut Loader) -> Result<Written, Diagnostic> {
        let text = text.slice_ref(text.trim_ascii());
        if text.starts_with(b"$") {
            let spec = script::parse_variable(&text, loc)?;
            return match AvpRef::new(&spec, loader)? {
                Some(avp) => Ok(Written::One(avp)),
                None => Err(not_an_avp(&text, loc)),
            };
        }
        // Digits behind the letter were script flags, which are of no use any more.
        match text.split_first() {
            Some((b'a' | b'A' | b'i' | b'I' | b's' | b'S' | b'*', rest))
                if rest.iter().all(u8::is_ascii_digit) =>
            {
                Ok(Written::All)
            }
            _ => Err(not_an_avp(&text, loc)),
        }
    }
}

pub fn not_an_avp(text: &[u8], loc: Loc) -> Diagnostic {
    Diagnostic::error(loc, format!("`{}` is no AVP", String::from_utf8_lossy(text))).hint("as in $avp(name)")
}

/// Which AVPs, and where they are kept: "$avp(x)", "$avp(x)/table", "$avp(x)/$scheme".
pub struct AvpSpec {
    pub names: Names,
    pub table: Option<Name>,
    pub scheme: Option<Arc<Scheme>>,
}

pub struct PreparedSpec {
    names: Written,
    table: Option<Name>,
    scheme: Option<Arc<Scheme>>,
}

fn prepare_spec<M: HasUserDb>(
    arg: Option<&ast::Arg>,
    site: Loc,
    loader: &mut Loader,
    module: &Arc<M>,
) -> Result<PreparedSpec, Diagnostic> {
    let what = <AvpSpec as Arg<M>>::WHAT;
    let arg = arg.ok_or_else(|| Diagnostic::error(site, format!("a parameter is missing here: {what}")))?;
    let text = match &arg.kind {
        ArgKind::Text(text) | ArgKind::Word(text) => text.clone(),
        ArgKind::Var(spec) => {
            let Some(avp) = AvpRef::new(spec, loader)? else { return Err(not_an_avp(&spec.name, arg.loc)) };
            return Ok(PreparedSpec { names: Written::One(avp), table: None, scheme: None });
        }
        _ => return Err(Diagnostic::error(arg.loc, format!("this must be {what}"))),
    };
    let Some(at) = text.iter().position(|b| *b == b'/') else {
        return Ok(PreparedSpec {
            names: Written::parse(&text, arg.loc, loader)?,
            table: None,
            scheme: None,
        });
    };
    let names = Written::parse(&text.slice(..at), arg.loc, loader)?;
    let place = text[at + 1..].trim_ascii();
    let Some(name) = place.strip_prefix(b"$") else {
        if place.is_empty() {
            return Err(Diagnostic::error(arg.loc, "the name of a table is missing behind `/`"));
        }
        let table = Name::from(String::from_utf8_lossy(place).into_owned());
        return Ok(PreparedSpec { names, table: Some(table), scheme: None });
    };
    if matches!(names, Written::All) {
        return Err(Diagnostic::error(arg.loc, "a db_scheme holds one attribute: name its AVP"));
    }
    match module.user_db().scheme(name) {
        Some(scheme) => Ok(PreparedSpec { names, table: None, scheme: Some(Arc::new(scheme.clone())) }),
        None => {
            let name = String::from_utf8_lossy(name);
            let error = Diagnostic::error(arg.loc, format!("there is no db_scheme {name}"));
            Err(error.hint(format!("modparam(\"{}\", \"db_scheme\", \"{name}:table=...\")", M::MODULE)))
        }
    }
}

impl<M: HasUserDb> Arg<M> for AvpSpec {
    type Prepared = PreparedSpec;
    const WHAT: &'static str = "an AVP, with /table or /$scheme";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<M>,
    ) -> Result<PreparedSpec, Diagnostic> {
        prepare_spec(arg, site, loader, module)
    }

    fn eval(prepared: &PreparedSpec, call: &mut Call<'_, M>) -> Result<AvpSpec, i32> {
        let names = match &prepared.names {
            Written::All => Names::All,
            Written::One(avp) => Names::One(avp.name(call.ctx).ok_or(-1)?),
        };
        Ok(AvpSpec { names, table: prepared.table.clone(), scheme: prepared.scheme.clone() })
    }
}

/// The same without a scheme: rows of a scheme are not written.
pub struct TableSpec(pub AvpSpec);

impl<M: HasUserDb> Arg<M> for TableSpec {
    type Prepared = PreparedSpec;
    const WHAT: &'static str = "an AVP, with /table";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<M>,
    ) -> Result<PreparedSpec, Diagnostic> {
        let prepared = prepare_spec(arg, site, loader, module)?;
        match (&prepared.scheme, arg) {
            (Some(_), Some(arg)) => {
                Err(Diagnostic::error(arg.loc, "this function writes no db_scheme")
                    .hint("name a table: /table"))
            }
            _ => Ok(prepared),
        }
    }

    fn eval(prepared: &PreparedSpec, call: &mut Call<'_, M>) -> Result<TableSpec, i32> {
        AvpSpec::eval(prepared, call).map(TableSpec)
    }
}
