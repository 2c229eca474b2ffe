//! handle_subscribe (RFC 6665): a subscription begins, is refreshed, or ends; its watcher hears at once.

use super::body::{Ask, Sources};
use super::documents::Policy;
use super::notify::{self, News, Whom};
use super::packages::{BAD_EVENT, BAD_REQUEST, BROKEN, Event, NO_SUBSCRIPTION, Package, Refusal};
use super::subscription::{Dialog, Field, Reason, Status, Subscription, Texts, Unwritten, uri_of};
use super::table::Key;
use super::winfo::{self, List, Seen};
use super::{Presence, sql};
use bytes::Bytes;
use host::{Call, Ctx, Finish, Int, Outcome, Suspension, Text};
use sip::{HeaderName, Message, NameAddr, Uri};
use std::sync::Arc;

/// A SUBSCRIBE, read.
pub struct Request {
    pub package: Arc<Package>,
    pub number: u8,
    /// Seconds, without the offset.
    pub expires: u32,
    pub cseq: u32,
    /// By [`Field`]; the To tag is empty in a first one.
    pub texts: Texts,
    /// The user it watches, where the request says so.
    pub uri: Option<Bytes>,
    /// The script lets it in.
    forced: bool,
    pub socket: u16,
}

/// What a module says of the subscriptions that it takes.
pub struct Terms<'a> {
    /// Seconds.
    pub max_expires: u32,
    pub contact_user: &'a str,
    /// Our address for watchers; `None`: where their request came to.
    pub address: Option<&'a str>,
}

impl Request {
    pub fn text(&self, field: Field) -> &Bytes {
        &self.texts[field as usize]
    }

    pub fn is_first(&self) -> bool {
        self.text(Field::ToTag).is_empty()
    }

    pub fn dialog(&self) -> Dialog {
        let [call_id, to_tag, from_tag] =
            [Field::CallId, Field::ToTag, Field::FromTag].map(|field| self.text(field).clone());
        Dialog { call_id, to_tag, from_tag }
    }
}

/// What is known when the waiting is over.
struct Prepared {
    key: Arc<Key>,
    status: Status,
    reason: Reason,
    /// A subscription that only the database has.
    row: Option<Subscription>,
    policy: Policy,
    news: News,
    /// All watchers, for those who watch them; where a subscription ends.
    watchers: Option<Vec<Seen>>,
}

/// handle_subscribe([force_active], [sharing_tag]): 1 answered, -1 refused.
pub fn handle(call: &mut Call<Presence>, force: Option<Int>, _tag: Option<Text>) -> Outcome {
    let module = call.module.clone();
    let Some(sources) = Sources::open(&module, call.ctx) else {
        host::complain!(call.ctx, "presence", "handle_subscribe needs db_url");
        return (-1).into();
    };
    let terms = Terms {
        max_expires: module.max_expires_subscribe,
        contact_user: &module.contact_user,
        address: module.server_address.as_deref(),
    };
    let request = match read(&module, call.ctx, &terms) {
        Ok(request) => Request { forced: force.is_some_and(|f| f.0 == 1), ..request },
        Err(refusal) => return super::refuse(call.ctx, &module, refusal).into(),
    };
    if let Some(admits) = &request.package.admits_subscribe {
        let watched =
            request.uri.clone().or_else(|| Some(module.table.key_of(&request.dialog())?.uri.clone()));
        if let Some(Err(refusal)) = watched.map(|uri| admits(call.ctx, &uri, &request)) {
            return super::refuse(call.ctx, &module, refusal).into();
        }
    }
    let mut loaded = module.loaded.subscribe();
    let detail = request.text(Field::CallId).clone();
    Suspension::future("handle_subscribe", async move {
        let mut turn = None;
        // First come, first served, also while the tables are read.
        if let Some(uri) = request.uri.clone().filter(|_| request.is_first()) {
            turn = Some(sources.module.turns.take(&Key { uri, package: request.number }).await);
        }
        // The sender lives in the module.
        let _ = loaded.wait_for(|loaded| *loaded).await;
        let prepared = match key_of(&sources, &request).await {
            Ok((key, row)) => {
                if turn.is_none() {
                    turn = Some(sources.module.turns.take(&key).await);
                }
                prepare(&sources, &request, key, row).await
            }
            Err(refusal) => Err(refusal),
        };
        Box::new(move |ctx: &mut Ctx| {
            let done = prepared.and_then(|prepared| finish(ctx, &sources.module, &request, prepared));
            let rc = match done {
                Ok(()) => 1,
                Err(refusal) => super::refuse(ctx, &sources.module, refusal),
            };
            drop(turn);
            rc
        }) as Finish
    })
    .detail(detail)
}

