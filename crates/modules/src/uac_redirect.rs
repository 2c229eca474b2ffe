//! uac_redirect: follows the contacts of 3xx replies.

use crate::pattern::Pattern;
use host::registrar::Since;
use host::tm::final_replies;
use host::{Call, Int, Registrar, Routes, Text, branches};
use script::posix;
use sip::{HeaderName, Message};

/// Filters of one kind that apply to one message, the default one included.
const MAX_FILTERS: usize = 6;

#[derive(Default)]
pub struct UacRedirect {
    deny_by_default: bool,
    accept: Option<posix::Pattern>,
    deny: Option<posix::Pattern>,
}

pub fn register(m: &mut Registrar<UacRedirect>) {
    m.param_text("default_filter", |s, v| {
        s.deny_by_default = match v {
            "accept" => false,
            "deny" => true,
            _ => return Err("default_filter is \"accept\" or \"deny\"".into()),
        };
        Ok(())
    });
    m.param_text("accept_filter", |s, v| Ok(s.accept = compile(v)?));
    m.param_text("deny_filter", |s, v| Ok(s.deny = compile(v)?));
    m.ignored(
        &["acc_function", "acc_db_table"],
        "2.1 accounts redirections with them; use module acc in the route",
    );
    m.needs(&["tm"]);
    m.function(
        "set_accept_filter",
        Routes::FAILURE,
        |call: &mut Call<UacRedirect>, filter: Pattern, reset: Option<Text>| {
            add_filter(call, Kind::Accept, filter, reset)
        },
    );
    m.function(
        "set_deny_filter",
        Routes::FAILURE,
        |call: &mut Call<UacRedirect>, filter: Pattern, reset: Option<Text>| {
            add_filter(call, Kind::Deny, filter, reset)
        },
    );
    m.function("get_redirects", Routes::FAILURE, get_redirects);
    m.function_of(Since::V21, "get_redirects", Routes::FAILURE, get_redirects_21);
}

fn compile(pattern: &str) -> Result<Option<posix::Pattern>, String> {
    if pattern.is_empty() {
        return Ok(None);
    }
    posix::compile_lines(pattern.as_bytes(), posix::Case::Sensitive).map(Some).map_err(|e| e.to_string())
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Accept,
    Deny,
}

/// Filters that a script added for its message.
#[derive(Clone, Default)]
struct Filters {
    accept: Set,
    deny: Set,
}

#[derive(Clone, Default)]
struct Set {
    without_default: bool,
    added: Vec<posix::Pattern>,
}

impl Set {
    fn matches(&self, default: Option<&posix::Pattern>, uri: &[u8]) -> bool {
        let default = default.filter(|_| !self.without_default);
        default.into_iter().chain(&self.added).any(|regex| regex.is_match(uri))
    }
}

/// set_accept_filter(regexp, [reset]): `reset_all`, `reset_default` or `reset_added` first.
fn add_filter(call: &mut Call<UacRedirect>, kind: Kind, filter: Pattern, reset: Option<Text>) -> bool {
    let filters = call.ctx.state.ext.entry::<Filters>();
    let set = if kind == Kind::Accept { &mut filters.accept } else { &mut filters.deny };
    match reset.as_ref().map_or(&b""[..], |reset| &reset.0[..]) {
        b"" => {}
        b"reset_all" => *set = Set { without_default: true, added: Vec::new() },
        b"reset_default" => set.without_default = true,
        b"reset_added" => set.added.clear(),
        other => {
            host::error!("uac_redirect", "unknown reset `{}`", String::from_utf8_lossy(other));
            return false;
        }
    }
    let room = set.added.len() + 1 < MAX_FILTERS;
    if room {
        set.added.push(filter.0);
    }
    room
}

impl UacRedirect {
    fn accepts(&self, filters: &Filters, uri: &[u8]) -> bool {
        if filters.accept.matches(self.accept.as_ref(), uri) {
            return true;
        }
        !self.deny_by_default && !filters.deny.matches(self.deny.as_ref(), uri)
    }
}

/// get_redirects([most in total], [most of a branch]): the contacts of the 3xx replies become the R-URI and
/// branches; 0 and nothing: no limit. True when there was one.
fn get_redirects(call: &mut Call<UacRedirect>, total: Option<Int>, each: Option<Int>) -> bool {
    let limit = |n: Option<Int>| match n.map_or(0, |n| n.0) {
        ..=0 => usize::MAX,
        n => n as usize,
    };
    follow(call, limit(total), limit(each))
}

/// 2.1: get_redirects("total:each", [reason]); `*` is no limit.
fn get_redirects_21(call: &mut Call<UacRedirect>, limits: Text, _reason: Option<Text>) -> bool {
    let text = limits.str();
    let (total, each) = text.split_once(':').unwrap_or((&text, "*"));
    let limit = |part: &str| match part.trim().parse() {
        Ok(n) if n > 0 => n,
        _ => usize::MAX,
    };
    follow(call, limit(total), limit(each))
}

fn follow(call: &mut Call<UacRedirect>, total: usize, each: usize) -> bool {
    let module = call.module.clone();
    let filters = call.ctx.state.ext.find::<Filters>().cloned().unwrap_or_default();
    let mut followed = 0;
    for reply in final_replies(call.ctx) {
        if !(300..400).contains(&reply.status()) {
            continue;
        }
        let room = each.min(total - followed);
        for (uri, q) in contacts(&module, &filters, &reply).into_iter().take(room) {
            let state = &mut call.ctx.state;
            if followed == 0 {
                state.ruri = Some(script::traced::on_one_line(&uri));
                state.ruri_q = q;
                followed += 1;
            } else if branches::append(state, uri, q) {
                followed += 1;
            }
        }
    }
    followed > 0
}

/// The contacts that the filters let through, lowest q first, as the reference sorts them.
fn contacts(module: &UacRedirect, filters: &Filters, reply: &Message) -> Vec<(bytes::Bytes, i32)> {
    let mut list = Vec::new();
    for contact in reply.addresses(HeaderName::Contact).unwrap_or_default() {
        if !module.accepts(filters, &contact.uri) || contact.uri == "*" {
            continue;
        }
        match contact.params.value(b"q").map_or(Some(-1), |q| branches::parse_q(&q)) {
            Some(q) => list.push((contact.uri, q)),
            None => host::error!("uac_redirect", "a contact with a bad q is left out"),
        }
    }
    list.sort_by_key(|(_, q)| *q);
    list
}
