//! Contact URIs as a script has changed them (`fix_nated_contact`): those who read contacts later go by them.

use crate::ctx::MsgState;
use bytes::Bytes;
use sip::{HeaderName, Message, NameAddr, ParseError, Span};

/// URIs that were changed, by their place in the message. Kept with the message.
#[derive(Clone, Debug, Default)]
pub struct Changed(Vec<(Span, Bytes)>);

/// The contacts of the message, with the URIs that a script gave them.
pub fn addresses(state: &MsgState) -> Result<Vec<NameAddr>, ParseError> {
    with_changes(&state.msg, state.ext.find::<Changed>())
}

/// The same for a message and what was found in its state.
pub fn with_changes(msg: &Message, changed: Option<&Changed>) -> Result<Vec<NameAddr>, ParseError> {
    let mut list = msg.addresses(HeaderName::Contact)?;
    for address in &mut list {
        let new = changed.and_then(|changed| changed.0.iter().find(|(place, _)| *place == address.uri_span));
        if let Some((_, uri)) = new {
            address.uri = uri.clone();
        }
    }
    Ok(list)
}

/// Remembers the new URI of the contact at this place; false when it was changed before.
pub fn change(state: &mut MsgState, place: Span, uri: Bytes) -> bool {
    let changed = &mut state.ext.entry::<Changed>().0;
    let first = changed.iter().all(|(at, _)| *at != place);
    if first {
        changed.push((place, uri));
    }
    first
}
