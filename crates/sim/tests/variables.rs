//! Variables that wait: in every place of a script that reads one, in every kind of route.

use sim::desk::Desk;

const HEAD: &str = r#"
log_level=0
socket=udp:10.0.0.1:5060
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "signaling.so"
loadmodule "sipmsgops.so"
loadmodule "textops.so"
loadmodule "cfgutils.so"
loadmodule "sim.so"
modparam("tm", "onreply_avp_mode", 1)
"#;

fn desk(routes: &str) -> Desk {
    Desk::new(&format!("{HEAD}{routes}"))
}

fn request(method: &str) -> String {
    format!(
        "{method} sip:bob@10.0.0.3 SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK{method}\n\
         Max-Forwards: 70\nFrom: <sip:a@x>;tag=a\nTo: <sip:b@x>\nCall-ID: one\nCSeq: 1 {method}\n\
         Contact: <sip:a@10.0.0.2>\nContent-Length: 0\n\n"
    )
}

/// Runs `body`, which leaves its result in `$var(r)`, and gives that and the time it took in ms.
fn run(body: &str, more: &str) -> (String, u64) {
    let mut desk = desk(&format!(
        "route {{ {body} append_to_reply(\"X-R: $var(r)\\r\\n\"); t_newtran(); t_reply(486, \"Busy\"); }} {more}"
    ));
    desk.receive(2, &request("INVITE"));
    for ms in 0..10_000 {
        let sent = desk.sent();
        if let Some(last) = sent.iter().find(|s| s.summary().ends_with("486 Busy")) {
            let text = String::from_utf8_lossy(&last.bytes).into_owned();
            let line = text.lines().find_map(|l| l.strip_prefix("X-R: ")).unwrap_or_default();
            return (line.to_string(), ms);
        }
        desk.advance(1);
    }
    panic!("no reply: {body}");
}

#[track_caller]
fn check(body: &str, want: &str, ms: u64) {
    check_with(body, "", want, ms);
}

#[track_caller]
fn check_with(body: &str, more: &str, want: &str, ms: u64) {
    let (have, took) = run(body, more);
    assert_eq!((have.as_str(), took), (want, ms), "{body}");
}

#[test]
fn in_every_expression() {
    check("$var(r) = $later(30,x);", "x", 30);
    check("$var(r) = $later(0,x);", "x", 0);
    check("$var(a) = 1; $var(r) = \"<\" + $later(30,x) + \">\" + $later(20,y) + $var(a);", "<x>y1", 50);
    check("if ($later(30,x) == \"x\") $var(r) = 1;", "1", 30);
    check("if ($later(30,x) == $later(20,X)) $var(r) = 1;", "1", 50);
    check("if ($later(30,x) =~ \"^x$\" && $later(20,y) != NULL) $var(r) = 1;", "1", 50);
    check("$var(p) = \"x\"; if ($var(p) =~ $later(30,[xy])) $var(r) = 1;", "1", 30);
    // What is not needed is not asked for.
    check("if ($later(30,x) == \"y\" && $later(20,y) != NULL) $var(r) = 1; else $var(r) = 2;", "2", 30);
    check("if ($later(30,x)) $var(r) = 1;", "1", 30);
    check("switch ($later(30,b)) { case \"a\": $var(r) = 1; break; case \"b\": $var(r) = 2; }", "2", 30);
    check(
        "$var(i) = 0; while ($later(10,x) && $var(i) < 3) $var(i) = $var(i) + 1; $var(r) = $var(i);",
        "3",
        40,
    );
    check("$var(r) = \"a\"; $var(r) .= $later(30,b);", "ab", 30);
    check("for ($var(x) in $(later(30,z)[*])) $var(r) = $var(x);", "z", 60);
}

#[test]
fn in_transformations_indexes_and_names() {
    check("$var(r) = $(later(30,hello){s.substr,1,3}{s.toupper});", "ELL", 30);
    check("$var(n) = 1; $var(r) = $(later(30,a$var(n)b){s.len});", "3", 30);
    check("$var(x) = \"a=1;b=2\"; $var(r) = $(var(x){param.value,$later(30,b)});", "2", 30);
    check("$avp(a1) = \"deep\"; $var(r) = $avp(a$later(30,1));", "deep", 30);
    check(
        "$avp(a) = \"one\"; $avp(a) = \"two\"; $var(i) = 1; $var(r) = $later(10,$later(20,in)ner);",
        "inner",
        30,
    );
    check("$avp(b$later(30,2)) = \"set\"; $var(r) = $avp(b2);", "set", 30);
}

#[test]
fn in_arguments() {
    check("append_to_reply(\"X-A: $later(30,x)\\r\\n\"); $var(r) = 1;", "1", 30);
    check("xlog(\"$later(30,x) and $later(20,y)\\n\"); $var(r) = $rc;", "1", 50);
    check_with(
        "route(sub, $later(30,x), $later(20,y));",
        "route[sub] { $var(r) = $param(1) + $param(2); }",
        "xy",
        50,
    );
    check_with("route($later(30,sub));", "route[sub] { $var(r) = 1; }", "1", 30);
    check_with("route(sub); $var(r) = $return(0);", "route[sub] { return(1, $later(30,x)); }", "x", 30);
    // A function that waits itself: its arguments first.
    check("slow($(later(30,10){s.int})); $var(r) = $rc;", "1", 40);
}

/// `$rc` is that of the statement before; what stands before in the same statement runs once.
#[test]
fn nothing_runs_twice() {
    check_with(
        "route(neg); $var(c) = $rc; $var(r) = \"\" + $var(c) + $later(30,x);",
        "route[neg] { return(-7); }",
        "-7x",
        30,
    );
    check_with(
        "$var(n) = 0; if (route(count) && $later(30,x) == \"x\" && route(count)) $var(r) = $var(n);",
        "route[count] { $var(n) = $var(n) + 1; return(1); }",
        "2",
        30,
    );
    check("$avp(l) = \"1\"; $avp(l) = $later(30,2); $var(r) = $(avp(l)[*]);", "2, 1", 30);
}

