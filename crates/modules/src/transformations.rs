//! Whatever bytes a message brings: no transformation panics or hangs, and each keeps its promises.

use crate::testing;
use host::Value;
use host::avp::AvpName;
use proptest::prelude::*;
use script::ast::Dialect;

/// Every transformation of the core, with parameters in and out of range.
const ALL: &[&str] = &[
    "s.len",
    "s.int",
    "s.md5",
    "s.crc32",
    "s.reverse",
    "s.tolower",
    "s.toupper",
    "s.trim",
    "s.triml",
    "s.trimr",
    "s.substr,0,0",
    "s.substr,-2147483648,2147483647",
    "s.substr,3,-2147483648",
    "s.substr,$avp(n),$avp(n)",
    "s.select,0,;",
    "s.select,-1,,",
    "s.select,-2147483648,=",
    "s.select,$avp(n),:",
    "s.index,a",
    "s.index,$avp(x),-2147483648",
    "s.rindex,a,2147483647",
    "s.rindex,$avp(x),$avp(n)",
    "s.fill.left,ab,40",
    "s.fill.right,0,2147483647",
    "s.width,1",
    "s.width,70000",
    "s.width,$avp(n)",
    "s.encode.hexa",
    "s.decode.hexa",
    "s.escape.common",
    "s.unescape.common",
    "s.escape.user",
    "s.unescape.user",
    "s.escape.param",
    "s.unescape.param",
    "s.dec2hex",
    "s.hex2dec",
    "s.b64encode",
    "s.b64decode",
    "s.xor,key",
    "s.xor,$avp(x)",
    "s.eval",
    "s.date2unix",
    "s.sha1",
    "s.sha224",
    "s.sha256",
    "s.sha384",
    "s.sha512",
    "s.sha1_hmac,k",
    "s.sha512_hmac,$avp(x)",
    "uri.user",
    "uri.passwd",
    "uri.host",
    "uri.port",
    "uri.params",
    "uri.headers",
    "uri.transport",
    "uri.ttl",
    "uri.uparam",
    "uri.maddr",
    "uri.method",
    "uri.lr",
    "uri.r2",
    "uri.schema",
    "uri.param,lr",
    "uri.param,$avp(x)",
    "via.name",
    "via.version",
    "via.transport",
    "via.host",
    "via.port",
    "via.comment",
    "via.params",
    "via.branch",
    "via.received",
    "via.rport",
    "via.param,branch",
    "via.param,$avp(x)",
    "param.value,a",
    "param.value,$avp(x)",
    "param.exist,a",
    "param.valueat,-1",
    "param.valueat,2147483647",
    "param.name,0",
    "param.name,-2147483648",
    "param.count",
    "nameaddr.name",
    "nameaddr.uri",
    "nameaddr.len",
    "nameaddr.params",
    "nameaddr.param,tag",
    "nameaddr.-1.uri",
    "nameaddr.1.params",
    "nameaddr.$avp(n).len",
    "ip.pton",
    "ip.ntop",
    "ip.family",
    "ip.isip",
    "ip.isip4",
    "ip.isip6",
    "ip.isprivate",
    "ip.matches,10.0.0.0/8",
    "ip.matches,$avp(x)",
    "csv.count",
    "csv.value,0",
    "csv.value,-1",
    "csv.value,-2147483648",
    "sdp.line,m",
    "sdp.line,a,2147483647",
    "sdp.stream,0",
    "sdp.stream,-1",
    "sdp.stream,audio",
    "sdp.stream-delete,0",
    "sdp.stream-delete,audio",
    "sdp.stream,$avp(x)",
    "re.subst,/a(.)/b\\1/g",
    "re.subst,/^.*$$/x/s",
    "re.subst,$avp(x)",
];

/// Applies all of them; the results are `$avp(o)`, in order.
fn apply(input: &[u8], n: i64, dialect: Dialect) {
    // 2.1 refuses negative lengths when it loads.
    let loads = |t: &&&str| dialect == Dialect::V4 || !t.starts_with("s.substr");
    let body: String = ALL
        .iter()
        .filter(loads)
        .map(|t| {
            format!(
                "$avp(o) = \"\" + $(avp(x){{{}}}) + \"|\" + $(avp(x){{{}}}{{s.len}});",
                t.replace('\\', "\\\\"),
                t.replace('\\', "\\\\")
            )
        })
        .collect();
    let ran = testing::run_with("", &body, dialect, |state| {
        let mut avps = state.avps.borrow_mut();
        avps.add(AvpName::new(b"x"), Value::Str(bytes::Bytes::copy_from_slice(input)));
        avps.add(AvpName::new(b"n"), Value::Int(n));
    });
    assert_eq!(ran.waits, 0);
}

/// Texts that get past the first checks of the parsers.
fn shaped() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "sip:",
        "tel:",
        "urn:",
        "alice",
        "@",
        "[2001:db8::1]",
        "10.0.0.1",
        ":",
        "5060",
        "99999",
        ";",
        "lr",
        "=",
        "\"",
        "\\",
        "<",
        ">",
        ",",
        "?",
        "&",
        "%41",
        "%",
        "SIP/2.0/UDP ",
        "branch=z9hG4bK",
        "m=audio ",
        "a=x",
        "\r\n",
        "v=0",
        "user=phone",
        "$fU",
        "$(",
        "{s.len}",
        "/",
        "g",
        " ",
        "0x1f",
        "-",
        "Thu, 13 Jun 2024 12:48:00 GMT",
        "é",
        "\0",
    ]);
    prop::collection::vec(pieces, 0..12).prop_map(|parts| parts.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_bytes(input in prop::collection::vec(any::<u8>(), 0..200), n in any::<i32>()) {
        apply(&input, n.into(), Dialect::V4);
    }

    #[test]
    fn shaped_texts(input in shaped(), n in -5i64..5) {
        apply(&input, n, Dialect::V4);
        apply(&input, n, Dialect::V21);
    }
}

#[test]
fn long_texts() {
    for unit in
        ["a", "<", "\"", "a=1;", "(", "%41", "\r\n", "sip:a@b;x=", "m=audio 1\r\n", "$(avp(x){s.len})"]
    {
        apply(unit.repeat(66_000 / unit.len()).as_bytes(), 1, Dialect::V4);
    }
}
