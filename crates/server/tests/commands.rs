//! `fermata check`, `fmt` and `explain` as editors and CI meet them: exit codes, JSON, layouts, pictures.

use std::path::PathBuf;
use std::process::{Command, Output};

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const GOOD: &str = "udp_workers=1\nsocket=udp:127.0.0.1:5060\nloadmodule \"proto_udp.so\"\nloadmodule \"signaling.so\"\n\
                    loadmodule \"sl.so\"\nloadmodule \"sipmsgops.so\"\n\
                    route { if (is_method(\"OPTIONS\")) { sl_send_reply(200, \"OK\"); exit; } }\n";

/// Runs the program on a file with this text; `FILE` in the arguments is its name.
fn run(name: &str, args: &str, text: &str) -> (Output, String) {
    let folder = Folder(std::env::temp_dir().join(format!("fermata-commands-{}-{name}", std::process::id())));
    std::fs::create_dir_all(&folder.0).unwrap();
    let file = folder.0.join("test.cfg");
    std::fs::write(&file, text).unwrap();
    let args = args.replace("FILE", file.to_str().unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_fermata")).args(args.split(' ')).output().unwrap();
    (output, std::fs::read_to_string(&file).unwrap())
}

#[track_caller]
fn check(name: &str, args: &str, text: &str, code: i32, words: &[&str]) {
    let (output, _) = run(name, args, text);
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args}\n{printed}");
    for word in words {
        assert!(printed.contains(word), "{args}: no `{word}` in\n{printed}");
    }
}

/// Severity, line and message of each diagnostic.
fn diagnostics(name: &str, text: &str) -> Vec<(String, u64, String)> {
    let (output, _) = run(name, "check --format json FILE", text);
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |d: &serde_json::Value, field: &str| d[field].as_str().unwrap().to_owned();
    let list = list.as_array().unwrap().iter();
    list.map(|d| (text(d, "severity"), d["line"].as_u64().unwrap(), text(d, "message"))).collect()
}

#[test]
fn exit_codes() {
    check("good", "check FILE", GOOD, 0, &["correct", "listens on udp:127.0.0.1:5060"]);
    let warned = GOOD.replace("exit;", "exit; xlog(\"never\");");
    check("warned", "check FILE", &warned, 0, &["warning: this statement is never reached", "correct"]);
    check("strict", "check --strict FILE", &warned, 1, &["has warnings"]);
    check(
        "bad",
        "check FILE",
        &GOOD.replace("exit;", "xlogg(\"x\");"),
        1,
        &["unknown function xlogg()", "did you mean"],
    );
    check("two", "check FILE /no/such/file.cfg", GOOD, 1, &["correct", "/no/such/file.cfg"]);
}

#[test]
fn every_error_at_once_for_programs() {
    let text = GOOD.replace("exit;", "nosuch();\n$var(x) = $nosuch;\nt_relay();\n");
    let found = diagnostics("json", &text);
    let errors: Vec<_> = found.iter().filter(|d| d.0 == "error").map(|d| (d.1, &d.2[..])).collect();
    assert_eq!(
        errors,
        [
            (7, "unknown function nosuch()"),
            (8, "unknown variable $nosuch"),
            (9, "unknown function t_relay()"),
        ]
    );
}

/// What is not built yet is named exactly, and what only this machine lacks is no error of the script.
#[test]
fn missing_modules_and_missing_interfaces() {
    let text = GOOD.replace("loadmodule \"sl.so\"", "loadmodule \"sl.so\"\nloadmodule \"siprec.so\"");
    let text = text
        .replace("exit;", "siprec_start_recording();\nxlog(\"$siprec\");\n")
        .replace("127.0.0.1", "nosuchif0");
    let found = diagnostics("missing", &text);
    let has =
        |severity: &str, message: &str| found.iter().any(|d| d.0 == severity && d.2.starts_with(message));
    assert!(has("error", "module siprec does not exist in Fermata yet"), "{found:?}");
    assert!(has("error", "siprec_start_recording() is of module siprec, which does not exist"), "{found:?}");
    assert!(has("error", "$siprec is of module siprec, which does not exist"), "{found:?}");
    let elsewhere = GOOD.replace("127.0.0.1", "nosuchif0");
    check(
        "elsewhere",
        "check FILE",
        &elsewhere,
        0,
        &["note: cannot listen on udp:nosuchif0:5060", "correct"],
    );
    check("strict-elsewhere", "check --strict FILE", &elsewhere, 0, &["note: ", "correct"]);
    check("here", "check --here FILE", &elsewhere, 1, &["error: cannot listen on udp:nosuchif0:5060"]);
    let lacking = GOOD.replace("127.0.0.1", "192.0.2.1");
    let lacking = format!(
        "loadmodule \"mi_fifo.so\"\nmodparam(\"mi_fifo\", \"fifo_name\", \"/no/such/folder/fifo\")\n\
         loadmodule \"db_sqlite.so\"\nloadmodule \"sqlops.so\"\n\
         modparam(\"sqlops\", \"db_url\", \"sqlite:///no/such/file.db\")\n{lacking}"
    );
    let words = [
        "cannot listen on udp:192.0.2.1:5060: no interface",
        "/no/such/folder/fifo: its folder is missing",
        "the database /no/such/file.db is missing",
    ];
    check("lacking", "check FILE", &lacking, 0, &[&words[..], &["note: ", "correct"]].concat());
    check("lacking-here", "check --here FILE", &lacking, 1, &[&words[..], &["3 errors keep"]].concat());

    check(
        "renamed",
        "check FILE",
        &format!("loadmodule \"mysql.so\"\n{GOOD}"),
        0,
        &["is called db_mysql today"],
    );
    check("replaced", "check FILE", &format!("loadmodule \"mi_xmlrpc_ng.so\"\n{GOOD}"), 1, &["use mi_http"]);
    check(
        "typo",
        "check FILE",
        &format!("loadmodule \"dialgo.so\"\n{GOOD}"),
        1,
        &["no module dialgo", "did you mean dialog?"],
    );
}

