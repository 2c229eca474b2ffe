//! fix_nated_sdp(): addresses of descriptions.

use super::Nathelper;
use super::checks::Words;
use crate::sipmsgops::parts::{self, Parts};
use bytes::Bytes;
use host::{Arg, Call, Loader, Registrar, Routes, Text};
use script::ast;
use script::{Diagnostic, Loc};
use std::net::IpAddr;
use std::sync::Arc;

pub fn register(m: &mut Registrar<Nathelper>) {
    let any = Routes::REQUEST.and(Routes::ON_REPLY).and(Routes::FAILURE).and(Routes::BRANCH);
    m.function("fix_nated_sdp", any, fix_nated_sdp);
}

const DIRECTION: u32 = 1;
const MEDIA_IP: u32 = 2;
const NO_RTPPROXY: u32 = 4;
const ORIGIN_IP: u32 = 8;
const NULL_IPS: u32 = 16;

const WORDS: Words = &[
    ("add-dir-active", DIRECTION),
    ("rewrite-media-ip", MEDIA_IP),
    ("add-no-rtpproxy", NO_RTPPROXY),
    ("rewrite-origin-ip", ORIGIN_IP),
    ("rewrite-null-ips", NULL_IPS),
];

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

/// What is done to a description.
struct Plan<'a> {
    flags: u32,
    address: IpAddr,
    /// Attribute lines that are added, without line ends before the first.
    nortpproxy: &'a str,
    skip_old_origin: bool,
    skip_old_media: bool,
    more: &'a [u8],
}

/// fix_nated_sdp(flags, [address], [lines]): with the source of the message when no address is given.
fn fix_nated_sdp(
    call: &mut Call<Nathelper>,
    flags: Flags,
    address: Option<Text>,
    lines: Option<Text>,
) -> i32 {
    let module = call.module.clone();
    let address = match address.filter(|address| !address.is_empty()) {
        None => call.ctx.state.source.remote.ip(),
        Some(text) => match text.str().trim_matches(['[', ']']).parse() {
            Ok(address) => address,
            Err(_) => {
                host::error!("nathelper", "fix_nated_sdp: {} is no IP address", text.str());
                return -1;
            }
        },
    };
    let mut parts = Parts::of(&call.ctx.state);
    if parts.list.is_empty() {
        return -1;
    }
    let plan = Plan {
        flags: flags.0,
        address,
        nortpproxy: &module.nortpproxy,
        skip_old_origin: module.skip_old_origin,
        skip_old_media: module.skip_old_media,
        more: lines.as_ref().map_or(&b""[..], |lines| &lines.0[..]),
    };
    let mut changed = false;
    for part in parts.list.iter_mut().filter(|part| !part.removed && part.is_sdp()) {
        let fixed = plan.apply(&part.content);
        changed |= fixed != part.content;
        part.content = fixed;
    }
    if changed {
        parts::store(&mut call.ctx.state, parts);
    }
    1
}

impl Plan<'_> {
    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn apply(&self, sdp: &Bytes) -> Bytes {
        let trimmed = sdp.trim_ascii_end();
        if trimmed.is_empty() {
            return sdp.clone();
        }
        let mut old = Vec::new();
        let mut out = trimmed.to_vec();
        if self.has(ORIGIN_IP) {
            out = self.rewrite(&out, b"o=", "oldoip", self.skip_old_origin, &mut old);
        }
        if self.has(MEDIA_IP) {
            out = self.rewrite(&out, b"c=", "oldcip", self.skip_old_media, &mut old);
        }
        if self.has(DIRECTION | NO_RTPPROXY) {
            out.extend_from_slice(self.more);
        }
        if self.has(NO_RTPPROXY) && !self.nortpproxy.is_empty() {
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(self.nortpproxy.as_bytes());
        }
        if self.has(DIRECTION) {
            out.extend_from_slice(b"\r\na=direction:active");
        }
        out.extend_from_slice(&old);
        out.extend_from_slice(&sdp[trimmed.len()..]);
        out.into()
    }

    /// Rewrites the address of every line that starts so; `old` gets a line for each.
    fn rewrite(&self, sdp: &[u8], start: &[u8], label: &str, skip_old: bool, old: &mut Vec<u8>) -> Vec<u8> {
        let mut out = Vec::with_capacity(sdp.len() + 32);
        for line in sdp.split_inclusive(|b| *b == b'\n') {
            let text = line.trim_ascii_end();
            match address_of(text, start).filter(|(ip, _)| self.wants(*ip)) {
                None => out.extend_from_slice(line),
                Some((ip, before)) => {
                    out.extend_from_slice(&text[..before]);
                    let family = if self.address.is_ipv6() { "IP6" } else { "IP4" };
                    out.extend_from_slice(format!("IN {family} {}", self.address).as_bytes());
                    out.extend_from_slice(&line[text.len()..]);
                    if !skip_old {
                        let six = if ip.is_ipv6() { "6" } else { "" };
                        old.extend_from_slice(format!("\r\na={label}{six}:{ip}").as_bytes());
                    }
                }
            }
        }
        out
    }

    /// Null addresses (RFC 2543 hold) stay unless told otherwise.
    fn wants(&self, ip: IpAddr) -> bool {
        let null = ip.is_unspecified() && ip.is_ipv6() == self.address.is_ipv6();
        ip != self.address && (!null || self.has(NULL_IPS))
    }
}

/// The address at the end of a `c=` or `o=` line, and where its `IN` is.
fn address_of(line: &[u8], start: &[u8]) -> Option<(IpAddr, usize)> {
    if !line.starts_with(start) {
        return None;
    }
    let at = memchr::memmem::rfind(line, b"IN IP")?;
    let host = line.get(at + 6..)?.trim_ascii().split(|b| *b == b'/' || *b == b' ').next()?;
    // A multicast address with its TTL is left alone.
    if line[at..].contains(&b'/') {
        return None;
    }
    Some((std::str::from_utf8(host).ok()?.parse().ok()?, at))
}

/// The address of the first `c=` line.
pub fn first_media_ip(sdp: &[u8]) -> Option<IpAddr> {
    let lines = sdp.split(|b| *b == b'\n').map(<[u8]>::trim_ascii_end);
    lines.filter(|line| line.starts_with(b"c=")).find_map(|line| address_of(line, b"c=")).map(|(ip, _)| ip)
}
