//! Blacklists of destinations in scripts and over management: `use_blacklist`, `add_blacklist_rule`,
//! `blacklists:list` ...

use super::Core;
use bytes::Bytes;
use host::arg::Arg;
use host::blacklist::{Blacklist, Going, InUse, Rule};
use host::context::net::long_text;
use host::load::Loader;
use host::mi::{MiError, MiParams, MiResult};
use host::registrar::Since;
use host::{Call, Int, Registrar, Routes, Text};
use script::{Diagnostic, Loc, ast};
use serde_json::{Value as Json, json};
use sip::Transport;
use std::sync::Arc;
use transaction::Instant;

pub fn register(m: &mut Registrar<Core>) {
    let all = Routes::ALL;
    m.function("use_blacklist", all, |call: &mut Call<Core>, list: List| switch(call, list, true));
    m.function("unuse_blacklist", all, |call: &mut Call<Core>, list: List| switch(call, list, false));
    m.function_of(Since::V4, "check_blacklist_rule", all, check);
    m.function_of(Since::V4, "add_blacklist_rule", all, add);
    m.function_of(Since::V4, "del_blacklist_rule", all, remove);
    for name in ["list_blacklists", "blacklists:list"] {
        m.command(name, "lists of blocked destinations", mi_list).takes("[name]");
    }
    for name in ["check_blacklists", "blacklists:check_all"] {
        m.command(name, "lists that block an address", mi_check_all).takes("[proto] ip [port] [pattern]");
    }
    for name in ["check_blacklist", "blacklists:check"] {
        m.command(name, "whether a list blocks an address", mi_check)
            .takes("name [proto] ip [port] [pattern]");
    }
    for name in ["add_blacklist_rule", "blacklists:add_rule"] {
        m.command(name, "adds a rule", mi_add).takes("name rule [expire]");
    }
    for name in ["del_blacklist_rule", "blacklists:del_rule"] {
        m.command(name, "removes a rule", mi_remove).takes("name rule");
    }
}

/// A list by name; a constant one must exist when the script is loaded.
struct List(usize);

impl<M> Arg<M> for List {
    type Prepared = host::Format;
    const WHAT: &'static str = "a blacklist";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<M>,
    ) -> Result<host::Format, Diagnostic> {
        let name = <Text as Arg<M>>::prepare(arg, site, loader, module)?;
        match name.constant().map(|name| String::from_utf8_lossy(name).into_owned()) {
            Some(text) if loader.blacklists().find(&text).is_none() => {
                Err(Diagnostic::error(arg.map_or(site, |a| a.loc), format!("there is no blacklist {text}"))
                    .hint(format!("dst_blacklist = {text}:{{...}} makes one")))
            }
            _ => Ok(name),
        }
    }

    fn eval(name: &host::Format, call: &mut Call<'_, M>) -> Result<List, i32> {
        let name = name.text(call.ctx);
        let lists = call.ctx.shared().policy().blacklists.clone();
        lists.find(&String::from_utf8_lossy(&name)).map(List).ok_or(-1)
    }
}

fn switch(call: &mut Call<Core>, list: List, on: bool) -> i32 {
    let used = call.state.ext.entry::<InUse>();
    let bit = 1u64 << list.0;
    if on {
        (used.on, used.off) = (used.on | bit, used.off & !bit);
    } else {
        (used.on, used.off) = (used.on & !bit, used.off | bit);
    }
    1
}

fn transport_of(text: &[u8]) -> Option<Transport> {
    Transport::parse(&text.to_ascii_lowercase())
}

/// check_blacklist_rule([list], ip, [port], [proto], [pattern]): 1 when it is blocked.
fn check(
    call: &mut Call<Core>,
    list: Option<List>,
    ip: Text,
    port: Option<Int>,
    proto: Option<Text>,
    pattern: Option<Text>,
) -> i32 {
    let Ok(ip) = ip.str().trim_matches(['[', ']']).parse() else { return -1 };
    let port = port.and_then(|p| u16::try_from(p.0).ok()).unwrap_or(0);
    let message = pattern.map_or_else(Bytes::new, |p| p.0);
    let going = Going {
        transport: proto.and_then(|p| transport_of(&p)),
        addr: std::net::SocketAddr::new(ip, port),
        message: &message,
        now: call.core.now,
    };
    let lists = call.shared().policy().blacklists.clone();
    let blocked = match list {
        Some(list) => lists.get(list.0).is_some_and(|list| list.blocks(&going)),
        None => lists.block(call.state.ext.find::<InUse>().copied().unwrap_or_default(), &going),
    };
    if blocked { 1 } else { -1 }
}

fn rule_of(ip: &Text, port: Option<Int>, proto: Option<Text>, pattern: Option<Text>) -> Option<Rule> {
    let mut rule = Rule::parse(&ip.str()).ok()?;
    rule.port = port.and_then(|p| u16::try_from(p.0).ok()).unwrap_or(0);
    rule.transport = proto.and_then(|p| transport_of(&p));
    rule.pattern = pattern.map_or_else(String::new, |p| p.str().into_owned());
    Some(rule)
}

