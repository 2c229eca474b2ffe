//! Transfers and holds of calls that stand.

use crate::dialog::tests::{CALLEE, CALLER, Call, find, header, reply};
use serde_json::json;

fn call() -> Call {
    Call::established("loadmodule \"callops.so\"\n", "create_dialog(); xlog(\"R-URI $ru\\n\");", "")
}

fn values(call: &mut Call) -> String {
    let list = call.server.manage("dialog:list_ctx", json!({})).expect("a list");
    list["Dialogs"][0]["context"]["values"].to_string()
}

#[test]
fn a_blind_transfer_is_known_again() {
    let mut call = call();
    let params = json!({"callid": "c1", "leg": "caller", "destination": "sip:carol@127.0.0.3:5070"});
    let sent = call.server.command("callops:transfer", params.clone());
    let refer = find(&sent, "REFER sip:alice@127.0.0.2:5060").expect("a REFER");
    let target = header(&refer, "Refer-To").expect("a target").to_string();
    assert!(target.starts_with("<sip:carol@127.0.0.3:5070;osid="), "{target}");
    assert!(call.server.manage("callops:transfer", params).is_err(), "one at a time");
    call.server.receive(CALLER, &reply(&refer, "202 Accepted", ""));
    let uri = target.trim_matches(['<', '>']);
    let invite = format!(
        "INVITE {uri} SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.2:5060;branch=z9hG4bKtwo\nFrom: <sip:alice@a.example>;tag=two\n\
         To: <sip:carol@x>\nCall-ID: c2\nCSeq: 1 INVITE\nContact: <sip:alice@127.0.0.2:5060>\nMax-Forwards: 70\n\
         Content-Length: 0\n\n"
    );
    let sent = call.server.receive(CALLER, &invite);
    let out = find(&sent, "INVITE ").expect("it passes");
    assert!(out.starts_with("INVITE sip:carol@127.0.0.3:5070 SIP/2.0"), "{out}");
    assert!(values(&mut call).contains(r#"{"call_transfer_callid":"c2"}"#));
    // The one that was referred tells how it goes; its NOTIFY is answered here.
    let notify = call.within_with(
        "NOTIFY",
        1,
        Call::FROM_CALLER,
        "Event: refer\nContent-Length: 14\n",
        "SIP/2.0 200 OK",
    );
    assert!(find(&notify, "SIP/2.0 200").is_some());
    call.server.receive(CALLEE, &reply(&out, "200 OK", "Contact: <sip:carol@127.0.0.3:5070>\n"));
    assert!(values(&mut call).contains(r#"{"call_transfer_leg":""}"#), "it is over");
}

#[test]
fn calls_are_held_and_resumed() {
    let mut call = call();
    let sdp = "v=0\r\nm=audio 1 RTP/AVP 0\r\na=sendrecv\r\n";
    for (cseq, from) in [(11, Call::FROM_CALLER), (1, Call::FROM_CALLEE)] {
        let lines = format!("Content-Type: application/sdp\nContent-Length: {}\n", sdp.len());
        call.within_with("UPDATE", cseq, from, &lines, sdp);
    }
    for (command, attribute) in [("callops:hold", "a=inactive"), ("callops:unhold", "a=sendrecv")] {
        let sent = call.server.command(command, json!({"callid": "c1"}));
        let invites: Vec<_> = sent.iter().filter(|s| s.text.starts_with("INVITE ")).collect();
        assert_eq!(invites.len(), 2, "{command}");
        for invite in &invites {
            assert!(invite.text.contains(attribute), "{}", invite.text);
            let place = if invite.text.starts_with("INVITE sip:alice") { CALLER } else { CALLEE };
            let sent = call.server.receive(place, &reply(&invite.text, "200 OK", ""));
            assert!(find(&sent, "ACK ").is_some());
        }
        assert_eq!(call.server.manage(command, json!({"callid": "c1"})).expect_err(command).code, 480);
    }
}
