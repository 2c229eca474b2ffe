//! What is copied, seen through copies that go to a SIP address.

use crate::testing::{Sent, Server};
use host::mi::MiError;
use script::ast::Dialect;
use serde_json::json;

const COPIES: &str = "10.9.9.9:5060";

fn server(route: &str) -> Server {
    let config = format!(
        "socket = udp:10.0.0.1:5060\nloadmodule \"signaling.so\"\nloadmodule \"sl.so\"\nloadmodule \"tm.so\"\nloadmodule \"rr.so\"\n\
         loadmodule \"dialog.so\"\nloadmodule \"sipmsgops.so\"\nloadmodule \"tracer.so\"\n\
         modparam(\"tracer\", \"trace_id\", \"[t]uri=sip:{COPIES}\")\nroute {{ {route} }}"
    );
    Server::new(&config, Dialect::V4)
}

const RELAY: &str = "if (has_totag()) { loose_route(); t_relay(); exit; } record_route(); TRACE $du = \"sip:10.0.0.3:5060\"; t_relay();";

fn request(method: &str, branch: &str, to: &str, routes: &str) -> String {
    format!(
        "{method} sip:bob@10.0.0.3 SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK{branch}\nMax-Forwards: 70\n{routes}\
         From: <sip:alice@a>;tag=a\nTo: <sip:bob@b>{to}\nCall-ID: c1\nCSeq: 1 {method}\n\
         Contact: <sip:alice@10.0.0.2>\nContent-Length: 0\n\n"
    )
}

/// First words of the copies among what was sent.
fn copies(sent: &[Sent]) -> Vec<String> {
    let copied = sent.iter().filter(|sent| sent.to == COPIES.parse().unwrap());
    let first = |sent: &Sent| sent.text.lines().next().unwrap_or_default().to_string();
    copied.map(|sent| first(sent).split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

/// The callee's reply to what was sent to it.
fn reply(sent: &[Sent], status: &str) -> String {
    let to_callee =
        sent.iter().rfind(|sent| sent.to == "10.0.0.3:5060".parse().unwrap()).expect("a request to bob");
    let keep = ["Via:", "From:", "Call-ID:", "CSeq:", "Record-Route:"];
    let mut out = format!("SIP/2.0 {status}\n");
    for line in to_callee.text.lines() {
        if keep.iter().any(|name| line.starts_with(name)) {
            out += &format!("{line}\n");
        }
        if line.starts_with("To:") {
            out += &format!("{line}{}\n", if line.contains("tag=") { "" } else { ";tag=b" });
        }
    }
    out + "Contact: <sip:bob@10.0.0.3>\nContent-Length: 0\n\n"
}

/// A call with one scope: what is copied of its INVITE, of the answer, and of the BYE.
fn call(trace: &str) -> [Vec<String>; 3] {
    let mut server = server(&RELAY.replace("TRACE", trace));
    let invited = server.receive("10.0.0.2:5060", &request("INVITE", "i", "", ""));
    let answered = server.receive("10.0.0.3:5060", &reply(&invited, "200 OK"));
    let routes = "Route: <sip:10.0.0.1;lr>\n";
    let bye = server.receive("10.0.0.2:5060", &request("BYE", "b", ";tag=b", routes));
    [copies(&invited), copies(&answered), copies(&bye)]
}

#[test]
fn a_message_a_transaction_a_call() {
    let invite = "INVITE sip:bob@10.0.0.3";
    assert_eq!(call("trace(\"t\", \"m\");"), [vec![invite.to_string()], vec![], vec![]]);
    let [first, answer, bye] = call("trace(\"t\", \"t\");");
    assert_eq!((first.iter().filter(|m| *m == invite).count(), bye), (2, vec![]), "{first:?}");
    assert_eq!(answer, ["SIP/2.0 200", "SIP/2.0 200"]);
    let [_, _, bye] = call("create_dialog(); trace(\"t\", \"d\");");
    assert_eq!(bye, ["BYE sip:bob@10.0.0.3", "BYE sip:bob@10.0.0.3"]);
    // Without a scope, the widest.
    let [_, _, bye] = call("create_dialog(); trace(\"t\");");
    assert_eq!(bye.len(), 2);
}

#[test]
fn one_side_only() {
    let invite = "INVITE sip:bob@10.0.0.3".to_string();
    let [first, answer, _] = call("trace(\"t\", \"t\", , , \"C\");");
    assert_eq!((first.iter().filter(|m| **m == invite).count(), answer.len()), (1, 1));
    let [first, answer, _] = call("trace(\"t\", \"t\", , , \"c\");");
    assert_eq!((first, answer), (vec![invite], vec!["SIP/2.0 200".to_string()]));
}

#[test]
fn types_that_are_not_copied_and_names_that_do_not_exist() {
    assert_eq!(call("trace(\"t\", \"t\", \"xlog|rest\");"), [vec![], vec![], vec![]] as [Vec<String>; 3]);
    let unknown = "$var(id) = \"x\"; trace($var(id), \"t\");";
    assert_eq!(call(unknown), [vec![], vec![], vec![]] as [Vec<String>; 3]);
}

#[test]
fn a_stateless_reply_is_seen() {
    let mut server = server("trace(\"t\", \"t\"); sl_send_reply(404, \"No\"); exit;");
    let sent = server.receive("10.0.0.2:5060", &request("OPTIONS", "o", "", ""));
    assert_eq!(copies(&sent), ["OPTIONS sip:bob@10.0.0.3", "SIP/2.0 404"]);
}

#[test]
fn management() {
    let mut server = server("sl_send_reply(404, \"No\"); exit;");
    let listed = server.manage("trace", json!({})).unwrap();
    let one = json!({"name": "t", "type": "SIP", "uri": COPIES, "state": "on"});
    assert_eq!(listed, json!({"global": "on", "trace destinations": [one]}));
    assert_eq!(server.manage("tracer:trace", json!({"id": "t", "mode": "off"})), Ok(json!("OK")));
    assert_eq!(server.manage("trace", json!({"id": "t"})).unwrap()["trace destinations"][0]["state"], "off");
    assert_eq!(server.manage("trace", json!({"id": "x"})), Err(MiError::new(400, "Bad trace id value")));
    let start = json!({"id": "d", "uri": format!("sip:{COPIES}"), "filter": ["caller=alice", "ip=10.0.0.2"], "scope": "t"});
    assert_eq!(server.manage("trace_start", start.clone()), Ok(json!("OK")));
    assert_eq!(
        server.manage("trace_start", start).unwrap_err().data.as_deref(),
        Some("dynamic trace id already used")
    );
    let seen = server.receive("10.0.0.2:5060", &request("OPTIONS", "o1", "", ""));
    assert_eq!(copies(&seen).len(), 2);
    assert!(copies(&server.receive("10.0.0.7:5060", &request("OPTIONS", "o2", "", ""))).is_empty());
    assert_eq!(server.manage("trace_stop", json!({"id": "d"})), Ok(json!("OK")));
    assert!(copies(&server.receive("10.0.0.2:5060", &request("OPTIONS", "o3", "", ""))).is_empty());
    let database = json!({"id": "e", "uri": "mysql://x/y"});
    assert_eq!(server.manage("trace_start", database).unwrap_err().code, 406);
}
