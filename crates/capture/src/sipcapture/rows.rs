//! What stands in a row: columns and their names as the reference has them.

use super::SipCapture;
use crate::hep_in::{Received, kind};
use bytes::Bytes;
use host::db::{DbValue, Name, Query};
use host::vars::time::strftime;
use host::{Ctx, Registrar};
use sip::{HeaderName, Message, NameAddr, Transport, Uri};
use std::net::SocketAddr;
use std::sync::Arc;

/// (what a parameter `..._column` is called, the column).
const COLUMNS: &[(&str, &str)] = &[
    ("id_column", "id"),
    ("date_column", "date"),
    ("micro_ts_column", "micro_ts"),
    ("method_column", "method"),
    ("reply_reason_column", "reply_reason"),
    ("ruri_column", "ruri"),
    ("ruri_user_column", "ruri_user"),
    ("from_user_column", "from_user"),
    ("from_tag_column", "from_tag"),
    ("to_user_column", "to_user"),
    ("to_tag_column", "to_tag"),
    ("pid_user_column", "pid_user"),
    ("contact_user_column", "contact_user"),
    ("auth_user_column", "auth_user"),
    ("callid_column", "callid"),
    ("callid_aleg_column", "callid_aleg"),
    ("via_1_column", "via_1"),
    ("via_1_branch_column", "via_1_branch"),
    ("cseq_column", "cseq"),
    ("diversion_column", "diversion_user"),
    ("reason_column", "reason"),
    ("content_type_column", "content_type"),
    ("authorization_column", "auth"),
    ("user_agent_column", "user_agent"),
    ("source_ip_column", "source_ip"),
    ("source_port_column", "source_port"),
    ("destination_ip_column", "destination_ip"),
    ("destination_port_column", "destination_port"),
    ("contact_ip_column", "contact_ip"),
    ("contact_port_column", "contact_port"),
    ("originator_ip_column", "originator_ip"),
    ("originator_port_column", "originator_port"),
    ("proto_column", "proto"),
    ("family_column", "family"),
    ("rtp_stat_column", "rtp_stat"),
    ("type_column", "type"),
    ("node_column", "node"),
    ("msg_column", "msg"),
];

