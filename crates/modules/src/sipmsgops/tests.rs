//! Scripts over arbitrary messages: nothing panics, and what is printed is a message.

use crate::testing::run_with;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use script::ast::Dialect;
use sip::{Message, PrintTarget, SocketNames};
use std::rc::Rc;

const HEADERS: [&str; 16] = [
    "Via: SIP/2.0/UDP h;branch=1",
    "From: <sip:a@b>;tag=1",
    "To: sip:b",
    "Call-ID: x",
    "CSeq: 1 INVITE",
    "Contact: <sip:a@10.0.0.1:9;transport=udp>, *",
    "Subject: hello",
    "s: ",
    "Supported: a, b,,c",
    "k:",
    "X-Empty:",
    "No colon",
    "Content-Type: application/sdp",
    "c: multipart/mixed;boundary=b",
    "Content-Length: 3",
    "l: 99999",
];

const LINES: [&str; 14] = [
    "v=0",
    "o=- 1 1 IN IP4 10.0.0.1",
    "c=IN IP4 0.0.0.0",
    "m=audio 4000 RTP/AVP 0 8 97",
    "m=video",
    "m=",
    "a=rtpmap:97 speex/16000",
    "a=rtpmap:97",
    "a=fmtp:101 apt=97",
    "a=inactive",
    "--b",
    "--b--",
    "Content-Type: application/sdp",
    "",
];

const STATEMENTS: [&str; 34] = [
    r#"append_hf("X: 1\r\n", "Subject");"#,
    r#"insert_hf("X: 2\r\n", "k");"#,
    r#"remove_hf("Subject");"#,
    r#"remove_hf_re("^x-");"#,
    r#"remove_hf_glob("*");"#,
    r#"remove_hf("Content-Length");"#,
    r#"list_hdr_add_option("Supported", "x");"#,
    r#"list_hdr_remove_option("k", "b");"#,
    r#"add_body_part("text", "text/plain", "H: 1\r\n");"#,
    r#"remove_body_part("application/sdp");"#,
    r#"remove_body_part("text/plain", "revert");"#,
    r#"remove_body_part();"#,
    r#"codec_delete("speex");"#,
    r#"codec_delete_except_re("PCMU");"#,
    r#"codec_move_up("PCMA");"#,
    r#"codec_move_down_re("PCM|sp");"#,
    r#"stream_delete("audio");"#,
    r#"is_audio_on_hold();"#,
    r#"has_body_part("application/sdp");"#,
    r#"get_updated_body_part(, $var(x));"#,
    r#"get_updated_body_part("application/sdp", $var(x));"#,
    r#"sipmsg_validate("shrftc", $var(x));"#,
    r#"sip_to_json($var(x));"#,
    r#"get_glob_headers_values("*", $avp(n), $avp(v));"#,
    r#"replace("hello", "bye");"#,
    r#"replace_all("[0-9]", "9");"#,
    r#"replace_body("a", "b");"#,
    r#"replace_body_all("a=", "b=");"#,
    r#"search_append("Sub", "-");"#,
    r#"search_append_body("v", "w");"#,
    r#"subst('/^(X-E).*y/\1/');"#,
    r#"subst_body('/m=.*$/m=/sg');"#,
    r#"ruri_add_param("x=1");"#,
    r#"ruri_tel2sip();"#,
];

fn names() -> SocketNames {
    SocketNames { host: "us".into(), port: 5060, transport: "UDP" }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(2046),
        ..ProptestConfig::default()
    })]

    #[test]
    fn edits_keep_messages_whole(
        headers in proptest::collection::vec(proptest::sample::select(&HEADERS[..]), 0..10),
        lines in proptest::collection::vec(proptest::sample::select(&LINES[..]), 0..16),
        statements in proptest::collection::vec(proptest::sample::select(&STATEMENTS[..]), 1..8),
    ) {
        let raw = format!("INVITE tel:+1 SIP/2.0\r\n{}\r\n\r\n{}", headers.join("\r\n"), lines.join("\r\n"));
        let Ok(message) = Message::parse(raw.into()) else { return Ok(()) };
        let config = "loadmodule \"sipmsgops.so\"\nloadmodule \"textops.so\"";
        let ran = run_with(config, &statements.concat(), Dialect::V4, |state| state.msg = Rc::new(message));
        let names = names();
        let target = PrintTarget {
            uri: &ran.state.current_uri(),
            via: b"Via: SIP/2.0/UDP us;branch=z9hG4bKx\r\n",
            via_params: b"",
            extra: b"",
            send: &names,
            received: &names,
        };
        let printed = sip::print_request(&ran.state.msg, &[&ran.state.edits], &target);
        let again = Message::parse(printed.clone());
        prop_assert!(again.is_ok(), "{:?}", String::from_utf8_lossy(&printed));
        // The length is right whenever the body was changed.
        let again = again.unwrap();
        if sip::edited_body(&ran.state.msg, &ran.state.edits) != ran.state.msg.text(ran.state.msg.body())
            && let Some(length) = again.content_length()
        {
            let actual = again.buf().len() - again.body().start as usize;
            prop_assert_eq!(length as usize, actual, "{:?}", String::from_utf8_lossy(&printed));
        }
    }
}
