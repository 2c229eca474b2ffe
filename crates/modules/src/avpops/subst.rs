//! avp_subst(): regular expressions on the texts of AVPs.

use super::Avpops;
use super::args::{Flags, Parse, Parsed, avp, leading_var, var_and_rest};
use bytes::Bytes;
use host::load::Loader;
use host::subst::Subst;
use host::vars::avp::AvpRef;
use host::{Arg, Call, Registrar, Routes, Value};
use script::ast;
use script::{Diagnostic, Loc};
use std::sync::Arc;

pub fn register(m: &mut Registrar<Avpops>) {
    m.function("avp_subst", Routes::ALL, subst);
}

/// "$avp(from)/$avp(to)/flags"
struct Places(Arc<Prepared>);

struct Prepared {
    from: AvpRef,
    to: Option<AvpRef>,
    flags: Flags,
}

impl Arg<Avpops> for Places {
    type Prepared = Arc<Prepared>;
    const WHAT: &'static str = "an AVP, with /$avp(to)/flags";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Avpops>,
    ) -> Result<Self::Prepared, Diagnostic> {
        let (from, rest, loc) = var_and_rest(arg, site, <Places as Arg<Avpops>>::WHAT)?;
        let rest = rest.unwrap_or_default();
        let (to, flags) = if rest.starts_with(b"$") {
            let (to, flags) = leading_var(&rest, loc)?;
            (Some(to), flags.unwrap_or_default())
        } else {
            (None, rest)
        };
        let from = avp(&from, loc, loader)?;
        let to = to.map(|to| avp(&to, loc, loader)).transpose()?;
        Ok(Arc::new(Prepared { from, to, flags: Flags::parse(&flags, b"gd", loc)? }))
    }

    fn eval(prepared: &Self::Prepared, _: &mut Call<'_, Avpops>) -> Result<Places, i32> {
        Ok(Places(prepared.clone()))
    }
}

impl Parse for Subst {
    const WHAT: &'static str = "/expression/replacement/flags";

    fn parse(text: &Bytes, loc: Loc, loader: &mut Loader) -> Result<Subst, Diagnostic> {
        Subst::new(text, loc, loader)
    }
}

/// avp_subst("$avp(from)/$avp(to)/flags", "/re/replacement/flags"): the first value that matches, or with `g`
/// all; `d` removes what was changed, and so does leaving out `to`. Results come in front.
fn subst(call: &mut Call<Avpops>, places: Places, subst: Parsed<Subst>) -> bool {
    let Prepared { from, to, flags } = &*places.0;
    let Some(from) = from.name(call.ctx) else { return false };
    let target = match to {
        Some(to) => to.name(call.ctx),
        None => Some(from),
    };
    let Some(target) = target else { return false };
    let replaces = flags.delete || to.is_none();
    let values: Vec<Value> = call.state.avps.borrow().values(from).cloned().collect();
    // Where the value stands now: those kept and those that came in front of it.
    let mut at = 0;
    let mut found = false;
    for value in values {
        let text = value.text().filter(|_| !value.is_number());
        let changed = text.and_then(|text| subst.0.apply(call.ctx, &text));
        let Some(changed) = changed else {
            at += 1;
            continue;
        };
        found = true;
        let mut avps = call.state.avps.borrow_mut();
        if replaces {
            avps.remove(from, at);
        } else {
            at += 1;
        }
        avps.add(target, Value::Str(changed));
        at += i32::from(target == from);
        if !flags.all {
            break;
        }
    }
    found
}
