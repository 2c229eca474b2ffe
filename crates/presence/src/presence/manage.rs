//! Management: lists, refreshes after a change of documents or tables, and what is published, as events.

use super::body::{Ask, Sources};
use super::documents::Policy;
use super::notify::{self, News, Telling, Whom};
use super::packages::{Event, Package};
use super::subscription::{Field, Reason, Status, Subscription};
use super::table::{Key, SHARDS};
use super::winfo::{self, List, Seen};
use super::{Presence, upkeep};
use bytes::Bytes;
use host::db::{DbError, LIMIT_MS, Op, Query};
use host::events::EventParams;
use host::mi::{MiAnswer, MiError, MiParams, MiResult};
use host::{Call, Ctx, Finish, Registrar, Value};
use modules::sipmsgops::headers::glob;
use script::posix;
use serde_json::json;
use std::sync::Arc;

pub fn register(m: &mut Registrar<Presence>) {
    m.command_late(
        "presence:refresh_watchers refresh_watchers refreshWatchers",
        "tells watchers after a change, of type 0 of who may watch, else of what is shown",
        refresh,
    )
    .takes("presentity_uri event refresh_type");
    m.command_late("presence:cleanup cleanup", "removes what is over now", cleanup).takes("");
    m.command("presence:phtable_list pres_phtable_list", "users that have published something", published)
        .takes("");
    m.command(
        "presence:subs_phtable_list subs_phtable_list",
        "subscriptions, those whose URIs match two wildcards",
        subscriptions,
    )
    .takes("[from] [to]");
    m.command_late("presence:expose pres_expose", "raises E_PRESENCE_EXPOSED for what is published", expose)
        .takes("event [filter]");
}

fn published(call: &mut Call<Presence>, _: &MiParams) -> MiResult {
    let module = call.module.clone();
    let mut all = Vec::new();
    module.presentities.each(|key, state| {
        let number = module.packages.get(key.package).map_or(0, |p| p.number());
        let mut entry = serde_json::Map::new();
        entry.insert("pres_uri".into(), json!(String::from_utf8_lossy(&key.uri)));
        entry.insert("event".into(), json!(number));
        entry.insert("etag_count".into(), json!(state.count));
        if let Some(sphere) = &state.sphere {
            entry.insert("sphere".into(), json!(sphere));
        }
        entry.insert("etag".into(), json!(String::from_utf8_lossy(&state.etag)));
        all.push(entry.into());
    });
    Ok(serde_json::Value::Array(all))
}

fn subscriptions(call: &mut Call<Presence>, params: &MiParams) -> MiResult {
    let module = call.module.clone();
    let wanted = match (params.text("from", 0), params.text("to", 1)) {
        (None, None) => None,
        (Some(from), Some(to)) => Some((from, to)),
        _ => return Err(MiError::params("from and to come together")),
    };
    let mut all = Vec::new();
    for shard in 0..SHARDS {
        module.table.each_in(shard, |key, s| {
            if let Some((from, to)) = &wanted
                && !(glob(from.as_bytes(), s.watcher().as_bytes())
                    && glob(to.as_bytes(), s.watched().as_bytes()))
            {
                return;
            }
            all.push(shown(&module, key, s));
        });
    }
    Ok(serde_json::Value::Array(all))
}

fn shown(module: &Presence, key: &Key, s: &Subscription) -> serde_json::Value {
    let package = module.packages.get(key.package);
    let mut entry = json!({
        "pres_uri": String::from_utf8_lossy(&key.uri),
        "event": package.map_or("", |p| p.name),
        "expires": host::clock::sql(i64::from(s.expires)),
        "db_flag": s.unwritten as u8,
        "version": s.version,
        "to_user": s.text(Field::ToUser),
        "to_domain": s.text(Field::ToDomain),
        "to_tag": s.text(Field::ToTag),
        "from_user": s.text(Field::FromUser),
        "from_domain": s.text(Field::FromDomain),
        "from_tag": s.text(Field::FromTag),
        "contact": s.text(Field::Contact),
    });
    let route =
        sip::NameAddr::parse_list(&s.bytes(Field::RecordRoute)).and_then(|all| all.into_iter().next());
    if let Some(route) = route {
        entry["next_hop"] = json!(String::from_utf8_lossy(&route.uri));
    }
    entry["callid"] = json!(s.text(Field::CallId));
    entry["local_cseq"] = json!(s.local_cseq);
    entry["remote_cseq"] = json!(s.remote_cseq);
    entry
}