/// Reads the current request. The error is what it is refused with.
pub fn read(module: &Presence, ctx: &mut Ctx, terms: &Terms<'_>) -> Result<Request, Refusal> {
    let msg = ctx.state.msg.clone();
    let event = msg.value(HeaderName::Event).and_then(|value| Event::parse(&value)).ok_or(BAD_EVENT)?;
    let (number, package) = module.packages.of_event(&event).ok_or(BAD_EVENT)?;
    let expires = super::expires_of(&msg, package.default_expires)?.min(terms.max_expires);
    let party = |address: Option<NameAddr>| {
        let uri = address.and_then(|a| Uri::parse(&a.uri).ok()).ok_or(BAD_REQUEST)?;
        Ok::<_, Refusal>((uri.user.unwrap_or_default(), uri.host))
    };
    let (to_user, to_domain) = party(msg.to())?;
    let (from_user, from_domain) = party(msg.from())?;
    let contact = msg.addresses(HeaderName::Contact).ok().and_then(|all| all.into_iter().next());
    let contact = contact.ok_or(BAD_REQUEST)?.uri;
    // `*` is one of REGISTER only: nobody could be told there.
    Uri::parse(&contact).map_err(|_| BAD_REQUEST)?;
    let from_tag = msg.from_tag().filter(|tag| !tag.is_empty()).ok_or(BAD_REQUEST)?;
    let to_tag = msg.to_tag().unwrap_or_default();
    let is_first = to_tag.is_empty();
    let uri = match package.is_shared_line() {
        true => Some(shared_line(module, ctx, &contact, &from_domain)?),
        false if is_first => {
            let uri = Uri::parse(&ctx.state.current_uri()).map_err(|_| BAD_REQUEST)?;
            Some(uri_of(&uri.user.unwrap_or_default(), &uri.host).into())
        }
        false => None,
    };
    let record_route = if is_first { record_route(&msg) } else { Bytes::new() };
    let texts = [
        from_user,
        from_domain,
        to_user,
        to_domain,
        msg.call_id().ok_or(BAD_REQUEST)?,
        to_tag,
        from_tag,
        contact,
        record_route,
        local_contact(terms, ctx).into(),
        event.id(),
        Bytes::new(),
    ];
    let cseq = msg.cseq().ok_or(BAD_REQUEST)?.number;
    let socket = ctx.state.source.socket;
    Ok(Request { package, number, expires, cseq, texts, uri, forced: false, socket })
}

/// The line that a phone of a group shares: what the script says, else the user of its Contact.
fn shared_line(module: &Presence, ctx: &mut Ctx, contact: &Bytes, domain: &Bytes) -> Result<Bytes, Refusal> {
    if let Some(spec) = &module.bla_spec {
        let line = spec.get(ctx).text().ok_or(BAD_REQUEST)?;
        let line = Uri::parse(&line).map_err(|_| BAD_REQUEST)?;
        return Ok(uri_of(&line.user.unwrap_or_default(), &line.host).into());
    }
    let contact = Uri::parse(contact).map_err(|_| BAD_REQUEST)?;
    Ok(uri_of(&contact.user.unwrap_or_default(), domain).into())
}

fn record_route(msg: &Message) -> Bytes {
    let lines: Vec<&[u8]> = msg.headers_of(HeaderName::RecordRoute).map(|h| msg.bytes(h.value())).collect();
    lines.join(&b","[..]).into()
}

/// Our address as the watcher knows it now.
fn local_contact(terms: &Terms<'_>, ctx: &Ctx) -> String {
    if let Some(address) = terms.address {
        return address.to_owned();
    }
    let names = host::tm::branch::socket_names(ctx, &ctx.state.source);
    let at = if terms.contact_user.is_empty() { "" } else { "@" };
    let transport = match ctx.state.source.transport {
        sip::Transport::Udp => String::new(),
        other => format!(";transport={}", other.as_str()),
    };
    let host = String::from_utf8_lossy(&names.host);
    format!("sip:{}{at}{host}:{}{transport}", terms.contact_user, names.port)
}

/// Whom the request is about, and the subscription where only the database has it.
async fn key_of(sources: &Sources, request: &Request) -> Result<(Arc<Key>, Option<Subscription>), Refusal> {
    let module = &sources.module;
    if request.is_first() {
        let uri = request.uri.clone().ok_or(BAD_REQUEST)?;
        return Ok((Arc::new(Key { uri, package: request.number }), None));
    }
    let dialog = request.dialog();
    if let Some(key) = module.table.key_of(&dialog) {
        return if key.package == request.number { Ok((key, None)) } else { Err(NO_SUBSCRIPTION) };
    }
    if !module.fallback {
        return Err(NO_SUBSCRIPTION);
    }
    let query = module.tables.subscription(&dialog, request.package.name);
    let rows =
        sources.pool.run(query).await.map_err(|error| broken("subscriptions were not read", &error))?;
    let row = rows.first().and_then(|row| sql::read(&sources.shared, &row)).ok_or(NO_SUBSCRIPTION)?;
    let (uri, _, subscription) = row;
    Ok((Arc::new(Key { uri, package: request.number }), Some(subscription)))
}

