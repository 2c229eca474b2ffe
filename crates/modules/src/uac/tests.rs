//! Whole calls through replaced URIs and challenges.

use crate::testing::{Sent, Server};
use script::ast::Dialect;
use sip::digest::{Algorithm, Credentials, ha1};

fn server(params: &str, routes: &str) -> Server {
    let config = format!(
        "socket=udp:127.0.0.1:5060\nloadmodule \"tm.so\"\nloadmodule \"sl.so\"\nloadmodule \"rr.so\"\nloadmodule \"signaling.so\"\n\
         loadmodule \"uac_auth.so\"\nloadmodule \"uac.so\"\n{params}\n{routes}"
    );
    Server::new(&config, Dialect::V4)
}

const HEAD: &str = "Via: SIP/2.0/UDP 127.0.0.2:5060;branch=z9hG4bK1\nMax-Forwards: 70\nFrom: \"Alice\" <sip:alice@example.com>;tag=a1\n\
     To: <sip:bob@example.com>\nCall-ID: c1\nCSeq: 5 INVITE\nContact: <sip:alice@127.0.0.2>\n";

/// The answer of the called party to a request.
fn reply(request: &Sent, status: &str, more: &str) -> String {
    let head = request.text.split("\r\n\r\n").next().unwrap_or_default();
    let kept = ["Via", "Record-Route", "From", "Call-ID", "CSeq"];
    let lines: Vec<&str> =
        head.lines().skip(1).filter(|l| kept.iter().any(|k| l.starts_with(&format!("{k}:")))).collect();
    let to = head.lines().find(|l| l.starts_with("To:")).expect("To");
    format!("SIP/2.0 {status}\n{}\n{to};tag=b1\n{more}Content-Length: 0\n\n", lines.join("\n"))
}

fn line(sent: &[Sent], start: &str, header: &str) -> String {
    let message = sent.iter().find(|m| m.text.starts_with(start)).unwrap_or_else(|| panic!("no {start}"));
    let found = message.text.lines().find(|l| l.starts_with(&format!("{header}:")));
    found.unwrap_or_else(|| panic!("no {header} in {}", message.text)).to_string()
}

#[test]
fn uris_are_restored_in_replies_and_both_ways_in_the_dialog() {
    let mut server = server(
        "",
        r#"route { if ($tt) { loose_route(); t_relay(); exit; }
                   uac_replace_from("Anon", "sip:anon@example.org"); uac_replace_to( , "sip:other@example.org");
                   record_route(); t_relay(); }"#,
    );
    let sent = server.receive(
        "127.0.0.2:5060",
        &format!("INVITE sip:bob@127.0.0.3:5070 SIP/2.0\n{HEAD}Content-Length: 0\n\n"),
    );
    assert_eq!(line(&sent, "INVITE", "From"), "From: Anon <sip:anon@example.org>;tag=a1");
    assert_eq!(line(&sent, "INVITE", "To"), "To: <sip:other@example.org>");
    let route = line(&sent, "INVITE", "Record-Route").replace("Record-Route", "Route");
    let invite = sent.iter().find(|m| m.text.starts_with("INVITE")).expect("forwarded");
    let sent =
        server.receive("127.0.0.3:5070", &reply(invite, "200 OK", "Contact: <sip:bob@127.0.0.3:5070>\n"));
    assert_eq!(line(&sent, "SIP/2.0 200", "From"), "From: \"Alice\" <sip:alice@example.com>;tag=a1");
    assert_eq!(line(&sent, "SIP/2.0 200", "To"), "To: <sip:bob@example.com>;tag=b1");
    let down = format!(
        "BYE sip:bob@127.0.0.3:5070 SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.2:5060;branch=z9hG4bK2\n{route}\nFrom: <sip:alice@example.com>;tag=a1\n\
         To: <sip:bob@example.com>;tag=b1\nCall-ID: c1\nCSeq: 6 BYE\nContent-Length: 0\n\n"
    );
    let sent = server.receive("127.0.0.2:5060", &down);
    assert_eq!(line(&sent, "BYE", "From"), "From: <sip:anon@example.org>;tag=a1");
    assert_eq!(line(&sent, "BYE", "To"), "To: <sip:other@example.org>;tag=b1");
    let up = format!(
        "BYE sip:alice@127.0.0.2:5060 SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.3:5070;branch=z9hG4bK3\n{route}\nFrom: <sip:other@example.org>;tag=b1\n\
         To: <sip:anon@example.org>;tag=a1\nCall-ID: c1\nCSeq: 1 BYE\nContent-Length: 0\n\n"
    );
    let sent = server.receive("127.0.0.3:5070", &up);
    assert_eq!(line(&sent, "BYE", "From"), "From: <sip:bob@example.com>;tag=b1");
    assert_eq!(line(&sent, "BYE", "To"), "To: <sip:alice@example.com>;tag=a1");
    let bye = sent.iter().find(|m| m.text.starts_with("BYE")).expect("forwarded");
    let ok = reply(bye, "200 OK", "").replace(";tag=a1;tag=b1", ";tag=a1");
    let sent = server.receive("127.0.0.2:5060", &ok);
    assert_eq!(line(&sent, "SIP/2.0 200", "From"), "From: <sip:other@example.org>;tag=b1");
    assert_eq!(line(&sent, "SIP/2.0 200", "To"), "To: <sip:anon@example.org>;tag=a1");
}

