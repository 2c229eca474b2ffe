//! The streams of a description as a dispatcher is asked for them, and the description with the relay's addresses in their place.

use super::functions::Ice;
use crate::sdp::{lines, words};
use bytes::Bytes;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::ops::Range;

/// Streams of one description.
const MAX_STREAMS: usize = 32;

/// The address of a `c=` line.
#[derive(Clone, Debug)]
struct Connection {
    family: Range<usize>,
    ip: Range<usize>,
    /// The line with its end.
    line: Range<usize>,
}

#[derive(Clone, Debug, Default)]
struct Stream {
    kind: Range<usize>,
    port: Range<usize>,
    /// Relays carry it: RTP, or UDP.
    relayed: bool,
    connection: Option<Connection>,
    rtcp_port: Option<Range<usize>>,
    rtcp_ip: Option<Range<usize>>,
    direction: Option<Range<usize>>,
    has_password: bool,
    has_fragment: bool,
    first_candidate: Option<usize>,
    has_rtcp_candidate: bool,
    /// Where the line behind `m=` begins.
    next_line: usize,
}

#[derive(Clone, Debug)]
pub struct Description {
    text: Bytes,
    connection: Option<Connection>,
    direction: Option<Range<usize>>,
    has_ice: bool,
    streams: Vec<Stream>,
    separator: Bytes,
    pub has_remote_candidates: bool,
}

/// What a dispatcher granted: `ADDRESS PORT PORT...`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    ip: Bytes,
    pub ports: Vec<u16>,
}

impl Answer {
    /// `None`: it refuses, or says nothing.
    pub fn parse(line: &[u8]) -> Option<Answer> {
        let text = std::str::from_utf8(line).ok()?;
        let mut words = text.split_ascii_whitespace();
        let ip = words.next().filter(|ip| ip.parse::<std::net::IpAddr>().is_ok())?;
        let ports: Option<Vec<u16>> = words.map(|port| port.parse().ok()).collect();
        Some(Answer { ip: ip.to_string().into(), ports: ports? })
    }
}

/// The request that ends an ICE negotiation says what was agreed on.
pub fn ends_ice(text: &[u8]) -> bool {
    lines(text).any(|(_, line)| line.starts_with(b"a=remote-candidates"))
}

fn is_relayed(transport: &[u8]) -> bool {
    let begins =
        |prefix: &[u8]| transport.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    begins(b"RTP") || begins(b"udp")
}

/// `5000` of `5000/1`.
fn port(text: &[u8], word: Range<usize>) -> Result<Range<usize>, &'static str> {
    match text[word.clone()].iter().position(|b| *b == b'/') {
        None => Ok(word),
        Some(at) if &text[word.start + at + 1..word.end] == b"1" => Ok(word.start..word.start + at),
        Some(_) => Err("a stream of several ports"),
    }
}

fn direction(line: &[u8]) -> bool {
    let value = line.get(2..).unwrap_or_default();
    [&b"sendrecv"[..], b"sendonly", b"recvonly", b"inactive"]
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word))
}

