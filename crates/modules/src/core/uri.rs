//! Changes of the R-URI and of where the request goes.

use super::Core;
use super::arg::Plain;
use bytes::Bytes;
use host::registrar::Since;
use host::vars::uri::{edit_request, set_destination, set_request, with_port};
use host::{Call, Ctx, Int, OutVar, Registrar, Routes, Text};
use script::Value;
use script::ast::AssignOp;
use sip::Uri;

/// A part of the R-URI that a text replaces.
type Edit = fn(&Uri, &[u8]) -> Bytes;

pub fn register(m: &mut Registrar<Core>) {
    let all = Routes::ALL;
    for name in ["seturi", "rewriteuri"] {
        m.function_of(since(name), name, all, |call: &mut Call<Core>, uri: Plain| {
            said(call.ctx, |ctx| set_request(ctx, uri.0))
        });
    }
    for name in ["sethost", "rewritehost", "seth"] {
        m.function_of(since(name), name, all, |call: &mut Call<Core>, host: Plain| {
            rewrite(call.ctx, &host, Uri::with_host)
        });
    }
    for name in ["sethostport", "rewritehostport", "sethp"] {
        m.function_of(since(name), name, all, |call: &mut Call<Core>, host: Plain| {
            rewrite(call.ctx, &host, Uri::with_hostport)
        });
    }
    for name in ["setuser", "rewriteuser", "setu"] {
        m.function_of(since(name), name, all, |call: &mut Call<Core>, user: Plain| {
            rewrite(call.ctx, &user, Uri::with_user)
        });
    }
    // The reference replaces the user too.
    for name in ["setuserpass", "rewriteuserpass", "setup"] {
        m.function_of(since(name), name, all, |call: &mut Call<Core>, info: Plain| {
            rewrite(call.ctx, &info, Uri::with_userinfo)
        });
    }
    for name in ["setport", "rewriteport", "setp"] {
        m.function_of(since(name), name, all, |call: &mut Call<Core>, port: Plain| {
            rewrite(call.ctx, &port, with_port)
        });
    }
    m.function("prefix", all, |call: &mut Call<Core>, prefix: Plain| {
        said(call.ctx, |ctx| edit_request(ctx, |uri| uri.with_user(&[&prefix.0[..], &user(uri)].concat())))
    });
    m.function("strip", all, |call: &mut Call<Core>, n: Int| {
        strip(call.ctx, n.0, |user, n| user.get(n..).unwrap_or_default())
    });
    m.function("strip_tail", all, |call: &mut Call<Core>, n: Int| {
        strip(call.ctx, n.0, |user, n| &user[..user.len().saturating_sub(n)])
    });
    m.function("revert_uri", all, |call: &mut Call<Core>| {
        call.ctx.state.ruri = None;
        1
    });
    for name in ["setdsturi", "setduri"] {
        m.function_of(since(name), name, all, |call: &mut Call<Core>, uri: Plain| {
            said(call.ctx, |ctx| set_destination(&mut ctx.state, uri.0))
        });
    }
    for name in ["resetdsturi", "resetduri"] {
        m.function_of(since(name), name, all, |call: &mut Call<Core>| {
            set_destination(&mut call.ctx.state, Bytes::new())
        });
    }
    for name in ["isdsturiset", "isduriset"] {
        m.function_of(since(name), name, all, |call: &mut Call<Core>| call.ctx.state.dst_uri.is_some());
    }
    m.function("is_myself", all, is_myself);
    m.function("construct_uri", all, construct_uri);
}

/// Names that 3.0 removed are forms of 2.x.
fn since(name: &str) -> Since {
    match name {
        "seturi" | "sethost" | "sethostport" | "setuser" | "setuserpass" | "setport" | "setdsturi"
        | "resetdsturi" | "isdsturiset" => Since::Both,
        _ => Since::V21,
    }
}

fn rewrite(ctx: &mut Ctx, text: &Plain, edit: Edit) -> bool {
    said(ctx, |ctx| edit_request(ctx, |uri| edit(uri, &text.0)))
}

/// Does it, and says that the URI cannot be so.
fn said(ctx: &mut Ctx, change: impl FnOnce(&mut Ctx) -> bool) -> bool {
    let done = change(ctx);
    if !done {
        host::warn!(
            "core",
            "the URI stays as it is: it cannot be read, or the new one could not stand in a message"
        );
    }
    done
}

fn user(uri: &Uri) -> Bytes {
    uri.user.clone().unwrap_or_default()
}

/// strip(n), strip_tail(n): all of the user when it is shorter.
fn strip(ctx: &mut Ctx, n: i64, cut: fn(&[u8], usize) -> &[u8]) -> bool {
    let Ok(n) = usize::try_from(n) else { return false };
    edit_request(ctx, |uri| uri.with_user(cut(&user(uri), n)))
}

/// is_myself(host, [port])
fn is_myself(call: &mut Call<Core>, host: Text, port: Option<Int>) -> bool {
    let Ok(port) = u16::try_from(port.map_or(0, |p| p.0)) else { return false };
    call.shared().is_myself(&host, port, None)
}

/// construct_uri(proto, [user], domain, [port], [extra], result): 1 also when it made nothing.
fn construct_uri(
    call: &mut Call<Core>,
    proto: Text,
    user: Option<Text>,
    domain: Text,
    port: Option<Text>,
    extra: Option<Text>,
    result: OutVar,
) -> i32 {
    if proto.is_empty() || domain.is_empty() {
        host::error!("core", "construct_uri needs a protocol and a domain");
        return 1;
    }
    let part = |before: &str, text: &Option<Text>, after: &str| match text {
        Some(text) if !text.is_empty() => [before.as_bytes(), text, after.as_bytes()].concat(),
        _ => Vec::new(),
    };
    let uri =
        [&proto[..], b":", &part("", &user, "@"), &domain, &part(":", &port, ""), &part(";", &extra, "")]
            .concat();
    result.0.set(call.ctx, AssignOp::Set, Value::Str(uri.into()));
    1
}
