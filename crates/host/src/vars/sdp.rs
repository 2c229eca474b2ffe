//! `$sdp` and its lines, streams and tokens, to read and to change.
//!
//! A path names streams, lines and tokens from the outside in: `$sdp.stream(audio[1]/a=fmtp:96/bitrate=)`.
//! A stream without a line is its `m=` line. Each step is a prefix and the number of the match, both may be left out; `\/` is a slash of a prefix.

use super::body;
use super::name::Name;
use crate::ctx::{Ctx, MsgState};
use crate::language::vartable::VarTable;
use crate::var::{At, VarKind, Variable};
use bytes::Bytes;
use script::ast::AssignOp;
use script::{Diagnostic, Loc, Value};
use sip::HeaderName;
use std::ops::Range;

pub fn register(table: &mut VarTable) {
    table.simple("sdp", Whole);
    for (name, scope) in
        [("sdp.line", Scope::Lines), ("sdp.session", Scope::Session), ("sdp.stream", Scope::Stream)]
    {
        table.class(name, move |spec, loader| {
            let path = checked(Name::new(spec, loader, "$sdp.line(a=rtpmap[1])")?, spec.loc)?;
            Ok(VarKind::Other(Box::new(Piece { scope, path })))
        });
    }
    table.class("sdp.stream.idx", |spec, loader| {
        let path = checked(Name::new(spec, loader, "$sdp.stream.idx(audio)")?, spec.loc)?;
        Ok(VarKind::Other(Box::new(LineNumber(path))))
    });
}

/// A path whose numbers are numbers, where it stands in the script.
fn checked(path: Name, loc: Loc) -> Result<Name, Diagnostic> {
    match &path {
        Name::Fixed(text) if steps(text).is_none() => {
            let error = Diagnostic::error(loc, "the number of a match in $sdp… is 0 or more");
            Err(error.hint("as in $sdp.line(a=rtpmap[1]), the second one"))
        }
        _ => Ok(path),
    }
}

/// Where lines are looked for.
#[derive(Clone, Copy, PartialEq)]
enum Scope {
    /// All lines.
    Lines,
    /// Before the first `m=`.
    Session,
    /// From one `m=` to the next; the first step of the path says which.
    Stream,
}

/// One step of a path.
#[derive(Clone, Debug, Default, PartialEq)]
struct Step {
    prefix: Vec<u8>,
    index: Option<usize>,
}

/// `a=fmtp:115[3]/bitrate=` as steps; `None` when an index is no number.
fn steps(path: &[u8]) -> Option<Vec<Step>> {
    let mut all = vec![Step::default()];
    let mut bytes = path.iter().copied().peekable();
    while let Some(b) = bytes.next() {
        let step = all.last_mut()?;
        match b {
            b'\\' if bytes.peek().is_some() => step.prefix.push(bytes.next()?),
            b'/' => all.push(Step::default()),
            b'[' => {
                let digits: Vec<u8> = std::iter::from_fn(|| bytes.next_if(|b| *b != b']')).collect();
                bytes.next()?;
                step.index = Some(std::str::from_utf8(&digits).ok()?.trim().parse().ok()?);
            }
            other => step.prefix.push(other),
        }
    }
    Some(all)
}

/// The SDP of a message and its place in the body.
struct Sdp {
    body: Bytes,
    span: Range<usize>,
    /// Lines without their ends, places in the body.
    lines: Vec<Range<usize>>,
}

impl Sdp {
    /// As variables show it: what came, or what a script wrote through these variables.
    fn shown(state: &MsgState) -> Option<Sdp> {
        Sdp::of(body::shown(state), state)
    }

