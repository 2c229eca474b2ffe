//! textops: searching and replacing in the text of a message.
//!
//! What is searched is the message as received; what is changed is what is sent on. Patterns are POSIX
//! extended, in any case, with `^` and `$` at lines.

use crate::pattern;
use bytes::Bytes;
use host::format::Format;
use host::subst::{Change, Subst, changed};
use host::{Arg, Call, Loader, MsgState, Registrar, Routes, arg};
use script::ast::{self, ArgKind, Dialect};
use script::posix;
use script::{Diagnostic, Loc};
use sip::{Anchor, HeaderName, Span};
use std::ops::Deref;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// The module has no parameters.
#[derive(Default)]
pub struct Textops;

pub fn register(m: &mut Registrar<Textops>) {
    let requests = Routes::REQUEST.and(Routes::FAILURE).and(Routes::BRANCH);
    let any = requests.and(Routes::ON_REPLY).and(Routes::LOCAL);
    m.function("search", any, search);
    m.function("search_body", any, search_body);
    m.function("search_append", any, search_append);
    m.function("search_append_body", any, search_append_body);
    m.function("replace", any, replace);
    m.function("replace_all", any, replace_all);
    m.function("replace_body", any, replace_body);
    m.function("replace_body_all", any, replace_body_all);
    m.function("replace_body_atonce", any, replace_body_atonce);
    m.function("subst", any, subst);
    m.function("subst_body", any, subst_body);
    m.function("subst_uri", requests, subst_uri);
    m.function("subst_user", requests, subst_user);
}

/// A regular expression; 2.1 does not expand variables in it.
struct Pattern(posix::Pattern);

impl Arg<Textops> for Pattern {
    type Prepared = pattern::Prepared;
    const WHAT: &'static str = "a regular expression";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Textops>,
    ) -> Result<pattern::Prepared, Diagnostic> {
        let format = match arg {
            Some(arg) if loader.dialect != Dialect::V21 => pattern::format(arg, loader)?,
            arg => as_written(arg, site, loader)?,
        };
        pattern::Prepared::new(format, arg.map_or(site, |a| a.loc))
    }

    fn eval(prepared: &pattern::Prepared, call: &mut Call<'_, Textops>) -> Result<Pattern, i32> {
        prepared.get(call.ctx).map(Pattern).ok_or(-1)
    }
}

/// A text; 2.1 does not expand variables in it.
struct Txt(Bytes);

impl Arg<Textops> for Txt {
    type Prepared = Format;
    const WHAT: &'static str = "a string";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Textops>,
    ) -> Result<Format, Diagnostic> {
        as_written(arg, site, loader)
    }

    fn eval(format: &Format, call: &mut Call<'_, Textops>) -> Result<Txt, i32> {
        Ok(Txt(format.text(call.ctx)))
    }
}

/// The same for functions that may put it into a header.
struct HeadTxt(Bytes);

impl Arg<Textops> for HeadTxt {
    type Prepared = Format;
    const WHAT: &'static str = "a string";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Textops>,
    ) -> Result<Format, Diagnostic> {
        as_written(arg, site, loader)
    }

    fn eval(format: &Format, call: &mut Call<'_, Textops>) -> Result<HeadTxt, i32> {
        Ok(HeadTxt(format.head(call.ctx)))
    }
}

fn as_written(arg: Option<&ast::Arg>, site: Loc, loader: &mut Loader) -> Result<Format, Diagnostic> {
    let arg = arg.ok_or_else(|| Diagnostic::error(site, "a parameter is missing here: a string"))?;
    match &arg.kind {
        ArgKind::Text(text) if loader.dialect == Dialect::V21 => Ok(Format::Constant(text.clone())),
        _ => arg::format_of(arg, loader),
    }
}

/// `/re/replacement/flags`; a constant is prepared when the script is loaded.
enum Substitution {
    Known(Arc<Subst>),
    Late(Rc<Subst>),
}

impl Deref for Substitution {
    type Target = Subst;

