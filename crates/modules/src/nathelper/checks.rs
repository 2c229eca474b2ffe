//! nat_uac_test(): signs that the sender is behind a NAT.

use super::Nathelper;
use crate::sipmsgops::parts::Parts;
use host::format::Format;
use host::{Arg, Call, Ctx, Loader, MsgState, Registrar, Routes, contacts};
use script::ast::{self, ArgKind, Dialect};
use script::{Diagnostic, Loc};
use sip::Uri;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

pub fn register(m: &mut Registrar<Nathelper>) {
    let any = Routes::REQUEST.and(Routes::ON_REPLY).and(Routes::FAILURE).and(Routes::BRANCH);
    m.function("nat_uac_test", any, nat_uac_test);
}

const PRIVATE_CONTACT: u32 = 1;
const IP_OF_VIA: u32 = 2;
const PRIVATE_VIA: u32 = 4;
const PRIVATE_SDP: u32 = 8;
const PORT_OF_VIA: u32 = 16;
const IP_OF_CONTACT: u32 = 32;
const PORT_OF_CONTACT: u32 = 64;
const CARRIER_GRADE: u32 = 128;

/// Words of flags and their bits.
pub type Words = &'static [(&'static str, u32)];

const TESTS: Words = &[
    ("private-contact", PRIVATE_CONTACT),
    ("diff-ip-src-via", IP_OF_VIA),
    ("private-via", PRIVATE_VIA),
    ("private-sdp", PRIVATE_SDP),
    ("diff-port-src-via", PORT_OF_VIA),
    ("diff-ip-src-contact", IP_OF_CONTACT),
    ("diff-port-src-contact", PORT_OF_CONTACT),
    ("carrier-grade-nat", CARRIER_GRADE),
];

/// Flags: words with commas, or the number that older versions take.
#[derive(Debug)]
pub enum Flags {
    Known(u32),
    /// With variables, in 4.x.
    Late(Format, Words),
}

impl Flags {
    /// Of an argument; a word that is no flag is an error where it stands.
    pub fn of(
        arg: Option<&ast::Arg>,
        site: Loc,
        words: Words,
        loader: &mut Loader,
    ) -> Result<Flags, Diagnostic> {
        let Some(arg) = arg else { return Err(Diagnostic::error(site, "flags are missing here")) };
        if let ArgKind::Int(n) = arg.kind {
            return Ok(Flags::Known(n as u32));
        }
        let text = match host::arg::format_of(arg, loader)? {
            Format::Constant(text) => text,
            late if loader.dialect == Dialect::V4 => return Ok(Flags::Late(late, words)),
            _ => return Err(Diagnostic::error(arg.loc, "this must be constant flags")),
        };
        parsed(&text, words).map(Flags::Known).map_err(|word| {
            let error = Diagnostic::error(arg.loc, format!("unknown flag `{word}`"));
            match script::nearest(&word, words.iter().map(|(name, _)| *name)) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            }
        })
    }

    /// The bits; the error is what the function returns.
    pub fn bits(&self, ctx: &mut Ctx) -> Result<u32, i32> {
        let (format, words) = match self {
            Flags::Known(bits) => return Ok(*bits),
            Flags::Late(format, words) => (format, words),
        };
        let text = format.text(ctx);
        if text.is_empty() {
            host::complain!(ctx, "nathelper", "there are no flags");
            return Err(-1);
        }
        parsed(&text, words).map_err(|word| {
            host::complain!(ctx, "nathelper", "unknown flag {word}");
            -1
        })
    }
}

/// The error is a word that is no flag.
fn parsed(text: &[u8], words: Words) -> Result<u32, String> {
    if let Some(number) = host::arg::parse_int(text) {
        return Ok(number as u32);
    }
    let text = String::from_utf8_lossy(text);
    let mut bits = 0;
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let found = words.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        bits |= found.ok_or_else(|| word.to_owned())?.1;
    }
    Ok(bits)
}

struct Tests(u32);

