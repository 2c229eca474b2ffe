//! `save()` on the reply of a registrar further on: what it granted is what is kept here, too.

use super::Registration;
use super::flags::SaveFlags;
use super::request;
use super::save::{prepare, refused};
use crate::usrloc::table::Table;
use bytes::Bytes;
use host::var::Context;
use host::{Ctx, Outcome};
use sip::{HeaderName, Message, NameAddr, Uri};
use std::sync::Arc;

/// Keeps the first contact of the request for as long as the reply says; 1, or negative on errors.
pub fn save(
    ctx: &mut Ctx,
    module: &Arc<Registration>,
    table: &Arc<Table>,
    flags: SaveFlags,
    aor: Option<Bytes>,
    tag: Bytes,
) -> Outcome {
    let reply = ctx.state.msg.clone();
    let Some(request) = host::tm::other_message(ctx, Context::Request) else { return Outcome::Done(-1) };
    let msg = request.msg.clone();
    let Ok(contacts) = msg.addresses(HeaderName::Contact) else { return Outcome::Done(-1) };
    let Some(first) = contacts.first().cloned() else { return Outcome::Done(1) };
    let sent_as = module.mcontact_avp.value(ctx).filter(|uri| !uri.is_empty());
    let granted = granted(&reply, sent_as.as_ref().unwrap_or(&first.uri));
    let forced = match &granted {
        Some((_, seconds)) => {
            let text = [b"<", &first.uri[..], b">;expires=", seconds.to_string().as_bytes()].concat();
            NameAddr::parse_list(&text.into())
        }
        None => None,
    };
    // Flags and socket of the request, not of the reply.
    let (_, job) = ctx.with_state(request, |ctx| prepare(ctx, module, msg, &flags, aor, tag, forced));
    if let (Some((at, _)), Some(_)) = (&granted, &sent_as) {
        // The client sees the contact that it sent.
        ctx.state.edits.replace(*at, first.uri.clone());
    }
    match job {
        Ok(job) => job.run(ctx, module, table, flags),
        Err(problem) => Outcome::Done(refused(ctx, module, &flags, problem)),
    }
}

/// Where the reply names the contact, and the seconds it grants.
fn granted(reply: &Message, uri: &Bytes) -> Option<(sip::Span, u64)> {
    let wanted = Uri::parse(uri).ok()?;
    let all = reply.addresses(HeaderName::Contact).ok()?;
    let same = |c: &&NameAddr| Uri::parse(&c.uri).is_ok_and(|u| u.equals(&wanted));
    let contact = all.iter().find(same)?;
    let seconds = request::seconds(&contact.params.value(b"expires")?)?;
    Some((contact.uri_span, seconds))
}