    fn deref(&self) -> &Subst {
        match self {
            Substitution::Known(subst) => subst,
            Substitution::Late(subst) => subst,
        }
    }
}

/// The same before the message is there.
#[derive(Debug)]
enum PreparedSubst {
    Known(Arc<Subst>),
    /// In a variable, in 4.x.
    Late(Format),
}

impl Arg<Textops> for Substitution {
    type Prepared = PreparedSubst;
    const WHAT: &'static str = "a substitution";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Textops>,
    ) -> Result<PreparedSubst, Diagnostic> {
        let arg = arg.ok_or_else(|| Diagnostic::error(site, "a substitution is missing here"))?;
        match &arg.kind {
            ArgKind::Text(text) | ArgKind::Word(text) => {
                Subst::new(text, arg.loc, loader).map(|subst| PreparedSubst::Known(Arc::new(subst)))
            }
            ArgKind::Var(_) if loader.dialect == Dialect::V4 => {
                arg::format_of(arg, loader).map(PreparedSubst::Late)
            }
            _ => Err(Diagnostic::error(arg.loc, "this must be a constant substitution")),
        }
    }

    fn eval(prepared: &PreparedSubst, call: &mut Call<'_, Textops>) -> Result<Substitution, i32> {
        let format = match prepared {
            PreparedSubst::Known(subst) => return Ok(Substitution::Known(subst.clone())),
            PreparedSubst::Late(format) => format,
        };
        let text = format.text(call.ctx);
        let found = call.ctx.late_subst(&text);
        if found.is_none() {
            let text = String::from_utf8_lossy(&text).into_owned();
            host::complain!(call.ctx, "textops", "{text} is no substitution: /expression/replacement/flags");
        }
        found.map(Substitution::Late).ok_or(-1)
    }
}

/// Part of a message that functions work on.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// From the first header on.
    AfterFirstLine,
    Body,
}

/// The text of a part, and where it begins in the message.
fn text_of(state: &MsgState, part: Part) -> (Bytes, usize) {
    let msg = &state.msg;
    match part {
        Part::AfterFirstLine => {
            let start = msg.start_line().end as usize;
            (msg.buf().slice(start..), start)
        }
        Part::Body => match state.edits.body() {
            Some(body) => (body.clone(), 0),
            None => (msg.text(msg.body()), msg.body().start as usize),
        },
    }
}

/// Records changes. True when there are any.
fn record(state: &mut MsgState, part: Part, dialect: Dialect, changes: &[Change]) -> bool {
    let (text, start) = text_of(state, part);
    if part == Part::Body {
        // 2.1 forgets changes of a body whose length no header states.
        if dialect == Dialect::V21 && state.msg.header(HeaderName::ContentLength).is_none() {
            return !changes.is_empty();
        }
        if state.edits.body().is_some() {
            state.edits.set_body(changed(&text, changes));
            return !changes.is_empty();
        }
    }
    for (range, text) in changes {
        let span = Span::new(start + range.start, start + range.end);
        if span.is_empty() {
            state.edits.insert(Anchor::At(span.start), text.clone());
        } else {
            state.edits.replace(span, text.clone());
        }
    }
    !changes.is_empty()
}

/// Puts `change(place of the first match)` into a part.
fn at_first(
    call: &mut Call<Textops>,
    part: Part,
    re: &Pattern,
    change: impl FnOnce(Range<usize>) -> Change,
) -> bool {
    let dialect = call.shared().dialect;
    let (text, _) = text_of(&call.state, part);
    let Some(found) = re.0.find(&text) else { return false };
    record(&mut call.state, part, dialect, &[change(found)])
}

