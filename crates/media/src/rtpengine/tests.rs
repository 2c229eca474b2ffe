//! The module in a server without a network, its engine a thread with a socket.

use super::bencode::{Bencode, Dict, decode};
use crate::testing::{Server, refused};
use bytes::Bytes;
use script::ast::Dialect;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex};

/// An engine that answers what `answer` gives, and remembers what it was asked.
struct Engine {
    port: u16,
    heard: Arc<Mutex<Vec<Dict>>>,
}

#[expect(clippy::disallowed_methods, reason = "the other end of an exchange")]
fn engine(answer: impl Fn(&Dict) -> Option<Dict> + Send + 'static) -> Engine {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let remembered = heard.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let text = Bytes::copy_from_slice(&buffer[..length]);
            let command = decode(&text.slice(17..)).unwrap();
            let is_ping = command.text("command").unwrap() == "ping";
            if !is_ping {
                remembered.lock().unwrap().push(command.clone());
            }
            let pong = || Some(Dict(vec![("result".into(), Bencode::Text("pong".into()))]));
            if let Some(dict) = if is_ping { pong() } else { answer(&command) } {
                socket.send_to(&[&text[..17], &dict.encode()].concat(), peer).unwrap();
            }
        }
    });
    Engine { port, heard }
}

fn ok(sdp: &str) -> Option<Dict> {
    let mut dict = Dict::default();
    dict.set_text("result", "ok");
    dict.set_text("sdp", sdp.to_string());
    Some(dict)
}

const INVITE: &str = "INVITE sip:bob@127.0.0.3:5070 SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.2:5060;branch=z9hG4bKa\nFrom: <sip:a@x>;tag=a\n\
                      To: <sip:b@x>\nCall-ID: c1\nCSeq: 1 INVITE\nMax-Forwards: 70\nContent-Type: CTYPE\nContent-Length: LENGTH\n\nBODY";

fn invite(content_type: &str, body: &str) -> String {
    let length = body.replace('\n', "\r\n").len().to_string();
    INVITE.replace("CTYPE", content_type).replace("LENGTH", &length).replace("BODY", body)
}

fn server(port: u16, more: &str, routes: &str) -> Server {
    let modules =
        "loadmodule \"proto_udp.so\" loadmodule \"tm.so\" loadmodule \"sl.so\" loadmodule \"sipmsgops.so\"";
    let sock = format!("modparam(\"rtpengine\", \"rtpengine_sock\", \"udp:127.0.0.1:{port}\")");
    Server::new(
        &format!(
            "socket=udp:127.0.0.1:5060\n{modules}\nloadmodule \"rtpengine.so\"\n{sock}\n{more}\n{routes}"
        ),
        Dialect::V4,
    )
}

#[test]
fn only_the_description_of_a_multipart_body_changes() {
    let engine = engine(|_| ok("v=0\r\nnew\r\n"));
    let mut server = server(engine.port, "", "route { rtpengine_offer(); t_relay(); }");
    let body =
        "--b\nContent-Type: text/plain\n\nhello\n--b\nContent-Type: application/sdp\n\nv=0\nold\n\n--b--\n";
    let sent = server.receive("127.0.0.2:5060", &invite("multipart/mixed;boundary=b", body));
    let invite = sent.iter().find(|m| m.text.starts_with("INVITE")).unwrap();
    assert!(invite.text.contains("\r\n\r\nhello\r\n--b"), "{}", invite.text);
    assert!(invite.text.contains("application/sdp\r\n\r\nv=0\r\nnew\r\n\r\n--b--"), "{}", invite.text);
    let heard = engine.heard.lock().unwrap();
    assert_eq!(heard[0].text("sdp").unwrap(), "v=0\r\nold\r\n");
}

#[test]
fn an_engine_sees_what_the_caller_said_also_the_second_time() {
    let engine = engine(|_| ok("v=0\r\nnew\r\n"));
    let mut server =
        server(engine.port, "", "route { rtpengine_offer(); rtpengine_offer(\"x\"); t_relay(); }");
    let sent = server.receive("127.0.0.2:5060", &invite("application/sdp", "v=0\nold\n"));
    assert!(sent.iter().any(|m| m.text.ends_with("\r\n\r\nv=0\r\nnew\r\n")));
    let heard = engine.heard.lock().unwrap();
    assert!(heard.len() == 2 && heard.iter().all(|d| d.text("sdp").unwrap() == "v=0\r\nold\r\n"));
}

#[test]
fn a_branch_has_an_offer_of_its_own() {
    let engine = engine(|command| ok(&format!("v=0\r\n{:?}\r\n", command.list("flags"))));
    let routes = "route { append_msg_branch(\"sip:bob@127.0.0.4\"); t_on_branch(\"b\"); t_relay(); }\n\
                  branch_route[b] { rtpengine_offer(\"f$T_branch_idx via-branch=1\"); }";
    let mut server = server(engine.port, "", routes);
    let sent = server.receive("127.0.0.2:5060", &invite("application/sdp", "v=0\nold\n"));
    let bodies: Vec<_> =
        sent.iter().filter_map(|m| m.text.split_once("\r\n\r\nv=0").map(|(_, body)| body)).collect();
    assert_eq!(bodies.len(), 2, "{bodies:?}");
    assert!(bodies[0].contains("f0") && bodies[1].contains("f1"), "{bodies:?}");
}

#[test]
fn mistakes_are_found_when_the_script_is_loaded() {
    let config = |param: &str| format!("loadmodule \"rtpengine.so\"\nmodparam(\"rtpengine\", {param})");
    for (param, why) in [
        ("\"rtpengine_sock\", \"x == udp:a:1\"", "no number of a set"),
        ("\"rtpengine_sock\", \"udp:a:b\"", "no address of an engine"),
        ("\"setid_avp\", \"$var(x)\"", "no AVP"),
        ("\"error_pv\", \"$ci\"", "cannot be assigned"),
        ("\"notification_sock\", \"here\"", "no IP address"),
        ("\"extra_failover_error\", \"a(\"", "regular expression"),
        ("\"rtpengine_retr\", 0", "at least one"),
    ] {
        let error = refused(&config(param), "", Dialect::V4);
        assert!(error.contains(why), "{param}: {error}");
    }
    let config = "loadmodule \"rtpengine.so\"";
    for (body, why) in [
        ("xlog(\"$rtpstat(MOS)\");", "there is no statistic"),
        ("xlog(\"$(avp(x)[word])\");", "an index is a number"),
    ] {
        let error = refused(config, body, Dialect::V4);
        assert!(error.contains(why), "{body}: {error}");
    }
}
