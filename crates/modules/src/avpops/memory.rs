//! AVPs of the message: printing, deleting, copying, inserting, asking for them.

use super::Avpops;
use super::args::{Flags, Piece, avp, leading_var, piece, var_and_rest};
use bytes::Bytes;
use host::avp::AvpName;
use host::format::Piece as FormatPiece;
use host::load::Loader;
use host::vars::avp::AvpRef;
use host::{Arg, Call, Format, Registrar, Routes, Value};
use script::ast::{self, ArgKind, IndexSpec};
use script::{Diagnostic, Loc};
use std::sync::Arc;

pub fn register(m: &mut Registrar<Avpops>) {
    m.function("avp_print", Routes::ALL, print);
    m.function("avp_delete", Routes::ALL, delete);
    m.function("avp_copy", Routes::ALL, copy);
    m.function("avp_insert", Routes::ALL, insert);
    m.function("avp_shuffle", Routes::ALL, shuffle);
    m.function("is_avp_set", Routes::ALL, is_set);
}

/// avp_print(): every AVP into the log.
fn print(call: &mut Call<Avpops>) -> i32 {
    for (name, value) in call.state.avps.borrow().iter() {
        let name = name.text();
        let (name, text) = (String::from_utf8_lossy(&name), value.to_text());
        let text = String::from_utf8_lossy(&text);
        match value.is_number() {
            true => host::info!("avpops", "$avp({name}) is the number {text}"),
            false => host::info!("avpops", "$avp({name}) is `{text}` ({} bytes)", text.len()),
        }
    }
    1
}

/// "$avp(x)/flags": an AVP with flags; `KNOWN` selects the letters.
struct Marked<const KNOWN: u8> {
    name: AvpName,
    flags: Flags,
    /// The index as written: 0 when there is none.
    index: usize,
}

const COPY: u8 = 0;
const SET: u8 = 1;

fn known(which: u8) -> &'static [u8] {
    if which == COPY { b"gdns" } else { b"esn" }
}

struct PreparedMarked {
    avp: AvpRef,
    flags: Flags,
    index: usize,
}

impl<const KNOWN: u8> Arg<Avpops> for Marked<KNOWN> {
    type Prepared = PreparedMarked;
    const WHAT: &'static str = "an AVP, with /flags";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Avpops>,
    ) -> Result<PreparedMarked, Diagnostic> {
        let (spec, flags, loc) = var_and_rest(arg, site, "an AVP, with /flags")?;
        let flags = Flags::parse(&flags.unwrap_or_default(), known(KNOWN), loc)?;
        if KNOWN == SET && flags.to_number && flags.to_text {
            return Err(Diagnostic::error(loc, "flags `s` and `n` exclude each other"));
        }
        let index = match spec.index {
            Some(IndexSpec::Int(n)) => usize::try_from(n).unwrap_or(0),
            _ => 0,
        };
        Ok(PreparedMarked { avp: avp(&spec, loc, loader)?, flags, index })
    }

    fn eval(prepared: &PreparedMarked, call: &mut Call<'_, Avpops>) -> Result<Self, i32> {
        let name = prepared.avp.name(call.ctx).ok_or(-1)?;
        Ok(Marked { name, flags: prepared.flags, index: prepared.index })
    }
}

/// is_avp_set("$avp(x)/flags"): `s` a text, `n` a number, `e` empty or 0.
fn is_set(call: &mut Call<Avpops>, avp: Marked<SET>) -> bool {
    let avps = call.state.avps.borrow();
    let Some(value) = avps.values(avp.name).nth(avp.index) else { return false };
    let number = value.is_number();
    if avp.flags.to_text && number || avp.flags.to_number && !number {
        return false;
    }
    if !avp.flags.empty {
        return true;
    }
    match value {
        value if number => value.int() == Some(0),
        value => value.text().is_none_or(|text| text.is_empty()),
    }
}

/// avp_copy(from, "to/flags"): `g` all values, `d` removes them, `n` makes numbers, `s` texts. Values copied
/// later come first.
fn copy(call: &mut Call<Avpops>, from: AvpName, to: Marked<COPY>) -> bool {
    let mut avps = call.state.avps.borrow_mut();
    let count = if to.flags.all { usize::MAX } else { 1 };
    let values: Vec<Value> = avps.values(from).take(count).cloned().collect();
    let found = !values.is_empty();
    // Those removed are the newest: they go before copies under the same name come in front.
    if to.flags.delete {
        for _ in &values {
            avps.remove(from, 0);
        }
    }
    for value in values {
        let number = value.is_number();
        let value = match value {
            value if !number && to.flags.to_number => {
                let digits = value.text().filter(|t| !t.is_empty() && t.iter().all(u8::is_ascii_digit));
                let Some(n) = digits.and_then(|t| host::arg::parse_int(&t)) else { return false };
                Value::Int(n)
            }
            value if number && to.flags.to_text => Value::Str(value.to_text()),
            value => value,
        };
        avps.add(to.name, value);
    }
    found
}

/// What avp_delete() takes: one AVP, or all.
enum Deleted {
    First(AvpName),
    Every(AvpName),
    All,
    /// `s`: names that are texts, which no name is any more.
    Nothing,
}

struct PreparedDeleted {
    avp: Option<AvpRef>,
    all: bool,
    nothing: bool,
}