fn cleanup(call: &mut Call<Presence>, _: &MiParams, answer: MiAnswer) {
    let module = call.module.clone();
    upkeep::forget_waiting(call.ctx, &module);
    upkeep::clean(call.ctx, &module, 0, |_| answer.give(Ok(json!("OK"))));
}

fn package_of(module: &Presence, event: &str) -> Option<(u8, Arc<Package>)> {
    Event::parse(&Bytes::copy_from_slice(event.as_bytes())).and_then(|event| module.packages.of_event(&event))
}

fn expose(call: &mut Call<Presence>, params: &MiParams, answer: MiAnswer) {
    let module = call.module.clone();
    let event = match params.need("event", 0) {
        Ok(event) if event.is_empty() => return answer.give(Err(MiError::new(404, "Invalid event"))),
        Ok(event) => event,
        Err(error) => return answer.give(Err(error)),
    };
    let (Some((_, package)), Some(db)) = (package_of(&module, &event), &module.db) else {
        return answer.give(Err(MiError::new(404, "unknown event")));
    };
    let filter =
        match params.text("filter", 1).map(|f| posix::compile_lines(f.as_bytes(), posix::Case::Sensitive)) {
            Some(Err(error)) => return answer.give(Err(MiError::params(format!("filter: {error}")))),
            filter => filter.and_then(Result::ok),
        };
    let now = super::now_s(call.ctx);
    let query = Query::select(&module.tables.presentity)
        .columns(["username", "domain", "expires", "etag", "body"])
        .filter("expires", Op::Gt, now)
        .eq("event", package.name)
        .order("id");
    db.spawn(call.ctx, "expose", query, move |ctx, rows| {
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => return answer.give(Err(MiError::internal(error.to_string()))),
        };
        for row in rows.iter() {
            let (user, domain) = (row.text(0).unwrap_or_default(), row.text(1).unwrap_or_default());
            let uri = super::subscription::uri_of(&user, &domain);
            let is_wanted = |f: &posix::Pattern| f.is_match(&user) || f.is_match(uri.as_bytes());
            if !filter.as_ref().is_none_or(is_wanted) {
                continue;
            }
            let text = |at| row.text(at).filter(|t| !t.is_empty()).map_or(Value::Null, Value::Str);
            let params: EventParams = [
                ("user", Value::Str(user)),
                ("domain", Value::Str(domain)),
                ("event", Value::from(package.name.to_string())),
                ("expires", Value::Int(row.int(2).unwrap_or(0))),
                ("old_etag", Value::Null),
                ("etag", text(3)),
                ("body", text(4)),
            ]
            .into_iter()
            .collect();
            host::events::raise(ctx, super::EXPOSED, params);
        }
        answer.give(Ok(json!("OK")));
    });
}

fn refresh(call: &mut Call<Presence>, params: &MiParams, answer: MiAnswer) {
    let module = call.module.clone();
    let read = || {
        let uri = params.need("presentity_uri", 0)?;
        let event = params.need("event", 1)?;
        let kind = params.int("refresh_type", 2)?;
        let kind = kind.ok_or_else(|| MiError::params("missing parameter: refresh_type"))?;
        if uri.is_empty() {
            return Err(MiError::new(404, "Empty presentity URI"));
        }
        if event.is_empty() {
            return Err(MiError::new(400, "Empty event parameter"));
        }
        let (number, package) =
            package_of(&module, &event).ok_or_else(|| MiError::internal("no such event package"))?;
        Ok((Arc::new(Key { uri: uri.into(), package: number }), package, kind))
    };
    let (key, package, kind) = match read() {
        Ok(read) => read,
        Err(error) => return answer.give(Err(error)),
    };
    let Some(sources) = Sources::open(&module, call.ctx) else {
        return answer.give(Err(MiError::internal("there is no database")));
    };
    refresh_watchers(call.ctx, sources, key, package, kind == 0, move |_, done| {
        answer.give(done.map(|()| json!("OK")).map_err(MiError::internal));
    });
}

/// What is told after a refresh.
struct Refreshed {
    telling: Option<Telling>,
    /// Subscriptions that are in another state now.
    affected: Vec<Subscription>,
    news: News,
}

/// Tells watchers after documents (`rules`) or tables have changed.
pub fn refresh_watchers(
    ctx: &mut Ctx,
    sources: Sources,
    key: Arc<Key>,
    package: Arc<Package>,
    rules: bool,
    done: impl FnOnce(&mut Ctx, Result<(), String>) + 'static,
) {
    ctx.spawn("refresh_watchers", LIMIT_MS, async move {
        let turn = sources.module.turns.take(&key).await;
        let refreshed = match rules {
            true => decide_anew(&sources, &key, &package).await,
            false => show_anew(&sources, &key, &package).await.map_err(|error| error.to_string()),
        };
        Box::new(move |ctx: &mut Ctx| {
            let told = refreshed.map(|refreshed| tell(ctx, &sources.module, &key, &package, refreshed));
            drop(turn);
            done(ctx, told);
            1
        }) as Finish
    });
}

