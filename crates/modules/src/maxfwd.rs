//! maxfwd: the Max-Forwards header (RFC 3261 §16.6).

use host::{Call, Int, Registrar, Routes};
use script::ast::{self, ArgKind};
use script::{Diagnostic, Loc};
use sip::{Anchor, Header, HeaderName};
use std::rc::Rc;
use std::sync::Arc;

pub struct Maxfwd {
    max_limit: i64,
}

impl Default for Maxfwd {
    fn default() -> Maxfwd {
        Maxfwd { max_limit: 256 }
    }
}

pub fn register(m: &mut Registrar<Maxfwd>) {
    m.param_int("max_limit", |s, v| match v {
        1..=256 => Ok(s.max_limit = v),
        _ => Err("max_limit goes from 1 to 256".into()),
    });
    m.function("mf_process_maxfwd_header", Routes::REQUEST, process);
    m.function(
        "is_maxfwd_lt",
        Routes::REQUEST.and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::LOCAL),
        is_lower,
    );
}

/// A number of hops; a constant is checked against `max_limit` at load.
struct Hops(i64);

impl host::Arg<Maxfwd> for Hops {
    type Prepared = <Int as host::Arg<Maxfwd>>::Prepared;
    const WHAT: &'static str = "a number of hops";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut host::Loader,
        module: &Arc<Maxfwd>,
    ) -> Result<Self::Prepared, Diagnostic> {
        let prepared = <Int as host::Arg<Maxfwd>>::prepare(arg, site, loader, module)?;
        let loc = arg.map_or(site, |a| a.loc);
        match &prepared {
            Ok(n) if *n < 1 || *n > module.max_limit => Err(Diagnostic::error(
                loc,
                format!("the number of hops goes from 1 to {} (max_limit)", module.max_limit),
            )),
            Err(_) if arg.is_some_and(|a| matches!(a.kind, ArgKind::Empty)) => {
                Err(Diagnostic::error(loc, "a number of hops is missing"))
            }
            _ => Ok(prepared),
        }
    }

    fn eval(prepared: &Self::Prepared, call: &mut Call<'_, Maxfwd>) -> Result<Hops, i32> {
        Int::eval(prepared, call).map(|n| Hops(n.0))
    }
}

/// What the header says.
enum Hop {
    None,
    Empty,
    Bad,
    Value(Header, i64),
}

fn current(call: &Call<'_, Maxfwd>) -> Hop {
    let msg = &call.ctx.state.msg;
    let Some(header) = msg.header(HeaderName::MaxForwards) else { return Hop::None };
    let text = msg.bytes(header.value());
    if text.is_empty() {
        return Hop::Empty;
    }
    if !text.iter().all(u8::is_ascii_digit) {
        return Hop::Bad;
    }
    let value = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).unwrap_or(i64::MAX);
    Hop::Value(*header, value)
}

/// mf_process_maxfwd_header(max): 1 decremented, 2 added, -1 was 0 or empty, -2 unreadable.
fn process(call: &mut Call<Maxfwd>, max: Hops) -> i32 {
    match current(call) {
        Hop::Bad => -2,
        Hop::Empty | Hop::Value(_, 0) => -1,
        Hop::None => {
            let line = format!("Max-Forwards: {}\r\n", max.0);
            call.ctx.state.edits.insert(Anchor::Top, line);
            2
        }
        Hop::Value(header, value) => {
            let limit = call.module.max_limit;
            let next = if value > limit { limit } else { value - 1 };
            let width = header.value().end as usize - header.value().start as usize;
            // In place, as there: variables read the new number at once.
            let text = format!("{next:>width$}");
            Rc::make_mut(&mut call.ctx.state.msg).overwrite(header.value(), text.as_bytes());
            1
        }
    }
}

/// is_maxfwd_lt(n): 1 lower than n, -1 not, -2 no header, -3 unreadable.
fn is_lower(call: &mut Call<Maxfwd>, than: Int) -> i32 {
    match current(call) {
        Hop::None => -2,
        Hop::Bad => -3,
        // As if it said 0.
        Hop::Empty => 1,
        Hop::Value(_, value) => {
            if value < than.0 {
                1
            } else {
                -1
            }
        }
    }
}
