//! sl: replies without a transaction.

use bytes::Bytes;
use host::load::Loader;
use host::stats::Counter;
use host::{Call, Ctx, Head, Registrar, ReplyCode, Routes};

/// Counters by class of reply.
#[derive(Default)]
pub struct Sl {
    classes: [Counter; 6],
    sent: Counter,
    errors: Counter,
}

pub fn register(m: &mut Registrar<Sl>) {
    m.ignored(&["enable_stats"], "statistics cost nothing here");
    let routes = Routes::REQUEST.and(Routes::ERROR);
    m.function("sl_send_reply", routes, sl_send_reply);
    m.function("sl_reply_error", routes, sl_reply_error);
    m.init(init);
}

fn init(s: &mut Sl, loader: &mut Loader) -> Result<(), String> {
    for (class, name) in s.classes.iter_mut().zip([
        "1xx_replies",
        "2xx_replies",
        "3xx_replies",
        "4xx_replies",
        "5xx_replies",
        "6xx_replies",
    ]) {
        *class = loader.stats.counter("sl", name);
    }
    s.sent = loader.stats.counter("sl", "sent_replies");
    s.errors = loader.stats.counter("sl", "sent_err_replies");
    loader.stats.counter("sl", "received_ACKs");
    Ok(())
}

/// sl_send_reply(code, reason): 1 sent, -1 not.
fn sl_send_reply(call: &mut Call<Sl>, code: ReplyCode, reason: Head) -> i32 {
    let module = call.module.clone();
    send(&module, call.ctx, code.0, &reason.0)
}

fn send(module: &Sl, ctx: &mut Ctx, code: u16, reason: &Bytes) -> i32 {
    let rc = host::reply::send_stateless(ctx, code, reason);
    if rc > 0 && ctx.state.msg.method() != sip::Method::Ack {
        module.classes[usize::from(code / 100).clamp(1, 6) - 1].up();
        module.sent.up();
    }
    rc
}

/// sl_reply_error(): the reply that fits what went wrong last; 500 when nothing better is known.
fn sl_reply_error(call: &mut Call<Sl>) -> i32 {
    let module = call.module.clone();
    module.errors.up();
    let (code, reason) = host::reply::last_error(call.ctx);
    send(&module, call.ctx, code, &reason)
}
