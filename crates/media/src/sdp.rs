//! Where the addresses and ports of a description are (RFC 8866, RFC 3605), and putting others in their place. Line ends of
//! any sort, blanks in odd places and lines that nobody knows stay as they are.

use bytes::Bytes;
use std::net::IpAddr;
use std::ops::Range;

/// Streams of one description that are looked at.
const MAX_MEDIA: usize = 64;

/// An address in a `c=` or `o=` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `None`: a name.
    pub ip: Option<IpAddr>,
    pub is_v6: bool,
    /// The digit of `IP4` or `IP6`.
    family: usize,
    text: Range<usize>,
}

impl Place {
    /// It holds a stream (RFC 2543).
    pub fn is_null(&self) -> bool {
        self.ip.is_some_and(|ip| ip.is_unspecified())
    }
}

#[derive(Clone, Debug)]
pub struct Media {
    /// The port, 0 when the stream is refused or ended.
    pub port: u16,
    port_at: Range<usize>,
    /// As it is written: `RTP/AVP`.
    pub transport: Bytes,
    pub formats: Bytes,
    /// Its own `c=` line.
    pub connection: Option<Place>,
    /// The value of `a=rtcp:`.
    rtcp: Option<Range<usize>>,
}

/// One description; a body may hold several behind one another.
#[derive(Clone, Debug)]
pub struct Session {
    pub origin: Place,
    /// The `c=` line for all streams that have none.
    pub connection: Option<Place>,
    pub media: Vec<Media>,
}

/// A body of descriptions.
#[derive(Clone, Debug)]
pub struct Sdp {
    text: Bytes,
    pub sessions: Vec<Session>,
}

/// A line without its end, and where it begins.
pub fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        let end = rest.iter().position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(rest.len());
        let start = at;
        at += end + usize::from(end < rest.len());
        Some((start, &rest[..end]))
    })
}

/// Words of a line with their places.
pub fn words(line: &[u8], base: usize) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = None;
    for (at, b) in line.iter().enumerate() {
        match (b.is_ascii_whitespace(), start) {
            (false, None) => start = Some(at),
            (true, Some(from)) => {
                found.push(base + from..base + at);
                start = None;
            }
            _ => {}
        }
    }
    found.extend(start.map(|from| base + from..base + line.len()));
    found
}

/// The address at the end of `... IN IP4 1.2.3.4[/ttl]`.
fn address(text: &[u8], line: &[u8], start: usize) -> Option<Place> {
    let words = words(&line[2..], start + 2);
    let at = words.iter().position(|w| text[w.clone()].eq_ignore_ascii_case(b"IN"))?;
    let (family, address) = (words.get(at + 1)?.clone(), words.get(at + 2)?.clone());
    let kind = &text[family.clone()];
    if kind.len() != 3 || !kind[..2].eq_ignore_ascii_case(b"IP") || !matches!(kind[2], b'4' | b'6') {
        return None;
    }
    let written = &text[address.clone()];
    let end = written.iter().position(|b| *b == b'/').unwrap_or(written.len());
    let ip = std::str::from_utf8(&written[..end]).ok().and_then(|ip| ip.parse().ok());
    Some(Place {
        ip,
        is_v6: kind[2] == b'6',
        family: family.end - 1,
        text: address.start..address.start + end,
    })
}

fn media(text: &Bytes, line: &[u8], start: usize) -> Option<Media> {
    let words = words(&line[2..], start + 2);
    let (port_at, transport) = (words.get(1)?.clone(), words.get(2)?.clone());
    let written = &text[port_at.clone()];
    // `m=audio 49170/2`: ports in a row.
    let end = written.iter().position(|b| *b == b'/').unwrap_or(written.len());
    let port = std::str::from_utf8(&written[..end]).ok()?.parse().ok()?;
    let formats = words.get(3).map_or_else(Bytes::new, |first| text.slice(first.start..start + line.len()));
    let port_at = port_at.start..port_at.start + end;
    Some(Media { port, port_at, transport: text.slice(transport), formats, connection: None, rtcp: None })
}

