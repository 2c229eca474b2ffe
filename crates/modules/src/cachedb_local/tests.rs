use super::file;
use super::table::Table;
use crate::testing::{Folder, refused, run};
use bytes::Bytes;
use script::ast::Dialect;

const CONFIG: &str = "socket=udp:127.0.0.1:5060
loadmodule \"cachedb_local.so\"
modparam(\"cachedb_local\", \"cache_collections\", \"one/r; two = 5; default = 4\")
modparam(\"cachedb_local\", \"cachedb_url\", \"local:first:///one\")
modparam(\"cachedb_local\", \"cachedb_url\", \"local:second:///two\")
";

/// What the script leaves in `$avp(r)`, in order.
fn check(body: &str, expected: &[&str]) {
    for wrapped in [Dialect::V4, Dialect::V21] {
        let ran = run(CONFIG, body, wrapped);
        let mut found = ran.avps("r");
        found.reverse();
        assert_eq!(found, expected, "{body}");
        assert_eq!(ran.waits, 0, "memory answers at once");
    }
}

#[test]
fn values_and_counters() {
    check(
        r#"cache_store("local", "k", "v"); cache_fetch("local", "k", $avp(r)); cache_fetch("local:first", "k", $avp(r)); $avp(r) = $rc;"#,
        &["v", "-2"],
    );
    check(
        r#"cache_store("local:first", "k", "1"); cache_add("local:first", "k", 4, 0, $avp(r)); cache_sub("local:first", "k", 7, 0, $var(x)); $avp(r) = $var(x); cache_counter_fetch("local:first", "k", $var(y)); $avp(r) = $var(y);"#,
        &["5", "-2", "-2"],
    );
    check(
        r#"cache_store("local", "k", "text"); cache_counter_fetch("local", "k", $var(y)); $avp(r) = $rc; cache_add("local", "k", 1, 0); $avp(r) = $rc; cache_remove("local", "none"); $avp(r) = $rc; cache_raw_query("local", "x", "$avp(q)"); $avp(r) = $rc;"#,
        &["-3", "-1", "1", "-1"],
    );
    check(
        r#"$var(s) = "local:second"; cache_store($var(s), "k", "v"); cache_fetch("local:second", "k", $avp(r)); cache_store("nowhere", "k", "v"); $avp(r) = $rc; cache_store("local", "", "v"); $avp(r) = $rc;"#,
        &["v", "-1", "-1"],
    );
}

#[test]
fn chunks() {
    let fetch = r#"if (cache_fetch("local", "a_1", $var(x))) $avp(r) = "a"; if (cache_fetch("local", "b_1", $var(x))) $avp(r) = "b";"#;
    let fill = r#"cache_store("local", "a_1", "x"); cache_store("local", "b_1", "x");"#;
    check(&format!("{fill} cache_remove_chunk(\"a_*\"); {fetch}"), &["b"]);
    check(&format!("{fill} cache_remove_chunk(\"default\", \"?_1\"); {fetch}"), &[]);
    check(&format!("{fill} cache_remove_chunk(\"none\", \"*\"); $avp(r) = $rc; {fetch}"), &["-1", "a", "b"]);
}

#[test]
fn an_unknown_collection_is_an_error_of_the_configuration() {
    let config = "socket=udp:127.0.0.1:5060\nloadmodule \"cachedb_local.so\"\nmodparam(\"cachedb_local\", \"cachedb_url\", \"local:///none\")\n";
    assert!(refused(config, "exit;", Dialect::V4).contains("there is no collection `none`"));
}

#[test]
fn a_restart_keeps_what_is_alive() {
    let folder = Folder::new("cachedb-local");
    let path = folder.0.join("cache");
    let text = |s: &'static str| Bytes::from_static(s.as_bytes());
    let list = [("one".to_string(), Table::default())];
    for (key, value, seconds) in [("a", "\u{1}\n", 0), ("b", "x", 10), ("c", "y", 100)] {
        list[0].1.store(5000, text(key), text(value), seconds).expect("room");
    }
    file::write(&path, &list, 5000, 1_000_000);
    let later = [("one".to_string(), Table::default())];
    file::read(&path, &later, 0, 1_000_040);
    assert_eq!(later[0].1.list(0, |_| true), [(text("a"), text("\u{1}\n"), 0), (text("c"), text("y"), 60)]);
}
