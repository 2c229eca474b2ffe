//! Calls that are signed by one server and checked by another.

use super::trust::{Chain, Trust, sign};
use crate::testing::{Folder, START_S, Server, refused, run};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SerialNumber, date_time_ymd,
};
use script::ast::Dialect;

const NOW: i64 = START_S as i64;

struct Party {
    pem: String,
    key: KeyPair,
    params: CertificateParams,
}

static FOLDERS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

fn authority() -> Party {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2030, 1, 1);
    let key = KeyPair::generate().unwrap();
    Party { pem: params.self_signed(&key).unwrap().pem(), key, params }
}

/// A certificate for telephone numbers, or without that word.
fn provider(by: &Party, serial: u64, until: i32, numbers: &[u8]) -> Party {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.serial_number = Some(SerialNumber::from(serial));
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    if !numbers.is_empty() {
        let oid = [1, 3, 6, 1, 5, 5, 7, 1, 26];
        params.custom_extensions.push(CustomExtension::from_oid_content(&oid, numbers.to_vec()));
    }
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::from_params(&by.params, &by.key);
    Party { pem: params.signed_by(&key, &issuer).unwrap().pem(), key, params }
}

/// A service provider code (RFC 8226 §9): [0] { IA5String "709J" }.
const CODE: &[u8] = &[0x30, 0x08, 0xa0, 0x06, 0x16, 0x04, b'7', b'0', b'9', b'J'];

fn list(by: &Party, revoked: u64) -> String {
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2023, 1, 1),
        next_update: date_time_ymd(2029, 1, 1),
        crl_number: SerialNumber::from(1u64),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(revoked),
            revocation_time: date_time_ymd(2023, 1, 1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&Issuer::from_params(&by.params, &by.key)).unwrap().pem().unwrap()
}

const MODULES: &str = "loadmodule \"sl.so\"\nloadmodule \"sipmsgops.so\"\nloadmodule \"stir_shaken.so\"\n";

fn invite(extra: &str) -> String {
    format!(
        "INVITE sip:+12025552000@b SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.2;branch=z9hG4bK1\nFrom: <sip:+12025551000@a>;tag=1\n\
         To: <sip:+12025552000@b>\nCall-ID: c\nCSeq: 1 INVITE\n{extra}Content-Length: 0\n\n"
    )
}

fn status(server: &mut Server, request: &str) -> String {
    let sent = server.receive("127.0.0.2:5060", request);
    sent[0].text.lines().next().unwrap().trim_start_matches("SIP/2.0 ").to_owned()
}

/// The Identity line that a server makes, with `args` behind the certificate's address.
fn signed(by: &Party, args: &str, request: &str) -> Result<String, String> {
    let body = format!(
        "$var(c) = \"{}\"; $var(k) = \"{}\";\n\
         $var(rc) = stir_shaken_auth(\"full\", \"o-1\", $var(c), $var(k), \"https://certs.example.org/c.pem\", {args});\n\
         append_to_reply(\"$var(line)\"); sl_send_reply(200, \"rc $var(rc)\");",
        by.pem,
        by.key.serialize_pem()
    );
    let mut server = Server::new(&format!("{MODULES}route {{ {body} }}"), Dialect::V4);
    let reply = server.receive("127.0.0.2:5060", request).remove(0).text;
    let line = reply.lines().find(|line| line.starts_with("Identity: "));
    line.map(|line| format!("{line}\n")).ok_or_else(|| reply.lines().next().unwrap().to_owned())
}

fn verifier(authority: &Party, by: &Party, params: &str) -> (Folder, Server) {
    let number = FOLDERS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = Folder::new(&format!("stir-verifier-{number}"));
    std::fs::write(folder.0.join("ca.pem"), &authority.pem).unwrap();
    let body = format!(
        "$var(c) = \"{}\"; $var(rc) = stir_shaken_verify($var(c), $var(code), $var(reason));\n\
         sl_send_reply(200, \"$var(rc) $var(code) $var(reason) $identity(attest) $identity(orig) $identity(dest) \
         $identity(iat) $identity(x5u) $identity(origid)\");",
        by.pem
    );
    let ca = format!("modparam(\"stir_shaken\", \"ca_list\", \"{}/ca.pem\")\n", folder.0.display());
    let server = Server::new(&format!("{MODULES}{ca}{params}route {{ {body} }}"), Dialect::V4);
    (folder, server)
}

fn dated(moment: i64) -> String {
    format!("Date: {}\n", host::clock::rfc1123(moment))
}

