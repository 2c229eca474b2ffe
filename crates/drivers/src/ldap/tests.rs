//! Scripts against Debian's slapd, with files and a port of its own.
#![expect(clippy::disallowed_methods, reason = "a real server is started and waited for")]

use crate::testing::{Folder, Ran, refused, run};
use script::ast::Dialect;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ENTRIES: &str = "
dn: dc=example,dc=com
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: cn=Alice (A*),dc=example,dc=com
objectClass: inetOrgPerson
cn: Alice (A*)
sn: Liddell
uid: alice
telephoneNumber: 100
telephoneNumber: 101
mail: sip:alice@example.com
employeeNumber: 7

dn: cn=Bob,dc=example,dc=com
objectClass: inetOrgPerson
cn: Bob
sn: Builder
uid: bob
mail: bob@example.com
";

struct Slapd {
    folder: Folder,
    port: u16,
    child: Option<Child>,
}

fn program(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin", "/usr/local/bin", "/usr/libexec"]
        .iter()
        .map(|d| PathBuf::from(d).join(name))
        .find(|p| p.exists())
}

impl Slapd {
    /// `None`: it is not installed here.
    fn new(name: &str) -> Option<Slapd> {
        let slapadd = program("slapadd")?;
        program("slapd")?;
        let folder = Folder::new(name);
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let home = folder.0.display().to_string();
        let config = format!(
            "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
             include /etc/ldap/schema/inetorgperson.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n\
             database mdb\nsuffix \"dc=example,dc=com\"\nrootdn \"cn=admin,dc=example,dc=com\"\nrootpw secret\n\
             directory {home}\nmaxsize 10485760\n"
        );
        std::fs::write(folder.0.join("slapd.conf"), config).ok()?;
        std::fs::write(folder.0.join("entries.ldif"), ENTRIES).ok()?;
        let mut add = Command::new(slapadd);
        add.args(["-f", &format!("{home}/slapd.conf"), "-l", &format!("{home}/entries.ldif")]);
        let added = add.stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(added.is_ok_and(|s| s.success()), "slapadd takes the entries");
        let mut server = Slapd { folder, port, child: None };
        server.start();
        Some(server)
    }

