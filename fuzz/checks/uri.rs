//! Parses arbitrary bytes as URI, address and Via; builders must give URIs that parse again.

use bytes::Bytes;
use sip::{NameAddr, Params, Scheme, Uri, Via};

pub fn check(data: &[u8]) {
    let text = Bytes::copy_from_slice(data);
    let _ = (NameAddr::parse(&text), NameAddr::parse_list(&text), Via::parse(&text));
    let _ = Params { text: text.clone() }.iter().count();
    assert!(sip::unescape(&sip::escape_user(data)).as_ref() == data);
    assert!(sip::unescape(&sip::escape_param(data)).as_ref() == data);
    let Ok(uri) = Uri::parse(&text) else { return };
    assert!(uri.equals(&uri));
    let _ = (uri.ip(), uri.port_or_default(), uri.transport());
    if matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
        let parse = |text: Bytes| Uri::parse(&text).expect("a built URI parses");
        assert_eq!(parse(uri.with_user(b"new")).user.as_deref(), Some(&b"new"[..]));
        assert_eq!(parse(uri.with_host(b"new")).host, "new");
        assert_eq!(parse(uri.with_port(Some(7))).port, 7);
        assert!(parse(uri.with_param(b"new", Some(None))).params.has(b"new"));
        assert!(parse(uri.without_headers()).headers.is_empty());
    }
}
