//! Where requests go that come back by our own Record-Route or Path.

use crate::testing::Server;
use script::ast::Dialect;

const HEAD: &str = r#"
socket=udp:127.0.0.1:5060
socket=tcp:127.0.0.1:5060
socket=udp:127.0.0.1:5090
loadmodule "proto_udp.so"
loadmodule "proto_tcp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "signaling.so"
loadmodule "rr.so"
loadmodule "path.so"
loadmodule "sipmsgops.so"
modparam("path", "use_received", 1)
"#;

/// Address and Via transport of what a request leaves as.
fn left(routes: &str, uri: &str, to_tag: &str, headers: &str) -> String {
    let mut server = Server::new(&format!("{HEAD}{routes}"), Dialect::V4);
    let sent = server.receive(
        "127.0.0.2:5060",
        &format!(
            "MESSAGE {uri} SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.2:5060;branch=z9hG4bKa\nMax-Forwards: 70\n\
             From: <sip:a@x>;tag=a\nTo: <sip:b@x>{to_tag}\nCall-ID: c\nCSeq: 1 MESSAGE\n{headers}Content-Length: 0\n\n"
        ),
    );
    let relayed = sent.iter().filter(|m| m.text.starts_with("MESSAGE"));
    let one = |m: &testing::Sent| {
        let via =
            m.text.split("Via: SIP/2.0/").nth(1).and_then(|via| via.split(';').next()).unwrap_or_default();
        format!("{} by {via}", m.to)
    };
    relayed.map(one).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_chosen_socket_says_the_transport() {
    let to = "sip:x@127.0.0.3:5070";
    for (script, want) in [
        ("", "127.0.0.3:5070 by UDP 127.0.0.1"),
        ("$socket_out = \"tcp:127.0.0.1:5060\";", "127.0.0.3:5070 by TCP 127.0.0.1"),
        ("force_send_socket(\"tcp:127.0.0.1:5060\");", "127.0.0.3:5070 by TCP 127.0.0.1"),
        ("$socket_out = \"udp:127.0.0.1:5090\";", "127.0.0.3:5070 by UDP 127.0.0.1:5090"),
        // What the URI says goes first.
        (
            "$socket_out = \"tcp:127.0.0.1:5060\"; $du = \"sip:127.0.0.4;transport=udp\";",
            "127.0.0.4:5060 by UDP 127.0.0.1",
        ),
        ("$socket_out = \"tcp:127.0.0.1:5060\"; $du = \"sip:127.0.0.4\";", "127.0.0.4:5060 by TCP 127.0.0.1"),
    ] {
        for relay in ["t_relay();", "forward();"] {
            assert_eq!(left(&format!("route {{ {script} {relay} }}"), to, "", ""), want, "{script} {relay}");
        }
    }
}

const LOOSE: &str = "route { loose_route(); t_relay(); }";

#[test]
fn requests_in_dialogs_leave_by_the_side_they_are_for() {
    let phone = "sip:bob@127.0.0.3:5070";
    for (routes, want) in [
        ("Route: <sip:127.0.0.1;r2=on;lr>\nRoute: <sip:127.0.0.1;transport=tcp;r2=on;lr>\n", "TCP 127.0.0.1"),
        ("Route: <sip:127.0.0.1;r2=on;lr>, <sip:127.0.0.1;transport=tcp;r2=on;lr>\n", "TCP 127.0.0.1"),
        ("Route: <sip:127.0.0.1;transport=tcp;r2=on;lr>, <sip:127.0.0.1;r2=on;lr>\n", "UDP 127.0.0.1"),
        ("Route: <sip:127.0.0.1;r2=on;lr>, <sip:127.0.0.1:5090;r2=on;lr>\n", "UDP 127.0.0.1:5090"),
        ("Route: <sip:127.0.0.1;lr>\n", "UDP 127.0.0.1"),
    ] {
        assert_eq!(left(LOOSE, phone, ";tag=b", routes), format!("127.0.0.3:5070 by {want}"), "{routes}");
    }
}

#[test]
fn our_path_leads_back_to_the_phone() {
    let away = "sip:al@192.0.2.9:5060";
    let received = "received=sip:127.0.0.7:6000";
    for (routes, want) in [
        (format!("Route: <sip:127.0.0.1;lr;{received}>\n"), "127.0.0.7:6000 by UDP 127.0.0.1"),
        (
            format!("Route: <sip:127.0.0.1;lr;r2=on>, <sip:127.0.0.1:5090;r2=on;lr;{received}>\n"),
            "127.0.0.7:6000 by UDP 127.0.0.1:5090",
        ),
        (
            format!(
                "Route: <sip:127.0.0.1;lr;r2=on>\nRoute: <sip:127.0.0.1;transport=tcp;r2=on;lr;{received}%3btransport%3dtcp>\n"
            ),
            "127.0.0.7:6000 by TCP 127.0.0.1",
        ),
        (
            format!(
                "Route: <sip:127.0.0.1;lr;r2=on>\nRoute: <sip:127.0.0.1;transport=tcp;r2=on;lr;{received}%3Btransport%3DTCP>\n"
            ),
            "127.0.0.7:6000 by TCP 127.0.0.1",
        ),
    ] {
        for to_tag in ["", ";tag=b"] {
            assert_eq!(left(LOOSE, away, to_tag, &routes), want, "{routes}{to_tag}");
        }
    }
}
