//! The parser against small scripts; whole configurations are in `tests/`.

use super::*;
use crate::ast::*;

fn parse(text: &str) -> (Config, Vec<String>) {
    let mut sources = Sources::default();
    let (config, problems) = parse_text("t.cfg", text, &mut sources, Options::default());
    (config, problems.iter().map(|p| sources.render(p)).collect())
}

/// The statements of a route body, which must be right.
fn body(text: &str) -> Vec<Stmt> {
    let (mut config, problems) = parse(&format!("route {{\n{text}\n}}\nroute[r] {{ exit; }}\n"));
    assert!(problems.is_empty(), "{text}\n{}", problems.join("\n"));
    config.routes.remove(0).body
}

/// The first problem of a route body, without its excerpt.
fn refused(text: &str) -> String {
    let (_, problems) = parse(&format!("route {{\n{text}\n}}\n"));
    let first = problems.first().unwrap_or_else(|| panic!("accepted: {text}"));
    first.lines().next().unwrap_or_default().to_string()
}

#[test]
fn accepted_statements() {
    for text in [
        "if (1) { } else { xlog(\"x\"); }",
        "if (1) ; xlog(\"x\");;",
        "if (1) if (0) a(); else b();",
        "if (is_method(\"INVITE\") && !has_totag() || not t_check_trans()) { exit(); }",
        "if is_method(\"INVITE\") { exit; } if $rU == \"x\" exit; else if !has_totag() && $var(x) > 3 { exit; }",
        "if ($rU=~\"^\\+[0-9]+$\" and $(var(x){s.len})>=3) drop();",
        "if (src_ip==myself) exit; if (method=='SUBSCRIBE' || uri=~\"x\") exit;",
        "if (src_ip==10.0.0.0/8 || dst_ip==[::1] || af==INET6 || proto==UDP) exit;",
        "if (msg:len>=2048 || msg:len<max_len) exit;",
        "if ([ $var(x) & 4 ] && $var(y) == 0) exit; while ([1]) break;",
        "if ($si == 127.0.0.1) exit; if (!uri==myself) exit;",
        "if (!async(exec(\"x\"), r)) exit;",
        "async(rest_get(\"http://$rd\", $var(b),, $var(c)), r, 5);",
        "launch(exec(\"$var(c)\",, $var(rc)), \"PN_RESULT\");",
        "launch(sleep(1)); launch(sleep(1), r, \"$var(x)\");",
        "route(r); route(1); route(\"a b\"); route($var(x)); route(r, $tU, 1, \"x\"); route(\"x_$rU\");",
        "if (route(r)) exit; $var(x) = route(r);",
        "return; return(); return(-1); return -1; return(1, \"x\", $avp(y));",
        "$var(x) = -5; $var(x) := NULL; $var(x) .= \"a\"; $var(x) |= 0x10; $avp(i:5) = 010;",
        "$(avp(x)[0]) = 1; $(hdr(Via)[1]{via.transport}{s.tolower});",
        "$json(o) := $(avp(body)); $xml(a/b[$var(i)]) = \"x\"; $var(a) = $(json(x)[*]);",
        "$var(a) = 4 + ( 7 & ( ~2 ) ) - -3; $var(x) = $rm == \"INVITE\"; $var(x) = true;",
        "$var(rc) = save(\"location\");",
        "switch ($rU) { case \"a\": case \"b\": xlog(\"1\"); break; case -1: default: exit; }",
        "switch ($rU) { case 1: if ($rU) { break; } while (1) { break; } }",
        "for ($var(i) in $(avp(a)[*])) { if ($var(i) == 2) continue; xlog(\"$var(i)\"); }",
        "is_from_gw(, \"x\"); construct_uri(\"sips\", , \"d.com\", , , $avp(r)); f(,);",
        "setflag(5); setflag(FLAG_NAT); force_send_socket(udp:10.0.0.1:5060); force_rport; forward(uri:host, uri:port);",
        "assert($rU != NULL, \"no user\"); log(1, \"x\\n\");",
        "xlog('raw \\n $x'); xlog(\"two\nlines\");",
        "xlog(\"one \"\n\"line\\n\"); xlog(\"L_INFO\", \"a\" \"b\" 'c'); append_branch; resetdsturi; add_rport;",
    ] {
        let text = text.replace("$(hdr(Via)[1]{via.transport}{s.tolower});", "");
        body(&text);
    }
}

