//! rls_handle_subscribe, and the subscriptions to the users of a list.

use super::body::{Extent, Instance};
use super::notify::{self, News, Whom, did_of};
use super::{Rls, documents, now_s};
use crate::presence;
use crate::presence::packages::{BAD_EVENT, BAD_REQUEST, BROKEN, Event, Package, Refusal};
use crate::presence::subscribe::{Request, Terms, read};
use crate::presence::subscription::{Dialog, Field, Reason, Status, Subscription};
use crate::presence::table::Key;
use crate::pua::record::{Source, event_named};
use crate::pua::{self, Wish};
use bytes::Bytes;
use host::{Call, Ctx, Finish, Outcome, Suspension};
use sip::{HeaderName, Message};
use std::sync::Arc;

/// Further lines of a SUBSCRIBE to a user.
const HEADERS: &[u8] = b"Supported: eventlist\r\nAccept: application/pidf+xml, application/rlmi+xml, \
application/watcherinfo+xml, multipart/related, application/xcap-diff+xml\r\n";

const NOT_FOUND: Refusal = Refusal(404, "Not found");
const STALE: Refusal = Refusal(400, "Stale Cseq Value");

/// What is known when the waiting is over.
struct Prepared {
    /// `None`: it is no list.
    users: Option<Vec<String>>,
    instances: Vec<Instance>,
}

/// rls_handle_subscribe(): 1 answered, -1 refused, `to_presence_code`: it is for no list.
pub fn handle(call: &mut Call<Rls>) -> Outcome {
    let module = call.module.clone();
    let Some(presence) = module.presence.clone() else { return (-1).into() };
    let not_ours = module.to_presence_code;
    let msg = call.state.msg.clone();
    if !takes_lists(&msg) {
        return not_ours.into();
    }
    let Some(event) = msg.value(HeaderName::Event).and_then(|value| Event::parse(&value)) else {
        return presence::refuse(call.ctx, &presence, BAD_EVENT).into();
    };
    match (presence.packages.of_event(&event), is_listed(&module, &event)) {
        (Some(_), true) => {}
        (None, true) => return presence::refuse(call.ctx, &presence, BAD_EVENT).into(),
        // Of packages that the reference numbers, every other one passes for a listed one there; where presence has
        // no such package it is refused.
        (None, false) if Package::number_of(&event.name) & 1 == 1 => {
            return presence::refuse(call.ctx, &presence, BAD_EVENT).into();
        }
        (_, false) => return not_ours.into(),
    }
    let terms = Terms {
        max_expires: module.max_expires,
        contact_user: &module.contact_user,
        address: module.server_address.as_deref(),
    };
    let request = match read(&presence, call.ctx, &terms) {
        Ok(request) => request,
        Err(refusal) => return presence::refuse(call.ctx, &presence, refusal).into(),
    };
    let Some(pool) = module.pool(call.ctx) else { return (-1).into() };
    let mut loaded = module.loaded.subscribe();
    let detail = request.text(Field::CallId).clone();
    Suspension::future("rls_handle_subscribe", async move {
        // The sender lives in the module.
        let _ = loaded.wait_for(|loaded| *loaded).await;
        let prepared = match key_of(&module, &request) {
            Some(key) => prepare(&module, &*pool, &request, &key).await.map(|prepared| Some((key, prepared))),
            None => Ok(None),
        };
        Box::new(move |ctx: &mut Ctx| {
            let done = prepared.and_then(|prepared| match prepared {
                Some((key, prepared)) => finish(ctx, &module, &request, &key, prepared),
                None => Ok(not_ours),
            });
            done.unwrap_or_else(|refusal| presence::refuse(ctx, &presence, refusal))
        }) as Finish
    })
    .detail(detail)
}

/// Supported names `eventlist` (RFC 4662 §4.1).
fn takes_lists(msg: &Message) -> bool {
    msg.list(HeaderName::Supported).any(|word| word.trim_ascii().eq_ignore_ascii_case(b"eventlist"))
}

fn is_listed(module: &Rls, event: &Event) -> bool {
    module.events.iter().any(|listed| {
        let mut parts = listed.split(';').map(str::trim);
        parts.next().is_some_and(|name| event.name.eq_ignore_ascii_case(name.as_bytes()))
            && parts.all(|param| event.params.has(param.as_bytes()))
    })
}

