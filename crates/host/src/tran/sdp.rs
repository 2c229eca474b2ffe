//! Class `sdp`: lines and streams of a session description.

use super::param::leading_int;
use super::{Entry, Number, Tran, Word, text};
use crate::language::loader::Loader;
use bytes::{Bytes, BytesMut};
use script::ast::{Dialect, TranSpec};
use script::{Diagnostic, Value};
use std::ops::Range;

pub(super) const NAMES: super::Names = &[
    ("line", Entry::With(line)),
    ("stream", Entry::With(|spec, loader| stream(spec, loader, kept))),
    ("stream-delete", Entry::With(|spec, loader| stream(spec, loader, without))),
];

/// The n-th line of a type, without its end.
fn line(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    // A variable is not read here: its `$` would be the type.
    Word::new(spec, 0, loader)?;
    let kind = spec.params[0].trim_ascii().first().copied();
    let (nth, dialect) = (Number::optional(spec, 1, loader)?, loader.dialect);
    if nth.as_ref().and_then(Number::fixed).is_some_and(|n| n < 0) {
        return Err(Diagnostic::error(spec.loc, "{sdp.line}: lines are counted from 0"));
    }
    Ok(Tran::new(move |ctx, value| {
        let nth = match &nth {
            None => Some(0),
            Some(nth) => nth.get(ctx).and_then(|n| usize::try_from(n).ok()),
        };
        let body = text(&value);
        let Some(nth) = nth.filter(|_| !body.is_empty()) else { return Value::Null };
        let of_kind =
            |(at, _): &(usize, usize)| kind.is_some_and(|kind| body[*at..].starts_with(&[kind, b'=']));
        let found = lines(&body).filter(of_kind).nth(nth);
        if found.is_none() && dialect == Dialect::V21 {
            // Not a failure there: NULL, or an empty text behind the last one.
            let any = lines(&body).any(|line| of_kind(&line));
            return if any { Value::Str(Bytes::new()) } else { Value::Nought };
        }
        // A line that does not end in CR is malformed.
        match found {
            Some((at, end)) if body.get(end) == Some(&b'\r') => Value::Str(body.slice(at..end)),
            _ => Value::Null,
        }
    }))
}

/// (first byte, end without CR and LF) of each line.
fn lines(body: &[u8]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= body.len() {
            return None;
        }
        let start = at;
        let end = memchr::memchr2(b'\r', b'\n', &body[at..]).map_or(body.len(), |n| start + n);
        at = end + if body[end..].starts_with(b"\r\n") { 2 } else { 1 };
        Some((start, end))
    })
}

/// From each `m=` up to the next one or the end.
fn streams(body: &[u8]) -> Vec<Range<usize>> {
    let starts: Vec<usize> =
        lines(body).map(|(at, _)| at).filter(|at| body[*at..].starts_with(b"m=")).collect();
    let ends = starts.iter().skip(1).copied().chain([body.len()]);
    starts.iter().zip(ends).map(|(start, end)| *start..end).collect()
}

/// Whether this is a description with an origin, streams, and an address for each of them: nothing else has streams.
fn is_description(body: &[u8], streams: &[Range<usize>]) -> bool {
    let Some(first) = streams.first() else { return false };
    let address = |line: &[u8]| {
        let mut words = line.split(|b| *b == b' ').skip_while(|word| ![&b"IP4"[..], b"IP6"].contains(word));
        words.next().is_some() && words.next().is_some_and(|word| !word.is_empty())
    };
    let has = |from: usize, to: usize, kind: &[u8]| {
        let mut all = lines(&body[from..to]).map(|(at, end)| &body[from + at..from + end]);
        all.any(|line| line.starts_with(kind) && address(line))
    };
    let begins = body.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(0);
    body[begins..].starts_with(b"v=")
        && has(0, first.start, b"o=")
        && (has(0, first.start, b"c=") || streams.iter().all(|s| has(s.start, s.end, b"c=")))
}

/// Streams that are meant: by number, negative from the end, or by media type.
enum Which {
    Number(i32),
    Media(Bytes),
}

impl Which {
    fn of(text: &Bytes) -> Which {
        match leading_int(text) {
            (Some(n), []) => Which::Number(n),
            _ => Which::Media(text.clone()),
        }
    }

