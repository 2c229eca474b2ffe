//! The branches a request will fork into: adding, removing, and hunting through them by priority.

use crate::avp::AvpName;
use crate::ctx::{Branch, Ctx, MsgState};
use bytes::{Bytes, BytesMut};
use script::Value;
use std::cmp::Reverse;

/// Branches beside the R-URI; further ones are refused.
pub const MAX_APPENDED: usize = 63;

/// Adds a branch with nothing but a URI and a q (× 1000, -1 for none). False when it cannot be.
pub fn append(state: &mut MsgState, uri: Bytes, q: i32) -> bool {
    append_branch(state, Branch { uri, q, ..Branch::default() })
}

/// Adds a branch that leaves as the R-URI's would: same `$du`, path, socket and flags.
pub fn append_like_request(state: &mut MsgState, uri: Bytes, q: i32) -> bool {
    let branch = Branch {
        uri,
        q,
        dst_uri: state.dst_uri.clone(),
        path: state.path.clone(),
        flags: state.branch_flags,
        socket: state.socket,
        ..Branch::default()
    };
    append_branch(state, branch)
}

/// Adds a branch. False: there are too many, the URI is none, or this is no request.
pub fn append_branch(state: &mut MsgState, branch: Branch) -> bool {
    let bad = branch.uri.is_empty() || branch.uri.iter().any(|b| matches!(b, b'\r' | b'\n' | 0));
    // Replies of a transaction too: `t_inject_branches` takes them from there.
    let has_branches = state.msg.is_request() || state.txn.is_some();
    if bad || !has_branches || state.branches.len() >= MAX_APPENDED {
        return false;
    }
    state.branches.push(branch);
    true
}

/// The branch of the R-URI, put together from the message's own fields.
pub fn request_branch(state: &MsgState) -> Branch {
    Branch {
        uri: state.current_uri(),
        dst_uri: state.dst_uri.clone(),
        path: state.path.clone(),
        q: state.ruri_q,
        flags: state.branch_flags,
        socket: state.socket,
        attrs: None,
        values: state.ext.find::<RequestValues>().map(|v| v.0.clone()).unwrap_or_default(),
    }
}

/// Makes a branch the one of the R-URI.
pub fn set_request_branch(state: &mut MsgState, branch: Branch) {
    state.ruri = Some(branch.uri);
    state.dst_uri = branch.dst_uri;
    state.path = branch.path;
    state.ruri_q = branch.q;
    state.branch_flags = branch.flags;
    state.socket = branch.socket;
    if !branch.values.is_empty() {
        state.ext.set(RequestValues(branch.values));
    } else if state.ext.find::<RequestValues>().is_some() {
        state.ext.remove::<RequestValues>();
    }
}

/// Which branch functions of 4.x mean: `None` is the R-URI's, else an appended one, from 0.
pub type Which = Option<usize>;

/// Reads a branch; `None` when there is no such.
fn taken(state: &MsgState, which: Which) -> Option<Branch> {
    match which {
        None => Some(request_branch(state)),
        Some(i) => state.branches.get(i).cloned(),
    }
}

fn put(state: &mut MsgState, which: Which, branch: Branch) {
    match which {
        None => set_request_branch(state, branch),
        Some(i) => state.branches[i] = branch,
    }
}

/// What happens to the branch that was moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterMove {
    Remove,
    Keep,
}

/// `move_msg_branch`: copies one branch over another and removes it. False: there is no such branch.
pub fn move_branch(state: &mut MsgState, from: Which, to: Which, then: AfterMove) -> bool {
    let Some(branch) = taken(state, from) else { return false };
    if from == to || to.is_some_and(|i| i >= state.branches.len()) {
        return false;
    }
    put(state, to, branch);
    if let (AfterMove::Remove, Some(i)) = (then, from) {
        state.branches.remove(i);
    }
    true
}

/// `swap_msg_branches`. False: there is no such branch.
pub fn swap(state: &mut MsgState, one: Which, two: Which) -> bool {
    let (Some(a), Some(b)) = (taken(state, one), taken(state, two)) else { return false };
    put(state, one, b);
    put(state, two, a);
    true
}

/// Removes an appended branch, from 0. False: there is no such branch.
pub fn remove(state: &mut MsgState, index: usize) -> bool {
    let there = index < state.branches.len();
    if there {
        state.branches.remove(index);
    }
    there
}

