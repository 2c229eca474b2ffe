//! Routes that have no message, and which worker a call belongs to.

use crate::context::ctx::{Ctx, MsgState};
use bytes::Bytes;
use script::Task;
use script::ast::RouteKind;
use sip::{Message, Transport};
use std::rc::Rc;
use transaction::Path;

/// The worker that owns a call, by its Call-ID. The same everywhere, so that a worker can also choose a Call-ID of its
/// own; only the first bytes of it count (`sip::call_hash`).
pub fn owner(call_id: &[u8], workers: usize) -> usize {
    if workers < 2 {
        return 0;
    }
    sip::call_hash(call_id) as usize % workers
}

/// A message that stands in where a route has none (timers, events, start).
pub fn dummy_message() -> Rc<Message> {
    let text = "OPTIONS sip:you@kamailio.invalid SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1\r\nFrom: <sip:you@fermata.invalid>;tag=123\r\n\
                To: <sip:you@fermata.invalid>\r\nCall-ID: dummy\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";
    Rc::new(Message::parse(Bytes::from_static(text.as_bytes())).expect("a correct message"))
}

/// A path that leads nowhere, for messages that came from none.
pub(crate) fn nowhere() -> Path {
    Path { socket: 0, transport: Transport::Udp, remote: ([127, 0, 0, 1], 9).into(), local: 0, connection: 0 }
}

/// State for a route without a message.
pub fn detached_state(ctx: &Ctx, route: script::RouteId, kind: RouteKind) -> Box<MsgState> {
    MsgState::new(dummy_message(), nowhere(), ctx.core.now, kind, Task::new(ctx.core.shared.program(), route))
}
