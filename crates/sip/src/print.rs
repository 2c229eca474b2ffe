//! Prints messages with their edits applied. Untouched spans are copied byte for byte.

use crate::HeaderName;
use crate::edit::{Anchor, Edit, Edits, Inserted, Order, Piece};
use crate::frame::{self, Length};
use crate::message::{Message, Span, StartLine};
use crate::scan::{self, Nesting, is_lws, starts_with_nocase};
use crate::via::Via;
use bytes::Bytes;
use smallvec::SmallVec;
use std::borrow::Cow;

/// Names of a socket as printed into messages (advertised address if there is one).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SocketNames {
    /// "10.0.0.1", "[::1]" or an advertised name.
    pub host: Bytes,
    /// The port, or the advertised one.
    pub port: u16,
    /// "UDP"
    pub transport: &'static str,
}

impl SocketNames {
    fn is_stream(&self) -> bool {
        !self.transport.is_empty() && !self.transport.eq_ignore_ascii_case("UDP")
    }
}

/// How a request leaves.
pub struct PrintTarget<'a> {
    /// The Request-URI; empty keeps the received one.
    pub uri: &'a [u8],
    /// Whole Via line(s) to put on top, with CRLF; empty for none.
    pub via: &'a [u8],
    /// Added to the topmost received Via value, e.g. `;received=1.2.3.4;rport=5`; empty for none.
    /// See `Via::source_params`.
    pub via_params: &'a [u8],
    /// Whole extra header lines (Route of a path), with CRLF: before the first Route, else after
    /// the last Via.
    pub extra: &'a [u8],
    /// Of the socket that the request leaves by.
    pub send: &'a SocketNames,
    /// Of the socket that it came in by.
    pub received: &'a SocketNames,
}

/// The bytes of a request with all edits of `edits` in order (base edits, then branch edits) applied.
///
/// The new Via stands immediately before the received ones, below what was inserted at that place
/// (Record-Route). However the message was framed when it came, its lines end in CRLF, one empty line follows
/// the headers and Content-Length is right; it is added when it is missing and the message gets its first body or
/// leaves over a stream.
pub fn print_request(msg: &Message, edits: &[&Edits], target: &PrintTarget<'_>) -> Bytes {
    let mut plan = Plan::new(msg, edits);
    if let StartLine::Request { uri, version, .. } = msg.start() {
        if !target.uri.is_empty() {
            plan.delete(*uri);
            plan.insert(uri.start, target.uri);
        }
        plan.delete(trailing_blanks(msg, version.end));
    }
    plan.insert(via_place(msg), target.via);
    plan.insert(extra_place(msg), target.extra);
    plan.insert_via_params(target.via_params);
    plan.print(target.send, target.received)
}

/// The bytes of a reply without its topmost Via value, edits applied. `status`: replaces the status
/// line's code and reason.
pub fn print_reply(
    msg: &Message,
    edits: &Edits,
    status: Option<(u16, &[u8])>,
    send: &SocketNames,
    received: &SocketNames,
) -> Bytes {
    let line;
    let mut plan = Plan::new(msg, &[edits]);
    if let (StartLine::Reply { version, .. }, Some((code, reason))) = (msg.start(), status) {
        line = [itoa::Buffer::new().format(code).as_bytes(), b" ", reason, b"\r\n"].concat();
        plan.delete(Span { start: version.end + 1, end: msg.start_line().end });
        plan.insert(version.end + 1, &line);
    }
    if let Some(span) = top_via(msg) {
        plan.delete(span);
    }
    plan.print(send, received)
}

/// A message with its Vias as they are and these edits, framed for what it leaves by.
pub fn print_as_received(msg: &Message, edits: &Edits, send: &SocketNames) -> Bytes {
    Plan::new(msg, &[edits]).print(send, send)
}

/// The body of a message with the edits of it applied.
pub fn edited_body(msg: &Message, edits: &Edits) -> Bytes {
    let mut plan = Plan::new(msg, &[edits]);
    plan.sort();
    plan.drop_hidden();
    let nowhere = SocketNames::default();
    let sockets = Sockets { send: &nowhere, received: &nowhere };
    match plan.new_body(&sockets) {
        Some(Cow::Owned(body)) => body.into(),
        Some(Cow::Borrowed(_)) => edits.body().cloned().unwrap_or_default(),
        None => msg.text(msg.body()),
    }
}

