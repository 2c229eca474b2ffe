//! Addresses from SQLite, partitions, reload, old functions.

use crate::testing::{Folder, Server, refused, run};
use script::ast::Dialect;
use serde_json::json;

fn database(folder: &Folder) -> rusqlite::Connection {
    let db = rusqlite::Connection::open(folder.0.join("s.db")).expect("a database");
    db.execute_batch(
        "create table address (id integer primary key, grp int, ip varchar(50), mask int default 32, port int default 0,
         proto varchar(4) default 'any', pattern varchar(64), context_info varchar(32));
         create table trunks (id integer primary key, grp int, ip varchar(50), mask int default 32, port int default 0,
         proto varchar(4) default 'any', pattern varchar(64), context_info varchar(32));
         create table trusted (src_ip varchar(50), proto varchar(4), from_pattern varchar(64), tag varchar(64));
         insert into address (grp, ip, mask, context_info) values (1, '10.0.0.0', 8, 'ten'), (2, '127.0.0.2', 32, 'me');
         insert into trunks (grp, ip, pattern) values (5, '127.0.0.2', 'x*');
         insert into trusted values ('127.0.0.2', 'any', '^sip:you@', NULL), ('127.0.0.9', 'tcp', NULL, NULL);",
    )
    .expect("tables");
    db
}

fn config(folder: &Folder) -> String {
    let url = format!("sqlite://{}", folder.0.join("s.db").display());
    format!(
        "socket=udp:127.0.0.1:5060\nloadmodule \"db_sqlite.so\"\nloadmodule \"permissions.so\"\n\
         modparam(\"permissions\", \"db_url\", \"{url}\")\n\
         modparam(\"permissions\", \"partition\", \"trunks: db_url = {url}; table_name = trunks\")\n"
    )
}

fn check(name: &str, dialect: Dialect, body: &str, expected: &[&str]) {
    let folder = Folder::new(name);
    database(&folder);
    let ran = run(&config(&folder), body, dialect);
    assert_eq!(ran.avps("r"), expected, "{body}");
    assert!(ran.waits > 0, "the first question waits for the table");
}

#[test]
fn addresses_and_partitions() {
    check(
        "perm-address",
        Dialect::V4,
        r#"$var(x) = check_address(1, "10.2.3.4", 5060, "udp", $avp(r)); $avp(r) = $var(x);
           $var(x) = check_source_address(2, $avp(r)); $avp(r) = $var(x);
           $var(x) = check_source_address(9); $avp(r) = $var(x);
           $var(x) = check_source_address(5, , "xy", "trunks"); $avp(r) = $var(x);
           $var(x) = check_source_address(5, , "yx", "trunks"); $avp(r) = $var(x);
           get_source_group($avp(r)); get_source_group($avp(r), "trunks");
           $var(x) = check_address(1, "10.2.3", 5060, "udp"); $avp(r) = $var(x);"#,
        &["-1", "5", "2", "-1", "1", "-2", "1", "me", "1", "ten"],
    );
}

#[test]
fn forms_of_2_1() {
    check(
        "perm-old",
        Dialect::V21,
        r#"if (check_source_address("2", "$avp(r)")) $avp(r) = "two"; if (!check_source_address("1")) $avp(r) = "no";
           if (check_address("0", "$si", "$sp", "$proto")) $avp(r) = "any";
           if (allow_trusted()) $avp(r) = "trusted"; if (!allow_trusted("127.0.0.9", "udp")) $avp(r) = "not";
           if (allow_source_address("2")) $avp(r) = "source";"#,
        &["source", "not", "trusted", "any", "no", "two", "me"],
    );
}

#[test]
fn a_reload_replaces_the_table() {
    let folder = Folder::new("perm-reload");
    let db = database(&folder);
    let mut server = Server::new(&format!("{}route {{ }}", config(&folder)), Dialect::V4);
    let dump = server.manage("address_dump", json!({"partition": "default"})).expect("a dump");
    assert_eq!(
        dump,
        json!({"part": "default", "Destinations": [{"grp": 2, "ip": "127.0.0.2", "mask": "32", "port": 0, "proto": "any",
               "pattern": "", "context_info": "me"}]})
    );
    let nets = server.manage("subnet_dump", json!({})).expect("a dump");
    assert_eq!(nets["Partitions"][0]["Destinations"][0]["mask"], "255.0.0.0");
    db.execute_batch("update address set ip = '127.0.0.3' where grp = 2").expect("a change");
    assert_eq!(server.manage("address_reload", json!([])), Ok(json!("OK")));
    let dump = server.manage("address_dump", json!({})).expect("a dump");
    assert_eq!(dump["Partitions"][0]["Destinations"][0]["ip"], "127.0.0.3");
    db.execute_batch("drop table address").expect("a change");
    assert!(server.manage("address_reload", json!({"partition": "default"})).is_err());
    assert_eq!(server.manage("address_dump", json!({})), Ok(dump));
    assert!(server.manage("address_dump", json!({"partition": "none"})).is_err());
}

#[test]
fn names_are_checked_at_load() {
    let folder = Folder::new("perm-names");
    let said = refused(&config(&folder), r#"check_source_address(1, , , "trunk");"#, Dialect::V4);
    assert!(said.contains("did you mean trunks"), "{said}");
    let bare = "socket=udp:127.0.0.1:5060\nloadmodule \"permissions.so\"\n";
    assert!(refused(bare, "check_source_address(1);", Dialect::V4).contains("db_url"));
}
