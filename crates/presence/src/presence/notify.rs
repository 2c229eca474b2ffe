//! NOTIFYs: who hears what, and their sending, paced, by the worker that owns the subscription.

use super::body::{Ask, Sources};
use super::documents::{Policy, Watcher};
use super::packages::Package;
use super::subscription::{Dialog, Field, NO_SOCKET, Status, Subscription};
use super::table::Key;
use super::{Presence, sql};
use bytes::Bytes;
use host::Ctx;
use host::context::detached::owner;
use host::db::DbError;
use host::tm::Answer;
use host::tm::ua::Side;
use std::collections::VecDeque;
use std::sync::Arc;

/// NOTIFYs sent in one go; other calls have their turn between two.
const BATCH: usize = 32;
/// Pause between two, milliseconds.
const PAUSE_MS: u64 = 1;
/// NOTIFYs of one worker that wait for their turn; further ones are dropped, counted and logged.
pub const MAX_WAITING: usize = 1_000_000;

/// News for all open subscriptions of a key.
pub struct Telling {
    pub key: Arc<Key>,
    pub package: Arc<Package>,
    pub body: Option<Bytes>,
    /// Whole lines.
    pub headers: Bytes,
    pub policy: Policy,
    /// The Contact of who made the news, and needs not hear it.
    pub sender: Bytes,
    /// The subscriptions, where the database is asked for them.
    pub rows: Option<Vec<Subscription>>,
}

/// What one NOTIFY says.
#[derive(Clone)]
pub struct News {
    pub body: Option<Bytes>,
    pub headers: Bytes,
    /// What the watcher may see of the body.
    pub policy: Policy,
    pub sphere: Option<String>,
}

impl News {
    pub fn of(body: Option<Bytes>) -> News {
        News { body, headers: Bytes::new(), policy: Policy::Everybody, sphere: None }
    }
}

/// Who gets a NOTIFY.
pub enum Whom {
    /// A subscription of the table.
    Stored(Dialog),
    /// One that a database has; the table may have it, too.
    Row(Box<Subscription>),
    /// One that has ended, or never began.
    Gone(Box<Subscription>),
}

impl Whom {
    fn call_id(&self) -> Bytes {
        match self {
            Whom::Stored(dialog) => dialog.call_id.clone(),
            Whom::Row(s) | Whom::Gone(s) => s.bytes(Field::CallId),
        }
    }
}

pub struct Notice {
    pub key: Arc<Key>,
    pub package: Arc<Package>,
    pub whom: Whom,
    pub news: Arc<News>,
}

/// Prepares news; `None`: nobody listens.
pub async fn telling(
    sources: &Sources,
    key: &Arc<Key>,
    package: &Arc<Package>,
    ask: Ask<'_>,
    sender: &Bytes,
) -> Result<Option<Telling>, DbError> {
    let module = &sources.module;
    let mut rows = None;
    if module.fallback {
        let found = sources.pool.run(module.tables.open_subscriptions(key, package.name, sender)).await?;
        let found = found.iter().filter_map(|row| sql::read(&sources.shared, &row));
        let open: Vec<_> = found.map(|(.., s)| s).filter(Subscription::is_open).collect();
        if open.is_empty() {
            return Ok(None);
        }
        rows = Some(open);
    } else if !module.table.any_of(key, Subscription::is_open) {
        return Ok(None);
    }
    let mut found = sources.body(key, package, ask).await?;
    if found.body.is_none() && package.aggregate.is_some() {
        found = sources.body(key, package, Ask::ALL).await?;
    }
    let policy = sources.policy(key).await.unwrap_or_else(|why| {
        // Rather nothing than too much.
        host::error!("presence", "rules of {} were not read: {why}", String::from_utf8_lossy(&key.uri));
        found.body = None;
        Policy::Unsaid
    });
    Ok(Some(Telling {
        key: key.clone(),
        package: package.clone(),
        body: found.body,
        headers: found.headers,
        policy,
        sender: sender.clone(),
        rows,
    }))
}

/// Tells everybody who listens.
pub fn tell(ctx: &mut Ctx, module: &Arc<Presence>, telling: Telling) {
    let now = super::now_s(ctx) as u32;
    let sphere = module.sphere_check.then(|| module.presentities.sphere(&telling.key)).flatten();
    let news = News { body: telling.body, headers: telling.headers, policy: telling.policy, sphere };
    let mut whom = Vec::new();
    match telling.rows {
        Some(rows) => whom.extend(rows.into_iter().map(|s| Whom::Row(Box::new(s)))),
        None => module.table.each_of(&telling.key, |s| {
            let made_it = !telling.sender.is_empty() && s.get(Field::Contact) == telling.sender;
            if s.is_open() && s.expires >= now && !made_it {
                whom.push(Whom::Stored(s.dialog()));
            }
        }),
    }
    post(ctx, module, &telling.key, &telling.package, news, whom);
}