/// The branches as a Contact value: `<uri>;q=0.7, <uri>`. The R-URI counts once it was changed.
/// `None` when there are none.
pub fn contacts(state: &MsgState) -> Option<Bytes> {
    let changed = state.ruri.as_ref().map(|uri| (uri, state.ruri_q));
    let all = changed.into_iter().chain(state.branches.iter().map(|b| (&b.uri, b.q)));
    let mut out = BytesMut::new();
    for (uri, q) in all {
        if !out.is_empty() {
            out.extend_from_slice(b", ");
        }
        for part in [&b"<"[..], uri, b">"] {
            out.extend_from_slice(part);
        }
        if q >= 0 {
            out.extend_from_slice(b";q=");
            out.extend_from_slice(&q_text(q));
        }
    }
    (!out.is_empty()).then(|| out.freeze())
}

/// "0.7" for 700; empty for none.
pub fn q_text(q: i32) -> Bytes {
    match q {
        ..0 => Bytes::new(),
        0 => Bytes::from_static(b"0"),
        1000.. => Bytes::from_static(b"1"),
        _ => {
            let digits = format!("{q:03}");
            Bytes::from(format!("0.{}", digits.trim_end_matches('0')))
        }
    }
}

/// A q of a script: `0.7` as text, 700 as number (cut to 0 to 1000; -1 is none), NULL for none.
pub fn q_of(value: &Value) -> Option<i32> {
    match value {
        Value::Null | Value::Nought | Value::Failed => Some(-1),
        Value::Int(n) | Value::Num(_, n) => Some(if *n == -1 { -1 } else { (*n).clamp(0, 1000) as i32 }),
        Value::Str(text) | Value::Pieced(text, _) | Value::Both(text, _) if text.is_empty() => None,
        Value::Str(text) | Value::Pieced(text, _) | Value::Both(text, _) => parse_q(text),
    }
}

/// × 1000 of a qvalue (RFC 3261 §25.1); -1 for an empty text.
pub fn parse_q(text: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if text.is_empty() {
        return Some(-1);
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    // `parse` takes a sign; the grammar does not.
    let whole: i32 = match whole.bytes().all(|b| b.is_ascii_digit()) {
        true if whole.is_empty() => 0,
        true => whole.parse().ok()?,
        false => return None,
    };
    let mut q = whole.checked_mul(1000)?;
    for (digit, weight) in fraction.chars().zip([100, 10, 1]) {
        q += i32::try_from(digit.to_digit(10)?).ok()? * weight;
    }
    (0..=1000).contains(&q).then_some(q)
}

/// What `$msg.branch.attr` keeps with the R-URI's branch.
#[derive(Clone, Debug, Default)]
struct RequestValues(Vec<(Bytes, Value)>);

/// The branch of the R-URI was opened: its attributes are those of the transaction's branch from now on.
pub(crate) fn forget_request_attributes(state: &mut MsgState) {
    if state.ext.find::<RequestValues>().is_some() {
        state.ext.remove::<RequestValues>();
    }
}

/// Attributes of one branch; further ones are refused.
const MAX_ATTRIBUTES: usize = 64;

/// An attribute of branch n (0 is the R-URI).
pub fn attribute(state: &MsgState, n: usize, name: &[u8]) -> Value {
    let list = match n {
        0 => state.ext.find::<RequestValues>().map(|v| &v.0),
        n => state.branches.get(n - 1).map(|b| &b.values),
    };
    list.and_then(|list| list.iter().find(|(n, _)| &n[..] == name)).map_or(Value::Null, |(_, v)| v.clone())
}

/// Sets an attribute of branch n (0 is the R-URI); NULL removes it.
pub fn set_attribute(state: &mut MsgState, n: usize, name: Bytes, value: Value) -> bool {
    let list = match n {
        0 => &mut state.ext.entry::<RequestValues>().0,
        n => match state.branches.get_mut(n - 1) {
            Some(branch) => &mut branch.values,
            None => return false,
        },
    };
    list.retain(|(n, _)| *n != name);
    if value.is_null() {
        return true;
    }
    let room = list.len() < MAX_ATTRIBUTES;
    if room {
        list.push((name, value));
    }
    room
}

/// How `serialize_branches` orders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SerialOrder {
    /// Highest q first; equal ones are tried at once.
    ByQ,
    /// As they stand, one after the other.
    AsAdded,
}

fn serial_avp() -> AvpName {
    AvpName::new(b"serial_branch")
}

