//! handle_publish (RFC 3903): a state is stored, changed or ended, and its watchers hear of it.

use super::body::{Ask, Calls, Sources};
use super::mix::DialogState;
use super::notify::{self, Telling};
use super::packages::{BAD_EVENT, BAD_REQUEST, BROKEN, Event, Extent, Package, Refusal};
use super::sql::{Owner, PublishedState};
use super::table::{Key, Published};
use super::{Presence, subscription};
use crate::xml::{self, Element};
use bytes::Bytes;
use host::db::DbError;
use host::events::EventParams;
use host::{Call, Ctx, Finish, Outcome, Suspension, Text, Value};
use sip::{HeaderName, Message, Uri};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const UNSUPPORTED_TYPE: Refusal = Refusal(415, "Unsupported media type");
const CONDITION_FAILED: Refusal = Refusal(412, "Conditional request failed");

/// A PUBLISH, read.
pub(super) struct Publication {
    pub key: Arc<Key>,
    pub package: Arc<Package>,
    pub user: Bytes,
    pub domain: Bytes,
    /// Seconds.
    pub expires: u32,
    /// SIP-If-Match
    pub etag: Option<Bytes>,
    pub body: Option<Bytes>,
    pub headers: Option<Bytes>,
    pub sender: Bytes,
    pub sphere: Option<String>,
}

/// What became of it.
pub(super) enum Stored {
    Refused(Refusal),
    /// Its new tag, and what watchers hear.
    Done(Bytes, Vec<Telling>),
}

/// handle_publish([sender]): 1 answered, also with 412; -1 refused.
pub fn handle(call: &mut Call<Presence>, sender: Option<Text>) -> Outcome {
    let module = call.module.clone();
    let Some(sources) = Sources::open(&module, call.ctx) else {
        host::complain!(call.ctx, "presence", "handle_publish needs db_url");
        return (-1).into();
    };
    let publication = match read(&module, call.ctx, sender) {
        Ok(publication) => publication,
        Err(refusal) => return super::refuse(call.ctx, &module, refusal).into(),
    };
    let mut loaded = module.loaded.subscribe();
    let detail = publication.key.uri.clone();
    Suspension::future("handle_publish", async move {
        // First come, first served, also while the tables are read.
        let turn = sources.module.turns.take(&publication.key).await;
        // The sender lives in the module.
        let _ = loaded.wait_for(|loaded| *loaded).await;
        let stored = store(&sources, &publication).await;
        Box::new(move |ctx: &mut Ctx| {
            let rc = finish(ctx, &sources.module, &publication, stored);
            drop(turn);
            rc
        }) as Finish
    })
    .detail(detail)
}

fn finish(
    ctx: &mut Ctx,
    module: &Arc<Presence>,
    publication: &Publication,
    stored: Result<Stored, DbError>,
) -> i32 {
    let etag = match stored {
        Ok(Stored::Done(etag, tellings)) => {
            let shown = publication.expires.saturating_sub(module.expires_offset);
            ctx.state.reply_headers.push(format!("Expires: {shown}\r\n").into());
            ctx.state.reply_headers.push([b"SIP-ETag: ", &etag[..], b"\r\n"].concat().into());
            host::reply::send(ctx, 200, b"OK");
            for telling in tellings {
                notify::tell(ctx, module, telling);
            }
            etag
        }
        Ok(Stored::Refused(refusal)) => {
            super::refuse(ctx, module, refusal);
            Bytes::new()
        }
        Err(error) => {
            host::error!("presence", "a published state was not stored: {error}");
            return super::refuse(ctx, module, BROKEN);
        }
    };
    let text = |bytes: &Bytes| if bytes.is_empty() { Value::Null } else { Value::Str(bytes.clone()) };
    let params: EventParams = [
        ("user", text(&publication.user)),
        ("domain", text(&publication.domain)),
        ("event", Value::from(publication.package.name.to_string())),
        ("expires", Value::Int(publication.expires.into())),
        ("old_etag", text(&publication.etag.clone().unwrap_or_default())),
        ("etag", text(&etag)),
        ("body", text(&publication.body.clone().unwrap_or_default())),
    ]
    .into_iter()
    .collect();
    host::events::raise(ctx, super::PUBLISHED, params);
    1
}

/// Is the body of the type that the package has (RFC 3903 §6, step 4)? One without a type counts as such.
fn is_of_type(msg: &Message, wanted: &str) -> bool {
    let Some(value) = msg.value(HeaderName::ContentType) else { return true };
    let end = value.iter().position(|b| *b == b';').unwrap_or(value.len());
    value[..end].trim_ascii().eq_ignore_ascii_case(wanted.as_bytes())
}

