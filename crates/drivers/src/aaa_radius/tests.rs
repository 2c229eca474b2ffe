//! Scripts against Debian's freeradius, with files and ports of its own.
#![expect(clippy::disallowed_methods, reason = "a real server is started and waited for")]

use crate::testing::{Folder, Ran, refused, run};
use script::ast::Dialect;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DICTIONARY: &str = "
ATTRIBUTE User-Name 1 string
ATTRIBUTE User-Password 2 string
ATTRIBUTE NAS-IP-Address 4 ipaddr
ATTRIBUTE NAS-Port 5 integer
ATTRIBUTE Service-Type 6 integer
ATTRIBUTE Framed-IP-Address 8 ipaddr
ATTRIBUTE Reply-Message 18 string
ATTRIBUTE Session-Timeout 27 integer
ATTRIBUTE Acct-Status-Type 40 integer
ATTRIBUTE Acct-Session-Id 44 string
ATTRIBUTE SIP-AVP 225 string
VALUE Service-Type Login-User 1
VALUE Acct-Status-Type Start 1
VENDOR Cisco 9
BEGIN-VENDOR Cisco
ATTRIBUTE Cisco-AVPair 1 string
END-VENDOR Cisco
";

const USERS: &str = "
alice Cleartext-Password := \"wonder land and a long password\"
  Reply-Message = \"hello\", Reply-Message += \"again\", SIP-AVP = \"color:red\", SIP-AVP += \"level#5\",
  Session-Timeout = 60, Framed-IP-Address = 10.0.0.9, Cisco-AVPair = \"a=b\"
DEFAULT Auth-Type := Reject
  Reply-Message = \"no\"
";

struct Radiusd {
    folder: Folder,
    port: u16,
    child: Option<Child>,
}

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").expect("binds").local_addr().expect("an address").port()
}

impl Radiusd {
    /// `None`: it is not installed here.
    fn new(name: &str) -> Option<Radiusd> {
        std::path::Path::new("/usr/sbin/freeradius").exists().then_some(())?;
        let folder = Folder::new(name);
        let (home, port, acct) = (folder.0.display().to_string(), free_port(), free_port());
        let config = format!(
            "prefix = {home}\nlocalstatedir = {home}\nraddbdir = {home}\nlogdir = {home}\nrun_dir = {home}\nlibdir = /usr/lib/freeradius\npidfile = {home}/pid\n\
             log {{ destination = files\n file = {home}/log }}\n\
             client test {{ ipaddr = 127.0.0.1\n secret = testing123\n require_message_authenticator = yes }}\n\
             modules {{ pap {{ }}\n files {{ filename = {home}/users }}\n\
             detail {{ filename = {home}/detail\n permissions = 0600 }}\n always reject {{ rcode = reject }} }}\n\
             server default {{\n listen {{ type = auth\n ipaddr = 127.0.0.1\n port = {port} }}\n\
             listen {{ type = acct\n ipaddr = 127.0.0.1\n port = {acct} }}\n\
             authorize {{ files\n pap }}\n authenticate {{ Auth-Type PAP {{ pap }} }}\n accounting {{ detail }} }}\n"
        );
        let write = |name: &str, text: &str| std::fs::write(folder.0.join(name), text).expect("written");
        // It wants each brace on a line of its own.
        write("radiusd.conf", &config.replace(" }", "\n}").replace("{ ", "{\n"));
        write("users", USERS);
        write("dictionary", "ATTRIBUTE SIP-AVP 225 string\n");
        write("client.dictionary", DICTIONARY);
        write("servers", "127.0.0.1 testing123\n");
        write(
            "client.conf",
            &format!(
                "authserver 127.0.0.1:{port}\nacctserver 127.0.0.1:{acct}\nservers {home}/servers\n\
             dictionary {home}/client.dictionary\nradius_timeout 1\nradius_retries 3\n"
            ),
        );
        let mut server = Radiusd { folder, port, child: None };
        server.start();
        Some(server)
    }