fn tell(ctx: &mut Ctx, module: &Arc<Presence>, key: &Arc<Key>, package: &Arc<Package>, refreshed: Refreshed) {
    if let Some(telling) = refreshed.telling {
        notify::tell(ctx, module, telling);
    }
    if refreshed.affected.is_empty() {
        return;
    }
    let seen: Vec<Seen> = refreshed.affected.iter().map(Seen::of).collect();
    let whom = refreshed.affected.into_iter().map(|s| match s.status {
        Status::Terminated => {
            let to_tag = s.bytes(Field::ToTag);
            super::write(ctx, module, module.tables.delete_subscription(key, package.name, &to_tag));
            Whom::Gone(Box::new(s))
        }
        _ => Whom::Stored(s.dialog()),
    });
    let whom = whom.collect();
    notify::post(ctx, module, key, package, refreshed.news, whom);
    winfo::tell(ctx, module, key, package, List::Partial, &seen);
}

async fn show_anew(sources: &Sources, key: &Arc<Key>, package: &Arc<Package>) -> Result<Refreshed, DbError> {
    let mut telling = notify::telling(sources, key, package, Ask::ALL, &Bytes::new()).await?;
    if let (true, Some(telling)) = (package.is_winfo(), &mut telling)
        && let Some((number, watched)) = sources.module.packages.peer(package)
    {
        let watched_key = Key { uri: key.uri.clone(), package: number };
        let all = winfo::watchers(sources, &watched_key, &watched).await?;
        let uri = String::from_utf8_lossy(&key.uri);
        telling.body = Some(winfo::body(&uri, watched.name, List::Full, &all));
    }
    Ok(Refreshed { telling, affected: Vec::new(), news: News::of(None) })
}

/// Decides about all watchers again.
async fn decide_anew(sources: &Sources, key: &Arc<Key>, package: &Arc<Package>) -> Result<Refreshed, String> {
    let module = &sources.module;
    let failed = |error: DbError| error.to_string();
    let policy = match package.documents.is_some() {
        true => sources.policy(key).await?,
        false => return Err(format!("event {} asks nobody", package.name)),
    };
    if !matches!(policy, Policy::Rules(_)) {
        return Err("the user has no rules".to_string());
    }
    let rows = sources.pool.run(module.tables.known_watchers(key, package.name)).await.map_err(failed)?;
    let mut affected = Vec::new();
    for row in rows.iter() {
        let (user, domain) = (row.text(2).unwrap_or_default(), row.text(3).unwrap_or_default());
        let Some(before) = row.int(0).and_then(Status::of_number) else { continue };
        let reason_before = Reason(row.text(1).unwrap_or_default());
        let (status, reason) = policy.decide(&sources.watcher(key, &user, &domain), before);
        if (status, &reason) == (before, &reason_before) {
            continue;
        }
        let watcher = (&user, &domain);
        let query = module.tables.change_watcher(key, package.name, watcher, (status, &reason));
        sources.pool.run(query).await.map_err(failed)?;
        let is_theirs =
            |s: &Subscription| s.get(Field::FromUser) == user && s.get(Field::FromDomain) == domain;
        let mut theirs = Vec::new();
        let change = |s: &mut Subscription| {
            s.change(status, &reason);
            s.touched();
        };
        if status == Status::Terminated {
            theirs = module.table.take(key, |s| is_theirs(s));
            theirs.iter_mut().for_each(change);
        } else {
            module.table.each_of(key, |s| {
                if is_theirs(s) {
                    change(s);
                    theirs.push(s.clone());
                }
            });
        }
        if status == Status::Terminated && !theirs.is_empty() {
            // Whoever comes again is decided about again.
            let forget = (Status::Terminated, &Reason::DEACTIVATED);
            let query = module.tables.change_watcher(key, package.name, watcher, forget);
            sources.pool.run(query).await.map_err(failed)?;
        }
        affected.extend(theirs);
    }
    let mut news = News::of(None);
    if affected.iter().any(Subscription::is_open) {
        let found = sources.body(key, package, Ask::ALL).await.map_err(failed)?;
        (news.body, news.headers) = (found.body, found.headers);
    }
    news.sphere = module.sphere_check.then(|| module.presentities.sphere(key)).flatten();
    news.policy = policy;
    Ok(Refreshed { telling: None, affected, news })
}
