//! Session descriptions (RFC 8866) as lines, their streams and codecs.

use bytes::Bytes;
use script::posix;
use std::ops::Range;

/// Streams of one description that are looked at.
const MAX_STREAMS: usize = 64;

pub struct Sdp {
    /// With their line ends.
    lines: Vec<Bytes>,
}

/// Codecs without an `a=rtpmap` line (RFC 3551 §6; `t38` for fax): payload, name, clock rate.
const STATIC: [(&str, &str, &str); 25] = [
    ("0", "PCMU", "8000"),
    ("3", "GSM", "8000"),
    ("4", "G723", "8000"),
    ("5", "DVI4", "8000"),
    ("6", "DVI4", "16000"),
    ("7", "LPC", "8000"),
    ("8", "PCMA", "8000"),
    ("9", "G722", "8000"),
    ("10", "L16", "44100"),
    ("11", "L16", "44100"),
    ("12", "QCELP", "8000"),
    ("13", "CN", "8000"),
    ("14", "MPA", "90000"),
    ("15", "G728", "8000"),
    ("16", "DVI4", "11025"),
    ("17", "DVI4", "22050"),
    ("18", "G729", "8000"),
    ("25", "CelB", "8000"),
    ("26", "JPEG", "90000"),
    ("28", "nv", "90000"),
    ("31", "H261", "90000"),
    ("32", "MPV", "90000"),
    ("33", "MP2T", "90000"),
    ("34", "H263", "90000"),
    ("t38", "t38", ""),
];

