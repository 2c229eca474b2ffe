//! Selections and states over tables of SQLite, in both dialects.

use crate::testing::{Folder, Server};
use script::ast::Dialect;
use serde_json::json;

/// Tables `dispatcher` (as 4.x has it, with attributes) from rows of (set, destination, state, weight, attributes).
fn table(folder: &Folder, rows: &[(i64, &str, i64, &str, &str)]) {
    let db = rusqlite::Connection::open(folder.0.join("d.db")).expect("a database");
    db.execute_batch(
        "create table dispatcher (id integer primary key, setid int, destination text, socket text, state int, \
         probe_mode int default 0, weight text default '1', priority int default 0, attrs text, description text)",
    )
    .expect("a table");
    for row in rows {
        let insert =
            "insert into dispatcher (setid, destination, state, weight, attrs) values (?1, ?2, ?3, ?4, ?5)";
        db.execute(insert, *row).expect("a row");
    }
}

fn server(folder: &Folder, params: &str, script: &str, dialect: Dialect) -> Server {
    let config = format!(
        "socket=udp:127.0.0.1:5060\nloadmodule \"signaling.so\"\nloadmodule \"sl.so\"\nloadmodule \"tm.so\"\nloadmodule \"cfgutils.so\"\n\
         loadmodule \"db_sqlite.so\"\nloadmodule \"dispatcher.so\"\n\
         modparam(\"dispatcher\", \"db_url\", \"sqlite://{}\")\n{params}\n{script}",
        folder.0.join("d.db").display()
    );
    let config = match dialect {
        Dialect::V4 => config,
        _ => config.replace("socket=udp", "listen=udp"),
    };
    Server::new(&config, dialect)
}

fn invite(n: u32) -> String {
    format!(
        "INVITE sip:bob@example.com SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.2;branch=z9hG4bK{n}\nFrom: <sip:a@x>;tag=1\n\
         To: <sip:b@x>\nCall-ID: c{n}\nCSeq: 1 INVITE\nMax-Forwards: 9\nContent-Length: 0\n\n"
    )
}

/// The reason of the final reply to an INVITE.
fn ask(server: &mut Server, n: u32) -> String {
    let mut sent = server.receive("127.0.0.2:5060", &invite(n));
    for _ in 0..50 {
        if let Some(last) = sent.iter().find(|sent| sent.text.starts_with("SIP/2.0 200")) {
            let line = last.text.split("\r\n").next().unwrap_or_default();
            return line.trim_start_matches("SIP/2.0 200 ").to_string();
        }
        sent = server.advance(100);
    }
    panic!("no final reply");
}

const THREE: [(i64, &str, i64, &str, &str); 3] =
    [(1, "sip:10.0.0.1", 0, "1", "30"), (1, "sip:10.0.0.2", 0, "1", "10"), (2, "sip:10.0.0.3", 0, "1", "20")];

#[test]
fn lists_of_sets_in_2_1() {
    let folder = Folder::new("ds-old");
    table(&folder, &THREE);
    let script = r#"route {
        ds_select_dst("1, 2", "8", "f M 2, f");
        $var(all) = $(avp(ds_dst_failover)[*]);
        $var(first) = $du;
        ds_next_dst(); ds_next_dst();
        $var(third) = $du;
        ds_count("2", "a", "$var(n)");
        $var(set) = "default : 2";
        if (ds_is_in_list("10.0.0.3", "", "$var(set)")) { $var(in) = "in"; }
        if (ds_is_in_list("10.0.0.3", "5060", "2", "1")) { $var(in) = "active"; }
        sl_send_reply("200", "$var(first) $var(third) $var(n) $var(in) of $var(all)");
    }"#;
    let mut server = server(&folder, "", script, Dialect::V21);
    assert_eq!(
        ask(&mut server, 1),
        "sip:10.0.0.1 sip:10.0.0.3 1 active of sip:10.0.0.1, sip:10.0.0.2, sip:10.0.0.3"
    );
}

#[test]
fn flag_s_keeps_a_destination_in_2_1() {
    let folder = Folder::new("ds-force");
    table(&folder, &THREE);
    let script = r#"route {
        $du = "sip:10.9.9.9";
        $var(r) = 0;
        if (ds_select_dst("1", "8", "s")) { $var(r) = 1; }
        sl_send_reply("200", "$var(r) $du");
    }"#;
    let mut server = server(&folder, "", script, Dialect::V21);
    assert_eq!(ask(&mut server, 1), "0 sip:10.9.9.9");
}