    /// Numbers of the streams, ascending.
    fn among(&self, body: &[u8], all: &[Range<usize>]) -> Vec<usize> {
        match self {
            Which::Number(n) => {
                let at = if *n < 0 { all.len() as i64 + i64::from(*n) } else { i64::from(*n) };
                usize::try_from(at).ok().filter(|at| *at < all.len()).into_iter().collect()
            }
            Which::Media(media) => {
                let is = |range: &Range<usize>| {
                    let line = &body[range.start + 2..range.end];
                    let word = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
                    word.eq_ignore_ascii_case(media)
                };
                (0..all.len()).filter(|i| is(&all[*i])).collect()
            }
        }
    }
}

type Change = fn(&Bytes, &[Range<usize>], &[usize]) -> Bytes;

fn stream(spec: &TranSpec, loader: &mut Loader, change: Change) -> Result<Tran, Diagnostic> {
    let which = Word::new(spec, 0, loader)?;
    Ok(Tran::new(move |ctx, value| {
        let Some(which) = which.get(ctx).map(|text| Which::of(&text)) else { return Value::Null };
        let body = text(&value);
        let all = streams(&body);
        if !is_description(&body, &all) {
            return Value::Null;
        }
        match which.among(&body, &all)[..] {
            [] => Value::Null,
            ref chosen => Value::Str(change(&body, &all, chosen)),
        }
    }))
}

/// Of several streams of a type it is the last, as in the reference.
fn kept(body: &Bytes, all: &[Range<usize>], chosen: &[usize]) -> Bytes {
    chosen.last().map_or_else(Bytes::new, |last| body.slice(all[*last].clone()))
}

fn without(body: &Bytes, all: &[Range<usize>], chosen: &[usize]) -> Bytes {
    let mut out = BytesMut::with_capacity(body.len());
    let mut from = 0;
    for stream in chosen {
        out.extend_from_slice(&body[from..all[*stream].start]);
        from = all[*stream].end;
    }
    out.extend_from_slice(&body[from..]);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "v=0\r\nm=audio 1\r\na=x\r\nm=video 2\r\nm=audio 3\r\na=y\r\n";

    fn check(change: Change, which: &'static str, want: Option<&str>) {
        let body = Bytes::from_static(BODY.as_bytes());
        let all = streams(&body);
        let chosen = Which::of(&Bytes::from_static(which.as_bytes())).among(&body, &all);
        let have = if chosen.is_empty() { None } else { Some(change(&body, &all, &chosen)) };
        assert_eq!(have.as_deref(), want.map(str::as_bytes), "{which}");
    }

    #[test]
    fn descriptions_have_an_origin_and_addresses() {
        let check = |body: &str, want: bool| {
            assert_eq!(is_description(body.as_bytes(), &streams(body.as_bytes())), want, "{body}");
        };
        check("v=0\r\no=a 1 1 IN IP4 10.0.0.1\r\nc=IN IP4 10.0.0.1\r\nm=audio 1\r\n", true);
        check("v=0\r\no=a 1 1 IN IP6 ::1\r\nm=audio 1\r\nc=IN IP6 ::1\r\n", true);
        check("v=0\r\no=a 1 1 IN IP4 10.0.0.1\r\nm=audio 1\r\nc=IN IP4 10.0.0.1\r\nm=video 2\r\n", false);
        check("v=0\r\nc=IN IP4 10.0.0.1\r\nm=audio 1\r\n", false);
        check("m=audio 1\r\na=x\r\n", false);
        check("", false);
    }

    #[test]
    fn streams_of_a_body() {
        check(kept, "0", Some("m=audio 1\r\na=x\r\n"));
        check(kept, "-1", Some("m=audio 3\r\na=y\r\n"));
        check(kept, "AUDIO", Some("m=audio 3\r\na=y\r\n"));
        check(kept, "3", None);
        check(kept, "text", None);
        check(without, "audio", Some("v=0\r\nm=video 2\r\n"));
        check(without, "1", Some("v=0\r\nm=audio 1\r\na=x\r\nm=audio 3\r\na=y\r\n"));
    }
}