    fn start(&mut self) {
        let mut command = Command::new("/usr/sbin/freeradius");
        command.args(["-f", "-d"]).arg(&self.folder.0).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("starts"));
        let until = Instant::now() + Duration::from_secs(30);
        // It holds its port from when it can answer.
        while UdpSocket::bind(("127.0.0.1", self.port)).is_ok() {
            let log = std::fs::read_to_string(self.folder.0.join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "freeradius listens: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn config(&self) -> String {
        format!(
            "loadmodule \"aaa_radius.so\"\nmodparam(\"aaa_radius\", \"radius_config\", \"{}\")\n\
             modparam(\"aaa_radius\", \"sets\", \"in = (User-Name = $var(u), User-Password = $var(p), Service-Type = $var(t))\")\n\
             modparam(\"aaa_radius\", \"sets\", \"out = (Reply-Message = $avp(m), Session-Timeout = $avp(s), \
             Framed-IP-Address = $avp(ip), Cisco-AVPair = $avp(cisco))\")\n\
             modparam(\"aaa_radius\", \"sets\", \"acct = (Acct-Status-Type = $var(t), Acct-Session-Id = $var(u))\")\n",
            self.folder.0.join("client.conf").display()
        )
    }
}

impl Drop for Radiusd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn check(ran: &Ran, name: &str, expected: &[&str]) {
    assert_eq!(ran.avps(name), expected, "$avp({name})");
}

const LOGIN: &str = r#"$var(u) = "alice"; $var(p) = "wonder land and a long password"; $var(t) = "Login-User";
    $var(x) = radius_send_auth("in", "out"); $avp(r) = $var(x);"#;

#[test]
fn a_real_server() {
    let Some(server) = Radiusd::new("radius") else {
        println!("skipped: freeradius is not installed");
        return;
    };
    let ran = run(&server.config(), LOGIN, Dialect::V4);
    check(&ran, "r", &["1"]);
    check(&ran, "m", &["hello"]);
    check(&ran, "s", &["60"]);
    check(&ran, "ip", &["10.0.0.9"]);
    check(&ran, "cisco", &["a=b"]);
    check(&ran, "color", &["red"]);
    check(&ran, "level", &["5"]);
    let all = server.config() + "modparam(\"aaa_radius\", \"fetch_all_values\", 1)\n";
    check(&run(&all, LOGIN, Dialect::V21), "m", &["again", "hello"]);

    let denied = run(&server.config(), &LOGIN.replace("wonder land", "blunder land"), Dialect::V4);
    check(&denied, "r", &["-2"]);
    let bad = run(&server.config(), &LOGIN.replace("Login-User", "Nobody-Knows"), Dialect::V4);
    check(&bad, "r", &["-1"]);

    let acct = r#"$var(u) = "call-7"; $var(t) = 1; $var(x) = radius_send_acct("acct"); $avp(r) = $var(x);"#;
    check(&run(&server.config(), acct, Dialect::V4), "r", &["1"]);
    let detail = std::fs::read_to_string(server.folder.0.join("detail")).expect("it wrote down the request");
    for line in [
        "Acct-Session-Id = \"call-7\"",
        "Acct-Status-Type = Start",
        "NAS-IP-Address = 127.0.0.1",
        "NAS-Port = 5060",
    ] {
        assert!(detail.contains(line), "{line}: {detail}");
    }
}

#[test]
fn a_wrong_secret_or_a_silent_server_is_an_error() {
    let Some(server) = Radiusd::new("radius-secret") else {
        println!("skipped: freeradius is not installed");
        return;
    };
    std::fs::write(server.folder.0.join("servers"), "127.0.0.1 other\n").expect("written");
    let path = server.folder.0.join("client.conf");
    let config =
        std::fs::read_to_string(&path).expect("reads").replace("radius_retries 3", "radius_retries 1");
    std::fs::write(&path, &config).expect("written");
    check(&run(&server.config(), LOGIN, Dialect::V4), "r", &["-1"]);
    // The first of two is not there: the second answers.
    std::fs::write(server.folder.0.join("servers"), "127.0.0.1 testing123\n").expect("written");
    let both = config.replace("authserver ", &format!("authserver 127.0.0.1:{},", free_port()));
    std::fs::write(&path, both).expect("written");
    check(&run(&server.config(), LOGIN, Dialect::V4), "r", &["1"]);
}

#[test]
fn lost_packets_are_sent_again() {
    let folder = Folder::new("radius-loss");
    let server = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let port = server.local_addr().expect("an address").port();
    std::fs::write(folder.0.join("d"), DICTIONARY).expect("written");
    let path = folder.0.join("c");
    let config = format!(
        "authserver 127.0.0.1:{port}:s\nradius_timeout 1\ndictionary {}\n",
        folder.0.join("d").display()
    );
    std::fs::write(&path, config).expect("written");
    let thread = std::thread::spawn(move || {
        let (mut first, mut second) = ([0; 512], [0; 512]);
        let (length, _) = server.recv_from(&mut first).expect("the first try");
        let (again, from) = server.recv_from(&mut second).expect("the second try");
        assert_eq!((length, &first), (again, &second), "it is the same packet");
        // An answer that cannot be believed is no answer; the good one comes behind it.
        let mut answer = vec![2, second[1], 0, 20];
        answer.extend_from_slice(&[9; 16]);
        server.send_to(&answer, from).expect("sends");
        use md5::{Digest, Md5};
        let sum =
            Md5::new().chain_update(&answer[..4]).chain_update(&second[4..20]).chain_update(b"s").finalize();
        answer.splice(4.., sum);
        server.send_to(&answer, from).expect("sends");
    });
    let config = format!(
        "loadmodule \"aaa_radius.so\"\nmodparam(\"aaa_radius\", \"radius_config\", \"{}\")\n\
         modparam(\"aaa_radius\", \"sets\", \"in = (User-Name = $var(u))\")\n",
        path.display()
    );
    let ran = run(
        &config,
        r#"$var(u) = "x"; $var(x) = radius_send_auth("in", "in"); $avp(r) = $var(x);"#,
        Dialect::V4,
    );
    check(&ran, "r", &["1"]);
    thread.join().expect("the server saw what it wanted");
}

#[test]
fn mistakes_are_found_when_the_script_is_loaded() {
    let none =
        "loadmodule \"aaa_radius.so\"\nmodparam(\"aaa_radius\", \"sets\", \"in = (User-Name = $var(u))\")\n";
    let error = refused(none, r#"radius_send_acct("in");"#, Dialect::V4);
    assert!(error.contains("radius_config"), "{error}");
    let folder = Folder::new("radius-mistakes");
    std::fs::write(folder.0.join("d"), DICTIONARY).expect("written");
    let path = folder.0.join("c");
    let config = format!("authserver 127.0.0.1:1:s\ndictionary {}\n", folder.0.join("d").display());
    std::fs::write(&path, config).expect("written");
    let config = format!("{none}modparam(\"aaa_radius\", \"radius_config\", \"{}\")\n", path.display());
    for (config, body, says) in [
        (config.clone(), r#"radius_send_acct("inn");"#, "did you mean in?"),
        (config.replace("User-Name", "Absent"), r#"radius_send_acct("in");"#, "no attribute Absent"),
        (config.replace("$var(u)", "u"), "", "User-Name"),
        (config.replace("/c\"", "/absent\""), "", "absent"),
    ] {
        let error = refused(&config, body, Dialect::V4);
        assert!(error.contains(says), "{body}: {error}");
    }
}