#[test]
fn a_signed_call_is_believed() {
    let authority = authority();
    let provider = provider(&authority, 7, 2030, CODE);
    let line = signed(&provider, ",, \"$var(line)\"", &invite("")).unwrap();
    assert!(
        line.trim_end().ends_with(";info=<https://certs.example.org/c.pem>;alg=ES256;ppt=shaken"),
        "{line}"
    );
    let (_folder, mut server) = verifier(&authority, &provider, "");
    let good =
        format!("200 1 <null> <null> A 12025551000 12025552000 {NOW} https://certs.example.org/c.pem o-1");
    let heads = |line: &str, moment| format!("{line}{}", dated(moment));
    assert_eq!(status(&mut server, &invite(&heads(&line, NOW))), good);
    // Another extension's header before it does not hide it.
    let other = format!("{}{}", line.replace("ppt=shaken", "ppt=div"), heads(&line, NOW));
    assert_eq!(status(&mut server, &invite(&other)), good);
    let tail = good.split_once("<null> <null>").unwrap().1;
    let spoilt = line.replacen(".ey", ".eyA", 1);
    for (request, want) in [
        (invite(&heads("", NOW)), "200 -2 438 Invalid Identity Header <null>".to_owned()),
        (invite(&line), format!("200 -2 400 Bad Request (Missing Date){tail}")),
        (invite(&heads("Identity: garbage\n", NOW)), "200 -4 438 Invalid Identity Header <null>".to_owned()),
        (invite(&heads(&spoilt, NOW)), "200 -4 438 Invalid Identity Header <null>".to_owned()),
        (
            invite(&heads(&line.replace("alg=ES256", "alg=RS256"), NOW)),
            format!("200 -5 438 Invalid Identity Header{tail}"),
        ),
        (
            invite(&heads(&line.replace("ppt=shaken", "ppt=div"), NOW)),
            "200 -5 438 Invalid Identity Header <null>".to_owned(),
        ),
        (invite(&heads(&line, NOW - 61)), format!("200 -6 403 Stale Date{tail}")),
        (
            invite(&format!("{line}Date: yesterday\n")),
            format!("200 -1 500 Failed to get UNIX time from Date header{tail}"),
        ),
        (
            invite(&heads(&line, NOW)).replace("sip:+12025551000@a", "sip:+12025551001@a"),
            format!("200 -9 438 Invalid Identity Header{tail}"),
        ),
        (
            invite(&heads(&line, NOW)).replace("To: <sip:+12025552000", "To: <sip:+12025552001"),
            format!("200 -9 438 Invalid Identity Header{tail}"),
        ),
        (
            invite(&heads(&line, NOW)).replace("sip:+12025551000@a", "sip:alice@a"),
            format!("200 -3 400 Bad Request (PAI/From Number){tail}"),
        ),
        (
            invite(&heads(&format!("P-Asserted-Identity: <tel:+12025551001>\n{line}"), NOW)),
            format!("200 -9 438 Invalid Identity Header{tail}"),
        ),
    ] {
        let got = status(&mut server, &request);
        assert!(got.starts_with(&want), "{got}\nnot {want}");
    }
    // A minute later the Date of the call may be new, the PASSporT is not.
    server.advance(61_000);
    assert!(
        status(&mut server, &invite(&heads(&line, NOW + 61)))
            .starts_with("200 -9 438 Invalid Identity Header (bad signature)")
    );
}

#[test]
fn signatures_of_others_are_not_believed() {
    let (ours, theirs) = (authority(), authority());
    let good = provider(&ours, 7, 2030, CODE);
    let request = |by: &Party| {
        invite(&format!("{}{}", signed(by, ",, \"$var(line)\"", &invite("")).unwrap(), dated(NOW)))
    };
    let stranger = provider(&theirs, 7, 2030, CODE);
    let wordless = provider(&ours, 8, 2030, &[]);
    let another = provider(&ours, 9, 2030, CODE);
    for (certificate, signer, want) in [
        (&stranger, &stranger, "200 -8 437 Unsupported Credential"),
        (&wordless, &wordless, "200 -8 437 Unsupported Credential"),
        (&another, &good, "200 -9 438 Invalid Identity Header (bad signature)"),
        (&good, &good, "200 1 "),
    ] {
        let (_folder, mut server) = verifier(&ours, certificate, "");
        let got = status(&mut server, &request(signer));
        assert!(got.starts_with(want), "{got}\nnot {want}");
    }
    // Without a Date, `iat` counts.
    let (_folder, mut server) =
        verifier(&ours, &good, "modparam(\"stir_shaken\", \"require_date_hdr\", 0)\n");
    let undated = invite(&signed(&good, ",, \"$var(line)\"", &invite("")).unwrap());
    assert!(status(&mut server, &undated).starts_with("200 1 "));
    server.advance(61_000);
    assert!(status(&mut server, &undated).starts_with("200 -6 403 Stale Date"));
}