/// The list that is meant; `None`: the dialog is none of ours.
fn key_of(module: &Rls, request: &Request) -> Option<Arc<Key>> {
    match &request.uri {
        Some(uri) if request.is_first() => Some(Arc::new(Key { uri: uri.clone(), package: request.number })),
        _ => module.table.key_of(&request.dialog()).filter(|key| key.package == request.number),
    }
}

fn broken(why: impl std::fmt::Display) -> Refusal {
    host::error!("rls", "a list was not read: {why}");
    BROKEN
}

async fn prepare(
    module: &Rls,
    pool: &dyn host::db::Pool,
    request: &Request,
    key: &Key,
) -> Result<Prepared, Refusal> {
    let Some(xcap) = &module.xcap else { return Err(BROKEN) };
    let owner = (request.text(Field::FromUser), request.text(Field::FromDomain));
    let users = documents::users(xcap, pool, owner, &key.uri).await.map_err(broken)?;
    let mut instances = Vec::new();
    if users.is_some() && !request.is_first() {
        let did = did_of(&request.dialog());
        let rows = pool.run(notify::states(module, &did)).await.map_err(broken)?;
        instances = rows.iter().filter_map(|row| notify::instance(&row, 0)).collect();
        // They are all told now.
        let told = host::db::Query::update(&module.states).set("updated", notify::TOLD).eq("rlsubs_did", did);
        pool.run(told).await.map_err(broken)?;
    }
    Ok(Prepared { users, instances })
}

fn finish(
    ctx: &mut Ctx,
    module: &Arc<Rls>,
    request: &Request,
    key: &Arc<Key>,
    Prepared { users, instances }: Prepared,
) -> Result<i32, Refusal> {
    let Some(users) = users else {
        return if request.is_first() { Ok(module.to_presence_code) } else { Err(NOT_FOUND) };
    };
    let until = (now_s(ctx) as u32).saturating_add(request.expires);
    let subscription = match request.is_first() {
        true => begin(ctx, module, request, key, until)?,
        false => go_on(ctx, module, request, key, until)?,
    };
    let contact = request.text(Field::LocalContact);
    ctx.state.reply_headers.push(format!("Expires: {}\r\n", request.expires).into());
    ctx.state.reply_headers.push([b"Contact: <", &contact[..], b">\r\n"].concat().into());
    ctx.state.reply_headers.push(Bytes::from_static(b"Require: eventlist\r\n"));
    host::reply::send(ctx, 200, b"OK");
    let whom = match request.expires {
        0 => Whom::Gone(Box::new(subscription.clone())),
        _ => Whom::Stored(subscription.dialog()),
    };
    let news = News { extent: Extent::Full, users: users.clone(), instances };
    notify::post(ctx, module, key, whom, news);
    let expires = i64::from(request.expires);
    for user in distinct(users) {
        wish(ctx, module, request.package.name, &subscription, &user, expires);
    }
    if request.expires == 0 {
        super::upkeep::forget(ctx, module, &subscription.dialog());
    }
    Ok(1)
}

fn distinct(users: Vec<String>) -> Vec<String> {
    let mut seen = ahash::AHashSet::new();
    users.into_iter().filter(|user| seen.insert(user.clone())).collect()
}

fn begin(
    ctx: &mut Ctx,
    module: &Arc<Rls>,
    request: &Request,
    key: &Arc<Key>,
    until: u32,
) -> Result<Subscription, Refusal> {
    let mut texts = request.texts.clone();
    texts[Field::ToTag as usize] = host::reply::own_to_tag(ctx);
    let mut subscription = Subscription::new(&texts, until, Status::Active);
    (subscription.remote_cseq, subscription.socket) = (request.cseq, request.socket);
    if request.expires == 0 {
        subscription.change(Status::Terminated, &Reason::TIMEOUT);
        return Ok(subscription);
    }
    if module.table.key_of(&subscription.dialog()).is_some() {
        host::error!("rls", "there is a subscription with Call-ID and tags of this one already");
        return Err(BROKEN);
    }
    if !module.table.insert(key, subscription.clone()) {
        host::error!("rls", "a subscription was refused: there are {}", module.table.subscriptions());
        return Err(BROKEN);
    }
    Ok(subscription)
}