/// Blanks between version and line end must not be passed on (RFC 4475 §3.1.2.10), nor carriage returns that are not the line
/// end's: they would leave as blanks.
fn trailing_blanks(msg: &Message, at: u32) -> Span {
    let line = msg.buf()[at as usize..].split(|&b| b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let blanks = line.iter().take_while(|&&b| matches!(b, b' ' | b'\t' | b'\r')).count();
    Span { start: at, end: at + blanks as u32 }
}

/// What to delete to remove the topmost Via value: its header, or the value with its comma.
fn top_via(msg: &Message) -> Option<Span> {
    let header = msg.header(HeaderName::Via)?;
    if msg.via().is_some_and(|via| via.whole.end == header.value().end) {
        return Some(header.whole());
    }
    let text = msg.bytes(header.value());
    let second = scan::list(text, Nesting::Comments).nth(1);
    Some(
        second.map_or(header.whole(), |(at, _)| Span {
            end: header.value().start + at as u32,
            ..header.value()
        }),
    )
}

fn via_place(msg: &Message) -> u32 {
    msg.header(HeaderName::Via).map_or_else(|| top(msg), |h| h.whole().start)
}

fn extra_place(msg: &Message) -> u32 {
    if let Some(route) = msg.header(HeaderName::Route) {
        return route.whole().start;
    }
    msg.headers_of(HeaderName::Via).last().map_or_else(|| top(msg), |via| via.whole().end)
}

fn top(msg: &Message) -> u32 {
    msg.start_line().end
}

/// The edits of a message as two lists sorted by place.
struct Plan<'a> {
    msg: &'a Message,
    /// Sorted in `print`; may overlap.
    deleted: SmallVec<[Span; 8]>,
    /// In the order in which texts of one place are printed; sorted by place in `print`.
    inserted: SmallVec<[(u32, Text<'a>); 8]>,
    body: Option<&'a Bytes>,
    /// 1 when the first text is the line end that a cut-off message lacks.
    closing: usize,
}

#[derive(Clone, Copy)]
enum Text<'a> {
    Plain(&'a [u8]),
    Pieces(&'a [Piece]),
    Number(usize),
}

impl<'a> Plan<'a> {
    fn new(msg: &'a Message, edits: &[&'a Edits]) -> Plan<'a> {
        let mut plan =
            Plan { msg, deleted: SmallVec::new(), inserted: SmallVec::new(), body: None, closing: 0 };
        plan.close_head();
        for edit in edits.iter().flat_map(|edits| &edits.list) {
            match edit {
                Edit::Delete(span) => plan.deleted.push(*span),
                Edit::Insert(at, order, text) => plan.record(plan.place(*at), *order, text),
            }
        }
        plan.keep_content_length();
        plan.body = edits.iter().rev().find_map(|edits| edits.body());
        plan
    }

    fn place(&self, at: Anchor) -> u32 {
        match at {
            Anchor::Top => top(self.msg),
            Anchor::End => self.msg.headers_end(),
            Anchor::At(offset) if offset <= self.msg.headers_end() => offset,
            Anchor::At(offset) => offset.clamp(self.msg.body().start, self.msg.body().end),
        }
    }

    fn record(&mut self, place: u32, order: Order, text: &'a Inserted) {
        let text = match text {
            Inserted::Text(text) => Text::Plain(text),
            Inserted::Pieces(pieces) => Text::Pieces(pieces),
        };
        match order {
            Order::InCallOrder => self.inserted.push((place, text)),
            Order::NewestFirst => self.inserted.insert(self.closing, (place, text)),
        }
    }

    fn delete(&mut self, span: Span) {
        self.deleted.push(span);
    }

    fn insert(&mut self, place: u32, text: &'a [u8]) {
        if !text.is_empty() {
            self.inserted.push((place, Text::Plain(text)));
        }
    }

    /// A script that removes Content-Length and puts none in its place does not get rid of it: the
    /// reference relays it all the same.
    fn keep_content_length(&mut self) {
        let msg = self.msg;
        if !self.inserts_content_length()
            && let Some(header) = msg.header(HeaderName::ContentLength)
        {
            self.deleted.retain(|span| *span != header.whole());
        }
    }

    /// `received` and `rport` of the sender, right after host and port. What the Via has of them already gets its
    /// value where it stands: whoever wrote it did not see where the message came from (RFC 3261 §18.2.1).
    fn insert_via_params(&mut self, params: &'a [u8]) {
        let msg = self.msg;
        let Some(via) = msg.via().filter(|_| !params.is_empty()) else { return };
        if self.deleted.iter().any(|span| span.contains(via.whole)) {
            return;
        }
        let before = self.inserted.len();
        let is_rport = |param: &&[u8]| starts_with_nocase(param, b"rport");
        let given = || params.split(|&b| b == b';').filter(|param| !param.is_empty());
        // A forced rport stands before received, as the reference prints it.
        for param in given().filter(is_rport).chain(given().filter(|param| !is_rport(param))) {
            let name = param.iter().position(|&b| b == b'=').unwrap_or(param.len());
            if self.set_param(via, &param[..name], &param[name..]) {
                continue;
            }
            self.insert(via.sent_by_end, b";");
            self.insert(via.sent_by_end, param);
        }
        // Before a line end that closes a cut-off Via.
        let added = self.inserted.len() - before;
        self.inserted.rotate_right(added);
    }

    /// Gives a parameter of the Via this value (`=5060`); false when the Via has no such.
    fn set_param(&mut self, via: &Via, name: &[u8], value: &'a [u8]) -> bool {
        let Some((name, _)) = via.params.slices().find(|(known, _)| known.eq_ignore_ascii_case(name)) else {
            return false;
        };
        let buf = self.msg.buf();
        let end = scan::offset_of(buf, name) + name.len();
        let old = buf[end..via.whole.end as usize].iter().take_while(|b| !b";,(".contains(b)).count();
        let old_end = end + buf[end..end + old].iter().rposition(|&b| !is_lws(b)).map_or(0, |n| n + 1);
        self.delete(Span::new(end, old_end));
        self.insert(end as u32, value);
        true
    }

    fn print(mut self, send: &SocketNames, received: &SocketNames) -> Bytes {
        let msg = self.msg;
        let sockets = Sockets { send, received };
        self.sort();
        self.drop_hidden();
        let new_body = self.new_body(&sockets);
        let length = new_body.as_ref().map_or(msg.body().len(), |body| body.len());
        let wanted = match &new_body {
            _ if send.is_stream() => Length::ThereAndRight,
            // A datagram whose body came without a length does without one.
            Some(_) if !msg.body().is_empty() && msg.header(HeaderName::ContentLength).is_none() => {
                Length::RightIfThere
            }
            Some(_) => Length::ThereAndRight,
            None => Length::RightIfThere,
        };
        self.fix_content_length(length, wanted);
        let added: usize = self.inserted.iter().map(|(_, text)| text.size()).sum();
        let mut out =
            Vec::with_capacity(msg.buf().len() + added + new_body.as_ref().map_or(0, |body| body.len()));
        self.copy(msg.start_line().start, msg.headers_end(), &sockets, &mut out);
        let body = new_body.as_deref().unwrap_or(msg.bytes(msg.body()));
        frame::finish(out, body, wanted)
    }

    /// Texts at the end of the headers need the last line to end.
    fn close_head(&mut self) {
        let end = self.msg.headers_end();
        if self.msg.buf()[end as usize - 1] != b'\n' {
            self.inserted.push((end, Text::Plain(b"\r\n")));
            self.closing = 1;
        }
    }

    /// Stable, so texts of one place keep their order.
    fn sort(&mut self) {
        self.deleted.sort_unstable_by_key(|span| span.start);
        self.inserted.sort_by_key(|(place, _)| *place);
    }

    /// What begins inside a deletion that begins earlier is gone, a deletion as well as a text: a header
    /// that was changed and is then removed leaves nothing behind. (OpenSIPS does so, and it keeps the
    /// lines whole.)
    fn drop_hidden(&mut self) {
        let mut zones: SmallVec<[Span; 8]> = SmallVec::new();
        for span in &self.deleted {
            match zones.last_mut() {
                Some(last) if last.start == span.start => last.end = last.end.max(span.end),
                Some(last) if span.start < last.end => {}
                _ => zones.push(*span),
            }
        }
        let hidden = |place: u32| {
            let before = zones.partition_point(|zone| zone.start < place);
            zones[..before].last().is_some_and(|zone| place < zone.end)
        };
        self.inserted.retain(|(place, _)| !hidden(*place));
        self.deleted = zones;
    }

    /// The body when something changed it.
    fn new_body(&self, sockets: &Sockets<'_>) -> Option<Cow<'a, [u8]>> {
        if let Some(body) = self.body {
            return Some(Cow::Borrowed(body));
        }
        let (head, body) = (self.msg.headers_end(), self.msg.body());
        let edited = self.deleted.iter().any(|span| span.end > head && span.start < body.end)
            || self.inserted.iter().any(|(place, _)| *place > head);
        edited.then(|| {
            let mut out = Vec::with_capacity(body.len() + 256);
            self.copy(body.start, body.end, sockets, &mut out);
            Cow::Owned(out)
        })
    }

    fn fix_content_length(&mut self, length: usize, wanted: Length) {
        let msg = self.msg;
        let kept = |line: &&crate::Header| !self.deleted.iter().any(|span| span.contains(line.whole()));
        let lines: SmallVec<[_; 2]> = msg.headers_of(HeaderName::ContentLength).filter(kept).collect();
        match lines.first() {
            Some(first)
                if lines.len() > 1
                    || scan::decimal(msg.bytes(first.value())) != Some(length as u32)
                    || self.deleted.iter().any(|span| first.whole().contains(*span)) =>
            {
                let whole = first.whole();
                // What a script changed inside these lines gives way.
                self.deleted.retain(|span| !lines.iter().any(|line| line.whole().contains(*span)));
                self.inserted.retain(|(at, _)| *at <= whole.start || *at >= whole.end);
                self.deleted.extend(lines.iter().map(|line| line.whole()));
                self.insert_length(whole.start, length);
            }
            None if wanted == Length::ThereAndRight && !self.inserts_content_length() => {
                self.insert_length(msg.headers_end(), length);
            }
            _ => {}
        }
        self.sort();
    }

    fn insert_length(&mut self, place: u32, length: usize) {
        let line = [Text::Plain(b"Content-Length: "), Text::Number(length), Text::Plain(b"\r\n")];
        self.inserted.extend(line.map(|text| (place, text)));
    }

    fn inserts_content_length(&self) -> bool {
        self.inserted
            .iter()
            .any(|(_, text)| matches!(text, Text::Plain(text) if starts_with_nocase(text, b"Content-Length")))
    }

    /// Copies `from..to` without what is deleted and with the texts inserted in `from..=to`.
    fn copy(&self, from: u32, to: u32, sockets: &Sockets<'_>, out: &mut Vec<u8>) {
        let mut at = from;
        let mut deleted = self.deleted.iter().peekable();
        let mut keep_until = |at: &mut u32, until: u32, out: &mut Vec<u8>| {
            while *at < until {
                // Deletions that end before this point are behind us.
                while deleted.next_if(|span| span.end <= *at).is_some() {}
                let (copy_to, next) = match deleted.peek() {
                    Some(span) if span.start <= *at => (*at, span.end.min(until)),
                    Some(span) if span.start < until => (span.start, span.start),
                    _ => (until, until),
                };
                out.extend_from_slice(&self.msg.buf()[*at as usize..copy_to as usize]);
                *at = next;
            }
        };
        for (place, text) in self.inserted.iter().filter(|(place, _)| (from..=to).contains(place)) {
            keep_until(&mut at, *place, out);
            text.print(sockets, out);
        }
        keep_until(&mut at, to, out);
    }
}

/// Prints `span` (the first Via header) with `received` and `rport` of the sender in it.
pub(crate) fn insert_source(msg: &Message, span: Span, via_params: &[u8], out: &mut Vec<u8>) {
    let mut plan = Plan::new(msg, &[]);
    plan.insert_via_params(via_params);
    plan.sort();
    let nowhere = SocketNames::default();
    plan.copy(span.start, span.end, &Sockets { send: &nowhere, received: &nowhere }, out);
}

struct Sockets<'a> {
    send: &'a SocketNames,
    received: &'a SocketNames,
}

impl Text<'_> {
    /// Bytes to reserve.
    fn size(self) -> usize {
        match self {
            Text::Plain(text) => text.len(),
            Text::Number(_) => 10,
            Text::Pieces(pieces) => 64 * pieces.len(),
        }
    }

    fn print(self, sockets: &Sockets<'_>, out: &mut Vec<u8>) {
        match self {
            Text::Plain(text) => out.extend_from_slice(text),
            Text::Number(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
            Text::Pieces(pieces) => print_pieces(pieces, sockets, out),
        }
    }
}

fn print_pieces(pieces: &[Piece], sockets: &Sockets<'_>, out: &mut Vec<u8>) {
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text),
            Piece::SendHostPort => print_host_port(sockets.send, out),
            Piece::ReceivedHostPort => print_host_port(sockets.received, out),
            Piece::SendTransport => print_transport(sockets.send, out),
            Piece::ReceivedTransport => print_transport(sockets.received, out),
            Piece::IfSocketsDiffer(inner) if sockets.send != sockets.received => {
                print_pieces(inner, sockets, out)
            }
            Piece::IfSocketsDiffer(_) => {}
        }
    }
}

/// The port is printed always, also 5060, as the reference does; 0 means that there is none.
fn print_host_port(names: &SocketNames, out: &mut Vec<u8>) {
    out.extend_from_slice(&names.host);
    if names.port != 0 {
        out.push(b':');
        out.extend_from_slice(itoa::Buffer::new().format(names.port).as_bytes());
    }
}

fn print_transport(names: &SocketNames, out: &mut Vec<u8>) {
    if names.is_stream() {
        out.extend_from_slice(b";transport=");
        out.extend(names.transport.bytes().map(|b| b.to_ascii_lowercase()));
    }
}

#[cfg(test)]
mod tests;
