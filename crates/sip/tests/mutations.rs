//! Damaged messages and URIs: nothing panics, and what is relayed stays what it was.

#[path = "../../../fuzz/checks/message.rs"]
mod message;
#[path = "../../../fuzz/checks/mutate.rs"]
mod mutate;
#[path = "../../../fuzz/checks/uri.rs"]
mod uri;

const DICTIONARY: &str = include_str!("../../../fuzz/sip.dict");

#[test]
fn messages() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rfc4475");
    mutate::run(&mutate::seeds(folder, "dat"), DICTIONARY, 3000, message::check);
}

#[test]
fn uris() {
    let texts = [
        "sip:alice:secret@example.com:5070;transport=tcp;lr;method=INVITE?Subject=x&Priority=urgent",
        "\"Alice \\\" Smith\" <sips:alice@[2001:db8::1]:5061;maddr=10.0.0.1>;tag=1;q=0.5",
        "tel:+1-201-555-0123;phone-context=example.com",
        "SIP/2.0/TLS [2001:db8::9]:5061;branch=z9hG4bK1;received=10.0.0.1;rport=99 (comment), SIP/2.0/UDP b",
        "urn:service:sos",
    ];
    let seeds: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    mutate::run(&seeds, DICTIONARY, 20_000, uri::check);
}