#[test]
fn a_route_that_waits_gives_scores() {
    let folder = Folder::new("ds-scores");
    table(
        &folder,
        &[THREE[0], THREE[1], (1, "sip:10.0.0.4", 1, "1", "5"), (1, "sip:10.0.0.5", 0, "1", "no")],
    );
    let script = r#"route {
        ds_select_dst(1, 10, "f");
        $var(r) = $rc;
        send_reply(200, "$var(r) $(avp(ds_dst_failover)[*])");
    }
    route[score] {
        usleep(150000);
        if ($param(attrs) == "no") return(-1);
        return($(param(2){s.int}));
    }"#;
    let mut server =
        server(&folder, "modparam(\"dispatcher\", \"algo_route\", \"score\")", script, Dialect::V4);
    assert_eq!(ask(&mut server, 1), "1 sip:10.0.0.2, sip:10.0.0.1, sip:10.0.0.5");
}

#[test]
fn weights_share_out_turns() {
    let folder = Folder::new("ds-turns");
    table(&folder, &[(1, "sip:10.0.0.1", 0, "3", ""), (1, "sip:10.0.0.2", 0, "1", "")]);
    let script = "route { ds_select_dst(1, 4); sl_send_reply(200, \"$dd\"); }";
    let mut server = server(&folder, "", script, Dialect::V4);
    let turns: Vec<String> = (0..8).map(|n| ask(&mut server, n)).collect();
    let expected = ["10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2"];
    assert_eq!(turns, [expected, expected].concat());
}

#[test]
fn at_random_every_active_one_is_met() {
    let folder = Folder::new("ds-random");
    table(&folder, &[THREE[0], THREE[1], (1, "sip:10.0.0.9", 1, "9", "")]);
    let script = "route { ds_select_dst(1, 6); sl_send_reply(200, \"$dd\"); }";
    let mut server = server(&folder, "", script, Dialect::V4);
    let mut met: Vec<String> = (0..40).map(|n| ask(&mut server, n)).collect();
    met.sort_unstable();
    met.dedup();
    assert_eq!(met, ["10.0.0.1", "10.0.0.2"]);
}

fn state_of(server: &mut Server, uri: &str) -> String {
    let list = server.manage("ds_list", json!({})).expect("a list");
    let sets = list["PARTITIONS"][0]["SETS"].as_array().expect("sets").clone();
    let all = sets.iter().flat_map(|set| set["Destinations"].as_array().expect("a list").clone());
    let found = all.into_iter().find(|one| one["URI"] == uri).expect("it is listed");
    found["state"].as_str().expect("a text").to_string()
}

#[test]
fn one_probe_at_a_time_and_states_follow_from_answers() {
    let folder = Folder::new("ds-probes");
    table(&folder, &[(1, "sip:10.0.0.1", 0, "1", "")]);
    let params = "modparam(\"dispatcher\", \"ds_ping_interval\", 2)\nmodparam(\"dispatcher\", \"ds_probing_mode\", 1)\n\
                  modparam(\"dispatcher\", \"ds_probing_threshold\", 2)\nmodparam(\"dispatcher\", \"options_reply_codes\", \"404\")";
    let mut server = server(&folder, params, "route { exit; }", Dialect::V4);
    let probe = |server: &mut Server| -> Vec<String> {
        let sent = (0..30).flat_map(|_| server.advance(100)).map(|sent| sent.text);
        let mut probes: Vec<String> = sent.filter(|text| text.starts_with("OPTIONS")).collect();
        probes.dedup();
        probes
    };
    let answer = |server: &mut Server, probe: &str, status: &str| {
        let keep =
            |name: &&str| ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|n| name.starts_with(n));
        let head: Vec<&str> = probe.split("\r\n").filter(keep).collect();
        let reply = format!("SIP/2.0 {status}\n{}\nContent-Length: 0\n\n", head.join("\n"));
        server.receive("10.0.0.1:5060", &reply);
    };
    let first = probe(&mut server);
    assert_eq!(first.len(), 1);
    // It is not answered: however long that takes, there is no second one, only repetitions.
    let repeated = probe(&mut server);
    assert!(repeated.iter().all(|text| *text == first[0]), "{repeated:?}");
    answer(&mut server, &first[0], "503 No");
    assert_eq!(state_of(&mut server, "sip:10.0.0.1"), "Active");
    let second = probe(&mut server);
    answer(&mut server, &second[0], "503 No");
    assert_eq!(state_of(&mut server, "sip:10.0.0.1"), "Probing");
    let third = probe(&mut server);
    answer(&mut server, &third[0], "404 Not Here");
    assert_eq!(state_of(&mut server, "sip:10.0.0.1"), "Active");
}

