//! Which transaction a message belongs to (RFC 3261 §17.1.3, §17.2.3).

mod driver;

use driver::{answer, message, path, request};
use sip::{Message, Transport};
use transaction::*;

fn txns(config: Config) -> Transactions<(), ()> {
    Transactions::new(config, 7, 1)
}

fn create(txns: &mut Transactions<(), ()>, request: &Message) -> TxnId {
    txns.create(Instant(0), request, path(5060, Transport::Udp), ()).expect("room")
}

#[test]
fn requests_with_the_cookie() {
    let mut txns = txns(Config::default());
    let invite = create(&mut txns, &request("INVITE", "z9hG4bKa", 1));
    let options = create(&mut txns, &request("OPTIONS", "z9hG4bKo", 2));
    let own = create(&mut txns, &request("FOO", "z9hG4bKf", 3));
    for (method, branch, cseq, expected) in [
        ("INVITE", "z9hG4bKa", 1, Some((invite, Relation::Retransmission))),
        ("CANCEL", "z9hG4bKa", 1, Some((invite, Relation::Cancel))),
        ("CANCEL", "z9hG4bKo", 2, Some((options, Relation::Cancel))),
        ("OPTIONS", "z9hG4bKo", 2, Some((options, Relation::Retransmission))),
        ("FOO", "z9hG4bKf", 3, Some((own, Relation::Retransmission))),
        ("BAR", "z9hG4bKf", 3, None),
        ("OPTIONS", "z9hG4bKa", 1, None),
        ("INVITE", "z9hG4bKb", 1, None),
        ("INVITE", "z9hG4bKa", 2, None),
        ("ACK", "z9hG4bKa", 1, None),
    ] {
        assert_eq!(txns.find(&request(method, branch, cseq)), expected, "{method} {branch} {cseq}");
    }
    assert_eq!(txns.find_call(b"c", b"1"), Some(invite));
    assert_eq!(txns.find_call(b"c", b"2"), None, "only INVITEs");
    // Its own CANCEL transaction comes before the one that it cancels.
    let cancel = create(&mut txns, &request("CANCEL", "z9hG4bKa", 1));
    assert_eq!(txns.find(&request("CANCEL", "z9hG4bKa", 1)), Some((cancel, Relation::Retransmission)));
}

#[test]
fn host_and_port_of_the_sender_count() {
    let mut txns = txns(Config::default());
    let text = |via: &str| {
        message(&format!(
            "INVITE sip:b@h SIP/2.0\nVia: SIP/2.0/UDP {via};branch=z9hG4bKa\nCall-ID: c\nCSeq: 1 INVITE\n\n"
        ))
    };
    let id = create(&mut txns, &text("Up.Example"));
    assert_eq!(txns.find(&text("up.example")), Some((id, Relation::Retransmission)));
    assert_eq!(txns.find(&text("up.example:5060")), None, "sent-by is compared as written");
    assert_eq!(txns.find(&text("other")), None);
}

#[test]
fn requests_without_the_cookie() {
    let old = |method: &str, uri: &str, via: &str| {
        message(&format!(
            "{method} {uri} SIP/2.0\nVia: SIP/2.0/UDP up{via}\nFrom: <sip:a@h>;tag=a\nTo: <sip:b@h>\nCall-ID: c\n\
             CSeq: 1 {method}\n\n"
        ))
    };
    for via in ["", ";branch=1"] {
        let mut strict = txns(Config::default());
        let id = create(&mut strict, &old("INVITE", "sip:b@h", via));
        assert_eq!(strict.find(&old("INVITE", "sip:b@h", via)), Some((id, Relation::Retransmission)));
        assert_eq!(strict.find(&old("CANCEL", "sip:b@h", via)), Some((id, Relation::Cancel)));
        assert_eq!(strict.find(&old("CANCEL", "sip:c@h", via)), None);
        assert_eq!(strict.find(&old("CANCEL", "sip:b@h", ";branch=2")), None);
        let config = Config { match_uri: false, match_via: false, ..Config::default() };
        let mut loose = txns(config);
        let id = create(&mut loose, &old("INVITE", "sip:b@h", via));
        assert_eq!(loose.find(&old("CANCEL", "sip:c@h", ";branch=2")), Some((id, Relation::Cancel)));
    }
}

