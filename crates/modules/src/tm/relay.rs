//! `t_relay`, `t_replicate`: sending the current request on.

use super::Tm;
use bytes::Bytes;
use host::arg::parse_int;
use host::format::Format;
use host::load::Loader;
use host::tm::Relay;
use host::{Arg, Call, Outcome, Registrar, Routes, Text};
use script::ast::{self, ArgKind, Dialect};
use script::{Diagnostic, Loc};
use std::sync::Arc;

pub fn register(m: &mut Registrar<Tm>) {
    let routes = Routes::REQUEST.and(Routes::FAILURE);
    m.function("t_relay", routes, t_relay);
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

/// First parameter of `t_relay`: flags; in 2.1 a next hop too.
enum First {
    Flags(Relay),
    Proxy(Bytes),
}

impl First {
    fn parse(text: &Bytes, dialect: Dialect) -> Result<First, String> {
        let text = String::from_utf8_lossy(text);
        match (Flags::parse(&text), dialect) {
            (Ok(flags), _) => Ok(First::Flags(flags.0)),
            (Err(_), Dialect::V21) => Ok(First::Proxy(proxy_uri(&text))),
            (Err(word), Dialect::V4) => Err(word),
        }
    }
}

impl Arg<Tm> for First {
    type Prepared = Result<Relay, Format>;
    const WHAT: &'static str = "flags of t_relay";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Tm>,
    ) -> Result<Self::Prepared, Diagnostic> {
        let Some(arg) = arg else { return Err(Diagnostic::error(site, "flags are missing")) };
        if let ArgKind::Int(bits) = arg.kind {
            return Ok(Ok(Flags::of_bits(bits).0));
        }
        let format = host::arg::format_of(arg, loader)?;
        let Some(text) = format.constant() else { return Ok(Err(format)) };
        match First::parse(text, loader.dialect) {
            Ok(First::Flags(flags)) => Ok(Ok(flags)),
            Ok(First::Proxy(_)) => Ok(Err(format)),
            Err(word) => {
                let error = Diagnostic::error(arg.loc, format!("`{word}` is no flag of t_relay"));
                Err(error.hint(format!("flags are {}; a next hop is the second parameter", WORDS.join(", "))))
            }
        }
    }

    fn eval(prepared: &Self::Prepared, call: &mut Call<'_, Tm>) -> Result<First, i32> {
        match prepared {
            Ok(relay) => Ok(First::Flags(relay.clone())),
            Err(format) => {
                let text = format.text(call.ctx);
                First::parse(&text, call.ctx.core.shared.dialect).map_err(|word| {
                    host::error!("tm", "t_relay: `{word}` is no flag");
                    -1
                })
            }
        }
    }
}

/// "[proto:]host[:port]" as a URI.
pub(crate) fn proxy_uri(text: &str) -> Bytes {
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

/// t_relay([flags], [outbound proxy]); in 2.1 also t_relay(outbound proxy, [flags]).
fn t_relay(call: &mut Call<Tm>, first: Option<First>, second: Option<Text>) -> Outcome {
    let second = second.filter(|text| !text.is_empty());
    let relay = match (first, second) {
        (Some(First::Proxy(proxy)), second) => {
            let flags = second.and_then(|text| Flags::parse(&text.str()).ok());
            Relay { proxy: Some(proxy), ..flags.map(|f| f.0).unwrap_or_default() }
        }
        (Some(First::Flags(flags)), second) => {
            Relay { proxy: second.map(|text| proxy_uri(&text.str())), ..flags }
        }
        (None, second) => Relay { proxy: second.map(|text| proxy_uri(&text.str())), ..Relay::default() },
    };
    host::tm::relay(call.ctx, relay)
}

/// t_replicate(uri, [flags]): a copy goes to another server, whose replies nobody sees.
fn replicate(call: &mut Call<Tm>, uri: Text, _: Option<First>) -> i32 {
    host::tm::replicate(call.ctx, &uri.0)
}
