//! signaling: replies through the transaction when there is one, else stateless.

use host::{Call, Int, Registrar, Routes, Text, Value};

#[derive(Default)]
pub struct Signaling;

pub fn register(m: &mut Registrar<Signaling>) {
    let routes = Routes::REQUEST.and(Routes::FAILURE).and(Routes::ERROR).and(Routes::ON_REPLY);
    m.function("send_reply", routes, send_reply);
    m.variable("sig_local_totag", |call| Value::Str(host::reply::to_tag(call.ctx, &call.ctx.state.msg)));
}

/// send_reply(code, reason): 1 sent, -1 not.
fn send_reply(call: &mut Call<Signaling>, code: Int, reason: Text) -> i32 {
    match u16::try_from(code.0) {
        Ok(code) => host::reply::send(call.ctx, code, &reason),
        Err(_) => -1,
    }
}
