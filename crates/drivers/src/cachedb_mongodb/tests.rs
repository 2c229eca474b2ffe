//! Scripts through the official driver against a server that knows just enough of the wire protocol
//! (OP_MSG, and OP_QUERY for the greeting). It is a stand-in: no real MongoDB was to be had here.

use crate::testing::{run, run_with};
use mongodb::bson::{Bson, Document, doc};
use script::ast::Dialect;
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

type Documents = Arc<Mutex<BTreeMap<String, Document>>>;

fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    let documents = Documents::default();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let documents = documents.clone();
            std::thread::spawn(move || serve(stream, &documents));
        }
    });
    addr
}

fn serve(mut stream: TcpStream, documents: &Documents) -> Option<()> {
    loop {
        let mut head = [0; 16];
        stream.read_exact(&mut head).ok()?;
        let field = |i: usize| i32::from_le_bytes(head[i..i + 4].try_into().expect("four bytes"));
        let mut body = vec![0; field(0) as usize - 16];
        stream.read_exact(&mut body).ok()?;
        let query = field(12) == 2004;
        let command = if query { old_command(&body)? } else { command(&body)? };
        let answer = answer(&command, documents);
        let mut bytes = Vec::new();
        answer.to_writer(&mut bytes).ok()?;
        // OP_REPLY: flags, cursor, start, one document. OP_MSG: flags, one section.
        let (prefix, code): (&[u8], i32) = if query {
            (&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], 1)
        } else {
            (&[0; 5], 2013)
        };
        let length = (16 + prefix.len() + bytes.len()) as i32;
        let header = [length, 1, field(4), code].map(i32::to_le_bytes).concat();
        stream.write_all(&[&header, prefix, &bytes].concat()).ok()?;
    }
}

/// Flags, the collection's name, two numbers, the command.
fn old_command(body: &[u8]) -> Option<Document> {
    let name = body[4..].iter().position(|b| *b == 0)?;
    Document::from_reader(Cursor::new(&body[4 + name + 1 + 8..])).ok()
}

/// Flags, then sections: the command (0), and lists that belong into it (1).
fn command(body: &[u8]) -> Option<Document> {
    let mut at = 4;
    let mut command = Document::new();
    while at < body.len() {
        let kind = body[at];
        at += 1;
        let length = i32::from_le_bytes(body[at..at + 4].try_into().ok()?) as usize;
        if kind == 0 {
            command.extend(Document::from_reader(Cursor::new(&body[at..at + length])).ok()?);
        } else {
            let name_end = at + 4 + body[at + 4..].iter().position(|b| *b == 0)?;
            let name = String::from_utf8_lossy(&body[at + 4..name_end]).into_owned();
            let mut list = Cursor::new(&body[name_end + 1..at + length]);
            let mut all = Vec::new();
            while (list.position() as usize) < list.get_ref().len() {
                all.push(Bson::Document(Document::from_reader(&mut list).ok()?));
            }
            command.insert(name, all);
        }
        at += length;
    }
    Some(command)
}

fn first<'a>(command: &'a Document, list: &str) -> &'a Document {
    command.get_array(list).expect(list)[0].as_document().expect("a document")
}

fn id(filter: &Document) -> String {
    filter.get_str("_id").unwrap_or_default().to_string()
}

/// The document that holds the last member of a path ("fields.x").
fn holder<'a>(document: &'a mut Document, path: &'a str) -> (&'a mut Document, &'a str) {
    let Some((outer, inner)) = path.split_once('.') else { return (document, path) };
    let held = document.entry(outer.to_string()).or_insert_with(|| Bson::Document(Document::new()));
    (held.as_document_mut().expect("a document"), inner)
}

fn change(document: &mut Document, update: &Document) {
    for (path, value) in update.get_document("$set").into_iter().flatten() {
        let (held, name) = holder(document, path);
        held.insert(name, value.clone());
    }
    for (path, _) in update.get_document("$unset").into_iter().flatten() {
        let (held, name) = holder(document, path);
        held.remove(name);
    }
    for (name, value) in update.get_document("$max").into_iter().flatten() {
        let later = value.as_datetime().expect("a moment");
        if document.get_datetime(name).is_ok_and(|end| end >= later) {
            continue;
        }
        document.insert(name, *later);
    }
    for (name, by) in update.get_document("$inc").into_iter().flatten() {
        let sum = document.get_i64(name).unwrap_or(0) + by.as_i64().unwrap_or(0);
        document.insert(name, sum);
    }
}

fn answer(command: &Document, documents: &Documents) -> Document {
    let mut documents = documents.lock().expect("not poisoned");
    match command.keys().next().map(String::as_str) {
        Some("hello" | "isMaster" | "ismaster") => doc! {
            "ok": 1, "helloOk": true, "isWritablePrimary": true, "ismaster": true, "maxBsonObjectSize": 16_777_216,
            "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000, "minWireVersion": 0, "maxWireVersion": 17,
            "readOnly": false,
        },
        Some("ping" | "endSessions" | "createIndexes") => doc! {"ok": 1},
        Some("find") => {
            let found = documents.get(&id(command.get_document("filter").expect("a filter")));
            let batch: Vec<Bson> = found.into_iter().map(|d| Bson::Document(d.clone())).collect();
            doc! {"ok": 1, "cursor": {"id": 0i64, "ns": "db.col", "firstBatch": batch}}
        }
        Some("update") => {
            let update = first(command, "updates");
            let key = id(update.get_document("q").expect("a filter"));
            if !documents.contains_key(&key) && !update.get_bool("upsert").unwrap_or(false) {
                return doc! {"ok": 1, "n": 0, "nModified": 0};
            }
            let document = documents.entry(key.clone()).or_insert_with(|| doc! {"_id": key});
            change(document, update.get_document("u").expect("a change"));
            doc! {"ok": 1, "n": 1, "nModified": 1}
        }
        Some("delete") => {
            let filter = first(command, "deletes").get_document("q").expect("a filter");
            let fits = |d: &Document| filter.iter().all(|(name, value)| d.get(name) == Some(value));
            let key = id(filter);
            let gone = documents.get(&key).is_some_and(fits).then(|| documents.remove(&key));
            doc! {"ok": 1, "n": i32::from(gone.is_some())}
        }
        Some("findAndModify") => {
            let key = id(command.get_document("query").expect("a filter"));
            let document = documents.entry(key.clone()).or_insert_with(|| doc! {"_id": key});
            change(document, command.get_document("update").expect("a change"));
            doc! {"ok": 1, "value": document.clone()}
        }
        Some("count") => doc! {"ok": 1, "n": documents.len() as i32},
        other => {
            doc! {"ok": 0, "errmsg": format!("no such command: {other:?}"), "code": 59, "codeName": "CommandNotFound"}
        }
    }
}

