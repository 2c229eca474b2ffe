//! What belongs nowhere else: texts into variables, the time, tracing a script.

use super::Core;
use host::arg::Arg;
use host::ctx::{Trace, TraceLog};
use host::load::Loader;
use host::log::Level;
use host::registrar::Since;
use host::{Call, Format, Int, OutVar, Registrar, Routes, Text};
use script::ast::{self, ArgKind};
use script::{Diagnostic, Loc, Value};
use std::sync::Arc;

pub fn register(m: &mut Registrar<Core>) {
    let all = Routes::ALL;
    for name in ["pv_printf", "avp_printf"] {
        let since = if name == "pv_printf" { Since::Both } else { Since::V21 };
        m.function_of(since, name, all, |call: &mut Call<Core>, var: OutVar, text: Text| {
            var.set(call.ctx, Value::Str(text.0))
        });
    }
    m.function("get_timestamp", all, get_timestamp);
    m.function("script_trace", all, script_trace);
}

/// get_timestamp(seconds, microseconds)
fn get_timestamp(call: &mut Call<Core>, seconds: OutVar, micros: OutVar) -> i32 {
    let now = call.core.wall_us;
    seconds.set(call.ctx, Value::Int((now / 1_000_000) as i64));
    micros.set(call.ctx, Value::Int((now % 1_000_000) as i64));
    1
}

/// script_trace([level, text, [info]]): a log line for each function and assignment from here on;
/// without parameters it ends.
fn script_trace(
    call: &mut Call<Core>,
    level: Option<Int>,
    text: Option<Unfilled>,
    info: Option<Text>,
) -> i32 {
    call.ctx.state.trace = match (level, text) {
        (Some(level), Some(text)) => {
            let (level, info) = (Level::from_number(level.0), info.map(|i| i.0));
            let log = TraceLog { level, values: Box::new(move |ctx| text.0.text(ctx)), info };
            let observed = call.ctx.state.trace.as_ref().is_some_and(|trace| trace.observed);
            Some(Box::new(Trace { log: Some(log), observed }))
        }
        _ => call.ctx.state.trace.take().filter(|trace| trace.observed).map(|mut trace| {
            trace.log = None;
            trace
        }),
    };
    1
}

/// A text whose variables are filled in later, again and again.
#[derive(Clone)]
struct Unfilled(Arc<Format>);

impl Arg<Core> for Unfilled {
    type Prepared = Arc<Format>;
    const WHAT: &'static str = "a string";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Core>,
    ) -> Result<Arc<Format>, Diagnostic> {
        match arg.map(|a| (&a.kind, a.loc)) {
            Some((ArgKind::Text(text), loc)) => Ok(Arc::new(Format::new(text, loc, loader)?)),
            other => {
                Err(Diagnostic::error(other.map_or(site, |(_, loc)| loc), "this must be a quoted string"))
            }
        }
    }

    fn eval(prepared: &Arc<Format>, _: &mut Call<'_, Core>) -> Result<Unfilled, i32> {
        Ok(Unfilled(prepared.clone()))
    }
}
