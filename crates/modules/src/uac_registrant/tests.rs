//! Registrations against a registrar that is played here.

use crate::testing::{Folder, Sent, Server};
use rusqlite::Connection;
use script::ast::Dialect;
use serde_json::{Value as Json, json};
use sip::HeaderName;
use sip::digest::{Algorithm, Credentials, ha1};

fn server(name: &str, rows: &str) -> (Folder, Connection, Server) {
    let folder = Folder::new(name);
    let path = folder.0.join("s.db");
    let db = Connection::open(&path).expect("a database");
    db.execute_batch(&format!(
        "create table registrant (id integer primary key, registrar varchar(255), proxy varchar(255), aor varchar(255),
         third_party_registrant varchar(255), username varchar(64), password varchar(64), binding_URI varchar(255),
         binding_params varchar(64), expiry int, forced_socket varchar(64), cluster_shtag varchar(64), state int default 0);
         insert into registrant (registrar, aor, username, password, binding_URI, binding_params, expiry) values {rows};"
    ))
    .expect("a table");
    let config = format!(
        "socket=udp:127.0.0.1:5060\nloadmodule \"db_sqlite.so\"\nloadmodule \"tm.so\"\nloadmodule \"uac_auth.so\"\n\
         loadmodule \"uac_registrant.so\"\nmodparam(\"uac_registrant\", \"db_url\", \"sqlite://{}\")\n\
         modparam(\"uac_registrant\", \"hash_size\", 0)\nmodparam(\"uac_registrant\", \"timer_interval\", 10)\n\
         modparam(\"uac_registrant\", \"failure_retry_interval\", 30)\nroute {{ }}\n",
        path.display()
    );
    let server = Server::new(&config, Dialect::V4);
    (folder, db, server)
}

const ALICE: &str =
    "('sip:127.0.0.9:5090', 'sip:alice@example.com', 'alice', 'secret', 'sip:alice@127.0.0.1:5060', '', 600)";

fn reply(request: &Sent, status: &str, more: &str) -> String {
    let lines: Vec<&str> =
        request.text.split("\r\n\r\n").next().unwrap_or_default().lines().skip(1).collect();
    let kept = lines
        .iter()
        .filter(|l| ["Via", "From", "To", "Call-ID", "CSeq"].iter().any(|k| l.starts_with(&format!("{k}:"))));
    let kept: Vec<String> =
        kept.map(|l| if l.starts_with("To:") { format!("{l};tag=r") } else { l.to_string() }).collect();
    format!("SIP/2.0 {status}\n{}\n{more}Content-Length: 0\n\n", kept.join("\n"))
}

/// Lets seconds pass one by one; what was sent.
fn wait(server: &mut Server, seconds: u32) -> Vec<Sent> {
    (0..seconds).flat_map(|_| server.advance(1000)).collect()
}

fn state(server: &mut Server) -> String {
    let list = server.manage("reg_list", json!([])).expect("a list");
    list["Records"][0]["state"].as_str().unwrap_or_default().to_string()
}

fn header(sent: &Sent, name: &str) -> String {
    let found = sent.text.lines().find(|l| l.starts_with(&format!("{name}: ")));
    found.unwrap_or_else(|| panic!("no {name} in {}", sent.text)).to_string()
}

const CHALLENGE: &str =
    "WWW-Authenticate: Digest realm=\"example.com\", nonce=\"n1\", qop=\"auth\", algorithm=SHA-256\n";
const BINDING: &str = "Contact: <sip:alice@127.0.0.1:5060>;expires=300\n";

#[test]
fn registers_with_digest_and_again_before_it_ends() {
    let (_folder, _db, mut server) = server("registrant-digest", ALICE);
    assert_eq!(state(&mut server), "NOT_REGISTERED_STATE");
    let first = wait(&mut server, 10);
    assert_eq!(first.len(), 1);
    assert!(first[0].text.starts_with("REGISTER sip:127.0.0.9:5090 SIP/2.0"));
    assert_eq!(first[0].to.to_string(), "127.0.0.9:5090");
    assert_eq!(header(&first[0], "Contact"), "Contact: <sip:alice@127.0.0.1:5060>;expires=600");
    let second = server.receive("127.0.0.9:5090", &reply(&first[0], "401 No", CHALLENGE));
    assert_eq!(state(&mut server), "AUTHENTICATING_STATE");
    let message = sip::Message::parse(second[0].text.clone().into()).expect("a request");
    let value = message.value(HeaderName::Authorization).expect("an answer");
    let credentials = Credentials::parse(&value).expect("credentials");
    assert!(credentials.verify(
        &ha1(Algorithm::Sha256, b"alice", b"example.com", b"secret"),
        b"REGISTER",
        b""
    ));
    assert_eq!(header(&second[0], "Call-ID"), header(&first[0], "Call-ID"));
    assert_eq!(header(&second[0], "CSeq"), "CSeq: 2 REGISTER");
    server.receive("127.0.0.9:5090", &reply(&second[0], "200 OK", BINDING));
    assert_eq!(state(&mut server), "REGISTERED_STATE");
    // 300 s are given; it is looked at every 10 s, and must not be too late.
    assert!(wait(&mut server, 270).is_empty());
    let again = wait(&mut server, 20);
    assert_eq!(header(&again[0], "CSeq"), "CSeq: 3 REGISTER");
}

