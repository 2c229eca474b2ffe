//! Offers and answers: a command for each stream of a description, and the description with what the engine said.

use super::ask::{Asking, Feature, error_in, has};
use super::options::Options;
use crate::nodes::{Node, Set};
use crate::sdp::{Changes, Media, Sdp, Session};
use bytes::Bytes;
use std::net::IpAddr;
use std::sync::Arc;

/// Transports that can be relayed, and whether they carry RTP.
const TRANSPORTS: [(&str, bool); 11] = [
    ("udp", false),
    ("udptl", false),
    ("rtp/avp", true),
    ("rtp/avpf", true),
    ("rtp/savp", true),
    ("rtp/savpf", true),
    ("dccp/tls/rtp/savp", true),
    ("dccp/tls/rtp/savpf", true),
    ("udp/tls/rtp/savp", true),
    ("udp/tls/rtp/savpf", true),
    ("udp/bfcp", false),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Offer,
    Answer,
}

/// Where the engine tells what happens to the media.
#[derive(Clone, Debug)]
pub struct Notified {
    pub socket: Bytes,
    /// `T` and the dialog: it ends when media stops. `I`: nobody wants to know.
    pub timeout: Option<Bytes>,
    /// `d` and the dialog, or `c` and the Call-ID.
    pub dtmf: Option<Bytes>,
    /// The configured socket, a TCP one: old engines get it without its scheme.
    pub is_own_tcp: bool,
}

/// All that an offer or answer needs.
#[derive(Clone, Debug)]
pub struct Task {
    pub kind: Kind,
    pub options: Options,
    pub sdp: Bytes,
    pub call_id: Bytes,
    pub from_tag: Bytes,
    pub to_tag: Bytes,
    /// The message is a request.
    pub is_request: bool,
    /// Where the message came from, and which address of ours it came to.
    pub source: IpAddr,
    pub local: IpAddr,
    /// The address to show.
    pub shown: Option<Bytes>,
    /// The address that the engine is to use on its side.
    pub bind: Option<Bytes>,
    /// Where the message goes (autobridge).
    pub remote: Option<IpAddr>,
    pub notified: Option<Notified>,
    /// The line that says that a description was relayed already.
    pub mark: String,
}

/// Which engine it goes to.
#[derive(Clone, Debug)]
pub enum At {
    Set(Arc<Set>),
    /// This one; an offer goes to the set when it is gone.
    Node(Bytes, Option<Arc<Set>>),
}

#[derive(Debug, Default)]
pub struct Made {
    /// The new description; `None`: it stays as it is.
    pub sdp: Option<Bytes>,
    /// The engine that was asked last.
    pub node: Option<Arc<Node>>,
    /// Address and port of the last stream at the engine.
    pub place: Option<String>,
}

/// Nothing came of it; the engine that was asked last.
pub struct Failed(pub Option<Arc<Node>>);

/// What one stream got.
struct Granted {
    port: u16,
    ip: Bytes,
    family_is_v6: bool,
}

impl Task {
    /// Asks for all streams of the description.
    pub async fn run(mut self, asking: &Asking, at: &At) -> Result<Made, Failed> {
        let nothing = || Err(Failed(None));
        let create = self.kind == Kind::Offer && !self.options.lookup;
        if !self.arrange_tags() {
            return nothing();
        }
        let sdp = match Sdp::parse(&self.sdp) {
            Ok(sdp) => sdp,
            Err(why) => {
                host::error!("rtpproxy", "the description: {why}");
                return nothing();
            }
        };
        let marked = !self.mark.is_empty() && sdp.has_line(&self.mark);
        if marked && !self.options.force {
            return nothing();
        }
        let mut made = Made::default();
        let mut changes = Changes::default();
        let mut number = 0;
        for session in &sdp.sessions {
            for media in &session.media {
                let Some(is_rtp) = transport(&media.transport) else { continue };
                number += 1;
                if media.port == 0 {
                    continue;
                }
                let Some(place) = media.connection.as_ref().or(session.connection.as_ref()) else {
                    host::error!("rtpproxy", "the description: a stream without c=");
                    return Err(Failed(made.node));
                };
                let command =
                    Wanted { task: &self, create, media, is_rtp, number, ip: self.address(place.ip) };
                let granted = command.ask(asking, at, &mut made).await;
                let Some(granted) = granted else { return Err(Failed(made.node)) };
                let shown = self.shown_address(&granted, made.node.as_deref(), place.is_null());
                made.place = Some(format!("{}:{}", String::from_utf8_lossy(&shown), granted.port));
                if !self.options.keep {
                    let family = granted.family_is_v6;
                    self.change(&mut changes, session, media, &granted, &shown, family);
                }
            }
        }
        if !self.options.keep {
            let mark = (!marked && !self.mark.is_empty()).then_some(&*self.mark);
            made.sdp = Some(changes.apply(&sdp, mark));
        }
        Ok(made)
    }