fn read(module: &Presence, ctx: &mut Ctx, sender: Option<Text>) -> Result<Publication, Refusal> {
    let msg = ctx.state.msg.clone();
    let event = msg.value(HeaderName::Event).and_then(|value| Event::parse(&value)).ok_or(BAD_EVENT)?;
    let (number, package) = module.packages.of_event(&event).ok_or(BAD_EVENT)?;
    let expires = super::expires_of(&msg, package.default_expires)?.min(module.max_expires_publish);
    let uri = Uri::parse(&ctx.state.current_uri()).map_err(|_| BAD_REQUEST)?;
    let etag = msg.value(HeaderName::SipIfMatch);
    msg.content_length().ok_or(BAD_REQUEST)?;
    let body = msg.text(msg.body());
    let body = (!body.is_empty() && !package.content_type.is_empty()).then_some(body);
    if body.is_none() && etag.is_none() && package.needs_body {
        return Err(BAD_REQUEST);
    }
    if body.is_some() && !is_of_type(&msg, package.content_type) {
        ctx.state.reply_headers.push(format!("Accept: {}\r\n", package.content_type).into());
        return Err(UNSUPPORTED_TYPE);
    }
    let sender = sender.map(|s| s.0).unwrap_or_default();
    if !sender.is_empty() && Uri::parse(&sender).is_err() {
        return Err(BAD_REQUEST);
    }
    if let Some(admits) = package.admits {
        admits(&msg)?;
    }
    let sphere =
        body.as_ref().filter(|_| module.sphere_check && package.is_presence()).and_then(|b| sphere_of(b));
    let user = uri.user.unwrap_or_default();
    let key = Key { uri: subscription::uri_of(&user, &uri.host).into(), package: number };
    let headers = extra_headers(&msg, &package);
    Ok(Publication {
        key: Arc::new(key),
        package,
        user,
        domain: uri.host,
        expires,
        etag,
        body,
        headers,
        sender,
        sphere,
    })
}

/// Lines of the headers that a package passes on; `None`: it passes none on.
fn extra_headers(msg: &Message, package: &Package) -> Option<Bytes> {
    let mut all = Vec::new();
    for name in package.headers {
        for header in msg.headers_named(name.as_bytes()) {
            all.extend_from_slice(&[name.as_bytes(), b": ", msg.bytes(header.value()), b"\r\n"].concat());
        }
    }
    (!all.is_empty()).then(|| all.into())
}

/// Where the user says to be (RFC 4480).
pub fn sphere_of(body: &[u8]) -> Option<String> {
    let root = xml::parse(body).ok()?;
    let content = root.find("sphere").map(Element::content)?;
    let content = content.trim();
    (!content.is_empty()).then(|| content.to_string())
}

/// A tag in the form of the reference: a.START.PROCESS.COUNT.CHANGES
fn new_etag(module: &Presence, changes: u32) -> Bytes {
    let count = module.counter.fetch_add(1, Ordering::Relaxed);
    format!("a.{}.{}.{count}.{changes}", module.started.load(Ordering::Relaxed), std::process::id()).into()
}

async fn store(sources: &Sources, p: &Publication) -> Result<Stored, DbError> {
    let module = &sources.module;
    let owner = Owner { user: &p.user, domain: &p.domain, event: p.package.name };
    let mut state = PublishedState {
        etag: &Bytes::new(),
        expires: sources.now + i64::from(p.expires),
        received: sources.now,
        sender: &p.sender,
        body: p.body.as_ref(),
        headers: p.headers.as_ref(),
    };
    let Some(old) = &p.etag else {
        let etag = new_etag(module, 0);
        state.etag = &etag;
        sources.pool.run(module.tables.insert_state(&owner, &state)).await?;
        module
            .presentities
            .insert(&p.key, Published { etag: etag.clone(), count: 1, sphere: p.sphere.clone() });
        let tellings = changed(sources, p, p.body.as_ref()).await?;
        return Ok(Stored::Done(etag, tellings));
    };
    let known = module.presentities.find(&p.key, old);
    if known.is_none() {
        let rows = sources.pool.run(module.tables.published(&owner)).await?;
        if !rows.iter().any(|row| row.text(3).as_ref() == Some(old)) {
            return Ok(Stored::Refused(CONDITION_FAILED));
        }
    }
    if p.expires == 0 {
        return ended(sources, p, &owner, old).await;
    }
    let known = known.unwrap_or(Published { etag: old.clone(), count: 0, sphere: None });
    let etag = if p.package.keeps_tag { old.clone() } else { new_etag(module, known.count) };
    let body = p.body.as_ref().map(|body| with_own_targets(module, body));
    (state.etag, state.body) = (&etag, body.as_ref());
    sources.pool.run(module.tables.update_state(&owner, old, &state)).await?;
    let sphere = if p.body.is_some() { p.sphere.clone() } else { known.sphere };
    let new = Published { etag: etag.clone(), count: known.count.wrapping_add(1), sphere };
    if !module.presentities.renew(&p.key, old, &new) {
        module.presentities.insert(&p.key, new);
    }
    // A mere refresh is nobody's news.
    let tellings = match body.is_none() && p.headers.is_none() {
        true => Vec::new(),
        false => changed(sources, p, body.as_ref()).await?,
    };
    Ok(Stored::Done(etag, tellings))
}