#[test]
fn incomplete_requests_belong_to_nothing() {
    let mut txns = txns(Config::default());
    for text in [
        "INVITE sip:b@h SIP/2.0\nCall-ID: c\nCSeq: 1 INVITE\n\n",
        "INVITE sip:b@h SIP/2.0\nVia: SIP/2.0/UDP up;branch=z9hG4bKa\nCSeq: 1 INVITE\n\n",
        "INVITE sip:b@h SIP/2.0\nVia: SIP/2.0/UDP up;branch=z9hG4bKa\nCall-ID: c\n\n",
    ] {
        let request = message(text);
        create(&mut txns, &request);
        assert_eq!(txns.find(&request), None, "{text}");
    }
}

#[test]
fn replies() {
    let mut txns = txns(Config::default());
    let id = create(&mut txns, &request("INVITE", "z9hG4bKa", 1));
    let branch = txns.open_branch(id, ()).expect("open");
    let via = txns.via_branch(id, branch);
    let sent = request("INVITE", std::str::from_utf8(&via).expect("ASCII"), 1);
    let early = answer(&sent, 180, false);
    assert_eq!(txns.match_reply(&early), None, "not sent yet");
    assert!(txns.send(Instant(0), id, branch, sent.buf().clone(), path(6000, Transport::Udp)));
    assert_eq!(txns.match_reply(&early), Some((id, branch)));
    assert_eq!(txns.match_reply(&answer(&sent, 200, true)), None, "no CANCEL was sent");
    let other = request("OPTIONS", std::str::from_utf8(&via).expect("ASCII"), 1);
    assert_eq!(txns.match_reply(&answer(&other, 200, false)), None, "another method");
    let cookie = Cookie::parse(&via).expect("ours");
    let changed = [
        Cookie { worker: 8, ..cookie },
        Cookie { branch: 1, ..cookie },
        Cookie { txn: TxnId { index: 5, ..id }, ..cookie },
        Cookie { txn: TxnId { generation: id.generation ^ 1, ..id }, ..cookie },
    ];
    for wrong in changed {
        let text = wrong.text();
        let sent = request("INVITE", std::str::from_utf8(&text).expect("ASCII"), 1);
        assert_eq!(txns.match_reply(&answer(&sent, 200, false)), None, "{wrong:?}");
    }
    txns.remove(id);
    assert_eq!(txns.match_reply(&early), None);
    assert_eq!((txns.len(), txns.timers()), (0, 0));
}

#[test]
fn slots_are_used_again_under_another_name() {
    let mut txns = txns(Config::default());
    let first = create(&mut txns, &request("INVITE", "z9hG4bKa", 1));
    txns.remove(first);
    let second = create(&mut txns, &request("INVITE", "z9hG4bKa", 1));
    assert_eq!(first.index, second.index);
    assert_ne!(first.generation, second.generation);
    assert!(txns.get(first).is_none() && txns.get(second).is_some());
    assert_eq!(txns.reply(Instant(0), first, 200, "x".into(), Origin::Here), Replied::Late);
}

/// A crowd leaves no room behind, and its ids find nothing among those that come after it.
#[test]
fn a_crowd_leaves_nothing_behind() {
    let mut txns: Transactions<u32, ()> = Transactions::new(Config::default(), 0, 7);
    let crowd = |txns: &mut Transactions<u32, ()>, at: u64| -> Vec<(Message, TxnId)> {
        let made = (0..3000).map(|n| {
            let request = request("OPTIONS", &format!("z9hG4bK{n}"), 1);
            let id = txns.create(Instant(at), &request, path(5060, Transport::Udp), n).expect("room");
            txns.reply(Instant(at), id, 200, "SIP/2.0 200 OK\r\n\r\n".into(), Origin::Here);
            (request, id)
        });
        made.collect()
    };
    let first = crowd(&mut txns, 0);
    let mut at = 0;
    while let Some(next) = txns.next_deadline() {
        at = at.max(next.0);
        txns.on_timer(Instant(at), usize::MAX);
        while txns.poll_output().is_some() {}
    }
    assert!(txns.is_empty() && txns.timers() == 0);
    txns.on_timer(Instant(at), usize::MAX);
    let second = crowd(&mut txns, at);
    for ((request, old), (_, new)) in first.iter().zip(&second) {
        assert_eq!(txns.get(*old), None);
        assert_eq!(txns.find(request).map(|(id, _)| id), Some(*new));
    }
}
