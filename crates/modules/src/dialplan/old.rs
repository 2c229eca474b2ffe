//! `dp_translate` as 2.1 writes it: `dp_translate("[partition:]id", "$from/$to", ["$attributes"])`.

use super::{DEFAULT, Dialplan, begin};
use host::arg::{OutVar, parse_int};
use host::load::Loader;
use host::{Arg, Call, Outcome, Text, Var};
use script::ast::{self, ArgKind};
use script::{Diagnostic, Loc};
use std::sync::Arc;

/// "$from/$to", "$from"
#[derive(Clone)]
pub struct Places(Arc<(Var, Option<Arc<Var>>)>);

impl Arg<Dialplan> for Places {
    type Prepared = Places;
    const WHAT: &'static str = "\"$from/$to\"";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Dialplan>,
    ) -> Result<Places, Diagnostic> {
        let bad = |loc| Diagnostic::error(loc, "this must be \"$from/$to\"");
        let (text, loc) = match arg.map(|arg| (&arg.kind, arg.loc)) {
            Some((ArgKind::Text(text), loc)) => (text.slice_ref(text.trim_ascii()), loc),
            Some((ArgKind::Var(spec), _)) => return Ok(Places(Arc::new((loader.var(spec)?, None)))),
            _ => return Err(bad(site)),
        };
        if !text.starts_with(b"$") {
            return Err(bad(loc));
        }
        let (from, len) = script::parse_leading_variable(&text, loc)?;
        let from = loader.var(&from)?;
        let rest = text.slice(len..);
        let rest = rest.slice_ref(rest.trim_ascii());
        let to = match rest.strip_prefix(b"/") {
            Some(to) => {
                Some(Arc::new(loader.target_var(&script::parse_variable(&rest.slice_ref(to), loc)?)?))
            }
            None if rest.is_empty() => None,
            None => return Err(bad(loc)),
        };
        Ok(Places(Arc::new((from, to))))
    }

    fn eval(places: &Places, _: &mut Call<'_, Dialplan>) -> Result<Places, i32> {
        Ok(places.clone())
    }
}

pub fn dp_translate(call: &mut Call<Dialplan>, id: Text, places: Places, attrs: Option<OutVar>) -> Outcome {
    let id = id.str().into_owned();
    let (partition, id) = id.rsplit_once(':').unwrap_or((DEFAULT, &id));
    let Some(id) = parse_int(id.trim().as_bytes()) else { return Outcome::Done(-1) };
    let Some(input) = places.0.0.get(call.ctx).text() else { return Outcome::Done(-1) };
    let out = places.0.1.clone().map(OutVar);
    begin(call, id, input, out, attrs, partition.trim())
}