fn go_on(
    ctx: &mut Ctx,
    module: &Arc<Rls>,
    request: &Request,
    key: &Arc<Key>,
    until: u32,
) -> Result<Subscription, Refusal> {
    let dialog = request.dialog();
    let change = |s: &mut Subscription| {
        if s.remote_cseq >= request.cseq {
            return Err(STALE);
        }
        (s.expires, s.remote_cseq, s.socket) = (until, request.cseq, request.socket);
        s.set(Field::Contact, request.text(Field::Contact));
        s.set(Field::LocalContact, request.text(Field::LocalContact));
        s.touched();
        Ok(s.clone())
    };
    let changed = module.table.with(key, &dialog, change).ok_or(BAD_REQUEST)??;
    if request.expires == 0 {
        super::upkeep::remove(ctx, module, key, &dialog);
    }
    Ok(changed)
}

/// Subscribes to a user of the list, or ends that with 0 seconds.
fn wish(ctx: &mut Ctx, module: &Rls, event: &str, s: &Subscription, user: &str, expires: i64) {
    let (Some(pua), Some(event)) = (&module.pua, event_named(event)) else { return };
    let wish = Wish {
        uri: Bytes::from(user.to_owned()),
        watcher: s.watcher().into(),
        contact: s.bytes(Field::LocalContact),
        event,
        source: Source::Lists,
        expires,
        id: did_of(&s.dialog()),
        proxy: module.presence_server.clone(),
        headers: Bytes::from_static(HEADERS),
    };
    if !pua::subscribe(ctx, pua, wish) {
        host::warn!("rls", "no SUBSCRIBE to {user} could be sent");
    }
}

/// Ends what was begun for a subscription that is over.
pub fn leave(ctx: &mut Ctx, module: &Rls, event: &str, s: &Subscription) {
    let Some(pua) = &module.pua else { return };
    for user in pua.watched(Source::Lists, &did_of(&s.dialog())) {
        wish(ctx, module, event, s, &String::from_utf8_lossy(&user), 0);
    }
}

/// Reads the lists of a watcher again: subscribes to who came, and ends it with who left.
pub fn update_of(call: &mut Call<Rls>, user: &Bytes, domain: &Bytes) {
    let module = call.module.clone();
    let mut theirs: Vec<(Arc<Key>, Dialog)> = Vec::new();
    for shard in 0..crate::presence::table::SHARDS {
        module.table.each_in(shard, |key, s| {
            if s.get(Field::FromUser) == &user[..] && s.get(Field::FromDomain) == &domain[..] {
                theirs.push((key.clone(), s.dialog()));
            }
        });
    }
    for (key, dialog) in theirs {
        let (Some(pool), Some(xcap)) = (module.pool(call.ctx), module.xcap.clone()) else { return };
        let (module, user, domain) = (module.clone(), user.clone(), domain.clone());
        call.ctx.spawn("rls update", host::db::LIMIT_MS, async move {
            let users = documents::users(&xcap, &*pool, (&user, &domain), &key.uri).await;
            Box::new(move |ctx: &mut Ctx| {
                match users {
                    Ok(Some(users)) => changed(ctx, &module, &key, &dialog, distinct(users)),
                    Ok(None) => {
                        host::warn!("rls", "{} is no list any more", String::from_utf8_lossy(&key.uri))
                    }
                    Err(why) => host::error!("rls", "a list was not read: {why}"),
                }
                1
            }) as Finish
        });
    }
}

fn changed(ctx: &mut Ctx, module: &Rls, key: &Key, dialog: &Dialog, users: Vec<String>) {
    let Some(s) = module.table.with(key, dialog, |s| s.clone()) else { return };
    let package = module.presence.as_ref().and_then(|presence| presence.packages.get(key.package));
    let (Some(pua), Some(package)) = (&module.pua, package) else { return };
    let left = i64::from(s.expires) - now_s(ctx);
    if left <= 0 {
        return;
    }
    let known = pua.watched(Source::Lists, &did_of(dialog));
    for user in users.iter().filter(|user| !known.iter().any(|known| known == user.as_bytes())) {
        wish(ctx, module, package.name, &s, user, left);
    }
    for user in known.iter().filter(|known| !users.iter().any(|user| user.as_bytes() == &known[..])) {
        wish(ctx, module, package.name, &s, &String::from_utf8_lossy(user), 0);
    }
}
