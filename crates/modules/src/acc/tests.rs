//! Whole calls, and what their accounting leaves in SQLite and in events.

use crate::testing::{Folder, Server, refused, run};
use rusqlite::Connection;
use script::ast::Dialect;

const COLUMNS: &str = "method varchar(16) not null default '', from_tag varchar(64) not null default '', \
    to_tag varchar(64) not null default '', callid varchar(64) not null default '', sip_code varchar(3) not null \
    default '', sip_reason varchar(32) not null default '', time datetime not null, setuptime int default 0, created \
    datetime, who varchar(20), leg varchar(20)";

fn database(folder: &Folder) -> Connection {
    let db = Connection::open(folder.0.join("s.db")).expect("a database");
    let tables = format!(
        "create table acc ({COLUMNS}, duration int default 0, ms_duration int default 0);
         create table missed_calls ({COLUMNS});
         create table other ({COLUMNS}, duration int default 0, ms_duration int default 0);"
    );
    db.execute_batch(&tables).expect("tables");
    db
}

fn rows(db: &Connection, query: &str) -> Vec<String> {
    let mut statement = db.prepare(query).expect(query);
    let width = statement.column_count();
    let row = |row: &rusqlite::Row| -> rusqlite::Result<String> {
        let cells: Result<Vec<String>, _> = (0..width)
            .map(|i| {
                row.get::<_, rusqlite::types::Value>(i).map(|v| match v {
                    rusqlite::types::Value::Null => "-".to_string(),
                    rusqlite::types::Value::Integer(n) => n.to_string(),
                    rusqlite::types::Value::Real(x) => x.to_string(),
                    rusqlite::types::Value::Text(t) => t,
                    rusqlite::types::Value::Blob(b) => String::from_utf8_lossy(&b).into_owned(),
                })
            })
            .collect();
        Ok(cells?.join(" "))
    };
    let list: Result<Vec<String>, _> = statement.query_map([], row).expect(query).collect();
    list.expect(query)
}

fn config(folder: &Folder, params: &str, routes: &str) -> String {
    format!(
        "socket=udp:127.0.0.1:5060\nloadmodule \"db_sqlite.so\"\nloadmodule \"tm.so\"\nloadmodule \"sl.so\"\nloadmodule \"rr.so\"\n\
         loadmodule \"signaling.so\"\nloadmodule \"sqlops.so\"\nloadmodule \"acc.so\"\n\
         modparam(\"sqlops\", \"db_url\", \"sqlite://{0}\")\n\
         modparam(\"acc\", \"db_url\", \"sqlite://{0}\")\n{params}\n{routes}",
        folder.0.join("s.db").display()
    )
}

fn invite(branch: &str) -> String {
    format!(
        "INVITE sip:bob@127.0.0.3:5070 SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.2:5060;branch=z9hG4bK{branch}\nMax-Forwards: 70\n\
         From: <sip:alice@example.com>;tag=a1\nTo: <sip:bob@example.com>\nCall-ID: call-{branch}\nCSeq: 1 INVITE\n\
         Content-Length: 0\n\n"
    )
}

/// A call to `routes`; each forwarded INVITE gets the next status.
fn call(server: &mut Server, branch: &str, statuses: &[u16]) -> Vec<String> {
    let mut statuses = statuses.iter();
    let mut sent = server.receive("127.0.0.2:5060", &invite(branch));
    let mut replies = Vec::new();
    while !sent.is_empty() {
        let mut next = Vec::new();
        for message in sent {
            if message.text.starts_with("SIP/2.0 ") {
                replies.push(message.text[8..11].to_string());
            }
            if message.text.starts_with("INVITE")
                && let Some(status) = statuses.next()
            {
                let head = message.text.split("\r\n\r\n").next().unwrap_or_default();
                let lines: Vec<&str> = head.split("\r\n").skip(1).collect();
                let lines = lines.join("\n").replace("example.com>\nCall", "example.com>;tag=b1\nCall");
                next.extend(
                    server.receive("127.0.0.3:5070", &format!("SIP/2.0 {status} Because\n{lines}\n\n")),
                );
            }
        }
        sent = next;
    }
    replies
}

const NEW: &str = r#"
    route { do_accounting("db", "missed"); $acc_extra(who) = "w"; t_on_failure("f"); t_relay(); }
    failure_route[f] { if (t_check_status("486")) { do_accounting("db", "missed"); t_relay(); } }"#;