impl Sdp {
    /// The error says what is missing.
    pub fn parse(text: &Bytes) -> Result<Sdp, &'static str> {
        let start = text.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(text.len());
        if !text[start..].starts_with(b"v=") {
            return Err("it does not begin with v=");
        }
        let mut sessions = Vec::new();
        let mut open: Option<(Option<Place>, Option<Place>, Vec<Media>)> = None;
        for (at, line) in lines(text) {
            if line.starts_with(b"v=") {
                sessions.extend(closed(open.replace((None, None, Vec::new())))?);
                continue;
            }
            let Some((origin, connection, streams)) = &mut open else { continue };
            let count = streams.len();
            match (line.get(..2), streams.last_mut()) {
                (Some(b"o="), None) => *origin = address(text, line, at),
                (Some(b"m="), _) if count < MAX_MEDIA => {
                    streams.push(media(text, line, at).ok_or("an m= line that cannot be read")?);
                }
                (Some(b"m="), _) => return Err("too many m= lines"),
                (Some(b"c="), None) => *connection = address(text, line, at).or(connection.take()),
                (Some(b"c="), Some(stream)) if stream.connection.is_none() => {
                    stream.connection = address(text, line, at);
                }
                (Some(b"a="), Some(stream)) if line.starts_with(b"a=rtcp:") => {
                    stream.rtcp = Some(at + 7..at + line.len());
                }
                _ => {}
            }
        }
        sessions.extend(closed(open)?);
        Ok(Sdp { text: text.clone(), sessions })
    }

    /// True when a line begins so.
    pub fn has_line(&self, line: &str) -> bool {
        lines(&self.text).any(|(_, found)| found.starts_with(line.as_bytes()))
    }
}

/// A description that has ended, when it is whole.
fn closed(open: Option<(Option<Place>, Option<Place>, Vec<Media>)>) -> Result<Option<Session>, &'static str> {
    let Some((origin, connection, media)) = open else { return Ok(None) };
    let origin = origin.ok_or("it has no o= line")?;
    if media.is_empty() {
        return Err("it has no m= line");
    }
    Ok(Some(Session { origin, connection, media }))
}

/// Changes to a description, made all at once.
#[derive(Debug, Default)]
pub struct Changes(Vec<(Range<usize>, Bytes)>);

impl Changes {
    fn put(&mut self, at: Range<usize>, text: impl Into<Bytes>) {
        // The first word about a place counts.
        if !self.0.iter().any(|(old, _)| *old == at) {
            self.0.push((at, text.into()));
        }
    }

    /// Another address. One that holds a stream stays, and so does the same.
    pub fn address(&mut self, place: &Place, ip: IpAddr, text: &Bytes) {
        let same_family = place.is_v6 == ip.is_ipv6();
        if (place.is_null() && same_family) || place.ip == Some(ip) {
            return;
        }
        if !same_family {
            self.put(place.family..place.family + 1, if ip.is_ipv4() { "4" } else { "6" });
        }
        let null = if ip.is_ipv4() { Bytes::from_static(b"0.0.0.0") } else { Bytes::from_static(b"::") };
        self.put(place.text.clone(), if place.is_null() { null } else { text.clone() });
    }

    pub fn port(&mut self, media: &Media, port: u16) {
        self.put(media.port_at.clone(), port.to_string());
    }

    /// `a=rtcp:`, where it is written.
    pub fn rtcp(&mut self, media: &Media, port: u16, ip: IpAddr, text: &Bytes) {
        if let Some(at) = &media.rtcp {
            let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
            self.put(at.clone(), format!("{port} IN {family} {}", String::from_utf8_lossy(text)));
        }
    }

