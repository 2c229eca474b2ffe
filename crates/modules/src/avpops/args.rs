//! Arguments that are written inside a text: "$avp(x)/flags", "operator/value/flags".

use super::Avpops;
use crate::userdb::not_an_avp;
use bytes::Bytes;
use host::load::Loader;
use host::var::VarKind;
use host::vars::avp::AvpRef;
use host::{Arg, Call, Ctx, OutVars, Value, Var};
use script::ast::{self, ArgKind, VarSpec};
use script::{Diagnostic, Loc};
use std::sync::Arc;

/// Where an argument is read from: its text, or the variable that it is.
pub enum Piece<'a> {
    Text(Bytes),
    Var(&'a VarSpec),
}

/// A text argument before its variables are looked at. A lone variable stays one.
pub fn piece<'a>(arg: Option<&'a ast::Arg>, site: Loc, what: &str) -> Result<(Piece<'a>, Loc), Diagnostic> {
    let arg = arg.ok_or_else(|| Diagnostic::error(site, format!("a parameter is missing here: {what}")))?;
    match &arg.kind {
        ArgKind::Text(text) | ArgKind::Word(text) => Ok((Piece::Text(text.clone()), arg.loc)),
        ArgKind::Var(spec) => Ok((Piece::Var(spec), arg.loc)),
        _ => Err(Diagnostic::error(arg.loc, format!("this must be {what}"))),
    }
}

/// A variable at the start of a text, and what follows the `/` behind it.
pub fn leading_var(text: &Bytes, loc: Loc) -> Result<(VarSpec, Option<Bytes>), Diagnostic> {
    if !text.starts_with(b"$") {
        let shown = String::from_utf8_lossy(text);
        return Err(Diagnostic::error(loc, format!("`{shown}` is no variable")).hint("as in $avp(name)"));
    }
    let (spec, end) = script::parse_leading_variable(text, loc)?;
    match text.get(end) {
        None => Ok((spec, None)),
        Some(b'/') => Ok((spec, Some(text.slice(end + 1..)))),
        Some(_) => {
            let rest = String::from_utf8_lossy(&text[end..]).into_owned();
            Err(Diagnostic::error(loc, format!("`{rest}` cannot follow the variable")))
        }
    }
}

/// An argument that is a variable, or a text that begins with one: the variable, and what follows its `/`.
pub fn var_and_rest(
    arg: Option<&ast::Arg>,
    site: Loc,
    what: &str,
) -> Result<(VarSpec, Option<Bytes>, Loc), Diagnostic> {
    let (found, loc) = piece(arg, site, what)?;
    match found {
        Piece::Var(spec) => Ok((spec.clone(), None, loc)),
        Piece::Text(text) => leading_var(&text, loc).map(|(spec, rest)| (spec, rest, loc)),
    }
}

/// What an argument that is one text means.
pub trait Parse: Sized + Send + Sync + 'static {
    const WHAT: &'static str;
    fn parse(text: &Bytes, loc: Loc, loader: &mut Loader) -> Result<Self, Diagnostic>;
}

/// Such an argument, prepared when the script is loaded.
pub struct Parsed<T>(pub Arc<T>);

impl<T: Parse> Arg<Avpops> for Parsed<T> {
    type Prepared = Arc<T>;
    const WHAT: &'static str = T::WHAT;

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Avpops>,
    ) -> Result<Arc<T>, Diagnostic> {
        match piece(arg, site, T::WHAT)? {
            (Piece::Text(text), loc) => T::parse(&text, loc, loader).map(Arc::new),
            (Piece::Var(_), loc) => Err(Diagnostic::error(loc, format!("this must be {}", T::WHAT))),
        }
    }

    fn eval(prepared: &Arc<T>, _: &mut Call<'_, Avpops>) -> Result<Parsed<T>, i32> {
        Ok(Parsed(prepared.clone()))
    }
}

/// The entry whose word begins the text: only the first letters count, as in the reference.
pub fn by_first_letters<T: Copy>(words: &[(&[u8], T)], text: &[u8]) -> Option<T> {
    let text = text.to_ascii_lowercase();
    words.iter().find(|(word, _)| text.starts_with(word)).map(|(_, entry)| *entry)
}

/// "$avp(name)", or an error that says so.
pub fn avp(spec: &VarSpec, loc: Loc, loader: &mut Loader) -> Result<AvpRef, Diagnostic> {
    AvpRef::new(spec, loader)?.ok_or_else(|| not_an_avp(&[b"$", &spec.name[..]].concat(), loc))
}

pub fn unknown_flag(flag: u8, loc: Loc) -> Diagnostic {
    Diagnostic::error(loc, format!("unknown flag `{}`", char::from(flag)))
}

/// Flags behind an AVP, as letters of either case. Which ones count is up to the function.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Flags {
    /// All values, not only the first.
    pub all: bool,
    /// Removes what was taken.
    pub delete: bool,
    pub to_number: bool,
    pub to_text: bool,
    pub empty: bool,
    pub ignore_case: bool,
}

