//! REFER with Replaces (RFC 3891): the dialog that it names is one with this server, whoever is referred knows it by
//! another name.

use super::session;
use crate::b2b_entities::owner::DialogInfo;
use crate::b2b_entities::table as entities;
use ahash::AHashMap;
use bytes::Bytes;
use host::Ctx;

type Then = Box<dyn FnOnce(&mut Ctx, Bytes)>;

/// REFERs that wait for another worker's answer.
#[derive(Default)]
struct Asking {
    next: u64,
    waiting: AHashMap<u64, (Bytes, Then)>,
}

/// What a REFER names.
#[derive(Clone, Debug, PartialEq)]
struct Replaced {
    dialog: DialogInfo,
    /// Where its value stands in the line.
    from: usize,
    to: usize,
}

fn digit(b: u8) -> Option<u8> {
    (b as char).to_digit(16).map(|n| n as u8)
}

fn unescaped(text: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (b'%', [a, b, ..]) if let (Some(a), Some(b)) = (digit(*a), digit(*b)) => {
                out.push(a * 16 + b);
                rest = &after[2..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out.into()
}

fn escaped(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for b in text {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(*b)),
            b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')' => out.push(char::from(*b)),
            other => out.push_str(&format!("%{other:02x}")),
        }
    }
    out
}

/// The dialog that a Refer-To line names.
fn replaced(line: &[u8]) -> Option<Replaced> {
    const NAME: &[u8] = b"replaces=";
    let headers = line.iter().position(|b| *b == b'?')?;
    let at = line[headers..].windows(NAME.len()).position(|w| w.eq_ignore_ascii_case(NAME))?;
    let from = headers + at + NAME.len();
    let end = line[from..].iter().position(|b| matches!(b, b'&' | b'>' | b'\r' | b' ' | b'"'));
    let to = end.map_or(line.len(), |n| from + n);
    let value = unescaped(&line[from..to]);
    let mut parts = value.split(|b| *b == b';');
    let mut dialog = DialogInfo { call_id: value.slice_ref(parts.next()?), ..DialogInfo::default() };
    for part in parts {
        if let Some(tag) = part.strip_prefix(b"from-tag=") {
            dialog.from_tag = value.slice_ref(tag);
        } else if let Some(tag) = part.strip_prefix(b"to-tag=") {
            dialog.to_tag = value.slice_ref(tag);
        }
    }
    let whole = !dialog.call_id.is_empty() && !dialog.from_tag.is_empty() && !dialog.to_tag.is_empty();
    whole.then_some(Replaced { dialog, from, to })
}

/// The dialog of the other end of a session, by one that this worker has.
fn other(ctx: &mut Ctx, dialog: &DialogInfo) -> Option<DialogInfo> {
    let table = entities::of(ctx);
    let found = table.of_dialog(&dialog.call_id, &dialog.from_tag, &dialog.to_tag);
    let found = found.or_else(|| table.of_dialog(&dialog.call_id, &dialog.to_tag, &dialog.from_tag))?;
    let (key, kind, logic) = (found.key.clone(), found.kind, found.logic.clone());
    let s = session::of(ctx, &logic)?;
    let peer = s.of_entity(&key, kind)?.peer.and_then(|peer| s.end(peer))?;
    peer.dialog.clone()
}

fn line_with(line: &Bytes, place: &Replaced, dialog: &DialogInfo) -> Bytes {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let value = format!(
        "{};from-tag={};to-tag={}",
        text(&dialog.call_id),
        text(&dialog.to_tag),
        text(&dialog.from_tag)
    );
    [&line[..place.from], escaped(value.as_bytes()).as_bytes(), &line[place.to..]].concat().into()
}

/// Goes on with the line as the other end is to read it; another worker may be asked before.
pub fn rewritten(ctx: &mut Ctx, line: Bytes, then: impl FnOnce(&mut Ctx, Bytes) + 'static) {
    let Some(place) = replaced(&line) else { return then(ctx, line) };
    if let Some(dialog) = other(ctx, &place.dialog) {
        let line = line_with(&line, &place, &dialog);
        return then(ctx, line);
    }
    let here = usize::from(ctx.core.worker);
    let asking = ctx.local::<Asking>();
    asking.next += 1;
    let ticket = asking.next;
    asking.waiting.insert(ticket, (line, Box::new(then)));
    let call_id = place.dialog.call_id.clone();
    let sent = ctx.on_owner(&call_id, move |ctx| {
        let found = other(ctx, &place.dialog);
        ctx.on_worker(here, move |ctx| answered(ctx, ticket, &place, found));
    });
    if !sent && let Some((line, then)) = ctx.local::<Asking>().waiting.remove(&ticket) {
        then(ctx, line);
    }
}

fn answered(ctx: &mut Ctx, ticket: u64, place: &Replaced, found: Option<DialogInfo>) {
    let Some((line, then)) = ctx.local::<Asking>().waiting.remove(&ticket) else { return };
    let line = match found {
        Some(dialog) => line_with(&line, place, &dialog),
        None => line,
    };
    then(ctx, line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_replaced_dialog_is_found() {
        let line =
            Bytes::from_static(b"Refer-To: <sip:c@x?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2&X=y>\r\n");
        let found = replaced(&line).unwrap();
        let dialog = |call_id: &str, from: &str, to: &str| DialogInfo {
            call_id: Bytes::copy_from_slice(call_id.as_bytes()),
            from_tag: Bytes::copy_from_slice(from.as_bytes()),
            to_tag: Bytes::copy_from_slice(to.as_bytes()),
        };
        assert_eq!(found.dialog, dialog("a@b", "2", "1"));
        let line = line_with(&line, &found, &dialog("c@d", "3", "4"));
        let expected = "Refer-To: <sip:c@x?Replaces=c%40d%3bfrom-tag%3d4%3bto-tag%3d3&X=y>\r\n";
        assert_eq!(String::from_utf8_lossy(&line), expected);
        assert_eq!(replaced(b"Refer-To: <sip:c@x>\r\n"), None);
        assert_eq!(replaced(b"Refer-To: <sip:c@x?Replaces=a>\r\n"), None);
        assert_eq!(unescaped(b"a%4"), "a%4");
    }
}