/// add_blacklist_rule(list, ip, [port], [proto], [pattern], [expire])
fn add(
    call: &mut Call<Core>,
    list: List,
    ip: Text,
    port: Option<Int>,
    proto: Option<Text>,
    pattern: Option<Text>,
    expire: Option<Int>,
) -> i32 {
    let Some(mut rule) = rule_of(&ip, port, proto, pattern) else { return -1 };
    rule.until = expire.filter(|e| e.0 > 0).map(|e| call.core.now.after(e.0 as u64 * 1000));
    let (lists, now) = (call.shared().policy().blacklists.clone(), call.core.now);
    if lists.get(list.0).is_some_and(|list| list.add(rule, now)) { 1 } else { -1 }
}

/// del_blacklist_rule(list, ip, [port], [proto], [pattern])
fn remove(
    call: &mut Call<Core>,
    list: List,
    ip: Text,
    port: Option<Int>,
    proto: Option<Text>,
    pattern: Option<Text>,
) -> i32 {
    let Some(rule) = rule_of(&ip, port, proto, pattern) else { return -1 };
    let lists = call.shared().policy().blacklists.clone();
    if lists.get(list.0).is_some_and(|list| list.remove(&rule)) { 1 } else { -1 }
}

fn shown(list: &Blacklist, now: Instant) -> Json {
    let rule = |rule: Rule| {
        let (net, mask) = rule.net.parts();
        let mut shown = json!({
            "flags": u8::from(rule.negated),
            "IP": long_text(net),
            "Mask": long_text(mask),
            "Proto": rule.transport.map_or("any", |t| t.as_str()),
            "Port": rule.port,
        });
        if !rule.pattern.is_empty() {
            shown["Match"] = rule.pattern.into();
        }
        if let Some(until) = rule.until {
            shown["Expire"] = (until.0.saturating_sub(now.0) / 1000).into();
        }
        shown
    };
    let flags = [("read-only", list.readonly), ("expire", list.expire), ("default", list.default)];
    let flags: Vec<&str> = flags.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    let rules: Vec<Json> = list.rules(now).into_iter().map(rule).collect();
    json!({ "name": list.name, "owner": list.owner, "flags": flags, "Rules": rules })
}

fn mi_list(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let (lists, now) = (call.shared().policy().blacklists.clone(), call.core.now);
    let Some(name) = params.text("name", 0) else {
        return Ok(json!({ "Lists": lists.all().map(|list| shown(list, now)).collect::<Vec<_>>() }));
    };
    let found = lists.find(&name).and_then(|at| lists.get(at));
    found.map(|list| shown(list, now)).ok_or_else(|| MiError::new(404, "Unknown name"))
}

/// `[proto] ip [port] [pattern]` from position `at` on.
fn place_of(
    params: &MiParams,
    at: usize,
) -> Result<(Option<Transport>, std::net::SocketAddr, String), MiError> {
    let first = params.text("proto", at).unwrap_or_default();
    let named = params.named.contains_key("ip");
    let transport = transport_of(first.as_bytes());
    let at = if named || transport.is_some() || first == "any" { at + 1 } else { at };
    let ip = params.need("ip", at)?.parse().map_err(|_| MiError::params("ip must be an address"))?;
    let port = params.int_in("port", at + 1, 0..=65_535)?.map_or(0, |port| port as u16);
    Ok((transport, std::net::SocketAddr::new(ip, port), params.text("pattern", at + 2).unwrap_or_default()))
}

fn mi_check_all(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let (transport, addr, pattern) = place_of(params, 0)?;
    let lists = call.shared().policy().blacklists.clone();
    let going = Going { transport, addr, message: pattern.as_bytes(), now: call.core.now };
    Ok(lists.all().filter(|list| list.blocks(&going)).map(|list| Json::from(list.name.clone())).collect())
}

/// The list that the first parameter names.
fn named<'a>(lists: &'a host::blacklist::Blacklists, params: &MiParams) -> Result<&'a Blacklist, MiError> {
    let name = params.need("name", 0)?;
    let found = lists.find(&name).and_then(|at| lists.get(at));
    found.ok_or_else(|| MiError::new(400, "Missing or bad blacklist name"))
}

/// The list and the rule that a command changes it by.
fn change<'a>(
    lists: &'a host::blacklist::Blacklists,
    params: &MiParams,
) -> Result<(&'a Blacklist, Rule), MiError> {
    let list = named(lists, params)?;
    if list.readonly {
        return Err(MiError::new(403, "Cannot modify read-only blacklist"));
    }
    let rule = Rule::parse(&params.need("rule", 1)?).map_err(|_| MiError::new(404, "Bad rule"))?;
    Ok((list, rule))
}

fn mi_check(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let (transport, addr, pattern) = place_of(params, 1)?;
    let lists = call.shared().policy().blacklists.clone();
    let going = Going { transport, addr, message: pattern.as_bytes(), now: call.core.now };
    match named(&lists, params)?.blocks(&going) {
        true => Ok(json!("OK")),
        false => Err(MiError::new(404, "Not Matched")),
    }
}

fn mi_add(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let lists = call.shared().policy().blacklists.clone();
    let (list, mut rule) = change(&lists, params)?;
    rule.until = params
        .int_in("expire", 2, 0..=i32::MAX.into())?
        .filter(|s| *s > 0)
        .map(|s| call.core.now.after(s as u64 * 1000));
    match list.add(rule, call.core.now) {
        true => Ok(json!("OK")),
        false => Err(MiError::new(404, "Blacklist without expire support")),
    }
}

fn mi_remove(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let lists = call.shared().policy().blacklists.clone();
    let (list, rule) = change(&lists, params)?;
    match list.remove(&rule) {
        true => Ok(json!("OK")),
        false => Err(MiError::new(404, "Rule not found")),
    }
}
