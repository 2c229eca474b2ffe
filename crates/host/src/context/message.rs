//! `$(<request>...)` and `$(<reply>...)`.

use crate::context::ctx::Ctx;
use crate::context::var::Context;

/// Reads with the message of another context in place of the current one; NULL when there is none.
pub fn with_message<T: From<script::Value>>(
    ctx: &mut Ctx,
    context: Context,
    read: impl FnOnce(&mut Ctx) -> T,
) -> T {
    let is_request = ctx.state.msg.is_request();
    match (context, is_request) {
        (Context::Current, _) | (Context::Request, true) | (Context::Reply, false) => read(ctx),
        _ => {
            let Some(mut other) = (ctx.core.upper.other_message)(ctx, context) else {
                return script::Value::Null.into();
            };
            std::mem::swap(&mut ctx.state.answers, &mut other.answers);
            let (mut other, value) = ctx.with_state(other, read);
            std::mem::swap(&mut ctx.state.answers, &mut other.answers);
            value
        }
    }
}