impl Arg<Nathelper> for Tests {
    type Prepared = Flags;
    const WHAT: &'static str = "names of tests";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Nathelper>,
    ) -> Result<Flags, Diagnostic> {
        Flags::of(arg, site, TESTS, loader)
    }

    fn eval(flags: &Flags, call: &mut Call<'_, Nathelper>) -> Result<Tests, i32> {
        flags.bits(call.ctx).map(Tests)
    }
}

/// Which addresses count as private.
#[derive(Clone, Copy)]
pub struct Private {
    /// 127/8: the reference counts it since 3.x.
    loopback: bool,
    /// 192.0.0.0/29 (RFC 6333).
    carrier_grade: bool,
}

impl Private {
    pub fn new(dialect: Dialect) -> Private {
        Private { loopback: dialect == Dialect::V4, carrier_grade: false }
    }

    /// RFC 1918, RFC 6598 and what else counts.
    pub fn has(self, address: Ipv4Addr) -> bool {
        let bits = u32::from(address);
        let shared = bits & 0xffc0_0000 == 0x6440_0000;
        let carrier = self.carrier_grade && bits & 0xffff_fff8 == 0xc000_0000;
        address.is_private() || shared || carrier || (self.loopback && address.is_loopback())
    }

    pub fn has_host(self, host: &[u8]) -> bool {
        let address = std::str::from_utf8(host).ok().and_then(|host| host.parse::<Ipv4Addr>().ok());
        address.is_some_and(|address| self.has(address))
    }
}

/// nat_uac_test(tests): true when one of them holds.
fn nat_uac_test(call: &mut Call<Nathelper>, tests: Tests) -> bool {
    let private =
        Private { carrier_grade: tests.0 & CARRIER_GRADE != 0, ..Private::new(call.shared().dialect) };
    let state = &call.ctx.state;
    let holds =
        |test: u32, check: fn(&MsgState, Private) -> bool| tests.0 & test != 0 && check(state, private);
    holds(PORT_OF_VIA, port_differs_from_via)
        || holds(IP_OF_VIA, ip_differs_from_via)
        || holds(PRIVATE_CONTACT, has_private_contact)
        || holds(PRIVATE_SDP, has_private_sdp)
        || holds(PRIVATE_VIA, has_private_via)
        || holds(IP_OF_CONTACT, ip_differs_from_contact)
        || holds(PORT_OF_CONTACT, port_differs_from_contact)
}

/// The URIs of the contacts up to the first that is none.
fn contact_uris(state: &MsgState) -> impl Iterator<Item = Uri> {
    let list = contacts::addresses(state).unwrap_or_default();
    list.into_iter().map_while(|address| Uri::parse(&address.uri).ok().filter(|uri| !uri.host.is_empty()))
}

fn port_differs_from_via(state: &MsgState, _: Private) -> bool {
    let port = state.msg.via().map(|via| if via.port == 0 { 5060 } else { via.port });
    port.is_some_and(|port| port != state.source.remote.port())
}

pub fn ip_differs_from_via(state: &MsgState, _: Private) -> bool {
    state.msg.via().is_some_and(|via| via.ip() != Some(state.source.remote.ip()))
}

pub fn has_private_via(state: &MsgState, private: Private) -> bool {
    state.msg.via().is_some_and(|via| private.has_host(via.host()))
}

pub fn has_private_contact(state: &MsgState, private: Private) -> bool {
    contact_uris(state).any(|uri| private.has_host(&uri.host))
}

fn ip_differs_from_contact(state: &MsgState, _: Private) -> bool {
    contact_uris(state).any(|uri| uri.ip() != Some(state.source.remote.ip()))
}

fn port_differs_from_contact(state: &MsgState, _: Private) -> bool {
    contact_uris(state).any(|uri| uri.port_or_default() != state.source.remote.port())
}

/// The first address of each description.
fn has_private_sdp(state: &MsgState, private: Private) -> bool {
    let parts = Parts::of(state);
    let described = parts.list.iter().filter(|part| !part.removed && part.is_sdp());
    described.filter_map(|part| super::sdp::first_media_ip(&part.content)).any(|address| match address {
        IpAddr::V4(address) => !address.is_unspecified() && private.has(address),
        IpAddr::V6(_) => false,
    })
}
