//! Branches: adding, removing, moving, and trying them one after the other.

use super::Core;
use super::arg::Plain;
use bytes::Bytes;
use host::branches::{self, AfterMove, MAX_APPENDED, Previous, SerialOrder, Which, parse_q};
use host::registrar::Since;
use host::{Branch, Call, Checked, Ctx, Int, Loader, Named, Registrar, Routes, Text};
use script::{Diagnostic, Loc};

pub fn register(m: &mut Registrar<Core>) {
    let all = Routes::ALL;
    for name in ["append_branch_old", "append_branch"] {
        let since = if name == "append_branch" { Since::V21 } else { Since::V4 };
        m.function_of(since, name, all, append_branch);
    }
    m.function_of(Since::V4, "append_msg_branch", all, append_msg_branch);
    m.function_of(Since::V21, "remove_branch", all, remove_branch);
    m.function_of(Since::V4, "remove_msg_branch", all, remove_branch);
    m.function_of(Since::V4, "move_msg_branch", all, move_branch);
    m.function_of(Since::V4, "swap_msg_branches", all, swap_branches);
    m.function("serialize_branches", all, serialize_branches);
    m.function("next_branches", all, |call: &mut Call<Core>| branches::next(call.ctx));
}

/// A q value (RFC 3261 §20.10).
struct Q;

impl Named<Core> for Q {
    const WHAT: &'static str = "a q value";

    fn check(text: &[u8], _: &mut Loader, _: &Core) -> Result<(), Diagnostic> {
        if parse_q(text).is_some_and(|q| q >= 0) {
            return Ok(());
        }
        let error = Diagnostic::error(Loc::default(), "a q value is between 0 and 1");
        Err(error.hint("as in \"0.3\""))
    }
}

/// The q of a branch; `None` (logged) when it is none.
fn quality(text: Option<Bytes>) -> Option<i32> {
    let Some(text) = text else { return Some(-1) };
    let q = parse_q(&text);
    if q.is_none() {
        host::error!("core", "{} is no q value (0 to 1)", String::from_utf8_lossy(&text));
    }
    q
}

/// append_branch_old([uri], [q]): without a URI the R-URI moves into the new branch, with all that
/// belongs to it.
fn append_branch(call: &mut Call<Core>, uri: Option<Plain>, q: Option<Plain>) -> i32 {
    let Some(q) = quality(q.map(|q| q.0)) else { return -1 };
    let state = &mut call.ctx.state;
    let added = match uri {
        Some(uri) => branches::append_like_request(state, uri.0, q),
        None => {
            let mut branch = branches::request_branch(state);
            if q >= 0 {
                branch.q = q;
            }
            let added = branches::append_branch(state, branch);
            (state.socket, state.dst_uri, state.path) = (None, None, None);
            (state.branch_flags, state.ruri_q) = (0, -1);
            added
        }
    };
    if added { 1 } else { -1 }
}

/// append_msg_branch(uri, [q], [flags]): `inherite` takes the rest from the R-URI's branch.
fn append_msg_branch(call: &mut Call<Core>, uri: Text, q: Option<Checked<Q>>, flags: Option<Text>) -> bool {
    let Some(q) = quality(q.map(|q| q.0)) else { return false };
    let state = &mut call.ctx.state;
    let inherits = flags.is_some_and(|f| f.split(|b| *b == b',').any(|f| f.trim_ascii() == b"inherite"));
    let branch = match inherits {
        true => {
            let request = branches::request_branch(state);
            Branch { uri: uri.0, q: if q < 0 { request.q } else { q }, values: Vec::new(), ..request }
        }
        false => Branch { uri: uri.0, q, ..Branch::default() },
    };
    branches::append_branch(state, branch)
}

/// remove_msg_branch(n): n counts the appended branches from 0.
fn remove_branch(call: &mut Call<Core>, index: Int) -> bool {
    usize::try_from(index.0).is_ok_and(|i| branches::remove(&mut call.ctx.state, i))
}

/// A missing or negative index is the R-URI's branch; `None`: there can be no such branch.
fn which(index: Option<Int>) -> Option<Which> {
    match index.map_or(-1, |i| i.0) {
        ..0 => Some(None),
        i => usize::try_from(i).ok().filter(|i| *i < MAX_APPENDED).map(Some),
    }
}

/// move_msg_branch([from], [to], ["keep"])
fn move_branch(call: &mut Call<Core>, from: Option<Int>, to: Option<Int>, keep: Option<Text>) -> bool {
    let keep = keep.is_some_and(|k| k.eq_ignore_ascii_case(b"keep"));
    let then = if keep { AfterMove::Keep } else { AfterMove::Remove };
    match (which(from), which(to)) {
        (Some(from), Some(to)) => branches::move_branch(&mut call.ctx.state, from, to, then),
        _ => false,
    }
}

/// swap_msg_branches([one], [two])
fn swap_branches(call: &mut Call<Core>, one: Option<Int>, two: Option<Int>) -> bool {
    match (which(one), which(two)) {
        (Some(one), Some(two)) => branches::swap(&mut call.ctx.state, one, two),
        _ => false,
    }
}

/// serialize_branches(clear, [keep_order])
fn serialize_branches(call: &mut Call<Core>, clear: Option<Int>, keep_order: Option<Int>) -> bool {
    let on = |n: Option<Int>| n.is_some_and(|n| n.0 != 0);
    let previous = if on(clear) { Previous::Clear } else { Previous::Keep };
    let order = if on(keep_order) { SerialOrder::AsAdded } else { SerialOrder::ByQ };
    let ctx: &mut Ctx = call.ctx;
    branches::serialize(&mut ctx.state, previous, order)
}
