//! One side of a dialog (RFC 3261 §12): what a request inside it is made of.

use super::client::NewRequest;
use bytes::Bytes;
use sip::{HeaderName, Message, Method, NameAddr, Uri};

/// This server's side of a dialog.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    pub call_id: Bytes,
    /// Header values with their tags: From and To of requests from here.
    pub local: Bytes,
    pub remote: Bytes,
    /// URI of the other side's Contact.
    pub target: Bytes,
    /// Route values, in the order in which they are visited.
    pub routes: Vec<Bytes>,
    /// Number of the last request from here.
    pub cseq: u32,
    /// Index into `Shared::sockets`; `None`: whichever fits.
    pub socket: Option<u16>,
}

impl Side {
    /// The caller's side, when a reply with a tag came to its request. `None`: the reply starts no dialog. A request
    /// inside a dialog took the way that holds for all of them (RFC 3261 §12.2).
    pub fn of_reply(request: &Message, reply: &Message) -> Option<Side> {
        reply.to_tag()?;
        let routes = match request.to_tag() {
            Some(_) => values(request, HeaderName::Route)?,
            None => values(reply, HeaderName::RecordRoute)?.into_iter().rev().collect(),
        };
        Some(Side {
            call_id: request.call_id()?,
            local: text(request, HeaderName::From)?,
            remote: text(reply, HeaderName::To)?,
            target: target(reply).unwrap_or_else(|| request.request_uri()),
            routes,
            cseq: request.cseq()?.number,
            socket: None,
        })
    }

    /// The callee's side, when it answers `request` with this tag.
    pub fn of_request(request: &Message, own_tag: &[u8]) -> Option<Side> {
        let to = text(request, HeaderName::To)?;
        let local = match request.to_tag() {
            Some(_) => to,
            None => [&to[..], b";tag=", own_tag].concat().into(),
        };
        Some(Side {
            call_id: request.call_id()?,
            local,
            remote: text(request, HeaderName::From)?,
            target: target(request)?,
            routes: values(request, HeaderName::RecordRoute)?,
            cseq: 0,
            socket: None,
        })
    }

    /// The next request from here; ACK and CANCEL keep the number of their INVITE.
    pub fn request(&mut self, method: &str) -> NewRequest {
        if !matches!(Method::parse(method.as_bytes()), Method::Ack | Method::Cancel) {
            self.cseq = self.cseq.saturating_add(1);
        }
        let mut request = NewRequest::new(method, self.target.clone(), "", "");
        (request.from, request.to) = (self.local.clone(), self.remote.clone());
        request.call_id = Some(self.call_id.clone());
        (request.cseq, request.socket) = (self.cseq, self.socket);
        let mut routes = self.routes.clone();
        let first = routes.first().and_then(NameAddr::parse).map(|route| route.uri);
        if let Some(first) = first {
            let is_loose = Uri::parse(&first).is_ok_and(|uri| uri.params.has(b"lr"));
            if is_loose {
                request.next_hop = Some(first);
            } else {
                // RFC 3261 §12.2.1.1: who routes strictly finds itself in the Request-URI.
                routes.remove(0);
                routes.push([b"<", &self.target[..], b">"].concat().into());
                request.uri = first;
            }
        }
        if !routes.is_empty() {
            request.headers = [b"Route: ", &routes.join(&b", "[..])[..], b"\r\n"].concat().into();
        }
        request
    }

    /// A reply or request from the other side names a new Contact.
    pub fn refresh(&mut self, message: &Message) {
        if let Some(target) = target(message) {
            self.target = target;
        }
    }
}

fn text(msg: &Message, name: HeaderName) -> Option<Bytes> {
    msg.header(name).map(|header| msg.text(header.value()))
}

fn target(msg: &Message) -> Option<Bytes> {
    msg.addresses(HeaderName::Contact).ok()?.into_iter().next().map(|contact| contact.uri)
}

/// The values of a header that may stand in several lines. `None`: one of them cannot be read.
fn values(msg: &Message, name: HeaderName) -> Option<Vec<Bytes>> {
    let mut all = Vec::new();
    for header in msg.headers_of(name) {
        let value = msg.text(header.value());
        for one in NameAddr::parse_list(&value)? {
            all.push(value.slice(one.whole.start as usize..one.whole.end as usize));
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message::parse(Bytes::from(text.replace('\n', "\r\n"))).unwrap()
    }

    const INVITE: &str = "INVITE sip:bob@x SIP/2.0\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\nFrom: \"A\" <sip:a@x>;tag=1\n\
        To: <sip:b@x>\nCall-ID: c\nCSeq: 7 INVITE\nContact: <sip:a@10.0.0.2>\n\
        Record-Route: <sip:p2;lr>, <sip:p1;lr>\n\n";

    #[test]
    fn the_caller_goes_back_the_way_of_the_reply() {
        let reply = message(
            "SIP/2.0 200 OK\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\nFrom: \"A\" <sip:a@x>;tag=1\nTo: <sip:b@x>;tag=2\n\
             Call-ID: c\nCSeq: 7 INVITE\nContact: <sip:b@10.0.0.3>\nRecord-Route: <sip:p2;lr>\nRecord-Route: <sip:p1;lr>\n\n",
        );
        let mut side = Side::of_reply(&message(INVITE), &reply).unwrap();
        let bye = side.request("BYE");
        assert_eq!((&bye.uri[..], bye.cseq), (&b"sip:b@10.0.0.3"[..], 8));
        assert_eq!(&bye.to[..], b"<sip:b@x>;tag=2");
        assert_eq!(&bye.headers[..], b"Route: <sip:p1;lr>, <sip:p2;lr>\r\n");
        assert_eq!(bye.next_hop.as_deref(), Some(&b"sip:p1;lr"[..]));
        assert_eq!(side.request("ACK").cseq, 8);
    }

    #[test]
    fn the_callee_calls_the_caller() {
        let mut side = Side::of_request(&message(INVITE), b"9").unwrap();
        let bye = side.request("BYE");
        assert_eq!(
            (&bye.uri[..], &bye.from[..], bye.cseq),
            (&b"sip:a@10.0.0.2"[..], &b"<sip:b@x>;tag=9"[..], 1)
        );
        assert_eq!(&bye.headers[..], b"Route: <sip:p2;lr>, <sip:p1;lr>\r\n");
        side.routes = vec![Bytes::from_static(b"<sip:strict>"), Bytes::from_static(b"<sip:p;lr>")];
        let next = side.request("INFO");
        assert_eq!((&next.uri[..], next.next_hop), (&b"sip:strict"[..], None));
        assert_eq!(&next.headers[..], b"Route: <sip:p;lr>, <sip:a@10.0.0.2>\r\n");
    }

    #[test]
    fn a_reply_without_a_tag_starts_nothing() {
        let trying = message(
            "SIP/2.0 100 Trying\nVia: SIP/2.0/UDP a\nFrom: <sip:a@x>;tag=1\nTo: <sip:b@x>\nCall-ID: c\nCSeq: 7 INVITE\n\n",
        );
        assert_eq!(Side::of_reply(&message(INVITE), &trying), None);
    }
}