/// Replaces up to the first match of nothing. False when there was one in a body (as in the reference), or no match.
fn everywhere(call: &mut Call<Textops>, part: Part, re: &Pattern, txt: &Bytes) -> bool {
    let dialect = call.shared().dialect;
    let (text, _) = text_of(&call.state, part);
    let mut changes: Vec<Change> = Vec::new();
    let end = |changes: &[Change]| changes.last().map_or(0, |(range, _)| range.end);
    let mut whole = true;
    while let Some(range) = re.0.find_at(&text, end(&changes)) {
        if range.is_empty() {
            whole = part != Part::Body;
            break;
        }
        changes.push((range, txt.clone()));
    }
    record(&mut call.state, part, dialect, &changes) && whole
}

/// search(re): in the whole message.
fn search(call: &mut Call<Textops>, re: Pattern) -> bool {
    re.0.is_match(call.state.msg.buf())
}

/// search_body(re)
fn search_body(call: &mut Call<Textops>, re: Pattern) -> bool {
    let (body, _) = text_of(&call.state, Part::Body);
    !body.is_empty() && re.0.is_match(&body)
}

/// search_append(re, text): after the first match below the first line.
fn search_append(call: &mut Call<Textops>, re: Pattern, txt: HeadTxt) -> bool {
    at_first(call, Part::AfterFirstLine, &re, |found| (found.end..found.end, txt.0))
}

/// search_append_body(re, text)
fn search_append_body(call: &mut Call<Textops>, re: Pattern, txt: Txt) -> bool {
    at_first(call, Part::Body, &re, |found| (found.end..found.end, txt.0))
}

/// replace(re, text): the first match below the first line.
fn replace(call: &mut Call<Textops>, re: Pattern, txt: HeadTxt) -> bool {
    at_first(call, Part::AfterFirstLine, &re, |found| (found, txt.0))
}

/// replace_body(re, text)
fn replace_body(call: &mut Call<Textops>, re: Pattern, txt: Txt) -> bool {
    at_first(call, Part::Body, &re, |found| (found, txt.0))
}

/// replace_all(re, text)
fn replace_all(call: &mut Call<Textops>, re: Pattern, txt: HeadTxt) -> bool {
    everywhere(call, Part::AfterFirstLine, &re, &txt.0)
}

/// replace_body_all(re, text)
fn replace_body_all(call: &mut Call<Textops>, re: Pattern, txt: Txt) -> bool {
    everywhere(call, Part::Body, &re, &txt.0)
}

/// replace_body_atonce(re, text)
fn replace_body_atonce(call: &mut Call<Textops>, re: Pattern, txt: Txt) -> bool {
    everywhere(call, Part::Body, &re, &txt.0)
}

fn substitute(call: &mut Call<Textops>, part: Part, subst: &Subst) -> bool {
    let dialect = call.shared().dialect;
    let (text, _) = text_of(&call.state, part);
    let changes = match part {
        Part::AfterFirstLine => subst.changes_in_head(call.ctx, &text),
        Part::Body => subst.changes(call.ctx, &text),
    };
    record(&mut call.state, part, dialect, &changes)
}

/// subst("/re/replacement/flags"): below the first line.
fn subst(call: &mut Call<Textops>, expression: Substitution) -> bool {
    substitute(call, Part::AfterFirstLine, &expression)
}

/// subst_body("/re/replacement/flags")
fn subst_body(call: &mut Call<Textops>, expression: Substitution) -> bool {
    substitute(call, Part::Body, &expression)
}

/// subst_uri("/re/replacement/flags"): on the R-URI as it is now.
fn subst_uri(call: &mut Call<Textops>, expression: Substitution) -> bool {
    let uri = call.state.current_uri();
    let Some(new) = expression.apply(call.ctx, &uri) else { return false };
    call.state.ruri = Some(script::traced::on_one_line(&new));
    true
}

/// subst_user("/re/replacement/flags"): on its user part.
fn subst_user(call: &mut Call<Textops>, expression: Substitution) -> bool {
    let Ok(uri) = sip::Uri::parse(&call.state.current_uri()) else { return false };
    let user = uri.user.clone().unwrap_or_default();
    let Some(new) = expression.apply(call.ctx, &user) else { return false };
    call.state.ruri = Some(script::traced::on_one_line(&uri.with_user(&new)));
    true
}
