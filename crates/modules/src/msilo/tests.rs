//! Messages stored, delivered and reminded of, against SQLite.

use crate::testing::{Folder, Sent, Server};
use rusqlite::Connection;
use script::ast::Dialect;

const ROUTES: &str = r#"route { if ($rm == "MESSAGE") { if (m_store()) sl_send_reply(202, "Kept"); else sl_send_reply(503, "Lost"); exit; }
    if ($rm == "REGISTER") { m_dump(); sl_send_reply(200, "OK"); } }"#;

fn server(name: &str, params: &str) -> (Folder, Connection, Server) {
    let folder = Folder::new(name);
    let path = folder.0.join("s.db");
    let db = Connection::open(&path).expect("a database");
    db.execute_batch(
        "create table silo (id integer primary key autoincrement, src_addr varchar(255), dst_addr varchar(255), username varchar(64),
         domain varchar(64), inc_time int default 0, exp_time int default 0, snd_time int default 0, ctype varchar(255), body blob)",
    )
    .expect("a table");
    let config = format!(
        "socket=udp:127.0.0.1:5060\nloadmodule \"db_sqlite.so\"\nloadmodule \"tm.so\"\nloadmodule \"sl.so\"\nloadmodule \"signaling.so\"\n\
         loadmodule \"msilo.so\"\nmodparam(\"msilo\", \"db_url\", \"sqlite://{}\")\n\
         modparam(\"msilo\", \"outbound_proxy\", \"sip:127.0.0.9:5070\")\n{params}\n{ROUTES}",
        path.display()
    );
    let server = Server::new(&config, Dialect::V4);
    (folder, db, server)
}

fn request(method: &str, number: u32, more: &str) -> String {
    format!(
        "{method} sip:bob@example.com SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.2:5060;branch=z9hG4bK{number}\nFrom: <sip:alice@example.com>;tag=a\n\
         To: <sip:bob@example.com>\nCall-ID: m{number}\nCSeq: 1 {method}\nContact: <sip:alice@127.0.0.2:5062>\n{more}"
    )
}

fn message(number: u32) -> String {
    request("MESSAGE", number, "Content-Type: text/plain\nContent-Length: 5\n\nhello")
}

fn count(db: &Connection) -> i64 {
    db.query_row("select count(*) from silo", [], |row| row.get(0)).expect("a number")
}

fn reply(request: &Sent, status: &str) -> String {
    let head = request.text.split("\r\n\r\n").next().unwrap_or_default();
    let lines = head
        .lines()
        .skip(1)
        .filter(|l| ["Via", "From", "To", "Call-ID", "CSeq"].iter().any(|k| l.starts_with(&format!("{k}:"))));
    let lines: Vec<String> =
        lines.map(|l| if l.starts_with("To:") { format!("{l};tag=t") } else { l.to_string() }).collect();
    format!("SIP/2.0 {status}\n{}\nContent-Length: 0\n\n", lines.join("\n"))
}

fn messages(sent: Vec<Sent>) -> Vec<Sent> {
    sent.into_iter().filter(|m| m.text.starts_with("MESSAGE")).collect()
}

#[test]
fn stored_delivered_and_deleted() {
    let (_folder, db, mut server) = server("msilo", "");
    let sent = server.receive("127.0.0.2:5060", &message(1));
    assert!(sent[0].text.starts_with("SIP/2.0 202"));
    assert_eq!(count(&db), 1);
    let register = |n| request("REGISTER", n, "Expires: 60\nContent-Length: 0\n\n");
    let sent = messages(server.receive("127.0.0.2:5060", &register(2)));
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].to.to_string(), "127.0.0.9:5070");
    assert!(sent[0].text.starts_with("MESSAGE sip:bob@example.com SIP/2.0"));
    assert!(sent[0].text.ends_with("[Offline message - Tue Nov 14 22:13:20 2023] hello"), "{}", sent[0].text);
    // On its way: not twice.
    assert!(messages(server.receive("127.0.0.2:5060", &register(3))).is_empty());
    server.receive("127.0.0.9:5070", &reply(&sent[0], "480 Away"));
    assert_eq!(count(&db), 1);
    let sent = messages(server.receive("127.0.0.2:5060", &register(4)));
    server.receive("127.0.0.9:5070", &reply(&sent[0], "200 OK"));
    assert_eq!(count(&db), 0);
    let leaving = request("REGISTER", 5, "Expires: 0\nContent-Length: 0\n\n");
    server.receive("127.0.0.2:5060", &message(6));
    assert!(messages(server.receive("127.0.0.2:5060", &leaving)).is_empty());
    let deaf = request("REGISTER", 7, "Allow: INVITE, ACK\nContent-Length: 0\n\n");
    assert!(messages(server.receive("127.0.0.2:5060", &deaf)).is_empty());
}

#[test]
fn the_sender_is_told_and_too_many_are_refused() {
    let params = r#"modparam("msilo", "from_address", "sip:$rU@silo.invalid") modparam("msilo", "offline_message", "$rU is away")
        modparam("msilo", "max_messages", 1)"#;
    let (_folder, db, mut server) = server("msilo-notice", params);
    let sent = messages(server.receive("127.0.0.2:5060", &message(1)));
    assert!(sent[0].text.starts_with("MESSAGE sip:alice@127.0.0.2:5062 SIP/2.0"));
    assert!(sent[0].text.contains("From: <sip:bob@silo.invalid>") && sent[0].text.ends_with("bob is away"));
    let sent = server.receive("127.0.0.2:5060", &message(2));
    assert!(sent[0].text.starts_with("SIP/2.0 503"));
    assert_eq!(count(&db), 1);
}

#[test]
fn reminders_come_at_their_time_and_old_messages_go() {
    let params = r#"modparam("msilo", "reminder", "sip:reminder@example.com") modparam("msilo", "send_time", 2)
        modparam("msilo", "check_time", 5) modparam("msilo", "clean_period", 2)"#;
    let (_folder, db, mut server) = server("msilo-reminder", params);
    db.execute_batch(
        "insert into silo (src_addr, dst_addr, username, domain, exp_time, snd_time, ctype, body) values
         ('sip:a@x', 'sip:b@x', 'bob', 'example.com', 1800000000, 1700000003, 'text/html', 'now'),
         ('sip:a@x', 'sip:b@x', 'bob', 'example.com', 1600000000, 0, 'text/plain', 'old')",
    )
    .expect("rows");
    let mut sent = Vec::new();
    for _ in 0..4 {
        sent.extend(messages(server.advance(1000)));
    }
    assert_eq!(sent.len(), 1);
    assert!(sent[0].text.starts_with("MESSAGE sip:bob@example.com SIP/2.0") && sent[0].text.ends_with("now"));
    assert!(sent[0].text.contains("From: <sip:reminder@example.com>"));
    server.receive("127.0.0.9:5070", &reply(&sent[0], "200 OK"));
    assert_eq!(count(&db), 1);
    for _ in 0..7 {
        server.advance(1000);
    }
    assert_eq!(count(&db), 0);
}
