//! What a search found, and the functions that read it.

use super::{ERROR, Ldap, NOTHING, text, url, values};
use bytes::Bytes;
use host::avp::AvpName;
use host::load::Loader;
use host::registrar::Since;
use host::subst::Subst;
use host::vars::avp::AvpRef;
use host::{Arg, Call, Ctx, Format, Registrar, Routes, Text, Value, Word};
use ldap3::SearchEntry;
use script::ast::{self, ArgKind};
use script::traced::Hand;
use script::{Diagnostic, Loc};
use std::rc::Rc;
use std::sync::Arc;

pub fn register(m: &mut Registrar<Ldap>) {
    m.function_of(Since::V4, "ldap_result", Routes::ALL, result);
    m.function_of(Since::V21, "ldap_result", Routes::ALL, old_result);
    m.function_of(Since::V4, "ldap_result_check", Routes::ALL, check);
    m.function_of(Since::V21, "ldap_result_check", Routes::ALL, old_check);
    m.function("ldap_filter_url_encode", Routes::ALL, encode);
}

/// The entries of the last search of a message.
#[derive(Clone, Default)]
pub struct Result {
    entries: Rc<Vec<SearchEntry>>,
    at: usize,
}

/// What an attribute has.
pub enum AttributeFound {
    /// There was no search, or it found nothing.
    NoResult,
    Values(Vec<Vec<u8>>),
}

impl Result {
    pub fn new(entries: Vec<SearchEntry>) -> Result {
        Result { entries: Rc::new(entries), at: 0 }
    }

    pub fn next(&mut self) -> bool {
        let there = self.at + 1 < self.entries.len();
        self.at += usize::from(there);
        there
    }

    /// Attributes have no case. Empty: the entry has none of that name.
    pub fn values(&self, attribute: &[u8]) -> AttributeFound {
        let Some(entry) = self.entries.get(self.at) else { return AttributeFound::NoResult };
        let same = |name: &str| name.as_bytes().eq_ignore_ascii_case(attribute);
        let texts = entry.attrs.iter().filter(|(name, _)| same(name));
        let texts = texts.flat_map(|(_, values)| values.iter().map(|v| v.clone().into_bytes()));
        let binary = entry.bin_attrs.iter().filter(|(name, _)| same(name));
        let binary = binary.flat_map(|(_, values)| values.iter().cloned());
        AttributeFound::Values(texts.chain(binary).collect())
    }
}

/// A substitution, prepared at load. Left out or empty: none.
struct Change(Option<Arc<Subst>>);

impl Arg<Ldap> for Change {
    type Prepared = Option<Arc<Subst>>;
    const OPTIONAL: bool = true;
    const WHAT: &'static str = "/expression/replacement/flags";

    fn prepare(
        arg: Option<&ast::Arg>,
        _: Loc,
        loader: &mut Loader,
        _: &Arc<Ldap>,
    ) -> std::result::Result<Self::Prepared, Diagnostic> {
        match arg.map(|arg| (&arg.kind, arg.loc)) {
            None | Some((ArgKind::Empty, _)) => Ok(None),
            Some((ArgKind::Text(text), _)) if text.is_empty() => Ok(None),
            Some((ArgKind::Text(text), loc)) => Subst::new(text, loc, loader).map(|s| Some(Arc::new(s))),
            Some((_, loc)) => Err(Diagnostic::error(loc, "this must be /expression/replacement/flags")),
        }
    }

    fn eval(subst: &Self::Prepared, _: &mut Call<'_, Ldap>) -> std::result::Result<Change, i32> {
        Ok(Change(subst.clone()))
    }
}

impl Change {
    /// `None`: nothing in it matches.
    fn of(&self, ctx: &mut Ctx, value: Vec<u8>) -> Option<Vec<u8>> {
        match &self.0 {
            Some(subst) => subst.apply(ctx, &value).map(|changed| changed.to_vec()),
            None => Some(value),
        }
    }
}

/// What the AVP gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum As {
    Text,
    Number,
}

impl As {
    fn parse(word: &[u8]) -> Option<As> {
        match word {
            b"str" | b"" => Some(As::Text),
            b"int" => Some(As::Number),
            _ => None,
        }
    }
}

impl Arg<Ldap> for As {
    type Prepared = As;
    const OPTIONAL: bool = true;
    const WHAT: &'static str = "str or int";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<Ldap>,
    ) -> std::result::Result<As, Diagnostic> {
        let Some(given) = host::arg::given(arg) else { return Ok(As::Text) };
        let word = <Word as Arg<Ldap>>::prepare(Some(given), site, loader, module)?;
        let loc = arg.map_or(site, |arg| arg.loc);
        As::parse(&word).ok_or_else(|| Diagnostic::error(loc, "this must be str or int"))
    }

    fn eval(kind: &As, _: &mut Call<'_, Ldap>) -> std::result::Result<As, i32> {
        Ok(*kind)
    }
}

fn avp(text: &Bytes, loc: Loc, loader: &mut Loader) -> std::result::Result<AvpRef, Diagnostic> {
    let spec = script::parse_variable(text, loc)?;
    AvpRef::new(&spec, loader)?.ok_or_else(|| no_avp(loc))
}

fn no_avp(loc: Loc) -> Diagnostic {
    Diagnostic::error(loc, "this must be an AVP").hint("as in $avp(name)")
}