/// Puts the R-URI and all branches aside for `next_branches`, in `$avp(serial_branch)`.
pub fn serialize(state: &mut MsgState, previous: Previous, order: SerialOrder) -> bool {
    let mut all = vec![request_branch(state)];
    all.append(&mut state.branches);
    let mut groups: Vec<usize> = Vec::with_capacity(all.len());
    match order {
        // Nothing to put in an order: they stay branches that are tried at once.
        order if all.len() == 1 || (order == SerialOrder::ByQ && all.iter().all(|b| b.q == all[0].q)) => {
            state.branches = all.split_off(1);
            if previous == Previous::Clear {
                state.avps.borrow_mut().remove_all(serial_avp());
            }
            return true;
        }
        SerialOrder::ByQ => {
            all.sort_by_key(|b| Reverse(b.q));
            let mut group = 0;
            for (i, branch) in all.iter().enumerate() {
                group += usize::from(i > 0 && all[i - 1].q != branch.q);
                groups.push(group);
            }
        }
        SerialOrder::AsAdded => groups.extend(0..all.len()),
    }
    let mut avps = state.avps.borrow_mut();
    if previous == Previous::Clear {
        avps.remove_all(serial_avp());
    }
    // The AVP is a stack: the first to be tried goes in last.
    for (branch, group) in all.iter().zip(groups).rev() {
        avps.add(serial_avp(), Value::Str(encode(branch, group)));
    }
    true
}

/// What becomes of the branches that an earlier `serialize_branches` put aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Previous {
    Clear,
    Keep,
}

/// `next_branches`: the next group of serialized branches becomes R-URI and branches. 1: more are
/// left, 2: these were the last, -1: there were none.
pub fn next(ctx: &mut Ctx) -> i32 {
    let state = &mut ctx.state;
    let avps = state.avps.clone();
    let mut avps = avps.borrow_mut();
    let mut group = None;
    while let Some((branch, its_group)) = avps.first(serial_avp()).and_then(decode) {
        match group {
            None => set_request_branch(state, branch),
            Some(g) if g != its_group => return 1,
            Some(_) => {
                append_branch(state, branch);
            }
        }
        group = Some(its_group);
        avps.remove(serial_avp(), 0);
    }
    if group.is_some() { 2 } else { -1 }
}

/// One line a field, since no field can hold a line end.
fn encode(branch: &Branch, group: usize) -> Bytes {
    let mut out = BytesMut::new();
    let socket = branch.socket.map_or(String::new(), |s| s.to_string());
    let head = format!("{group}\n{}\n{}\n{socket}\n", branch.q, branch.flags);
    out.extend_from_slice(head.as_bytes());
    for field in [Some(&branch.uri), branch.dst_uri.as_ref(), branch.path.as_ref(), branch.attrs.as_ref()] {
        out.extend_from_slice(field.map_or(b"", |f| &f[..]));
        out.extend_from_slice(b"\n");
    }
    out.freeze()
}

/// `None` for anything that `encode` did not make (a script may write the AVP).
fn decode(value: &Value) -> Option<(Branch, usize)> {
    let Value::Str(text) = value else { return None };
    let fields: Vec<Bytes> = text.split(|b| *b == b'\n').map(|field| text.slice_ref(field)).collect();
    let [group, q, flags, socket, uri, dst_uri, path, attrs, ..] = &fields[..] else { return None };
    fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
        std::str::from_utf8(text).ok()?.parse().ok()
    }
    let text = |field: &Bytes| Some(field.clone()).filter(|f| !f.is_empty());
    let branch = Branch {
        uri: text(uri)?,
        dst_uri: text(dst_uri),
        path: text(path),
        q: number(q)?,
        flags: number(flags)?,
        socket: number(socket),
        attrs: text(attrs),
        values: Vec::new(),
    };
    Some((branch, number(group)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_values() {
        for (text, q) in [("0.7", 700), ("1", 1000), ("1.0", 1000), ("0", 0), (".25", 250), ("0.123", 123)] {
            assert_eq!(parse_q(text.as_bytes()), Some(q), "{text}");
        }
        for text in ["1.1", "x", "-1", "2", "0.x"] {
            assert_eq!(parse_q(text.as_bytes()), None, "{text}");
        }
        for (q, text) in [(300, "0.3"), (1000, "1"), (0, "0"), (-1, ""), (50, "0.05"), (123, "0.123")] {
            assert_eq!(q_text(q), text);
        }
    }

    #[test]
    fn serialized_branches_come_back() {
        let branch = Branch {
            uri: "sip:a@b".into(),
            dst_uri: Some("sip:c".into()),
            q: -1,
            flags: 5,
            socket: Some(2),
            ..Branch::default()
        };
        let (back, group) = decode(&Value::Str(encode(&branch, 3))).unwrap();
        assert_eq!((back.uri, back.dst_uri, back.path), (branch.uri, branch.dst_uri, None));
        assert_eq!((back.q, back.flags, back.socket, group), (-1, 5, Some(2), 3));
        for text in ["", "x", "1\n2\n3\n4\n\n\n\n\n"] {
            assert!(decode(&Value::Str(Bytes::from_static(text.as_bytes()))).is_none(), "{text:?}");
        }
    }
}