/// Hands NOTIFYs to the workers that own their subscriptions.
pub fn post(
    ctx: &mut Ctx,
    module: &Arc<Presence>,
    key: &Arc<Key>,
    package: &Arc<Package>,
    news: News,
    whom: Vec<Whom>,
) {
    let news = Arc::new(news);
    let workers = usize::from(ctx.core.workers);
    let mut heaps: Vec<Vec<Notice>> = (0..workers.max(1)).map(|_| Vec::new()).collect();
    for whom in whom {
        let at = owner(&whom.call_id(), workers);
        heaps[at].push(Notice { key: key.clone(), package: package.clone(), whom, news: news.clone() });
    }
    for (n, heap) in heaps.into_iter().enumerate().filter(|(_, heap)| !heap.is_empty()) {
        let (count, module) = (heap.len(), module.clone());
        if !ctx.on_worker(n, move |ctx| queue(ctx, &module, heap)) {
            dropped(count);
        }
    }
}

fn dropped(count: usize) {
    host::warn!("presence", "{count} NOTIFYs were dropped: too many wait for their turn");
}

/// NOTIFYs of one worker that wait for their turn.
#[derive(Default)]
struct Outbox {
    waiting: VecDeque<Notice>,
    /// Somebody will empty it.
    runs: bool,
}

fn queue(ctx: &mut Ctx, module: &Arc<Presence>, mut heap: Vec<Notice>) {
    let outbox = ctx.local::<Outbox>();
    let room = MAX_WAITING.saturating_sub(outbox.waiting.len());
    if heap.len() > room {
        dropped(heap.len() - room);
        heap.truncate(room);
    }
    outbox.waiting.extend(heap);
    if !std::mem::replace(&mut outbox.runs, true) {
        empty(ctx, module.clone());
    }
}

fn empty(ctx: &mut Ctx, module: Arc<Presence>) {
    for _ in 0..BATCH {
        let Some(notice) = ctx.local::<Outbox>().waiting.pop_front() else {
            ctx.local::<Outbox>().runs = false;
            return;
        };
        send(ctx, &module, notice);
    }
    ctx.after(PAUSE_MS, move |ctx| empty(ctx, module));
}

/// The subscription as its next NOTIFY needs it, before it was counted.
fn counted(ctx: &mut Ctx, module: &Arc<Presence>, notice: &Notice) -> Option<Subscription> {
    let count = |s: &mut Subscription| {
        let before = s.clone();
        (s.local_cseq, s.version) = (s.local_cseq.wrapping_add(1), s.version.wrapping_add(1));
        s.touched();
        before
    };
    match &notice.whom {
        Whom::Gone(s) => Some((**s).clone()),
        Whom::Stored(dialog) => {
            let before = module.table.with(&notice.key, dialog, count)?;
            if module.fallback {
                write_through(ctx, module, notice, &before);
            }
            Some(before)
        }
        Whom::Row(row) => {
            let newest = |s: &mut Subscription| {
                s.local_cseq = s.local_cseq.max(row.local_cseq);
                s.version = s.version.max(row.version);
                count(s)
            };
            let before =
                module.table.with(&notice.key, &row.dialog(), newest).unwrap_or_else(|| (**row).clone());
            write_through(ctx, module, notice, &before);
            Some(before)
        }
    }
}

/// Servers that share the database count together.
fn write_through(ctx: &mut Ctx, module: &Arc<Presence>, notice: &Notice, before: &Subscription) {
    let mut after = before.clone();
    (after.local_cseq, after.version) = (before.local_cseq.wrapping_add(1), before.version.wrapping_add(1));
    let query = module.tables.update_subscription(&notice.key, notice.package.name, &after);
    super::write(ctx, module, query);
}