/// Parameters for several modules are for those that are loaded.
#[test]
fn one_modparam_for_several_modules() {
    let several = |modules: &str| {
        let head = "loadmodule \"tm.so\"\nloadmodule \"usrloc.so\"\nmodparam(\"usrloc\", \"working_mode_preset\", \
                    \"single-instance-no-db\")\n";
        format!("{head}modparam(\"{modules}\", \"use_domain\", 1)\n{GOOD}")
    };
    check("several", "check FILE", &several("auth_db|usrloc|uri"), 0, &["correct"]);
    check(
        "none",
        "check FILE",
        &several("auth_db|uri"),
        1,
        &["modparam for module auth_db, which is not loaded"],
    );
}

#[test]
fn layouts() {
    check("fmt-check", "fmt --check FILE", GOOD, 1, &["is not laid out"]);
    let (output, once) = run("fmt", "fmt FILE", GOOD);
    assert!(output.status.success());
    check("fmt-done", "fmt --check FILE", &once, 0, &[]);
    let (_, twice) = run("fmt-twice", "fmt FILE", &once);
    assert_eq!(once, twice);
    let (output, same) = run("fmt-bad", "fmt FILE", "route { exit; \n");
    assert_eq!((output.status.code(), &same[..]), (Some(1), "route { exit; \n"));
}

#[test]
fn pictures() {
    let text = GOOD.replace("exit;", "route(sub); exit;")
        + "route[sub] { xlog(\"$(rd{ip.resolve})\"); sleep(1); }\n";
    check(
        "text",
        "explain FILE",
        &text,
        0,
        &["calls route[sub]", "waits for sleep()", "may wait for {ip.resolve}"],
    );
    check("dot", "explain --format dot FILE", &text, 0, &["digraph routes", "n0 -> n1"]);
    let (output, _) = run("svg", "explain --format svg FILE", &text);
    let svg = String::from_utf8(output.stdout).unwrap();
    assert!(
        svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && svg.contains("route[sub]"),
        "{svg}"
    );
    check("explain-bad", "explain FILE", "route { exit; \n", 1, &["error"]);
}

/// Files of scenarios: exit codes, reports for CI, and what a failure shows.
#[test]
fn tests_of_scripts() {
    let folder = Folder(std::env::temp_dir().join(format!("fermata-commands-{}-test", std::process::id())));
    std::fs::create_dir_all(&folder.0).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.0.join(name), text).unwrap();
    write("test.cfg", GOOD);
    let scenario = |status: &str| {
        format!(
            "script: test.cfg\nparties: {{alice: 10.0.0.2}}\nscenarios:\n  - name: a <greeting>\n    steps:\n      \
             - alice sends: OPTIONS sip:127.0.0.1\n      - alice receives: {status}\n"
        )
    };
    let run = |args: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fermata"));
        let output =
            command.current_dir(&folder.0).arg("test").args(args.split_whitespace()).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.code(), printed.into_owned())
    };
    let read = |name: &str| std::fs::read_to_string(folder.0.join(name)).unwrap();
    assert_eq!(run("").0, Some(255), "no files");

    write("test.test.yaml", &scenario("200 OK"));
    let (code, printed) = run("--coverage --junit j.xml --lcov l.info");
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("ok    a <greeting>") && printed.contains("100 %"), "{printed}");
    assert!(read("j.xml").contains("name=\"a &lt;greeting&gt;\"") && read("l.info").contains("DA:7,3"));

    write("test.test.yaml", &scenario("404"));
    let (code, printed) = run("--junit j.xml");
    assert_eq!(code, Some(1), "{printed}");
    for words in
        ["test.test.yaml:7: alice receives: 404", "200 OK came, 404 was expected", "►│", "test.cfg:7: "]
    {
        assert!(printed.contains(words), "no `{words}` in\n{printed}");
    }
    assert!(
        read("j.xml").contains("<failure message=\"200 OK came, 404 was expected\">"),
        "{}",
        read("j.xml")
    );

    write("test.test.yaml", "script: test.cfg\nscenarios:\n  - nam: x\n");
    let (code, printed) = run("");
    assert!(
        code == Some(255)
            && printed.contains("test.test.yaml:3: ")
            && printed.contains("did you mean `name`?"),
        "{printed}"
    );
}
