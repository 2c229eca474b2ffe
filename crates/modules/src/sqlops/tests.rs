use crate::testing::{Folder, Ran, refused, run};
use script::ast::Dialect;

const TABLES: &str = "
    sql_query(\"create table usr_preferences (id integer primary key, uuid varchar(64) default '', username \
    varchar(64) default '', domain varchar(64) default '', attribute varchar(32), type int default 0, value \
    varchar(128))\");
    sql_query(\"create table t (a int, b varchar(20), c double)\");
    sql_query(\"insert into t values (1, 'one', 1.5), (2, 'two', NULL), (5000000000, 'big', 3)\");";

fn config(folder: &Folder) -> String {
    let path = folder.0.join("s.db");
    format!(
        "socket=udp:127.0.0.1:5060\nloadmodule \"sqlops.so\"\nloadmodule \"db_sqlite.so\"\n\
         modparam(\"sqlops\", \"db_url\", \"sqlite://{0}\")\nmodparam(\"sqlops\", \"db_url\", \"2 sqlite://{0}\")\n\
         modparam(\"sqlops\", \"db_scheme\", \"s1:table=t;uuid_col=b;value_col=a;value_type=integer\")\n",
        path.display()
    )
}

fn script(name: &str, body: &str) -> Ran {
    let folder = Folder::new(name);
    run(&config(&folder), &format!("{TABLES}{body}"), Dialect::V4)
}

/// Each: a name, a body, and the values of `$avp(r)` and `$avp(v)` that it leaves.
fn check(name: &str, body: &str, r: &[&str], v: &[&str]) {
    let ran = script(name, body);
    assert_eq!(ran.avps("r"), r, "$avp(r) of {name}");
    assert_eq!(ran.avps("v"), v, "$avp(v) of {name}");
    assert!(ran.waits > 3);
}

#[test]
fn a_query_fills_avps_first_row_first() {
    check(
        "rows",
        r#"$avp(v) = "old"; $var(x) = sql_query("select b, c from t order by a", "$avp(v);$avp(c)"); $avp(r) = $var(x);
           $avp(r) = $(avp(c)[1]);"#,
        &["<null>", "1"],
        &["one", "two", "big", "old"],
    );
    check(
        "numbered",
        r#"sql_query("select a, b from t where a = 1"); $avp(r) = $avp(2); $avp(v) = $avp(1) + 1;"#,
        &["one"],
        &["2"],
    );
}

#[test]
fn return_codes() {
    check(
        "codes",
        r#"$avp(v) = "v"; $var(x) = sql_query("select a from t where a = 9", "$avp(v)"); $avp(r) = $var(x);
           $var(x) = sql_query("select nonsense", "$avp(v)"); $avp(r) = $var(x);
           $var(x) = sql_query("update t set c = 4"); $avp(r) = $var(x);"#,
        &["-2", "-1", "-2"],
        &["v"],
    );
}

#[test]
fn one_row_into_any_variable() {
    check(
        "one",
        r#"$var(c) = "x"; sql_query_one("select b, c from t where a > 1 order by a", "$var(b);$var(c)");
           $avp(v) = $var(b); if ($var(c) == NULL) $avp(r) = "null";
           $var(x) = sql_query_one("select a, b from t", "$var(b)"); $avp(r) = $var(x);"#,
        &["-1", "null"],
        &["two"],
    );
}

#[test]
fn structured_functions() {
    check(
        "structured",
        r#"$var(name) = "it's";
           $var(x) = sql_insert("t", '[{"a": 7}, {"b": "$var(name)"}]'); $avp(r) = $var(x);
           $var(x) = sql_update('[{"c": 2.5}]', "t", '[{"a": {">=": 7}}, {"b": "$var(name)"}]'); $avp(r) = $var(x);
           sql_select('["b"]', "t", '[{"a": {"<": 10}}]', "a", "$avp(v)", 2);
           sql_select_one('["c"]', "t", '[{"b": "$var(name)"}]', , "$var(c)"); $avp(r) = $var(c);
           sql_delete("t", '[{"c": null}]');
           $var(x) = sql_select(, "t", '[{"a": 2}]', , "$avp(v)"); $avp(r) = $var(x);
           $var(x) = sql_delete("t", '[{"a": '); $avp(r) = $var(x);
           sql_replace("t", '[{"a": 9}]');
           sql_query_one("select count(*) from t", "$var(n)"); $avp(r) = $var(n);"#,
        &["4", "-1", "-2", "2.5", "1", "1"],
        &["one", "two", "it's"],
    );
}

#[test]
fn preferences_are_stored_loaded_and_deleted() {
    check(
        "preferences",
        r#"$avp(id) = "id-1"; $avp(color) = "red"; $avp(color) = "blue"; $avp(n) = 5;
           $var(x) = sql_avp_store("$avp(id)", "$avp(color)"); $avp(r) = $var(x);
           sql_avp_store("$avp(id)/uuid", "$avp(n)", 2);
           $var(x) = sql_avp_store("sip:bob@example.com/uri", "$avp(n)"); $avp(r) = $var(x);
           $avp(n) = 6;
           sql_avp_store("sip:bob@example.com/uri", "$avp(n)");
           $(avp(color)[*]) = NULL; $(avp(n)[*]) = NULL;
           $var(x) = sql_avp_load("$avp(id)", "$avp(color)"); $avp(r) = $var(x);
           $avp(v) = $(avp(color)[*]);
           sql_avp_load("$avp(id)", "a", , "caller_"); $avp(v) = $avp(caller_n) + 1;
           $var(x) = sql_avp_load("sip:carol@example.com/username", "$avp(n)"); $avp(r) = $var(x);
           $var(x) = sql_avp_load("bob/username", "$avp(n)"); $avp(r) = $var(x);
           $var(x) = sql_avp_load("sip:bob@example.com/username", "$avp(n)"); $avp(r) = $var(x);
           sql_avp_delete("$avp(id)", "$avp(color)");
           $var(x) = sql_avp_load("$avp(id)", "$avp(color)"); $avp(r) = $var(x);
           sql_query_one("select count(*), max(domain) from usr_preferences", "$var(n);$var(d)");
           $avp(r) = $var(n); $avp(r) = $var(d);
           sql_avp_load("two", "$avp(s)/$s1"); $avp(v) = $avp(s) + 1;"#,
        &["example.com", "2", "-1", "1", "-1", "-1", "1", "-1", "1"],
        &["3", "6", "red, blue"],
    );
}

#[test]
fn mistakes_are_found_when_the_script_is_loaded() {
    let folder = Folder::new("mistakes");
    let config = config(&folder);
    for (body, says) in [
        (r#"sql_query("select 1", , 7);"#, "there is no database number 7"),
        (r#"sql_avp_load("$avp(x)/color", "$avp(y)");"#, "none of username"),
        (r#"sql_avp_load("$avp(x)", "$var(y)");"#, "is no AVP"),
        (r#"sql_avp_load("$avp(x)", "$avp(y)/$absent");"#, "there is no db_scheme absent"),
        (r#"sql_avp_load("$avp(x)", "a/$s1");"#, "a db_scheme holds one attribute"),
        (r#"sql_avp_store("$avp(x)", "$avp(y)/$s1");"#, "writes no db_scheme"),
        (r#"sql_query();"#, "sql_query() takes"),
    ] {
        let error = refused(&config, body, Dialect::V4);
        assert!(error.contains(says), "{body}: {error}");
    }
    let error = refused(&config.replace("loadmodule \"db_sqlite.so\"", ""), "", Dialect::V4);
    assert!(error.contains("loadmodule \"db_sqlite.so\""), "{error}");
}

#[test]
fn large_numbers_as_texts() {
    let folder = Folder::new("large");
    let config = config(&folder) + "modparam(\"sqlops\", \"bigint_to_str\", 1)\n";
    let body = format!(
        "{TABLES} sql_query(\"select a from t order by a desc\", \"$avp(v)\"); $avp(r) = $avp(v) + \"x\";"
    );
    let ran = run(&config, &body, Dialect::V4);
    assert_eq!(ran.avps("v"), ["5000000000", "2", "1"]);
    assert_eq!(ran.avps("r"), ["5000000000x"]);
}
