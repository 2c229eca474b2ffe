//! The program as an operator meets it: exit codes, messages, signals, the first reply.
#![allow(clippy::disallowed_methods, reason = "a client with real sockets")]

use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// A folder that is removed with its files.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("fermata-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fermata"))
}

/// An address that nobody uses now.
fn free_address() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn script(address: SocketAddr, body: &str) -> String {
    format!(
        "socket=udp:{address}\nudp_workers=2\nloadmodule \"proto_udp.so\"\nloadmodule \"signaling.so\"\n\
         route {{\n{body}\n}}\n"
    )
}

/// Runs to the end with these arguments; `{cfg}` is a file with `text`.
fn run(name: &str, args: &str, text: &str) -> Output {
    let folder = Folder::new(name);
    let cfg = folder.file("test.cfg", text);
    let args = args.replace("{cfg}", cfg.to_str().unwrap());
    program().args(args.split_whitespace()).stdin(Stdio::null()).output().unwrap()
}

/// Exit code, and words that must stand in what was printed.
fn check(name: &str, args: &str, text: &str, code: i32, words: &[&str]) {
    let output = run(name, args, text);
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args}: {printed}");
    for word in words {
        assert!(printed.contains(word), "{args}: `{word}` is not in\n{printed}");
    }
}

#[test]
fn scripts_are_checked_before_anything_starts() {
    let good = script(free_address(), "send_reply(200, \"OK\");");
    check("good", "-C -f {cfg}", &good, 0, &["correct", "listens on udp:127.0.0.1"]);
    check("good-c", "-c -f {cfg}", &good, 0, &["correct"]);
    check("good-word", "check {cfg}", &good, 0, &["correct"]);
    let bad = script(free_address(), "send_replay(200, \"OK\");\n$nothing = 1;") + "no_such_parameter=1\n";
    let words = ["send_replay", "did you mean", "$nothing", "no_such_parameter", "test.cfg:6:1", "3 errors"];
    for (name, args) in [("bad", "-f {cfg}"), ("bad-c", "-c -f {cfg}"), ("bad-word", "check {cfg}")] {
        check(name, args, &bad, 1, &words);
    }
}

#[test]
fn what_keeps_it_from_starting() {
    check("switch", "--no-such-switch", "", 255, &["--no-such-switch"]);
    check("missing", "-f /no/such/file.cfg", "", 1, &["/no/such/file.cfg"]);
    check("user", "-u nobody-of-that-name -f {cfg}", &script(free_address(), "exit;"), 255, &["no user"]);
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let text = script(taken.local_addr().unwrap(), "exit;");
    check("taken", "-f {cfg}", &text, 255, &["cannot listen on", "is another server running there?"]);
    check("version", "-V", "", 0, &["Fermata"]);
    check("help", "--help", "", 0, &["First steps", "Exit codes"]);
}

#[test]
fn the_preprocessor_runs_first() {
    let text = script(free_address(), "REPLY(200, \"OK\");");
    check("m4", "-C -f {cfg}", &text, 1, &["REPLY"]);
    let folder = Folder::new("sed");
    let cfg = folder.file("test.cfg", &text);
    let status = program().args(["-C", "-p", "sed s/REPLY/send_reply/", "-f"]).arg(cfg).status().unwrap();
    assert_eq!(status.code(), Some(0));
}

/// A running server and a client.
struct Server {
    child: Child,
    client: UdpSocket,
    address: SocketAddr,
    _folder: Folder,
}

impl Server {
    fn start(name: &str, body: &str, switches: &[&str]) -> Server {
        let (folder, address) = (Folder::new(name), free_address());
        let cfg = folder.file("test.cfg", &script(address, body));
        let child = program().arg("-f").arg(cfg).args(switches).stderr(Stdio::piped()).spawn().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let server = Server { child, client, address, _folder: folder };
        // Repeated until the server is there; the read timeout is what paces it.
        (0..400).find(|_| server.ask("ready").is_some()).expect("the server answers");
        server
    }

    /// Sends an OPTIONS; the first line of the reply.
    fn ask(&self, call_id: &str) -> Option<String> {
        let me = self.client.local_addr().unwrap();
        let request = format!(
            "OPTIONS sip:x@{} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK{call_id}\r\nMax-Forwards: 70\r\n\
             From: <sip:a@example.com>;tag=1\r\nTo: <sip:x@example.com>\r\nCall-ID: {call_id}\r\n\
             CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
            self.address
        );
        self.client.send_to(request.as_bytes(), self.address).unwrap();
        let mut buf = [0; 4096];
        loop {
            let n = self.client.recv(&mut buf).ok()?;
            let reply = String::from_utf8_lossy(&buf[..n]).into_owned();
            if reply.contains(&format!("Call-ID: {call_id}\r\n")) {
                return reply.lines().next().map(str::to_owned);
            }
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end: exit code and log.
    fn end(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_worker_answers_wherever_the_datagram_lands() {
    let server = Server::start("answers", "xlog(\"asked\\n\");\nsend_reply(200, \"OK\");", &[]);
    for call in 0..40 {
        let reply = (0..40).find_map(|_| server.ask(&format!("call{call}")));
        assert_eq!(reply.as_deref(), Some("SIP/2.0 200 OK"), "call {call}");
    }
    server.signal("-HUP");
    assert!((0..40).any(|_| server.ask("after-hup").is_some()), "SIGHUP ended the server");
    server.signal("-TERM");
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("SIGHUP is ignored") && log.contains("asked") && log.contains("ended"), "{log}");
}

#[test]
fn it_ends_by_itself_on_interrupt_too() {
    let server = Server::start("interrupt", "send_reply(200, \"OK\");", &["-d"]);
    server.signal("-INT");
    assert_eq!(server.end().0, Some(0));
}