impl Flags {
    /// `known`: letters that the function takes.
    pub fn parse(text: &[u8], known: &[u8], loc: Loc) -> Result<Flags, Diagnostic> {
        let mut flags = Flags::default();
        for byte in text {
            let flag = byte.to_ascii_lowercase();
            if !known.contains(&flag) {
                return Err(unknown_flag(*byte, loc));
            }
            match flag {
                b'g' => flags.all = true,
                b'd' => flags.delete = true,
                b'n' => flags.to_number = true,
                b's' => flags.to_text = true,
                b'e' => flags.empty = true,
                b'i' => flags.ignore_case = true,
                _ => return Err(unknown_flag(*byte, loc)),
            }
        }
        Ok(flags)
    }
}

/// A fixed value or a variable. An AVP stands for all of its values, whatever its index.
pub enum Operand {
    Fixed(Value),
    Avp(AvpRef),
    Var(Box<Var>),
}

impl Operand {
    pub fn var(spec: &VarSpec, loader: &mut Loader) -> Result<Operand, Diagnostic> {
        Ok(match AvpRef::new(spec, loader)? {
            Some(avp) => Operand::Avp(avp),
            None => Operand::Var(Box::new(loader.var(spec)?)),
        })
    }

    /// "i:5", "i:0x1f", "s:text" or plain text.
    pub fn fixed(text: &Bytes, loc: Loc) -> Result<Operand, Diagnostic> {
        let bad = |why: &str| {
            let shown = String::from_utf8_lossy(text);
            Diagnostic::error(loc, format!("`{shown}` {why}")).hint("i:number, s:text or a plain text")
        };
        if text.is_empty() {
            return Err(bad("is no value"));
        }
        if text.get(1) != Some(&b':') {
            return Ok(Operand::Fixed(Value::Str(text.clone())));
        }
        let rest = text.slice(2..);
        if rest.is_empty() {
            return Err(bad("has no value behind its type"));
        }
        match text[0].to_ascii_lowercase() {
            b's' => Ok(Operand::Fixed(Value::Str(rest))),
            b'i' => {
                let digits = rest.to_ascii_lowercase();
                let number = host::arg::parse_int(&digits).ok_or_else(|| bad("is no number"))?;
                Ok(Operand::Fixed(Value::Int(i64::from(number as i32))))
            }
            _ => Err(bad("has an unknown type")),
        }
    }

    /// The values now, newest first; `None`: an AVP that has none. NULL is an empty text.
    pub fn values(&self, ctx: &mut Ctx) -> Option<Vec<Value>> {
        let values = match self {
            Operand::Fixed(value) => vec![value.clone()],
            Operand::Avp(avp) => {
                let name = avp.name(ctx)?;
                ctx.state.avps.borrow().values(name).cloned().collect()
            }
            Operand::Var(var) => match var.get(ctx) {
                Value::Null => vec![Value::from("")],
                value => vec![value],
            },
        };
        Some(values).filter(|values| !values.is_empty())
    }
}

/// The number that a value is, when it is a number first.
pub fn number(value: &Value) -> Option<i32> {
    value.int().filter(|_| value.is_number()).map(|n| n as i32)
}

/// "operator/value/flags", cut at its slashes. Operators have two or three letters.
pub fn operation(text: &Bytes, loc: Loc) -> Result<(Bytes, Bytes, Bytes), Diagnostic> {
    let slash = |from: usize| text[from..].iter().position(|b| *b == b'/').map(|at| from + at);
    let operator = slash(0).filter(|at| matches!(at, 2 | 3) && *at + 1 < text.len());
    let Some(at) = operator else {
        let shown = String::from_utf8_lossy(text);
        return Err(Diagnostic::error(loc, format!("`{shown}` is no operation")).hint("operator/value/flags"));
    };
    let end = slash(at + 1).unwrap_or(text.len());
    let flags = text.slice((end + 1).min(text.len())..);
    if end < text.len() && flags.is_empty() {
        return Err(Diagnostic::error(loc, "the flags are missing behind the last `/`"));
    }
    Ok((text.slice(..at), text.slice(at + 1..end), flags))
}

/// The value of an operation: a variable or something fixed.
pub fn operand(value: &Bytes, loc: Loc, loader: &mut Loader) -> Result<Operand, Diagnostic> {
    if value.starts_with(b"$") {
        let (spec, _) = script::parse_leading_variable(value, loc)?;
        return Operand::var(&spec, loader);
    }
    Operand::fixed(value, loc)
}

/// `"$avp(a);$avp(b)"`: only AVPs.
pub struct AvpList(pub OutVars);

impl Arg<Avpops> for AvpList {
    type Prepared = <OutVars as Arg<Avpops>>::Prepared;
    const WHAT: &'static str = "a list of AVPs";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<Avpops>,
    ) -> Result<Self::Prepared, Diagnostic> {
        let vars = <OutVars as Arg<Avpops>>::prepare(arg, site, loader, module)?;
        let loc = arg.map_or(site, |arg| arg.loc);
        match vars.iter().find(|var| !matches!(var.kind, VarKind::Avp(_)) && !var.text.starts_with(b"$avp("))
        {
            Some(var) => Err(not_an_avp(&var.text, loc)),
            None => Ok(vars),
        }
    }

    fn eval(vars: &Self::Prepared, call: &mut Call<'_, Avpops>) -> Result<AvpList, i32> {
        <OutVars as Arg<Avpops>>::eval(vars, call).map(AvpList)
    }
}
