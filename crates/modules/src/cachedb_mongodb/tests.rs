//! Scripts through the official driver against a server that knows just enough of the wire protocol
//! (OP_MSG, and OP_QUERY for the greeting). It is a stand-in: no real MongoDB was to be had here.

use crate::testing::run;
use mongodb::bson::{Bson, Document, doc};
use script::ast::Dialect;
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
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

fn change(document: &mut Document, update: &Document) {
    for (name, value) in update.get_document("$set").into_iter().flatten() {
        document.insert(name, value.clone());
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
        Some("ping" | "endSessions") => doc! {"ok": 1},
        Some("find") => {
            let found = documents.get(&id(command.get_document("filter").expect("a filter")));
            let batch: Vec<Bson> = found.into_iter().map(|d| Bson::Document(d.clone())).collect();
            doc! {"ok": 1, "cursor": {"id": 0i64, "ns": "db.col", "firstBatch": batch}}
        }
        Some("update") => {
            let update = first(command, "updates");
            let key = id(update.get_document("q").expect("a filter"));
            let document = documents.entry(key.clone()).or_insert_with(|| doc! {"_id": key});
            change(document, update.get_document("u").expect("a change"));
            doc! {"ok": 1, "n": 1, "nModified": 1}
        }
        Some("delete") => {
            let gone = documents.remove(&id(first(command, "deletes").get_document("q").expect("a filter")));
            doc! {"ok": 1, "n": i32::from(gone.is_some())}
        }
        Some("findAndModify") => {
            let key = id(command.get_document("query").expect("a filter"));
            let document = documents.entry(key.clone()).or_insert_with(|| doc! {"_id": key});
            change(document, command.get_document("update").expect("a change"));
            doc! {"ok": 1, "value": document.clone()}
        }
        Some("count") => doc! {"ok": 1, "n": documents.len() as i32},
        other => doc! {"ok": 0, "errmsg": format!("no such command: {other:?}"), "code": 59, "codeName": "CommandNotFound"},
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
