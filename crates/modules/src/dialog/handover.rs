//! Dialogs with a sharing tag (`set_dlg_sharing_tag`): their state is also in the key-value store of `cachedb_url`.
//!
//! ```text
//!  dlg_state_<did>           the dialog, as it stands in the database, and what the table has no columns for
//!  dlg_tag_<tag>_<shard>     a map whose fields are the identities of the dialogs of a tag
//! ```
//! The node on which the tag is active acts for them. Another node that gets a request inside one reads it by the
//! identity in the Route or Request-URI; a node whose tag becomes active reads all of them, their timers, profiles
//! and values. Who does not act for a dialog any more, or finds that it is not in the store any more, forgets it
//! without telling anybody.

use super::api::{self, Event};
use super::cell::{Data, Text};
use super::db::{Rows, take_in};
use super::matching;
use super::table::{self, Due, Key};
use super::{Did, Dlg, MatchMode, State, link, within};
use bytes::Bytes;
use host::cachedb::{CacheError, Store};
use host::call::Finish;
use host::db::DbValue;
use host::{Ctx, Outcome};
use serde_json::{Value as Json, json};
use std::rc::Rc;
use std::sync::Arc;

/// Maps that hold the identities of a tag's dialogs.
const SHARDS: u32 = 64;
/// Dialogs that are written or read at once.
const BATCH: usize = 100;
/// Milliseconds that changes gather before they are written.
const GATHER_MS: u64 = 20;
/// Pause after a write that failed, in milliseconds.
const RETRY_MS: u64 = 1_000;
const LIMIT_MS: u64 = 20_000;
const LOAD_LIMIT_MS: u64 = 600_000;
/// Seconds that the store keeps a dialog longer than it may last.
const GRACE_S: u64 = 60;

fn key_of(did: Did) -> Bytes {
    Bytes::from(format!("dlg_state_{did}"))
}

fn index_of(tag: &[u8], shard: u32) -> Bytes {
    [b"dlg_tag_", tag, format!("_{shard}").as_bytes()].concat().into()
}

fn shard_of(did: Did) -> u32 {
    did.id % SHARDS
}

/// What this worker has to write.
#[derive(Default)]
struct Writing {
    busy: bool,
    soon: bool,
}

/// One change of the store.
enum Write {
    Put { did: Did, tag: Text, text: Bytes, seconds: u32 },
    Gone { did: Did, tag: Text },
}

pub fn start(ctx: &mut Ctx, module: &Arc<Dlg>) {
    if module.shared.cache.is_none() {
        return;
    }
    table::of(ctx).shares = true;
    if ctx.core.worker != 0 {
        return;
    }
    let of_change = module.clone();
    crate::clusterer::listen(
        ctx,
        Rc::new(move |ctx: &mut Ctx, tag: &str, active| {
            if active {
                take_over(ctx, &of_change, tag);
            }
        }),
    );
    for tag in crate::clusterer::active_tags(ctx) {
        take_over(ctx, module, &tag);
    }
}

/// A shared dialog has changed.
pub fn soon(ctx: &mut Ctx) {
    let writing = ctx.local::<Writing>();
    if writing.busy || std::mem::replace(&mut writing.soon, true) {
        return;
    }
    ctx.after(GATHER_MS, |ctx| {
        ctx.local::<Writing>().soon = false;
        write(ctx);
    });
}

fn write(ctx: &mut Ctx) {
    let Some(module) = api::module(ctx) else { return };
    let Some(cache) = module.shared.cache.clone() else { return };
    let rows = Rows::new(ctx, &module);
    let unix = ctx.core.wall_us / 1_000_000;
    let (now, table) = (ctx.core.now, table::of(ctx));
    let (keys, gone) = table.take_unshared(BATCH);
    let mut writes: Vec<Write> = gone.into_iter().map(|(did, tag)| Write::Gone { did, tag }).collect();
    for key in &keys {
        let Some(dialog) = table.get_mut(*key) else { continue };
        let Some(tag) = dialog.tag.clone() else { continue };
        if dialog.state.is_answered() {
            dialog.shared = true;
            let left = dialog.ends.map_or(u64::from(dialog.lifetime) * 1000, |at| at.0.saturating_sub(now.0));
            let seconds = (left / 1000 + GRACE_S).min(u32::MAX.into()) as u32;
            let text = encode(&rows, &dialog.data, unix);
            writes.push(Write::Put { did: dialog.did, tag, text, seconds });
        } else if dialog.state == State::Ended && dialog.shared {
            dialog.shared = false;
            writes.push(Write::Gone { did: dialog.did, tag });
        }
    }
    if writes.is_empty() {
        return;
    }
    ctx.local::<Writing>().busy = true;
    let store = cache.on(ctx);
    ctx.spawn("dialog share", LIMIT_MS, async move {
        let all = futures_util::future::join_all(writes.iter().map(|write| send(&*store, write))).await;
        let failed = all.into_iter().find_map(Result::err);
        Box::new(move |ctx: &mut Ctx| {
            ctx.local::<Writing>().busy = false;
            match failed {
                Some(error) => {
                    host::error!("dialog", "other nodes do not know of all dialogs: {error}");
                    table::of(ctx).not_shared(keys, writes_gone(writes));
                    ctx.after(RETRY_MS, soon);
                }
                None if table::of(ctx).has_unshared() => soon(ctx),
                None => {}
            }
            1
        }) as Finish
    });
}