    /// The tag of the party that the description is from comes first; an answer in a reply keeps the offer's order.
    fn arrange_tags(&mut self) -> bool {
        let swap = if self.options.lookup {
            if self.to_tag.is_empty() {
                self.to_tag = Bytes::from_static(b"dummy");
            }
            self.kind == Kind::Offer
        } else {
            let swap = self.is_request != (self.kind == Kind::Offer);
            if swap && self.to_tag.is_empty() {
                return false;
            }
            swap
        };
        if swap {
            std::mem::swap(&mut self.from_tag, &mut self.to_tag);
        }
        true
    }

    /// Where the engine expects the media of this party from.
    fn address(&self, said: Option<IpAddr>) -> IpAddr {
        said.filter(|_| self.options.trusted).unwrap_or(self.source)
    }

    fn shown_address(&self, granted: &Granted, node: Option<&Node>, is_null: bool) -> Bytes {
        if is_null {
            return Bytes::from_static(if granted.family_is_v6 { b"::" } else { b"0.0.0.0" });
        }
        let advertised = node.and_then(|node| node.advertised.clone()).map(Bytes::from);
        let said = Some(granted.ip.clone()).filter(|ip| !ip.is_empty());
        let own = || Bytes::from(self.local.to_string());
        self.shown.clone().or(advertised).or(said).unwrap_or_else(own)
    }

    fn change(
        &self,
        changes: &mut Changes,
        session: &Session,
        media: &Media,
        granted: &Granted,
        shown: &Bytes,
        is_v6: bool,
    ) {
        // A name is shown as it is; the engine says which family it is of.
        let unnamed: IpAddr = if is_v6 { [0_u16; 8].into() } else { [0, 0, 0, 0].into() };
        let ip = std::str::from_utf8(shown).ok().and_then(|ip| ip.parse().ok()).unwrap_or(unnamed);
        changes.port(media, granted.port);
        changes.rtcp(media, granted.port.saturating_add(1), ip, shown);
        match (&media.connection, &session.connection) {
            (Some(own), common) => {
                changes.address(own, ip, shown);
                if let Some(common) = common.as_ref().filter(|_| self.options.common) {
                    changes.address(common, ip, shown);
                }
            }
            (None, Some(common)) => changes.address(common, ip, shown),
            (None, None) => {}
        }
        if self.options.origin {
            changes.address(&session.origin, ip, shown);
        }
    }
}

/// `None`: it cannot be relayed and stays as it is.
fn transport(name: &[u8]) -> Option<bool> {
    let found = TRANSPORTS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()));
    if found.is_none() {
        host::info!("rtpproxy", "streams over {} are not relayed", String::from_utf8_lossy(name));
    }
    found.map(|(_, is_rtp)| *is_rtp)
}

/// An address, or a name that could be one of a host.
fn is_place(text: &[u8]) -> bool {
    let is_ip = || std::str::from_utf8(text).is_ok_and(|text| text.parse::<IpAddr>().is_ok());
    let may_be = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    is_ip() || text.iter().all(may_be) && text.iter().any(u8::is_ascii_alphabetic)
}

/// One stream that is asked for.
struct Wanted<'a> {
    task: &'a Task,
    create: bool,
    media: &'a Media,
    is_rtp: bool,
    number: usize,
    ip: IpAddr,
}

