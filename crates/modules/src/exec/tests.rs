use super::process::{self, Command, Undertaker, Want};
use crate::testing::{Folder, Ran, run, run_with};
use bytes::Bytes;
use script::ast::Dialect;
use std::rc::Rc;
use std::time::Duration;

const CONFIG: &str = "socket=udp:127.0.0.1:5060\nloadmodule \"exec.so\"\n";

fn script(body: &str) -> Ran {
    run(CONFIG, body, Dialect::V4)
}

/// Each body leaves its results in `$avp(r)`.
fn check(body: &str, expected: &[&str]) {
    assert_eq!(script(body).avps("r"), expected, "{body}");
}

#[test]
fn a_plain_call_gives_the_whole_output() {
    check(r#"exec("echo one; echo; echo two", , $avp(r));"#, &["one\n\ntwo\n"]);
    check(r#"exec_argv("printf", $avp(none), , $avp(r)); $avp(r) = $rc;"#, &["1"]);
    check(r#"$var(o) = "kept"; exec("true", , $var(o)); $avp(r) = $var(o);"#, &["kept"]);
    check(
        r#"exec("printf 'a b'; echo x >&2", , $var(o), $var(e)); $avp(r) = $var(o) + "/" + $var(e);"#,
        &["a b/x\n"],
    );
    check(r#"exec("cat; exit 3", "input", $var(o)); $avp(r) = $var(o);"#, &["input"]);
    check(r#"$var(x) = exec("exit 3", , $var(o)); $avp(r) = $var(x);"#, &["1"]);
    check(r#"$var(x) = exec("no-such-command-here", , $var(o)); $avp(r) = $var(x);"#, &["1"]);
}

#[test]
fn lines_stack_up_after_async() {
    let config = format!("{CONFIG}route[done] {{ $avp(r) = \"end\"; }}\n");
    for (call, expected) in [
        (r#"exec("echo one; echo; echo two", , $avp(r))"#, &["end", "two", "one"][..]),
        (r#"exec_argv("echo", $avp(none), , $avp(r))"#, &["end"]),
    ] {
        let ran = run(&config, &format!("async({call}, done);"), Dialect::V4);
        assert_eq!(ran.avps("r"), expected, "{call}");
    }
}

#[test]
fn the_environment_is_an_avp() {
    check(
        r#"$avp(env) = "b"; $avp(env) = "a"; exec("echo $$OSIPS_EXEC_0-$$OSIPS_EXEC_1", , $avp(r), , $avp(env));"#,
        &["a-b\n"],
    );
}

#[test]
fn large_input_and_output_do_not_lock_up() {
    let body = r#"$var(i) = 0; $var(t) = "0123456789abcdef";
        while ($var(i) < 14) { $var(t) = $var(t) + $var(t); $var(i) = $var(i) + 1; }
        exec("cat; echo; echo end", $var(t), $avp(r)); exec("yes | head -c 3000000 | tail -c 20", , $var(x));"#;
    let ran = script(body);
    assert_eq!(ran.avps("r").iter().map(String::len).collect::<Vec<_>>(), [(16 << 14) + 5]);
    check(r#"exec("echo out; exec 1>&-", "never read", $avp(r));"#, &["out\n"]);
}

#[test]
fn without_output_nobody_waits() {
    let folder = Folder::new("exec-launch");
    let fifo = folder.0.join("fifo");
    // The first one blocks until the second one opens the other end: it cannot have been waited for.
    let body = format!(
        "exec(\"mkfifo {0}\", , $var(o)); $var(x) = exec(\"echo late > {0}\"); $avp(r) = $var(x); exec(\"cat {0}\", , $avp(r));",
        fifo.display()
    );
    check(&body, &["late\n", "2"]);
}

#[test]
fn a_dropped_command_takes_its_children_along() {
    let folder = Folder::new("exec-kill");
    let file = folder.0.join("pids");
    let text =
        format!("trap '' TERM; sleep 1000 & echo $! $$ > {0}.new; mv {0}.new {0}; wait", file.display());
    let command = Command {
        text: text.into(),
        args: None,
        stdin: Bytes::new(),
        env: Vec::new(),
        want: Want { stdout: true, ..Want::default() },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let undertaker = Undertaker::default();
        let task = tokio::task::spawn_local(async move { process::run(command, &undertaker).await });
        until(|| file.exists()).await;
        let pids = std::fs::read_to_string(&file).expect("two numbers");
        task.abort();
        until(|| pids.split_whitespace().all(|pid| !alive(pid))).await;
    });
}

fn alive(pid: &str) -> bool {
    // A zombie of somebody else (whoever adopted the child) counts as ended.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

async fn until(done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("in the end");
}

#[test]
fn the_old_functions() {
    let message = "INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKx\r\n\
                   f: <sip:a@b>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\
                   X-A: 1\r\nX-A: 2\r\nContent-Length: 0\r\n\r\n";
    let config = format!("{CONFIG}modparam(\"exec\", \"setvars\", 1)\n");
    let old = |body: &str| {
        run_with(&config, body, Dialect::V21, |state| {
            state.msg =
                Rc::new(sip::Message::parse(Bytes::from_static(message.as_bytes())).expect("a message"));
        })
    };
    let body = r#"exec_avp("echo 1; echo 2; echo 3", "$avp(r) $avp(s)"); if (!exec_avp("exit 1")) $avp(t) = "failed";
        if (exec_msg("grep -q ^INVITE")) $avp(t) = "found";"#;
    let ran = old(body);
    assert_eq!(
        [ran.avps("r"), ran.avps("s"), ran.avps("3"), ran.avps("t")].concat(),
        ["1", "2", "3", "found", "failed"]
    );
    let ran = old(
        r#"exec_avp("echo $$SIP_HF_FROM; echo $$SIP_HF_X_A; echo $$SIP_USER; echo $$SIP_TID; echo $$SIP_SRCIP");"#,
    );
    let values: Vec<_> = ["1", "2", "3", "4", "5"].iter().flat_map(|n| ran.avps(n)).collect();
    assert_eq!(values, ["<sip:a@b>;tag=1", "1,2", "bob", "z9hG4bKx", "127.0.0.2"]);
    let ran = old(
        r#"exec_dset("printf '%s\n' sip:one@a sip:two@b"); exec_getenv("PATH", "$avp(p)"); exec_getenv("NO_SUCH_X");"#,
    );
    assert_eq!(ran.state.ruri.as_deref(), Some(&b"sip:one@a"[..]));
    let others: Vec<_> = ran.state.branches.iter().map(|b| b.uri.clone()).collect();
    assert_eq!(others, ["sip:two@b", "sip:bob@example.com"]);
    assert_eq!(ran.avps("p").len(), 1);
}

#[test]
fn arguments_are_no_shell_syntax() {
    let body = r#"$avp(a) = "%s|%s|%s"; $avp(a) = "; touch /tmp/never"; $avp(a) = "$(id) `id` 'x' \"y\""; $avp(a) = "";
        exec_argv("printf", $avp(a), , $avp(r)); $avp(r) = $rc;"#;
    check(body, &["1", "; touch /tmp/never|$(id) `id` 'x' \"y\"|"]);
    check(r#"$avp(a) = "-n"; exec_argv("cat", $avp(a), "in", $avp(r));"#, &["     1\tin"]);
    check(r#"exec_argv("/no/such/program", , , $var(o)); $avp(r) = $rc;"#, &["-1"]);
}
