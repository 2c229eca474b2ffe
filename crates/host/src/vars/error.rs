//! What went wrong with the message last: `$err.*`, and the start of error_route.

use crate::ctx::Ctx;
use crate::language::vartable::VarTable;
use crate::reply::LastError;
use bytes::Bytes;
use script::Value;
use sip::HeaderName;

/// An error that a script may look at in error_route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorInfo {
    /// 1: parsing, 3: an assert
    pub class: i64,
    /// 1 to 3, 3 is the least grave
    pub level: i64,
    pub info: Bytes,
    /// The reply that fits.
    pub code: u16,
    pub reason: Bytes,
}

pub fn register(table: &mut VarTable) {
    table.read("err.class", |ctx| Value::Int(info(ctx).class));
    table.read("err.level", |ctx| Value::Int(info(ctx).level));
    table.read("err.info", |ctx| Value::Str(info(ctx).info));
    table.read("err.rcode", |ctx| Value::Int(i64::from(info(ctx).code)));
    table.read("err.rreason", |ctx| Value::Str(info(ctx).reason));
}

fn info(ctx: &Ctx) -> ErrorInfo {
    ctx.state.ext.find::<ErrorInfo>().cloned().unwrap_or_default()
}

impl ErrorInfo {
    /// An `assert` does not hold.
    pub fn assertion() -> ErrorInfo {
        ErrorInfo {
            class: 3,
            level: 1,
            info: Bytes::from_static(b"assertion failed"),
            code: 500,
            reason: Bytes::from_static(b"server error"),
        }
    }
}

/// Notes an error for `$err.*`.
pub fn note(ctx: &mut Ctx, error: ErrorInfo) {
    ctx.state.ext.set(LastError { code: error.code, reason: error.reason.clone() });
    ctx.state.ext.set(error);
}

/// Notes an error; error_route, if there is one, runs after the current statement.
pub fn raise(ctx: &mut Ctx, error: ErrorInfo) {
    note(ctx, error);
    ctx.state.task.raise_error();
}

/// A header is there but cannot be read.
pub(super) fn bad_header(ctx: &mut Ctx, header: HeaderName) {
    let name = header.as_str();
    raise(
        ctx,
        ErrorInfo {
            class: 1,
            level: 2,
            info: format!("error parsing the {name} header").into(),
            code: 400,
            reason: format!("Bad {name} header").into(),
        },
    );
}
