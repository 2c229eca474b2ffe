//! Scripts against a real HTTP server on loopback that misbehaves on demand.

mod server;

use crate::testing::{Folder, refused, run};
use script::ast::Dialect;
use server::{Server, TlsServer, full_backlog};

/// One second is the shortest limit that there is.
const SHORT: &str =
    "modparam(\"rest_client\", \"connection_timeout\", 1)\nmodparam(\"rest_client\", \"curl_timeout\", 1)\n";

fn config(params: &str) -> String {
    format!("socket=udp:127.0.0.1:5060\nloadmodule \"tls_mgm.so\"\nloadmodule \"rest_client.so\"\n{params}")
}

/// Runs `body` and checks what it leaves in `$avp(r)`, in order.
#[track_caller]
fn check(params: &str, body: &str, expected: &[&str]) {
    let ran = run(&config(params), body, Dialect::V4);
    let mut found = ran.avps("r");
    found.reverse();
    assert_eq!(found, expected, "{body}");
}

/// A request whose return code, status, type and body are what counts.
fn fetch(url: &str) -> String {
    format!(
        r#"$var(b) = "-"; $var(t) = "-"; $var(c) = "-"; rest_get("{url}", $var(b), $var(t), $var(c)); $avp(r) = $rc; $avp(r) = $var(c); $avp(r) = $var(t); $avp(r) = $var(b);"#
    )
}

#[test]
fn answers_of_any_kind_are_success() {
    let server = Server::start();
    let at = |path: &str| fetch(&format!("http://{}{path}", server.addr));
    check("", &at("/hello"), &["1", "200", "text/plain", "hi"]);
    check("", &at("/missing"), &["1", "404", "text/html", "no"]);
    check("", &at("/empty"), &["1", "204", "", ""]);
    // Not followed, as in the reference, unless asked to.
    check("", &at("/redirect"), &["1", "302", "", ""]);
    check(
        "modparam(\"rest_client\", \"max_redirects\", 3)\n",
        &at("/redirect"),
        &["1", "200", "text/plain", "hi"],
    );
    check("", &fetch(&format!("{}/hello", server.addr)), &["1", "200", "text/plain", "hi"]);
}

#[test]
fn ways_to_fail() {
    let server = Server::start();
    let at = |path: &str| fetch(&format!("http://{}{path}", server.addr));
    check("", &fetch("http://127.0.0.1:1/"), &["-1", "0", "-", "-"]);
    check("", &fetch("http://no-such-host.invalid/"), &["-10", "0", "-", "-"]);
    check("", &fetch("ftp://127.0.0.1/"), &["-10", "0", "-", "-"]);
    check("", &at("/short"), &["-10", "200", "-", "-"]);
    check("", &at("/garbage"), &["-10", "0", "-", "-"]);
    check(SHORT, &at("/silent"), &["-3", "0", "", ""]);
    check(SHORT, &at("/stalls"), &["-3", "200", "text/plain", "some"]);
    // With the same limit for the whole, either could be over first.
    let connecting = "modparam(\"rest_client\", \"connection_timeout\", 1)\n";
    let (_held, addr) = full_backlog();
    check(connecting, &fetch(&format!("http://{addr}/")), &["-2", "0", "-", "-"]);
}

