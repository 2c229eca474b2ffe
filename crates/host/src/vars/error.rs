//! What went wrong with the message last: `$err.*`, and the start of error_route.

use crate::ctx::{Ctx, MsgState};
use crate::language::vartable::VarTable;
use crate::reply::LastError;
use bytes::Bytes;
use script::Value;
use sip::{HeaderName, Message, Uri};

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
    note_in(&mut ctx.state, error);
}

/// Notes an error; error_route, if there is one, runs after the current statement.
pub fn raise(ctx: &mut Ctx, error: ErrorInfo) {
    note(ctx, error);
    ctx.state.task.raise_error();
}

/// What of a request cannot be read that every element must read (RFC 3261 §8.1.1, §16.3 step 1); error_route takes
/// the place of the main route then. From is parsed when a script reads it, as in the reference.
pub(crate) fn look_over(msg: &Message) -> Option<ErrorInfo> {
    let broken = |name, readable: bool| !readable && msg.header(name).is_some();
    let what = match () {
        _ if msg.via().is_none() => "Via header",
        _ if !is_sound(&msg.request_uri()) => "Request-URI",
        _ if broken(HeaderName::To, msg.to().is_some()) => "To header",
        _ if broken(HeaderName::CSeq, msg.cseq_parts().is_some()) => "CSeq header",
        _ if broken(HeaderName::ContentLength, msg.content_length().is_some()) => "Content-Length header",
        _ => return None,
    };
    Some(unparsed(what))
}

/// A URI without what may stand in none of its parts (RFC 3261 §25.1): a second `@`.
fn is_sound(uri: &Bytes) -> bool {
    Uri::parse(uri).is_ok_and(|uri| !uri.params.text.contains(&b'@'))
}

/// Notes an error of a message whose script has not begun.
pub(crate) fn note_in(state: &mut MsgState, error: ErrorInfo) {
    state.ext.set(LastError { code: error.code, reason: error.reason.clone() });
    state.ext.set(error);
}

fn unparsed(what: &str) -> ErrorInfo {
    ErrorInfo {
        class: 1,
        level: 2,
        info: format!("error parsing the {what}").into(),
        code: 400,
        reason: format!("Bad {what}").into(),
    }
}

/// A header is there but cannot be read.
pub(super) fn bad_header(ctx: &mut Ctx, header: HeaderName) {
    let name = header.as_str();
    raise(ctx, unparsed(&format!("{name} header")));
}
