//! The reply to a REGISTER: contacts, Path, errors.

use super::Registration;
use crate::usrloc::contact::{Contact, Field};
use bytes::Bytes;
use host::Ctx;

/// Why a registration failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    Contacts,
    StarExpires,
    Q,
    AorParse,
    AorTooLong,
    Insert,
    CSeq,
    TooMany,
    NoPathSupport,
}

impl Problem {
    fn status(self) -> (u16, &'static [u8]) {
        match self {
            Problem::Contacts | Problem::StarExpires | Problem::Q | Problem::AorParse | Problem::CSeq => (400, b"Bad Request"),
            Problem::AorTooLong | Problem::Insert => (500, b"Server Internal Error"),
            Problem::TooMany => (503, b"Service Unavailable"),
            Problem::NoPathSupport => (420, b"Bad Extension"),
        }
    }

    fn text(self) -> &'static str {
        match self {
            Problem::Contacts => "Contact parse error",
            Problem::StarExpires => "* used in contact and expires is not zero",
            Problem::Q => "Invalid q param in contact",
            Problem::AorParse => "Unable to parse address of record",
            Problem::AorTooLong => "Address Of Record too long",
            Problem::Insert => "usrloc_contact_insert failed",
            Problem::CSeq => "Invalid CSeq number",
            Problem::TooMany => "Too many registered contacts",
            Problem::NoPathSupport => "No support for found Path indicated",
        }
    }
}

/// The Contact header of a reply; `None` when nothing is registered.
pub fn contact_header(contacts: &[Contact], now: u32, module: &Registration) -> Option<Bytes> {
    let mut line = Vec::with_capacity(64 + contacts.len() * 64);
    for contact in contacts.iter().filter(|c| !c.expired(now)) {
        line.extend_from_slice(if line.is_empty() { b"Contact: <" } else { b", <" });
        line.extend_from_slice(contact.uri());
        line.push(b'>');
        if contact.q >= 0 {
            line.extend_from_slice(format!(";q={}", f64::from(contact.q) / 1000.0).as_bytes());
        }
        let left = if contact.expires == 0 { 0 } else { contact.expires - now };
        line.extend_from_slice(format!(";expires={left}").as_bytes());
        let received = contact.text(Field::Received);
        if !received.is_empty() {
            line.extend_from_slice(format!(";{}=\"", module.received_param).as_bytes());
            line.extend_from_slice(received);
            line.push(b'"');
        }
    }
    if line.is_empty() {
        return None;
    }
    line.extend_from_slice(b"\r\n");
    Some(line.into())
}

/// 200 with what was put into the reply headers.
pub fn accept(ctx: &mut Ctx) -> i32 {
    host::reply::send(ctx, 200, b"OK")
}

/// The reply of a failed registration.
pub fn refuse(ctx: &mut Ctx, problem: Problem, retry_after: u32) -> i32 {
    let (code, reason) = problem.status();
    let headers = &mut ctx.state.reply_headers;
    headers.push(Bytes::from(format!("P-Registrar-Error: {}\r\n", problem.text())));
    if problem == Problem::TooMany && retry_after > 0 {
        headers.push(Bytes::from(format!("Retry-After: {retry_after}\r\n")));
    }
    if problem == Problem::NoPathSupport {
        headers.push(Bytes::from_static(b"Unsupported: path\r\n"));
    }
    host::reply::send(ctx, code, reason)
}
