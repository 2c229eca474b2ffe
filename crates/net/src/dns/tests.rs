use super::records::{Failure, FoundRecords as Records};
use super::rfc3263::{self, resolve};
use super::*;
use sip::Transport;
use std::collections::HashMap;

/// A zone as lines: `name KIND fields... [ttl]`. Names without a line do not exist; `name KIND !` fails.
struct Zone(HashMap<(String, RecordKind), Vec<Record>>);

const ZONE: &str = "
    plain.example A 192.0.2.1
    two.example A 192.0.2.1
    two.example A 192.0.2.2
    six.example AAAA 2001:db8::6
    srv.example A 192.0.2.99
    _sip._udp.srv.example SRV 20 0 5070 two.example
    _sip._udp.srv.example SRV 10 0 5080 plain.example
    _sip._tcp.tcp.example SRV 10 0 5090 plain.example
    _sips._tcp.srv.example SRV 10 0 5061 plain.example
    none.example A 192.0.2.3
    _sip._udp.none.example SRV 0 0 0 .
    naptr.example NAPTR 20 10 s SIP+D2U _sip._udp.srv.example
    naptr.example NAPTR 10 20 s SIPS+D2T _sips._tcp.srv.example
    naptr.example NAPTR 10 10 s SIP+D2T _sip._tcp.tcp.example
    naptr.example NAPTR 5 10 s SIP+D2S _sip._sctp.srv.example
    naptr.example NAPTR 1 10 u E2U+sip _sip._udp.none.example
    alien.example NAPTR 1 10 s SIP+D2S _sip._sctp.srv.example
    dead.example NAPTR !
    halfdead.example A 192.0.2.1
    _sip._udp.halfdead.example SRV !
    ghost.example NAPTR 1 10 s SIP+D2U _sip._udp.ghost.example
    _sip._udp.ghost.example SRV 1 1 5060 missing.example
";

impl Zone {
    fn parse(text: &str) -> Zone {
        let mut zone: HashMap<_, Vec<Record>> = HashMap::new();
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            let w: Vec<&str> = line.split_whitespace().collect();
            let number = |i: usize| w[i].parse().unwrap();
            let name = |i: usize| w[i].trim_end_matches('.').to_owned();
            let (kind, record) = match w[1] {
                _ if w[2] == "!" => (kind(w[1]), None),
                "A" | "AAAA" => (kind(w[1]), Some(Record::Address(w[2].parse().unwrap()))),
                "SRV" => {
                    let (priority, weight, port) = (number(2), number(3), number(4));
                    (RecordKind::Srv, Some(Record::Srv { priority, weight, port, target: name(5) }))
                }
                "NAPTR" => {
                    let (order, preference, flags) = (number(2), number(3), w[4].to_owned());
                    let (service, regexp, replacement) = (w[5].to_owned(), String::new(), name(6));
                    (
                        RecordKind::Naptr,
                        Some(Record::Naptr { order, preference, flags, service, regexp, replacement }),
                    )
                }
                other => panic!("{other}"),
            };
            zone.entry((w[0].to_owned(), kind)).or_default().extend(record);
        }
        Zone(zone)
    }
}

fn kind(text: &str) -> RecordKind {
    match text {
        "A" => RecordKind::A,
        "AAAA" => RecordKind::Aaaa,
        "SRV" => RecordKind::Srv,
        _ => RecordKind::Naptr,
    }
}

impl rfc3263::Records for Zone {
    async fn find(&self, name: &str, kind: RecordKind) -> Result<Records, Failure> {
        match self.0.get(&(name.to_owned(), kind)) {
            None => Err(Failure::Missing(None)),
            Some(records) if records.is_empty() => Err(Failure::Unavailable),
            Some(records) => Ok(Records { records: records.clone(), ttl: Duration::from_secs(60) }),
        }
    }
}

/// `sip:` or `sips:` with host, port, `;transport=`.
fn query(text: &str) -> Query {
    let (scheme, rest) = text.split_once(':').unwrap();
    let (host, transport) = rest.split_once(";transport=").map_or((rest, None), |(h, t)| (h, Some(t)));
    let (host, port) = host.rsplit_once(':').filter(|(_, p)| p.parse::<u16>().is_ok()).unwrap_or((host, "0"));
    Query {
        host: host.to_owned(),
        port: port.parse().unwrap(),
        transport: transport.map(|t| match t {
            "udp" => Transport::Udp,
            "tcp" => Transport::Tcp,
            "tls" => Transport::Tls,
            "ws" => Transport::Ws,
            _ => panic!("{t}"),
        }),
        security: if scheme == "sips" { Security::Sips } else { Security::Sip },
    }
}

