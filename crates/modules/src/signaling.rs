//! signaling: replies through the transaction when there is one, else stateless.

use host::{Call, Head, Registrar, ReplyCode, Routes, Value};

#[derive(Default)]
pub struct Signaling;

pub fn register(m: &mut Registrar<Signaling>) {
    let routes = Routes::REQUEST.and(Routes::FAILURE).and(Routes::ERROR).and(Routes::ON_REPLY);
    m.function("send_reply", routes, send_reply);
    m.variable("sig_local_totag", |call| Value::Str(host::reply::own_to_tag(call.ctx)));
}

/// send_reply(code, reason): 1 sent, -1 not.
fn send_reply(call: &mut Call<Signaling>, code: ReplyCode, reason: Head) -> i32 {
    if call.ctx.state.msg.method() == sip::Method::Ack && call.ctx.state.msg.is_request() {
        return 1;
    }
    host::reply::send(call.ctx, code.0, &reason)
}
