//! avp_pushto(): values into the R-URI, the destination or branches.

use super::Avpops;
use super::args::{Flags, Operand, number, var_and_rest};
use bytes::Bytes;
use host::load::Loader;
use host::vars::uri::{edit_request, set_destination, set_request};
use host::{Arg, Branch, Call, Ctx, Registrar, Routes, Value, branches};
use script::ast;
use script::{Diagnostic, Loc};
use std::sync::Arc;

pub fn register(m: &mut Registrar<Avpops>) {
    m.function("avp_pushto", Routes::ALL, push);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Uri,
    User,
    Domain,
    Destination,
    Branch,
}

impl Arg<Avpops> for Place {
    type Prepared = Place;
    const WHAT: &'static str = "$ru, $ru/username, $ru/domain, $du or $br";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        _: &mut Loader,
        _: &Arc<Avpops>,
    ) -> Result<Place, Diagnostic> {
        let what = <Place as Arg<Avpops>>::WHAT;
        let (spec, part, loc) = var_and_rest(arg, site, what)?;
        let part = part.map(|part| part.to_ascii_lowercase());
        match (&spec.name[..], part.as_deref()) {
            (b"ru" | b"ruri", None) => Ok(Place::Uri),
            (b"ru" | b"ruri", Some(b"username")) => Ok(Place::User),
            (b"ru" | b"ruri", Some(b"domain")) => Ok(Place::Domain),
            (b"du" | b"duri", None) => Ok(Place::Destination),
            (b"br" | b"branch", None) => Ok(Place::Branch),
            (b"hdr", _) => Err(Diagnostic::error(loc, "headers are not written this way")
                .hint("append_hf(), or append_to_reply()")),
            _ => Err(Diagnostic::error(loc, format!("this must be {what}"))),
        }
    }

    fn eval(place: &Place, _: &mut Call<'_, Avpops>) -> Result<Place, i32> {
        Ok(*place)
    }
}

struct Pushed(Vec<Value>);

impl Arg<Avpops> for Pushed {
    type Prepared = (Operand, Flags);
    const WHAT: &'static str = "a variable, with /g";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Avpops>,
    ) -> Result<Self::Prepared, Diagnostic> {
        let (spec, flags, loc) = var_and_rest(arg, site, <Pushed as Arg<Avpops>>::WHAT)?;
        let flags = Flags::parse(&flags.unwrap_or_default(), b"g", loc)?;
        Ok((Operand::var(&spec, loader)?, flags))
    }

    fn eval((operand, flags): &Self::Prepared, call: &mut Call<'_, Avpops>) -> Result<Pushed, i32> {
        let mut values = operand.values(call.ctx).ok_or(-1)?;
        if !flags.all {
            values.truncate(1);
        }
        Ok(Pushed(values))
    }
}

/// avp_pushto(destination, "name/g"): of several values the later ones take the R-URI, which goes on as a
/// branch before.
fn push(call: &mut Call<Avpops>, place: Place, values: Pushed) -> bool {
    let ctx = &mut *call.ctx;
    values.0.iter().enumerate().all(|(i, value)| {
        let text = value.to_text();
        match place {
            Place::Uri | Place::User | Place::Domain => {
                if i > 0 {
                    let uri = ctx.state.current_uri();
                    if !branches::append(&mut ctx.state, uri, -1) {
                        return false;
                    }
                }
                rewrite(ctx, place, text)
            }
            // Numbers are no URIs.
            _ if number(value).is_some() => false,
            Place::Destination => !text.is_empty() && set_destination(&mut ctx.state, text),
            Place::Branch => {
                let socket = ctx.state.socket;
                branches::append_branch(
                    &mut ctx.state,
                    Branch { uri: text, q: -1, socket, ..Branch::default() },
                )
            }
        }
    })
}

fn rewrite(ctx: &mut Ctx, place: Place, text: Bytes) -> bool {
    match place {
        Place::User => edit_request(ctx, |uri| uri.with_user(&text)),
        Place::Domain => !text.is_empty() && edit_request(ctx, |uri| uri.with_host(&text)),
        _ => set_request(ctx, text),
    }
}
