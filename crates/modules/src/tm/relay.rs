//! `t_relay`, `t_replicate`: sending the current request on.

use super::Tm;
use bytes::Bytes;
use host::arg::parse_int;
use host::format::Format;
use host::load::Loader;
use host::registrar::Since;
use host::tm::Relay;
use host::{Arg, Call, Outcome, Registrar, Routes, Text};
use script::ast::{self, ArgKind};
use script::{Diagnostic, Loc};
use std::sync::Arc;

pub fn register(m: &mut Registrar<Tm>) {
    let routes = Routes::REQUEST.and(Routes::FAILURE);
    m.function_of(Since::V4, "t_relay", routes, t_relay);
    m.function_of(Since::V21, "t_relay", routes, old_relay);
    m.function("t_replicate", Routes::REQUEST, replicate);
}

/// How a request is relayed: words of 3.x, or bits of 2.x.
#[derive(Clone, Debug)]
struct Flags(Relay);

const WORDS: [&str; 4] = ["no-auto-477", "no-dns-failover", "pass-reason-hdr", "allow-no-cancel"];

impl Flags {
    fn of_bits(bits: i64) -> Flags {
        Flags(Relay {
            no_100: bits & 1 != 0,
            no_477: bits & 2 != 0,
            no_failover: bits & 4 != 0,
            pass_reason: bits & 8 != 0,
            keep_branches: bits & 16 != 0,
            proxy: None,
        })
    }

    /// The error is the word that is none.
    fn parse(text: &str) -> Result<Flags, String> {
        if let Some(bits) = parse_int(text.as_bytes()) {
            return Ok(Flags::of_bits(bits));
        }
        let mut relay = Relay::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "no-auto-477" => relay.no_477 = true,
                "no-dns-failover" => relay.no_failover = true,
                "pass-reason-hdr" => relay.pass_reason = true,
                "allow-no-cancel" => relay.keep_branches = true,
                other => return Err(other.to_string()),
            }
        }
        Ok(Flags(relay))
    }
}

impl Arg<Tm> for Flags {
    type Prepared = Result<Relay, Format>;
    const WHAT: &'static str = "flags of t_relay";

    fn prepare(arg: Option<&ast::Arg>, site: Loc, loader: &mut Loader, _: &Arc<Tm>) -> Result<Self::Prepared, Diagnostic> {
        let Some(arg) = arg else { return Err(Diagnostic::error(site, "flags are missing")) };
        if let ArgKind::Int(bits) = arg.kind {
            return Ok(Ok(Flags::of_bits(bits).0));
        }
        let format = host::arg::format_of(arg, loader)?;
        match format.constant() {
            None => Ok(Err(format)),
            Some(text) => match Flags::parse(&String::from_utf8_lossy(text)) {
                Ok(flags) => Ok(Ok(flags.0)),
                Err(word) => {
                    let error = Diagnostic::error(arg.loc, format!("`{word}` is no flag of t_relay"));
                    Err(error.hint(format!("flags are {}; a next hop is the second parameter", WORDS.join(", "))))
                }
            },
        }
    }

    fn eval(prepared: &Self::Prepared, call: &mut Call<'_, Tm>) -> Result<Flags, i32> {
        match prepared {
            Ok(relay) => Ok(Flags(relay.clone())),
            Err(format) => Flags::parse(&String::from_utf8_lossy(&format.text(call.ctx))).map_err(|word| {
                host::error!("tm", "t_relay: `{word}` is no flag");
                -1
            }),
        }
    }
}

/// "[proto:]host[:port]" as a URI.
fn proxy_uri(text: &str) -> Bytes {
    if text.starts_with("sip:") || text.starts_with("sips:") {
        return Bytes::copy_from_slice(text.as_bytes());
    }
    match text.split_once(':') {
        Some((proto, rest)) if sip::Transport::parse(proto.as_bytes()).is_some() => {
            format!("sip:{rest};transport={}", proto.to_ascii_lowercase()).into()
        }
        _ => format!("sip:{text}").into(),
    }
}

/// t_relay([flags], [outbound proxy])
fn t_relay(call: &mut Call<Tm>, flags: Option<Flags>, proxy: Option<Text>) -> Outcome {
    let mut relay = flags.map(|f| f.0).unwrap_or_default();
    relay.proxy = proxy.filter(|p| !p.is_empty()).map(|p| proxy_uri(&p.str()));
    host::tm::relay(call.ctx, relay)
}

/// t_relay([flags or outbound proxy], [flags]) of 2.1, in either order.
fn old_relay(call: &mut Call<Tm>, first: Option<Text>, second: Option<Text>) -> Outcome {
    let mut relay = Relay::default();
    let mut proxy = None;
    for text in [first, second].into_iter().flatten().filter(|text| !text.is_empty()) {
        match Flags::parse(&text.str()) {
            Ok(flags) => relay = flags.0,
            Err(_) => proxy = Some(proxy_uri(&text.str())),
        }
    }
    relay.proxy = proxy;
    host::tm::relay(call.ctx, relay)
}

/// t_replicate(uri, [flags]): a copy goes to another server, whose replies nobody sees.
fn replicate(call: &mut Call<Tm>, uri: Text, _: Option<Flags>) -> i32 {
    host::tm::replicate(call.ctx, &uri.0)
}