fn hops(list: &[Hop]) -> String {
    list.iter().map(|h| format!("{:?} {}", h.transport, h.addr).to_lowercase()).collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn selection() {
    let zone = Zone::parse(ZONE);
    let options = DnsOptions {
        transports: vec![Transport::Udp, Transport::Tcp, Transport::Tls],
        families: Families::V4ThenV6,
        ..DnsOptions::default()
    };
    for (uri, expected) in [
        ("sip:plain.example", "udp 192.0.2.1:5060"),
        ("sip:two.example:5099", "udp 192.0.2.1:5099, udp 192.0.2.2:5099"),
        ("sip:six.example", "udp [2001:db8::6]:5060"),
        ("sip:plain.example;transport=tcp", "tcp 192.0.2.1:5060"),
        ("sip:plain.example;transport=ws", "ws 192.0.2.1:80"),
        ("sips:plain.example", "tls 192.0.2.1:5061"),
        ("sips:plain.example;transport=tcp", "tls 192.0.2.1:5061"),
        ("sip:srv.example", "udp 192.0.2.1:5080, udp 192.0.2.1:5070, udp 192.0.2.2:5070"),
        ("sip:srv.example:5060", "udp 192.0.2.99:5060"),
        ("sip:srv.example;transport=tcp", "tcp 192.0.2.99:5060"),
        ("sip:tcp.example", "tcp 192.0.2.1:5090"),
        ("sips:srv.example", "tls 192.0.2.1:5061"),
        ("sip:none.example", "udp 192.0.2.3:5060"),
        (
            "sip:naptr.example",
            "tcp 192.0.2.1:5090, tls 192.0.2.1:5061, udp 192.0.2.1:5080, udp 192.0.2.1:5070, udp 192.0.2.2:5070",
        ),
        ("sips:naptr.example", "tls 192.0.2.1:5061"),
        ("sip:alien.example", "the name asks for a transport that this server does not listen on"),
        ("sip:missing.example", "the name does not exist or has no address"),
        ("sip:ghost.example", "the name does not exist or has no address"),
        ("sip:dead.example", "the name servers do not answer"),
        ("sip:halfdead.example", "the name servers do not answer"),
    ] {
        let (answer, _) = resolve(&query(uri), &options, &zone).await;
        let got = answer.map_or_else(|e| e.to_string(), |a| hops(&a.order(|_| 0)));
        assert_eq!(got, expected, "{uri}");
    }
}

#[tokio::test]
async fn weights_share_the_load() {
    let zone = Zone::parse(
        "a.example A 192.0.2.1\nb.example A 192.0.2.2
         _sip._udp.w.example SRV 1 75 5060 a.example\n_sip._udp.w.example SRV 1 25 5060 b.example",
    );
    let resolver = Resolver::new(DnsOptions::default(), DnsCache::default());
    let (answer, ttl) = resolve(&query("sip:w.example"), &resolver.0.options, &zone).await;
    let answer = answer.unwrap();
    assert_eq!(ttl, Duration::from_secs(30), "the missing NAPTR record is asked for again sooner");
    let first =
        (0..1000).filter(|_| resolver.0.order(&answer)[0].addr.to_string() == "192.0.2.1:5060").count();
    assert!((650..850).contains(&first), "{first} of 1000");
    assert_eq!(resolver.0.order(&answer).len(), 2);
}

#[test]
fn numbers_need_no_lookup() {
    let resolver = Resolver::new(DnsOptions::default(), DnsCache::default());
    for (uri, expected) in [
        ("sip:192.0.2.7", "udp 192.0.2.7:5060"),
        ("sip:192.0.2.7:5080;transport=tcp", "tcp 192.0.2.7:5080"),
        ("sips:192.0.2.7", "tls 192.0.2.7:5061"),
        ("sip:[2001:db8::1]:5070", "udp [2001:db8::1]:5070"),
        ("sip:[2001:db8::1]", "udp [2001:db8::1]:5060"),
    ] {
        match resolver.lookup(query(uri)) {
            Lookup::Now(Ok(list)) => assert_eq!(hops(&list), expected, "{uri}"),
            _ => panic!("{uri}"),
        }
    }
}

/// A name server on loopback that knows one A record and counts its questions.
async fn name_server(socket: tokio::net::UdpSocket, asked: Rc<Cell<u32>>) {
    use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
    use hickory_resolver::proto::rr::{self, RData, RecordType};
    let mut buf = [0; 2048];
    while let Ok((n, peer)) = socket.recv_from(&mut buf).await {
        asked.set(asked.get() + 1);
        let mut message = Message::from_vec(&buf[..n]).unwrap();
        message.metadata.message_type = MessageType::Response;
        let question = message.queries[0].clone();
        if question.query_type() == RecordType::A && question.name().to_ascii() == "real.example." {
            let data = RData::A(rr::rdata::A::new(192, 0, 2, 55));
            message.add_answers([rr::Record::from_rdata(question.name().clone(), 300, data)]);
        } else {
            message.metadata.response_code = ResponseCode::NXDomain;
        }
        socket.send_to(&message.to_vec().unwrap(), peer).await.unwrap();
    }
}

#[tokio::test]
async fn a_real_server_is_asked_once() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let (address, asked) = (socket.local_addr().unwrap(), Rc::new(Cell::new(0)));
            tokio::task::spawn_local(name_server(socket, asked.clone()));
            let options = DnsOptions { naptr: Naptr::Skip, ..DnsOptions::default() };
            let servers = NameServers::at(address, &options).unwrap();
            let resolver = Resolver::with_servers(options, DnsCache::default(), servers);
            let lookup = |uri: &str| match resolver.lookup(query(uri)) {
                Lookup::Later(work) => work,
                Lookup::Now(_) => panic!("{uri} is known already"),
            };
            let (a, b) = tokio::join!(lookup("sip:real.example:5060"), lookup("sip:Real.example.:5060"));
            assert_eq!(
                (hops(&a.unwrap()).as_str(), hops(&b.unwrap()).as_str()),
                ("udp 192.0.2.55:5060", "udp 192.0.2.55:5060")
            );
            assert_eq!(asked.get(), 1);
            let Lookup::Now(Ok(kept)) = resolver.lookup(query("sip:real.example:5060")) else {
                panic!("not kept")
            };
            assert_eq!(hops(&kept), "udp 192.0.2.55:5060");
            assert_eq!(lookup("sip:unreal.example:5060").await, Err(ResolveError::NoAddress));
            let Lookup::Now(Err(ResolveError::NoAddress)) = resolver.lookup(query("sip:unreal.example:5060"))
            else {
                panic!("the missing name is not kept")
            };
        })
        .await;
}
