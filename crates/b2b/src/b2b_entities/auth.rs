//! Challenges to requests of entities, answered with the credentials of uac_auth.

use bytes::Bytes;
use host::Ctx;
use host::avp::Avps;
use host::tm::NewRequest;
use modules::uac_auth::{self, UacAuth};
use sip::Message;
use std::cell::RefCell;
use std::rc::Rc;

/// uac_auth is loaded.
pub fn is_there(ctx: &Ctx) -> bool {
    ctx.shared().module::<UacAuth>().is_some()
}

/// The header that answers a challenge; `None`: it is none, it was answered before, or there is no credential.
pub fn line(
    ctx: &mut Ctx,
    sent: &NewRequest,
    reply: &Message,
    avps: Option<&Rc<RefCell<Avps>>>,
) -> Option<Bytes> {
    let known = ctx.shared().module::<UacAuth>()?;
    let answered = |name: &[u8]| memchr::memmem::find(&sent.headers, name).is_some();
    match reply.status() {
        401 if !answered(b"\nAuthorization:") => {}
        407 if !answered(b"\nProxy-Authorization:") => {}
        _ => return None,
    }
    let outer = avps.map(|avps| std::mem::replace(&mut ctx.state.avps, avps.clone()));
    let chosen = uac_auth::choose(reply, &[], |realm| known.lookup(ctx, realm));
    if let Some(outer) = outer {
        ctx.state.avps = outer;
    }
    Some(chosen?.line(ctx, &sent.method, &sent.uri, &sent.body, 1))
}