    fn of(body: Bytes, state: &MsgState) -> Option<Sdp> {
        let part = body::parts(&state.msg, &body).into_iter().find(|part| part.is(b"application/sdp"))?;
        let mut lines = Vec::new();
        let mut at = part.span.start;
        while at < part.span.end {
            let end = memchr::memchr(b'\n', &body[at..part.span.end]).map_or(part.span.end, |n| at + n + 1);
            let line = body[at..end].trim_ascii_end();
            if !line.is_empty() {
                lines.push(at..at + line.len());
            }
            at = end;
        }
        Some(Sdp { body, span: part.span, lines })
    }

    fn text(&self, line: usize) -> &[u8] {
        &self.body[self.lines[line].clone()]
    }

    /// Lines from `from` on up to the next `m=`.
    fn section(&self, from: usize) -> Range<usize> {
        let next = (from + 1..self.lines.len()).find(|i| self.text(*i).starts_with(b"m="));
        from..next.unwrap_or(self.lines.len())
    }

    /// The n-th line with this prefix among `lines`.
    fn line(&self, lines: Range<usize>, step: &Step) -> Option<usize> {
        let matching = lines.filter(|i| self.text(*i).starts_with(&step.prefix));
        matching.into_iter().nth(step.index.unwrap_or(0))
    }

    /// The lines of a scope, and the steps that are left.
    fn scope<'a>(&self, scope: Scope, steps: &'a [Step]) -> Option<(Range<usize>, &'a [Step])> {
        let all = 0..self.lines.len();
        let is_media = |i: &usize| self.text(*i).starts_with(b"m=");
        match scope {
            Scope::Lines => Some((all, steps)),
            Scope::Session => Some((0..all.clone().find(is_media).unwrap_or(all.end), steps)),
            Scope::Stream => {
                let (media, rest) = steps.split_first()?;
                let named = |i: &usize| self.text(*i)[2..].starts_with(&media.prefix);
                let start = all.filter(is_media).filter(named).nth(media.index.unwrap_or(0))?;
                Some((self.section(start), rest))
            }
        }
    }

    /// What a path means; `None` when it means nothing here.
    fn find(&self, scope: Scope, path: &[u8]) -> Option<Found> {
        let steps = steps(path)?;
        let (lines, rest) = self.scope(scope, &steps)?;
        let Some((step, rest)) = rest.split_first() else {
            return Some(Found { line: lines.start, token: None });
        };
        let line = self.line(lines, step)?;
        let token = rest.first().filter(|step| **step != Step::default());
        match token {
            None => Some(Found { line, token: None }),
            Some(step) => Some(Found { line, token: Some((self.token(line, step)?, step.clone())) }),
        }
    }

    /// The n-th token of a line with this prefix; tokens stand between blanks and semicolons.
    fn token(&self, line: usize, step: &Step) -> Option<Range<usize>> {
        let place = self.lines[line].clone();
        let text = &self.body[place.clone()];
        // `audio` is the first token of a media line; other lines keep their letter.
        let first = if text.starts_with(b"m=") { 2 } else { 0 };
        let mut tokens = Vec::new();
        let mut start = first;
        for (i, b) in text.iter().enumerate().skip(first).chain([(text.len(), &b' ')]) {
            if matches!(b, b' ' | b';' | b'\t') {
                if i > start {
                    tokens.push(start..i);
                }
                start = i + 1;
            }
        }
        let matching = tokens.into_iter().filter(|token| text[token.clone()].starts_with(&step.prefix));
        let found = matching.into_iter().nth(step.index.unwrap_or(0))?;
        Some(place.start + found.start..place.start + found.end)
    }

    /// The line with its end.
    fn whole_line(&self, line: usize) -> Range<usize> {
        let end = self.lines.get(line + 1).map_or(self.span.end, |next| next.start);
        self.lines[line].start..end
    }

    fn with(&self, place: Range<usize>, text: &[u8]) -> Bytes {
        [&self.body[..place.start], text, &self.body[place.end..]].concat().into()
    }
}

struct Found {
    line: usize,
    token: Option<(Range<usize>, Step)>,
}

