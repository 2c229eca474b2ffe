//! A contact that the main registrar was told of for long is gone here: it is told.

use super::{MidRegistrar, Mode, Upstream};
use crate::usrloc::contact::{Contact, Field};
use crate::usrloc::now_s;
use crate::usrloc::table::{Change, Table};
use bytes::Bytes;
use host::Ctx;
use host::ctx::MsgState;
use script::ast::RouteKind;
use script::{RouteId, Task};
use sip::Message;
use std::rc::Rc;
use std::sync::Arc;
use transaction::Path;

/// Looks for contacts that left without the main registrar knowing.
pub fn changed(ctx: &mut Ctx, module: &Arc<MidRegistrar>, _: &Arc<Table>, _: &Bytes, changes: &[Change]) {
    if module.mode == Mode::Mirror {
        return;
    }
    let last = changes.iter().any(|c| matches!(c, Change::AorDeleted));
    let mut told = false;
    for change in changes {
        let Change::Deleted(contact) = change else { continue };
        // By address, the main registrar knows one contact: it goes with the last one.
        if module.mode == Mode::ByAor && (!last || told) || contact.expires_out <= now_s(ctx) {
            continue;
        }
        if let Some(upstream) = Upstream::unpack(contact.text(Field::Keys)) {
            unregister(ctx, contact, &upstream);
            told = true;
        }
    }
}

/// Sends the REGISTER that ends a registration; its reply ends here.
fn unregister(ctx: &mut Ctx, contact: &Contact, upstream: &Upstream) {
    let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
    let request = format!(
        "REGISTER {uri} SIP/2.0\r\nMax-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {id}\r\nCSeq: {cseq} \
         REGISTER\r\nContact: <{contact}>;expires=0\r\nContent-Length: 0\r\n\r\n",
        uri = text(&upstream.uri),
        from = text(&upstream.from),
        to = text(&upstream.to),
        id = text(&upstream.call_id),
        // Later ones were answered here; the main registrar has not seen them.
        cseq = upstream.cseq.max(contact.cseq).saturating_add(1),
        contact = text(&upstream.contact),
    );
    let Ok(msg) = Message::parse(Bytes::from(request)) else { return };
    let socket = contact.socket().unwrap_or(0);
    let Some(listen) = ctx.shared().sockets.get(usize::from(socket)) else { return };
    let source = Path { socket, transport: listen.transport, remote: listen.addr, local: 0, connection: 0 };
    let task = Task::new(ctx.shared().program(), RouteId(0));
    let mut state = MsgState::new(Rc::new(msg), source, ctx.core.now, RouteKind::Local, task);
    state.socket = Some(socket);
    let (_, sent) = ctx.with_state(state, |ctx| host::tm::replicate(ctx, &upstream.hop));
    if sent < 0 {
        host::notice!("mid_registrar", "cannot tell the main registrar that a contact is gone");
    }
}