#[test]
fn an_answer_that_does_not_come_is_null() {
    check("if ($later(60000,x) == NULL) $var(r) = 1;", "1", 5000);
    check("$var(r) = \"<$later(0,x)>\" ; xlog(\"$later(60000,x)\"); $var(r) = 2;", "2", 5000);
}

#[test]
fn the_four_ways_to_call() {
    let mut desk = desk(
        "route { async(slow($(later(30,10){s.int})), go); } \
         route[go] { append_to_reply(\"X-R: $later(20,x)\\r\\n\"); t_reply(486, \"Busy\"); }",
    );
    desk.receive(2, &request("INVITE"));
    desk.advance(61);
    let sent = desk.sent();
    assert!(String::from_utf8_lossy(&sent[1].bytes).contains("X-R: x\r\n"), "{sent:?}");
    check("parallel { $var(a) = slow($(later(30,10){s.int}), 3); slow(5); } $var(r) = $var(a);", "3", 40);
    check_with(
        "$shv(x) = \"-\"; launch(slow($(later(30,10){s.int}), 1), rep, \"p$later(20,q)\"); slow(100); $var(r) = $shv(x);",
        "route[rep] { $shv(x) = $param(1); }",
        "pq",
        150,
    );
}

/// Branch, reply, failure, timer and startup routes.
#[test]
fn in_every_kind_of_route() {
    let mut desk = desk(
        "startup_route { $shv(s) = $later(30,started); } \
         timer_route[t, 1] { $shv(t) = $later(30,ticked); } \
         route { t_on_branch(\"b\"); t_on_reply(\"r\"); t_on_failure(\"f\"); t_relay(); } \
         branch_route[b] { append_hf(\"X-B: $later(30,branch)\\r\\n\"); } \
         onreply_route[r] { $avp(r) = $later(30,reply); } \
         failure_route[f] { append_to_reply(\"X-F: $later(30,failure) $avp(r) $shv(s) $shv(t)\\r\\n\"); t_reply(480, \"Gone\"); }",
    );
    desk.advance(1100);
    desk.receive(2, &request("INVITE"));
    desk.advance(40);
    let sent = desk.sent();
    let relayed = sent.iter().find(|s| s.summary() == "10.0.0.3 INVITE").expect("relayed");
    assert!(String::from_utf8_lossy(&relayed.bytes).contains("X-B: branch\r\n"));
    let msg = sip::Message::parse(relayed.bytes.clone()).unwrap();
    let parts = sip::ReplyParts { code: 486, reason: b"Busy", to_tag: Some(b"b"), ..Default::default() };
    desk.receive_bytes(3, sip::build_reply(&msg, &parts));
    desk.advance(100);
    let sent = desk.sent();
    let last = sent.iter().find(|s| s.summary().contains("480")).expect("the failure route replies");
    let text = String::from_utf8_lossy(&last.bytes);
    assert!(text.contains("X-F: failure reply started ticked\r\n"), "{text}");
}

/// A CANCEL ends the wait; nothing of the script goes on.
#[test]
fn a_cancel_ends_it() {
    let mut desk = desk("route { $var(x) = $later(3000,x); t_reply(486, \"Busy\"); }");
    desk.receive(2, &request("INVITE"));
    desk.advance(200);
    assert_eq!(desk.summaries(), ["10.0.0.2 SIP/2.0 100 Giving it a try"]);
    desk.receive(2, &request("CANCEL").replace("z9hG4bKCANCEL", "z9hG4bKINVITE"));
    assert_eq!(
        desk.summaries(),
        ["10.0.0.2 SIP/2.0 200 canceling", "10.0.0.2 SIP/2.0 487 Request Terminated"]
    );
    assert!(desk.has_no_operations());
}

/// Blacklists filter where requests go: `use_blacklist`, default lists, rules added and ended at run time.
#[test]
fn blacklists_filter_destinations() {
    let head = "dst_blacklist = gw:{(udp, 10.0.0.3, 5060, \"\")}\n\
                dst_blacklist = dynamic/expire,default\n";
    let relay = |body: &str| {
        let mut desk = desk(&format!(
            "{head}route {{ {body} if (!t_relay()) {{ $var(c) = $rc; t_reply(480, \"Code $var(c)\"); }} }}"
        ));
        desk.receive(2, &request("MESSAGE"));
        desk.advance(2100);
        desk.summaries().into_iter().next().unwrap_or_default()
    };
    assert_eq!(relay(""), "10.0.0.3 MESSAGE");
    assert_eq!(relay("use_blacklist(\"gw\");"), "10.0.0.2 SIP/2.0 473 Filtered destination (473/TM)");
    assert_eq!(relay("use_blacklist(\"gw\"); unuse_blacklist(\"gw\");"), "10.0.0.3 MESSAGE");
    assert_eq!(
        relay("add_blacklist_rule(\"dynamic\", \"10.0.0.3\");"),
        "10.0.0.2 SIP/2.0 473 Filtered destination (473/TM)"
    );
    assert_eq!(
        relay("add_blacklist_rule(\"dynamic\", \"10.0.0.3\", , , , 1); sleep(2);"),
        "10.0.0.3 MESSAGE"
    );
    assert_eq!(
        relay("if (check_blacklist_rule(\"gw\", \"10.0.0.3\", 5060, \"udp\")) t_reply(603, \"No\"); exit;"),
        "10.0.0.2 SIP/2.0 603 No"
    );
}