    /// The description with the changes, and a line at its end.
    pub fn apply(mut self, sdp: &Sdp, last_line: Option<&str>) -> Bytes {
        self.0.sort_by_key(|(at, _)| at.start);
        let mut out = Vec::with_capacity(sdp.text.len() + 64);
        let mut from = 0;
        for (at, text) in &self.0 {
            out.extend_from_slice(&sdp.text[from..at.start]);
            out.extend_from_slice(text);
            from = at.end;
        }
        out.extend_from_slice(&sdp.text[from..]);
        if let Some(line) = last_line {
            if !out.ends_with(b"\n") {
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ODD: &str = "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\na=ice-lite\r\n\
        m=audio 5000/2 RTP/SAVP 0 8\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\na=rtcp:5001 IN IP4 10.0.0.3\r\n\
        a=candidate:1 1 UDP 1 10.0.0.9 5000 typ host\r\nm=video 0 RTP/AVP 96\r\nm=image  5004 udptl t38\r\n\
        c=IN IP6 2001:db8::1\r\n";

    fn moved(text: &str, ip: &str, line: Option<&str>) -> String {
        let (sdp, ip) = (Sdp::parse(&Bytes::copy_from_slice(text.as_bytes())).unwrap(), ip.parse().unwrap());
        let shown = Bytes::from(IpAddr::to_string(&ip));
        let mut changes = Changes::default();
        for session in &sdp.sessions {
            changes.address(&session.origin, ip, &shown);
            let mut port = 7000;
            for media in session.media.iter().filter(|media| media.port != 0) {
                if let Some(place) = media.connection.as_ref().or(session.connection.as_ref()) {
                    changes.address(place, ip, &shown);
                }
                changes.port(media, port);
                changes.rtcp(media, port + 1, ip, &shown);
                port += 2;
            }
        }
        String::from_utf8(changes.apply(&sdp, line).to_vec()).unwrap()
    }

    #[test]
    fn only_addresses_and_ports_move() {
        let want = ODD
            .replace("o=- 1 1 IN IP4 10.0.0.1", "o=- 1 1 IN IP4 192.0.2.1")
            .replace("c=IN IP4 10.0.0.2", "c=IN IP4 192.0.2.1")
            .replace("audio 5000/2", "audio 7000/2")
            .replace("rtcp:5001 IN IP4 10.0.0.3", "rtcp:7001 IN IP4 192.0.2.1")
            .replace("image  5004", "image  7002")
            .replace("IN IP6 2001:db8::1", "IN IP4 192.0.2.1");
        assert_eq!(moved(ODD, "192.0.2.1", None), want);
    }

    #[test]
    fn line_ends_stay_as_they_are() {
        for end in ["\r\n", "\n", "\r"] {
            let text = ODD.replace("\r\n", end);
            let have = moved(&text, "2001:db8::7", Some("a=x"));
            assert!(have.contains(&format!("c=IN IP6 2001:db8::7{end}t=0 0{end}")), "{have:?}");
            assert!(have.ends_with("a=x\r\n") && have.contains("o=- 1 1 IN IP6 2001:db8::7"));
        }
        assert!(
            moved("v=0\no=- 1 1 IN IP4 1.1.1.1\nm=audio 1 x 0", "2.2.2.2", Some("a=x"))
                .ends_with(" 0\r\na=x\r\n")
        );
    }

    #[test]
    fn names_in_the_place_of_addresses() {
        let text = "v=0\no=- 1 1 IN IP4 pc.example.com\nc=IN IP4 pc.example.com\nm=audio 1 RTP/AVP 0\n";
        let have = moved(text, "192.0.2.1", None);
        assert_eq!(have.matches("IN IP4 192.0.2.1\n").count(), 2, "{have}");
    }

    #[test]
    fn held_streams_stay_held() {
        let text = "v=0\no=- 1 1 IN IP4 1.1.1.1\nc=IN IP4 0.0.0.0\nm=audio 1 RTP/AVP 0\n";
        assert!(moved(text, "192.0.2.1", None).contains("c=IN IP4 0.0.0.0\n"));
        assert!(moved(text, "2001:db8::1", None).contains("c=IN IP6 ::\n"));
    }

    #[test]
    fn several_descriptions_in_one_body() {
        let two = format!("{ODD}{ODD}");
        assert_eq!(Sdp::parse(&two.clone().into()).unwrap().sessions.len(), 2);
        assert_eq!(moved(&two, "192.0.2.1", None).matches("7002").count(), 2);
    }

    #[test]
    fn what_is_missing_is_said() {
        for (text, why) in [
            ("", "v="),
            ("hello", "v="),
            ("v=0\r\ns=-\r\n", "o="),
            ("v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\n", "m= line"),
            ("v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\nm=audio\r\n", "cannot be read"),
            ("v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\nm=audio 99999 RTP/AVP 0\r\n", "cannot be read"),
        ] {
            let error = Sdp::parse(&Bytes::copy_from_slice(text.as_bytes())).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_is_a_defect(
            parts in proptest::collection::vec(prop_oneof![
                Just("v=0"), Just("o=- 1 1 IN IP4 1.2.3.4"), Just("c=IN IP6 ::1"), Just("c=IN IP4 x/3"), Just("m=audio 7 RTP/AVP 0"),
                Just("a=rtcp:"), Just("\r\n"), Just("\n"), Just("\r"), Just("m="), Just("c="), Just(" "), Just("\u{e9}"), Just("o=IN IN")
            ], 0..30)
        ) {
            let text = Bytes::from(parts.concat());
            if let Ok(sdp) = Sdp::parse(&text) {
                let mut changes = Changes::default();
                let (ip, shown) = ("9.9.9.9".parse().unwrap(), Bytes::from_static(b"9.9.9.9"));
                for session in &sdp.sessions {
                    for media in &session.media {
                        changes.port(media, 1);
                        changes.rtcp(media, 2, ip, &shown);
                        session.connection.iter().chain(&media.connection).for_each(|p| changes.address(p, ip, &shown));
                    }
                }
                let _ = changes.apply(&sdp, Some("a=x"));
            }
        }
    }
}
