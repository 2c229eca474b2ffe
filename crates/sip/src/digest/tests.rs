use super::*;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// RFC 7616 §3.9.1 and RFC 2617 §3.5.
#[test]
fn responses_of_the_rfcs() {
    let check = |algorithm, user: &str, password: &str, nonce: &str, cnonce: &str, want: &str| {
        let realm = if user == "Mufasa" && cnonce.len() < 10 {
            "testrealm@host.com"
        } else {
            "http-auth@example.org"
        };
        let response = Response {
            algorithm,
            nonce: nonce.as_bytes(),
            qop: Some(Qop::Auth),
            nc: b"00000001",
            cnonce: cnonce.as_bytes(),
            method: b"GET",
            uri: b"/dir/index.html",
            body: b"",
        };
        let ha1 = ha1(algorithm, user.as_bytes(), realm.as_bytes(), password.as_bytes());
        assert_eq!(response.compute(&ha1), want);
    };
    let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
    let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
    let password = "Circle of Life";
    check(Algorithm::Md5, "Mufasa", password, nonce, cnonce, "8ca523f5e9506fed4657c9700eebdbec");
    check(
        Algorithm::Sha256,
        "Mufasa",
        password,
        nonce,
        cnonce,
        "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
    );
    check(
        Algorithm::Md5,
        "Mufasa",
        "Circle Of Life",
        "dcd98b7102dd2f0e8b11d0f600bfb0c093",
        "0a4f113b",
        "6629fae49393a05397450978507c4ef1",
    );
}

fn challenge(qop: Vec<Qop>, algorithm: Option<Algorithm>) -> Challenge {
    Challenge {
        realm: bytes("r"),
        nonce: bytes("n1"),
        qop,
        algorithm,
        opaque: Some(bytes("o")),
        stale: Stale::No,
    }
}

#[test]
fn an_answer_verifies_and_a_changed_one_does_not() {
    let algorithms = ALGORITHMS.iter().map(|&(a, _)| Some(a)).chain([None]);
    for algorithm in algorithms {
        for qop in [vec![], vec![Qop::Auth], vec![Qop::AuthInt], vec![Qop::AuthInt, Qop::Auth]] {
            let challenge = challenge(qop, algorithm);
            assert_eq!(Challenge::parse(&challenge.print()).unwrap(), challenge);
            let secret = ha1(algorithm.unwrap_or(Algorithm::Md5), b"alice", b"r", b"secret");
            let answer = challenge.answer(&Answer {
                user: b"alice",
                ha1: &secret,
                method: b"INVITE",
                uri: b"sip:b@x",
                body: b"v=0",
                cnonce: b"c1",
                nonce_count: 10,
            });
            let credentials = Credentials::parse(&answer).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
            // A -sess answer without qop carries its cnonce all the same.
            assert!(credentials.verify(&secret, b"INVITE", b"v=0"), "{answer:?}");
            assert!(!credentials.verify(&secret, b"BYE", b"v=0"));
            assert_eq!(credentials.verify(&secret, b"INVITE", b"v=1"), credentials.qop != Some(Qop::AuthInt));
            assert!(!credentials.verify(&ha1(Algorithm::Md5, b"alice", b"r", b"x"), b"INVITE", b"v=0"));
        }
    }
}

#[test]
fn challenges_as_the_reference_prints_them() {
    let mut plain = challenge(vec![Qop::AuthInt, Qop::Auth], Some(Algorithm::Sha512_256));
    plain.opaque = None;
    assert_eq!(
        plain.print(),
        "Digest realm=\"r\", nonce=\"n1\", qop=\"auth-int,auth\", algorithm=SHA-512-256"
    );
    plain = Challenge { qop: vec![], algorithm: None, stale: Stale::Yes, ..plain };
    assert_eq!(plain.print(), "Digest realm=\"r\", nonce=\"n1\", stale=true");
}

#[test]
fn malformed_credentials() {
    const R: &str = "0123456789abcdef0123456789abcdef";
    let check = |text: String, want: Result<(), DigestError>| {
        assert_eq!(Credentials::parse(&bytes(&text)).map(drop), want, "{text}");
    };
    let full = format!("username=\"a\", realm=\"r\", nonce=\"n\", uri=\"sip:x\", response=\"{R}\"");
    check(format!("Digest {full}"), Ok(()));
    check(format!("digest\t{full}, algorithm=MD5, opaque=\"\""), Ok(()));
    check(format!("Digest {full}, qop=auth, nc=00000001, cnonce=\"x\""), Ok(()));
    check(
        format!("Digest {full}, qop=\"auth\", nc=0000000G, cnonce=\"x\""),
        Err(DigestError::Malformed("nc")),
    );
    check(format!("Digest {full}, qop=auth, nc=00000001"), Err(DigestError::Malformed("no cnonce")));
    check(format!("Digest {full}, qop=foo"), Err(DigestError::Qop));
    check(format!("Digest {full}, algorithm=FOO"), Err(DigestError::Algorithm));
    check(
        format!("Digest {full}, algorithm=SHA-256"),
        Err(DigestError::Malformed("response of wrong length")),
    );
    check("Digest blah".into(), Err(DigestError::Malformed("parameter without value")));
    check("Digest".into(), Err(DigestError::Malformed("no response")));
    check("Basic QWxhZGRpbjpvcGVu".into(), Err(DigestError::OtherScheme));
    check("Digestive a=b".into(), Err(DigestError::OtherScheme));
    check(String::new(), Err(DigestError::OtherScheme));
    check("Digest username=\"open".into(), Err(DigestError::Malformed("quoted string")));
    check(format!("Digest username=\"a\", response=\"{R}\""), Err(DigestError::Malformed("no realm")));
}

#[test]
fn parts_of_credentials() {
    let text = "Digest username=\"al,ice@x.org\",realm=\"a \\\"b\\\"\",nonce=\"n\",uri=\"sip:x;a=b,c\",\
                response=\"0123456789ABCDEF0123456789ABCDEF\",nc=0000000a,qop=auth,cnonce=\"\"";
    let credentials = Credentials::parse(&bytes(text)).unwrap();
    assert_eq!(credentials.user_and_domain(), (bytes("al,ice"), Some(bytes("x.org"))));
    assert_eq!(credentials.uri, "sip:x;a=b,c");
    assert_eq!(credentials.nonce_count(), 10);
}

#[test]
fn outlines_of_malformed_credentials() {
    let outline = |text: &str| Outline::parse(&bytes(text)).map(|o| (o.realm, o.complete));
    let b = |text: &str| Some(bytes(text));
    for text in
        ["Digest", "Digest blah", "Basic abc", "Digest realm=\"r", "Digest username=\"a\" realm=\"r\""]
    {
        assert_eq!(outline(text), None, "{text}");
    }
    let all = "Digest username=\"a\", realm=\"r\", nonce=\"n\", uri=\"\", response=\"0\"";
    assert_eq!(outline("Digest username=\"a\""), Some((None, None)));
    assert_eq!(outline("Digest realm=\"r\", nonce=\"n\""), Some((b("r"), None)));
    assert_eq!(outline(all), Some((b("r"), b("n"))));
    assert_eq!(outline(&format!("{all}, qop=auth, nc=1")), Some((b("r"), None)));
    assert_eq!(outline(&format!("{all}, qop=auth, nc=1, cnonce=\"\"")), Some((b("r"), b("n"))));
    assert_eq!(outline(&all.replace("\"a\"", "\"\"")), Some((b("r"), None)));
}