#[test]
fn what_cannot_be_signed() {
    let authority = authority();
    let (good, old) = (provider(&authority, 7, 2030, CODE), provider(&authority, 8, 2021, CODE));
    let out = ",, \"$var(line)\"";
    let with = |args: &str, request: String| signed(&good, args, &request).map(drop).unwrap_err();
    assert_eq!(with(out, invite("").replace("+12025551000", "alice")), "SIP/2.0 200 rc -3");
    assert_eq!(with("\"bob\", , \"$var(line)\"", invite("")), "SIP/2.0 200 rc -3");
    assert_eq!(with(out, invite(&dated(NOW - 61))), "SIP/2.0 200 rc -4");
    assert_eq!(with(out, invite("Date: x\n")), "SIP/2.0 200 rc -1");
    assert_eq!(signed(&old, out, &invite("")).unwrap_err(), "SIP/2.0 200 rc -5");
    // Into the replies, by itself.
    assert!(signed(&good, "\"+12\", \"34\", \"rpl\"", &invite("")).is_ok());
    let why = refused(MODULES, "stir_shaken_auth(\"D\", \"o\", \"c\", \"k\", \"u\");", Dialect::V4);
    assert!(why.contains("A, B or C"), "{why}");
    let why = refused(MODULES, "$var(a) = $identity(tn);", Dialect::V4);
    assert!(why.contains("no such field"), "{why}");
    let missing = format!("{MODULES}modparam(\"stir_shaken\", \"ca_list\", \"/no/such/file\")");
    assert!(refused(&missing, "exit;", Dialect::V4).contains("/no/such/file"));
}

#[test]
fn the_request_carries_date_and_identity() {
    let authority = authority();
    let by = provider(&authority, 7, 2030, CODE);
    let body = format!(
        "$var(c) = \"{}\"; $var(k) = \"{}\";\n\
         if (!stir_shaken_auth(\"B\", \"o-1\", $var(c), $var(k), \"https://c\")) exit;\n\
         stir_shaken_disengagement(\"OSIP99\"); $du = \"sip:127.0.0.3:5060\"; t_relay();",
        by.pem,
        by.key.serialize_pem()
    );
    let config = format!("socket=udp:127.0.0.1:5060\nloadmodule \"tm.so\"\n{MODULES}route {{ {body} }}");
    let sent = Server::new(&config, Dialect::V4).receive("127.0.0.2:5060", &invite(""));
    let relayed = &sent.iter().find(|sent| sent.text.starts_with("INVITE")).unwrap().text;
    let names: Vec<_> =
        relayed.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect();
    assert!(
        names.ends_with(&["Content-Length", "Date", "Identity", "P-Identity-Bypass"])
            || names.contains(&"Identity"),
        "{names:?}"
    );
    assert!(relayed.contains(&format!("Date: {}\r\n", host::clock::rfc1123(NOW))));
    assert!(relayed.contains("P-Identity-Bypass: OSIP99\r\n"));
}

