//! A registration on its way to the main registrar: its contacts become contacts of this server.

use super::{IdPlace, MidRegistrar, Mode};
use crate::registrar::flags::SaveFlags;
use crate::registrar::push::Action;
use crate::registrar::request::Asked;
use crate::usrloc::now_s;
use crate::usrloc::table::{Matching, Table};
use bytes::Bytes;
use host::Ctx;
use sip::{HeaderName, Uri};
use std::sync::Arc;

/// What is remembered of a registration until the main registrar answers; kept with the message.
#[derive(Clone)]
pub struct Passing {
    pub table: Arc<Table>,
    pub key: Bytes,
    pub flags: SaveFlags,
    pub matching: Matching,
    pub outgoing: u32,
    pub star: bool,
    pub push: Action,
    pub asked: Vec<Asked>,
    /// Ids that the contacts have at the main registrar, in the order of `asked`.
    pub ids: Vec<u64>,
}

impl Passing {
    pub fn new(table: &Arc<Table>) -> Passing {
        Passing {
            table: table.clone(),
            key: Bytes::new(),
            flags: SaveFlags::default(),
            matching: Matching::Uri,
            outgoing: 0,
            star: false,
            push: Action::None,
            asked: Vec::new(),
            ids: Vec::new(),
        }
    }
}

/// Rewrites Contact and Expires of the current message.
pub fn edit(ctx: &mut Ctx, module: &MidRegistrar, passing: &mut Passing) {
    let now = now_s(ctx);
    let Some(host) = host_of(ctx) else { return };
    let extra = module.extra_params.value(ctx).unwrap_or_default();
    let extra = String::from_utf8_lossy(&extra).into_owned();
    let lifetime = |asked: &Asked| match (asked.expires, module.mode) {
        (0, _) => 0,
        (expires, Mode::Mirror) => expires,
        _ => passing.outgoing.max(asked.expires),
    };
    let mut values = Vec::new();
    match module.mode {
        Mode::ByAor => {
            let user = escaped(&passing.key, &module.at_escape);
            let expires = passing.asked.iter().map(lifetime).max().unwrap_or(0);
            values.push(format!("<sip:{user}@{host}{extra}>;expires={expires}"));
            passing.ids.clear();
        }
        Mode::Mirror | Mode::ByContact => {
            let (table, matching) = (&passing.table, &passing.matching);
            let id = |asked: &Asked| {
                let found = table.read(&passing.key, |record| {
                    record.find(asked.binding.wanted(), matching, now).map(|at| record.contacts[at].id)
                });
                found.flatten().unwrap_or_else(|| table.next_id())
            };
            passing.ids = passing.asked.iter().map(id).collect();
            for (asked, id) in passing.asked.iter().zip(&passing.ids) {
                let user = Uri::parse(&asked.binding.uri).ok().and_then(|uri| uri.user).unwrap_or_default();
                let user = String::from_utf8_lossy(&user).into_owned();
                let expires = lifetime(asked);
                values.push(match module.id_place {
                    IdPlace::Param => {
                        let name = &module.id_param;
                        format!("<sip:{user}@{host};{name}={id}{extra}>;expires={expires}")
                    }
                    IdPlace::User => format!("<sip:{id}@{host}{extra}>;expires={expires}"),
                });
            }
        }
    }
    replace_contacts(ctx, &values);
}

/// The Contact headers become one; an Expires header says the same as its first value.
fn replace_contacts(ctx: &mut Ctx, values: &[String]) {
    let msg = ctx.state.msg.clone();
    let edits = &mut ctx.state.edits;
    for (at, header) in msg.headers_of(HeaderName::Contact).enumerate() {
        match at {
            0 => edits.replace(header.value(), values.join(", ")),
            _ => edits.delete(header.whole()),
        }
    }
    let seconds = values.first().and_then(|v| v.rsplit_once('=')).map(|(_, s)| s.to_string());
    if let (Some(header), Some(seconds)) = (msg.header(HeaderName::Expires), seconds) {
        edits.replace(header.value(), seconds);
    }
}

/// "host:port" of the socket that the request goes out by.
fn host_of(ctx: &Ctx) -> Option<String> {
    let socket = ctx.state.socket.unwrap_or(ctx.state.source.socket);
    let listen = ctx.shared().sockets.get(usize::from(socket))?;
    let names = listen.names_at(ctx.shared().local_address(ctx.state.source.local));
    Some(format!("{}:{}", String::from_utf8_lossy(&names.host), names.port))
}

/// The address as a user part.
fn escaped(key: &[u8], at: &str) -> String {
    String::from_utf8_lossy(key).replacen('@', at, 1)
}

/// The address behind such a user part.
pub fn unescaped(user: &[u8], at: &str) -> Bytes {
    let user = String::from_utf8_lossy(user);
    match user.rsplit_once(at) {
        Some((name, domain)) if !at.is_empty() => format!("{name}@{domain}").into(),
        _ => Bytes::from(user.into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_users() {
        for (key, at, user) in [
            ("alice@example.com", "%40", "alice%40example.com"),
            ("a@b", "___", "a___b"),
            ("alice", "%40", "alice"),
        ] {
            assert_eq!(escaped(key.as_bytes(), at), user);
            assert_eq!(unescaped(user.as_bytes(), at), key);
        }
    }
}
