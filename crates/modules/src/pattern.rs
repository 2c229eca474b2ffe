//! Regular expressions as arguments: POSIX extended, in any case, `^` and `$` at lines. A constant one is compiled at load,
//! one with variables by each worker that meets it; no worker waits for another's.

use ahash::AHashMap;
use bytes::Bytes;
use host::format::Format;
use host::{Arg, Call, Ctx, Loader, arg};
use script::ast::{self, ArgKind, Dialect};
use script::posix::{self, Case};
use script::{Diagnostic, Loc};
use std::sync::Arc;

/// A regular expression.
pub struct Pattern(pub posix::Pattern);

pub enum Prepared {
    Constant(posix::Pattern),
    Changing(Format),
}

/// Expressions that one worker keeps compiled; past it the worker starts anew.
const MAX_COMPILED: usize = 256;

/// What this worker compiled lately; `None` for bad ones.
#[derive(Default)]
struct Compiled(AHashMap<Bytes, Option<posix::Pattern>>);

impl Prepared {
    /// `loc`: of the argument.
    pub fn new(format: Format, loc: Loc) -> Result<Prepared, Diagnostic> {
        let Some(text) = format.constant() else {
            return Ok(Prepared::Changing(format));
        };
        match posix::compile_lines(text, Case::Ignore) {
            Ok(regex) => Ok(Prepared::Constant(regex)),
            Err(error) => Err(Diagnostic::error(loc, format!("bad regular expression: {error}"))),
        }
    }

    /// The expression now; `None`, and a line in the log, when it is a bad one.
    pub fn get(&self, ctx: &mut Ctx) -> Option<posix::Pattern> {
        let text = match self {
            Prepared::Constant(regex) => return Some(regex.clone()),
            // One that is not set is no expression.
            Prepared::Changing(Format::Var(var)) => var.get(ctx).text()?,
            Prepared::Changing(format) => format.text(ctx),
        };
        if let Some(found) = ctx.local::<Compiled>().0.get(&text) {
            return found.clone();
        }
        let compiled = posix::compile_lines(&text, Case::Ignore);
        if let Err(error) = &compiled {
            let shown = String::from_utf8_lossy(&text);
            host::complain!(ctx, "core", "bad regular expression {shown}: {error}");
        }
        let (table, compiled) = (&mut ctx.local::<Compiled>().0, compiled.ok());
        if table.len() >= MAX_COMPILED {
            table.clear();
        }
        // The key must not hold on to the whole message it was cut from.
        table.insert(Bytes::copy_from_slice(&text), compiled.clone());
        compiled
    }
}

/// The text of a pattern. In quotes it is taken as it is written, dollars too: only a variable that stands alone is read.
pub fn format(arg: &ast::Arg, loader: &mut Loader) -> Result<Format, Diagnostic> {
    let ArgKind::Text(text) = &arg.kind else { return arg::format_of(arg, loader) };
    let looks_like_more = !matches!(Format::new(text, arg.loc, loader), Ok(Format::Constant(_)) | Err(_));
    if loader.dialect == Dialect::V4 && looks_like_more {
        let text = "an expression in quotes is taken as it is written, also what looks like a variable in it";
        let hint = "put it together in a variable, and write the variable alone";
        loader.diagnostics.push(Diagnostic::warning(arg.loc, text).hint(hint));
    }
    Ok(Format::Constant(text.clone()))
}

impl<M> Arg<M> for Pattern {
    type Prepared = Prepared;
    const WHAT: &'static str = "a regular expression";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<M>,
    ) -> Result<Prepared, Diagnostic> {
        let arg = arg.ok_or_else(|| Diagnostic::error(site, "a regular expression is missing here"))?;
        Prepared::new(format(arg, loader)?, arg.loc)
    }

    fn eval(prepared: &Prepared, call: &mut Call<'_, M>) -> Result<Pattern, i32> {
        prepared.get(call.ctx).map(Pattern).ok_or(-1)
    }
}