/// 2.1: "attribute/$avp(x)[/type]"
struct OldTarget {
    attribute: Bytes,
    name: AvpName,
    kind: As,
}

impl Arg<Ldap> for OldTarget {
    type Prepared = (Bytes, AvpRef, As);
    const WHAT: &'static str = "attribute/$avp(name), with /int";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Ldap>,
    ) -> std::result::Result<Self::Prepared, Diagnostic> {
        let loc = arg.map_or(site, |arg| arg.loc);
        let bad = || Diagnostic::error(loc, "this must be attribute/$avp(name), with /int");
        let Some(ArgKind::Text(text) | ArgKind::Word(text)) = arg.map(|arg| &arg.kind) else {
            return Err(bad());
        };
        let slash = |text: &[u8]| text.iter().position(|b| *b == b'/');
        let at = slash(text).ok_or_else(bad)?;
        let (attribute, rest) = (text.slice(..at), text.slice(at + 1..));
        let (variable, kind) = match slash(&rest) {
            Some(at) => (rest.slice(..at), rest.slice(at + 1..)),
            None => (rest.clone(), Bytes::new()),
        };
        let kind = As::parse(&kind).ok_or_else(|| Diagnostic::error(loc, "the type must be str or int"))?;
        Ok((attribute, avp(&variable, loc, loader)?, kind))
    }

    fn eval(prepared: &Self::Prepared, call: &mut Call<'_, Ldap>) -> std::result::Result<OldTarget, i32> {
        let name = prepared.1.name(call.ctx).ok_or(ERROR)?;
        Ok(OldTarget { attribute: prepared.0.clone(), name, kind: prepared.2 })
    }
}

/// ldap_result(attribute, AVP, [type], [substitution]): how many values went into the AVP; -1 when the entry
/// has none, -2 without a result.
fn result(call: &mut Call<Ldap>, attribute: Text, avp: AvpName, kind: As, change: Change) -> i32 {
    store(call, &attribute, avp, kind, &change)
}

/// ldap_result("attribute/avp/type", [substitution])
fn old_result(call: &mut Call<Ldap>, target: OldTarget, change: Change) -> i32 {
    store(call, &target.attribute, target.name, target.kind, &change)
}

fn store(call: &mut Call<Ldap>, attribute: &[u8], name: AvpName, kind: As, change: &Change) -> i32 {
    let AttributeFound::Values(values) = values(call, attribute) else { return ERROR };
    let mut stored = 0;
    for value in values {
        let Some(value) = change.of(call.ctx, value) else { continue };
        let value = match kind {
            As::Text => text(value),
            // The reference takes decimal numbers without a sign.
            As::Number => match std::str::from_utf8(&value).ok().and_then(|t| t.parse::<u32>().ok()) {
                Some(n) => Value::Int(i64::from(n)),
                None => continue,
            },
        };
        call.state.avps.borrow_mut().add(name, value);
        stored += 1;
    }
    if stored > 0 { stored } else { NOTHING }
}

/// ldap_result_check(attribute, text, [substitution]): a value is the text.
fn check(call: &mut Call<Ldap>, attribute: Text, wanted: Text, change: Change) -> i32 {
    compare(call, &attribute, &wanted, &change)
}

/// 2.1: "attribute/text"
struct OldCheck {
    attribute: Bytes,
    wanted: Bytes,
}

impl Arg<Ldap> for OldCheck {
    type Prepared = (Bytes, Format);
    const WHAT: &'static str = "attribute/text";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Ldap>,
    ) -> std::result::Result<Self::Prepared, Diagnostic> {
        let loc = arg.map_or(site, |arg| arg.loc);
        let bad = || Diagnostic::error(loc, "this must be attribute/text");
        let Some(ArgKind::Text(text) | ArgKind::Word(text)) = arg.map(|arg| &arg.kind) else {
            return Err(bad());
        };
        let at = text.iter().position(|b| *b == b'/').ok_or_else(bad)?;
        Ok((text.slice(..at), Format::new(&text.slice(at + 1..), loc, loader)?))
    }

    fn eval(prepared: &Self::Prepared, call: &mut Call<'_, Ldap>) -> std::result::Result<OldCheck, i32> {
        Ok(OldCheck { attribute: prepared.0.clone(), wanted: prepared.1.text(call.ctx) })
    }
}

/// ldap_result_check("attribute/text", [substitution])
fn old_check(call: &mut Call<Ldap>, what: OldCheck, change: Change) -> i32 {
    compare(call, &what.attribute, &what.wanted, &change)
}

fn compare(call: &mut Call<Ldap>, attribute: &[u8], wanted: &[u8], change: &Change) -> i32 {
    let AttributeFound::Values(values) = values(call, attribute) else { return ERROR };
    let found = values.into_iter().any(|value| change.of(call.ctx, value).is_some_and(|v| v == wanted));
    if found { 1 } else { NOTHING }
}

/// ldap_filter_url_encode(text, AVP): the text so that it stands for itself in a filter.
fn encode(call: &mut Call<Ldap>, from: Text, avp: AvpName) -> i32 {
    let value = Value::written_by(url::escape(&from).into(), Hand::Filtered);
    call.state.avps.borrow_mut().add(avp, value);
    1
}
