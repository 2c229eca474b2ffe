use crate::testing::Server;
use script::ast::Dialect;
use serde_json::json;

const CONFIG: &str = r#"socket=udp:127.0.0.1:5060
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "signaling.so"
loadmodule "sipmsgops.so"
loadmodule "event_routing.so"
route {
    if (is_method("INVITE")) {
        $avp(filter) = "aor=bob@*"; $avp(filter) = "n=1";
        wait_for_event("E_TEST", $avp(filter), 5);
        $var(rc) = $rc;
        send_reply(480, "got $var(rc) $avp(aor)");
    } else if (is_method("SUBSCRIBE")) {
        $avp(filter) = "aor=*";
        notify_on_event("E_TEST", $avp(filter), "seen", 5);
        send_reply(200, "subscribed");
    } else {
        $avp(names) = "n"; $avp(names) = "aor"; $avp(values) = $hdr(X-N); $avp(values) = $hdr(X-Aor);
        raise_event("E_TEST", $avp(names), $avp(values));
        send_reply(200, "raised");
    }
    exit;
}
route[seen] { cache_add("local", "seen", 1, 0); cache_store("local", "aor", $avp(aor)); }
"#;

fn server() -> Server {
    Server::new(&format!("loadmodule \"cachedb_local.so\"\n{CONFIG}"), Dialect::V4)
}

fn send(server: &mut Server, method: &str, more: &str) -> Vec<String> {
    let n = more.len();
    let text = format!(
        "{method} sip:b@127.0.0.1 SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.2;branch=z9hG4bK{method}{n}\nFrom: <sip:a@b>;tag=1\nTo: <sip:b@c>\nCall-ID: {method}{n}\nCSeq: 1 {method}\nMax-Forwards: 9\n{more}Content-Length: 0\n\n"
    );
    let sent = server.receive("127.0.0.2:5060", &text);
    sent.iter().map(|s| s.text.lines().next().unwrap_or_default().trim().to_string()).collect()
}

#[test]
fn a_script_waits_for_the_event_it_means() {
    let mut server = server();
    assert_eq!(send(&mut server, "INVITE", ""), [""; 0]);
    let other = send(&mut server, "OPTIONS", "X-Aor: alice@x\nX-N: 1\n");
    assert_eq!(other, ["SIP/2.0 200 raised"]);
    let wanted = send(&mut server, "OPTIONS", "X-Aor: bob@home.net\nX-N: 1\n");
    assert_eq!(wanted, ["SIP/2.0 480 got 1 bob@home.net", "SIP/2.0 200 raised"]);
    // The subscription is gone with the wait.
    assert_eq!(send(&mut server, "OPTIONS", "X-Aor: bob@home.org.\nX-N: 1\n"), ["SIP/2.0 200 raised"]);
}

#[test]
fn nothing_happens_in_time() {
    let mut server = server();
    send(&mut server, "INVITE", "");
    assert!(server.advance(4999).iter().all(|s| !s.text.contains(" 480 ")));
    let sent = server.advance(1);
    assert!(sent.iter().any(|s| s.text.starts_with("SIP/2.0 480 got -2 <null>")), "{}", sent.len());
}

#[test]
fn a_route_runs_each_time() {
    let mut server = server();
    let seen = |server: &mut Server| {
        let found = server.manage("cache_fetch_chunk", json!({"glob": "*"})).expect("keys");
        found["keys"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|k| k["value"].as_str().unwrap_or("").to_string())
            .collect::<Vec<_>>()
    };
    send(&mut server, "SUBSCRIBE", "");
    send(&mut server, "OPTIONS", "X-Aor: a@x\nX-N: 1\n");
    send(&mut server, "OPTIONS", "X-Aor: bb@x\nX-N: 1\n");
    assert_eq!(seen(&mut server), ["bb@x", "2"]);
    server.advance(5000);
    send(&mut server, "OPTIONS", "X-Aor: ccc@x\nX-N: 1\n");
    assert_eq!(seen(&mut server), ["bb@x", "2"]);
}
