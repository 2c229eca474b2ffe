//! Contacts with the address that the request really came from.

use super::Nathelper;
use super::checks::Words;
use crate::path::source_uri;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use host::{Arg, Call, Head, Int, Loader, MsgState, OutVar, Registrar, Routes, contacts};
use script::ast;
use script::{Diagnostic, Loc};
use sip::{Anchor, NameAddr, Span, Uri};
use std::sync::Arc;

pub fn register(m: &mut Registrar<Nathelper>) {
    let replying = Routes::REQUEST.and(Routes::ON_REPLY).and(Routes::BRANCH).and(Routes::FAILURE);
    m.function("fix_nated_contact", replying, fix_nated_contact);
    m.function(
        "restore_nated_ruri",
        Routes::REQUEST.and(Routes::BRANCH).and(Routes::FAILURE),
        restore_nated_ruri,
    );
    m.function("add_rcv_param", Routes::REQUEST, add_rcv_param);
    m.function("fix_nated_register", Routes::REQUEST, fix_nated_register);
}

const PRESERVE_URI: u32 = 1;
const WORDS: Words = &[("preserve-uri", PRESERVE_URI)];

struct Flags(u32);

impl Arg<Nathelper> for Flags {
    type Prepared = super::checks::Flags;
    const WHAT: &'static str = "flags";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Nathelper>,
    ) -> Result<super::checks::Flags, Diagnostic> {
        super::checks::Flags::of(arg, site, WORDS, loader)
    }

    fn eval(flags: &super::checks::Flags, call: &mut Call<'_, Nathelper>) -> Result<Flags, i32> {
        flags.bits(call.ctx).map(Flags)
    }
}

/// Whether a fixed contact tells where it really is.
#[derive(Clone, Copy, PartialEq)]
pub enum Org {
    Forgotten,
    /// In `org`, for `restore_nated_ruri`.
    Kept,
}

/// fix_nated_contact([parameters], [flags])
fn fix_nated_contact(call: &mut Call<Nathelper>, params: Option<Head>, flags: Option<Flags>) -> i32 {
    let params = params.map_or_else(Bytes::new, |params| params.0);
    let org = if flags.is_some_and(|flags| flags.0 & PRESERVE_URI != 0) { Org::Kept } else { Org::Forgotten };
    fix(&mut call.ctx.state, &params, org)
}

/// Every contact gets the address that the message came from, and these parameters. The second time for one
/// message it is -1.
pub fn fix(state: &mut MsgState, params: &[u8], org: Org) -> i32 {
    let source = format!("{}:{}", host::shared::host_text(state.source.remote), state.source.remote.port());
    for address in contacts::addresses(state).unwrap_or_default() {
        let Ok(uri) = Uri::parse(&address.uri) else { break };
        if uri.host.is_empty() {
            break;
        }
        let fixed = Fixed::new(&address, &uri, source.as_bytes(), params, org);
        if !contacts::change(state, address.uri_span, fixed.uri) {
            host::error!("nathelper", "the contact was fixed before");
            return -1;
        }
        state.edits.replace(fixed.place, fixed.text);
    }
    1
}

/// What becomes of one contact.
struct Fixed {
    uri: Bytes,
    /// What is replaced in the message, and with what.
    place: Span,
    text: Bytes,
}