/// `$sdp.line(…)`, `$sdp.session(…)`, `$sdp.stream(…)`
struct Piece {
    scope: Scope,
    path: Name,
}

impl Variable for Piece {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let read = |ctx: &mut Ctx| {
            let path = self.path.text(ctx)?;
            let sdp = Sdp::shown(&ctx.state)?;
            let found = sdp.find(self.scope, &path)?;
            // A stream without a line is its `m=` line, as in the reference.
            let place = found.token.map_or_else(|| sdp.lines[found.line].clone(), |(token, _)| token);
            Some(sdp.body.slice(place))
        };
        read(ctx).map_or(Value::Null, Value::Str)
    }

    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        let Some(path) = self.path.text(ctx) else { return false };
        let Some(sdp) = Sdp::of(body::current(&ctx.state), &ctx.state) else { return false };
        let Some(found) = sdp.find(self.scope, &path) else { return false };
        let text = value.text();
        if text.as_ref().is_some_and(|t| t.iter().any(|b| matches!(b, b'\r' | b'\n' | 0))) {
            return false;
        }
        let body = match (found.token, text) {
            (None, None) => sdp.with(sdp.whole_line(found.line), b""),
            (None, Some(text)) => sdp.with(sdp.lines[found.line].clone(), &text),
            // As in the reference: the first word of a line is not a token that can be changed.
            (Some((_, step)), _) if step.prefix.is_empty() && step.index == Some(0) => return false,
            (Some((token, _)), None) => {
                let start = token.start - usize::from(token.start > sdp.lines[found.line].start);
                sdp.with(start..token.end, b"")
            }
            (Some((token, step)), Some(text)) => sdp.with(token, &[&step.prefix[..], &text[..]].concat()),
        };
        body::write(&mut ctx.state, body);
        true
    }

    fn writable(&self) -> bool {
        true
    }
}

/// `$sdp.stream.idx(…)`: number of the line that a path means, from 0.
struct LineNumber(Name);

impl Variable for LineNumber {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let read = |ctx: &mut Ctx| {
            let path = self.0.text(ctx)?;
            Some(Sdp::shown(&ctx.state)?.find(Scope::Stream, &path)?.line)
        };
        read(ctx).map_or(Value::Null, |line| Value::Int(line as i64))
    }
}

/// `$sdp`: the whole description; NULL removes it.
#[derive(Clone, Copy)]
struct Whole;

impl Variable for Whole {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        Sdp::shown(&ctx.state).map_or(Value::Null, |sdp| Value::Str(sdp.body.slice(sdp.span)))
    }

    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        let Some(sdp) = Sdp::of(body::current(&ctx.state), &ctx.state) else { return false };
        let text = match value.text() {
            None => Bytes::new(),
            Some(text) if is_description(&text) => text,
            Some(_) => return false,
        };
        let body = sdp.with(sdp.span.clone(), &text);
        let state = &mut ctx.state;
        if body.is_empty() {
            let lines: Vec<_> =
                state.msg.headers_of(HeaderName::ContentType).map(|header| header.whole()).collect();
            lines.into_iter().for_each(|line| state.edits.delete(line));
        }
        body::write(state, body);
        true
    }

    fn writable(&self) -> bool {
        true
    }
}