    fn start(&mut self) {
        let mut command = Command::new(program("slapd").expect("it was there"));
        // With -d it stays in the foreground.
        command.args(["-d", "0", "-h", &format!("ldap://127.0.0.1:{}", self.port)]);
        command.args(["-f", &self.folder.0.join("slapd.conf").display().to_string()]);
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts"));
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "slapd listens");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn config(&self, extra: &str) -> String {
        let path = self.folder.0.join("ldap.cfg");
        let text = format!(
            "[dir]\nldap_server_url = \"ldap://127.0.0.1:1, ldap://127.0.0.1:{}\"\n{extra}\n",
            self.port
        );
        std::fs::write(&path, text).expect("the file is written");
        format!("loadmodule \"ldap.so\"\nmodparam(\"ldap\", \"config_file\", \"{}\")\n", path.display())
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn check(ran: &Ran, name: &str, expected: &[&str]) {
    assert_eq!(ran.avps(name), expected, "$avp({name})");
}

#[test]
fn searches_and_results() {
    let Some(server) = Slapd::new("slapd") else {
        println!("skipped: slapd is not installed");
        return;
    };
    let config = server.config("ldap_bind_dn = \"cn=admin,dc=example,dc=com\"\nldap_bind_password = secret");
    let body = r#"
        $avp(name) = "Alice (A*)"; ldap_filter_url_encode("cn=$avp(name)", $avp(esc));
        $var(x) = ldap_search("ldap://dir/dc=example,dc=com??sub?($avp(esc))"); $avp(r) = $var(x);
        $var(x) = ldap_result("telephoneNumber", $avp(tel)); $avp(r) = $var(x);
        $var(x) = ldap_result("employeenumber", $avp(n), "int"); $avp(m) = $avp(n) + 1; $avp(r) = $var(x);
        $var(x) = ldap_result("mail", $avp(mail), , "/^sip:(.+)$/\1/"); $avp(r) = $var(x);
        $var(x) = ldap_result("absent", $avp(tel)); $avp(r) = $var(x);
        $var(x) = ldap_result_check("telephoneNumber", "101"); $avp(r) = $var(x);
        $var(x) = ldap_result_check("telephoneNumber", "102"); $avp(r) = $var(x);
        $var(x) = ldap_result_next(); $avp(r) = $var(x);
        $var(x) = ldap_search("ldap://dir/dc=example,dc=com?uid?one?(uid=*)"); $avp(r) = $var(x);
        ldap_result("uid", $avp(uid)); ldap_result_next(); ldap_result("uid", $avp(uid));
        $var(x) = ldap_result("mail", $avp(mail)); $avp(r) = $var(x);
        $var(x) = ldap_search("ldap://dir/dc=example,dc=com??sub?(uid=nobody)"); $avp(r) = $var(x);
        $var(x) = ldap_result("uid", $avp(uid)); $avp(r) = $var(x);
        $var(x) = ldap_search("ldap://dir/dc=absent??sub?(uid=*)"); $avp(r) = $var(x);
        $var(x) = ldap_search("ldap://dir/dc=example,dc=com??sub?(uid="); $avp(r) = $var(x);
        $var(x) = ldap_search("ldap://other/dc=example,dc=com"); $avp(r) = $var(x);"#;
    let ran = run(&config, body, Dialect::V4);
    check(&ran, "esc", &["cn=Alice \\28A\\2a\\29"]);
    check(&ran, "tel", &["101", "100"]);
    check(&ran, "m", &["8"]);
    check(&ran, "mail", &["alice@example.com"]);
    let mut uids = ran.avps("uid");
    uids.sort();
    assert_eq!(uids, ["alice", "bob"]);
    let mut codes = ran.avps("r");
    codes.reverse();
    assert_eq!(codes, ["1", "2", "1", "1", "-1", "1", "-1", "-1", "2", "-1", "-1", "-2", "-1", "-2", "-2"]);
}

#[test]
fn old_forms() {
    let Some(server) = Slapd::new("slapd-old") else {
        println!("skipped: slapd is not installed");
        return;
    };
    let body = r#"ldap_search("ldap://dir/dc=example,dc=com??sub?(uid=alice)");
        ldap_result("employeeNumber/$avp(n)/int"); $avp(m) = $avp(n) + 1;
        ldap_result("mail/$avp(mail)", "/^sip:(.+)$/\1/");
        if (ldap_result_check("sn/Liddell")) $avp(r) = "yes";
        ldap_filter_url_encode("a*b", "$avp(esc)");"#;
    let ran = run(&server.config(""), body, Dialect::V21);
    check(&ran, "m", &["8"]);
    check(&ran, "mail", &["alice@example.com"]);
    check(&ran, "r", &["yes"]);
    check(&ran, "esc", &["a\\2ab"]);
}

#[test]
fn a_server_that_is_away_or_refuses() {
    let Some(mut server) = Slapd::new("slapd-away") else {
        println!("skipped: slapd is not installed");
        return;
    };
    let search =
        r#"$var(x) = ldap_search("ldap://dir/dc=example,dc=com??sub?(uid=alice)"); $avp(r) = $var(x);"#;
    let wrong = server.config("ldap_bind_dn = \"cn=admin,dc=example,dc=com\"\nldap_bind_password = wrong");
    check(&run(&wrong, search, Dialect::V4), "r", &["-2"]);
    let config = server.config("");
    server.stop();
    check(&run(&config, search, Dialect::V4), "r", &["-2"]);
    server.start();
    check(&run(&config, search, Dialect::V4), "r", &["1"]);
}

#[test]
fn a_silent_server_costs_its_timeouts() {
    let folder = Folder::new("ldap-silent");
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let path = folder.0.join("ldap.cfg");
    let port = listener.local_addr().expect("an address").port();
    let text = format!("[dir]\nldap_server_url = ldap://127.0.0.1:{port}\nldap_client_bind_timeout = 50\n");
    std::fs::write(&path, text).expect("the file is written");
    let config =
        format!("loadmodule \"ldap.so\"\nmodparam(\"ldap\", \"config_file\", \"{}\")\n", path.display());
    let ran = run(&config, r#"$var(x) = ldap_search("ldap://dir/"); $avp(r) = $var(x);"#, Dialect::V4);
    check(&ran, "r", &["-2"]);
}

#[test]
fn mistakes_are_found_when_the_script_is_loaded() {
    let folder = Folder::new("ldap-mistakes");
    let path = folder.0.join("ldap.cfg");
    std::fs::write(&path, "[dir]\nldap_server_url = ldap://127.0.0.1\n").expect("the file is written");
    let config =
        format!("loadmodule \"ldap.so\"\nmodparam(\"ldap\", \"config_file\", \"{}\")\n", path.display());
    for (body, says) in [
        (r#"ldap_result("a", $var(x));"#, "must be an AVP"),
        (r#"ldap_result("a", $avp(x), "float");"#, "str or int"),
        (r#"ldap_result("a", $avp(x), "int", "/a/b");"#, "third separator"),
    ] {
        let error = refused(&config, body, Dialect::V4);
        assert!(error.contains(says), "{body}: {error}");
    }
    let error = refused(
        "loadmodule \"ldap.so\"\nmodparam(\"ldap\", \"config_file\", \"/absent\")\n",
        "",
        Dialect::V4,
    );
    assert!(error.contains("/absent"), "{error}");
}
