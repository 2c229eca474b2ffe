//! The pure parts, each so many times: `instructions PART ROUNDS`. `tests/instructions` counts under valgrind what one round
//! takes, and says when it has grown. Without I/O, clocks and chance, so that a count means something.

mod statements;

use bytes::Bytes;
use sip::{Anchor, Edits, Message, PrintTarget, SocketNames, Transport};
use std::hint::black_box;
use transaction::{Config, Instant, Origin, Path, Transactions};

const INVITE: &str = "INVITE sip:bob@example.com SIP/2.0\r\n\
    Via: SIP/2.0/UDP 192.0.2.7:5060;rport;branch=z9hG4bK776asdhds\r\nMax-Forwards: 70\r\n\
    From: \"Alice\" <sip:alice@example.com>;tag=1928301774\r\nTo: <sip:bob@example.com>\r\n\
    Contact: <sip:alice@192.0.2.7:5060;transport=udp>\r\nCall-ID: 3848276298220188511@192.0.2.7\r\nCSeq: 314159 INVITE\r\n\
    Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, SUBSCRIBE, NOTIFY, INFO, PUBLISH, MESSAGE\r\n\
    Supported: replaces, timer\r\nUser-Agent: a telephone\r\nContent-Type: application/sdp\r\nContent-Length: 129\r\n\r\n\
    v=0\r\no=alice 53655765 2353687637 IN IP4 192.0.2.7\r\ns=-\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0\r\n\
    a=rtpmap:0 PCMU/8000\r\n";

fn message(text: &str) -> Message {
    Message::parse(Bytes::copy_from_slice(text.as_bytes())).expect("a correct message")
}

fn path(last: u8) -> Path {
    let remote = ([192, 0, 2, last], 5060).into();
    Path { socket: 0, transport: Transport::Udp, remote, local: 0, connection: 0 }
}

fn parse(rounds: u64) {
    let bytes = Bytes::copy_from_slice(INVITE.as_bytes());
    for _ in 0..rounds {
        let msg = Message::parse(black_box(bytes.clone())).expect("a correct message");
        black_box((msg.to_tag(), msg.cseq_slices(), msg.via().is_some()));
    }
}

fn edit(rounds: u64) {
    let msg = message(INVITE);
    for _ in 0..rounds {
        let mut edits = Edits::default();
        edits.insert(Anchor::Top, Bytes::from_static(b"Record-Route: <sip:192.0.2.1;lr>\r\n"));
        for header in msg.headers_named(b"Supported") {
            edits.delete(header.whole());
        }
        edits.insert(Anchor::End, Bytes::from_static(b"X-Seen: yes\r\n"));
        black_box(edits);
    }
}

fn print(rounds: u64) {
    let msg = message(INVITE);
    let mut edits = Edits::default();
    edits.insert(Anchor::Top, Bytes::from_static(b"Record-Route: <sip:192.0.2.1;lr>\r\n"));
    let names = SocketNames { host: Bytes::from_static(b"192.0.2.1"), port: 5060, transport: "UDP" };
    for _ in 0..rounds {
        let target = PrintTarget {
            uri: b"sip:bob@192.0.2.9:5060",
            via: b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKnew\r\n",
            via_params: b";received=192.0.2.7;rport=5060",
            extra: b"",
            send: &names,
            received: &names,
        };
        black_box(sip::print_request(black_box(&msg), &[&edits], &target));
    }
}

/// An INVITE relayed, 180 and 200 come back, and its time is over.
fn transaction(rounds: u64) {
    let (invite, mut txns) = (message(INVITE), Transactions::<(), ()>::new(Config::default(), 0, 42));
    let mut now = Instant(0);
    let (sent, up) =
        (Bytes::from_static(b"INVITE sip:bob@192.0.2.9 SIP/2.0\r\n\r\n"), Bytes::from_static(b"reply"));
    for _ in 0..rounds {
        let id = txns.create(now, &invite, path(7), ()).expect("there is room");
        let branch = txns.open_branch(id, ()).expect("it is open");
        let via = txns.via_branch(id, branch);
        txns.send(now, id, branch, sent.clone(), path(9));
        for status in [180, 200] {
            let reply = format!(
                "SIP/2.0 {status} OK\r\nVia: SIP/2.0/UDP 192.0.2.1;branch={}\r\nCSeq: 314159 INVITE\r\n\r\n",
                String::from_utf8_lossy(&via)
            );
            let reply = message(&reply);
            assert_eq!(txns.match_reply(&reply), Some((id, branch)));
            txns.receive(now, id, branch, &reply);
            txns.decide(now, id, branch, status);
            txns.reply(now, id, status, up.clone(), Origin::Relayed);
        }
        now = now.after(60_000);
        txns.on_timer(now, 32);
        while let Some(output) = txns.poll_output() {
            black_box(output);
        }
    }
    txns.on_timer(now.after(60_000), 32);
    assert!(txns.is_empty());
}

fn main() -> Result<(), String> {
    let mut words = std::env::args().skip(1);
    let (part, rounds) =
        (words.next().unwrap_or_default(), words.next().and_then(|n| n.parse().ok()).unwrap_or(1));
    match part.as_str() {
        "parse" => parse(rounds),
        "edit" => edit(rounds),
        "print" => print(rounds),
        "statement" => statements::run(rounds),
        "transaction" => transaction(rounds),
        _ => return Err("usage: instructions parse|edit|print|statement|transaction ROUNDS".into()),
    }
    Ok(())
}