/// Has streams, and says where each of them goes: what OpenSIPS (`parse_sdp`) asks of a description.
fn is_description(text: &[u8]) -> bool {
    let lines = || text.split(|b| *b == b'\n');
    let session = lines().take_while(|line| !line.starts_with(b"m="));
    let mut reached = session.into_iter().any(|line| line.starts_with(b"c="));
    let of_session = reached;
    let mut streams = 0;
    for line in lines() {
        if line.starts_with(b"m=") {
            if streams > 0 && !reached {
                return false;
            }
            (streams, reached) = (streams + 1, of_session);
        }
        reached |= streams > 0 && line.starts_with(b"c=");
    }
    text.starts_with(b"v=") && streams > 0 && reached
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 15] = [
        "v=0",
        "o=alice 1 1 IN IP4 10.0.0.1",
        "s=-",
        "c=IN IP4 10.0.0.1",
        "t=0 0",
        "m=audio 4000 RTP/AVP 0 8 101",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=ptime:20",
        "a=sendrecv",
        "m=video 4002 RTP/AVP 96",
        "a=rtpmap:96 H264/90000",
        "a=fmtp:96 packetization-mode=1;profile=x",
        "m=audio 4004 RTP/AVP 3",
        "a=inactive",
    ];

    fn described(lines: &[&str]) -> Bytes {
        lines.iter().map(|line| format!("{line}\r\n")).collect::<String>().into()
    }

    fn sdp() -> Sdp {
        let body = described(&LINES);
        let mut at = 0;
        let lines = LINES
            .iter()
            .map(|line| {
                at += line.len() + 2;
                at - line.len() - 2..at - 2
            })
            .collect();
        Sdp { span: 0..body.len(), body, lines }
    }

    #[test]
    fn paths() {
        let sdp = sdp();
        let check = |scope, path: &str, want: Option<(usize, &str)>| {
            let found = sdp.find(scope, path.as_bytes());
            let have = found.map(|f| {
                let place = f.token.map_or(sdp.lines[f.line].clone(), |(token, _)| token);
                (f.line, String::from_utf8(sdp.body[place].to_vec()).unwrap())
            });
            assert_eq!(have, want.map(|(line, text)| (line, text.to_string())), "{path}");
        };
        check(Scope::Lines, "a=", Some((6, LINES[6])));
        check(Scope::Lines, "a=[1]", Some((7, LINES[7])));
        check(Scope::Lines, "[12]", Some((12, LINES[12])));
        check(Scope::Lines, "a=[100]", None);
        check(Scope::Lines, "zzz", None);
        check(Scope::Lines, "m=audio/[0]", Some((5, "audio")));
        check(Scope::Lines, "m=audio/[1]", Some((5, "4000")));
        check(Scope::Lines, "m=audio[1]/[1]", Some((13, "4004")));
        check(Scope::Lines, "m=audio/[99]", None);
        check(Scope::Lines, "m=audio/RTP", Some((5, "RTP/AVP")));
        check(Scope::Lines, "m=audio/RTP\\/AVP[0]", Some((5, "RTP/AVP")));
        check(Scope::Lines, "m=audio/RTQ", None);
        check(Scope::Session, "o=", Some((1, LINES[1])));
        check(Scope::Session, "a=ptime", None);
        check(Scope::Stream, "[1]/a=rtpmap", Some((11, LINES[11])));
        check(Scope::Stream, "/a=ptime", Some((8, LINES[8])));
        check(Scope::Stream, "audio/a=ptime:/[0]", Some((8, LINES[8])));
        check(Scope::Stream, "a[1]/a=", Some((14, LINES[14])));
        check(Scope::Stream, "video/a=fmtp:96/profile=", Some((12, "profile=x")));
        check(Scope::Stream, "video", Some((10, LINES[10])));
        check(Scope::Stream, "text", None);
        check(Scope::Stream, "audio[x]", None);
    }

    #[test]
    fn descriptions() {
        assert!(is_description(&described(&LINES)));
        assert!(!is_description(b"v=0\r\ns=new\r\n"));
        let of = |lines: &[&str]| is_description(&described(lines));
        assert!(!of(&["v=0", "c=IN IP4 192.0.2.1", "t=0 0"]), "no stream");
        assert!(of(&["v=0", "m=audio 1 RTP/AVP 0", "c=IN IP4 192.0.2.1"]));
        assert!(!of(&["v=0", "m=audio 1 RTP/AVP 0", "c=IN IP4 192.0.2.1", "m=video 3 RTP/AVP 31"]));
        assert!(!is_description(b""));
    }
}