impl Arg<Avpops> for Deleted {
    type Prepared = PreparedDeleted;
    const WHAT: &'static str = "an AVP, with /g, or * for all";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Avpops>,
    ) -> Result<PreparedDeleted, Diagnostic> {
        let (found, loc) = piece(arg, site, "an AVP, with /g, or * for all")?;
        let text = match found {
            Piece::Var(spec) => {
                return Ok(PreparedDeleted {
                    avp: Some(avp(spec, loc, loader)?),
                    all: false,
                    nothing: false,
                });
            }
            Piece::Text(text) => text,
        };
        if text.starts_with(b"$") {
            let (spec, flags) = leading_var(&text, loc)?;
            let all = Flags::parse(&flags.unwrap_or_default(), b"g", loc)?.all;
            return Ok(PreparedDeleted { avp: Some(avp(&spec, loc, loader)?), all, nothing: false });
        }
        let (which, flags) = match text.iter().position(|b| *b == b'/') {
            Some(at) => (text.slice(..at), text.slice(at + 1..)),
            None => (text.clone(), Bytes::new()),
        };
        Flags::parse(&flags, b"g", loc)?;
        match which.split_first() {
            Some((letter, digits))
                if b"aAiIsS*".contains(letter) && digits.iter().all(u8::is_ascii_digit) =>
            {
                let nothing = letter.eq_ignore_ascii_case(&b's');
                Ok(PreparedDeleted { avp: None, all: true, nothing })
            }
            _ => {
                let shown = String::from_utf8_lossy(&text);
                Err(Diagnostic::error(loc, format!("`{shown}` is no AVP")).hint("$avp(name), or * for all"))
            }
        }
    }

    fn eval(prepared: &PreparedDeleted, call: &mut Call<'_, Avpops>) -> Result<Deleted, i32> {
        let Some(avp) = &prepared.avp else {
            return Ok(if prepared.nothing { Deleted::Nothing } else { Deleted::All });
        };
        let name = avp.name(call.ctx).ok_or(-1)?;
        Ok(if prepared.all { Deleted::Every(name) } else { Deleted::First(name) })
    }
}

/// avp_delete("$avp(x)/g"): true when there was something to delete.
fn delete(call: &mut Call<Avpops>, what: Deleted) -> bool {
    let mut avps = call.state.avps.borrow_mut();
    match what {
        Deleted::First(name) => avps.remove(name, 0),
        Deleted::Every(name) => avps.remove_all(name) > 0,
        Deleted::Nothing => false,
        Deleted::All => {
            let found = avps.iter().next().is_some();
            avps.clear();
            found
        }
    }
}

/// A text, or the first variable in it, whose value keeps its type; NULL is an empty text.
struct Inserted(Value);

impl Arg<Avpops> for Inserted {
    type Prepared = Format;
    const WHAT: &'static str = "a value";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Avpops>,
    ) -> Result<Format, Diagnostic> {
        let arg = arg.ok_or_else(|| Diagnostic::error(site, "a parameter is missing here: a value"))?;
        host::arg::format_of(arg, loader)
    }

    fn eval(format: &Format, call: &mut Call<'_, Avpops>) -> Result<Inserted, i32> {
        let value = match format {
            Format::Constant(text) => Value::literal(text.clone()),
            Format::Var(var) => var.get(call.ctx),
            Format::Mixed(pieces) => {
                let first = pieces.iter().find_map(|piece| match piece {
                    FormatPiece::Var(var) => Some(var),
                    FormatPiece::Text(_) => None,
                });
                first.map_or(Value::Null, |var| var.get(call.ctx))
            }
        };
        Ok(Inserted(if value.is_null() { Value::from("") } else { value.plain() }))
    }
}

/// A whole number, 0 or more, that stands in the script.
struct Position(usize);

impl Arg<Avpops> for Position {
    type Prepared = usize;
    const WHAT: &'static str = "an index";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        _: &mut Loader,
        _: &Arc<Avpops>,
    ) -> Result<usize, Diagnostic> {
        let number = match arg.map(|arg| &arg.kind) {
            Some(ArgKind::Int(n)) => usize::try_from(*n).ok(),
            Some(ArgKind::Text(t) | ArgKind::Word(t)) => {
                std::str::from_utf8(t).ok().and_then(|t| t.parse().ok())
            }
            _ => None,
        };
        let loc = arg.map_or(site, |arg| arg.loc);
        number.ok_or_else(|| Diagnostic::error(loc, "the index must be a number, 0 or more"))
    }

    fn eval(index: &usize, _: &mut Call<'_, Avpops>) -> Result<Position, i32> {
        Ok(Position(*index))
    }
}

/// avp_insert(avp, value, index)
fn insert(call: &mut Call<Avpops>, avp: AvpName, value: Inserted, index: Position) -> i32 {
    call.state.avps.borrow_mut().insert(avp, index.0, value.0);
    1
}

/// avp_shuffle(avp): its values in any order; false when there is none.
fn shuffle(call: &mut Call<Avpops>, avp: AvpName) -> bool {
    let mut values: Vec<Value> = call.state.avps.borrow().values(avp).cloned().collect();
    for i in (1..values.len()).rev() {
        let other = call.core.rng.below(i as u64 + 1) as usize;
        values.swap(i, other);
    }
    let mut avps = call.state.avps.borrow_mut();
    for (i, value) in values.iter().enumerate() {
        avps.replace(avp, i as i32, value.clone());
    }
    !values.is_empty()
}
