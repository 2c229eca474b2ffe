//! diversion: the Diversion header (RFC 5806).

use host::{Call, Head, Int, Registrar, Routes};
use sip::{Anchor, HeaderName, Piece};

/// The module keeps nothing.
#[derive(Default)]
pub struct Diversion;

pub fn register(m: &mut Registrar<Diversion>) {
    m.ignored(&["suffix"], "the reference documents it and does not add it either");
    m.function("add_diversion", Routes::REQUEST.and(Routes::FAILURE), add_diversion);
}

/// add_diversion(reason, [uri], [counter]): above all Diversion headers; by default with the R-URI as received.
fn add_diversion(call: &mut Call<Diversion>, reason: Head, uri: Option<Head>, counter: Option<Int>) -> i32 {
    let state = &mut call.ctx.state;
    let uri = uri.map_or_else(|| state.msg.request_uri(), |uri| uri.0);
    let mut line = [b"Diversion: <", &uri[..], b">;reason=", &reason.0].concat();
    if let Some(counter) = counter.filter(|counter| counter.0 > 0) {
        line.extend_from_slice(format!(";counter={}", counter.0).as_bytes());
    }
    line.extend_from_slice(b"\r\n");
    let place = state.msg.header(HeaderName::Diversion).map_or(Anchor::End, |h| Anchor::At(h.whole().start));
    state.edits.insert_first(place, vec![Piece::Text(line.into())]);
    1
}