impl Description {
    /// The error says what cannot be relayed.
    pub fn parse(text: &Bytes) -> Result<Description, &'static str> {
        let mut found = Description {
            text: text.clone(),
            connection: None,
            direction: None,
            has_ice: false,
            streams: Vec::new(),
            separator: Bytes::from_static(b"\r\n"),
            has_remote_candidates: ends_ice(text),
        };
        let (mut password, mut fragment, mut versions) = (false, false, 0);
        for (at, line) in lines(text) {
            let end = at + line.len();
            let value = || words(line.get(2..).unwrap_or_default(), at + 2);
            match line.get(..2) {
                Some(b"v=") => {
                    versions += 1;
                    found.separator = text.slice(end..line_end(text, end));
                }
                Some(b"m=") => {
                    if found.streams.len() == MAX_STREAMS {
                        return Err("more than 32 streams");
                    }
                    let words = value();
                    let [kind, number, transport, ..] = &words[..] else {
                        return Err("an m= line that cannot be read");
                    };
                    let relayed = is_relayed(&text[transport.clone()]);
                    let port = if relayed { port(text, number.clone())? } else { number.clone() };
                    let next_line = line_end(text, end);
                    found.streams.push(Stream {
                        kind: kind.clone(),
                        port,
                        relayed,
                        next_line,
                        ..Stream::default()
                    });
                }
                Some(b"c=") => {
                    let words = value();
                    let [_, family, ip, ..] = &words[..] else { return Err("a c= line that cannot be read") };
                    let place = match found.streams.last_mut() {
                        Some(stream) => &mut stream.connection,
                        None => &mut found.connection,
                    };
                    let line = at..line_end(text, end);
                    place.get_or_insert(Connection { family: family.clone(), ip: ip.clone(), line });
                }
                Some(b"a=") => match found.streams.last_mut() {
                    None if direction(line) => {
                        found.direction.get_or_insert(at + 2..end);
                    }
                    None => {
                        password |= line.starts_with(b"a=ice-pwd:");
                        fragment |= line.starts_with(b"a=ice-ufrag:");
                    }
                    Some(stream) => stream.attribute(line, at),
                },
                _ => {}
            }
        }
        found.has_ice = password && fragment;
        if versions != 1 {
            return Err("it is not one session");
        }
        let many = |connection: &Connection| text[connection.ip.clone()].contains(&b'/');
        let shared = found.connection.as_ref();
        for stream in &found.streams {
            match stream.connection.as_ref().or(shared) {
                None => return Err("a stream without c="),
                Some(place) if many(place) && stream.relayed => return Err("it goes to a group"),
                Some(_) => {}
            }
        }
        Ok(found)
    }

    /// Streams that relays carry.
    pub fn relayed(&self) -> usize {
        self.streams.iter().filter(|stream| stream.relayed).count()
    }

    pub fn is_relayed(&self) -> bool {
        self.relayed() > 0
    }

    fn has_ice(&self, stream: &Stream) -> bool {
        (self.has_ice || stream.has_password && stream.has_fragment) && stream.first_candidate.is_some()
    }

    /// `audio:10.0.0.1:5000:sendrecv:ice=no,video:...`
    pub fn asked(&self) -> String {
        let mut out = String::new();
        let text = |at: &Range<usize>| String::from_utf8_lossy(&self.text[at.clone()]);
        for stream in self.streams.iter().filter(|stream| stream.relayed) {
            let place = stream.connection.as_ref().or(self.connection.as_ref());
            let ip = place.map_or_else(Default::default, |place| text(&place.ip));
            let direction = stream.direction.as_ref().or(self.direction.as_ref());
            let direction = direction.map_or("sendrecv".into(), text);
            let ice = if self.has_ice(stream) { "yes" } else { "no" };
            let comma = if out.is_empty() { "" } else { "," };
            let _ = write!(
                out,
                "{comma}{}:{ip}:{}:{direction}:ice={ice}",
                text(&stream.kind),
                text(&stream.port)
            );
        }
        out
    }

    /// The description with the relay's address and ports. Streams without a port of the relay stay.
    pub fn through(&self, answer: &Answer, ice: Ice) -> Bytes {
        let mut edits = Edits { description: self, ip: &answer.ip, list: Vec::new() };
        let all = self.streams.iter().all(|stream| stream.relayed);
        let mut moved = false;
        if let Some(shared) = self.connection.as_ref().filter(|shared| !edits.is_null(&shared.ip)) {
            if all {
                edits.address(shared);
            } else {
                // Each stream gets a line of its own: not all of them go to the relay.
                edits.list.push((shared.line.clone(), Bytes::new()));
                moved = true;
            }
        }
        let mut ports = answer.ports.iter().copied();
        for stream in &self.streams {
            if !stream.relayed {
                if let (None, true, Some(shared)) = (&stream.connection, moved, &self.connection) {
                    edits
                        .list
                        .push((stream.next_line..stream.next_line, self.text.slice(shared.line.clone())));
                }
                continue;
            }
            let Some(port) = ports.next() else { break };
            edits.stream(stream, port, moved);
            if let (Ice::Priority(priority), true, Some(at)) =
                (ice, self.has_ice(stream), stream.first_candidate)
            {
                edits.candidate(at, 1, priority, port);
                if stream.has_rtcp_candidate {
                    edits.candidate(at, 2, priority - 1, port.saturating_add(1));
                }
            }
        }
        edits.apply()
    }
}

/// Behind the line end at `at`.
fn line_end(text: &[u8], at: usize) -> usize {
    match text.get(at..) {
        Some([b'\r', b'\n', ..]) => at + 2,
        Some([b'\r' | b'\n', ..]) => at + 1,
        _ => at,
    }
}

impl Stream {
    fn attribute(&mut self, line: &[u8], at: usize) {
        let end = at + line.len();
        if direction(line) {
            self.direction.get_or_insert(at + 2..end);
        } else if let Some(value) = line.strip_prefix(b"a=rtcp:") {
            let words = words(value, end - value.len());
            if self.rtcp_port.is_none() {
                self.rtcp_port = words.first().cloned();
                self.rtcp_ip = words.get(3).cloned();
            }
        } else if let Some(value) = line.strip_prefix(b"a=candidate:") {
            self.first_candidate.get_or_insert(at);
            let words = words(value, 0);
            self.has_rtcp_candidate |= words.get(1).is_some_and(|id| &value[id.clone()] == b"2");
        } else {
            self.has_password |= line.starts_with(b"a=ice-pwd:");
            self.has_fragment |= line.starts_with(b"a=ice-ufrag:");
        }
    }
}