fn writes_gone(writes: Vec<Write>) -> Vec<(Did, Text)> {
    let gone = |write| match write {
        Write::Gone { did, tag } => Some((did, tag)),
        Write::Put { .. } => None,
    };
    writes.into_iter().filter_map(gone).collect()
}

async fn send(store: &dyn Store, write: &Write) -> Result<(), CacheError> {
    match write {
        Write::Put { did, tag, text, seconds } => {
            store.store(key_of(*did), text.clone(), *seconds).get().await?;
            let field = (Bytes::from(did.to_string()), Bytes::from_static(b"1"));
            store.map_change(index_of(tag, shard_of(*did)), vec![field], Vec::new(), *seconds).get().await
        }
        Write::Gone { did, tag } => {
            store.remove(key_of(*did)).get().await?;
            let field = Bytes::from(did.to_string());
            store.map_change(index_of(tag, shard_of(*did)), Vec::new(), vec![field], 1).get().await
        }
    }
}

/// Any bytes as a text of JSON, and back.
fn wide(bytes: &[u8]) -> Json {
    bytes.iter().map(|b| char::from(*b)).collect::<String>().into()
}

fn narrow(text: &Json) -> Option<Vec<u8>> {
    text.as_str()?.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

fn encode(rows: &Rows, d: &Data, unix: u64) -> Bytes {
    let cell = |value: &DbValue| match value {
        DbValue::Null => Json::Null,
        DbValue::Int(n) => (*n).into(),
        other => wide(&other.text().unwrap_or_default()),
    };
    let cells: Vec<Json> = rows.cells(d, true).iter().map(cell).collect();
    let optional = |text: Option<&Text>| text.map_or(Json::Null, |text| wide(text));
    let callee = d.callee();
    let texts = [
        d.caller.body_in.as_ref(),
        d.caller.changed.body_out.as_ref(),
        d.caller.changed.shown_contact.as_ref(),
        callee.and_then(|leg| leg.body_in.as_ref()),
        callee.and_then(|leg| leg.changed.body_out.as_ref()),
        callee.and_then(|leg| leg.changed.shown_contact.as_ref()),
    ];
    json!({
        "row": cells,
        "tag": optional(d.tag.as_ref()),
        "delay": d.delay,
        "pings": [d.options.interval, d.reinvites.interval],
        "texts": texts.map(optional),
        "at": unix,
    })
    .to_string()
    .into()
}

fn decode(rows: &Rows, did: Did, text: &[u8]) -> Option<Data> {
    let json: Json = serde_json::from_slice(text).ok()?;
    let cell = |value: &Json| match value {
        Json::Number(n) => DbValue::Int(n.as_i64().unwrap_or(0)),
        Json::String(_) => narrow(value).map_or(DbValue::Null, |text| DbValue::Text(text.into())),
        _ => DbValue::Null,
    };
    let mut cells = vec![DbValue::Int(did.number())];
    cells.extend(json["row"].as_array()?.iter().map(cell));
    let mut d = rows.read_cells(cells)?;
    let boxed = |value: &Json| narrow(value).map(Vec::into_boxed_slice);
    d.tag = boxed(&json["tag"]);
    d.delay = json["delay"].as_u64().and_then(|n| u32::try_from(n).ok());
    let seconds = |value: &Json| value.as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    d.options.interval = seconds(&json["pings"][0]);
    d.reinvites.interval = seconds(&json["pings"][1]);
    let texts = &json["texts"];
    d.caller.body_in = boxed(&texts[0]);
    d.caller.changed.body_out = boxed(&texts[1]);
    d.caller.changed.shown_contact = boxed(&texts[2]);
    if let Some(leg) = d.callees.first_mut() {
        leg.body_in = boxed(&texts[3]);
        leg.changed.body_out = boxed(&texts[4]);
        leg.changed.shown_contact = boxed(&texts[5]);
    }
    d.shared = true;
    d.settle();
    Some(d)
}

/// Finds the dialog of the current request here, else in the store; `finish` follows.
pub fn match_request(
    ctx: &mut Ctx,
    module: &Arc<Dlg>,
    mode: MatchMode,
    finish: impl FnOnce(&mut Ctx) -> i32 + 'static,
) -> Outcome {
    within::match_request(ctx, module, mode);
    let wanted = module.shared.cache.clone().zip(elsewhere(ctx, module, mode));
    let Some((cache, did)) = wanted else { return finish(ctx).into() };
    let module = module.clone();
    let detail = Bytes::from(did.to_string());
    let fetch = move |store: &dyn Store| store.fetch(key_of(did));
    cache.suspend(ctx, "dialog of another node", detail, fetch, move |ctx, found| {
        match found {
            Ok(Some(text)) => {
                let rows = Rows::new(ctx, &module);
                if let Some(data) = decode(&rows, did, &text) {
                    take_in(ctx, &module, data);
                    within::match_request(ctx, &module, mode);
                }
            }
            Ok(None) => {}
            Err(error) => host::error!("dialog", "dialog {did} of another node cannot be read: {error}"),
        }
        finish(ctx)
    })
}

/// The identity that the current request brings, when no dialog here has it.
fn elsewhere(ctx: &mut Ctx, module: &Dlg, mode: MatchMode) -> Option<Did> {
    let has_tag = ctx.state.msg.to_tag().is_some_and(|tag| !tag.is_empty());
    if mode == MatchMode::DidNone || !has_tag || link::own(ctx).is_some() {
        return None;
    }
    let did = Did::parse(&matching::identity(ctx, module)?)?;
    table::of(ctx).by_did(did).is_none().then_some(did)
}

/// A tag is active here: its dialogs are this node's.
fn take_over(ctx: &mut Ctx, module: &Arc<Dlg>, tag: &str) {
    let Some(cache) = module.shared.cache.clone() else { return };
    let (store, rows) = (cache.on(ctx), Rows::new(ctx, module));
    let (module, tag) = (module.clone(), tag.to_string());
    ctx.spawn("dialog take over", LOAD_LIMIT_MS, async move {
        let found = read_all(&*store, &rows, &tag).await;
        Box::new(move |ctx: &mut Ctx| {
            match found {
                Ok(found) => {
                    host::notice!("dialog", "{} dialogs of tag {tag} are this node's now", found.len());
                    super::db::distribute(ctx, &module, found);
                }
                Err(error) => host::error!("dialog", "the dialogs of tag {tag} cannot be read: {error}"),
            }
            1
        }) as Finish
    });
}

async fn read_all(store: &dyn Store, rows: &Rows, tag: &str) -> Result<Vec<Data>, CacheError> {
    let mut all = Vec::new();
    // Dialogs may name the tag with or without its cluster.
    for name in [Some(tag), tag.split_once('/').map(|(name, _)| name)].into_iter().flatten() {
        for shard in 0..SHARDS {
            let fields = store.map_get(index_of(name.as_bytes(), shard)).get().await?;
            let dids: Vec<Did> = fields.iter().filter_map(|(did, _)| Did::parse(did)).collect();
            for batch in dids.chunks(BATCH) {
                let texts = batch.iter().map(|did| store.fetch(key_of(*did)).get());
                let texts = futures_util::future::join_all(texts).await;
                for (did, text) in batch.iter().zip(texts) {
                    let data = text?.and_then(|text| decode(rows, *did, &text));
                    all.extend(data.filter(|d| d.tag.as_deref() == Some(name.as_bytes())));
                }
            }
        }
    }
    Ok(all)
}

/// Something of a dialog is due: `then`, unless it is another node's or was ended by one. Such a one is forgotten.
pub fn if_ours(ctx: &mut Ctx, module: &Arc<Dlg>, key: Key, due: Due, then: impl FnOnce(&mut Ctx) + 'static) {
    let Some(dialog) = table::of(ctx).get(key) else { return };
    let (shared, did) = (dialog.shared, dialog.did);
    let tagged = dialog.tag.is_some() && dialog.state.is_answered();
    if tagged && due == Due::End && !super::acts_for(ctx, key) {
        return forget_quietly(ctx, module, key);
    }
    let Some(cache) = module.shared.cache.clone().filter(|_| shared && tagged) else { return then(ctx) };
    let module = module.clone();
    let fetch = move |store: &dyn Store| store.fetch(key_of(did));
    cache.spawn(ctx, "dialog of this node", fetch, move |ctx, found| match found {
        Ok(None) => forget_quietly(ctx, &module, key),
        // Without the store every node acts for what it knows.
        Ok(Some(_)) | Err(_) => then(ctx),
    });
}

/// Another node leads this dialog, or led it to its end: what is shared has been changed there.
fn forget_quietly(ctx: &mut Ctx, module: &Dlg, key: Key) {
    let Some(dialog) = table::of(ctx).get_mut(key) else { return };
    (dialog.shared, dialog.stored) = (false, false);
    let answered = dialog.state.is_answered();
    for membership in std::mem::take(&mut dialog.memberships) {
        module.profiles.count_out(&membership);
    }
    if answered {
        module.counts.active.down();
    }
    api::tell(ctx, key, Event::Gone, None);
    table::of(ctx).remove(key);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_pass_through_json() {
        let all: Vec<u8> = (0..=255).collect();
        let text = serde_json::to_string(&wide(&all)).expect("a text");
        assert_eq!(narrow(&serde_json::from_str(&text).expect("the text")), Some(all));
        assert_eq!(narrow(&Json::Null), None);
    }
}
