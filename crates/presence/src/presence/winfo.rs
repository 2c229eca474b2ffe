//! Who watches (RFC 3857, 3858): bodies of `*.winfo`.

use super::body::Sources;
use super::notify::{self, News, Whom};
use super::packages::Package;
use super::subscription::{Field, Status, Subscription, uri_of};
use super::table::Key;
use super::{Presence, sql};
use crate::xml::Element;
use base64::Engine;
use bytes::Bytes;
use host::Ctx;
use host::db::DbError;
use std::sync::Arc;

const NAMESPACE: &str = "urn:ietf:params:xml:ns:watcherinfo";

/// Stands where the number of a NOTIFY goes.
pub const NUMBER: &str = "00000000000";

/// Somebody who watches, or waits to be let in.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub uri: String,
    pub id: String,
    pub status: Status,
}

impl Seen {
    pub fn of(s: &Subscription) -> Seen {
        Seen { uri: s.watcher(), id: s.text(Field::CallId).into_owned(), status: s.status }
    }

    /// Somebody nobody has decided about, without a subscription now.
    pub fn waiting(uri: String) -> Seen {
        let id = base64::engine::general_purpose::STANDARD.encode(&uri);
        Seen { uri, id, status: Status::Waiting }
    }
}

/// Whether all watchers are listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum List {
    Full,
    Partial,
}

/// A body without its number.
pub fn body(uri: &str, watched: &str, list: List, watchers: &[Seen]) -> Bytes {
    let mut all =
        Element::new("watcher-list", NAMESPACE).attribute("resource", uri).attribute("package", watched);
    for seen in watchers {
        let watcher = Element::new("watcher", NAMESPACE)
            .attribute("id", seen.id.clone())
            .attribute("event", "subscribe")
            .attribute("status", seen.status.as_str())
            .text(seen.uri.clone());
        all = all.child(watcher);
    }
    let state = if list == List::Full { "full" } else { "partial" };
    Element::new("watcherinfo", NAMESPACE)
        .attribute("version", NUMBER)
        .attribute("state", state)
        .child(all)
        .document()
}

/// Writes the number of a NOTIFY into a body that has a place for it.
pub fn numbered(body: &Bytes, number: u32) -> Option<Bytes> {
    let place = format!("version=\"{NUMBER}\"");
    let at = memchr::memmem::find(body, place.as_bytes())?;
    let number = format!("version=\"{number}\"");
    Some([&body[..at], number.as_bytes(), &body[at + place.len()..]].concat().into())
}

/// All watchers of a user and package, those first that wait to be let in and have no subscription now.
pub async fn watchers(sources: &Sources, key: &Key, watched: &Package) -> Result<Vec<Seen>, DbError> {
    let module = &sources.module;
    let mut all = Vec::new();
    if module.fallback {
        let rows = sources.pool.run(module.tables.subscriptions_of(key, watched.name)).await?;
        all.extend(
            rows.iter().filter_map(|row| sql::read(&sources.shared, &row)).map(|(.., s)| Seen::of(&s)),
        );
    } else {
        let now = sources.now as u32;
        module.table.each_of(key, |s| {
            if s.expires >= now {
                all.push(Seen::of(s));
            }
        });
    }
    let rows = sources.pool.run(module.tables.known_watchers(key, watched.name)).await?;
    let mut waiting = Vec::new();
    for row in rows.iter().filter(|row| row.int(0) == Some(Status::Pending as i64)) {
        let uri = uri_of(&row.text(2).unwrap_or_default(), &row.text(3).unwrap_or_default());
        if !all.iter().chain(&waiting).any(|seen: &Seen| seen.uri == uri) {
            waiting.push(Seen::waiting(uri));
        }
    }
    waiting.reverse();
    waiting.extend(all);
    Ok(waiting)
}

/// Tells those who watch the watchers of a key.
pub fn tell(ctx: &mut Ctx, module: &Arc<Presence>, watched: &Key, of: &Package, list: List, seen: &[Seen]) {
    let Some((number, package)) = module.packages.peer(of).filter(|(_, p)| p.is_winfo()) else { return };
    let key = Arc::new(Key { uri: watched.uri.clone(), package: number });
    let mut whom = Vec::new();
    let now = super::now_s(ctx) as u32;
    module.table.each_of(&key, |s| {
        if s.is_open() && s.expires >= now {
            whom.push(Whom::Stored(s.dialog()));
        }
    });
    if whom.is_empty() || (seen.is_empty() && list == List::Partial) {
        return;
    }
    let text = body(&String::from_utf8_lossy(&key.uri), of.name, list, seen);
    notify::post(ctx, module, &key, &package, News::of(Some(text)), whom);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_watchers() {
        let seen = Seen { uri: "sip:a@x".into(), id: "1".into(), status: Status::Pending };
        let body = body("sip:b@x", "presence", List::Partial, &[seen]);
        let body = String::from_utf8(numbered(&body, 7).unwrap().to_vec()).unwrap();
        assert_eq!(
            body,
            "<?xml version=\"1.0\"?>\n<watcherinfo xmlns=\"urn:ietf:params:xml:ns:watcherinfo\" version=\"7\" \
             state=\"partial\"><watcher-list resource=\"sip:b@x\" package=\"presence\"><watcher id=\"1\" \
             event=\"subscribe\" status=\"pending\">sip:a@x</watcher></watcher-list></watcherinfo>\n"
        );
        assert_eq!(numbered(&Bytes::from_static(b"<a/>"), 1), None);
    }
}