impl Fixed {
    fn new(address: &NameAddr, uri: &Uri, source: &[u8], params: &[u8], org: Org) -> Fixed {
        let text = &uri.text;
        let start = uri.host.as_ptr() as usize - text.as_ptr() as usize;
        let port = text[start + uri.host.len()..].strip_prefix(b":");
        let port = port.map_or(0, |port| 1 + port.iter().take_while(|b| b.is_ascii_digit()).count());
        let end = start + uri.host.len() + port;
        let rest = without_maddr(&text[end..]);
        // The whole of it when the contact is in brackets, else only host and port: what follows
        // are parameters of the header.
        let old = if address.bracketed { &text[start..] } else { &text[start..end] };
        let org = match org {
            Org::Kept => format!(";org={}", STANDARD.encode(old)),
            Org::Forgotten => String::new(),
        };
        let fixed = [&text[..start], source, params, org.as_bytes()].concat();
        if address.bracketed {
            let uri = Bytes::from([&fixed[..], &rest].concat());
            return Fixed { text: uri.clone(), uri, place: address.uri_span };
        }
        let place = Span { start: address.uri_span.start, end: address.uri_span.start + end as u32 };
        let text = match params.is_empty() {
            true => fixed.clone(),
            // Parameters of the URI need brackets.
            false => [b"<", &fixed[..], b">"].concat(),
        };
        Fixed { uri: fixed.into(), place, text: text.into() }
    }
}

/// Parameters without `maddr`: it would lead elsewhere.
fn without_maddr(params: &[u8]) -> Vec<u8> {
    let is_maddr = |param: &[u8]| {
        let name = param.split(|b| *b == b'=').next().unwrap_or_default();
        name.eq_ignore_ascii_case(b"maddr")
    };
    let end = memchr::memchr(b'?', params).unwrap_or(params.len());
    let kept =
        params[..end].split(|b| *b == b';').enumerate().filter(|(n, param)| *n == 0 || !is_maddr(param));
    let kept: Vec<&[u8]> = kept.map(|(_, param)| param).collect();
    [&kept.join(&b';')[..], &params[end..]].concat()
}

/// Takes base64 with and without its padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// restore_nated_ruri(): `$du` becomes the R-URI without its `org`, and the R-URI gets host and port of `org` back.
fn restore_nated_ruri(call: &mut Call<Nathelper>) -> i32 {
    let state = &mut call.ctx.state;
    let Ok(uri) = Uri::parse(&state.current_uri()) else { return -1 };
    let Some(org) = uri.params.value(b"org").filter(|org| !org.is_empty()) else { return -1 };
    let Ok(old) = LENIENT.decode(&org) else { return -1 };
    // What a peer sent must not break out of the URI.
    let clean = |b: &u8| b.is_ascii_graphic() && !b"<>\"@".contains(b);
    let plain = uri.with_param(b"org", None);
    let Ok(rest) = Uri::parse(&plain) else { return -1 };
    if old.is_empty() || !old.iter().all(clean) {
        return -1;
    }
    let restored = match memchr::memchr(b';', &old) {
        // `org` of a contact in brackets has its parameters too.
        Some(_) => {
            let start = rest.host.as_ptr() as usize - rest.text.as_ptr() as usize;
            Bytes::from([&rest.text[..start], &old].concat())
        }
        None => rest.with_hostport(&old),
    };
    state.dst_uri = Some(plain);
    state.ruri = Some(restored);
    1
}

/// add_rcv_param([where]): `received` with the source of the request, for every contact; above 0 it is a
/// parameter of the URI, else of the header.
fn add_rcv_param(call: &mut Call<Nathelper>, place: Option<Int>) -> i32 {
    let param = format!(";received=\"{}\"", source_uri(call.ctx));
    let in_uri = place.is_some_and(|place| place.0 > 0);
    let state = &mut call.ctx.state;
    let list = state.msg.addresses(sip::HeaderName::Contact).unwrap_or_default();
    if list.is_empty() {
        return -1;
    }
    for address in list {
        let at = if in_uri { address.uri_span.end } else { address.whole.end };
        state.edits.insert(Anchor::At(at), param.clone());
    }
    1
}

/// fix_nated_register(): the source of the request goes into `received_avp`.
fn fix_nated_register(call: &mut Call<Nathelper>) -> i32 {
    let uri = Bytes::from(source_uri(call.ctx));
    let Some(variable) = call.module.received.clone() else { return 1 };
    if OutVar(variable).set(call.ctx, uri) { 1 } else { -1 }
}
