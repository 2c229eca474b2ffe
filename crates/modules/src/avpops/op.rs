//! avp_op(): whole numbers of AVPs.

use super::Avpops;
use super::args::{
    Flags, Operand, Parse, Parsed, avp, by_first_letters, number, operand, operation, var_and_rest,
};
use bytes::Bytes;
use host::load::Loader;
use host::vars::avp::AvpRef;
use host::{Arg, Call, Registrar, Routes, Value};
use script::ast;
use script::{Diagnostic, Loc};
use std::sync::Arc;

pub fn register(m: &mut Registrar<Avpops>) {
    m.function("avp_op", Routes::ALL, op);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sum {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    And,
    Or,
    Xor,
    /// Of the second operand.
    Not,
}

impl Sum {
    fn parse(word: &[u8]) -> Option<Sum> {
        const WORDS: [(&[u8], Sum); 9] = [
            (b"add", Sum::Add),
            (b"sub", Sum::Sub),
            (b"mul", Sum::Mul),
            (b"div", Sum::Div),
            (b"mod", Sum::Mod),
            (b"and", Sum::And),
            (b"or", Sum::Or),
            (b"xor", Sum::Xor),
            (b"not", Sum::Not),
        ];
        by_first_letters(&WORDS, word)
    }

    fn of(self, left: i32, right: i32) -> i32 {
        match self {
            Sum::Add => left.wrapping_add(right),
            Sum::Sub => left.wrapping_sub(right),
            Sum::Mul => left.wrapping_mul(right),
            Sum::Div | Sum::Mod if right == 0 => {
                host::error!("avpops", "avp_op: division by zero");
                0
            }
            Sum::Div => left.wrapping_div(right),
            Sum::Mod => left.wrapping_rem(right),
            Sum::And => left & right,
            Sum::Or => left | right,
            Sum::Xor => left ^ right,
            Sum::Not => !right,
        }
    }
}

/// "$avp(from)/$avp(to)"
struct Places(Arc<(AvpRef, Option<AvpRef>)>);

impl Arg<Avpops> for Places {
    type Prepared = Arc<(AvpRef, Option<AvpRef>)>;
    const WHAT: &'static str = "an AVP, with /$avp(to)";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Avpops>,
    ) -> Result<Self::Prepared, Diagnostic> {
        let (from, to, loc) = var_and_rest(arg, site, <Places as Arg<Avpops>>::WHAT)?;
        let from = avp(&from, loc, loader)?;
        let to = match to.filter(|to| !to.is_empty()) {
            Some(to) => Some(avp(&script::parse_variable(&to, loc)?, loc, loader)?),
            None => None,
        };
        Ok(Arc::new((from, to)))
    }

    fn eval(places: &Self::Prepared, _: &mut Call<'_, Avpops>) -> Result<Places, i32> {
        Ok(Places(places.clone()))
    }
}

struct Operation {
    sum: Sum,
    with: Operand,
    flags: Flags,
}

impl Parse for Operation {
    const WHAT: &'static str = "operator/value/flags";

    fn parse(text: &Bytes, loc: Loc, loader: &mut Loader) -> Result<Operation, Diagnostic> {
        let (word, value, flags) = operation(text, loc)?;
        let Some(sum) = Sum::parse(&word) else {
            let word = String::from_utf8_lossy(&word);
            return Err(Diagnostic::error(loc, format!("`{word}` is no operation"))
                .hint("add, sub, mul, div, mod, and, or, xor, not"));
        };
        let with = operand(&value, loc, loader)?;
        if matches!(with, Operand::Fixed(Value::Str(_))) {
            return Err(Diagnostic::error(loc, "the value must be a number").hint("i:5, or a variable"));
        }
        Ok(Operation { sum, with, flags: Flags::parse(&flags, b"gd", loc)? })
    }
}

/// avp_op("$avp(from)/$avp(to)", "operator/value/flags"): every number of the AVP, with or without `g`;
/// `d` removes them. Of an AVP as value, each number goes on with the result of the one before.
fn op(call: &mut Call<Avpops>, places: Places, what: Parsed<Operation>) -> bool {
    let (from, to) = &*places.0;
    let Some(from) = from.name(call.ctx) else { return false };
    let Some(to) = to.as_ref().map_or(Some(from), |to| to.name(call.ctx)) else { return false };
    let lefts: Vec<Value> = call.state.avps.borrow().values(from).cloned().collect();
    if lefts.is_empty() {
        return false;
    }
    let mut numbers: Vec<Option<i32>> = lefts.iter().filter_map(number).map(Some).collect();
    if numbers.is_empty() {
        if what.0.sum != Sum::Not {
            return false;
        }
        numbers.push(None);
    }
    for left in numbers {
        let rights = what.0.with.values(call.ctx).unwrap_or_default();
        let rights: Vec<i32> = rights.iter().filter_map(number).collect();
        if rights.is_empty() {
            return false;
        }
        let mut result = left.unwrap_or(0);
        let mut avps = call.state.avps.borrow_mut();
        if what.0.flags.delete && left.is_some() {
            remove_number(&mut avps, from, left);
        }
        for right in rights {
            result = what.0.sum.of(result, right);
            avps.add(to, Value::Int(i64::from(result)));
        }
    }
    true
}

/// Removes the newest value that is this number.
fn remove_number(avps: &mut host::avp::Avps, name: host::avp::AvpName, wanted: Option<i32>) {
    let at = avps.values(name).position(|value| number(value) == wanted);
    if let Some(at) = at {
        avps.remove(name, at as i32);
    }
}