/// Names of columns that the script chose, by those of the reference.
#[derive(Clone, Debug, Default)]
pub struct Columns(Vec<(&'static str, String)>);

impl Columns {
    fn name(&self, usual: &'static str) -> Name {
        let chosen = self.0.iter().find(|(known, _)| *known == usual);
        chosen.map_or_else(|| Name::from(usual), |(_, name)| Name::from(name))
    }
}

/// The parameters that name columns.
pub fn register_columns(m: &mut Registrar<SipCapture>) {
    macro_rules! columns {
        ($($at:literal),*) => {
            $(m.param_text(COLUMNS[$at].0, |m, name| {
                m.columns.0.push((COLUMNS[$at].1, name.to_string()));
                Ok(())
            });)*
        };
    }
    columns!(
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27,
        28, 29, 30, 31, 32, 33, 34, 35, 36, 37
    );
}

/// Values by column.
#[derive(Debug, Default)]
pub struct Row(Vec<(Name, DbValue)>);

impl Row {
    fn put(&mut self, column: Name, value: impl Into<DbValue>) {
        self.0.push((column, value.into()));
    }

    pub fn into_query(self, table: &str) -> Query {
        self.0
            .into_iter()
            .fold(Query::insert(table.to_string()), |query, (name, value)| query.set(name, value))
    }
}

/// A table's name whose end may be a format of time ("homer_%m_%d").
pub fn table_of(name: &[u8], wall_us: u64) -> String {
    match name.contains(&b'%') {
        true => strftime(name, (wall_us / 1_000_000) as i64),
        false => String::from_utf8_lossy(name).into_owned(),
    }
}

/// User, host and port of the URI of an address.
fn parts(addr: Option<NameAddr>) -> (Bytes, Bytes, i64) {
    let uri = addr.and_then(|addr| Uri::parse(&addr.uri).ok());
    uri.map_or_else(Default::default, |uri| of_uri(&uri))
}

fn of_uri(uri: &Uri) -> (Bytes, Bytes, i64) {
    (uri.user.clone().unwrap_or_default(), uri.host.clone(), i64::from(uri.port))
}

fn text(value: Bytes) -> DbValue {
    DbValue::Text(value)
}

fn header(msg: &Message, name: &str) -> Bytes {
    msg.headers_named(name.as_bytes()).next().map(|h| msg.text(h.value())).unwrap_or_default()
}

/// The user of Authorization, if there is one: that of the proxy first.
fn auth_user(msg: &Message) -> Bytes {
    let of = |name: &str| {
        let value = header(msg, name);
        let lower = value.to_ascii_lowercase();
        let at = memchr_str(&lower, b"username=\"")? + b"username=\"".len();
        let end = value[at..].iter().position(|b| *b == b'"')?;
        let user = value.slice(at..at + end);
        Some(user.split(|b| *b == b'@').next().map(|user| value.slice_ref(user)).unwrap_or_default())
    };
    of("Proxy-Authorization").or_else(|| of("Authorization")).unwrap_or_default()
}

fn memchr_str(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// How the message travelled, as IP numbers it; TLS and WebSocket have the numbers that the reference gives them.
fn protocol(transport: Transport) -> i64 {
    match transport {
        Transport::Udp => 17,
        Transport::Tcp => 6,
        Transport::Tls => 22,
        Transport::Sctp => 132,
        Transport::Ws | Transport::Wss => 50,
    }
}

fn family(addr: SocketAddr) -> i64 {
    if addr.is_ipv4() { 2 } else { 10 }
}

/// Where and when a message was caught.
struct Caught {
    at_us: u64,
    source: Option<SocketAddr>,
    target: Option<SocketAddr>,
    protocol: i64,
    family: i64,
    node: String,
}

fn caught(module: &SipCapture, wall_us: u64, packet: &Received) -> Caught {
    let source = packet.source();
    let node = match packet.chunk(kind::AGENT) {
        Some(_) => format!("{}:{}", module.node, packet.number(kind::AGENT)),
        None => module.node.clone(),
    };
    Caught {
        at_us: packet.at_us().unwrap_or(wall_us),
        source,
        target: packet.target(),
        protocol: i64::from(packet.number(kind::PROTOCOL)),
        family: i64::from(packet.number(kind::FAMILY)),
        node,
    }
}

/// The row of the current message.
pub fn message(
    module: &Arc<SipCapture>,
    ctx: &Ctx,
    packet: Option<&Received>,
    homer5: bool,
    custom: [Option<Bytes>; 3],
) -> Row {
    let msg = ctx.state.msg.clone();
    let path = ctx.state.source;
    let own = Caught {
        at_us: ctx.core.wall_us,
        source: Some(path.remote),
        target: Some(crate::tracer::own_address(ctx, &path)),
        protocol: protocol(path.transport),
        family: family(path.remote),
        node: module.node.clone(),
    };
    let caught = packet.map_or(own, |packet| caught(module, ctx.core.wall_us, packet));
    let correlation =
        packet.filter(|packet| packet.version == crate::hep::Version::Three).and_then(|packet| {
            let kind = if homer5 { kind::CORRELATION } else { kind::EXTRA_CORRELATION };
            packet.chunks.iter().find(|chunk| chunk.kind == kind).map(|chunk| chunk.data.clone())
        });
    let names = &module.columns;
    let mut row = Row::default();
    row.put(names.name("date"), DbValue::Time((caught.at_us / 1_000_000) as i64));
    row.put(names.name("micro_ts"), caught.at_us as i64);
    about(&mut row, names, &msg);
    row.put(names.name("source_ip"), ip(caught.source));
    row.put(names.name("source_port"), port(caught.source));
    row.put(names.name("destination_ip"), ip(caught.target));
    row.put(names.name("destination_port"), port(caught.target));
    row.put(names.name("proto"), caught.protocol);
    row.put(names.name("family"), caught.family);
    row.put(names.name("type"), if msg.is_request() { 1 } else { 2 });
    row.put(names.name("node"), caught.node);
    row.put("correlation_id".into(), text(correlation.unwrap_or_default()));
    row.put(names.name("msg"), text(packet.map_or_else(|| msg.buf().clone(), Received::payload)));
    for (name, value) in ["custom_field1", "custom_field2", "custom_field3"].into_iter().zip(custom) {
        row.put(name.into(), text(value.unwrap_or_default()));
    }
    row
}

/// What a message says itself.
fn about(row: &mut Row, names: &Columns, msg: &Message) {
    let ruri = if msg.is_request() { msg.request_uri() } else { Bytes::new() };
    let (ruri_user, ruri_host, _) = Uri::parse(&ruri).map_or_else(|_| Default::default(), |uri| of_uri(&uri));
    let method = if msg.is_request() { msg.method_text() } else { msg.status().to_string().into() };
    let reason = if msg.is_request() { Bytes::new() } else { msg.reason() };
    let (from_user, from_host, _) = parts(msg.from());
    let (to_user, to_host, _) = parts(msg.to());
    let asserted = ["P-Asserted-Identity", "P-Preferred-Identity"].into_iter().map(|name| header(msg, name));
    let asserted =
        asserted.into_iter().find(|value| !value.is_empty()).and_then(|value| NameAddr::parse(&value));
    let contact = msg.addresses(HeaderName::Contact).ok().and_then(|list| list.into_iter().next());
    let (contact_user, contact_ip, contact_port) = parts(contact);
    let origin = String::from_utf8_lossy(&header(msg, "X-OIP")).into_owned();
    let (origin_ip, origin_port) = origin.split_once(':').unwrap_or((&origin, ""));
    let statistics = ["X-RTP-Stat", "P-RTP-Stat"]
        .into_iter()
        .map(|name| header(msg, name))
        .find(|value| !value.is_empty());
    let via = msg.header(HeaderName::Via).map(|h| msg.text(h.value())).unwrap_or_default();
    let branch = msg.via().and_then(|via| via.branch()).unwrap_or_default();
    let authorization = ["Proxy-Authorization", "Authorization"].into_iter().map(|name| header(msg, name));
    let authorization = authorization.into_iter().find(|value| !value.is_empty()).unwrap_or_default();
    let texts: [(&'static str, Bytes); 24] = [
        ("method", method),
        ("reply_reason", reason),
        ("ruri", ruri),
        ("ruri_user", ruri_user),
        ("ruri_domain", ruri_host),
        ("from_user", from_user),
        ("from_domain", from_host),
        ("from_tag", msg.from_tag().unwrap_or_default()),
        ("to_user", to_user),
        ("to_domain", to_host),
        ("to_tag", msg.to_tag().unwrap_or_default()),
        ("pid_user", parts(asserted).0),
        ("contact_user", contact_user),
        ("auth_user", auth_user(msg)),
        ("callid", msg.call_id().unwrap_or_default()),
        ("callid_aleg", header(msg, "X-CID")),
        ("via_1", via),
        ("via_1_branch", branch),
        ("cseq", msg.value(HeaderName::CSeq).unwrap_or_default()),
        ("reason", header(msg, "Reason")),
        ("content_type", msg.value(HeaderName::ContentType).unwrap_or_default()),
        ("auth", authorization),
        ("user_agent", header(msg, "User-Agent")),
        ("rtp_stat", statistics.unwrap_or_default()),
    ];
    for (name, value) in texts {
        row.put(names.name(name), text(value));
    }
    row.put(names.name("contact_ip"), text(contact_ip));
    row.put(names.name("contact_port"), contact_port);
    row.put(names.name("originator_ip"), origin_ip.to_string());
    row.put(names.name("originator_port"), origin_port.trim().parse::<i64>().unwrap_or(0));
}

fn ip(addr: Option<SocketAddr>) -> String {
    addr.map(|addr| addr.ip().to_string()).unwrap_or_default()
}

fn port(addr: Option<SocketAddr>) -> i64 {
    addr.map_or(0, |addr| addr.port().into())
}

/// The row of a report (RTCP and whatever else agents send), in the layout of Homer 5 or 6.
pub fn report(
    module: &Arc<SipCapture>,
    wall_us: u64,
    packet: &Received,
    correlation: &Bytes,
    kind_of: Option<i64>,
    homer5: bool,
) -> Row {
    let caught = caught(module, wall_us, packet);
    let six = packet.version == crate::hep::Version::Three && !homer5;
    let name = |five: &'static str, of_six: &'static str| {
        if six { of_six.into() } else { module.columns.name(five) }
    };
    let payload_kind = kind_of.unwrap_or_else(|| i64::from(packet.number(kind::PAYLOAD_KIND)));
    let payload = packet.payload();
    let mut row = Row::default();
    row.put(name("date", "tss"), DbValue::Time((caught.at_us / 1_000_000) as i64));
    let micros = if six { caught.at_us % 1_000_000 } else { caught.at_us };
    row.put(name("micro_ts", "tsu"), micros as i64);
    let correlated = if six { "transaction_id".into() } else { "correlation_id".into() };
    row.put(correlated, text(correlation.clone()));
    row.put(name("source_ip", "source_ip"), ip(caught.source));
    row.put(name("source_port", "source_port"), port(caught.source));
    row.put(name("destination_ip", "destination_ip"), ip(caught.target));
    row.put(name("destination_port", "destination_port"), port(caught.target));
    row.put(name("proto", "proto"), caught.protocol);
    row.put(name("family", "family"), caught.family);
    row.put(name("type", "type"), payload_kind);
    row.put(name("node", "node"), if six { module.node.clone() } else { caught.node });
    row.put(name("msg", "data"), text(payload.clone()));
    if six {
        let json: serde_json::Value = serde_json::from_slice(&payload).unwrap_or_default();
        let event = json["Event"].as_str().unwrap_or_default().to_string();
        let extra = packet.chunks.iter().find(|chunk| chunk.kind == kind::EXTRA_CORRELATION);
        row.put("payload_len".into(), payload.len() as i64);
        row.put("correlation_id".into(), text(extra.map(|chunk| chunk.data.clone()).unwrap_or_default()));
        row.put("capture_ip".into(), packet.own.ip().to_string());
        row.put("capt_id".into(), i64::from(packet.number(kind::AGENT)));
        row.put("event".into(), event);
    }
    row
}