/// The source takes its state back.
pub(super) async fn ended(
    sources: &Sources,
    p: &Publication,
    owner: &Owner<'_>,
    etag: &Bytes,
) -> Result<Stored, DbError> {
    let module = &sources.module;
    module.presentities.remove(&p.key, etag);
    let mut tellings = Vec::new();
    let published = p.body.as_ref();
    let last = Ask { ending: Some(etag), published, extent: Extent::Partial, calls: Calls::Look };
    tellings.extend(telling(sources, &p.key, &p.package, last, p).await?);
    sources.pool.run(module.tables.delete_state(owner, etag)).await?;
    // What is left; possibly nothing.
    let rest = Ask { extent: Extent::Partial, ..Ask::ALL };
    tellings.extend(telling(sources, &p.key, &p.package, rest, p).await?);
    tellings.extend(mixed(sources, p, published).await?);
    Ok(Stored::Done(etag.clone(), tellings))
}

/// What watchers hear of a state that came or changed.
pub(super) async fn changed(
    sources: &Sources,
    p: &Publication,
    body: Option<&Bytes>,
) -> Result<Vec<Telling>, DbError> {
    let ask = Ask { ending: None, published: body, extent: Extent::Partial, calls: Calls::Look };
    let mut tellings = Vec::from_iter(telling(sources, &p.key, &p.package, ask, p).await?);
    tellings.extend(mixed(sources, p, body).await?);
    Ok(tellings)
}

/// Watchers of presence hear of dialogs, too.
async fn mixed(sources: &Sources, p: &Publication, body: Option<&Bytes>) -> Result<Option<Telling>, DbError> {
    let module = &sources.module;
    if !module.mix_dialog_presence || !p.package.is_dialog() {
        return Ok(None);
    }
    let Some((number, presence)) = module.packages.named("presence") else { return Ok(None) };
    let Some(state) = body.and_then(|body| DialogState::of_body(body)) else { return Ok(None) };
    let calls = match state.presence(&String::from_utf8_lossy(&p.key.uri)) {
        Some(shown) => Calls::Is(shown),
        None => Calls::Look,
    };
    let key = Arc::new(Key { uri: p.key.uri.clone(), package: number });
    let ask = Ask { calls, extent: Extent::Partial, ..Ask::ALL };
    telling(sources, &key, &presence, ask, p).await
}

async fn telling(
    sources: &Sources,
    key: &Arc<Key>,
    package: &Arc<Package>,
    ask: Ask<'_>,
    p: &Publication,
) -> Result<Option<Telling>, DbError> {
    let own = ask.published.cloned();
    let Some(mut telling) = notify::telling(sources, key, package, ask, &p.sender).await? else {
        return Ok(None);
    };
    // The newest body is the one.
    if package.aggregate.is_none() && own.is_some() {
        telling.body = own;
    }
    if let Some(headers) = &p.headers {
        telling.headers = headers.clone();
    }
    Ok(Some(telling))
}

/// A changed document says nothing of the other side's address (`bla_fix_remote_target`): phones would call it directly.
fn with_own_targets(module: &Presence, body: &Bytes) -> Bytes {
    let Some(mut root) = module.fix_remote_target.then(|| xml::parse(body).ok()).flatten() else {
        return body.clone();
    };
    for node in &mut root.children {
        if let xml::Node::Element(dialog) = node
            && dialog.is("dialog")
            && let Some(remote) = dialog.find_mut("remote")
            && let (Some(_), Some(identity)) = (remote.first("target"), remote.first("identity"))
        {
            let target = Element::new("target", &remote.namespace).attribute("uri", identity.content());
            remote.retain(|e| !e.is("target"));
            remote.children.push(xml::Node::Element(target));
        }
    }
    root.document()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sphere_is_found() {
        let body =
            b"<presence xmlns='urn:ietf:params:xml:ns:pidf' xmlns:r='urn:ietf:params:xml:ns:pidf:rpid'>\
            <person><r:sphere> work </r:sphere></person></presence>";
        assert_eq!(sphere_of(body).as_deref(), Some("work"));
        assert_eq!(sphere_of(b"no xml"), None);
    }

    #[test]
    fn addresses_of_others_are_replaced() {
        let module = Presence { fix_remote_target: true, ..Presence::default() };
        let body = Bytes::from_static(
            b"<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\"><dialog id=\"1\"><remote>\
              <identity>sip:a@x</identity><target uri=\"sip:10.0.0.1\"/></remote></dialog></dialog-info>",
        );
        let fixed = String::from_utf8(with_own_targets(&module, &body).to_vec()).unwrap();
        assert!(fixed.contains("<target uri=\"sip:a@x\"/>") && !fixed.contains("10.0.0.1"), "{fixed}");
        let text = Bytes::from_static(b"Messages-Waiting: yes");
        assert_eq!(with_own_targets(&module, &text), text);
    }
}