fn broken(what: &str, why: &dyn std::fmt::Display) -> Refusal {
    host::error!("presence", "{what}: {why}");
    BROKEN
}

async fn prepare(
    sources: &Sources,
    request: &Request,
    key: Arc<Key>,
    row: Option<Subscription>,
) -> Result<Prepared, Refusal> {
    let module = &sources.module;
    let package = &request.package;
    let asks = package.documents.is_some();
    let policy = match asks {
        true => sources.policy(&key).await.map_err(|why| broken("rules were not read", &why))?,
        false => Policy::Everybody,
    };
    let (status, reason) = match (&row, request.is_first()) {
        (Some(row), _) => (row.status, Reason(row.bytes(Field::Reason))),
        (None, true) if !asks || request.forced => (Status::Active, Reason::NONE),
        (None, true) => admit(sources, request, &key, &policy).await?,
        (None, false) => {
            let stored = |s: &mut Subscription| (s.status, Reason(s.bytes(Field::Reason)));
            module.table.with(&key, &request.dialog(), stored).ok_or(NO_SUBSCRIPTION)?
        }
    };
    let mut news = News::of(None);
    let is_told = status == Status::Active && reason != Reason::POLITE_BLOCK;
    if package.is_winfo() {
        news.body = Some(watched_by(sources, &key, package).await?);
    } else if is_told {
        let found = sources.body(&key, package, Ask::ALL).await;
        let found = found.map_err(|error| broken("published states were not read", &error))?;
        (news.body, news.headers) = (found.body, found.headers);
        news.sphere = module.sphere_check.then(|| module.presentities.sphere(&key)).flatten();
    }
    let mut watchers = None;
    if request.expires == 0 && module.packages.peer(package).is_some_and(|(_, p)| p.is_winfo()) {
        let all = winfo::watchers(sources, &key, package).await;
        watchers = Some(all.map_err(|error| broken("watchers were not read", &error))?);
    }
    Ok(Prepared { key, status, reason, row, policy, news, watchers })
}

/// The body of who watches the watchers.
async fn watched_by(sources: &Sources, key: &Key, package: &Package) -> Result<Bytes, Refusal> {
    let uri = String::from_utf8_lossy(&key.uri);
    let Some((number, watched)) = sources.module.packages.peer(package) else {
        return Ok(winfo::body(&uri, package.name.trim_end_matches(".winfo"), List::Full, &[]));
    };
    let watched_key = Key { uri: key.uri.clone(), package: number };
    let all = winfo::watchers(sources, &watched_key, &watched).await;
    let all = all.map_err(|error| broken("watchers were not read", &error))?;
    Ok(winfo::body(&uri, watched.name, List::Full, &all))
}

/// What was decided about a watcher, or is decided now, by the rules of the user.
async fn admit(
    sources: &Sources,
    request: &Request,
    key: &Key,
    policy: &Policy,
) -> Result<(Status, Reason), Refusal> {
    let (tables, event) = (&sources.module.tables, request.package.name);
    let (user, domain) = (request.text(Field::FromUser), request.text(Field::FromDomain));
    let failed = |error| broken("the table of watchers did not answer", &error);
    let rows = sources.pool.run(tables.known_watcher(key, event, user, domain)).await.map_err(failed)?;
    if let Some(row) = rows.first() {
        let status = row.int(0).and_then(Status::of_number).ok_or(BROKEN)?;
        return Ok((status, Reason(row.text(1).unwrap_or_default())));
    }
    let (status, reason) = policy.decide(&sources.watcher(key, user, domain), Status::Pending);
    let row = tables.insert_watcher(key, event, (user, domain), (status, &reason), sources.now);
    sources.pool.run(row).await.map_err(failed)?;
    Ok((status, reason))
}

