//! Messages that the server makes itself out of received or sent ones.

use crate::HeaderName;
use crate::frame::{self, Length};
use crate::message::{Message, Span};
use crate::print::insert_source;
use bytes::Bytes;

/// What a reply has besides the headers that it copies.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplyParts<'a> {
    /// 100 to 699.
    pub code: u16,
    /// The text behind the code.
    pub reason: &'a [u8],
    /// Added to To when that has no tag. `None` for 100 (RFC 3261 §8.2.6.2).
    pub to_tag: Option<&'a [u8]>,
    /// `Via::source_params` of the request's sender.
    pub via_params: &'a [u8],
    /// Whole further header lines, each with CRLF; Content-Type of the body is one of them.
    pub extra: &'a [u8],
    /// Value of the Server header; empty for none.
    pub server: &'a [u8],
    /// Its length is stated by Content-Length.
    pub body: &'a [u8],
    /// Order of the copied headers.
    pub order: HeaderOrder,
}

/// In which order a reply has the headers that it copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HeaderOrder {
    /// Via, Record-Route, To, From, Call-ID, CSeq.
    #[default]
    Fixed,
    /// That of the request.
    AsReceived,
}

/// A reply to `request` (RFC 3261 §8.2.6): its Vias, its Record-Routes when `code` is 180 to 299,
/// To, From, Call-ID and CSeq, byte for byte.
pub fn build_reply(request: &Message, parts: &ReplyParts<'_>) -> Bytes {
    let copied = request.headers_end() as usize;
    let mut out = Vec::with_capacity(copied + parts.extra.len() + parts.body.len() + 128);
    let mut number = itoa::Buffer::new();
    append(&mut out, &[b"SIP/2.0 ", number.format(parts.code).as_bytes(), b" ", parts.reason, b"\r\n"]);
    match parts.order {
        HeaderOrder::Fixed => copy_in_order(request, parts, &mut out),
        HeaderOrder::AsReceived => copy_as_received(request, parts, &mut out),
    }
    append(&mut out, &[parts.extra]);
    if !parts.server.is_empty() {
        append(&mut out, &[b"Server: ", parts.server, b"\r\n"]);
    }
    append(&mut out, &[b"Content-Length: ", number.format(parts.body.len()).as_bytes(), b"\r\n"]);
    frame::finish(out, parts.body, Length::ThereAndRight)
}

fn copy_in_order(request: &Message, parts: &ReplyParts<'_>, out: &mut Vec<u8>) {
    for (n, via) in request.headers_of(HeaderName::Via).enumerate() {
        copy_via(request, via.whole(), n, parts, out);
    }
    if parts.copies_routes() {
        for route in request.headers_of(HeaderName::RecordRoute) {
            copy_line(request, route.whole(), out);
        }
    }
    copy_to(request, parts.to_tag, out);
    for name in [HeaderName::From, HeaderName::CallId, HeaderName::CSeq] {
        copy_first(request, name, out);
    }
}

fn copy_as_received(request: &Message, parts: &ReplyParts<'_>, out: &mut Vec<u8>) {
    let mut vias = 0;
    for header in request.headers() {
        let first = || request.header(header.name).is_some_and(|h| h.whole() == header.whole());
        match header.name {
            HeaderName::Via => {
                copy_via(request, header.whole(), vias, parts, out);
                vias += 1;
            }
            HeaderName::RecordRoute if parts.copies_routes() => copy_line(request, header.whole(), out),
            HeaderName::To if first() => copy_to(request, parts.to_tag, out),
            HeaderName::From | HeaderName::CallId | HeaderName::CSeq if first() => {
                copy_line(request, header.whole(), out);
            }
            _ => {}
        }
    }
}

impl ReplyParts<'_> {
    fn copies_routes(&self) -> bool {
        (180..300).contains(&self.code)
    }
}

/// The Via lines of a request as its replies have them. `via_params`: `Via::source_params` of its sender.
pub fn via_lines(request: &Message, via_params: &[u8]) -> Bytes {
    let parts = ReplyParts { via_params, ..ReplyParts::default() };
    let mut out = Vec::with_capacity(256);
    for (n, via) in request.headers_of(HeaderName::Via).enumerate() {
        copy_via(request, via.whole(), n, &parts, &mut out);
    }
    out.into()
}

/// The n-th Via; the first one tells where the request came from.
fn copy_via(request: &Message, via: Span, n: usize, parts: &ReplyParts<'_>, out: &mut Vec<u8>) {
    if n == 0 && !parts.via_params.is_empty() {
        insert_source(request, via, parts.via_params, out);
        end_line(out);
    } else {
        copy_line(request, via, out);
    }
}

fn copy_to(request: &Message, tag: Option<&[u8]>, out: &mut Vec<u8>) {
    let Some(to) = request.header(HeaderName::To) else { return };
    let has_tag = || request.to().is_some_and(|to| to.params.has(b"tag"));
    match tag {
        Some(tag) if !has_tag() => {
            let value_end = Span { start: to.whole().start, end: to.value().end };
            append(out, &[request.bytes(value_end), b";tag=", tag, b"\r\n"]);
        }
        _ => copy_line(request, to.whole(), out),
    }
}

/// The ACK for a final reply above 299 to a sent INVITE (RFC 3261 §17.1.1.3): same Request-URI,
/// Via, From, Call-ID, CSeq number and Routes as the INVITE, To of the reply. `extra`: further
/// header lines with CRLF (User-Agent).
pub fn build_ack(invite: &Message, reply: &Message, extra: &[u8]) -> Bytes {
    build_hop(invite, b"ACK", Some(reply), extra)
}