#[track_caller]
fn check(url: &str, body: &str, expected: &[&str]) {
    let config = format!(
        "socket=udp:127.0.0.1:5060\nloadmodule \"cachedb_mongodb.so\"\nmodparam(\"cachedb_mongodb\", \"cachedb_url\", \"{url}\")\n"
    );
    let mut found = run(&config, body, Dialect::V4).avps("r");
    found.reverse();
    assert_eq!(found, expected, "{body}");
}

#[test]
fn values_counters_and_commands() {
    let url = format!("mongodb:g://{}/db.col", start());
    check(
        &url,
        r#"cache_store("mongodb:g", "k", "a value"); cache_fetch("mongodb:g", "k", $avp(r));
            cache_fetch("mongodb:g", "none", $var(x)); $avp(r) = $rc;
            cache_add("mongodb:g", "n", 5, 0, $avp(r)); cache_sub("mongodb:g", "n", 7, 0, $avp(r)); cache_counter_fetch("mongodb:g", "n", $avp(r));
            cache_counter_fetch("mongodb:g", "k", $var(x)); $avp(r) = $rc;
            cache_remove("mongodb:g", "k"); $avp(r) = $rc; cache_fetch("mongodb:g", "k", $var(x)); $avp(r) = $rc;"#,
        &["a value", "-2", "5", "-2", "-2", "-2", "1", "-2"],
    );
    check(
        &url,
        r#"cache_raw_query("mongodb:g", "{ \"count\": \"col\", \"query\": { \"username\": \"x\" } }", "$avp(r)"); $avp(r) = $rc;
            cache_raw_query("mongodb:g", "{ \"nosuch\": 1 }", "$avp(r)"); $avp(r) = $rc;
            cache_raw_query("mongodb:g", "{ no json", "$avp(r)"); $avp(r) = $rc;"#,
        &[r#"{"ok":1,"n":1}"#, "1", "-1", "-1"],
    );
}

#[test]
fn a_server_that_is_not_there() {
    let url = "mongodb:g://127.0.0.1:1/db.col?serverSelectionTimeoutMS=200";
    check(url, r#"cache_fetch("mongodb:g", "k", $var(x)); $avp(r) = $rc;"#, &["-1"]);
}

const LOCATION: &str = r#"socket=udp:127.0.0.1:5060
loadmodule "signaling.so"
loadmodule "cachedb_mongodb.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
modparam("usrloc", "working_mode_preset", "full-sharing-cachedb-cluster")
modparam("usrloc", "cachedb_url", "mongodb:loc://ADDR/db.col")
"#;

/// Two servers, one after the other, on the documents of one.
#[test]
fn contacts_of_several_servers() {
    let addr = start();
    let config = LOCATION.replace("ADDR", &addr.to_string());
    let register = |contact: &str, expires: u32| {
        let text = format!(
            "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.2:5060;branch=z9hG4bK1\r\nFrom: <sip:a.b@example.com>;tag=1\r\n\
             To: <sip:a.b@example.com>\r\nCall-ID: {contact}\r\nCSeq: {} REGISTER\r\nContact: <{contact}>\r\nExpires: {expires}\r\n\r\n",
            if expires == 0 { 2 } else { 1 }
        );
        let message = Rc::new(sip::Message::parse(bytes::Bytes::from(text)).expect("a correct message"));
        let ran =
            run_with(&config, r#"save("location", "no-reply"); $avp(r) = $rc;"#, Dialect::V4, |state| {
                state.msg = message.clone();
                state.kind = script::ast::RouteKind::Request;
            });
        assert_eq!(ran.avps("r"), ["1"], "{contact}");
    };
    let found = || {
        let body = r#"lookup("location", "", "sip:a.b@example.com"); $avp(r) = $rc; $avp(r) = $ru; if ($(msg.branch.uri[1]) != NULL) $avp(r) = $(msg.branch.uri[1]);"#;
        let mut found = run(&config, body, Dialect::V4).avps("r");
        found.reverse();
        found
    };
    register("sip:one@10.0.0.1;x=$y%", 100);
    register("sip:two@10.0.0.2", 2000);
    let all = found();
    assert_eq!(all[0], "1", "{all:?}");
    assert!(
        all.contains(&"sip:one@10.0.0.1;x=$y%".to_string()) && all.contains(&"sip:two@10.0.0.2".to_string()),
        "{all:?}"
    );
    register("sip:one@10.0.0.1;x=$y%", 0);
    assert_eq!(found()[..2], ["1", "sip:two@10.0.0.2"]);
    register("sip:two@10.0.0.2", 0);
    assert_eq!(found()[0], "-1");
}
