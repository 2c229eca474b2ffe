//! Log lines that scripts write.

use super::Core;
use bytes::Bytes;
use host::arg::Arg;
use host::load::Loader;
use host::log::{self, Level};
use host::registrar::Since;
use host::{Call, Format, Int, Registrar, Routes, Var};
use script::ast::{self, ArgKind};
use script::{Diagnostic, Loc};
use std::sync::Arc;

pub fn register(m: &mut Registrar<Core>) {
    let all = Routes::ALL;
    m.function("xlog", all, |call: &mut Call<Core>, line: Line| {
        let level = call.shared().globals.core.xlog_print_level.map_or(Level::Error, Level::from_number);
        xlog(call, level, &line.0)
    });
    m.function("xlog", all, |call: &mut Call<Core>, level: LevelArg, line: Line| {
        xlog(call, level.0, &line.0)
    });
    m.function("xdbg", all, |call: &mut Call<Core>, line: Line| xlog(call, Level::Debug, &line.0));
    m.function("log", all, |_: &mut Call<Core>, text: Fixed| core_log(Level::Debug, &text.0));
    m.function("log", all, |_: &mut Call<Core>, level: Int, text: Fixed| {
        core_log(Level::from_number(level.0), &text.0)
    });
    m.function_of(Since::V21, "setdebug", all, |_: &mut Call<Core>, level: Option<Int>| {
        log::override_level(level.map(|l| l.0.clamp(-3, 4) as i8));
        1
    });
    m.function("avp_print", all, avp_print);
}

/// xlog([level, ] text)
fn xlog(call: &mut Call<Core>, level: Level, line: &Arc<Format>) -> i32 {
    if level as i8 <= log::xlog_level() {
        let text = line.printable(call.ctx);
        log::emit(level, "", &String::from_utf8_lossy(&text));
    }
    1
}

/// log([level, ] text): the text as it stands.
fn core_log(level: Level, text: &[u8]) -> i32 {
    if log::enabled(level) {
        log::emit(level, "", &String::from_utf8_lossy(text));
    }
    1
}

/// avp_print(): every AVP of the message.
fn avp_print(call: &mut Call<Core>) -> i32 {
    let avps = call.ctx.state.avps.borrow();
    for (name, value) in avps.iter() {
        let (name, value) = (name.text(), value.to_text());
        let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
        host::info!("core", "avp name=<{}> value=<{}>", text(&name), text(&value));
    }
    1
}

/// A quoted line, prepared but not filled in: a line below the level costs nothing.
#[derive(Clone)]
struct Line(Arc<Format>);

impl Arg<Core> for Line {
    type Prepared = Arc<Format>;
    const WHAT: &'static str = "a quoted string";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Core>,
    ) -> Result<Arc<Format>, Diagnostic> {
        let (text, loc) = quoted(arg, site)?;
        if text.is_empty() {
            return Err(Diagnostic::error(loc, "there is nothing to log"));
        }
        Ok(Arc::new(Format::new(text, loc, loader)?))
    }

    fn eval(prepared: &Arc<Format>, _: &mut Call<'_, Core>) -> Result<Line, i32> {
        Ok(Line(prepared.clone()))
    }
}

fn quoted(arg: Option<&ast::Arg>, site: Loc) -> Result<(&Bytes, Loc), Diagnostic> {
    match arg.map(|a| (&a.kind, a.loc)) {
        Some((ArgKind::Text(text), loc)) => Ok((text, loc)),
        Some((ArgKind::Var(_), loc)) => {
            Err(Diagnostic::error(loc, "this must be a quoted string").hint("write \"$var(x)\""))
        }
        Some((_, loc)) => Err(Diagnostic::error(loc, "this must be a quoted string")),
        None => Err(Diagnostic::error(site, "a parameter is missing here: a quoted string")),
    }
}

/// A quoted text that is never filled in.
#[derive(Clone)]
struct Fixed(Bytes);

impl Arg<Core> for Fixed {
    type Prepared = Bytes;
    const WHAT: &'static str = "a quoted string";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        _: &mut Loader,
        _: &Arc<Core>,
    ) -> Result<Bytes, Diagnostic> {
        quoted(arg, site).map(|(text, _)| text.clone())
    }

    fn eval(text: &Bytes, _: &mut Call<'_, Core>) -> Result<Fixed, i32> {
        Ok(Fixed(text.clone()))
    }
}

/// The level of a line: `"L_INFO"`, or a variable in quotes.
#[derive(Clone, Copy)]
struct LevelArg(Level);

enum Prepared {
    Fixed(Level),
    Computed(Box<Var>),
}

impl Arg<Core> for LevelArg {
    type Prepared = Arc<dyn Fn(&mut Call<'_, Core>) -> Result<Level, i32> + Send + Sync>;
    const WHAT: &'static str = "a log level";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Core>,
    ) -> Result<Self::Prepared, Diagnostic> {
        let (text, loc) = quoted(arg, site)?;
        let prepared = if text.starts_with(b"$") {
            Prepared::Computed(Box::new(loader.var(&script::parse_variable(text, loc)?)?))
        } else {
            Prepared::Fixed(level_of(text).ok_or_else(|| {
                let text = String::from_utf8_lossy(text);
                let error = Diagnostic::error(loc, format!("`{text}` is no log level"));
                error.hint("L_ALERT, L_CRIT, L_ERR, L_WARN, L_NOTICE, L_INFO or L_DBG")
            })?)
        };
        Ok(Arc::new(move |call| match &prepared {
            Prepared::Fixed(level) => Ok(*level),
            Prepared::Computed(var) => match var.get(call.ctx) {
                value if value.int().is_some() => Ok(Level::from_number(value.int().unwrap_or(0))),
                value => value.text().and_then(|t| level_of(&t)).ok_or(-1),
            },
        }))
    }

    fn eval(prepared: &Self::Prepared, call: &mut Call<'_, Core>) -> Result<LevelArg, i32> {
        prepared(call).map(LevelArg)
    }
}

/// The third letter decides, as in the reference: `L_ERROR` is `L_ERR`.
fn level_of(text: &[u8]) -> Option<Level> {
    Some(match text.get(2)? {
        b'A' => Level::Alert,
        b'C' => Level::Critical,
        b'E' => Level::Error,
        b'W' => Level::Warning,
        b'N' => Level::Notice,
        b'I' => Level::Info,
        b'D' => Level::Debug,
        _ => return None,
    })
}
