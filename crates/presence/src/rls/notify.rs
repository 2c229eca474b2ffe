//! NOTIFY of lists to their watchers, and of users to us.

use super::body::{self, Extent, Instance, SubscriptionState};
use super::{Rls, now_s};
use crate::presence::notify::side_of;
use crate::presence::subscription::{Dialog, Field, Subscription};
use crate::presence::table::Key;
use crate::pua::record::Source;
use bytes::Bytes;
use host::db::{DbError, DbValue, Pool, Query, Row};
use host::tm::Answer;
use host::{Call, Ctx, Finish, Outcome, Suspension};
use sip::{HeaderName, Message};
use std::sync::Arc;

/// Nobody has heard of the row.
pub const UPDATED: i64 = 1;
pub const TOLD: i64 = -1;

/// What tells the rows of one subscription: `Call-ID;From-tag;To-tag`.
pub fn did_of(dialog: &Dialog) -> Bytes {
    [&dialog.call_id[..], b";", &dialog.from_tag, b";", &dialog.to_tag].concat().into()
}

/// `None`: it is none.
pub fn dialog_of(did: &Bytes) -> Option<Dialog> {
    let last = did.iter().rposition(|b| *b == b';')?;
    let first = did[..last].iter().rposition(|b| *b == b';')?;
    Some(Dialog {
        call_id: did.slice(..first),
        from_tag: did.slice(first + 1..last),
        to_tag: did.slice(last + 1..),
    })
}

/// Columns of [`instance`].
pub const COLUMNS: [&str; 5] = ["resource_uri", "auth_state", "reason", "content_type", "presence_state"];

/// What the users of a subscription told last.
pub fn states(module: &Rls, did: &Bytes) -> Query {
    Query::select(&module.states).columns(COLUMNS).eq("rlsubs_did", did.clone()).order("resource_uri")
}

/// A row, its columns from `at` on.
pub fn instance(row: &Row<'_>, at: usize) -> Option<Instance> {
    Some(Instance {
        uri: row.string(at),
        state: SubscriptionState::of_number(row.int(at + 1)?)?,
        reason: row.string(at + 2),
        content_type: row.text(at + 3).unwrap_or_default(),
        body: row.text(at + 4).unwrap_or_default(),
    })
}

/// The subscription whose watcher is told.
pub enum Whom {
    Stored(Dialog),
    /// It is over, or never began.
    Gone(Box<Subscription>),
}

/// Something to tell the watcher of a list.
pub struct News {
    pub extent: Extent,
    /// Those that the list holds, or of them those that changed.
    pub users: Vec<String>,
    pub instances: Vec<Instance>,
}

/// Sends it, on the worker of the subscription's Call-ID.
pub fn post(ctx: &mut Ctx, module: &Arc<Rls>, key: &Arc<Key>, whom: Whom, news: News) {
    let call_id = match &whom {
        Whom::Stored(dialog) => dialog.call_id.clone(),
        Whom::Gone(s) => s.bytes(Field::CallId),
    };
    let (module, key) = (module.clone(), key.clone());
    if !ctx.on_owner(&call_id, move |ctx| send(ctx, &module, &key, whom, &news)) {
        host::warn!("rls", "a NOTIFY was dropped: its worker is overloaded");
    }
}

fn send(ctx: &mut Ctx, module: &Arc<Rls>, key: &Arc<Key>, whom: Whom, news: &News) {
    let count = |s: &mut Subscription| {
        let before = s.clone();
        (s.local_cseq, s.version) = (s.local_cseq.wrapping_add(1), s.version.wrapping_add(1));
        s.touched();
        before
    };
    let (s, is_over) = match whom {
        Whom::Stored(dialog) => match module.table.with(key, &dialog, count) {
            Some(s) => (s, false),
            None => return,
        },
        Whom::Gone(s) => (*s, true),
    };
    let Some((_, package)) = module.presence.as_ref().and_then(|p| Some((key, p.packages.get(key.package)?)))
    else {
        return;
    };
    let list = String::from_utf8_lossy(&key.uri);
    let body = body::build(ctx, (&list, s.version), news.extent, &news.users, &news.instances);
    let left = (i64::from(s.expires) - now_s(ctx)).max(0);
    let state = match is_over || left == 0 {
        true => "terminated;reason=timeout".to_owned(),
        false => format!("active;expires={left}"),
    };
    let id = match s.get(Field::EventId) {
        b"" => String::new(),
        id => format!(";id={}", String::from_utf8_lossy(id)),
    };
    let head = format!(
        "Event: {}{id}\r\nContact: <{}>\r\nSubscription-State: {state}\r\nRequire: eventlist\r\nContent-Type: {}\r\n",
        package.name,
        s.text(Field::LocalContact),
        body.content_type
    );
    let mut request = side_of(&s).request("NOTIFY");
    request.headers = [&request.headers[..], head.as_bytes()].concat().into();
    request.body = body.bytes;
    let (module, key, dialog) = (module.clone(), key.clone(), s.dialog());
    let answered = move |ctx: &mut Ctx, answer: Answer| {
        if answer.status >= 300 && !is_over {
            super::upkeep::end(ctx, &module, &key, &dialog);
        }
    };
    host::tm::send_new(ctx, request, Some(Box::new(answered)));
}