/// Which codecs are meant. Names and clock rates in any case.
pub enum Codecs<'a> {
    Named(&'a [u8]),
    WithClock(&'a [u8], &'a [u8]),
    Matching(&'a posix::Pattern),
    /// All that do not match.
    Other(&'a posix::Pattern),
}

impl Codecs<'_> {
    fn mean(&self, name: &[u8], clock: &[u8]) -> bool {
        match self {
            Codecs::Named(wanted) => name.eq_ignore_ascii_case(wanted),
            Codecs::WithClock(wanted, rate) => {
                name.eq_ignore_ascii_case(wanted) && clock.eq_ignore_ascii_case(rate)
            }
            Codecs::Matching(regex) => regex.is_match(name),
            Codecs::Other(regex) => !regex.is_match(name),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
pub enum Change {
    Delete,
    MoveUp,
    MoveDown,
}

/// How a stream is put on hold.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Hold {
    /// RFC 2543: the address is 0.0.0.0.
    NullAddress,
    /// RFC 3264 §8.4: inactive or sendonly.
    Direction,
}

/// A codec of a stream.
struct Codec {
    payload: Vec<u8>,
    name: Vec<u8>,
    clock: Vec<u8>,
    described: Described,
}

/// How a codec is told apart.
#[derive(Clone, Copy, PartialEq)]
enum Described {
    /// By an `a=rtpmap` line.
    Line,
    /// By its number.
    Number,
}

impl Sdp {
    pub fn parse(text: &Bytes) -> Sdp {
        let lines = text.split_inclusive(|b| *b == b'\n').map(|line| text.slice_ref(line));
        Sdp { lines: lines.collect() }
    }

    pub fn text(&self) -> Bytes {
        self.lines.concat().into()
    }

    fn line(&self, n: usize) -> &[u8] {
        self.lines[n].trim_ascii_end()
    }

    /// The streams: each from its `m=` line to the next `m=` or the next session.
    fn streams(&self) -> Vec<Range<usize>> {
        let starts = |n: &usize| matches!(self.line(*n), [b'm' | b'v', b'=', ..]);
        let borders: Vec<usize> = (0..self.lines.len()).filter(starts).chain([self.lines.len()]).collect();
        let streams = borders.windows(2).filter(|pair| self.line(pair[0]).starts_with(b"m="));
        streams.map(|pair| pair[0]..pair[1]).take(MAX_STREAMS).collect()
    }

    /// The words of a stream's `m=` line: media, port, transport, formats.
    fn words(&self, stream: &Range<usize>) -> Vec<&[u8]> {
        let line = self.line(stream.start);
        let words = line[2..].split(|b| *b == b' ' || *b == b'\t').filter(|word| !word.is_empty());
        words.collect()
    }

    /// The last stream whose media and transport match.
    pub fn find_stream(
        &self,
        media: &posix::Pattern,
        transport: Option<&posix::Pattern>,
    ) -> Option<Range<usize>> {
        let matches = |stream: &Range<usize>| {
            let words = self.words(stream);
            let word = |n: usize| words.get(n).copied().unwrap_or_default();
            media.is_match(word(0)) && transport.is_none_or(|regex| regex.is_match(word(2)))
        };
        self.streams().into_iter().rev().find(matches)
    }

    pub fn delete_stream(&mut self, stream: Range<usize>) {
        self.lines.drain(stream);
    }

    /// The first hold among the audio streams.
    pub fn hold(&self) -> Option<Hold> {
        self.streams().into_iter().find_map(|stream| {
            let audio = self.words(&stream).first().is_some_and(|media| media.eq_ignore_ascii_case(b"audio"));
            if !audio {
                return None;
            }
            let direction =
                |n: usize| matches!(self.line(n), b"a=sendonly" | b"a=inactive").then_some(Hold::Direction);
            stream.clone().find_map(direction).or_else(|| self.null_address(&stream))
        })
    }

    fn null_address(&self, stream: &Range<usize>) -> Option<Hold> {
        let address = |n: &usize| self.line(*n).starts_with(b"c=");
        let session = (0..stream.start).rev().find(|n| self.line(*n).starts_with(b"v=")).unwrap_or(0);
        let end = (session..stream.start).find(|n| self.line(*n).starts_with(b"m=")).unwrap_or(stream.start);
        let line = stream.clone().find(address).or_else(|| (session..end).find(address))?;
        let host = self.line(line).rsplit(|b| *b == b' ').next().unwrap_or_default();
        (host == b"0.0.0.0").then_some(Hold::NullAddress)
    }

    /// Whether a stream has one of these codecs.
    pub fn has_codec(&self, which: &Codecs<'_>) -> bool {
        self.streams().iter().any(|stream| {
            let words = self.words(stream);
            let listed = |codec: &Codec| words.iter().skip(3).any(|word| *word == codec.payload);
            self.codecs(stream).iter().any(|codec| which.mean(&codec.name, &codec.clock) && listed(codec))
        })
    }

    /// Changes these codecs in every stream; false when there are none.
    pub fn change_codecs(&mut self, which: &Codecs<'_>, change: Change) -> bool {
        let mut found = false;
        // From the end: deleting lines leaves the streams before in place.
        for stream in self.streams().into_iter().rev() {
            found |= self.change_stream(&stream, which, change);
        }
        found
    }

    fn change_stream(&mut self, stream: &Range<usize>, which: &Codecs<'_>, change: Change) -> bool {
        let mut formats: Vec<Vec<u8>> = self.words(stream).into_iter().skip(3).map(<[u8]>::to_vec).collect();
        let mut moved = Vec::new();
        let mut gone: Vec<Vec<u8>> = Vec::new();
        for codec in self.codecs(stream) {
            if !which.mean(&codec.name, &codec.clock) {
                continue;
            }
            let Some(place) = formats.iter().position(|format| *format == codec.payload) else { continue };
            formats.remove(place);
            if change == Change::Delete && codec.described == Described::Line {
                for rtx in self.repairs(stream, &codec.payload) {
                    formats.retain(|format| *format != rtx);
                    gone.push(rtx);
                }
                gone.push(codec.payload.clone());
            }
            moved.push(codec.payload);
        }
        if moved.is_empty() {
            return false;
        }
        match change {
            Change::Delete => {}
            Change::MoveUp => {
                moved.extend(formats);
                formats = moved;
            }
            Change::MoveDown => formats.extend(moved),
        }
        self.write_formats(stream, &formats);
        let about_gone = |line: &[u8]| attribute_of(line).is_some_and(|of| gone.iter().any(|g| g == of));
        for n in stream.clone().rev() {
            if about_gone(self.line(n)) {
                self.lines.remove(n);
            }
        }
        true
    }

    /// Writes the `m=` line with these formats; without any the stream is off (port 0).
    fn write_formats(&mut self, stream: &Range<usize>, formats: &[Vec<u8>]) {
        let end = self.lines[stream.start].slice(self.line(stream.start).len()..);
        let mut words: Vec<Vec<u8>> = self.words(stream).into_iter().take(3).map(<[u8]>::to_vec).collect();
        if formats.is_empty()
            && let Some(port) = words.get_mut(1)
        {
            *port = b"0".to_vec();
        }
        words.extend_from_slice(formats);
        self.lines[stream.start] = [b"m=", &words.join(&b' ')[..], &end].concat().into();
    }

    /// The codecs of a stream: those with a line, the last format first, then those known by number.
    fn codecs(&self, stream: &Range<usize>) -> Vec<Codec> {
        let words = self.words(stream);
        let formats = words.get(3..).unwrap_or_default();
        let mut codecs = Vec::new();
        for format in formats.iter().rev() {
            let Some((name, clock)) = stream.clone().find_map(|n| rtpmap(self.line(n), format)) else {
                continue;
            };
            codecs.push(Codec {
                payload: format.to_vec(),
                name: name.to_vec(),
                clock: clock.to_vec(),
                described: Described::Line,
            });
        }
        codecs.extend(STATIC.iter().map(|(payload, name, clock)| Codec {
            payload: payload.as_bytes().to_vec(),
            name: name.as_bytes().to_vec(),
            clock: clock.as_bytes().to_vec(),
            described: Described::Number,
        }));
        codecs
    }

    /// Formats that repair this one (RFC 4588 `apt=`).
    fn repairs(&self, stream: &Range<usize>, payload: &[u8]) -> Vec<Vec<u8>> {
        let repair = |n: usize| {
            let line = self.line(n);
            let of = attribute_of(line).filter(|_| line.starts_with(b"a=fmtp:"))?;
            let apt = memchr::memmem::find(line, b"apt=")?;
            let target = line[apt + 4..].split(|b| !b.is_ascii_alphanumeric()).next()?;
            (target == payload).then(|| of.to_vec())
        };
        stream.clone().filter_map(repair).collect()
    }
}

/// `a=rtpmap:97 speex/16000/1` for this format: name and clock rate.
fn rtpmap<'a>(line: &'a [u8], format: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let rest = line.strip_prefix(b"a=rtpmap:")?.strip_prefix(format)?.strip_prefix(b" ")?.trim_ascii();
    let mut parts = rest.split(|b| *b == b'/');
    let name = parts.next().filter(|name| !name.is_empty())?;
    Some((name, parts.next().unwrap_or_default()))
}

/// The format that `a=name:FORMAT value` is about.
fn attribute_of(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"a=")?;
    let colon = memchr::memchr(b':', rest)?;
    let value = &rest[colon + 1..];
    let blank = memchr::memchr(b' ', value)?;
    Some(&value[..blank])
}

#[cfg(test)]
mod tests {
    use super::*;
    use script::posix::{Case, compile_lines};

    const AUDIO: &str = "v=0\r\nc=IN IP4 10.0.0.1\r\nm=audio 4000 RTP/AVP 0 8 97 98 101\r\na=rtpmap:97 speex/16000\r\n\
                         a=fmtp:97 mode=any\r\na=rtcp-fb:97 nack\r\na=rtpmap:98 speex/8000\r\na=rtpmap:101 rtx/90000\r\n\
                         a=fmtp:101 apt=97\r\nm=video 4002 RTP/SAVP 31\r\na=inactive\r\n";

    fn re(pattern: &str) -> posix::Pattern {
        compile_lines(pattern.as_bytes(), Case::Ignore).unwrap()
    }

    fn check(which: &Codecs<'_>, change: Change, replaced: &[(&str, &str)]) {
        let mut sdp = Sdp::parse(&AUDIO.into());
        let found = sdp.change_codecs(which, change);
        assert_eq!(found, !replaced.is_empty());
        let mut want = AUDIO.to_string();
        for (from, to) in replaced {
            assert!(want.contains(from), "{from}");
            want = want.replacen(from, to, 1);
        }
        assert_eq!(String::from_utf8_lossy(&sdp.text()), want);
    }

    #[test]
    fn codecs_are_deleted_with_their_lines() {
        let lines_97 = ("a=rtpmap:97 speex/16000\r\na=fmtp:97 mode=any\r\na=rtcp-fb:97 nack\r\n", "");
        let rtx = ("a=rtpmap:101 rtx/90000\r\na=fmtp:101 apt=97\r\n", "");
        check(&Codecs::Named(b"pcmu"), Change::Delete, &[("AVP 0 8", "AVP 8")]);
        check(&Codecs::WithClock(b"SPEEX", b"16000"), Change::Delete, &[("97 98 101", "98"), lines_97, rtx]);
        check(&Codecs::Named(b"opus"), Change::Delete, &[]);
        check(
            &Codecs::Matching(&re("H26")),
            Change::Delete,
            &[("m=video 4002 RTP/SAVP 31", "m=video 0 RTP/SAVP")],
        );
    }

    #[test]
    fn codecs_are_moved() {
        check(&Codecs::Named(b"speex"), Change::MoveUp, &[("0 8 97 98 101", "98 97 0 8 101")]);
        check(&Codecs::Matching(&re("^pcm")), Change::MoveDown, &[("0 8 97 98 101", "97 98 101 0 8")]);
    }

    #[test]
    fn streams_are_found() {
        let mut sdp = Sdp::parse(&AUDIO.into());
        assert!(sdp.find_stream(&re("aud"), Some(&re("SAVP"))).is_none());
        let video = sdp.find_stream(&re("VIDEO"), Some(&re("SAVP"))).unwrap();
        sdp.delete_stream(video);
        assert_eq!(sdp.text(), AUDIO[..AUDIO.find("m=video").unwrap()]);
    }

    #[test]
    fn holds() {
        let hold = |text: &str| Sdp::parse(&Bytes::copy_from_slice(text.as_bytes())).hold();
        assert_eq!(hold(AUDIO), None);
        assert_eq!(hold(&AUDIO.replace("10.0.0.1", "0.0.0.0")), Some(Hold::NullAddress));
        assert_eq!(hold(&AUDIO.replace("a=rtcp-fb:97 nack", "a=sendonly")), Some(Hold::Direction));
        assert_eq!(hold("m=audio"), None);
        assert_eq!(hold(""), None);
    }
}