const AUTH: &str = r#"route { if ($tt) { loose_route(); t_relay(); exit; } record_route(); t_on_failure("f"); t_relay(); }
    failure_route[f] { if (t_check_status("401|407") && uac_auth()) { t_on_failure("f"); t_relay(); } }"#;

fn check_answer(text: &str, header: &str, algorithm: Algorithm) {
    let value = text.strip_prefix(&format!("{header}: ")).expect(header).trim().to_string();
    let credentials = Credentials::parse(&value.into()).expect("credentials");
    assert_eq!(credentials.algorithm.unwrap_or(Algorithm::Md5), algorithm);
    assert_eq!(&credentials.uri[..], b"sip:bob@127.0.0.3:5070");
    let ha1 = ha1(algorithm, b"me", b"there", b"secret");
    assert!(credentials.verify(&ha1, b"INVITE", b""));
}

#[test]
fn challenges_are_answered_and_cseq_grows() {
    let mut server = server(r#"modparam("uac_auth", "credential", "me:there:secret")"#, AUTH);
    let sent = server.receive(
        "127.0.0.2:5060",
        &format!("INVITE sip:bob@127.0.0.3:5070 SIP/2.0\n{HEAD}Content-Length: 0\n\n"),
    );
    let mut invite = sent.into_iter().find(|m| m.text.starts_with("INVITE")).expect("forwarded");
    for (status, challenge, header, algorithm, cseq) in [
        (
            "407 No",
            "Proxy-Authenticate: Digest realm=\"there\", nonce=\"n1\"\n",
            "Proxy-Authorization",
            Algorithm::Md5,
            6,
        ),
        (
            "401 No",
            "WWW-Authenticate: Digest realm=\"there\", nonce=\"n2\", algorithm=SHA-256, qop=\"auth\"\n",
            "Authorization",
            Algorithm::Sha256,
            7,
        ),
    ] {
        let sent = server.receive("127.0.0.3:5070", &reply(&invite, status, challenge));
        check_answer(&line(&sent, "INVITE", header), header, algorithm);
        assert_eq!(line(&sent, "INVITE", "CSeq"), format!("CSeq: {cseq} INVITE"));
        assert!(line(&sent, "INVITE", "Record-Route").ends_with(&format!(";aci={}>", cseq - 5)));
        invite = sent.into_iter().find(|m| m.text.starts_with("INVITE")).expect("sent again");
    }
    let route =
        line(std::slice::from_ref(&invite), "INVITE", "Record-Route").replace("Record-Route", "Route");
    let sent =
        server.receive("127.0.0.3:5070", &reply(&invite, "200 OK", "Contact: <sip:bob@127.0.0.3:5070>\n"));
    assert_eq!(line(&sent, "SIP/2.0 200", "CSeq"), "CSeq: 5 INVITE");
    let ack = format!(
        "ACK sip:bob@127.0.0.3:5070 SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.2:5060;branch=z9hG4bK9\n{route}\nFrom: \"Alice\" <sip:alice@example.com>;tag=a1\n\
         To: <sip:bob@example.com>;tag=b1\nCall-ID: c1\nCSeq: 5 ACK\nContent-Length: 0\n\n"
    );
    assert_eq!(line(&server.receive("127.0.0.2:5060", &ack), "ACK", "CSeq"), "CSeq: 7 ACK");
}

#[test]
fn what_nobody_knows_goes_back() {
    let mut server = server(r#"modparam("uac_auth", "credential", "me:elsewhere:secret")"#, AUTH);
    let sent = server.receive(
        "127.0.0.2:5060",
        &format!("INVITE sip:bob@127.0.0.3:5070 SIP/2.0\n{HEAD}Content-Length: 0\n\n"),
    );
    let invite = sent.iter().find(|m| m.text.starts_with("INVITE")).expect("forwarded");
    let challenge = "Proxy-Authenticate: Digest realm=\"there\", nonce=\"n1\"\n";
    let sent = server.receive("127.0.0.3:5070", &reply(invite, "407 No", challenge));
    assert!(sent.iter().any(|m| m.text.starts_with("SIP/2.0 407")));
    assert!(!sent.iter().any(|m| m.text.starts_with("INVITE")));
}
