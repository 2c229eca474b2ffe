//! The description in the body of a message, for engines.

use bytes::Bytes;
use host::MsgState;
use modules::sipmsgops::parts::{self, Parts};

/// What an engine made of the description of a message. Asked again for the same message (another branch, another
/// engine), an engine is to see what the caller said.
#[derive(Clone, Default)]
struct Anchored {
    given: Bytes,
    made: Bytes,
}

fn place(parts: &Parts) -> Option<usize> {
    parts
        .list
        .iter()
        .position(|part| !part.removed && part.is(b"application/sdp") && !part.content.is_empty())
}

/// Whether the body has a description.
pub fn has_sdp(state: &MsgState) -> bool {
    place(&Parts::of(state)).is_some()
}

/// The description of the body: its first part that is one.
pub fn sdp(state: &MsgState) -> Option<Bytes> {
    let parts = Parts::of(state);
    let now = parts.list[place(&parts)?].content.clone();
    match state.ext.find::<Anchored>() {
        Some(last) if last.made == now => Some(last.given.clone()),
        _ => Some(now),
    }
}

/// Puts what an engine made of `given` in its place; the other parts stay. False: there is no description.
pub fn replace_sdp(state: &mut MsgState, given: Bytes, made: Bytes) -> bool {
    let mut parts = Parts::of(state);
    let Some(at) = place(&parts) else { return false };
    parts.list[at].content = made.clone();
    parts::store(state, parts);
    state.ext.set(Anchored { given, made });
    true
}