impl Wanted<'_> {
    async fn ask(&self, asking: &Asking, at: &At, made: &mut Made) -> Option<Granted> {
        let mut refused = Vec::new();
        loop {
            let node = self.node(asking, at, made, &refused).await?;
            made.node = Some(node.clone());
            let answer = asking.send(&node, &self.command(&node)).await;
            let error = answer.as_deref().and_then(error_in);
            match (answer, error) {
                (Some(answer), None) => {
                    let granted = self.granted(&answer);
                    if granted.is_none() && !self.task.options.lookup {
                        let answer = answer.escape_ascii().to_string();
                        host::error!(
                            "rtpproxy",
                            "{}: `{}` is no port with an address",
                            node.url,
                            answer.trim()
                        );
                    }
                    return granted;
                }
                (None, _) if !self.create => {
                    host::error!("rtpproxy", "{}: a session is not looked for at another engine", node.url);
                    return None;
                }
                (None, _) => {}
                (Some(_), Some(error @ 7..=10)) => {
                    asking.out_of_order(&node, &format!("error E{error}"));
                    if self.task.kind == Kind::Answer {
                        return None;
                    }
                }
                (Some(_), Some(error)) => {
                    host::error!("rtpproxy", "{}: error E{error}", node.url);
                    return None;
                }
            }
            refused.push(node.index);
        }
    }

    /// All streams of a description go to one engine as long as it takes them.
    async fn node(&self, asking: &Asking, at: &At, made: &Made, refused: &[u32]) -> Option<Arc<Node>> {
        if let Some(node) = made.node.as_ref().filter(|n| !n.is_disabled() && !refused.contains(&n.index)) {
            return Some(node.clone());
        }
        let (named, set) = match at {
            At::Set(set) => (None, Some(set)),
            At::Node(url, set) => (asking.named(url).await, set.as_ref()),
        };
        if let Some(node) = named.filter(|node| !refused.contains(&node.index)) {
            return Some(node);
        }
        let found = match set {
            Some(set) => asking.choose(set, &self.task.call_id, refused).await,
            None => None,
        };
        if found.is_none() {
            host::error!("rtpproxy", "no available proxies");
        }
        found
    }

    fn command(&self, node: &Node) -> Vec<u8> {
        let task = self.task;
        let mut out = vec![if self.create { b'U' } else { b'L' }];
        out.extend_from_slice(&task.options.letters);
        if self.ip.is_ipv6() {
            out.push(b'6');
        }
        if let Some(bind) = task.bind.as_ref().filter(|bind| !bind.is_empty()) {
            out.push(b'l');
            out.extend_from_slice(bind);
        }
        let mut repacketize = task.options.repacketize.clone();
        if let Some(remote) = task.remote {
            repacketize.extend_from_slice(format!("R{remote}").as_bytes());
        }
        if has(node, Feature::Repacketize) {
            out.extend_from_slice(&repacketize);
        } else if !repacketize.is_empty() {
            host::warn!("rtpproxy", "{}: it cannot repacketize", node.url);
        }
        if self.is_rtp && has(node, Feature::Codecs) {
            let types: Vec<&[u8]> = self
                .media
                .formats
                .split(|b| !b.is_ascii_digit())
                .filter(|digits| !digits.is_empty())
                .collect();
            if !types.is_empty() {
                out.push(b'c');
                out.extend_from_slice(&types.join(&b","[..]));
            }
        }
        if has(node, Feature::Ttl) {
            out.extend_from_slice(&task.options.ttl);
        }
        let (ip, port, number) = (self.ip, self.media.port, self.number);
        for word in [&task.call_id[..], format!("{ip} {port}").as_bytes()] {
            out.push(b' ');
            out.extend_from_slice(word);
        }
        for tag in [&task.from_tag, &task.to_tag].into_iter().filter(|tag| !tag.is_empty()) {
            out.push(b' ');
            out.extend_from_slice(tag);
            out.extend_from_slice(format!(";{number}").as_bytes());
        }
        self.notifications(node, &mut out);
        out
    }

    fn notifications(&self, node: &Node, out: &mut Vec<u8>) {
        let Some(notified) = &self.task.notified else { return };
        let dtmf = notified.dtmf.as_ref().filter(|_| has(node, Feature::Subcommand));
        let timeout = has(node, Feature::Notify) && notified.timeout.is_some();
        if dtmf.is_none() && !timeout {
            return;
        }
        if self.create {
            let plain = notified.is_own_tcp && !has(node, Feature::NotifyWild);
            let socket = notified.socket.strip_prefix(b"tcp:").filter(|_| plain).unwrap_or(&notified.socket);
            out.push(b' ');
            out.extend_from_slice(socket);
            let timeout = notified.timeout.as_deref().unwrap_or(b"I");
            if !timeout.is_empty() {
                out.push(b' ');
                out.extend_from_slice(timeout);
            }
        }
        if let Some(tag) = dtmf {
            out.extend_from_slice(b" && M3:1 D");
            out.extend_from_slice(tag);
            if let Some(payload) = self.task.options.dtmf.as_ref().filter(|p| !p.is_empty()) {
                out.push(b' ');
                out.extend_from_slice(payload);
            }
        }
    }

    /// `PORT [ADDRESS [6]]`
    fn granted(&self, answer: &[u8]) -> Option<Granted> {
        let mut words = answer.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty());
        let port = std::str::from_utf8(words.next()?).ok()?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        let ip = words.next().map(Bytes::copy_from_slice).unwrap_or_default();
        if !ip.is_empty() && !is_place(&ip) {
            return None;
        }
        let family_is_v6 = words.next().is_some_and(|word| word.starts_with(b"6"));
        Some(Granted { port, ip, family_is_v6 })
    }
}