#[test]
fn certificates_and_keys() {
    let authority = authority();
    let by = provider(&authority, 7, 2030, CODE);
    let chain = Chain::read(by.pem.as_bytes()).unwrap();
    let signature = sign(by.key.serialize_pem().as_bytes(), b"text").unwrap();
    assert!(chain.verifies(b"text", &signature));
    assert!(!chain.verifies(b"other", &signature) && !chain.verifies(b"text", &signature[1..]));
    assert!(
        Chain::read(b"").is_none()
            && Chain::read(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_none()
    );
    assert!(sign(b"", b"text").is_err());
    // What `openssl ecparam -name prime256v1 -genkey` writes.
    let sec1 = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n-----BEGIN EC PRIVATE KEY-----\n\
                MHcCAQEEIFCeXGDsHs2vSy8KnGW4RmMCvFx1kDQIV8VHFbpOXpOEoAoGCCqGSM49\nAwEHoUQDQgAE\n-----END EC PRIVATE KEY-----\n";
    assert_eq!(sign(sec1.as_bytes(), b"text"), Err("the private key is none of the curve P-256"));
}

#[test]
fn certificates_that_were_taken_back() {
    let authority = authority();
    let (good, bad) = (provider(&authority, 7, 2030, CODE), provider(&authority, 8, 2030, CODE));
    let folder = Folder::new("stir-lists");
    let path = |name: &str| folder.0.join(name).display().to_string();
    std::fs::create_dir(path("cas")).unwrap();
    std::fs::write(path("cas/0a1b2c3d.0"), &authority.pem).unwrap();
    std::fs::write(path("crl.pem"), list(&authority, 8)).unwrap();
    std::fs::write(path("empty.pem"), "").unwrap();
    let (cas, crl, empty) = (path("cas"), path("crl.pem"), path("empty.pem"));
    let chain = |party: &Party| Chain::read(party.pem.as_bytes()).unwrap();
    let trust = Trust::read([None, Some(&cas)], [Some(&crl), None]).unwrap();
    assert_eq!(trust.check(&chain(&good), NOW), Ok(()));
    assert!(trust.check(&chain(&bad), NOW).unwrap_err().contains("Revoked"));
    // The list is too old by 2029.
    assert!(trust.check(&chain(&good), 1_861_920_000).is_err());
    let lax = Trust::read([None, Some(&cas)], [None, None]).unwrap();
    assert_eq!(lax.check(&chain(&bad), NOW), Ok(()));
    assert!(lax.check(&chain(&bad), 4_000_000_000).is_err());
    let unlisted = Trust::read([None, Some(&cas)], [Some(&empty), None]).unwrap();
    assert!(unlisted.check(&chain(&good), NOW).is_err());
    assert!(Trust::read([Some(&empty), None], [None, None]).is_err());
}

#[test]
fn authorities_are_read_again() {
    let (old, new) = (authority(), authority());
    let by = provider(&new, 7, 2030, CODE);
    let line = signed(&by, ",, \"$var(line)\"", &invite("")).unwrap();
    let (folder, mut server) = verifier(&old, &by, "");
    let request = invite(&format!("{line}{}", dated(NOW)));
    assert!(status(&mut server, &request).starts_with("200 -8 "));
    std::fs::write(folder.0.join("ca.pem"), &new.pem).unwrap();
    assert_eq!(server.manage("stir_shaken:ca_reload", serde_json::json!({})).unwrap(), "OK");
    assert!(status(&mut server, &request).starts_with("200 1 "));
    // A file that cannot be read leaves what is there.
    std::fs::write(folder.0.join("ca.pem"), "nothing").unwrap();
    assert!(server.manage("stir_shaken_ca_reload", serde_json::json!({})).is_err());
    assert!(status(&mut server, &request).starts_with("200 1 "));
    assert!(server.manage("stir_shaken:crl_reload", serde_json::json!({})).is_err());
}

#[test]
fn checks_without_a_signature() {
    let authority = authority();
    let (by, old) = (provider(&authority, 7, 2030, CODE), provider(&authority, 8, 2021, CODE));
    let line = signed(&by, ",, \"$var(line)\"", &invite("")).unwrap();
    let config =
        format!("{MODULES}route {{ $var(rc) = stir_shaken_check(); sl_send_reply(200, \"$var(rc)\"); }}");
    let mut server = Server::new(&config, Dialect::V4);
    for (head, want) in [
        (line.clone(), "200 1"),
        (String::new(), "200 -2"),
        ("Identity: a.b.c;ppt=shaken\n".to_owned(), "200 -3"),
        (line.replace("ppt=shaken", "ppt=rph"), "200 -4"),
        (line.replace("alg=ES256", "alg=none"), "200 -4"),
        (line.replace("Identity:", "y:"), "200 1"),
    ] {
        assert_eq!(status(&mut server, &invite(&head)), want, "{head}");
    }
    let body = format!(
        "route(x);\n}}\nroute[x] {{ $avp(a) = \"{}\"; $avp(b) = \"{}\"; stir_shaken_check_cert($avp(a)); $avp(rc) = $rc; \
         stir_shaken_check_cert($avp(b)); $avp(rc) = $rc; stir_shaken_check_cert(\"no\"); $avp(rc) = $rc;",
        by.pem, old.pem
    );
    // The clock of `run` stands at 1970.
    let ran = run(MODULES, &body, Dialect::V4);
    assert_eq!(ran.avps("rc"), ["-1", "-2", "-2"]);
}
