//! Branches of the transaction at hand: cancelling, waiting for more, adding, finding.

use super::Tm;
use crate::event_routing::SubscriberTxn;
use crate::usrloc::sql::socket_index;
use host::branches::request_branch;
use host::ctx::Branch;
use host::events::EventParams;
use host::{Call, Ctx, Int, OutVar, Registrar, Routes, Text, Value};
use script::ast::AssignOp;
use sip::NameAddr;
use transaction::{Cancelling, Verdict};

pub fn register(m: &mut Registrar<Tm>) {
    m.function("t_cancel_branch", Routes::ON_REPLY, cancel_branch);
    m.function("t_wait_for_new_branches", Routes::REQUEST, wait_for_branches);
    m.function("t_wait_no_more_branches", Routes::ALL, wait_no_more);
    m.function("t_inject_branches", Routes::ALL, inject_branches);
    let routes = Routes::ON_REPLY.and(Routes::BRANCH).and(Routes::FAILURE);
    m.function("t_get_branch_idx_by_attr", routes, index_by_attribute);
}

/// t_cancel_branch([flags]): `a` all, `o` others, none: this one.
fn cancel_branch(call: &mut Call<Tm>, flags: Option<Text>) -> i32 {
    let ctx = &mut *call.ctx;
    let (Some(id), Some(branch)) = (ctx.state.txn, ctx.state.txn_branch) else { return -1 };
    let flags = flags.map(|f| f.0).unwrap_or_default();
    let which = match (flags.contains(&b'a'), flags.contains(&b'o')) {
        (true, _) => Cancelling::All,
        (_, true) => Cancelling::AllBut(branch),
        _ => Cancelling::Only(branch),
    };
    let headers = ctx.txn(id).data().map(|d| d.cancel_headers.clone()).unwrap_or_default();
    ctx.txn_mut(id).cancel_branches(which, headers);
    host::tm::drain(ctx);
    1
}

/// t_wait_for_new_branches([count])
fn wait_for_branches(call: &mut Call<Tm>, count: Option<Int>) -> i32 {
    if call.ctx.state.txn.is_none() {
        host::complain!(
            call.ctx,
            "tm",
            "t_wait_for_new_branches: there is no transaction: t_newtran() comes first"
        );
        return -1;
    }
    // One that was made because the script waited becomes its own.
    let made = host::tm::new_transaction(call.ctx);
    if made != 1 {
        return made;
    }
    let count = count.map_or(u16::MAX, |c| c.0.clamp(1, 1000) as u16);
    host::tm::wait_for_branches(call.ctx, count)
}

fn wait_no_more(call: &mut Call<Tm>) -> i32 {
    let Some(id) = call.ctx.state.txn else { return -1 };
    let waited = call.ctx.txn(id).branches().any(|b| b.is_waiting);
    let verdict = call.ctx.txn_mut(id).wait_no_more();
    if verdict != Verdict::Absorb {
        host::tm::on_verdict(call.ctx, id, verdict);
    }
    if waited { 1 } else { -1 }
}

/// t_inject_branches(source, [flags]): "msg" the R-URI and branches of this message, "event" the contact of
/// the event that runs this route, join the transaction: this message's, else that of whoever subscribed.
fn inject_branches(call: &mut Call<Tm>, source: Text, flags: Option<Text>) -> i32 {
    let flags = flags.map(|f| f.str().into_owned()).unwrap_or_default();
    let cancel = flags.split(',').any(|f| matches!(f.trim(), "c" | "cancel"));
    let last = flags.split(',').any(|f| matches!(f.trim(), "l" | "last"));
    let ctx = &mut *call.ctx;
    let subscriber = ctx.state.ext.find::<SubscriberTxn>().and_then(|s| s.0);
    match (&source.0[..], ctx.state.txn, subscriber) {
        (b"msg", Some(_), _) => host::tm::inject(ctx, cancel, last),
        (b"msg", None, Some(txn)) => {
            let mut branches = vec![request_branch(&ctx.state)];
            branches.append(&mut ctx.state.branches);
            host::tm::inject_into(ctx, txn, branches, cancel, last)
        }
        (b"event", own, subscriber) => {
            let Some(txn) = subscriber.or(own) else { return without_transaction() };
            let Some(branch) = branch_of_event(ctx) else {
                host::error!("tm", "t_inject_branches: the event that runs this route names no contact");
                return -1;
            };
            host::tm::inject_into(ctx, txn, [branch], cancel, last)
        }
        (b"msg", None, None) => without_transaction(),
        (other, ..) => {
            host::error!("tm", "t_inject_branches: no source is called {}", String::from_utf8_lossy(other));
            -1
        }
    }
}

fn without_transaction() -> i32 {
    host::error!("tm", "t_inject_branches: there is no transaction to join");
    -1
}

/// The contact that E_UL_CONTACT_INSERT and its like describe.
fn branch_of_event(ctx: &Ctx) -> Option<Branch> {
    let params = ctx.state.ext.find::<EventParams>()?;
    let text = |name: &str| params.find(name.as_bytes()).map(|v| v.to_text()).filter(|text| !text.is_empty());
    let int = |name: &str| params.find(name.as_bytes()).and_then(|v| v.int());
    // 2.1 calls it "address".
    let uri = text("uri").or_else(|| text("address"))?;
    let path = text("path");
    let first_hop =
        path.as_ref().and_then(|p| NameAddr::parse_list(p)?.into_iter().next()).map(|hop| hop.uri);
    Some(Branch {
        uri,
        dst_uri: first_hop.or_else(|| text("received")),
        path,
        q: int("qval").map_or(-1, |q| q as i32),
        flags: int("bflags").map_or(0, |flags| flags as u32),
        socket: text("socket").and_then(|name| socket_index(ctx.shared(), &name)),
        attrs: text("attr"),
        values: Vec::new(),
    })
}

/// t_get_branch_idx_by_attr(attr, [text], [number], [result], [first])
fn index_by_attribute(
    call: &mut Call<Tm>,
    attribute: Text,
    text: Option<Text>,
    number: Option<Int>,
    result: Option<OutVar>,
    first: Option<Int>,
) -> i32 {
    let ctx = &mut *call.ctx;
    let Some(id) = ctx.state.txn else { return -1 };
    let first = first.map_or(0, |n| usize::try_from(n.0).unwrap_or(0));
    let fits = |value: &Value| match (&text, number) {
        (Some(text), _) => value.text().is_some_and(|t| t == text.0) && value.int().is_none(),
        (None, Some(n)) => value.int() == Some(n.0),
        (None, None) => true,
    };
    let has =
        |values: &[(bytes::Bytes, Value)]| values.iter().any(|(name, v)| *name == attribute.0 && fits(v));
    let found = ctx.txn(id).branches().skip(first).position(|b| has(&b.data.target.values));
    let Some(index) = found.map(|i| i + first) else { return -1 };
    if let Some(result) = result {
        result.0.set(ctx, AssignOp::Set, Value::Int(index as i64));
    }
    1
}
