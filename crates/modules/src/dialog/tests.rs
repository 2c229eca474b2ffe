//! Calls through the whole module: real loader, scripts and worker, without a network.

use crate::testing::{Sent, Server};
use script::ast::Dialect;
use serde_json::json;

const CONFIG: &str = r#"
socket = udp:127.0.0.1:5060
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "sl.so"
loadmodule "signaling.so"
loadmodule "dialog.so"
"#;

/// A server with these parameters and statements for the INVITE.
pub fn server(params: &str, invite: &str, routes: &str) -> Server {
    let script = format!(
        r#"{CONFIG}{params}
route {{
    if (has_totag()) {{
        loose_route();
        t_relay();
        exit;
    }}
    if (is_method("CANCEL")) {{ t_relay(); exit; }}
    {invite}
    record_route();
    $du = "sip:127.0.0.3:5070";
    t_relay();
}}
{routes}"#
    )
    .replace("loadmodule \"rr.so\"", "loadmodule \"rr.so\"\nloadmodule \"sipmsgops.so\"");
    Server::new(&script, Dialect::V4)
}

pub fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
}

/// A reply to a request that the server sent; `more` are whole lines.
pub fn reply(request: &str, status: &str, more: &str) -> String {
    let mut out = format!("SIP/2.0 {status}\n");
    for line in request.lines().map(str::trim_end) {
        let name = line.split(':').next().unwrap_or("");
        if matches!(name, "Via" | "Record-Route" | "From" | "Call-ID" | "CSeq") {
            out += &format!("{line}\n");
        }
        if name == "To" {
            let tag = if line.contains("tag=") { "" } else { ";tag=callee" };
            out += &format!("{line}{tag}\n");
        }
    }
    format!("{out}{more}Content-Length: 0\n\n")
}

pub const CALLER: &str = "127.0.0.2:5060";
pub const CALLEE: &str = "127.0.0.3:5070";

/// One call and what has become of it.
pub struct Call {
    pub server: Server,
    pub route: String,
}

impl Call {
    pub fn begin(mut server: Server) -> (Call, String) {
        let invite = "INVITE sip:bob@example.com SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.2:5060;branch=z9hG4bKone\n\
                      From: <sip:alice@a.example>;tag=caller\nTo: <sip:bob@b.example>\nCall-ID: c1\nCSeq: 10 INVITE\n\
                      Contact: <sip:alice@127.0.0.2:5060>\nMax-Forwards: 70\nContent-Length: 0\n\n";
        let sent = server.receive(CALLER, invite);
        let out = find(&sent, "INVITE ").unwrap_or_default();
        (Call { server, route: String::new() }, out)
    }

    /// INVITE, 180, 200, ACK.
    pub fn established(params: &str, invite: &str, routes: &str) -> Call {
        let (mut call, out) = Call::begin(server(params, invite, routes));
        let contact = "Contact: <sip:bob@127.0.0.3:5070>\n";
        call.server.receive(CALLEE, &reply(&out, "180 Ringing", contact));
        let sent = call.server.receive(CALLEE, &reply(&out, "200 OK", contact));
        let ok = find(&sent, "SIP/2.0 200").expect("the 200 goes on");
        call.route = header(&ok, "Record-Route").expect("a route").to_string();
        let sent = call.within("ACK", 10, true);
        assert!(find(&sent, "ACK sip:bob@127.0.0.3:5070").is_some());
        call
    }

    pub const FROM_CALLER: bool = true;
    pub const FROM_CALLEE: bool = false;

    pub fn within(&mut self, method: &str, cseq: u32, downstream: bool) -> Vec<Sent> {
        self.within_with(method, cseq, downstream, "Content-Length: 0\n", "")
    }

    /// A request inside the call with further lines, Content-Length among them, and a body.
    pub fn within_with(
        &mut self,
        method: &str,
        cseq: u32,
        downstream: bool,
        lines: &str,
        body: &str,
    ) -> Vec<Sent> {
        let (caller, callee) = ("<sip:alice@a.example>;tag=caller", "<sip:bob@b.example>;tag=callee");
        let (place, from, to, uri) = match downstream {
            true => (CALLER, caller, callee, "sip:bob@127.0.0.3:5070"),
            false => (CALLEE, callee, caller, "sip:alice@127.0.0.2:5060"),
        };
        let text = format!(
            "{method} {uri} SIP/2.0\nVia: SIP/2.0/UDP {place};branch=z9hG4bK{method}{cseq}\nRoute: {}\n\
             From: {from}\nTo: {to}\nCall-ID: c1\nCSeq: {cseq} {method}\nMax-Forwards: 70\n{lines}\n{body}",
            self.route
        );
        self.server.receive(place, &text)
    }

    fn list(&mut self) -> serde_json::Value {
        self.server.manage("dialog:list", json!({})).expect("a list")["Dialogs"].clone()
    }

    fn stat(&mut self, name: &str) -> i64 {
        self.server.statistic(name)
    }
}

pub fn find(sent: &[Sent], start: &str) -> Option<String> {
    sent.iter().find(|s| s.text.starts_with(start)).map(|s| s.text.clone())
}

fn state(list: &serde_json::Value) -> Option<i64> {
    list.get(0)?.get("state")?.as_i64()
}