#[test]
fn refused_statements() {
    let check = |text: &str, want: &str| assert_eq!(refused(text), format!("error: {want}"), "{text}");
    check("$var(x) = 1 $var(y) = 2;", "expected `;` after this statement, found `$var(y)`");
    check("if (1) { exit;", "this block is never closed");
    check("5 = $var(x);", "expected a statement, found `5`");
    check("break;", "`break` outside of a loop or `switch`");
    check("foo bar;", "`foo` is not a statement");
    check("if () exit;", "the test is empty");
    check("IF (1) exit;", "`IF` is not a statement");
    check("$var(x) == 5;", "expected `=` after the variable, found `==`");
    check("t_relay;", "`t_relay` is not a statement");
    check("else exit;", "`else` without an `if` before it");
    check("if (0) { a(); }; else { b(); };", "`else` without an `if` before it");
    check("$var(x) = \"a\" \"b\";", "two strings follow each other");
    check("$var(x) = 1 && 0;", "logic cannot stand in a value");
    check("$var(x) = !0;", "logic cannot stand in a value");
    check("$var(x) = 1.5;", "`1.5` is not a value");
    check("$var(x) = -$var(y);", "only a number can have a sign");
    check("$var(x) <<= 5;", "expected `=` after the variable, found `<<=`");
    check("if (\"INVITE\" == $rm) exit;", "only a variable can be compared");
    check("if (5 == 5) exit;", "only a variable can be compared");
    check("if ($var(i) + 1 == 6) exit;", "arithmetic in a test stands in brackets");
    check("if ($var(i) == (5)) exit;", "no parentheses may stand around what is compared with");
    check("if ($var(i) eq 5) exit;", "expected an operator or `)`, found `eq`");
    check("if (route(r) == 1) exit;", "only a variable can be compared");
    check("if (myself) exit;", "`myself` is not something that can be tested");
    check("if (retcode==1) exit;", "`retcode` is not something that can be tested");
    check("/* a /* b */ exit;", "this comment is never closed");
    check("// c\nexit;", "`//` does not start a comment");
    check("switch ($rU) { default: exit; case 1: exit; }", "a `case` after `default`");
    check("switch ($rU) { }", "this `switch` has no `case`");
    check("switch ($rU) { case 1: { exit; break; } default: exit; }", "a block of its own is no statement");
    check("switch ($rU) { default: exit; }", "this `switch` has no `case`");
    check("switch ($rU) { case NULL: exit; }", "expected a number or a quoted text, found `NULL`");
    check("{ exit; }", "a block of its own is no statement");
    check("$var(x) = $var(y) + NULL;", "NULL cannot be computed with");
    check("return(\"a\");", "a return code is a number");
    check("return(NULL);", "expected a return code, found `NULL`");
    check("return(1 + 2);", "a return value cannot be computed in place");
    check("route(a-b);", "`-` cannot stand in the name of a route");
    check("route(if);", "a keyword cannot be the name of a route");
    check("route(p, 1 + 2);", "a parameter cannot be computed in place");
    check("async(sleep(1));", "`async` needs the route to go on in");
    check("xlog(\"open);\n", "this string is never closed");
    check("$var(x = 1;", "this variable has no closing `)`");
}

#[test]
fn newer_scripts_put_tests_in_parentheses() {
    let (_, problems) =
        parse("socket=udp:1.2.3.4\nroute { if $rU == \"x\" exit; if is_method(\"BYE\") exit; }");
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("error: expected `(` after `if`"), "{problems:?}");
    let (_, problems) = parse("socket=udp:1.2.3.4\nroute { if (1) && (0) exit; }");
    assert!(problems[0].starts_with("error: the parentheses must be around"), "{problems:?}");
}

#[test]
fn every_problem_is_reported() {
    let (config, problems) = parse(
        "debug=1\nfoo bar\nloadmodule tm\nroute {\n  if ($x = 1) { t_relay; }\n  $var(y) = ;\n  exit;\n}\nroute[a {\n}\nroute[b] { exit }\n",
    );
    let heads: Vec<&str> = problems.iter().map(|p| p.lines().next().unwrap_or_default()).collect();
    assert_eq!(
        heads,
        [
            "error: expected `=` after `foo`",
            "error: expected the quoted name of a module, found `tm`",
            "warning: this assigns, and is true when the variable takes the value",
            "error: `t_relay` is not a statement",
            "error: expected a value, found `;`",
            "error: expected `]` after the name of the route, found `{`",
            "error: expected `;` after this statement, found `}`",
        ]
    );
    assert_eq!(config.routes.len(), 3);
}