#[test]
fn sizes() {
    let server = Server::start();
    let url = format!("http://{}/big", server.addr);
    let ran =
        run(&config(""), &format!(r#"rest_get("{url}", $avp(b), , $var(c)); $avp(r) = $rc;"#), Dialect::V4);
    assert_eq!((ran.avps("r"), ran.avps("b")[0].len()), (vec!["1".to_string()], 10 * 1024 * 1024));
    check("modparam(\"rest_client\", \"max_transfer_size\", 64)\n", &fetch(&url), &["-10", "200", "-", "-"]);
}

#[test]
fn what_is_sent() {
    let server = Server::start();
    let url = format!("http://{}/echo", server.addr);
    let seen = |body: &str| {
        let ran = run(&config(""), &body.replace("URL", &url), Dialect::V4);
        ran.avps("r").concat().to_lowercase()
    };
    let got = seen(
        r#"rest_append_hf("X-One: 1"); rest_append_hf("Authorization: Bearer abc"); rest_get("URL", $avp(r));"#,
    );
    assert!(got.starts_with("get /echo http/1.1"), "{got}");
    assert!(got.contains("x-one: 1\n") && got.contains("authorization: bearer abc\n"), "{got}");
    // Headers are for one request.
    let got = seen(r#"rest_append_hf("X-One: 1"); rest_get("URL", $var(x)); rest_get("URL", $avp(r));"#);
    assert!(!got.contains("x-one"), "{got}");
    let got = seen(r#"rest_post("URL", "a=b&c", , $avp(r));"#);
    assert!(got.starts_with("post") && got.ends_with("\n\na=b&c"), "{got}");
    assert!(got.contains("content-type: application/x-www-form-urlencoded\n"), "{got}");
    let got = seen(r#"rest_put("URL", "{}", "application/json", $avp(r));"#);
    assert!(got.starts_with("put") && got.contains("content-type: application/json\n"), "{got}");
}

#[test]
fn connections_are_used_again() {
    let server = Server::start();
    let url = format!("http://{}/hello", server.addr);
    let body = format!(
        r#"$var(i) = 0; while ($var(i) < 20) {{ rest_get("{url}", $var(b)); $var(i) = $var(i) + 1; }} $avp(r) = $rc;"#
    );
    check("", &body, &["1"]);
    assert_eq!(server.connections(), 1);
}

#[test]
fn tls() {
    let folder = Folder::new("rest-tls");
    let server = TlsServer::start(&folder.0);
    let url = format!("https://127.0.0.1:{}/", server.addr.port());
    let capath = format!("modparam(\"rest_client\", \"ssl_capath\", \"{}/ca.pem\")\n", folder.0.display());
    // Nobody we know signed it.
    check("", &fetch(&url), &["-10", "0", "-", "-"]);
    check(
        "modparam(\"rest_client\", \"ssl_verifypeer\", 0)\n",
        &fetch(&url),
        &["1", "200", "", "HTTP/2.0 nobody"],
    );
    // Signed by someone trusted, but for another name.
    check(&capath, &fetch(&url), &["-10", "0", "-", "-"]);
    let chain = format!("{capath}modparam(\"rest_client\", \"ssl_verifyhost\", 0)\n");
    check(&chain, &fetch(&url), &["1", "200", "", "HTTP/2.0 nobody"]);
    let old = format!("{chain}modparam(\"rest_client\", \"curl_http_version\", 2)\n");
    check(&old, &fetch(&url), &["1", "200", "", "HTTP/1.1 nobody"]);
    let us = format!(
        "{chain}modparam(\"tls_mgm\", \"client_domain\", \"us\")\nmodparam(\"tls_mgm\", \"certificate\", \"[us]{0}/client.pem\")\nmodparam(\"tls_mgm\", \"private_key\", \"[us]{0}/client.key\")\n",
        folder.0.display()
    );
    let twice = format!(r#"rest_init_client_tls("us"); {} {}"#, fetch(&url), fetch(&url));
    check(&us, &twice, &["1", "200", "", "HTTP/2.0 client", "1", "200", "", "HTTP/2.0 nobody"]);
    check(&us, r#"rest_init_client_tls("them"); $avp(r) = $rc;"#, &["-1"]);
}

#[test]
fn transformations_and_mistakes() {
    check(
        "",
        r#"$var(t) = "call@example.com&safe=false"; $avp(r) = $(var(t){rest.escape}); $avp(r) = $(var(t){rest.escape}{rest.unescape});"#,
        &["call%40example.com%26safe%3Dfalse", "call@example.com&safe=false"],
    );
    assert!(refused(&config(""), "$var(x) = $(ru{rest.escap});", Dialect::V4).contains("{rest.escape}"));
    assert!(
        refused(
            &config("modparam(\"rest_client\", \"ssl_capath\", \"/no/such/file.pem\")\n"),
            "exit;",
            Dialect::V4
        )
        .contains("/no/such/file.pem")
    );
}