fn finish(
    ctx: &mut Ctx,
    module: &Arc<Presence>,
    request: &Request,
    prepared: Prepared,
) -> Result<(), Refusal> {
    let Prepared { key, status, reason, row, policy, mut news, mut watchers } = prepared;
    news.policy = policy;
    let code = if status == Status::Pending && !request.package.is_winfo() { 202 } else { 200 };
    let now = super::now_s(ctx) as u32;
    let until = now.saturating_add(request.expires).saturating_add(module.expires_offset);
    let subscription = match request.is_first() {
        true => begin(ctx, module, request, &key, (status, &reason), until)?,
        false => go_on(ctx, module, request, &key, row, until)?,
    };
    // The offset shows in the reply, as it does there.
    let shown = if request.expires == 0 { 0 } else { request.expires.saturating_add(module.expires_offset) };
    let contact = request.text(Field::LocalContact);
    ctx.state.reply_headers.push(format!("Expires: {shown}\r\n").into());
    ctx.state.reply_headers.push([b"Contact: <", &contact[..], b">\r\n"].concat().into());
    host::reply::send(ctx, code, b"OK");
    if !request.package.is_winfo() {
        match watchers.take() {
            // It was among them until now.
            Some(mut all) => {
                all.retain(|seen| seen.id.as_bytes() != request.text(Field::CallId));
                if status == Status::Pending && !all.iter().any(|s| s.uri == subscription.watcher()) {
                    all.insert(0, Seen::waiting(subscription.watcher()));
                }
                winfo::tell(ctx, module, &key, &request.package, List::Full, &all);
            }
            None => {
                let seen = [Seen::of(&subscription)];
                winfo::tell(ctx, module, &key, &request.package, List::Partial, &seen);
            }
        }
    }
    let whom = match request.expires {
        0 => Whom::Gone(Box::new(subscription)),
        _ if module.table.with(&key, &subscription.dialog(), |_| ()).is_none() => {
            Whom::Row(Box::new(subscription))
        }
        _ => Whom::Stored(subscription.dialog()),
    };
    notify::post(ctx, module, &key, &request.package, news, vec![whom]);
    Ok(())
}

/// A first SUBSCRIBE; with 0 seconds it only asks (RFC 6665 §4.4.3).
fn begin(
    ctx: &mut Ctx,
    module: &Arc<Presence>,
    request: &Request,
    key: &Arc<Key>,
    (status, reason): (Status, &Reason),
    until: u32,
) -> Result<Subscription, Refusal> {
    let mut texts = request.texts.clone();
    texts[Field::ToTag as usize] = host::reply::own_to_tag(ctx);
    texts[Field::Reason as usize] = reason.0.clone();
    let mut subscription = Subscription::new(&texts, until, status);
    (subscription.remote_cseq, subscription.socket) = (request.cseq, request.socket);
    if request.expires == 0 {
        subscription.expires = 0;
        return Ok(subscription);
    }
    let dialog = subscription.dialog();
    if module.table.with(key, &dialog, |_| ()).is_some() {
        host::error!("presence", "there is a subscription with Call-ID and tags of this one already");
        return Err(BROKEN);
    }
    if module.fallback {
        subscription.unwritten = Unwritten::Nothing;
        let query = module.tables.insert_subscription(ctx.shared(), key, request.package.name, &subscription);
        super::write(ctx, module, query);
    }
    if !module.table.insert(key, subscription.clone()) {
        host::error!(
            "presence",
            "a subscription was refused: there are {} already",
            module.table.subscriptions()
        );
        return Err(BROKEN);
    }
    Ok(subscription)
}

/// A SUBSCRIBE inside its dialog.
fn go_on(
    ctx: &mut Ctx,
    module: &Arc<Presence>,
    request: &Request,
    key: &Arc<Key>,
    row: Option<Subscription>,
    until: u32,
) -> Result<Subscription, Refusal> {
    let dialog = request.dialog();
    let event = request.package.name;
    let is_in_order = |s: &mut Subscription| request.cseq > s.remote_cseq;
    let in_order = match &row {
        Some(row) => request.cseq > row.remote_cseq,
        None => module.table.with(key, &dialog, is_in_order).ok_or(NO_SUBSCRIPTION)?,
    };
    if !in_order {
        return Err(BAD_REQUEST);
    }
    if request.expires == 0 {
        let stored = module.table.remove(key, &dialog).or(row);
        super::write(ctx, module, module.tables.delete_subscription(key, event, &dialog.to_tag));
        let mut gone = stored.ok_or(NO_SUBSCRIPTION)?;
        gone.expires = 0;
        gone.set(Field::LocalContact, request.text(Field::LocalContact));
        return Ok(gone);
    }
    let refresh = |s: &mut Subscription| {
        (s.expires, s.remote_cseq, s.socket) = (until, request.cseq, request.socket);
        s.set(Field::Contact, request.text(Field::Contact));
        s.set(Field::LocalContact, request.text(Field::LocalContact));
        s.touched();
        s.clone()
    };
    let refreshed = match row {
        Some(mut row) => refresh(&mut row),
        None => module.table.with(key, &dialog, refresh).ok_or(NO_SUBSCRIPTION)?,
    };
    if module.fallback {
        super::write(ctx, module, module.tables.update_subscription(key, event, &refreshed));
    }
    Ok(refreshed)
}