/// The CANCEL for a sent request (RFC 3261 §9.1): its Request-URI, topmost Via, From, To, Call-ID,
/// CSeq number and Routes.
/// `extra`: further header lines with CRLF (Reason, User-Agent).
pub fn build_cancel(invite: &Message, extra: &[u8]) -> Bytes {
    build_hop(invite, b"CANCEL", None, extra)
}

fn build_hop(invite: &Message, method: &[u8], reply: Option<&Message>, extra: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(512);
    append(&mut out, &[method, b" ", &invite.request_uri(), b" SIP/2.0\r\n"]);
    if let Some(via) = invite.via() {
        append(&mut out, &[b"Via: ", invite.bytes(via.whole), b"\r\n"]);
    }
    copy_first(invite, HeaderName::From, &mut out);
    copy_first(invite, HeaderName::CallId, &mut out);
    match reply.filter(|reply| reply.header(HeaderName::To).is_some()) {
        Some(reply) => copy_first(reply, HeaderName::To, &mut out),
        None => copy_first(invite, HeaderName::To, &mut out),
    }
    let number = invite.cseq_parts().map(|(number, _)| number).unwrap_or_default();
    append(&mut out, &[b"CSeq: ", &number, b" ", method, b"\r\n"]);
    for route in invite.headers_of(HeaderName::Route) {
        copy_line(invite, route.whole(), &mut out);
    }
    append(&mut out, &[b"Max-Forwards: 70\r\n", extra, b"Content-Length: 0\r\n"]);
    frame::finish(out, b"", Length::ThereAndRight)
}

fn copy_first(msg: &Message, name: HeaderName, out: &mut Vec<u8>) {
    if let Some(header) = msg.header(name) {
        copy_line(msg, header.whole(), out);
    }
}

fn copy_line(msg: &Message, whole: Span, out: &mut Vec<u8>) {
    out.extend_from_slice(msg.bytes(whole));
    end_line(out);
}

/// A message may stop short of its last line end.
fn end_line(out: &mut Vec<u8>) {
    if out.last() != Some(&b'\n') {
        out.extend_from_slice(b"\r\n");
    }
}

fn append(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:b@x;p SIP/2.0\r\nRecord-Route: <sip:us;lr>\r\nVia: SIP/2.0/UDP us;branch=z9hG4bKnew\r\n\
                          Via: SIP/2.0/UDP h;branch=1\r\nf: A <sip:a@y>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: c\r\n\
                          CSeq: 7 INVITE\r\nRoute: <sip:r1;lr>\r\nRoute: <sip:r2;lr>\r\nl: 0\r\n\r\n";

    fn parse(text: &str) -> Message {
        Message::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    #[test]
    fn ack_and_cancel_of_a_sent_invite() {
        let reply =
            parse("SIP/2.0 486 Busy\r\nVia: SIP/2.0/UDP us\r\nt: <sip:b@x>;tag=9\r\nCSeq: 7 INVITE\r\n\r\n");
        let ack = build_ack(&parse(INVITE), &reply, b"User-Agent: F\r\n");
        assert_eq!(
            ack,
            "ACK sip:b@x;p SIP/2.0\r\nVia: SIP/2.0/UDP us;branch=z9hG4bKnew\r\nf: A <sip:a@y>;tag=1\r\nCall-ID: c\r\n\
             t: <sip:b@x>;tag=9\r\nCSeq: 7 ACK\r\nRoute: <sip:r1;lr>\r\nRoute: <sip:r2;lr>\r\nMax-Forwards: 70\r\n\
             User-Agent: F\r\nContent-Length: 0\r\n\r\n"
        );
        let cancel = build_cancel(&parse(INVITE), b"");
        assert_eq!(
            cancel,
            "CANCEL sip:b@x;p SIP/2.0\r\nVia: SIP/2.0/UDP us;branch=z9hG4bKnew\r\nf: A <sip:a@y>;tag=1\r\n\
             Call-ID: c\r\nTo: <sip:b@x>\r\nCSeq: 7 CANCEL\r\nRoute: <sip:r1;lr>\r\nRoute: <sip:r2;lr>\r\n\
             Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        );
        assert!(parse(std::str::from_utf8(&ack).unwrap()).mandatory().is_ok());
    }

    #[test]
    fn replies() {
        let build = |code, to_tag| {
            let parts = ReplyParts { code, reason: b"R", to_tag, body: b"hi", ..ReplyParts::default() };
            String::from_utf8(build_reply(&parse(INVITE), &parts).to_vec()).unwrap()
        };
        let early = build(183, Some(b"t1"));
        assert!(
            early
                .starts_with("SIP/2.0 183 R\r\nVia: SIP/2.0/UDP us;branch=z9hG4bKnew\r\nVia: SIP/2.0/UDP h;")
        );
        assert!(early.contains("\r\nRecord-Route: <sip:us;lr>\r\nTo: <sip:b@x>;tag=t1\r\nf: A"));
        assert!(early.ends_with("CSeq: 7 INVITE\r\nContent-Length: 2\r\n\r\nhi"));
        for (code, routed) in [(100, false), (180, true), (200, true), (300, false), (404, false)] {
            assert_eq!(build(code, None).contains("Record-Route"), routed, "{code}");
            assert!(build(code, None).contains("\r\nTo: <sip:b@x>\r\n"));
        }
    }

    #[test]
    fn cut_off_requests_get_their_line_ends() {
        let request = parse("BYE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nTo: <sip:b@x>;tag=2");
        let parts = ReplyParts { code: 200, reason: b"OK", to_tag: Some(b"z"), ..ReplyParts::default() };
        let want = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h\r\nTo: <sip:b@x>;tag=2\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(build_reply(&request, &parts), want);
    }
}