#[test]
fn states_are_written_and_a_reload_keeps_what_is_known() {
    let folder = Folder::new("ds-saved");
    table(&folder, &THREE);
    let mut server = server(&folder, "", "route { exit; }", Dialect::V4);
    let set = json!(["i", "1", "sip:10.0.0.2"]);
    assert_eq!(server.manage("ds_set_state", set), Ok(json!("OK")));
    for _ in 0..20 {
        server.advance(100);
    }
    let db = rusqlite::Connection::open(folder.0.join("d.db")).expect("a database");
    let state: i64 = db
        .query_row("select state from dispatcher where destination = 'sip:10.0.0.2'", [], |row| row.get(0))
        .expect("a row");
    assert_eq!(state, 1);
    db.execute_batch("update dispatcher set state = 0, priority = 5 where destination = 'sip:10.0.0.2'")
        .expect("a change");
    assert_eq!(server.manage("ds_reload", json!({})), Ok(json!("OK")));
    // The state of memory stays, unless the table is to say.
    assert_eq!(state_of(&mut server, "sip:10.0.0.2"), "Inactive");
    assert_eq!(server.manage("ds_reload", json!({"inherit_state": "n"})), Ok(json!("OK")));
    assert_eq!(state_of(&mut server, "sip:10.0.0.2"), "Active");
}

#[test]
fn mistakes_are_found_at_load() {
    let head = "socket=udp:127.0.0.1:5060\nloadmodule \"db_sqlite.so\"\nloadmodule \"dispatcher.so\"\n";
    let with = |params: &str| {
        format!("{head}modparam(\"dispatcher\", \"db_url\", \"sqlite:///nowhere/d.db\")\n{params}\n")
    };
    for (config, body, expected) in [
        (head.to_string(), "", "has no database: set db_url"),
        (with(""), "ds_select_dst(1, 4, \"fx\");", "the flags are f, u, d and a"),
        (with(""), "ds_select_dst(1, 4, \"f\", \"nope\");", "no partition nope"),
        (with("modparam(\"dispatcher\", \"dst_avp\", \"$var(x)\")"), "", "takes an AVP"),
        (with("modparam(\"dispatcher\", \"partition\", \"x: colour = red\")"), "", "no property `colour`"),
        (with("modparam(\"dispatcher\", \"partition\", \"default: x\")"), "", "is not defined"),
    ] {
        let said = crate::testing::refused(&config, body, Dialect::V4);
        assert!(said.contains(expected), "{said}");
    }
}

/// Every wrong value is an error at its own line, all of them at once, and nothing that only follows from them.
#[test]
fn wrong_values_of_parameters() {
    let config = "socket=udp:10.0.0.1:5060\nloadmodule \"db_sqlite.so\"\nloadmodule \"dispatcher.so\"\n";
    let wrong = [
        ("ds_ping_interval", "-5", "takes a number from 0 (s), not -5"),
        ("ds_ping_from", "\"no uri\"", "takes a SIP URI"),
        ("ds_ping_method", "\"OPT IONS\"", "takes a token of SIP"),
        ("hash_pvar", "\"$nosuch\"", "$nosuch"),
        ("setid_pvar", "\"$fU\"", "cannot be assigned"),
        ("dst_avp", "\"$var(x)\"", "takes an AVP, $avp(name)"),
        ("table_name", "\"a table; drop\"", "takes a name in a database"),
        ("db_url", "\"mysql://u:p@h/d\"", "needs its driver"),
        ("cluster_id", "4294967297", "takes a number from 0"),
    ];
    let params: String = wrong
        .iter()
        .map(|(name, value, _)| format!("modparam(\"dispatcher\", \"{name}\", {value})\n"))
        .collect();
    let errors = crate::testing::refused(&format!("{config}{params}"), "exit;", Dialect::V4);
    for (line, (name, value, why)) in wrong.iter().enumerate() {
        assert!(errors.contains(why), "{name} {value}: no `{why}` in\n{errors}");
        assert!(errors.contains(&format!("test.cfg:{}:", line + 4)), "{name}: not at its line in\n{errors}");
    }
    assert_eq!(errors.matches("error").count(), wrong.len(), "{errors}");
}
