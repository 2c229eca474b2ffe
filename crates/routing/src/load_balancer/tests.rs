//! Sessions over tables of SQLite.

use crate::testing::{Folder, Server};
use script::ast::Dialect;
use serde_json::json;

/// Rows of (destination, resources).
fn server(folder: &Folder, rows: &[(&str, &str)], script: &str, dialect: Dialect) -> Server {
    let db = rusqlite::Connection::open(folder.0.join("d.db")).expect("a database");
    db.execute_batch(
        "create table load_balancer (id integer primary key, group_id int default 1, dst_uri text, resources text, \
         probe_mode int default 0, attrs text, description text)",
    )
    .expect("a table");
    for row in rows {
        db.execute("insert into load_balancer (dst_uri, resources) values (?1, ?2)", *row).expect("a row");
    }
    let listen = if dialect == Dialect::V21 { "listen" } else { "socket" };
    let config = format!(
        "{listen}=udp:127.0.0.1:5060\nloadmodule \"sl.so\"\nloadmodule \"tm.so\"\nloadmodule \"rr.so\"\n\
         loadmodule \"db_sqlite.so\"\nloadmodule \"dialog.so\"\nloadmodule \"load_balancer.so\"\n\
         modparam(\"load_balancer\", \"db_url\", \"sqlite://{}\")\n{script}",
        folder.0.join("d.db").display()
    );
    Server::new(&config, dialect)
}

fn call(server: &mut Server, n: u32) -> Vec<String> {
    let invite = format!(
        "INVITE sip:bob@example.com SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.2;branch=z9hG4bK{n}\nFrom: <sip:a@x>;tag=1\n\
         To: <sip:b@x>\nCall-ID: c{n}\nCSeq: 1 INVITE\nContact: <sip:a@127.0.0.2>\nMax-Forwards: 9\nContent-Length: 0\n\n"
    );
    let sent = server.receive("127.0.0.2:5060", &invite);
    sent.into_iter()
        .filter(|sent| !sent.text.starts_with("SIP/2.0 1"))
        .map(|sent| sent.to.to_string())
        .collect()
}

fn loads(server: &mut Server) -> Vec<i64> {
    let list = server.manage("lb_list", json!({})).expect("a list");
    let all = list["Destinations"].as_array().expect("an array").iter();
    all.flat_map(|dst| dst["Resources"].as_array().expect("an array").clone())
        .map(|resource| resource["load"].as_i64().expect("a number"))
        .collect()
}

#[test]
fn calls_fill_destinations_in_2_1() {
    let folder = Folder::new("lb-old");
    let rows = [("sip:10.0.0.1", "pstn=2;vm=1"), ("sip:10.0.0.2", "pstn=1")];
    let script = r#"route {
        if (!load_balance("1", "pstn")) { sl_send_reply("503", "Full"); exit; }
        t_relay();
    }"#;
    let mut server = server(&folder, &rows, script, Dialect::V21);
    // The one with more channels first, then the first of two that are equal, then what is left.
    let went: Vec<_> = (0..4).map(|n| call(&mut server, n).remove(0)).collect();
    assert_eq!(went, ["10.0.0.1:5060", "10.0.0.1:5060", "10.0.0.2:5060", "127.0.0.2:5060"]);
    assert_eq!(loads(&mut server), [2, 0, 1]);
}

#[test]
fn a_call_that_is_counted_beside() {
    let folder = Folder::new("lb-count");
    let rows = [("sip:10.0.0.1:5070", "pstn=2"), ("sip:10.0.0.2", "pstn=2")];
    let script = r#"route {
        lb_count_call("10.0.0.1", 5070, 1, "pstn");
        lb_start(1, "pstn");
        t_relay();
    }"#;
    let mut server = server(&folder, &rows, script, Dialect::V4);
    assert_eq!(call(&mut server, 1), ["10.0.0.2:5060"]);
    assert_eq!(loads(&mut server), [1, 1]);
}

#[test]
fn silence_moves_a_call_on() {
    let folder = Folder::new("lb-next");
    let rows = [("sip:10.0.0.1", "pstn=9"), ("sip:10.0.0.2", "pstn=2")];
    let script = "modparam(\"tm\", \"fr_timeout\", 2)\n\
        route { lb_start(1, \"pstn\"); t_on_failure(\"next\"); t_relay(); }\n\
        failure_route[next] { lb_disable_dst(); if (lb_next()) { t_relay(); } }";
    let mut server = server(&folder, &rows, script, Dialect::V4);
    assert_eq!(call(&mut server, 1), ["10.0.0.1:5060"]);
    assert_eq!(loads(&mut server), [1, 0]);
    let sent: Vec<_> = (0..25).flat_map(|_| server.advance(100)).map(|sent| sent.to.to_string()).collect();
    assert!(sent.contains(&"10.0.0.2:5060".to_string()), "{sent:?}");
    assert_eq!(loads(&mut server), [0, 1]);
    let status = server.manage("lb_status", json!([1])).expect("a status");
    assert_eq!(status, json!({"enable": "no"}));
}

#[test]
fn mistakes_are_found_at_load() {
    let head = "socket=udp:127.0.0.1:5060\nloadmodule \"tm.so\"\nloadmodule \"rr.so\"\nloadmodule \"db_sqlite.so\"\n\
                loadmodule \"dialog.so\"\nloadmodule \"load_balancer.so\"\n";
    let url = "modparam(\"load_balancer\", \"db_url\", \"sqlite:///nowhere/d.db\")\n";
    for (params, body, expected) in [
        ("", "", "there is no database"),
        (url, "lb_start(1, \"pstn=1\");", "takes no value"),
        (url, "lb_start(1, \";\");", "without a name"),
    ] {
        let said = crate::testing::refused(&format!("{head}{params}"), body, Dialect::V4);
        assert!(said.contains(expected), "{said}");
    }
}
