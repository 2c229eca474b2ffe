//! Regular expressions as arguments: POSIX extended, in any case, `^` and `$` at lines.

use bytes::Bytes;
use host::format::Format;
use host::{Arg, Call, Ctx, Loader, arg};
use script::ast::{self, ArgKind};
use script::posix::{self, Case};
use script::{Diagnostic, Loc};
use std::sync::Arc;

/// A regular expression: a constant one is compiled at load, one with variables when it changes.
pub struct Pattern(pub posix::Pattern);

pub enum Prepared {
    Constant(posix::Pattern),
    /// With the last text and what it was compiled to.
    Changing(Format, parking_lot::Mutex<Option<(Bytes, posix::Pattern)>>),
}

impl Prepared {
    /// `loc`: of the argument.
    pub fn new(format: Format, loc: Loc) -> Result<Prepared, Diagnostic> {
        let Some(text) = format.constant() else {
            return Ok(Prepared::Changing(format, parking_lot::Mutex::default()));
        };
        match posix::compile_lines(text, Case::Ignore) {
            Ok(regex) => Ok(Prepared::Constant(regex)),
            Err(error) => Err(Diagnostic::error(loc, format!("bad regular expression: {error}"))),
        }
    }

    /// The expression now; `None`, and a line in the log, when it is a bad one.
    pub fn get(&self, ctx: &mut Ctx) -> Option<posix::Pattern> {
        let (format, last) = match self {
            Prepared::Constant(regex) => return Some(regex.clone()),
            Prepared::Changing(format, last) => (format, last),
        };
        let text = match format {
            // One that is not set is no expression.
            Format::Var(var) => var.get(ctx).text()?,
            format => format.text(ctx),
        };
        let mut last = last.lock();
        if let Some((pattern, regex)) = &*last
            && *pattern == text
        {
            return Some(regex.clone());
        }
        match posix::compile_lines(&text, Case::Ignore) {
            Ok(regex) => {
                *last = Some((text, regex.clone()));
                Some(regex)
            }
            Err(error) => {
                host::error!("core", "bad regular expression {}: {error}", String::from_utf8_lossy(&text));
                None
            }
        }
    }
}

/// The text of a pattern. A dollar that begins no variable is one of the expression (`"^a$"`).
pub fn format(arg: &ast::Arg, loader: &mut Loader) -> Result<Format, Diagnostic> {
    match (&arg.kind, arg::format_of(arg, loader)) {
        (ArgKind::Text(text), Err(_)) => Ok(Format::Constant(text.clone())),
        (_, format) => format,
    }
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