#[test]
fn a_call_is_known_from_invite_to_bye() {
    let mut call = Call::established("", "create_dialog();", "");
    let list = call.list();
    assert_eq!(state(&list), Some(4));
    assert_eq!(list[0]["caller_contact"], "sip:alice@127.0.0.2:5060");
    assert_eq!(list[0]["CALLEES"][0]["callee_tag"], "callee");
    let sent = call.within("BYE", 11, true);
    assert!(find(&sent, "BYE ").is_some());
    assert_eq!((call.stat("active_dialogs"), call.stat("processed_dialogs")), (0, 1));
    // It stays a little for what comes late, then it is gone.
    assert_eq!(state(&call.list()), Some(5));
    for _ in 0..200 {
        call.server.advance(50);
    }
    assert_eq!(call.list(), json!([]));
}

#[test]
fn refused_and_cancelled_calls_leave_nothing() {
    for status in ["486 Busy Here", "302 Moved"] {
        let (mut call, out) = Call::begin(server("", "create_dialog();", ""));
        call.server.receive(CALLEE, &reply(&out, status, ""));
        assert_eq!((call.stat("failed_dialogs"), call.stat("early_dialogs")), (1, 0), "{status}");
        for _ in 0..200 {
            call.server.advance(50);
        }
        assert_eq!(call.list(), json!([]), "{status}");
    }
}

#[test]
fn time_that_is_over_ends_the_call_both_ways() {
    let mut call = Call::established("", "create_dialog(\"bye-on-timeout\"); $DLG_timeout = 2;", "");
    let mut byes = Vec::new();
    for _ in 0..60 {
        byes.extend(call.server.advance(50).into_iter().filter(|s| s.text.starts_with("BYE ")));
        if byes.len() >= 2 {
            break;
        }
    }
    let cseqs: Vec<_> = byes.iter().map(|b| header(&b.text, "CSeq").unwrap_or("").to_string()).collect();
    assert_eq!(cseqs, ["1 BYE", "11 BYE"], "to the caller, to the callee");
    assert_eq!(state(&call.list()), Some(4), "it ends with the first answer");
    let ok = reply(&byes[1].text, "200 OK", "");
    call.server.receive(CALLEE, &ok);
    assert_eq!((state(&call.list()), call.stat("expired_dialogs")), (Some(5), 1));
}

#[test]
fn ends_that_ask_for_a_password_are_answered() {
    let params = "loadmodule \"uac_auth.so\"\nmodparam(\"uac_auth\", \"credential\", \"us:r:secret\")\n";
    let mut call = Call::established(params, "create_dialog();", "");
    call.server.manage("dialog:end_dlg", json!({"dialog_id": "c1"})).expect("it ends");
    let sent = call.server.sent();
    let bye = find(&sent, "BYE sip:bob").expect("a BYE to the callee");
    assert_eq!(header(&bye, "CSeq"), Some("11 BYE"));
    let challenge = "Proxy-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"\n";
    let sent = call.server.receive(CALLEE, &reply(&bye, "407 Who Are You", challenge));
    let again = find(&sent, "BYE sip:bob").expect("the BYE once more");
    assert_eq!(header(&again, "CSeq"), Some("12 BYE"));
    let credentials = header(&again, "Proxy-Authorization").expect("an answer");
    assert!(
        credentials.contains("username=\"us\"") && credentials.contains("uri=\"sip:bob@127.0.0.3:5070\"")
    );
    assert_eq!(state(&call.list()), Some(4), "it has not ended yet");
    // A second refusal is the last word.
    call.server.receive(CALLEE, &reply(&again, "407 Who Are You", challenge));
    assert_eq!(state(&call.list()), Some(5));
}

#[test]
fn numbers_are_shifted_after_requests_of_the_server() {
    let mut call = Call::established("", "create_dialog();", "");
    let params = json!({"callid": "c1", "method": "INFO", "mode": "callee"});
    let sent = call.server.command("dialog:send_sequential", params);
    let info = find(&sent, "INFO ").expect("a request of the server");
    assert_eq!(header(&info, "CSeq"), Some("11 INFO"));
    call.server.receive(CALLEE, &reply(&info, "200 OK", ""));
    let sent = call.within("MESSAGE", 11, true);
    let message = find(&sent, "MESSAGE ").expect("it passes");
    assert_eq!(header(&message, "CSeq"), Some("12 MESSAGE"));
    let sent = call.server.receive(CALLEE, &reply(&message, "200 OK", ""));
    assert_eq!(header(&sent[0].text, "CSeq"), Some("11 MESSAGE"), "as its sender knows it");
    let sent = call.within("MESSAGE", 1, false);
    assert_eq!(header(&find(&sent, "MESSAGE ").expect("it passes"), "CSeq"), Some("1 MESSAGE"));
}

#[test]
fn what_is_not_of_the_call_is_not_matched() {
    let script = "loadmodule \"textops.so\"\n";
    let mut call = Call::established(script, "create_dialog();", "");
    call.route = call.route.replace("did=", "did=ff");
    let sent = call.within("BYE", 11, true);
    assert!(find(&sent, "BYE ").is_some(), "a wrong identity falls back to Call-ID and tags");
    assert_eq!(state(&call.list()), Some(5));
}

/// What a constant names has to be there when the script loads; a variable is looked at when the function runs.
#[test]
fn constants_are_checked_at_load() {
    let config = "loadmodule \"tm.so\"\nloadmodule \"rr.so\"\nloadmodule \"dialog.so\"\n";
    let error = crate::testing::refused(config, "load_dialog_ctx(\"x\", \"nosuch\");", Dialect::V4);
    assert!(error.contains("callid or did") && error.contains("test.cfg:6:"), "{error}");
    let ran = crate::testing::run(
        config,
        "$var(kind) = \"nosuch\"; if (!load_dialog_ctx(\"x\", $var(kind))) $avp(x) = 1;",
        Dialect::V4,
    );
    assert_eq!(ran.avps("x"), ["1"]);
}
