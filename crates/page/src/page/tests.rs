use crate::testing::Server;
use script::ast::Dialect;
use serde_json::{Value as Json, json};

fn server(body: &str) -> Server {
    let config = format!(
        "socket=udp:127.0.0.1:5060\nloadmodule \"tm.so\"\nloadmodule \"sl.so\"\nloadmodule \"signaling.so\"\nloadmodule \"cfgutils.so\"\nloadmodule \"httpd.so\"\nloadmodule \"page.so\"\nroute {{ {body} }}"
    );
    Server::new(&config, Dialect::V4)
}

fn request(method: &str, call: &str) -> String {
    format!(
        "{method} sip:b@127.0.0.1 SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.2;branch=z9hG4bK{call}\nFrom: <sip:a@b>;tag=1\nTo: <sip:b@c>\nCall-ID: {call}\nCSeq: 1 {method}\nMax-Forwards: 9\nContent-Length: 0\n\n"
    )
}

/// Values of the group, those that are not 0.
fn counted(server: &mut Server) -> Json {
    let mut all = server.manage("statistics:get", json!(["page:"])).expect("statistics");
    all.as_object_mut().expect("an object").retain(|_, n| n != &json!(0));
    all
}

#[test]
fn calls_are_counted_once() {
    let mut server = server("t_newtran(); sleep(3); t_reply(200, \"OK\"); exit;");
    server.receive("127.0.0.2:5060", &request("INVITE", "one"));
    server.receive("127.0.0.2:5060", &request("INVITE", "one"));
    server.receive("127.0.0.2:5060", &request("OPTIONS", "two"));
    assert_eq!(counted(&mut server), json!({"page:calls": 1}));
    server.advance(3000);
    let expected = json!({"page:calls": 1, "page:calls_2xx": 1, "page:setup_5000ms": 1});
    assert_eq!(counted(&mut server), expected);
}

#[test]
fn answers_without_a_transaction_are_counted() {
    let mut server = server("send_reply(407, \"Who\"); exit;");
    server.receive("127.0.0.2:5060", &request("INVITE", "one"));
    server.receive("127.0.0.2:5060", &request("OPTIONS", "two"));
    assert_eq!(counted(&mut server), json!({"page:calls": 1, "page:challenged": 1}));
}

#[test]
fn waits_stand_at_their_lines() {
    let mut server = server("sleep(2); send_reply(200, \"OK\"); exit;");
    server.receive("127.0.0.2:5060", &request("INVITE", "one"));
    server.advance(500);
    let wait = |server: &mut Server| {
        let all = server.manage("page:waits", json!([])).expect("a list");
        let all = all.as_array().expect("one worker's").clone();
        assert_eq!(all.len(), 1, "{all:?}");
        let row = &all[0];
        (
            row["Operation"].clone(),
            row["Line"].clone(),
            row["Waiting"].clone(),
            row["Ended"].clone(),
            row["Total ms"].clone(),
        )
    };
    let line = json!("test.cfg:8");
    assert_eq!(wait(&mut server), (json!("sleep"), line.clone(), json!(1), json!(0), json!(0)));
    server.advance(1500);
    assert_eq!(wait(&mut server), (json!("sleep"), line, json!(0), json!(1), json!(2000)));
}

#[test]
fn a_call_is_followed_with_its_waits() {
    let mut server = server("sleep(1); send_reply(486, \"Busy\"); exit;");
    server.receive("127.0.0.2:5060", &request("OPTIONS", "before"));
    server.manage("page:follow", json!(["sip:a@b"])).expect("OK");
    server.receive("127.0.0.2:5060", &request("OPTIONS", "the-call"));
    server.advance(1000);
    let shown = server.manage("page:ladder", json!(["the-call"])).expect("a ladder");
    // The first one's answer comes while somebody looks.
    let calls: Vec<&Json> = shown["Calls"].as_array().expect("calls").iter().map(|c| &c["Call-ID"]).collect();
    assert_eq!(calls, [&json!("the-call"), &json!("before")]);
    let events: Vec<String> = shown["Events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|e| match e["Operation"].as_str() {
            Some(what) => format!("{what} {} {} {}", e["Line"], e["Took ms"], e["End"]),
            None => format!("{} {}", e["Sent"], e["First"]),
        })
        .collect();
    assert_eq!(
        events,
        [
            "false \"OPTIONS sip:b@127.0.0.1 SIP/2.0\"",
            "sleep \"test.cfg:8\" 1000 \"returned 1\"",
            "true \"SIP/2.0 486 Busy\"",
        ]
    );
    // Nobody looks for more than a minute.
    server.advance(61_000);
    server.receive("127.0.0.2:5060", &request("OPTIONS", "later"));
    let shown = server.manage("page:ladder", json!([])).expect("a list");
    assert_eq!((&shown["Following"], shown["Calls"].as_array().map(Vec::len)), (&json!(false), Some(2)));
}
