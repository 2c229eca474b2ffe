//! `$(<request>...)` and `$(<reply>...)`.

use crate::ctx::Ctx;
use crate::var::Context;
use script::Value;

/// Reads with the message of another context in place of the current one; NULL when there is none.
pub fn with_message(ctx: &mut Ctx, context: Context, read: impl FnOnce(&mut Ctx) -> Value) -> Value {
    let is_request = ctx.state.msg.is_request();
    match (context, is_request) {
        (Context::Current, _) | (Context::Request, true) | (Context::Reply, false) => read(ctx),
        _ => {
            let Some(other) = crate::tm::other_message(ctx, context) else { return Value::Null };
            let here = std::mem::replace(&mut ctx.state, other);
            let value = read(ctx);
            ctx.state = here;
            value
        }
    }
}