const FIELDS: &str = r#"modparam("acc", "extra_fields", "db: who")"#;

#[test]
fn answered_calls_stand_in_acc() {
    let folder = Folder::new("acc-answered");
    let db = database(&folder);
    let mut server = Server::new(&config(&folder, FIELDS, NEW), Dialect::V4);
    assert_eq!(call(&mut server, "1", &[200]), ["100", "200"]);
    let query = "select method, from_tag, to_tag, callid, sip_code, sip_reason, setuptime, who, strftime('%s', created) > 0 from acc";
    assert_eq!(rows(&db, query), ["INVITE a1 b1 call-1 200 Because 0 w 1"]);
    assert_eq!(rows(&db, "select * from missed_calls"), Vec::<String>::new());
}

/// The time of a record is that of the answer, so that BYE less INVITE is what was talked.
#[test]
fn times_are_those_of_answers() {
    let folder = Folder::new("acc-times");
    let db = database(&folder);
    let routes = r#"route { do_accounting("db|log"); t_relay(); }"#;
    let mut server = Server::new(&config(&folder, FIELDS, routes), Dialect::V4);
    let sent = server.receive("127.0.0.2:5060", &invite("1"));
    let relayed = sent.iter().find(|m| m.text.starts_with("INVITE")).expect("the INVITE");
    let head = relayed.text.split("\r\n\r\n").next().expect("a head");
    let lines: Vec<&str> = head.split("\r\n").skip(1).collect();
    let lines = lines.join("\n").replace("example.com>\nCall", "example.com>;tag=b1\nCall");
    server.receive("127.0.0.3:5070", &format!("SIP/2.0 180 Ringing\n{lines}\n\n"));
    server.advance(7_000);
    server.receive("127.0.0.3:5070", &format!("SIP/2.0 200 Fine\n{lines}\n\n"));
    let query = "select strftime('%s', time) - strftime('%s', created), setuptime from acc";
    assert_eq!(rows(&db, query), ["7 7"]);
}

#[test]
fn each_missed_destination_is_reported_when_it_is_marked_again() {
    let folder = Folder::new("acc-missed");
    let db = database(&folder);
    let mut server = Server::new(&config(&folder, FIELDS, NEW), Dialect::V4);
    assert_eq!(call(&mut server, "1", &[486, 480]), ["100", "480"]);
    assert_eq!(rows(&db, "select sip_code, to_tag from missed_calls"), ["486 b1", "480 b1"]);
    assert_eq!(rows(&db, "select * from acc"), Vec::<String>::new());
    // A failure that nobody marked again is reported once.
    let once = r#"route { do_accounting("db", "missed|failed", "other"); t_on_failure("f"); t_relay(); }
                  failure_route[f] { if (t_check_status("486")) t_relay(); }"#;
    db.execute_batch("delete from missed_calls").expect("empty");
    let mut server = Server::new(&config(&folder, FIELDS, once), Dialect::V4);
    assert_eq!(call(&mut server, "2", &[486, 480]), ["100", "480"]);
    assert_eq!(rows(&db, "select sip_code from missed_calls"), ["486"]);
    assert_eq!(rows(&db, "select sip_code, callid from other"), ["480 call-2"]);
}

#[test]
fn flags_of_2_1_mark_and_variables_are_extra_values() {
    let folder = Folder::new("acc-flags");
    let db = database(&folder);
    let params = r#"modparam("acc", "db_flag", "ACC") modparam("acc", "db_missed_flag", 3)
        modparam("acc", "failed_transaction_flag", "FAILED") modparam("acc", "db_extra", "who=$fU")
        modparam("acc", "multi_leg_info", "leg=$avp(leg)")"#;
    let routes =
        r#"route { $msg.flag(ACC) = 1; $msg.flag(3) = 1; $avp(leg) = "one"; $avp(leg) = "two"; t_relay(); }"#;
    let mut server = Server::new(&config(&folder, params, routes), Dialect::V21);
    assert_eq!(call(&mut server, "1", &[200]), ["100", "200"]);
    assert_eq!(rows(&db, "select callid, who, leg from acc"), ["call-1 alice two", "call-1 alice one"]);
    assert_eq!(call(&mut server, "2", &[404]), ["100", "404"]);
    assert_eq!(
        rows(&db, "select callid, sip_code, leg from missed_calls"),
        ["call-2 404 two", "call-2 404 one"]
    );
    assert_eq!(rows(&db, "select count(*) from acc"), ["2"]);
}