#[test]
fn failures_are_named_and_tried_again() {
    for (name, status, more, expected) in [
        ("registrar", "503 Down", "", "REGISTRAR_ERROR_STATE"),
        ("credentials", "403 No", "", "REGISTRAR_ERROR_STATE"),
        ("timeout", "408 Late", "", "REGISTER_TIMEOUT_STATE"),
        ("binding", "200 OK", "Contact: <sip:other@x>;expires=5\n", "REGISTRAR_ERROR_STATE"),
    ] {
        let (_folder, _db, mut server) = server(&format!("registrant-{name}"), ALICE);
        let first = wait(&mut server, 10);
        server.receive("127.0.0.9:5090", &reply(&first[0], status, more));
        assert_eq!(state(&mut server), expected, "{name}");
        assert!(wait(&mut server, 10).is_empty());
        let again = wait(&mut server, 20);
        assert_ne!(header(&again[0], "Call-ID"), header(&first[0], "Call-ID"), "{name}");
    }
    let (_folder, _db, mut server) = server("registrant-wrong", ALICE);
    let first = wait(&mut server, 10);
    let second = server.receive("127.0.0.9:5090", &reply(&first[0], "401 No", CHALLENGE));
    server.receive("127.0.0.9:5090", &reply(&second[0], "401 No", CHALLENGE));
    assert_eq!(state(&mut server), "WRONG_CREDENTIALS_STATE");
}

#[test]
fn a_longer_time_is_asked_for() {
    let (_folder, _db, mut server) = server("registrant-423", ALICE);
    let first = wait(&mut server, 10);
    let second = server.receive("127.0.0.9:5090", &reply(&first[0], "423 Short", "Min-Expires: 1800\n"));
    assert_eq!(header(&second[0], "Contact"), "Contact: <sip:alice@127.0.0.1:5060>;expires=1800");
}

#[test]
fn operators_disable_enable_and_change_records() {
    let (_folder, db, mut server) = server("registrant-mi", ALICE);
    let first = wait(&mut server, 10);
    server.receive("127.0.0.9:5090", &reply(&first[0], "200 OK", BINDING));
    let who = json!({"aor": "sip:alice@example.com", "contact": "sip:alice@127.0.0.1:5060", "registrar": "sip:127.0.0.9:5090"});
    assert_eq!(server.manage("uac_registrant:disable", who.clone()), Ok(json!("OK")));
    let sent = server.advance(0);
    assert_eq!(header(&sent[0], "Contact"), "Contact: <sip:alice@127.0.0.1:5060>;expires=0");
    server.receive("127.0.0.9:5090", &reply(&sent[0], "200 OK", ""));
    assert_eq!(state(&mut server), "NOT_REGISTERED_STATE");
    let written: i64 = db.query_row("select state from registrant", [], |row| row.get(0)).expect("a row");
    assert_eq!(written, 1);
    assert!(wait(&mut server, 30).is_empty());
    assert_eq!(server.manage("reg_enable", who.clone()), Ok(json!("OK")));
    assert_eq!(server.advance(0).len(), 1);
    assert!(server.manage("reg_disable", json!({"aor": "x", "contact": "y", "registrar": "z"})).is_err());
    let bob = json!({"aor": "sip:bob@example.com", "contact": "sip:bob@127.0.0.1", "registrar": "sip:127.0.0.9:5090", "expiry": 60});
    assert_eq!(server.manage("reg_upsert", bob.clone()), Ok(json!("OK")));
    let list = server.manage("reg_list", json!([])).expect("a list");
    assert_eq!(list["Records"].as_array().map(Vec::len), Some(2));
    assert_eq!(server.manage("reg_delete", bob), Ok(json!("OK")));
    assert_eq!(server.manage("reg_reload", json!([])), Ok(json!("OK")));
    let one: Json = server.manage("reg_list", who).expect("a record");
    assert_eq!(one["Registrant"]["binding"], "sip:alice@127.0.0.1:5060");
}