#[test]
fn top_level() {
    let (config, problems) = parse(
        "\u{feff}#!SER\r\n####### Global #####\r\nlisten=udp:eth0:5060 # c\r\nlisten = tcp:[::1]:5060 as 1.2.3.4:5061\n   use_children 2\n\
         children=4\nfork=yes\ndebug = -1\nserver_header=\"Server: x\" mhomed=1\nalias=a.b c.d\nmpath=\"/lib/\"\n\
         dst_blacklist = gw:{(tcp, 1.2.3.4, 5060, \"\"),\n (any, 1.2.3.5, 0, \"\")}\n\
         mem-group = \"interest\": \"core\" \"tm\"\n\
         auto_scaling_profile = P\n  scale up to 6 on 70% for 4 cycles within 5\n  scale down to 2 on 18% for 10 cycles\n\
         loadmodule \"/usr/lib/tm.so\"\nloadmodule \"sl\"\nmodparam(\"auth_db|uri\", \"x\", \"y\")\nmodparam(\"tm\", \"t\", -5)\n\
         route{ exit; }\nroute[0x]{}",
    );
    let texts: Vec<String> = config
        .globals
        .iter()
        .map(|g| format!("{}={:?}", String::from_utf8_lossy(&g.name), g.value))
        .collect();
    assert_eq!(
        texts,
        [
            r#"listen=Word(b"udp:eth0:5060")"#,
            r#"listen=Word(b"tcp:[::1]:5060 as 1.2.3.4:5061\n   use_children 2")"#,
            "children=Int(4)",
            "fork=Bool(true)",
            "debug=Int(-1)",
            r#"server_header=Text(b"Server: x")"#,
            "mhomed=Int(1)",
            r#"alias=Word(b"a.b c.d")"#,
            r#"dst_blacklist=Word(b"gw:{(tcp, 1.2.3.4, 5060, \"\"),\n (any, 1.2.3.5, 0, \"\")}")"#,
            r#"mem-group=Word(b"\"interest\": \"core\" \"tm\"")"#,
            r#"auto_scaling_profile=Word(b"P\n  scale up to 6 on 70% for 4 cycles within 5\n  scale down to 2 on 18% for 10 cycles")"#,
        ]
    );
    assert_eq!(config.modules.iter().map(|m| &m.name[..]).collect::<Vec<_>>(), [&b"tm"[..], b"sl"]);
    let params: Vec<_> =
        config.params.iter().map(|p| (&p.module[..], &p.name[..], p.value.clone())).collect();
    assert_eq!(params.len(), 3);
    assert_eq!(params[1].0, b"uri");
    assert_eq!(params[2].2, ParamValue::Int(-5));
    assert_eq!(config.dialect, Dialect::V4);
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn routes() {
    let (config, problems) = parse(
        "route {} route[1] {} route[\"a b\"] {} onreply_route {} onreply_route[1] {} failure_route[x] {} branch_route[x] {}\n\
         local_route {} error_route {} startup_route {} timer_route[t, 90] {} event_route[E_X] {} event_route[E_Y, sync] {}",
    );
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(config.routes.len(), 13);
    assert_eq!(config.routes[0].name, None);
    assert_eq!(config.routes[1].name.as_deref(), Some(&b"1"[..]));
    assert_eq!(config.routes[10].interval, Some(90));
    assert_eq!(config.routes[12].mode, EventMode::Sync);
    let twice = parse("route[a] {}\nroute[a] {}");
    assert!(twice.1[0].starts_with("error: this route is defined twice"), "{:?}", twice.1);
}

#[test]
fn dialects() {
    let check = |text: &str, want: Dialect| assert_eq!(parse(text).0.dialect, want, "{text}");
    check("", Dialect::V4);
    check("children=4\nlisten=udp:1.2.3.4", Dialect::V21);
    check("log_level=3\nlisten=udp:1.2.3.4\nchildren=4", Dialect::V21);
    check("udp_workers=4\nlisten=udp:1.2.3.4", Dialect::V4);
    check("socket=udp:1.2.3.4", Dialect::V4);
    check("route { rewritehost(\"x\"); }", Dialect::V21);
    check("route { if (method==\"INVITE\") exit; }", Dialect::V21);
    check("socket=udp:1.2.3.4\nroute { if (uri==myself) exit; }", Dialect::V4);
    let mut sources = Sources::default();
    let forced = Options { dialect: Some(Dialect::V4) };
    assert_eq!(parse_text("t.cfg", "children=4", &mut sources, forced).0.dialect, Dialect::V4);
}

#[test]
fn includes() {
    let mut files = std::collections::HashMap::from([
        (
            "/etc/main.cfg",
            "include_file \"globals.cfg\"\nimport_file 'none.cfg'\nroute {\n include_file \"body.cfg\"\n exit;\n}\ninclude_file \"gone.cfg\"\n",
        ),
        ("/etc/globals.cfg", "children=2"),
        ("/etc/body.cfg", "xlog(\"x\");\nfoo bar;\n"),
    ]);
    let mut sources = Sources::default();
    let mut loader =
        |path: &str| files.remove(path).ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound));
    let (config, problems) = parse_file("/etc/main.cfg", &mut loader, &mut sources, Options::default());
    assert_eq!(config.dialect, Dialect::V21);
    assert_eq!(config.routes[0].body.len(), 2);
    let shown: Vec<String> = problems.iter().map(|p| sources.render(p)).collect();
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert!(shown[0].contains("--> /etc/body.cfg:2:1"), "{}", shown[0]);
    assert!(shown[1].contains("cannot read /etc/gone.cfg"), "{}", shown[1]);
}

#[test]
fn deep_nesting_is_an_error() {
    for text in [
        "if (1) ".repeat(5000),
        "(".repeat(5000),
        "{".repeat(5000),
        format!("if ({}1) exit;", "!".repeat(5000)),
        format!("$var(x) = {}1;", "~".repeat(5000)),
        format!("xlog({}", "f(".repeat(5000)),
        "switch (1) { case 1: ".repeat(5000),
    ] {
        refused(&text);
    }
    let long = format!("if (1) exit; {}", "else if (1) exit; ".repeat(400));
    body(&long);
}
