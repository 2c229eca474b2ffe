//! Headers whose value is a list of tokens: Supported, Require, Allow ...

use super::Sipmsgops;
use super::headers::named;
use bytes::Bytes;
use host::{Call, Head, MsgState, Registrar, Routes, Text};
use sip::{Anchor, Header, Message};
use std::ops::Range;

pub fn register(m: &mut Registrar<Sipmsgops>) {
    let any =
        Routes::REQUEST.and(Routes::ON_REPLY).and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::LOCAL);
    m.function("list_hdr_has_option", any, has_option);
    m.function("list_hdr_add_option", any, add_option);
    m.function("list_hdr_remove_option", any, remove_option);
}

/// Headers that were written anew, by their place; an empty line is a header that is gone.
#[derive(Clone, Default)]
struct Written(Vec<(u32, Bytes)>);

/// A header line as it is now: label and colon, value, line end.
struct Line {
    text: Bytes,
    value: Range<usize>,
}

impl Line {
    fn of(msg: &Message, header: &Header) -> Line {
        let text = msg.text(header.whole());
        let start = (header.value().start - header.whole().start) as usize;
        let value = start..(header.value().end - header.whole().start) as usize;
        Line { text, value }
    }

    /// The same header with another text: what is around the value keeps its length.
    fn rewritten(&self, text: Bytes) -> Line {
        let after = self.text.len() - self.value.end;
        let end = text.len().saturating_sub(after).max(self.value.start.min(text.len()));
        Line { value: self.value.start.min(text.len())..end, text }
    }

    /// Places of the options in the line.
    fn options(&self) -> Vec<Range<usize>> {
        let mut at = self.value.start;
        let mut options = Vec::new();
        for part in self.text[self.value.clone()].split(|b| *b == b',') {
            let option = part.trim_ascii();
            if !option.is_empty() {
                let start = at + (option.as_ptr() as usize - part.as_ptr() as usize);
                options.push(start..start + option.len());
            }
            at += part.len() + 1;
        }
        options
    }

    /// All options are tokens (RFC 3261 §25.1), without parameters or quotes.
    fn is_list(&self) -> bool {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(b);
        self.options().into_iter().all(|o| self.text[o].iter().all(plain))
    }

    fn with(&self, option: &[u8]) -> Bytes {
        match self.options().last() {
            Some(last) => [&self.text[..last.end], b",", option, &self.text[last.end..]].concat().into(),
            None => {
                let colon = memchr::memchr(b':', &self.text).map_or(0, |colon| colon + 1);
                let line_end = self.text.trim_ascii_end().len().max(colon);
                [&self.text[..colon], b" ", option, &self.text[line_end..]].concat().into()
            }
        }
    }

    /// Without the last such option; `None` when there is none. Without its only option the line is empty.
    fn without(&self, option: &[u8]) -> Option<Bytes> {
        let options = self.options();
        let place = options.iter().rposition(|o| self.text[o.clone()].eq_ignore_ascii_case(option))?;
        if options.len() == 1 {
            return Some(Bytes::new());
        }
        // With the comma and the blanks after it, or before it when it is the last.
        let gone = match options.get(place + 1) {
            Some(next) if place == 0 => options[0].start..next.start,
            Some(_) => {
                let comma = memchr::memchr(b',', &self.text[options[place].end..]).unwrap_or(0);
                options[place].start..options[place].end + comma + 1
            }
            None => options[place - 1].end..options[place].end,
        };
        Some([&self.text[..gone.start], &self.text[gone.end..]].concat().into())
    }
}

/// The line of a header as these functions left it.
fn current(state: &MsgState, header: &Header) -> Line {
    let received = Line::of(&state.msg, header);
    let written = state.ext.find::<Written>();
    match written.and_then(|w| w.0.iter().find(|(place, _)| *place == header.whole().start)) {
        Some((_, text)) => received.rewritten(text.clone()),
        None => received,
    }
}

fn write(state: &mut MsgState, header: &Header, text: Bytes) {
    let place = header.whole().start;
    let written = &mut state.ext.entry::<Written>().0;
    let last = written.iter().position(|(at, _)| *at == place).map(|i| written.swap_remove(i).1);
    written.push((place, text.clone()));
    if let Some(last) = last {
        state.edits.undelete(header.whole());
        state.edits.retain_inserted(|inserted| inserted != &last[..]);
    }
    state.edits.delete(header.whole());
    if !text.is_empty() {
        state.edits.insert(Anchor::At(place), text);
    }
}

/// list_hdr_has_option(header, option): in any header of that name, as received.
fn has_option(call: &mut Call<Sipmsgops>, name: Text, option: Text) -> bool {
    let msg = &call.ctx.state.msg;
    let mut lines = named(msg, &name).map(|header| Line::of(msg, header));
    lines.any(|line| line.options().into_iter().any(|o| line.text[o].eq_ignore_ascii_case(&option)))
}

/// list_hdr_add_option(header, option): at the end of the first header of that name.
fn add_option(call: &mut Call<Sipmsgops>, name: Text, option: Head) -> bool {
    let state = &mut call.ctx.state;
    let msg = state.msg.clone();
    let Some(header) = named(&msg, &name).next() else { return false };
    let line = current(state, header);
    if !line.is_list() {
        return false;
    }
    let text = if line.text.is_empty() { Line::of(&msg, header).only(&option) } else { line.with(&option) };
    write(state, header, text);
    true
}

impl Line {
    /// With this option alone.
    fn only(&self, option: &[u8]) -> Bytes {
        [&self.text[..self.value.start], option, &self.text[self.value.end..]].concat().into()
    }
}

/// list_hdr_remove_option(header, option): the last of that name in each such header. A header left without
/// options goes too.
fn remove_option(call: &mut Call<Sipmsgops>, name: Text, option: Text) -> bool {
    let state = &mut call.ctx.state;
    let msg = state.msg.clone();
    let mut removed = false;
    for header in named(&msg, &name) {
        let line = current(state, header);
        if let Some(text) = line.without(&option) {
            write(state, header, text);
            removed = true;
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, add: &str, remove: &str, added: &str, removed: Option<&str>) {
        let raw = format!("BYE sip:a SIP/2.0\r\nK:{value}\r\n\r\n");
        let msg = Message::parse(raw.into()).unwrap();
        let line = Line::of(&msg, &msg.headers()[0]);
        let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(text(line.with(add.as_bytes())), added, "{value}");
        assert_eq!(line.without(remove.as_bytes()).map(text), removed.map(str::to_string), "{value}");
    }

    #[test]
    fn options() {
        check(" path, 100rel", "x", "PATH", "K: path, 100rel,x\r\n", Some("K: 100rel\r\n"));
        check(" path, 100rel", "x", "100rel", "K: path, 100rel,x\r\n", Some("K: path\r\n"));
        check(" a, b,c", "x", "b", "K: a, b,c,x\r\n", Some("K: a, c\r\n"));
        check(" a", "x", "a", "K: a,x\r\n", Some(""));
        check(" a", "x", "b", "K: a,x\r\n", None);
        check("", "x", "b", "K: x\r\n", None);
        check(" ,a,,b, ", "x", "b", "K: ,a,,b,x, \r\n", Some("K: ,a, \r\n"));
    }
}