/// A NOTIFY of a user, read.
struct Told {
    uri: Bytes,
    call_id: Bytes,
    state: SubscriptionState,
    reason: Bytes,
    /// Seconds.
    expires: Option<u32>,
    content_type: Bytes,
    body: Bytes,
}

fn read(msg: &Message) -> Option<Told> {
    msg.header(HeaderName::Event)?;
    msg.to_tag().filter(|tag| !tag.is_empty())?;
    msg.from_tag().filter(|tag| !tag.is_empty())?;
    let value = msg.headers_named(b"Subscription-State").next().map(|header| msg.text(header.value()))?;
    let end = value.iter().position(|b| *b == b';').unwrap_or(value.len());
    let params = sip::Params { text: value.slice((end + 1).min(value.len())..) };
    let state = SubscriptionState::of_word(value[..end].trim_ascii())?;
    let reason = params.value(b"reason").filter(|reason| !reason.is_empty());
    let expires = match state {
        SubscriptionState::Terminated => Some(0),
        _ => params.value(b"expires").and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok()),
    };
    let content_type = msg.value(HeaderName::ContentType).unwrap_or_default();
    let body = msg.text(msg.body());
    if !body.is_empty() && content_type.is_empty() {
        return None;
    }
    let reason = match state {
        SubscriptionState::Terminated => reason.unwrap_or_else(|| Bytes::from_static(b"unknown")),
        _ => Bytes::new(),
    };
    Some(Told { uri: msg.from()?.uri, call_id: msg.call_id()?, state, reason, expires, content_type, body })
}

/// rls_handle_notify(): 1 done, 2 it is of no subscription from here, -1 an error.
pub fn handle(call: &mut Call<Rls>) -> Outcome {
    let module = call.module.clone();
    let Some(told) = read(&call.state.msg) else { return (-1).into() };
    let pua = module.pua.as_ref();
    let Some(did) = pua.and_then(|pua| pua.subscription(&told.uri, Source::Lists, &told.call_id)) else {
        // The end of one that is forgotten already.
        return match told.state {
            SubscriptionState::Terminated => answered(call.ctx).into(),
            _ => 2.into(),
        };
    };
    let Some(pool) = module.pool(call.ctx) else { return (-1).into() };
    let now = now_s(call.ctx);
    Suspension::future("rls_handle_notify", async move {
        let stored = store(&module, &*pool, &did, &told, now).await;
        Box::new(move |ctx: &mut Ctx| match stored {
            Ok(()) => answered(ctx),
            Err(error) => {
                host::error!("rls", "a state was not written: {error}");
                -1
            }
        }) as Finish
    })
}

fn answered(ctx: &mut Ctx) -> i32 {
    host::reply::send(ctx, 200, b"OK");
    1
}

async fn store(module: &Rls, pool: &dyn Pool, did: &Bytes, told: &Told, now: i64) -> Result<(), DbError> {
    let of_it = |query: Query| query.eq("rlsubs_did", did.clone()).eq("resource_uri", told.uri.clone());
    let known = pool.run(of_it(Query::select(&module.states).columns(["updated"]))).await?;
    let mut query = match known.is_empty() {
        true => {
            Query::insert(&module.states).set("rlsubs_did", did.clone()).set("resource_uri", told.uri.clone())
        }
        false => Query::update(&module.states),
    };
    query = query
        .set("updated", UPDATED)
        .set("auth_state", told.state as i64)
        .set("reason", told.reason.clone())
        .set("content_type", told.content_type.clone())
        .set("presence_state", DbValue::Blob(told.body.clone()));
    if let Some(expires) = told.expires {
        query = query.set("expires", now + i64::from(expires));
    }
    pool.run(if known.is_empty() { query } else { of_it(query) }).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_subscriptions() {
        let dialog = Dialog { call_id: "a;b@c".into(), to_tag: "t".into(), from_tag: "f".into() };
        let did = did_of(&dialog);
        assert_eq!(did, "a;b@c;f;t");
        assert_eq!(dialog_of(&did), Some(dialog));
        assert_eq!(dialog_of(&Bytes::from_static(b"a;b")), None);
    }

    #[test]
    fn notifies_are_read() {
        let text = |state: &str, kind: &str, body: &str| {
            format!(
                "NOTIFY sip:rls@x SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:bob@x>;tag=1\r\nTo: <sip:a@x>;tag=2\r\n\
                 Call-ID: c\r\nCSeq: 1 NOTIFY\r\nEvent: presence\r\nSubscription-State: {state}\r\n{kind}Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let read = |state: &str, kind: &str, body: &str| {
            read(&Message::parse(text(state, kind, body).into()).unwrap())
        };
        let told = read("active;expires=300", "Content-Type: a/b\r\n", "x").unwrap();
        assert_eq!(
            (told.state, told.expires, &told.body[..]),
            (SubscriptionState::Active, Some(300), &b"x"[..])
        );
        let told = read("terminated", "", "").unwrap();
        assert_eq!(
            (told.state, told.expires, &told.reason[..]),
            (SubscriptionState::Terminated, Some(0), &b"unknown"[..])
        );
        assert_eq!(&read("Terminated; reason=rejected", "", "").unwrap().reason[..], b"rejected");
        assert!(read("odd", "", "").is_none() && read("active", "", "x").is_none());
    }
}
