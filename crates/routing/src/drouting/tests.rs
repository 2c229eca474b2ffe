//! Scripts over small tables.

use crate::testing::{Folder, Ran, run};
use script::ast::Dialect;

const TABLES: &str = "
    create table dr_gateways (id integer primary key, gwid text, type int default 0, address text, strip int default 0,
      pri_prefix text, attrs text, probe_mode int default 0, state int default 0, socket text, description text);
    create table dr_rules (ruleid integer primary key, groupid text, prefix text, timerec text, priority int default 0,
      routeid text, gwlist text, sort_alg text default 'N', sort_profile int, attrs text, description text);
    create table dr_carriers (id integer primary key, carrierid text, gwlist text, flags int default 0,
      sort_alg text default 'N', state int default 0, attrs text, description text);
    create table dr_groups (id integer primary key, username text, domain text, groupid int default 0, description text);
    insert into dr_gateways (gwid, address, attrs) values ('gw1', '127.0.0.31:5080', 'a1'), ('gw2', '127.0.0.32:5080', NULL),
      ('gw3', 'sip:u@127.0.0.33;transport=tcp', NULL), ('bad', 'no address', NULL);
    insert into dr_carriers (carrierid, gwlist, attrs) values ('c1', 'gw2,gw1', 'carrier'), ('c2', '#c1', NULL);
    insert into dr_rules (groupid, prefix, priority, gwlist, attrs) values ('1', '49', 5, 'gw1,#c1', 'rule'),
      ('1', '49', 1, 'gw3', NULL), ('2', '', 0, 'gw2', NULL), ('1', '49x', 0, 'gw1', NULL), ('1', '8', 0, 'gw1;', NULL);
    insert into dr_groups (username, domain, groupid) values ('alice', 'a.org', 2);";

/// Runs `body`; `more` are further statements for the tables, and lines of the configuration.
fn with(name: &str, more: (&str, &str), body: &str, dialect: Dialect) -> Ran {
    let folder = Folder::new(name);
    let path = folder.0.join("d.db");
    let db = rusqlite::Connection::open(&path).expect("a database");
    db.execute_batch(TABLES).and_then(|()| db.execute_batch(more.0)).expect("tables");
    let config = format!(
        "socket=udp:127.0.0.1:5060\nloadmodule \"db_sqlite.so\"\nloadmodule \"drouting.so\"\n\
         modparam(\"drouting\", \"db_url\", \"sqlite://{}\")\nmodparam(\"drouting\", \"gw_id_avp\", \"$avp(gw)\")\n{}",
        path.display(),
        more.1
    );
    run(&config, body, dialect)
}

/// What the script put into `$avp(r)`, in that order.
fn said(name: &str, more: (&str, &str), body: &str, dialect: Dialect) -> Vec<String> {
    let mut list = with(name, more, body, dialect).avps("r");
    list.reverse();
    list
}

#[test]
fn a_script_waits_for_the_first_load() {
    let ran = with(
        "dr-first",
        ("", ""),
        "$ru = \"sip:4930@a.org\"; do_routing(1); $avp(r) = $ru; dr_match(1, , \"4930\"); $avp(r) = $rc;",
        Dialect::V4,
    );
    assert_eq!(ran.avps("r"), ["1", "sip:4930@127.0.0.31:5080"]);
    // Its own wait for the data, and what the load itself asks the database for.
    assert!(ran.waits >= 1);
}

#[test]
fn destinations_follow_one_another() {
    let body = "$ru = \"sip:49@a.org\"; do_routing(1, \"F\", , $var(r), $var(g), $var(c));
        $avp(r) = $ru + \" \" + $var(r) + \" \" + $var(g) + \" \" + $var(c);
        use_next_gw(, $var(g), $var(c)); $avp(r) = $ru + \" \" + $var(g) + \" \" + $var(c);
        use_next_gw(); $avp(r) = $ru; use_next_gw(); $avp(r) = $ru; use_next_gw(); $avp(r) = $rc;";
    let expected = [
        "sip:49@127.0.0.31:5080 rule a1 ",
        "sip:49@127.0.0.32:5080  carrier",
        "sip:49@127.0.0.31:5080",
        "sip:49@127.0.0.33;transport=tcp",
        "-1",
    ];
    assert_eq!(said("dr-follow", ("", ""), body, Dialect::V4), expected);
}

#[test]
fn the_caller_has_a_group() {
    let body = "$ru = \"sip:7@a.org\"; do_routing(); $avp(r) = $rc;
        $ru = \"sip:7@a.org\"; do_routing(2); $avp(r) = $ru;";
    let more = ("", "modparam(\"drouting\", \"default_group\", 2)\n");
    assert_eq!(said("dr-group", more, body, Dialect::V4), ["1", "sip:7@127.0.0.32:5080"]);
    assert_eq!(said("dr-nogroup", ("", ""), body, Dialect::V4)[0], "-1");
}

#[test]
fn rows_that_are_bad_leave_the_others() {
    let body = "$ru = \"sip:8@a.org\"; do_routing(1); $avp(r) = $rc; route_to_gw(\"bad\"); $avp(r) = $rc;
        route_to_carrier(\"c2\"); $avp(r) = $rc; route_to_gw(\"gw3\"); $avp(r) = $rc;";
    assert_eq!(said("dr-bad", ("", ""), body, Dialect::V4), ["-1", "-1", "-1", "1"]);
}

#[test]
fn routes_of_rules_work_on_the_message() {
    let more = "update dr_rules set routeid = 'mine' where ruleid = 1;
        insert into dr_rules (groupid, prefix, routeid, gwlist) values ('1', '5', 'stop', 'gw1');";
    let body = "$var(v) = \"before\"; $ru = \"sip:49@a.org\"; do_routing(1); $avp(r) = $ru + $var(v); setflag(\"f\");
        $ru = \"sip:5@a.org\"; do_routing(1); $avp(r) = $rc; }
        route[mine] { $ru = \"sip:99@b.org\"; $var(v) = \" changed\"; dr_match(1, , \"49\"); }
        route[stop] { drop;";
    assert_eq!(said("dr-routes", (more, ""), body, Dialect::V4), ["sip:49@127.0.0.31:5080 changed", "-1"]);
}

#[test]
fn the_functions_of_old() {
    let body = r#"
        $ru = "sip:49@a.org"; do_routing("1", "FW", "gw1", "$var(r)", "$var(g)"); $avp(r) = $ru; $avp(r) = $var(r) + " " + $var(g);
        use_next_gw("$var(r)", "$var(g)"); $avp(r) = $ru; if (next_routing()) { $avp(r) = "more"; } else { $avp(r) = "none"; }
        route_to_carrier("c1", "$var(g)", "$var(c)"); $avp(r) = $ru + " " + $var(c);
        if (goes_to_gw("0", "i")) { $avp(r) = "goes " + $avp(gw); }
        $avp(u) = "sip:127.0.0.31:5080"; if (dr_is_gw("$avp(u)", "-1")) { $avp(r) = "is"; }
        if (is_from_gw()) { $avp(r) = "from"; } else { $avp(r) = "not from"; }"#;
    let expected = [
        "sip:49@127.0.0.31:5080",
        "rule a1",
        // The white list leaves gw1 alone, and the next rule has only gw3.
        "sip:49@127.0.0.31:5080",
        "none",
        "sip:49@127.0.0.32:5080 carrier",
        "goes gw2",
        "is",
        "not from",
    ];
    assert_eq!(said("dr-old", ("", ""), body, Dialect::V21), expected);
}