/// Changes to a description: what stands where, in the order of the text.
struct Edits<'a> {
    description: &'a Description,
    ip: &'a Bytes,
    list: Vec<(Range<usize>, Bytes)>,
}

impl Edits<'_> {
    /// An address that holds a stream (RFC 2543) stays.
    fn is_null(&self, ip: &Range<usize>) -> bool {
        &self.description.text[ip.clone()] == b"0.0.0.0"
    }

    fn family(&self) -> &'static str {
        if self.ip.contains(&b':') { "IP6" } else { "IP4" }
    }

    fn address(&mut self, place: &Connection) {
        if &self.description.text[place.family.clone()] != self.family().as_bytes() {
            self.list.push((place.family.clone(), self.family().into()));
        }
        self.list.push((place.ip.clone(), self.ip.clone()));
    }

    fn stream(&mut self, stream: &Stream, port: u16, moved: bool) {
        let text = &self.description.text;
        let is_open = |at: &Range<usize>| &text[at.clone()] != b"0";
        if is_open(&stream.port) {
            self.list.push((stream.port.clone(), port.to_string().into()));
        }
        match &stream.connection {
            Some(own) if !self.is_null(&own.ip) => self.address(own),
            None if moved => {
                let separator = String::from_utf8_lossy(&self.description.separator);
                let ip = String::from_utf8_lossy(self.ip);
                let line = format!("c=IN {} {ip}{separator}", self.family());
                self.list.push((stream.next_line..stream.next_line, line.into()));
            }
            _ => {}
        }
        if let Some(at) = stream.rtcp_port.as_ref().filter(|at| is_open(at)) {
            self.list.push((at.clone(), port.saturating_add(1).to_string().into()));
        }
        if let Some(at) = &stream.rtcp_ip {
            self.list.push((at.clone(), self.ip.clone()));
        }
    }

    /// A candidate of the relay in front of the others. Its foundation is the address, in the byte order of the machine that
    /// the reference runs on.
    fn candidate(&mut self, at: usize, component: u8, priority: u32, port: u16) {
        let ip = String::from_utf8_lossy(self.ip);
        let foundation = ip.parse::<Ipv4Addr>().map_or(0, |ip| u32::from_le_bytes(ip.octets()));
        let separator = String::from_utf8_lossy(&self.description.separator);
        let line = format!(
            "a=candidate:R{foundation:x} {component} UDP {priority} {ip} {port} typ relay raddr {ip} rport {port}{separator}"
        );
        self.list.push((at..at, line.into()));
    }

    fn apply(mut self) -> Bytes {
        self.list.sort_by_key(|(at, _)| at.start);
        let text = &self.description.text;
        let mut out = Vec::with_capacity(text.len() + 64);
        let mut from = 0;
        for (at, new) in &self.list {
            out.extend_from_slice(&text[from..at.start]);
            out.extend_from_slice(new);
            from = at.end;
        }
        out.extend_from_slice(&text[from..]);
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TWO: &str = "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\na=sendonly\r\n\
        m=audio 5000/1 RTP/AVP 0\r\na=rtcp:5001 IN IP4 10.0.0.3\r\n\
        m=video 6000 RTP/SAVPF 96\r\nc=IN IP6 2001:db8::1\r\na=inactive\r\n";

    fn parsed(text: &str) -> Result<Description, &'static str> {
        Description::parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    fn through(text: &str, line: &str, ice: Ice) -> String {
        let answer = Answer::parse(line.as_bytes()).unwrap();
        String::from_utf8(parsed(text).unwrap().through(&answer, ice).to_vec()).unwrap()
    }

    #[test]
    fn what_is_asked_for_and_what_becomes_of_it() {
        assert_eq!(
            parsed(TWO).unwrap().asked(),
            "audio:10.0.0.2:5000:sendonly:ice=no,video:2001:db8::1:6000:inactive:ice=no"
        );
        let want = TWO
            .replace("IP4 10.0.0.2", "IP4 192.0.2.9")
            .replace("5000/1", "7000/1")
            .replace("rtcp:5001 IN IP4 10.0.0.3", "rtcp:7001 IN IP4 192.0.2.9")
            .replace("video 6000", "video 7002")
            .replace("IP6 2001:db8::1", "IP4 192.0.2.9");
        assert_eq!(through(TWO, "192.0.2.9 7000 7002\r\n", Ice::None), want);
    }

    #[test]
    fn streams_that_no_relay_carries_keep_their_address() {
        let text = "v=0\no=- 1 1 IN IP4 10.0.0.1\ns=-\nc=IN IP4 10.0.0.2\nt=0 0\nm=audio 5000 RTP/AVP 0\nm=message 9 TCP/MSRP *\n";
        assert_eq!(parsed(text).unwrap().asked(), "audio:10.0.0.2:5000:sendrecv:ice=no");
        assert_eq!(
            through(text, "192.0.2.9 7000", Ice::None),
            "v=0\no=- 1 1 IN IP4 10.0.0.1\ns=-\nt=0 0\nm=audio 7000 RTP/AVP 0\nc=IN IP4 192.0.2.9\nm=message 9 TCP/MSRP *\nc=IN IP4 10.0.0.2\n"
        );
    }

    #[test]
    fn held_and_refused_streams_stay() {
        let text = "v=0\r\nc=IN IP4 0.0.0.0\r\nm=audio 5000 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\n";
        let want = "v=0\r\nc=IN IP4 0.0.0.0\r\nm=audio 7000 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\n";
        assert_eq!(through(text, "192.0.2.9 7000 7002", Ice::None), want);
        // Fewer ports than streams.
        assert!(through(TWO, "192.0.2.9 7000", Ice::None).contains("m=video 6000"));
    }

    #[test]
    fn candidates_of_the_relay() {
        let text = "v=0\r\na=ice-pwd:x\r\na=ice-ufrag:y\r\nc=IN IP4 10.0.0.2\r\nm=audio 5000 RTP/AVP 0\r\n\
            a=candidate:1 1 UDP 9 10.0.0.2 5000 typ host\r\na=candidate:1 2 UDP 8 10.0.0.2 5001 typ host\r\n";
        assert_eq!(parsed(text).unwrap().asked(), "audio:10.0.0.2:5000:sendrecv:ice=yes");
        let low = through(text, "1.2.3.4 7000", Ice::parse(b"Low-Priority"));
        let first = low
            .find("a=candidate:R4030201 1 UDP 16777215 1.2.3.4 7000 typ relay raddr 1.2.3.4 rport 7000\r\n");
        let second = low
            .find("a=candidate:R4030201 2 UDP 16777214 1.2.3.4 7001 typ relay raddr 1.2.3.4 rport 7001\r\n");
        assert!(first.is_some() && second.is_some() && low.find("a=candidate:1 1") > second, "{low}");
        assert!(through(text, "1.2.3.4 7000", Ice::parse(b"high-priority")).contains(" UDP 2197815295 "));
        assert!(!through(text, "1.2.3.4 7000", Ice::parse(b"none")).contains("relay"));
        assert!(parsed(&format!("{text}a=remote-candidates:1 1.1.1.1 5\r\n")).unwrap().has_remote_candidates);
    }

    #[test]
    fn what_cannot_be_relayed_is_said() {
        for (text, why) in [
            ("m=audio 1 RTP/AVP 0\r\n", "one session"),
            ("v=0\r\nv=0\r\n", "one session"),
            ("v=0\r\nm=audio 1 RTP/AVP 0\r\n", "without c="),
            ("v=0\r\nc=IN IP4\r\nm=audio 1 RTP/AVP 0\r\n", "c= line"),
            ("v=0\r\nc=IN IP4 224.1.1.1/3\r\nm=audio 1 RTP/AVP 0\r\n", "group"),
            ("v=0\r\nc=IN IP4 1.1.1.1\r\nm=audio 1/2 RTP/AVP 0\r\n", "several ports"),
            ("v=0\r\nc=IN IP4 1.1.1.1\r\nm=audio\r\n", "m= line"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
        assert!(!parsed("v=0\r\n").unwrap().is_relayed());
        for refused in ["error\r\n", "", "\r\n", "1.2.3.4 x"] {
            assert_eq!(Answer::parse(refused.as_bytes()), None, "{refused:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_is_a_defect(
            parts in proptest::collection::vec(prop_oneof![
                Just("v=0"), Just("c=IN IP6 ::1"), Just("c=IN IP4 x/3"), Just("m=audio 7 RTP/AVP 0"), Just("m=x 7/1 TCP y"),
                Just("a=rtcp:"), Just("a=rtcp:1 IN IP4 1.1.1.1"), Just("a=candidate:"), Just("a=ice-pwd:"), Just("a=ice-ufrag:"),
                Just("\r\n"), Just("\n"), Just("\r"), Just("m="), Just("c="), Just("a="), Just(" "), Just("\u{e9}"), Just("c=IN IP4 1.2.3.4")
            ], 0..30)
        ) {
            let text = Bytes::from(parts.concat());
            if let Ok(found) = Description::parse(&text) {
                let _ = found.asked();
                let answer = Answer::parse(b"9.9.9.9 1 2 3").unwrap();
                let _ = found.through(&answer, Ice::Priority(7));
            }
        }
    }
}
