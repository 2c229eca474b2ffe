//! The reply to a REGISTER: contacts, Path, errors.

use super::{Registration, gruu};
use crate::usrloc::contact::{Contact, Field};
use bytes::Bytes;
use host::{Ctx, Shared};
use std::sync::Arc;

/// Why a registration failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    Contacts,
    Expires,
    StarExpires,
    StarContact,
    Q,
    AorParse,
    AorTooLong,
    ToMissing,
    CallIdMissing,
    CSeqMissing,
    CallIdTooLong,
    ContactTooLong,
    Insert,
    /// The database gave no contacts, or did not take them.
    Database,
    CSeq,
    TooMany,
    Path,
    NoPathSupport,
    NoPushSupport,
}

impl Problem {
    fn status(self) -> (u16, &'static str) {
        match self {
            Problem::AorTooLong | Problem::Insert | Problem::Database => (500, "Server Internal Error"),
            Problem::TooMany => (503, "Service Unavailable"),
            Problem::NoPathSupport => (420, "Bad Extension"),
            Problem::NoPushSupport => (555, "Push Notification Service Not Supported"),
            _ => (400, "Bad Request"),
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Problem::Contacts => "Contact parse error",
            Problem::Expires => "Expires parse error",
            Problem::StarExpires => "* used in contact and expires is not zero",
            Problem::StarContact => "* used in contact and more than 1 contact",
            Problem::Q => "Invalid q param in contact",
            Problem::AorParse => "Error while parsing AOR",
            Problem::AorTooLong => "Address Of Record too long",
            Problem::ToMissing => "To header not found",
            Problem::CallIdMissing => "Call-ID header not found",
            Problem::CSeqMissing => "CSeq header not found",
            Problem::CallIdTooLong => "Callid too long",
            Problem::ContactTooLong => "Contact/received too long",
            Problem::Insert => "usrloc_contact_insert failed",
            Problem::Database => "usrloc_record_get failed",
            Problem::CSeq => "Invalid CSeq number",
            Problem::TooMany => "Too many registered contacts",
            Problem::Path => "Path parse error",
            Problem::NoPathSupport => "No support for found Path indicated",
            Problem::NoPushSupport => "Push Notification Service Not Supported",
        }
    }
}

/// How contacts are shown to a client.
pub struct Shown {
    pub now: u32,
    pub received_param: String,
    /// The client takes GRUUs: the secret they are made with.
    pub gruu: Option<String>,
    pub use_domain: bool,
    pub shared: Arc<Shared>,
    /// Index of the socket the request came in by.
    pub socket: u16,
    /// The address it came to, when that is bound to all of them.
    pub local: Option<std::net::IpAddr>,
}

impl Shown {
    /// The Contact header of a reply; `None` when nothing is registered.
    pub fn header<'a>(&self, aor: &[u8], contacts: impl IntoIterator<Item = &'a Contact>) -> Option<Bytes> {
        let mut line = Vec::with_capacity(128);
        for contact in contacts.into_iter().filter(|c| !c.expired(self.now)) {
            line.extend_from_slice(if line.is_empty() { b"Contact: <" } else { b", <" });
            self.contact(&mut line, aor, contact);
        }
        if line.is_empty() {
            return None;
        }
        line.extend_from_slice(b"\r\n");
        Some(line.into())
    }

    fn contact(&self, line: &mut Vec<u8>, aor: &[u8], contact: &Contact) {
        line.extend_from_slice(contact.uri());
        line.push(b'>');
        if contact.q >= 0 {
            line.extend_from_slice(format!(";q={}", f64::from(contact.q) / 1000.0).as_bytes());
        }
        let left = if contact.expires == 0 { 0 } else { contact.expires - self.now };
        line.extend_from_slice(b";expires=");
        line.extend_from_slice(itoa::Buffer::new().format(left).as_bytes());
        let received = contact.text(Field::Received);
        if !received.is_empty() {
            line.extend_from_slice(format!(";{}=\"", self.received_param).as_bytes());
            line.extend_from_slice(received);
            line.push(b'"');
        }
        if let Some(secret) = &self.gruu {
            let socket = contact.socket().unwrap_or(self.socket);
            let Some(listen) = self.shared.sockets.get(usize::from(socket)) else { return };
            let names = listen.names_at(self.local);
            let host = format!("{}:{}", String::from_utf8_lossy(&names.host), names.port);
            let parts = gruu::Parts {
                aor,
                instance: contact.text(Field::Instance),
                call_id: contact.text(Field::CallId),
                now: self.now,
                host: &host,
                use_domain: self.use_domain,
            };
            line.extend_from_slice(&gruu::params(&parts, secret));
        }
    }
}

/// 200 with what was put into the reply headers.
pub fn accept(ctx: &mut Ctx) -> i32 {
    host::reply::send(ctx, 200, b"OK")
}

/// The reply of a failed registration.
pub fn refuse(ctx: &mut Ctx, problem: Problem, module: &Registration) -> i32 {
    let (code, reason) = problem.status();
    let headers = &mut ctx.state.reply_headers;
    headers.push(Bytes::from(format!("P-Registrar-Error: {}\r\n", problem.text())));
    if code >= 500 && module.retry_after > 0 {
        headers.push(Bytes::from(format!("Retry-After: {}\r\n", module.retry_after)));
    }
    if problem == Problem::NoPathSupport {
        headers.push(Bytes::from_static(b"Unsupported: path\r\n"));
    }
    host::reply::send(ctx, code, reason.as_bytes())
}