#[test]
fn legs_make_rows_and_drop_accounting_ends_it() {
    let folder = Folder::new("acc-legs");
    let db = database(&folder);
    let fields = r#"modparam("acc", "leg_fields", "db: leg")"#;
    let routes = r#"route { do_accounting("db"); $acc_leg(leg) = "a"; acc_new_leg(); $acc_leg(leg) = "b";
                            acc_new_leg(); $(acc_leg(leg)[2]) = "c"; t_relay(); }"#;
    let mut server = Server::new(&config(&folder, fields, routes), Dialect::V4);
    call(&mut server, "1", &[200]);
    assert_eq!(rows(&db, "select leg from acc"), ["a", "b", "c"]);
    let routes = r#"route { do_accounting("db|log", "failed"); drop_accounting("db"); t_relay(); }"#;
    let mut server = Server::new(&config(&folder, fields, routes), Dialect::V4);
    call(&mut server, "2", &[200]);
    assert_eq!(rows(&db, "select count(*) from acc"), ["3"]);
}

#[test]
fn a_caller_that_gives_up_while_the_script_waits_is_missed() {
    let folder = Folder::new("acc-cancel");
    let db = database(&folder);
    let routes = r#"loadmodule "cfgutils.so"
        route { do_accounting("db", "missed"); sleep(5); t_relay(); }"#;
    let mut server = Server::new(&config(&folder, FIELDS, routes), Dialect::V4);
    server.receive("127.0.0.2:5060", &invite("1"));
    let cancel = invite("1").replace("INVITE", "CANCEL");
    let sent = server.receive("127.0.0.2:5060", &cancel);
    assert!(sent.iter().any(|m| m.text.starts_with("SIP/2.0 487")));
    assert_eq!(rows(&db, "select sip_code, callid from missed_calls"), ["487 call-1"]);
}

#[test]
fn events_say_the_same() {
    let folder = Folder::new("acc-events");
    let db = database(&folder);
    let fields = r#"modparam("acc", "extra_fields", "evi: a->extra")"#;
    let routes = r#"route { do_accounting("evi", "missed"); $acc_extra(a) = "x"; t_relay(); }
        event_route[E_ACC_EVENT] { sql_query("insert into acc (time, method, callid, who) values (0, '$param(method)', '$param(callid)', '$param(extra)')"); }
        event_route[E_ACC_MISSED_EVENT] { sql_query("insert into missed_calls (time, sip_code, callid) values (0, '$param(sip_code)', '$param(callid)')"); }"#;
    let mut server = Server::new(&config(&folder, fields, routes), Dialect::V4);
    call(&mut server, "1", &[200]);
    call(&mut server, "2", &[486]);
    assert_eq!(rows(&db, "select method, callid, who from acc"), ["INVITE call-1 x"]);
    assert_eq!(rows(&db, "select sip_code, callid from missed_calls"), ["486 call-2"]);
}

#[test]
fn reports_on_the_spot() {
    let folder = Folder::new("acc-spot");
    let db = database(&folder);
    let text = config(&folder, FIELDS, "");
    let ran = run(
        &text,
        r#"$acc_extra(who) = 5; $avp(r) = $acc_extra(who); acc_db_request("403 Not here", "missed_calls");
           $avp(r) = $rc; acc_log_request("Nothing"); $avp(r) = $rc; acc_db_request("x", "no_such_table"); $avp(r) = $rc;"#,
        Dialect::V4,
    );
    assert_eq!(ran.avps("r"), ["-1", "1", "1", "5"]);
    assert_eq!(rows(&db, "select sip_code, sip_reason, who from missed_calls"), ["403 Not here 5"]);
}

#[test]
fn what_is_wrong_is_said() {
    let folder = Folder::new("acc-wrong");
    for (body, words) in [
        (r#"do_accounting("db", "cdr");"#, "need module dialog"),
        (r#"do_accounting("sql");"#, "`sql` is none of"),
        (r#"do_accounting("log", "lost");"#, "`lost` is none of"),
        (r#"do_accounting("aaa");"#, "aaa_url"),
        (r#"$acc_extra(whom) = 1;"#, "did you mean $acc_extra(who)"),
    ] {
        let text = config(&folder, FIELDS, "");
        let said = refused(&text, body, Dialect::V4);
        assert!(said.contains(words), "{body}: {said}");
    }
}