fn send(ctx: &mut Ctx, module: &Arc<Presence>, notice: Notice) {
    let Some(mut s) = counted(ctx, module, &notice) else { return };
    let now = super::now_s(ctx);
    let left = i64::from(s.expires) - now;
    let body = shown(&notice, &s, now);
    if left <= 0 {
        s.change(Status::Terminated, &super::subscription::Reason::TIMEOUT);
    }
    let mut side = side_of(&s);
    let mut request = side.request("NOTIFY");
    let offset = i64::from(module.expires_offset);
    let state = match s.status {
        Status::Terminated => format!("terminated;reason={}", s.text(Field::Reason)),
        status => format!("{};expires={}", status.as_str(), (left - offset).max(0)),
    };
    let id = if s.get(Field::EventId).is_empty() {
        String::new()
    } else {
        format!(";id={}", s.text(Field::EventId))
    };
    let mut head = format!(
        "Event: {}{id}\r\nContact: <{}>\r\nSubscription-State: {state}\r\n",
        notice.package.name,
        s.text(Field::LocalContact)
    );
    if body.is_some() && !notice.package.content_type.is_empty() {
        head += &format!("Content-Type: {}\r\n", notice.package.content_type);
    }
    request.headers = [&request.headers[..], &notice.news.headers, head.as_bytes()].concat().into();
    request.body = body.unwrap_or_default();
    let (module, dialog, size) = (module.clone(), s.dialog(), request.body.len());
    let answered = move |ctx: &mut Ctx, answer: Answer| {
        if answer.reply.is_none() {
            undelivered(ctx, &module, &notice, answer.status, size);
        }
        answered(ctx, &module, &notice, dialog, &answer);
    };
    host::tm::send_new(ctx, request, Some(Box::new(answered)));
}

/// Our side of a subscription's dialog, before its next NOTIFY.
pub fn side_of(s: &Subscription) -> Side {
    let routes = sip::NameAddr::parse_list(&s.bytes(Field::RecordRoute)).unwrap_or_default();
    let record_route = s.bytes(Field::RecordRoute);
    let contact = s.bytes(Field::Contact);
    Side {
        call_id: s.bytes(Field::CallId),
        local: format!("<{}>;tag={}", s.watched(), s.text(Field::ToTag)).into(),
        remote: format!("<{}>;tag={}", s.watcher(), s.text(Field::FromTag)).into(),
        target: if contact.is_empty() { s.watcher().into() } else { contact },
        routes: routes
            .iter()
            .map(|r| record_route.slice(r.whole.start as usize..r.whole.end as usize))
            .collect(),
        cseq: s.local_cseq,
        socket: (s.socket != NO_SOCKET).then_some(s.socket),
    }
}

/// The body that this watcher gets.
fn shown(notice: &Notice, s: &Subscription, now: i64) -> Option<Bytes> {
    let is_held_back = s.get(Field::Reason) == b"polite-block";
    if is_held_back || matches!(s.status, Status::Pending | Status::Terminated) {
        return None;
    }
    let body = notice.news.body.as_ref()?;
    let watcher = Watcher {
        user: s.bytes(Field::FromUser),
        domain: s.bytes(Field::FromDomain),
        sphere: notice.news.sphere.clone(),
        now,
    };
    let body = notice.news.policy.shown(&watcher, body);
    Some(notice.package.numbered.and_then(|number| number(&body, s.version)).unwrap_or(body))
}

/// Nobody answered: the watcher is away, its transport cannot be reached, or the body is larger than a datagram.
fn undelivered(ctx: &mut Ctx, module: &Presence, notice: &Notice, status: u16, size: usize) {
    if let Some(count) = module.undelivered.get() {
        count.up();
    }
    let uri = String::from_utf8_lossy(&notice.key.uri);
    let hint = match size {
        0..DATAGRAM => "",
        _ => ": too much for a datagram, its watcher should subscribe over TCP",
    };
    let event = notice.package.name;
    ctx.note_failure(
        "presence",
        format_args!("a NOTIFY of {event} of {uri}, {size} bytes, got no answer ({status}){hint}"),
    );
}

/// From here on a body does not fit into a datagram with its head, bytes.
const DATAGRAM: usize = 64_000;
/// A server that was killed may have counted further than the database knows, so far at most.
const SKIPPED: u32 = 1000;

/// A watcher that knows of no subscription, or is gone, has none any more. One that takes 500 for an old number after a
/// start of the server is told again with a newer one (RFC 3261 §12.2.2).
fn answered(ctx: &mut Ctx, module: &Arc<Presence>, notice: &Notice, dialog: Dialog, answer: &Answer) {
    let (key, package) = (&notice.key, &notice.package);
    let is_over = answer.status == 481 || (answer.status == 408 && module.end_on_timeout);
    if is_over {
        module.table.remove(key, &dialog);
        let query = module.tables.delete_subscription(key, package.name, &dialog.to_tag);
        return super::write(ctx, module, query);
    }
    let was_restored = module.table.with(key, &dialog, |s| {
        let was_restored = std::mem::take(&mut s.restored);
        if was_restored && answer.status == 500 {
            s.local_cseq = s.local_cseq.saturating_add(SKIPPED);
            s.version = s.version.saturating_add(SKIPPED);
        }
        was_restored
    });
    if was_restored == Some(true) && answer.status == 500 {
        post(ctx, module, key, package, (*notice.news).clone(), vec![Whom::Stored(dialog)]);
    }
}
