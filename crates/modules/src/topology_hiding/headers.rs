//! Vias, Record-Routes and contacts of the current message taken away, restored, replaced.

use bytes::Bytes;
use host::Ctx;
use sip::{Anchor, HeaderName, Message, NameAddr, Piece, Uri};
use transaction::TxnId;

pub fn delete_all(ctx: &mut Ctx, name: HeaderName) {
    let msg = ctx.state.msg.clone();
    msg.headers_of(name).for_each(|header| ctx.state.edits.delete(header.whole()));
}

/// Those of the message, and those that a script added.
pub fn delete_record_routes(ctx: &mut Ctx) {
    delete_all(ctx, HeaderName::RecordRoute);
    let is_one = |text: &[u8]| text.len() > 13 && text[..13].eq_ignore_ascii_case(b"Record-Route:");
    ctx.state.edits.retain_inserted(|text| !is_one(text));
}

/// The current message is a reply: it gets the Vias that its request came with.
pub fn restore_vias(ctx: &mut Ctx, id: TxnId) {
    let lines = host::tm::with_request(ctx, id, |ctx| {
        let params = host::reply::via_params(&ctx.state);
        sip::via_lines(&ctx.state.msg, &params)
    });
    ctx.state.edits.insert(Anchor::Top, lines);
}

/// Record-Route values, in the order in which they stand.
pub fn record_routes(msg: &Message) -> Vec<Bytes> {
    let mut all = Vec::new();
    for header in msg.headers_of(HeaderName::RecordRoute) {
        let value = msg.text(header.value());
        let list = NameAddr::parse_list(&value).unwrap_or_default();
        all.extend(list.into_iter().map(|one| value.slice(one.whole.range())));
    }
    all
}

/// The contact of a message that takes part in a dialog.
pub enum Contact {
    /// There is none, or a script removed it.
    Absent,
    One(NameAddr),
    /// `*`, several, or broken.
    Other,
}

pub fn contact(ctx: &Ctx) -> Contact {
    let Some(header) = ctx.state.msg.header(HeaderName::Contact) else { return Contact::Absent };
    if ctx.state.edits.is_deleted(header.whole()) {
        return Contact::Absent;
    }
    match host::contacts::addresses(&ctx.state) {
        Ok(mut list) if list.len() == 1 => Contact::One(list.remove(0)),
        _ => Contact::Other,
    }
}

/// Puts this in the place of all contacts.
pub fn replace_contact(ctx: &mut Ctx, value: Vec<Piece>) {
    let msg = ctx.state.msg.clone();
    let mut headers = msg.headers_of(HeaderName::Contact);
    let Some(first) = headers.next() else { return };
    let edits = &mut ctx.state.edits;
    edits.forget_within(first.value());
    edits.delete(first.value());
    edits.insert_pieces(Anchor::At(first.value().start), value);
    headers.for_each(|header| edits.delete(header.whole()));
}

/// A whole line in the place of all contacts.
pub fn replace_contact_line(ctx: &mut Ctx, line: &[u8]) {
    let msg = ctx.state.msg.clone();
    let Some(first) = msg.header(HeaderName::Contact) else { return };
    ctx.state.edits.insert(Anchor::At(first.whole().start), Bytes::copy_from_slice(line));
    delete_all(ctx, HeaderName::Contact);
}

/// What a contact of ours is made of, besides the socket by which the message leaves.
#[derive(Default)]
pub struct Advertised<'a> {
    /// Empty: none.
    pub user: &'a [u8],
    /// `;did=1.2`
    pub params: Vec<u8>,
    /// Behind the URI.
    pub behind: Vec<u8>,
}

impl Advertised<'_> {
    pub fn value(&self) -> Vec<Piece> {
        let at: &[u8] = if self.user.is_empty() { b"" } else { b"@" };
        vec![
            Piece::Text([b"<sip:", self.user, at].concat().into()),
            Piece::SendHostPort,
            Piece::SendTransport,
            Piece::Text([&self.params[..], b">", &self.behind].concat().into()),
        ]
    }

    /// Adds the parameters of the end's own contact that are to pass: of its URI, and behind it.
    pub fn pass(&mut self, contact: &NameAddr, of_uri: &[String], behind: &[String]) {
        let add = |out: &mut Vec<u8>, params: &sip::Params, names: &[String]| {
            for name in names {
                let Some(value) = params.find(name.as_bytes()) else { continue };
                out.push(b';');
                out.extend_from_slice(name.as_bytes());
                if let Some(value) = value {
                    out.push(b'=');
                    out.extend_from_slice(&value);
                }
            }
        };
        if let Ok(uri) = Uri::parse(&contact.uri) {
            add(&mut self.params, &uri.params, of_uri);
        }
        add(&mut self.behind, &contact.params, behind);
    }
}

/// The user of a contact, with its password.
pub fn user_of(contact: &NameAddr) -> Bytes {
    let user = Uri::parse(&contact.uri).ok().and_then(|uri| {
        let user = uri.user?;
        Some(match uri.password {
            Some(password) => [&user[..], b":", &password].concat().into(),
            None => user,
        })
    });
    user.unwrap_or_default()
}
